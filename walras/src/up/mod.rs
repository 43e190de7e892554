//! `walras up`: the whole system on one machine; and its services one at a time.

mod demo;
mod grants;
mod ground;
mod keys;
mod management;
mod owner;
mod parties;
mod wishes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use journal::Journal;
use proto::{MarketId, PrincipalId, StreamName, Timestamp};
use runtime::admin::{BoundedListener, Condition};
use runtime::bus::Bus;
use runtime::config::{Config, ConfigFlags, ExchangeSettings, SecretUrl};
use runtime::nats::server::{Server, ServerState};
use runtime::shell::{Shell, Stage};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::cli::{ServiceArgs, UpArgs};
use crate::gateway::{Desk, Gateway, Identity, Metrics, Peer, Strangers};
use ground::Ground;
use parties::Parties;

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

/// Runs the placement service.
pub fn placement(arguments: &ServiceArgs) -> ExitCode {
    run(&arguments.config, |config| service(config, "placement"))
}

/// Runs the control-plane service.
pub fn controlplane(arguments: &ServiceArgs) -> ExitCode {
    run(&arguments.config, |config| service(config, "controlplane"))
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

async fn everything(config: Config, wants_demo: bool) -> Result<Shell> {
    let mut shell = Shell::start("market", &config).await?;
    let starting = starting(&shell);
    let parties = Parties::prepare(&config, wants_demo && config.demo.enabled)?;
    let Ground { bus, server, principal } = Ground::of_everything(&config, &parties, &mut shell).await?;
    let journal = open_journal(&config).await?;
    for (stream, principal, filter) in parties.access.replays() {
        bus.ensure_replay(stream, &principal, &filter).await?;
    }
    let owner = owner::owner(&config.data_dir, &unique(), &journal).await?;
    let exchanges: Vec<StreamName> = config.market.exchanges.keys().cloned().collect();
    market_service::start(&mut shell, &bus, &journal, &config, &owner, parties.trusted())?;
    webhook_service::start(&mut shell, &bus, &journal, &config, &owner, &unique())?;
    placement_service::start(&mut shell, &bus, &journal, &config, &owner)?;
    let kubeconfigs = management::start_or_simulate(&mut shell, &bus, &config).await?;
    let address = start_gateway(&mut shell, &bus, &config, &principal, &parties.tokens).await?;
    let grants = grants::nobody();
    for exchange in exchanges.iter().filter(|_| wants_demo && config.demo.enabled) {
        let follows = grants::follow(bus.clone(), exchange.clone(), grants.clone());
        shell.spawn(format!("demo grants {exchange}"), Stage::Entrance, |stop| async move {
            tokio::select! {
                ended = follows => ended,
                () = stop.into_requested() => Ok(()),
            }
        });
    }
    for party in parties.demo(&config, clock())? {
        let mut options = ground::options(&config, server.as_ref(), &party.principal, party.seed)?;
        options.may_see_streams = false;
        let party_bus = Bus::connect(options).await.with_context(|| format!("demo {}", party.principal))?;
        let (health, grants) = (shell.health().clone(), grants.clone());
        let task = async move {
            // Before its markets are open nobody can trade in them.
            while !health.is_ready() {
                tokio::time::sleep(READY_LOOK).await;
            }
            demo::live(party.party, party_bus, party.exchange, &grants, unique(), clock).await
        };
        shell.spawn(format!("demo {}", party.principal), Stage::Entrance, |stop| async move {
            tokio::select! {
                ended = task => ended,
                () = stop.into_requested() => Ok(()),
            }
        });
    }
    start_wishes(&mut shell, &config, &parties, server.as_ref()).await?;
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
        "kubeconfigs": kubeconfigs,
    });
    announce(&mut shell, config.data_dir.join("up.json"), up);
    if let Some(server) = server {
        watch_server(&mut shell, server);
    }
    started(&mut shell, starting);
    Ok(shell)
}

/// Has the demo's tenants ask for clusters, once everything is ready for them.
async fn start_wishes(
    shell: &mut Shell,
    config: &Config,
    parties: &Parties,
    server: Option<&Server>,
) -> Result<()> {
    let (Some(site), Some((principal, seed, clusters))) =
        (config.placement.sites.keys().next().cloned(), parties.wishes(config, clock())?)
    else {
        return Ok(());
    };
    let mut options = ground::options(config, server, principal.as_str(), Some(seed))?;
    options.may_see_streams = false;
    let bus = Bus::connect(options).await.with_context(|| format!("demo {principal}"))?;
    let health = shell.health().clone();
    shell.spawn(format!("demo {principal}"), Stage::Entrance, |stop| async move {
        let wish = async {
            while !health.is_ready() {
                tokio::time::sleep(READY_LOOK).await;
            }
            wishes::live(clusters, bus, site, unique(), clock).await
        };
        tokio::select! {
            ended = wish => ended,
            () = stop.into_requested() => Ok(()),
        }
    });
    Ok(())
}

async fn service(config: Config, name: &'static str) -> Result<Shell> {
    let mut shell = Shell::start(name, &config).await?;
    let starting = starting(&shell);
    anyhow::ensure!(
        config.bus.nats_url.is_some(),
        "bus.nats_url: is not set; a service by itself joins a broker that runs (walras up starts one)"
    );
    let Ground { bus, principal, .. } = Ground::of_service(&config, name, &mut shell).await?;
    if name == "market" || name == "placement" {
        let machines: &[&str] = if name == "market" { &["market", "webhook"] } else { &["placement"] };
        ground::ensure_streams(&config, &bus, machines).await?;
        keys::folder(&config.data_dir)?;
        let journal = open_journal(&config).await?;
        for (stream, principal, filter) in config.access().replays() {
            bus.ensure_replay(stream, &principal, &filter).await?;
        }
        let owner = owner::owner(&config.data_dir, &unique(), &journal).await?;
        if name == "market" {
            let trusted = parties::trusted(&config);
            market_service::start(&mut shell, &bus, &journal, &config, &owner, &trusted)?;
            webhook_service::start(&mut shell, &bus, &journal, &config, &owner, &unique())?;
        } else {
            placement_service::start(&mut shell, &bus, &journal, &config, &owner)?;
        }
    } else {
        let machines: &[&str] = if name == "controlplane" { &["placement"] } else { &["market"] };
        if !ground::wait_for_streams(&config, &bus, machines).await? {
            return Ok(shell);
        }
        if name == "controlplane" {
            management::start(&mut shell, &bus, &config).await?;
            started(&mut shell, starting);
            return Ok(shell);
        }
        let tokens = config.tenants.iter().map(|tenant| (*tenant.token_sha256.bytes(), tenant.id.clone()));
        start_gateway(&mut shell, &bus, &config, &principal, &tokens.collect()).await?;
    }
    started(&mut shell, starting);
    Ok(shell)
}

/// Not ready as long as a part may be missing: what has not begun yet has no condition of its own.
fn starting(shell: &Shell) -> Condition {
    let starting = shell.health().condition("started");
    starting.unmet("parts are still being started");
    starting
}

fn started(shell: &mut Shell, starting: Condition) {
    starting.met("every part was started");
    shell.spawn("readiness", Stage::Entrance, |stop| async move {
        stop.into_requested().await;
        drop(starting);
        Ok(())
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
    principal: &PrincipalId,
    tokens: &BTreeMap<crate::gateway::TokenHash, proto::TenantId>,
) -> Result<std::net::SocketAddr> {
    let settings = &config.gateway;
    let listener = tokio::net::TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("gateway.listen: {}: cannot listen", settings.listen))?;
    let address = listener.local_addr()?;
    let unique = unique();
    let exchanges: Vec<StreamName> = config.market.exchanges.keys().cloned().collect();
    let sites: Vec<StreamName> = config.placement.sites.keys().cloned().collect();
    let gateway = Arc::new(Gateway {
        identity: Identity::new(tokens.clone(), settings.requests_per_second, settings.burst),
        strangers: Strangers::new(settings.stranger_requests_per_second, settings.stranger_burst),
        desk: Desk::open(bus, principal.clone(), &exchanges, &sites, &unique).await?,
        resources: resources(config),
        may_point_private: config.webhooks.private_addresses,
        unique,
        made_up: AtomicU64::new(1),
        metrics: Metrics::new(&shell.meter().of("gateway"))?,
        in_flight: Arc::new(Semaphore::new(settings.requests_in_flight_max.get() as usize)),
        streams: Arc::new(Semaphore::new(settings.streams_open_max.get() as usize)),
    });
    // As many connections as may be at work, and as many again that wait between two requests.
    let at_work = settings.requests_in_flight_max.get() as usize + settings.streams_open_max.get() as usize;
    let listener = BoundedListener::new(listener, 2 * at_work);
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
        let serve = axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(stop.into_requested());
        tokio::select! {
            served = serve => Ok(served?),
            () = watch => Ok(()),
            // Event streams never end by themselves: what is still open a moment after the stop is dropped.
            () = async { ended.into_requested().await; tokio::time::sleep(Duration::from_millis(500)).await } => Ok(()),
        }
    });
    Ok(address)
}

/// What one server of a market has, for people.
fn resources(config: &Config) -> BTreeMap<MarketId, String> {
    let markets = config.market.exchanges.values().flat_map(ExchangeSettings::all_markets);
    let described = markets.filter(|market| !market.resources.is_empty());
    described.map(|market| (market.market(), market.resources.clone())).collect()
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
