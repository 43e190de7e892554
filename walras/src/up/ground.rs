//! What everything else stands on: the broker, ours or another's, the connection to it, and its streams.

use std::time::Duration;

use anyhow::{Context, Result};
use proto::PrincipalId;
use runtime::bus::{BrokerOptions, Bus, BusError, Durability, StreamSpec};
use runtime::config::Config;
use runtime::nats::access::inbox_prefix;
use runtime::nats::guard::GuardCommand;
use runtime::nats::key;
use runtime::nats::layout;
use runtime::nats::server::{Server, ServerSpec};
use runtime::shell::{Shell, Stage};
use runtime::telemetry;
use tokio::signal::unix::{SignalKind, signal};

use super::parties::{Parties, SERVICE};

/// How long a service waits for the streams that the market service makes.
const STREAMS_WAIT_MAX: Duration = Duration::from_mins(2);
/// Pause between two looks at the streams.
const STREAMS_LOOK: Duration = Duration::from_millis(200);

/// The bus as this process has it.
pub(super) struct Ground {
    pub(super) bus: Bus,
    /// The broker, if it is our child.
    pub(super) server: Option<Server>,
    /// Who we are on the bus.
    pub(super) principal: PrincipalId,
}

impl Ground {
    /// The bus of an installation on one machine: starts a broker unless one is configured, and makes the streams.
    pub(super) async fn of_everything(config: &Config, parties: &Parties, shell: &mut Shell) -> Result<Self> {
        let server = match &config.bus.nats_url {
            Some(_) => None,
            None => Some(start_server(config, parties).await?),
        };
        if let Some(server) = &server {
            telemetry::show_broker(shell.meter(), server.state())?;
        }
        let ground = match server {
            Some(_) => {
                let seed = Some(parties.service_seed.clone());
                Self::connect(config, server, SERVICE.parse()?, seed, shell).await?
            }
            None => Self::of_service(config, SERVICE, shell).await?,
        };
        ensure_streams(config, &ground.bus, &["market", "webhook", "placement"]).await?;
        Ok(ground)
    }

    /// The bus of one service at a broker that runs already.
    pub(super) async fn of_service(config: &Config, name: &str, shell: &mut Shell) -> Result<Self> {
        let seed = configured_seed(config)?;
        let principal = principal_of(config, seed.as_deref(), name)?;
        Self::connect(config, None, principal, seed, shell).await
    }

    async fn connect(
        config: &Config,
        server: Option<Server>,
        principal: PrincipalId,
        seed: Option<String>,
        shell: &mut Shell,
    ) -> Result<Self> {
        let bus = Bus::connect(options(config, server.as_ref(), principal.as_str(), seed)?).await?;
        telemetry::show_bus(shell.meter(), &bus)?;
        let durability = bus.durable().await;
        telemetry::show_durability(shell.meter(), &durability)?;
        if durability != Durability::Always {
            tracing::error!(
                ?durability,
                "the broker does not say that it syncs before it acknowledges: set `sync_interval: always`, or \
                 acknowledged commands can be lost with the machine"
            );
        }
        // Readiness follows the connection.
        let (watched, health, meter) = (bus.clone(), shell.health().clone(), shell.meter().clone());
        shell.spawn("bus watch", Stage::Reader, |stop| async move {
            Ok(runtime::admin::watch_bus(watched, health, meter, stop).await?)
        });
        Ok(Self { bus, server, principal })
    }
}

async fn start_server(config: &Config, parties: &Parties) -> Result<Server> {
    let guard = GuardCommand::this_program().context("finding this program")?;
    let mut spec = ServerSpec::new(config.data_dir.join("nats"), guard);
    spec.binary.clone_from(&config.bus.nats_server);
    spec.port = Some(config.bus.port).filter(|port| *port != 0);
    spec.access = Some(parties.access.clone());
    Ok(Server::start(spec).await?)
}

/// The seed with which we join a broker that is not our child.
fn configured_seed(config: &Config) -> Result<Option<String>> {
    let Some(path) = &config.bus.seed_file else { return Ok(None) };
    let seed = std::fs::read_to_string(path).with_context(|| format!("bus.seed_file {}", path.display()))?;
    Ok(Some(seed.trim().to_owned()))
}

/// Who we are: the service of the configuration whose key we hold. A broker without accounts asks for no key, and
/// a key that the configuration does not list is somebody's of the same name as our role.
fn principal_of(config: &Config, seed: Option<&str>, role: &str) -> Result<PrincipalId> {
    let public = seed.map(key::from_seed).transpose().context("bus.seed_file")?.map(|user| user.public);
    let ours = config.services.iter().find(|one| public.as_deref() == Some(one.nkey.as_str()));
    Ok(match ours {
        Some(service) => service.principal.clone(),
        None => role.parse()?,
    })
}

/// How to join the bus as `principal`.
pub(super) fn options(
    config: &Config,
    server: Option<&Server>,
    principal: &str,
    seed: Option<String>,
) -> Result<BrokerOptions> {
    let url = match (server, &config.bus.nats_url) {
        (Some(server), _) => server.url(),
        (None, Some(url)) => url.expose().to_owned(),
        (None, None) => anyhow::bail!("bus.nats_url: is not set"),
    };
    let mut options = BrokerOptions::new(url, format!("walras {principal}"));
    options.inbox_prefix = inbox_prefix(principal);
    options.seed = seed;
    options.certificate_authority.clone_from(&config.bus.certificate_authority);
    options.monitoring_url = server.map(Server::monitoring_url).or_else(|| config.bus.monitoring_url.clone());
    Ok(options)
}

/// The streams of machines, in the shape that the configuration says.
fn streams(config: &Config, machines: &[&str]) -> Vec<StreamSpec> {
    let mut specs = vec![layout::answer_stream(), layout::order_stream()];
    let exchanges = config.market.exchanges.keys().map(|exchange| ("market", exchange));
    let sites = config.placement.sites.keys().map(|site| ("placement", site));
    let webhooks = config.market.exchanges.keys().map(|exchange| ("webhook", exchange));
    for (machine, stream) in
        exchanges.chain(webhooks).chain(sites).filter(|(machine, _)| machines.contains(machine))
    {
        specs.push(layout::command_stream(machine, stream.as_str()));
        specs.push(layout::event_stream(machine, stream.as_str()));
    }
    for spec in &mut specs {
        config.bus.shape(spec);
    }
    specs
}

/// Makes streams of machines that are missing.
pub(super) async fn ensure_streams(config: &Config, bus: &Bus, machines: &[&str]) -> Result<()> {
    for spec in streams(config, machines) {
        bus.ensure_stream(&spec).await?;
    }
    Ok(())
}

/// Waits until the services that run these machines have made the streams that a reader needs. False: the process is
/// to end, as the shell has heard too.
pub(super) async fn wait_for_streams(config: &Config, bus: &Bus, machines: &[&str]) -> Result<bool> {
    let exchanges = config.market.exchanges.keys().map(|exchange| ("market", exchange));
    let sites = config.placement.sites.keys().map(|site| ("placement", site));
    let read = exchanges.chain(sites).filter(|(machine, _)| machines.contains(machine));
    let events = read.map(|(machine, stream)| proto::subject::event_stream(machine, stream));
    let needed: Vec<String> = events.chain([proto::subject::ANSWER_STREAM.to_owned()]).collect();
    let wait = async {
        for stream in &needed {
            let mut told = false;
            loop {
                match bus.stream_state(stream).await {
                    Ok(_) => break,
                    Err(BusError::NoSuchStream { .. }) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::info!(stream, "waiting for the service that makes this stream");
                        }
                        tokio::time::sleep(STREAMS_LOOK).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let waited = tokio::select! {
        waited = tokio::time::timeout(STREAMS_WAIT_MAX, wait) => waited,
        _ = terminate.recv() => return Ok(false),
        _ = interrupt.recv() => return Ok(false),
    };
    match waited {
        Ok(waited) => Ok(waited.map(|()| true)?),
        Err(_) => anyhow::bail!(
            "nobody has made the streams: is `walras {}` running at this broker?",
            machines.join("` and `walras ")
        ),
    }
}
