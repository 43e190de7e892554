//! The flags that every service takes.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{ConfigError, Loaded, Sources, load};

/// The file that is read when nobody names one and it is there.
pub const FILE_DEFAULT: &str = "walras.toml";

/// Flags that set values of the configuration; put them into a command with `#[command(flatten)]`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigFlags {
    /// Configuration file; without it, walras.toml in the working directory if it is there
    #[arg(long, value_name = "FILE", env = "WALRAS_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Print the configuration in force, and where each value comes from, and exit
    #[arg(long, global = true)]
    pub dump_config: bool,
    /// Folder of everything kept on this machine
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<OsString>,
    /// A broker that runs already; without it a nats-server is started
    #[arg(long, value_name = "URL", global = true)]
    nats_url: Option<OsString>,
    /// sqlite:PATH or postgres://…; prefer the environment where it has a password
    #[arg(long, value_name = "URL", global = true)]
    database_url: Option<OsString>,
    /// The management cluster, as kubectl takes it; without it, KUBECONFIG
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<OsString>,
    /// Where the gateway listens
    #[arg(long, value_name = "ADDRESS", global = true)]
    listen: Option<OsString>,
    /// Where health and metrics are served
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin_listen: Option<OsString>,
    /// text or json
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<OsString>,
    /// Which log lines are written, such as info,runtime=debug
    #[arg(long, value_name = "FILTER", global = true)]
    log_filter: Option<OsString>,
    /// Set any value: --set gateway.burst=500
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<OsString>,
}

impl ConfigFlags {
    /// Reads the file, the process's environment and these flags.
    ///
    /// # Errors
    /// [`ConfigError`]: one line that names key, value and source.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        load(&self.sources(std::env::vars_os())?)
    }

    /// What there is to read.
    ///
    /// # Errors
    /// A flag that is no UTF-8 or no `KEY=VALUE`.
    pub fn sources(
        &self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Sources, ConfigError> {
        let mut flags = Vec::new();
        let own = [
            ("--data-dir", "data_dir", &self.data_dir),
            ("--nats-url", "bus.nats_url", &self.nats_url),
            ("--database-url", "journal.database_url", &self.database_url),
            ("--kubeconfig", "controlplane.kubeconfig", &self.kubeconfig),
            ("--listen", "gateway.listen", &self.listen),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--log-format", "telemetry.format", &self.log_format),
            ("--log-filter", "telemetry.filter", &self.log_filter),
        ];
        let unreadable = |flag: &str| ConfigError::Flag { flag: flag.to_owned(), problem: "is no UTF-8" };
        for (flag, key, value) in own {
            if let Some(value) = value {
                let value = value.to_str().ok_or_else(|| unreadable(flag))?;
                flags.push((flag.to_owned(), key.to_owned(), value.to_owned()));
            }
        }
        for pair in &self.set {
            let pair = pair.to_str().ok_or_else(|| unreadable("--set"))?;
            let Some((key, value)) = pair.split_once('=') else {
                return Err(ConfigError::Flag { flag: "--set".to_owned(), problem: "wants KEY=VALUE" });
            };
            let key = key.trim();
            flags.push((format!("--set {key}"), key.to_owned(), value.to_owned()));
        }
        let found = || Some(PathBuf::from(FILE_DEFAULT)).filter(|path| path.is_file());
        let file = self.config.clone().or_else(found);
        Ok(Sources { file, environment: environment.collect(), flags })
    }
}
