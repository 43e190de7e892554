//! Every setting there is, with its default.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use proto::id::StreamName;
use proto::market::Rules;
use serde::{Deserialize, Serialize};

use crate::bus::StreamSpec;

use super::catalogue::CatalogueMarket;
use super::management::ControlplaneSection;
use super::parties::{Party, Service, Storefront, Tenant};
use super::secret::SecretUrl;
use super::site::SiteSettings;

/// The configuration of every service: one file describes one installation, and each service takes its part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of everything that is kept on this machine: the SQLite journal, the broker's store, keys.
    pub data_dir: PathBuf,
    /// The bus.
    pub bus: BusSettings,
    /// The record.
    pub journal: JournalSettings,
    /// The market service.
    pub market: MarketSection,
    /// Telling tenants over HTTP.
    pub webhooks: WebhookSettings,
    /// The placement service.
    pub placement: PlacementSection,
    /// The control-plane service.
    pub controlplane: ControlplaneSection,
    /// How machines are run.
    pub runner: RunnerSettings,
    /// The HTTP door for tenants.
    pub gateway: GatewaySettings,
    /// Endpoints for operators: health and metrics.
    pub admin: AdminSettings,
    /// Logs.
    pub telemetry: TelemetrySettings,
    /// The simulated outside world of `walras up`.
    pub demo: DemoSettings,
    /// Our own services, by the keys they show to a broker that is not our child.
    pub services: Vec<Service>,
    /// Tenants that the gateway knows.
    pub tenants: Vec<Tenant>,
    /// Services that bid for tenants over the bus.
    pub storefronts: Vec<Storefront>,
    /// Who owns servers.
    pub hypervisors: Vec<Party>,
    /// Who sets rules.
    pub operators: Vec<Party>,
    /// Who may read public prices and nothing else.
    pub observers: Vec<Party>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("walras-data"),
            bus: BusSettings::default(),
            journal: JournalSettings::default(),
            market: MarketSection::default(),
            webhooks: WebhookSettings::default(),
            placement: PlacementSection::default(),
            controlplane: ControlplaneSection::default(),
            runner: RunnerSettings::default(),
            gateway: GatewaySettings::default(),
            admin: AdminSettings::default(),
            telemetry: TelemetrySettings::default(),
            demo: DemoSettings::default(),
            services: Vec::new(),
            tenants: Vec::new(),
            storefronts: Vec::new(),
            hypervisors: Vec::new(),
            operators: Vec::new(),
            observers: Vec::new(),
        }
    }
}

/// The bus: a broker that runs already, or a child of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusSettings {
    /// Address of the broker, such as `nats://127.0.0.1:4222`, several separated by commas; absent: a
    /// `nats-server` is started as a child.
    pub nats_url: Option<SecretUrl>,
    /// The file with this service's nkey seed, needed where the broker asks for one.
    pub seed_file: Option<PathBuf>,
    /// Certificate authority to trust beside the system's, a PEM file; given, TLS is demanded.
    pub certificate_authority: Option<PathBuf>,
    /// Base address of the broker's monitoring port, such as `http://127.0.0.1:8222`: where services see whether
    /// it syncs before it acknowledges.
    pub monitoring_url: Option<String>,
    /// The `nats-server` to start as a child; absent: the one in `WALRAS_NATS_SERVER`, else in `PATH`.
    pub nats_server: Option<PathBuf>,
    /// Port of the child; 0: any free one.
    pub port: u16,
    /// Copies of every stream: 1, or 3 or 5 in a cluster of brokers.
    pub replicas: u8,
    /// Size at which a stream of commands refuses new ones, in bytes.
    pub command_bytes_max: NonZeroU64,
    /// Size at which a stream of events, answers or orders forgets the oldest, in bytes.
    pub event_bytes_max: NonZeroU64,
    /// How long events, answers and orders are kept on the bus, in days; the journal keeps them for ever.
    pub event_days: NonZeroU32,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self {
            nats_url: None,
            seed_file: None,
            certificate_authority: None,
            monitoring_url: None,
            nats_server: None,
            port: 0,
            replicas: 1,
            command_bytes_max: NonZeroU64::MIN.saturating_add((1 << 30) - 1),
            event_bytes_max: NonZeroU64::MIN.saturating_add((2 << 30) - 1),
            event_days: NonZeroU32::MIN.saturating_add(6),
        }
    }
}

impl BusSettings {
    /// Gives a stream of [`crate::nats::layout`] the copies, size and age that are configured.
    pub fn shape(&self, spec: &mut StreamSpec) {
        spec.replicas = self.replicas;
        if spec.discard_new {
            spec.max_bytes = self.command_bytes_max.get();
        } else {
            spec.max_bytes = self.event_bytes_max.get();
            spec.max_age = Some(DAY * self.event_days.get());
        }
    }
}

const DAY: Duration = Duration::from_hours(24);

/// The record of everything decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSettings {
    /// `sqlite:PATH` or `postgres://…`; absent: `walras.db` in the data directory. Once a configuration is loaded
    /// it is never absent.
    pub database_url: Option<SecretUrl>,
}

/// The market service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MarketSection {
    /// The exchanges, by the name of their stream.
    pub exchanges: BTreeMap<StreamName, ExchangeSettings>,
}

/// Exchanges of one installation.
pub const EXCHANGES_MAX: usize = 64;

impl Default for MarketSection {
    fn default() -> Self {
        let main = "main".parse().map(|name| (name, ExchangeSettings::default()));
        Self { exchanges: main.into_iter().collect() }
    }
}

/// One exchange: markets that clear together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExchangeSettings {
    /// What holds for the whole exchange.
    pub rules: Rules,
    /// A file of markets. An exchange with neither a file nor markets gets the built-in catalogue.
    pub catalogue: Option<PathBuf>,
    /// Markets given here.
    pub markets: Vec<CatalogueMarket>,
    /// What the catalogue holds, once a configuration is loaded.
    #[serde(skip)]
    pub(super) from_catalogue: Vec<CatalogueMarket>,
}

impl ExchangeSettings {
    /// Every market of the exchange: those of the catalogue, then those given beside it.
    pub fn all_markets(&self) -> impl Iterator<Item = &CatalogueMarket> {
        self.from_catalogue.iter().chain(&self.markets)
    }
}

/// Telling tenants over HTTP what happened to their bids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// Whether addresses of private networks and of this machine may be dialled. For development only: a tenant could
    /// reach whatever we can.
    pub private_addresses: bool,
}

/// The placement service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementSection {
    /// The sites, by the name of their stream.
    pub sites: BTreeMap<StreamName, SiteSettings>,
}

impl Default for PlacementSection {
    fn default() -> Self {
        let main = "main".parse().map(|name| (name, SiteSettings::default()));
        Self { sites: main.into_iter().collect() }
    }
}

/// How machines are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunnerSettings {
    /// Command ids kept in memory, 32 bytes each; older ones are found in the journal.
    pub answers_kept: NonZeroU32,
    /// Journal rows between two snapshots.
    pub snapshot_every_rows: NonZeroU32,
    /// Folder for archive files; absent: `archive` in the data directory. Once a configuration is loaded it is
    /// never absent.
    pub archive_dir: Option<PathBuf>,
    /// Journal rows that stay in the database; older ones that a snapshot covers move to archive files.
    pub rows_kept: NonZeroU64,
    /// How long a claim on a stream lasts without being renewed, in seconds: the longest that a stream stands
    /// still when its runner dies.
    pub claim_seconds: NonZeroU32,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self {
            answers_kept: NonZeroU32::MIN.saturating_add((1 << 20) - 1),
            snapshot_every_rows: NonZeroU32::MIN.saturating_add(9_999),
            archive_dir: None,
            rows_kept: NonZeroU64::MIN.saturating_add(999_999),
            claim_seconds: NonZeroU32::MIN.saturating_add(9),
        }
    }
}

/// The HTTP door for tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Requests per second that one tenant may go on making.
    pub requests_per_second: NonZeroU32,
    /// Requests that one tenant may make at once after a pause.
    pub burst: NonZeroU32,
    /// Requests per second that one address may go on making without a tenant's token. Behind a proxy all strangers
    /// have one address.
    pub stranger_requests_per_second: NonZeroU32,
    /// Requests that one address may make at once without a tenant's token, after a pause.
    pub stranger_burst: NonZeroU32,
    /// Largest request body, in bytes.
    pub body_bytes_max: NonZeroU32,
    /// Requests worked on at once, over all tenants; more are refused.
    pub requests_in_flight_max: NonZeroU32,
    /// Server-sent event streams open at once, over all tenants; more are refused.
    pub streams_open_max: NonZeroU32,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8700)),
            requests_per_second: NonZeroU32::MIN.saturating_add(49),
            burst: NonZeroU32::MIN.saturating_add(199),
            stranger_requests_per_second: NonZeroU32::MIN.saturating_add(199),
            stranger_burst: NonZeroU32::MIN.saturating_add(399),
            body_bytes_max: NonZeroU32::MIN.saturating_add(65_535),
            requests_in_flight_max: NonZeroU32::MIN.saturating_add(1_023),
            streams_open_max: NonZeroU32::MIN.saturating_add(1_023),
        }
    }
}

/// Endpoints for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Where `/livez`, `/readyz`, `/startupz` and `/metrics` listen. They ask for no token: a private address.
    pub listen: SocketAddr,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8701)) }
    }
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// How lines are written.
    pub format: LogFormat,
    /// Which lines are written: levels by module, such as `info,runtime=debug`.
    pub filter: String,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        // The client library logs every reconnect attempt at info; we log the transitions ourselves.
        Self { format: LogFormat::default(), filter: "info,async_nats=warn".to_owned() }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people; where stderr is systemd's journal, as the journal wants it.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The simulated outside world of `walras up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DemoSettings {
    /// Whether there is one.
    pub enabled: bool,
    /// Its behaviour is a function of this.
    pub seed: u64,
    /// Bids placed per second.
    pub bids_per_second: NonZeroU32,
    /// Servers that hypervisors offer per market.
    pub servers_per_market: u32,
}

impl Default for DemoSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            seed: 1,
            bids_per_second: NonZeroU32::MIN.saturating_add(4),
            servers_per_market: 20,
        }
    }
}
