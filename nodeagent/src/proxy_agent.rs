//! The agent in the place of upstream's.

mod flags;
pub(crate) mod health;
mod logging;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tunnel::{ServersConfig, check_identifiers};

use crate::konnectivity::{Agent, AgentConfig, Metrics, ServerAddress, TlsFiles};

pub(crate) use flags::{Flags, normalized};

/// Least span between two pings. Servers close connections that ping more often than every 30 s.
const KEEPALIVE: Duration = Duration::from_secs(31);

/// Least span between two attempts while no server is missing, however short `--sync-interval` is: each attempt
/// costs a token review, of which a server makes five a second.
const RECHECK: Duration = Duration::from_secs(30);

/// Threads for looking up names. More names than that wait for each other.
const LOOKUP_THREADS: usize = 32;

/// Runs the agent until its second signal to stop.
pub(crate) fn run(flags: Flags) -> Result<()> {
    check(&flags).context("failed to validate agent options")?;
    logging::begin(flags.verbosity());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUP_THREADS)
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(flags));
    // Whoever looks up a name does not keep us.
    runtime.shutdown_background();
    result
}

async fn serve(flags: Flags) -> Result<()> {
    let mut signals = Signals::new()?;
    let metrics = Arc::new(Metrics::new().context("cannot set up metrics")?);
    let health =
        listen(&flags.health_server_host, flags.health_server_port).await.context("health server")?;
    let admin = listen(&flags.admin_bind_address, flags.admin_server_port).await.context("admin server")?;
    if flags.enable_profiling {
        tracing::warn!("--enable-profiling is accepted and does nothing: this agent has no profiles to show");
    }
    let (drain, draining) = watch::channel(false);
    let agent = Agent::new(config(&flags), Arc::clone(&metrics), draining);
    let health_port = flags.health_server_port;
    tokio::select! {
        () = agent.run() => bail!("the agent ended by itself"),
        () = health::serve(health, health::Service::Health(metrics)) => bail!("the health server ended"),
        () = health::serve(admin, health::Service::Admin { health_port }) => bail!("the admin server ended"),
        () = stopped(&mut signals, &drain) => {
            tracing::info!("stopping");
            Ok(())
        }
    }
}

/// Ends at the second signal; the first drains.
async fn stopped(signals: &mut Signals, drain: &watch::Sender<bool>) {
    signals.next().await;
    drain.send_replace(true);
    signals.next().await;
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        let of = |kind| signal(kind).context("cannot listen to signals");
        Ok(Signals { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _signal = self.terminate.recv() => {}
            _signal = self.interrupt.recv() => {}
        }
    }
}

async fn listen(host: &str, port: u16) -> Result<TcpListener> {
    // As in Go, no host is every address.
    let host = if host.is_empty() { "::" } else { host };
    match TcpListener::bind((host, port)).await {
        Err(_) if host == "::" => TcpListener::bind(("0.0.0.0", port)).await,
        bound => bound,
    }
    .with_context(|| format!("cannot listen on {host} port {port}"))
}

fn config(flags: &Flags) -> AgentConfig {
    let existing = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
    AgentConfig {
        address: ServerAddress { host: flags.proxy_server_host.clone(), port: flags.proxy_server_port },
        tls: TlsFiles {
            ca: flags.ca_cert.clone(),
            own: existing(&flags.agent_cert).zip(existing(&flags.agent_key)),
            protocols: flags.protocols(),
        },
        agent_id: flags.agent_id(),
        identifiers: flags.agent_identifiers.clone(),
        token: existing(&flags.service_account_token_path),
        servers: ServersConfig {
            sync_interval: flags.sync_interval,
            sync_interval_cap: flags.sync_interval_cap,
            recheck_interval: flags.sync_forever.then(|| flags.sync_interval_cap.max(RECHECK)),
        },
        keepalive: flags.keepalive_time.max(KEEPALIVE),
    }
}

/// What upstream's agent refuses, too, in about the same words.
fn check(flags: &Flags) -> Result<()> {
    let given = |path: &PathBuf| !path.as_os_str().is_empty();
    let files = [
        ("agent-key", &flags.agent_key),
        ("agent-cert", &flags.agent_cert),
        ("ca-cert", &flags.ca_cert),
        ("service-account-token-path", &flags.service_account_token_path),
        ("kubeconfig", &flags.kubeconfig),
    ];
    for (name, path) in files {
        if given(path) && !path.exists() {
            bail!("--{name}: there is no file {}", path.display());
        }
    }
    if !given(&flags.ca_cert) {
        bail!("--ca-cert must be given: the server's certificate is compared with it");
    }
    if given(&flags.agent_cert) != given(&flags.agent_key) {
        bail!("--agent-cert and --agent-key must be given together");
    }
    if flags.enable_contention_profiling && !flags.enable_profiling {
        bail!("--enable-contention-profiling needs --enable-profiling");
    }
    if flags.sync_interval > flags.sync_interval_cap {
        bail!(
            "--sync-interval {:?} must be at most --sync-interval-cap {:?}",
            flags.sync_interval,
            flags.sync_interval_cap
        );
    }
    if flags.count_server_leases {
        bail!("--count-server-leases: this agent counts servers by what they state of themselves only");
    }
    check_identifiers(&flags.agent_identifiers).context("--agent-identifiers")
}
