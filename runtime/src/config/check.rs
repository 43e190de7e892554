//! What one value's type cannot see: ranges, and how values go together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::catalogue::MARKETS_MAX;
use super::management;
use super::settings::{Config, EXCHANGES_MAX};
use super::site::{self, SITES_MAX};

/// Tenants, storefronts and other parties, each list.
pub const PARTIES_MAX: usize = 100_000;
/// Longest claim, in seconds: what a stream stands still at worst.
const CLAIM_SECONDS_MAX: u32 = 300;
/// Answers kept at most: 2 GiB of memory.
const ANSWERS_KEPT_MAX: u32 = 1 << 26;
/// Largest request body: an envelope's commands.
const BODY_BYTES_MAX: u32 = 1 << 20;
/// Longest that the bus keeps what it has told, in days.
const EVENT_DAYS_MAX: u32 = 3_650;
/// Smallest stream: room for some full envelopes.
const STREAM_BYTES_MIN: u64 = 16 << 20;

/// A key and what is wrong with it.
pub(super) struct Fault {
    pub(super) key: String,
    pub(super) problem: String,
}

fn fault(key: impl Into<String>, problem: impl Into<String>) -> Result<(), Fault> {
    Err(Fault { key: key.into(), problem: problem.into() })
}

/// Everything that must hold between the values of a configuration.
pub(super) fn check(config: &Config) -> Result<(), Fault> {
    check_bus(config)?;
    check_exchanges(config)?;
    check_sites(config)?;
    check_numbers(config)?;
    check_parties(config)?;
    let (gateway, admin) = (config.gateway.listen, config.admin.listen);
    if collide(gateway, admin) {
        return fault("admin.listen", format!("{admin} is where the gateway listens, {gateway}"));
    }
    check_workers(config)?;
    if tracing_subscriber::EnvFilter::try_new(&config.telemetry.filter).is_err() {
        return fault("telemetry.filter", format!("{:?} is no filter", config.telemetry.filter));
    }
    Ok(())
}

fn check_workers(config: &Config) -> Result<(), Fault> {
    if let Some((key, problem)) = config.workers.problem() {
        return fault(format!("workers.{key}"), problem);
    }
    let others = [("the gateway listens", config.gateway.listen), ("health is shown", config.admin.listen)];
    let taken = config.workers.listen.and_then(|listen| {
        let other = others.into_iter().find(|(_, other)| collide(listen, *other));
        other.map(|(what, other)| format!("{listen} is where {what}, {other}"))
    });
    taken.map_or(Ok(()), |problem| fault("workers.listen", problem))
}

/// Whether both would want the same port: on the same address, or one of them on all addresses.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn check_bus(config: &Config) -> Result<(), Fault> {
    let bus = &config.bus;
    if let Some(url) = &bus.nats_url {
        let schemes = ["nats://", "tls://"];
        if !url.expose().split(',').all(|one| schemes.iter().any(|scheme| one.trim().starts_with(scheme))) {
            return fault("bus.nats_url", "must be nats://HOST:PORT or tls://HOST:PORT, several with commas");
        }
        if bus.nats_server.is_some() || bus.port != 0 {
            let key = if bus.nats_server.is_some() { "bus.nats_server" } else { "bus.port" };
            return fault(key, "is for a nats-server child, but bus.nats_url names one that runs already");
        }
    } else if bus.replicas != 1 {
        return fault("bus.replicas", "a nats-server child is one server and keeps 1 copy; see bus.nats_url");
    }
    if !matches!(bus.replicas, 1 | 3 | 5) {
        return fault("bus.replicas", format!("{} is not 1, 3 or 5", bus.replicas));
    }
    if let Some(url) = &bus.monitoring_url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return fault("bus.monitoring_url", format!("{url:?} is no http:// address"));
    }
    for (key, bytes) in
        [("bus.command_bytes_max", bus.command_bytes_max), ("bus.event_bytes_max", bus.event_bytes_max)]
    {
        if !(STREAM_BYTES_MIN..=i64::MAX as u64).contains(&bytes.get()) {
            return fault(key, format!("{bytes} is not in {STREAM_BYTES_MIN} … 2^63 - 1"));
        }
    }
    if bus.event_days.get() > EVENT_DAYS_MAX {
        return fault("bus.event_days", format!("{} is more than {EVENT_DAYS_MAX}", bus.event_days));
    }
    match &config.journal.database_url {
        Some(url) if !matches!(url.scheme(), "sqlite" | "postgres" | "postgresql") => {
            fault("journal.database_url", "must be sqlite:PATH or postgres://HOST/DATABASE")
        }
        _ => Ok(()),
    }
}

fn check_exchanges(config: &Config) -> Result<(), Fault> {
    let exchanges = &config.market.exchanges;
    if exchanges.is_empty() || exchanges.len() > EXCHANGES_MAX {
        let problem = format!("{} exchanges, must be 1 … {EXCHANGES_MAX}", exchanges.len());
        return fault("market.exchanges", problem);
    }
    let mut homes = BTreeMap::new();
    for (name, exchange) in exchanges {
        let key = format!("market.exchanges.{name}");
        let count = exchange.all_markets().count();
        if count > MARKETS_MAX {
            return fault(format!("{key}.markets"), format!("{count} markets, at most {MARKETS_MAX}"));
        }
        let catalogue = exchange.from_catalogue.iter().map(|market| (None, market));
        let here = exchange.markets.iter().enumerate().map(|(index, market)| (Some(index), market));
        for (index, market) in catalogue.chain(here) {
            let key = index.map_or_else(|| format!("{key}.catalogue"), |at| format!("{key}.markets[{at}]"));
            if let Some((field, problem)) = market.problem() {
                return match index {
                    Some(_) => fault(format!("{key}.{field}"), problem),
                    None => fault(key, format!("market {}: {field}: {problem}", market.market())),
                };
            }
            if let Some(home) = homes.insert(market.market(), name) {
                let problem = format!("market {} is in exchange {home} already", market.market());
                return fault(key, problem);
            }
        }
        if exchange.rules.standing_bids_per_tenant_max > exchange.rules.standing_bids_max {
            let problem = "is more than standing_bids_max";
            return fault(format!("{key}.rules.standing_bids_per_tenant_max"), problem);
        }
    }
    Ok(())
}

fn check_sites(config: &Config) -> Result<(), Fault> {
    let sites = &config.placement.sites;
    if sites.len() > SITES_MAX {
        return fault("placement.sites", format!("{} sites, at most {SITES_MAX}", sites.len()));
    }
    for (name, settings) in sites {
        if let Some((key, problem)) = site::problem(settings) {
            return fault(format!("placement.sites.{name}.{key}"), problem);
        }
    }
    if let Some((key, problem)) = management::problem(&config.controlplane, |name| sites.contains_key(name)) {
        return fault(format!("controlplane.{key}"), problem);
    }
    Ok(())
}

fn check_numbers(config: &Config) -> Result<(), Fault> {
    let most = |key: &str, value: u32, most: u32| {
        if value > most { fault(key, format!("{value} is more than {most}")) } else { Ok(()) }
    };
    most("runner.claim_seconds", config.runner.claim_seconds.get(), CLAIM_SECONDS_MAX)?;
    most("runner.answers_kept", config.runner.answers_kept.get(), ANSWERS_KEPT_MAX)?;
    most("gateway.body_bytes_max", config.gateway.body_bytes_max.get(), BODY_BYTES_MAX)?;
    let gateway = &config.gateway;
    let bursts = [
        ("gateway.burst", gateway.burst, "requests_per_second", gateway.requests_per_second),
        (
            "gateway.stranger_burst",
            gateway.stranger_burst,
            "stranger_requests_per_second",
            gateway.stranger_requests_per_second,
        ),
    ];
    match bursts.into_iter().find(|(_, burst, _, per_second)| burst < per_second) {
        Some((key, burst, rate, per_second)) => fault(
            key,
            format!("{burst} is less than {rate}, {per_second}, which could then never be reached"),
        ),
        None => Ok(()),
    }
}

fn check_parties(config: &Config) -> Result<(), Fault> {
    let lists = [
        ("services", config.services.len()),
        ("tenants", config.tenants.len()),
        ("storefronts", config.storefronts.len()),
        ("hypervisors", config.hypervisors.len()),
        ("operators", config.operators.len()),
        ("observers", config.observers.len()),
    ];
    if let Some((key, count)) = lists.into_iter().find(|(_, count)| *count > PARTIES_MAX) {
        return fault(key, format!("{count} entries, at most {PARTIES_MAX}"));
    }
    let (mut ids, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    for (index, tenant) in config.tenants.iter().enumerate() {
        if !ids.insert(&tenant.id) {
            return fault(format!("tenants[{index}].id"), format!("{} is there twice", tenant.id));
        }
        if !tokens.insert(tenant.token_sha256) {
            let problem = "another tenant has the same token; one of the two could act as the other";
            return fault(format!("tenants[{index}].token_sha256"), problem);
        }
    }
    for (index, storefront) in config.storefronts.iter().enumerate() {
        if storefront.every_tenant != storefront.tenants.is_empty() {
            let problem = "give the tenants it may bid for, or every_tenant = true; one of the two";
            return fault(format!("storefronts[{index}].tenants"), problem);
        }
    }
    check_keys(config)?;
    // Names that are our services' own, and whatever else the broker's rights rest on.
    config.access().accounts().map(drop).or_else(|error| fault("parties", error.to_string()))
}

/// Principals are unique across roles, and a key used twice would give one party the other's rights.
fn check_keys(config: &Config) -> Result<(), Fault> {
    let services = config.services.iter().enumerate();
    let services = services.map(|(at, one)| ("services", at, &one.principal, &one.nkey));
    let storefronts = config.storefronts.iter().enumerate();
    let storefronts = storefronts.map(|(at, one)| ("storefronts", at, &one.principal, &one.nkey));
    let others = [
        ("hypervisors", &config.hypervisors),
        ("operators", &config.operators),
        ("observers", &config.observers),
    ];
    let others = others.into_iter().flat_map(|(list, parties)| {
        parties.iter().enumerate().map(move |(at, one)| (list, at, &one.principal, &one.nkey))
    });
    let (mut principals, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for (list, at, principal, nkey) in services.chain(storefronts).chain(others) {
        if !principals.insert(principal) {
            return fault(format!("{list}[{at}].principal"), format!("{principal} is there twice"));
        }
        if !keys.insert(nkey) {
            return fault(format!("{list}[{at}].nkey"), "another party has the same key");
        }
    }
    Ok(())
}
