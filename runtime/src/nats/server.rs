//! A `nats-server` of our own: found, checked, configured, started as a child, restarted, ended with us.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::access::{Access, AccessError};
use super::config::{self, Files, Ports};
use super::guard::GuardCommand;
use super::supervise::{Order, Supervisor};
use super::version::{self, VersionError};

/// Environment variable that names the server's binary.
pub const BINARY_VARIABLE: &str = "WALRAS_NATS_SERVER";

/// What the binary is called on the search path.
const BINARY_NAME: &str = "nats-server";

/// How long the binary may take to print its version.
const VERSION_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long an orderly stop may take, the kill at its end included.
const STOP_WAIT_MAX: Duration = Duration::from_secs(20);

/// What kind of server to run.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// The binary; `None` = [`BINARY_VARIABLE`], else the search path.
    pub binary: Option<PathBuf>,
    /// Folder of its own for configuration, store and log.
    pub data_dir: PathBuf,
    /// Name in the server's own reports.
    pub server_name: String,
    /// Address to listen on. Beyond loopback only with `access`.
    pub host: String,
    /// Port to listen on; `None` = a free one, which stays the same while this process lives.
    pub port: Option<u16>,
    /// What all file streams together may take, in bytes. At most 70 % of the volume is wise.
    pub max_file_store_bytes: u64,
    /// What all memory streams together may take, in bytes.
    pub max_memory_store_bytes: u64,
    /// Who may connect; `None` = anybody who reaches the port.
    pub access: Option<Access>,
    /// How to start the guard, see [`super::guard`].
    pub guard: GuardCommand,
}

impl ServerSpec {
    /// A server on loopback below `data_dir`, for 16 GiB of streams.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, guard: GuardCommand) -> Self {
        Self {
            binary: None,
            data_dir: data_dir.into(),
            server_name: "walras".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: None,
            max_file_store_bytes: 16 << 30,
            max_memory_store_bytes: 256 << 20,
            access: None,
            guard,
        }
    }
}

/// Why there is no server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No binary.
    #[error("nats-server: not found: set {BINARY_VARIABLE} or put it on PATH (at least {})", version::FLOOR)]
    NotFound,
    /// The binary does not run.
    #[error("{path}: {why}")]
    Binary {
        /// Which one.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The binary is too old.
    #[error("{path}: {source}")]
    Version {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: VersionError,
    },
    /// The access list cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A file could not be written.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It was started, but did not come up, or did not stay up.
    #[error("nats-server: {why}")]
    Failed {
        /// What happened, with the last line it printed.
        why: String,
    },
}

/// How the child is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Started, not healthy yet; or about to be started again.
    Starting,
    /// Healthy.
    Running {
        /// Its process id.
        pid: u32,
        /// How often it was started again.
        restarts: u32,
    },
    /// Ended for good, and why.
    Failed(String),
    /// Ended because it was told to.
    Stopped,
}

/// A running server. Dropping it ends the child as well, without waiting for it.
#[derive(Debug)]
pub struct Server {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<ServerState>,
    host: String,
    ports: Ports,
    version: String,
}

impl Server {
    /// Finds, checks and configures a server, starts it, and waits until it is healthy.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(spec: ServerSpec) -> Result<Self, ServerError> {
        let binary = find(spec.binary.as_deref())?;
        let version = version_of(&binary).await?;
        let files = Files::below(&spec.data_dir);
        files.prepare().map_err(|source| ServerError::File { path: files.dir.clone(), source })?;
        // Checked here once, so that a list that cannot be used is an error and not a restart.
        config::content(&spec, &files, Ports::default())?;
        let (orders, receiver) = mpsc::channel(1);
        let (sender, mut state) = watch::channel(ServerState::Starting);
        let (ports_sender, mut ports) = watch::channel(Ports::default());
        let host = spec.host.clone();
        Supervisor::spawn(spec, binary, files, receiver, sender, ports_sender)?;
        let first = state.wait_for(|state| *state != ServerState::Starting).await;
        match first.as_deref() {
            Ok(ServerState::Running { .. }) => {}
            Ok(ServerState::Failed(why)) => return Err(ServerError::Failed { why: why.clone() }),
            _ => return Err(ServerError::Failed { why: "stopped while it started".to_owned() }),
        }
        drop(first);
        let ports = *ports.borrow_and_update();
        Ok(Self { orders, state, host, ports, version })
    }

    /// Address for clients on this machine.
    #[must_use]
    pub fn url(&self) -> String {
        let host = if self.host == "0.0.0.0" || self.host == "::" { "127.0.0.1" } else { &self.host };
        format!("nats://{host}:{}", self.ports.client)
    }

    /// Address of the monitoring pages.
    #[must_use]
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitoring)
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How the child is doing, and news of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ServerState> {
        self.state.clone()
    }

    /// Its process id while it is healthy.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            ServerState::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// Lets others connect: writes the configuration anew and has the server read it, without a restart.
    /// Connections of those who stay are not touched. Where it asks about users that it does not know
    /// ([`Access::worker_issuer`]) the server refuses that, and has to be started again.
    ///
    /// # Errors
    /// [`ServerError::Access`], or [`ServerError::Failed`] when the server is not running or does not take it.
    pub async fn admit(&self, access: Access) -> Result<(), ServerError> {
        access.accounts()?;
        let (done, outcome) = oneshot::channel();
        let gone = || ServerError::Failed { why: "not running".to_owned() };
        let order = Order::Admit { access: Box::new(access), done };
        self.orders.send(order).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?.map_err(|why| ServerError::Failed { why })
    }

    /// Ends the child in order and waits for it.
    ///
    /// # Errors
    /// [`ServerError::Failed`] when it does not end in time, or had failed before.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        // A supervisor that is gone already has said why in the state.
        let _ = self.orders.send(Order::Stop).await;
        let ended = |state: &ServerState| matches!(state, ServerState::Stopped | ServerState::Failed(_));
        let waited = timeout(STOP_WAIT_MAX, self.state.wait_for(ended)).await;
        let waited = waited.map(|state| state.map(|state| state.clone()));
        match waited {
            Ok(Ok(ServerState::Failed(why))) => Err(ServerError::Failed { why }),
            Ok(_) => Ok(()),
            Err(_) => Err(ServerError::Failed { why: format!("did not end within {STOP_WAIT_MAX:?}") }),
        }
    }
}

/// Finds the server's binary: the one given, else the one [`BINARY_VARIABLE`] names, else on the search path.
///
/// # Errors
/// [`ServerError::NotFound`]; [`ServerError::Binary`] when a path was named and there is nothing.
pub fn find(given: Option<&Path>) -> Result<PathBuf, ServerError> {
    let named = given.map(Path::to_owned).or_else(|| std::env::var_os(BINARY_VARIABLE).map(PathBuf::from));
    if let Some(path) = named {
        let why = "no such file".to_owned();
        return if path.is_file() { Ok(path) } else { Err(ServerError::Binary { path, why }) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(BINARY_NAME)).find(|path| path.is_file());
    found.ok_or(ServerError::NotFound)
}

async fn version_of(binary: &Path) -> Result<String, ServerError> {
    let failed = |why: String| ServerError::Binary { path: binary.to_owned(), why };
    let output = Command::new(binary).arg("--version").kill_on_drop(true).output();
    let output = timeout(VERSION_WAIT_MAX, output)
        .await
        .map_err(|_| failed("does not tell its version".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let line = String::from_utf8_lossy(&output.stdout);
    let version = version::of_line(&line);
    version::check(version).map_err(|source| ServerError::Version { path: binary.to_owned(), source })?;
    Ok(version.trim_start_matches('v').to_owned())
}
