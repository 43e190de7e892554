//! The configuration: one typed struct for every service, from four layers.
//!
//! Weakest first: defaults; the file (`walras.toml`, or `--config`, or `WALRAS_CONFIG`); the environment; flags.
//! A variable's name is `WALRAS_` and the key in capitals, its parts joined by two underscores:
//! `bus.nats_url` is `WALRAS_BUS__NATS_URL`, `market.exchanges.main.rules.price_rule` is
//! `WALRAS_MARKET__EXCHANGES__MAIN__RULES__PRICE_RULE`. Its text is read as the key's type wants it; lists and
//! tables are written as TOML (`WALRAS_TENANTS='[{ id = "a", token_sha256 = "…" }]'`), and an empty text unsets
//! a value that may be absent. A name with small letters only can be set so; others need the file.
//!
//! Unknown keys are refused in every layer, and so is a `WALRAS_` variable that is no key, except those in
//! [`VARIABLES`] and those that Kubernetes makes up for a service called `walras`. Paths in a file are relative
//! to the file's folder, paths elsewhere to the working directory. An error is one line that names the source,
//! the key and the value; secrets are never shown.

mod access;
mod catalogue;
mod check;
mod dump;
mod flags;
mod layers;
mod management;
mod parties;
mod reading;
mod secret;
mod settings;
mod site;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use catalogue::{CatalogueMarket, MARKETS_MAX, RUNGS_MAX};
pub use check::PARTIES_MAX;
pub use flags::{ConfigFlags, FILE_DEFAULT};
pub use layers::Origin;
pub use management::{
    ControlplaneSection, ExposureKind, ExposureSettings, ManagementSettings, PlaneObjectives,
    SIMULATED_HOSTS_MAX,
};
pub use parties::{Party, PublicKey, Service, Storefront, Tenant};
pub use secret::{MASK, SecretUrl, TokenHash};
pub use settings::{
    AdminSettings, BusSettings, Config, DemoSettings, EXCHANGES_MAX, ExchangeSettings, GatewaySettings,
    JournalSettings, LogFormat, MarketSection, PlacementSection, RunnerSettings, TelemetrySettings,
    WebhookSettings,
};
pub use site::{DATA_STORES_MAX, DataStoreSettings, HOSTS_MAX, HostSettings, SITES_MAX, SiteSettings};

use catalogue::Catalogue;
use layers::{Node, PREFIX};

/// Variables that begin like ours and are no keys: what the command line and the tests read.
pub const VARIABLES: [&str; 10] = [
    "WALRAS_CONFIG",
    "WALRAS_NATS_SERVER",
    "WALRAS_REQUIRE_NATS",
    "WALRAS_REQUIRE_POSTGRES",
    "WALRAS_REVISION",
    "WALRAS_SIMULATION_SEEDS",
    "WALRAS_TOKEN",
    "WALRAS_TOKEN_FILE",
    "WALRAS_UPDATE",
    "WALRAS_URL",
];

/// Largest file that is read as configuration or catalogue, in bytes.
pub const FILE_BYTES_MAX: u64 = 32 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no TOML.
    #[error("{}:{line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A value cannot be.
    #[error("{origin}: {key}: {problem}")]
    Value {
        /// Where it was set.
        origin: Origin,
        /// Which key.
        key: String,
        /// What is wrong, with the value unless it is secret.
        problem: String,
    },
    /// A flag cannot be.
    #[error("flag {flag}: {problem}")]
    Flag {
        /// The flag.
        flag: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The configuration cannot be printed.
    #[error("the configuration cannot be printed")]
    Dump {
        /// Why.
        source: serde_json::Error,
    },
}

impl ConfigError {
    fn value(origin: &Origin, key: &str, problem: &str) -> Self {
        Self::Value { origin: origin.clone(), key: key.to_owned(), problem: problem.to_owned() }
    }
}

/// What there is to read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, which must be there.
    pub file: Option<PathBuf>,
    /// All variables; those that do not begin like ours are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags: the flag, the key it sets, the value.
    pub flags: Vec<(String, String, String)>,
}

/// A configuration and where its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    layers: Node,
}

impl Loaded {
    /// Where the value at a dotted key came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.layers.origin_of(&key.split('.').collect::<Vec<_>>())
    }

    /// The configuration as TOML, secrets masked, each value with its source as a comment.
    ///
    /// # Errors
    /// When it cannot be written as TOML.
    pub fn dump(&self) -> Result<String, ConfigError> {
        dump::dump(&self.config, &self.layers)
    }
}

/// Reads and checks a configuration.
///
/// # Errors
/// [`ConfigError`]: one line that names key, value and source.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut layers = Node::empty();
    if let Some(path) = &sources.file {
        layers.overlay(Node::from_toml(path, &read_file(path)?)?);
    }
    layers.overlay(environment_layer(&sources.environment)?);
    let mut flags = Node::empty();
    for (flag, key, value) in &sources.flags {
        flags.set(key, &Origin::Flag { flag: flag.as_str().into() }, value)?;
    }
    layers.overlay(flags);
    let config = reading::read(layers.clone())?;
    let mut loaded = Loaded { config, layers };
    settle_paths(&mut loaded);
    read_catalogues(&mut loaded)?;
    check::check(&loaded.config).map_err(|fault| {
        let origin = loaded.layers.nearest_origin(&parts(&fault.key));
        ConfigError::Value { origin, key: fault.key, problem: fault.problem }
    })?;
    Ok(loaded)
}

/// The parts of a key without the indexes of lists, whose entries have one source.
fn parts(key: &str) -> Vec<&str> {
    key.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect()
}

fn environment_layer(environment: &[(OsString, OsString)]) -> Result<Node, ConfigError> {
    let mut ours: Vec<(String, &OsString)> = environment
        .iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with(PREFIX) && !VARIABLES.contains(&name.as_str()))
        .collect();
    ours.sort();
    let mut layer = Node::empty();
    for (name, value) in ours {
        let Some(key) = layers::key_of_variable(&name) else { continue };
        let origin = Origin::Environment { variable: name.as_str().into() };
        let Some(value) = value.to_str() else {
            return Err(ConfigError::value(&origin, &key, "is no UTF-8"));
        };
        if !is_service_link(&name, value) {
            layer.set(&key, &origin, value)?;
        }
    }
    Ok(layer)
}

/// Whether Kubernetes put this variable into the pod because a Service is called `walras…`: such names cannot
/// be told from typing errors by the name alone, and nobody can take them out of a pod.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_port = |name: &str| {
        let Some((_, rest)) = name.rsplit_once("_PORT_") else { return false };
        let mut words = rest.split('_');
        let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        let protocol = words.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"));
        number && protocol
    };
    if name.contains("__") {
        return false;
    }
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_address)
        || is_port(name)
        || name.strip_suffix("_PORT").is_some_and(is_port)
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let refused = |source| ConfigError::File { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(refused)?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(refused)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(refused(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(text)
}

/// Makes paths that stand in a file relative to its folder, and fills in what follows from the data directory.
fn settle_paths(loaded: &mut Loaded) {
    let Loaded { config, layers } = loaded;
    let settle = |key: &[&str], path: &mut PathBuf| {
        if let Origin::File { path: file, .. } = layers.origin_of(key)
            && let Some(folder) = file.parent()
        {
            *path = folder.join(&*path);
        }
    };
    settle(&["data_dir"], &mut config.data_dir);
    for (key, path) in [
        ("nats_server", &mut config.bus.nats_server),
        ("seed_file", &mut config.bus.seed_file),
        ("certificate_authority", &mut config.bus.certificate_authority),
    ] {
        if let Some(path) = path {
            settle(&["bus", key], path);
        }
    }
    if let Some(path) = &mut config.controlplane.kubeconfig {
        settle(&["controlplane", "kubeconfig"], path);
    }
    for (name, site) in &mut config.controlplane.sites {
        if let Some(path) = &mut site.kubeconfig {
            settle(&["controlplane", "sites", name.as_str(), "kubeconfig"], path);
        }
    }
    if let Some(path) = &mut config.runner.archive_dir {
        settle(&["runner", "archive_dir"], path);
    }
    for (name, exchange) in &mut config.market.exchanges {
        if let Some(path) = &mut exchange.catalogue {
            settle(&["market", "exchanges", name.as_str(), "catalogue"], path);
        }
    }
    let data_dir = config.data_dir.clone();
    config.runner.archive_dir.get_or_insert_with(|| data_dir.join("archive"));
    config
        .journal
        .database_url
        .get_or_insert_with(|| SecretUrl::new(format!("sqlite:{}", data_dir.join("walras.db").display())));
}

fn read_catalogues(loaded: &mut Loaded) -> Result<(), ConfigError> {
    for exchange in loaded.config.market.exchanges.values_mut() {
        exchange.from_catalogue = match &exchange.catalogue {
            Some(path) => catalogue_of(path, &read_file(path)?)?,
            None if exchange.markets.is_empty() => {
                catalogue_of(Path::new(catalogue::BUILT_IN_NAME), catalogue::BUILT_IN)?
            }
            None => Vec::new(),
        };
    }
    Ok(())
}

fn catalogue_of(path: &Path, text: &str) -> Result<Vec<CatalogueMarket>, ConfigError> {
    reading::read::<Catalogue>(Node::from_toml(path, text)?).map(|catalogue| catalogue.markets)
}
