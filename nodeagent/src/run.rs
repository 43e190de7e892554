//! The worker's life as a process.

mod bus;
mod configure;
mod files;
mod key;
mod kube;
mod kubelet;
mod metadata;
mod notify;
mod places;
mod service;
mod shown;
mod worker;

use std::io::IsTerminal as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use life::metadata::Provider;
use life::{Exit, Life, LifeConfig, Limits, Saved};
use proto::Timestamp;
use proto::worker::JoinSecret;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use crate::konnectivity::{Metrics, chance};
use crate::proxy_agent::health;
use kubelet::{Kubelet, Runs};
use metadata::Metadata;
use notify::Notify;
use places::Places;
use service::Service;
pub(crate) use shown::Shown;
use worker::{Ended, INPUTS_MAX, Worker};

/// Longest status read, in bytes.
const STATUS_BYTES_MAX: u64 = 256 << 10;

/// How long `status` waits for an answer.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// The worker cannot join, and starting again would change nothing.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RefusedError(String);

/// Who brings up the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TunnelBy {
    /// This agent.
    Native,
    /// Somebody else, such as upstream's agent in a `DaemonSet`.
    External,
}

/// Whose form the server's metadata have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MetadataBy {
    None,
    Walras,
    Aws,
    Azure,
    Gcp,
}

/// The flags of `run`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The service that keeps the control plane, https://HOST:PORT.
    #[arg(long, env = "WALRAS_WORKER_SERVICE")]
    service: String,
    /// File with the certificates of those who may have signed the service's.
    #[arg(long, env = "WALRAS_WORKER_SERVICE_CA")]
    service_ca: PathBuf,
    /// File with the join secret. It is read until it is redeemed.
    #[arg(long, env = "WALRAS_WORKER_JOIN_SECRET_FILE", default_value = "/etc/walras/join-secret")]
    join_secret_file: PathBuf,
    /// Where the agent keeps its state and the worker's key.
    #[arg(long, env = "WALRAS_WORKER_STATE_DIRECTORY", default_value = "/var/lib/walras-nodeagent")]
    state_directory: PathBuf,
    /// What is put before the paths of Kubernetes' files.
    #[arg(long, default_value = "/", hide = true)]
    root: PathBuf,
    /// The kubelet's program, with arguments of its own.
    #[arg(long, env = "WALRAS_WORKER_KUBELET", default_value = "/usr/bin/kubelet", num_args = 1.., allow_hyphen_values = true, value_terminator = ";")]
    kubelet: Vec<String>,
    /// The kubelet's unit, if systemd is to run it and not this agent.
    #[arg(long, env = "WALRAS_WORKER_KUBELET_UNIT")]
    kubelet_unit: Option<String>,
    /// The program that speaks to systemd.
    #[arg(long, default_value = "systemctl", hide = true)]
    systemctl: String,
    /// Who brings up the tunnel.
    #[arg(long, env = "WALRAS_WORKER_TUNNEL", value_enum, default_value = "native")]
    tunnel: TunnelBy,
    /// Whose form the server's metadata have, which say when it will be gone.
    #[arg(long, env = "WALRAS_WORKER_METADATA", value_enum, default_value = "none")]
    metadata: MetadataBy,
    /// Where the metadata are, http://HOST:PORT, if not at the usual place.
    #[arg(long, env = "WALRAS_WORKER_METADATA_URL")]
    metadata_url: Option<String>,
    /// What the metadata call this server, where they speak of several.
    #[arg(long, env = "WALRAS_WORKER_METADATA_SERVER", default_value = "")]
    metadata_server: String,
    /// The notice that SIGTERM gives, in seconds.
    #[arg(long, env = "WALRAS_WORKER_STOP_SECONDS", default_value_t = 60)]
    stop_seconds: u32,
    /// Where status, health and metrics are served.
    #[arg(long, env = "WALRAS_WORKER_LISTEN", default_value = "127.0.0.1:8095")]
    listen: SocketAddr,
}

/// The flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusFlags {
    /// Where the agent listens.
    #[arg(long, env = "WALRAS_WORKER_LISTEN", default_value = "127.0.0.1:8095")]
    listen: SocketAddr,
}

/// Runs a worker's life to its end.
///
/// # Errors
/// [`RefusedError`] where starting again would change nothing, else what went wrong.
pub(crate) fn run(flags: Flags) -> Result<()> {
    log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let ended = runtime.block_on(live(flags));
    runtime.shutdown_background();
    match ended? {
        Ended::Over(Exit::Left) => tracing::info!("the worker has left"),
        Ended::Over(Exit::Refused(reason)) => {
            let reason = serde_json::to_string(&reason).unwrap_or_default();
            bail!(RefusedError(format!("the join secret is refused: {}", reason.trim_matches('"'))));
        }
        Ended::Interrupted => {}
    }
    Ok(())
}

async fn live(flags: Flags) -> Result<Ended> {
    let places = Places::new(&flags.state_directory, &flags.root);
    let saved = files::read(&places.state).with_context(|| format!("read {}", places.state.display()))?;
    let saved = saved.map(|bytes| Saved::read(&bytes)).transpose();
    let saved = saved.with_context(|| format!("read {}", places.state.display()))?;
    let secret = if saved.is_none() { Some(secret(&flags)?) } else { None };
    let listener = TcpListener::bind(flags.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", flags.listen))?;
    let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
    let admission = saved.as_ref().map(|saved| saved.admission.clone());
    let config = LifeConfig {
        limits: Limits::default(),
        tunnel: flags.tunnel == TunnelBy::Native,
        instant: instant(),
        seed: chance(),
    };
    let began = Instant::now();
    let life = Life::new(config, saved, began.elapsed());
    let tunnel = Arc::new(Metrics::new().context("cannot set up metrics")?);
    let shown = Arc::new(Shown::new(life.status(), tunnel));
    tokio::spawn(health::serve(listener, health::Service::Worker(Arc::clone(&shown))));
    let provider = match flags.metadata {
        MetadataBy::None => None,
        MetadataBy::Walras => Some(Provider::Walras),
        MetadataBy::Aws => Some(Provider::Aws),
        MetadataBy::Azure => Some(Provider::Azure),
        MetadataBy::Gcp => Some(Provider::Gcp),
    };
    let metadata =
        provider.map(|provider| Metadata::new(provider, flags.metadata_url, flags.metadata_server));
    if let Some(metadata) = metadata.clone() {
        tokio::spawn(metadata.watch(inputs.clone()));
    }
    let runs = match flags.kubelet_unit {
        Some(unit) => Runs::Unit { systemctl: flags.systemctl, unit },
        None => Runs::Child(flags.kubelet),
    };
    let worker = Worker {
        kubelet: Kubelet::new(runs, places.clone(), inputs.clone()),
        places,
        service: Service { url: flags.service, authority: flags.service_ca },
        secret,
        metadata,
        notify: Notify::from_environment(),
        shown,
        life,
        began,
        stop_notice: Duration::from_secs(flags.stop_seconds.into()),
        inputs,
        waiting,
        tunnel: None,
        bus: None,
        admission,
    };
    worker.run().await
}

fn secret(flags: &Flags) -> Result<JoinSecret> {
    let place = flags.join_secret_file.display();
    let text = files::read(&flags.join_secret_file).with_context(|| format!("read {place}"))?;
    let text = text.with_context(|| format!("there is no join secret in {place}, and no state"))?;
    let text = String::from_utf8_lossy(&text);
    // Editors and secrets end in line ends.
    let secret = text.trim().parse::<JoinSecret>();
    Ok(secret.map_err(|error| RefusedError(format!("{place}: {error}")))?)
}

/// What time it is by the worker's own clock.
fn instant() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Log lines on standard error. Journald writes the time itself.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let begun = if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().try_init()
    } else {
        lines.try_init()
    };
    if let Err(error) = begun {
        eprintln!("cannot log: {error}");
    }
}

/// Shows how far the worker is.
///
/// # Errors
/// When no agent answers, or the worker is not in service.
#[allow(clippy::print_stdout, reason = "that is what it is for")]
pub(crate) fn status(flags: &StatusFlags) -> Result<()> {
    use std::io::{Read as _, Write as _};
    let asked = || {
        let mut socket = TcpStream::connect_timeout(&flags.listen, STATUS_PATIENCE)?;
        socket.set_read_timeout(Some(STATUS_PATIENCE))?;
        write!(socket, "GET /status HTTP/1.1\r\nHost: {}\r\n\r\n", flags.listen)?;
        let mut answer = String::new();
        socket.take(STATUS_BYTES_MAX).read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = asked().with_context(|| format!("no agent answers at {}", flags.listen))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).context("the agent's answer is cut")?;
    println!("{body}");
    let status: life::Status = serde_json::from_str(body).context("the agent's answer cannot be read")?;
    if status.phase != life::Phase::Serving || !status.node_ready {
        bail!("the worker is {}, and not in service", shown::name(status.phase));
    }
    Ok(())
}
