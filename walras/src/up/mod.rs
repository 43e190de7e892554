//! `walras up`: the whole system on one machine; and its services one at a time.

mod demo;
mod keys;
mod parties;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use journal::{Journal, Owner};
use proto::{StreamName, Timestamp};
use runtime::bus::{BrokerOptions, Bus, Durability};
use runtime::config::{Config, ConfigFlags, SecretUrl};
use runtime::nats::access::inbox_prefix;
use runtime::nats::guard::GuardCommand;
use runtime::nats::layout;
use runtime::nats::server::{Server, ServerSpec, ServerState};
use runtime::shell::{Shell, Stage};
use runtime::telemetry;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::cli::{ServiceArgs, UpArgs};
use crate::gateway::{Desk, Gateway, Identity, Metrics};
use parties::{Parties, SERVICE};

/// How long `walras up` waits for its own readiness before it says so.
const READY_LOOK: Duration = Duration::from_millis(20);

/// Runs everything on this machine.
pub fn up(arguments: &UpArgs) -> ExitCode {
    run(&arguments.config, |config| everything(config, !arguments.no_demo))
}

/// Runs the market service.
pub fn market(arguments: &ServiceArgs) -> ExitCode {
    run(&arguments.config, |config| service(config, "market"))
}

/// Runs the gateway.
pub fn gateway(arguments: &ServiceArgs) -> ExitCode {
    run(&arguments.config, |config| service(config, "gateway"))
}

fn run<T>(flags: &ConfigFlags, start: impl FnOnce(Config) -> T) -> ExitCode
where
    T: Future<Output = Result<Shell>>,
{
    let loaded = match flags.load() {
        Ok(loaded) => loaded,
        Err(error) => return crate::run::finish(Err(error.into())),
    };
    if flags.dump_config {
        let dumped = loaded.dump().map_err(Into::into);
        return crate::run::finish(
            dumped.and_then(|text| crate::commands::table::print_line(text.trim_end())),
        );
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return crate::run::finish(Err(error.into())),
    };
    match runtime.block_on(start(loaded.config)) {
        Ok(shell) => runtime.block_on(shell.wait()).exit(),
        Err(error) => crate::run::finish(Err(error)),
    }
}

/// UTC, as the machine's clock has it.
fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Letters and digits that differ from start to start of any process.
fn unique() -> String {
    format!("{:x}-{:x}", clock().micros(), std::process::id())
}

/// The name under which this process claims streams.
fn owner() -> Result<Owner> {
    Ok(Owner::new(unique())?)
}

async fn everything(config: Config, wants_demo: bool) -> Result<Shell> {
    let mut shell = Shell::start("market", &config).await?;
    let parties = Parties::prepare(&config, wants_demo && config.demo.enabled)?;
    let (bus, server) = ground(&config, &parties, &mut shell).await?;
    watch_bus(&mut shell, &bus);
    let journal = open_journal(&config).await?;
    for (stream, principal, filter) in parties.access.replays() {
        bus.ensure_replay(stream, &principal, &filter).await?;
    }
    let exchanges: Vec<StreamName> = config.market.exchanges.keys().cloned().collect();
    market_service::start(&mut shell, &bus, &journal, &config, &owner()?, parties.trusted())?;
    let address = start_gateway(&mut shell, &bus, &config, &parties.tokens, &exchanges).await?;
    for party in parties.demo(&config, clock())? {
        let mut options = broker_options(&config, server.as_ref(), &party.principal, party.seed)?;
        options.may_see_streams = false;
        let party_bus = Bus::connect(options).await.with_context(|| format!("demo {}", party.principal))?;
        let health = shell.health().clone();
        let task = async move {
            // Before its markets are open nobody can trade in them.
            while !health.is_ready() {
                tokio::time::sleep(READY_LOOK).await;
            }
            demo::live(party.party, party_bus, party.exchange, unique(), clock).await
        };
        shell.spawn(format!("demo {}", party.principal), Stage::Entrance, |stop| async move {
            tokio::select! {
                ended = task => ended,
                () = stop.into_requested() => Ok(()),
            }
        });
    }
    let nats_url = server
        .as_ref()
        .map_or_else(|| config.bus.nats_url.as_ref().map(SecretUrl::masked).unwrap_or_default(), Server::url);
    let up = json!({
        "exchange": exchanges.first(),
        "nats_url": nats_url,
        "gateway_url": format!("http://{address}"),
        "admin_url": shell.admin_address().map(|address| format!("http://{address}")),
        "pid": std::process::id(),
        "broker_pid": server.as_ref().and_then(Server::pid),
        "parties": parties.principals(),
        "credentials": parties.credential_files(),
        "tenants": parties.tenants,
        "tokens": parties.token_files(),
    });
    announce(&mut shell, config.data_dir.join("up.json"), up);
    if let Some(server) = server {
        watch_server(&mut shell, server);
    }
    Ok(shell)
}

async fn service(config: Config, name: &'static str) -> Result<Shell> {
    let mut shell = Shell::start(name, &config).await?;
    anyhow::ensure!(
        config.bus.nats_url.is_some(),
        "bus.nats_url: is not set; a service by itself joins a broker that runs (walras up starts one)"
    );
    let seed = configured_seed(&config)?;
    let bus = connect(&config, None, name, seed, &shell).await?;
    watch_bus(&mut shell, &bus);
    let exchanges: Vec<StreamName> = config.market.exchanges.keys().cloned().collect();
    if name == "market" {
        let journal = open_journal(&config).await?;
        for (stream, principal, filter) in parties::configured(&config).replays() {
            bus.ensure_replay(stream, &principal, &filter).await?;
        }
        let trusted = parties::trusted(&config);
        market_service::start(&mut shell, &bus, &journal, &config, &owner()?, &trusted)?;
    } else {
        let tokens = config.tenants.iter().map(|tenant| (*tenant.token_sha256.bytes(), tenant.id.clone()));
        let tokens = tokens.collect();
        start_gateway(&mut shell, &bus, &config, &tokens, &exchanges).await?;
    }
    Ok(shell)
}

/// The seed with which a service joins a broker that is not its child.
fn configured_seed(config: &Config) -> Result<Option<String>> {
    let Some(path) = &config.bus.seed_file else { return Ok(None) };
    let seed = std::fs::read_to_string(path).with_context(|| format!("bus.seed_file {}", path.display()))?;
    Ok(Some(seed.trim().to_owned()))
}

/// The broker, ours or another's, and the streams on it.
async fn ground(config: &Config, parties: &Parties, shell: &mut Shell) -> Result<(Bus, Option<Server>)> {
    let server = if config.bus.nats_url.is_some() {
        None
    } else {
        let guard = GuardCommand::this_program().context("finding this program")?;
        let mut spec = ServerSpec::new(config.data_dir.join("nats"), guard);
        spec.binary.clone_from(&config.bus.nats_server);
        spec.port = Some(config.bus.port).filter(|port| *port != 0);
        spec.access = Some(parties.access.clone());
        Some(Server::start(spec).await?)
    };
    let seed = if server.is_some() { Some(parties.service_seed.clone()) } else { configured_seed(config)? };
    if let Some(server) = &server {
        telemetry::show_broker(shell.meter(), server.state())?;
    }
    let bus = connect(config, server.as_ref(), SERVICE, seed, shell).await?;
    let mut specs = vec![layout::answer_stream(), layout::order_stream()];
    for exchange in config.market.exchanges.keys() {
        specs.push(layout::command_stream("market", exchange.as_str()));
        specs.push(layout::event_stream("market", exchange.as_str()));
    }
    for spec in &mut specs {
        config.bus.shape(spec);
        bus.ensure_stream(spec).await?;
    }
    Ok((bus, server))
}

fn broker_options(
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

async fn connect(
    config: &Config,
    server: Option<&Server>,
    principal: &str,
    seed: Option<String>,
    shell: &Shell,
) -> Result<Bus> {
    let bus = Bus::connect(broker_options(config, server, principal, seed)?).await?;
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
    Ok(bus)
}

/// Has readiness follow the connection to the broker.
fn watch_bus(shell: &mut Shell, bus: &Bus) {
    let (bus, health, meter) = (bus.clone(), shell.health().clone(), shell.meter().clone());
    shell.spawn("bus watch", Stage::Reader, |stop| async move {
        Ok(runtime::admin::watch_bus(bus, health, meter, stop).await?)
    });
}

async fn open_journal(config: &Config) -> Result<Journal> {
    let url = config.journal.database_url.as_ref().context("journal.database_url: is not set")?;
    Ok(Journal::open(url.expose()).await?)
}

async fn start_gateway(
    shell: &mut Shell,
    bus: &Bus,
    config: &Config,
    tokens: &BTreeMap<crate::gateway::TokenHash, proto::TenantId>,
    exchanges: &[StreamName],
) -> Result<std::net::SocketAddr> {
    let settings = &config.gateway;
    let listener = tokio::net::TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("gateway.listen: {}: cannot listen", settings.listen))?;
    let address = listener.local_addr()?;
    let unique = unique();
    let gateway = Arc::new(Gateway {
        identity: Identity::new(tokens.clone(), settings.requests_per_second, settings.burst),
        desk: Desk::open(bus, SERVICE.parse()?, exchanges, &unique).await?,
        unique,
        made_up: AtomicU64::new(1),
        metrics: Metrics::new(&shell.meter().of("gateway"))?,
        in_flight: Arc::new(Semaphore::new(settings.requests_in_flight_max.get() as usize)),
        streams: Arc::new(Semaphore::new(settings.streams_open_max.get() as usize)),
    });
    let ready = shell.health().condition("gateway");
    let watched = Arc::clone(&gateway);
    let router = crate::gateway::router(gateway, settings.body_bytes_max.get() as usize);
    shell.spawn("gateway", Stage::Entrance, |stop| async move {
        let mut look = tokio::time::interval(READY_LOOK);
        let watch = async {
            while !watched.desk.is_ready() {
                ready.unmet("the views have not caught up yet");
                look.tick().await;
            }
            ready.met("following every exchange");
            std::future::pending::<()>().await;
        };
        let ended = stop.clone();
        let serve = axum::serve(listener, router).with_graceful_shutdown(stop.into_requested());
        tokio::select! {
            served = serve => Ok(served?),
            () = watch => Ok(()),
            // Event streams never end by themselves: what is still open a moment after the stop is dropped.
            () = async { ended.into_requested().await; tokio::time::sleep(Duration::from_millis(500)).await } => Ok(()),
        }
    });
    Ok(address)
}

/// Once everything is ready, says so: to people in a line, to programs in a file.
fn announce(shell: &mut Shell, path: PathBuf, up: serde_json::Value) {
    let health = shell.health().clone();
    shell.spawn("announcement", Stage::Entrance, |stop| async move {
        let ready = async {
            while !health.is_ready() {
                tokio::time::sleep(READY_LOOK).await;
            }
            keys::write(&path, &serde_json::to_string_pretty(&up)?)?;
            let text = |field: &str| up[field].as_str().unwrap_or_default().to_owned();
            tracing::info!(console = text("gateway_url"), broker = text("nats_url"), details = %path.display(), "up");
            anyhow::Ok(())
        };
        tokio::select! {
            told = ready => told?,
            () = stop.clone().into_requested() => return Ok(()),
        }
        stop.into_requested().await;
        Ok(())
    });
}

fn watch_server(shell: &mut Shell, server: Server) {
    let mut state = server.state();
    shell.spawn("nats-server", Stage::Ground, |stop| async move {
        let is_over = |state: &ServerState| matches!(state, ServerState::Failed(_) | ServerState::Stopped);
        let over = async { state.wait_for(is_over).await.map(|state| state.clone()) };
        let ended = tokio::select! {
            () = stop.into_requested() => None,
            ended = over => Some(ended),
        };
        match ended {
            None => Ok(server.stop().await?),
            Some(ended) => anyhow::bail!("the broker ended: {ended:?}"),
        }
    });
}
