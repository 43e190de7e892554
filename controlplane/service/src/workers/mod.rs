//! Workers of leases, served: they redeem their join secrets and report over HTTPS, the market is told how they are,
//! they are told when they have to leave, and nothing of them is left when their leases are over. What is decided is
//! decided by [`controlplane::workers`]; here are the sockets, the clock and the clusters.

mod admit;
mod ask;
mod bindings;
mod callout;
mod door;
mod figures;
mod follow;
mod secret;
mod serving;
mod tell;
mod tenant;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use controlplane::workers::{Desk, DeskSettings};
use kube::Client;
use proto::worker::{Bound, BusTerms, SiteKey, WorkerId};
use proto::{StreamName, Timestamp};
use runtime::bus::Bus;
use runtime::config::WorkersSettings;
use runtime::nats::callout::Issuer;
use runtime::shell::{Shell, Stage};
use tokio::sync::Notify;

use figures::Figures;
use tenant::Tenants;

/// What had no effect is said, or tried, again after so long, in seconds.
const REPEAT_SECONDS: u32 = 10;
/// Pause before what is remembered of workers is read again, if it cannot be.
const READ_PAUSE: Duration = Duration::from_secs(2);

/// What everything here works with.
struct Office {
    bus: Bus,
    management: Client,
    tenants: Tenants,
    site_key: SiteKey,
    settings: WorkersSettings,
    figures: Figures,
    desk: Mutex<Desk>,
    /// Something changed that the desk may want to act upon.
    news: Notify,
    /// How workers get into the bus, where they do.
    entrance: Option<Entrance>,
}

/// How workers get into the bus.
struct Entrance {
    url: String,
    certificate_authority: Option<String>,
    issuer: Issuer,
}

impl Entrance {
    fn read(settings: &WorkersSettings) -> Result<Option<Self>> {
        let Some(url) = settings.bus_url.clone() else { return Ok(None) };
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).with_context(|| path.display().to_string())
        };
        let seed =
            settings.bus_issuer_seed_file.as_deref().context("workers.bus_issuer_seed_file: is not set")?;
        let issuer = Issuer::from_seed(&read(seed).context("workers.bus_issuer_seed_file")?)?;
        anyhow::ensure!(
            Some(issuer.public()) == settings.bus_issuer,
            "workers.bus_issuer: is not the public half of what is in workers.bus_issuer_seed_file"
        );
        let authority = settings.bus_certificate_authority.as_deref().map(read).transpose();
        let certificate_authority = authority.context("workers.bus_certificate_authority")?;
        Ok(Some(Self { url, certificate_authority, issuer }))
    }
}

impl Office {
    /// The desk. Each call on it is whole, so that a poisoned lock holds nothing half done.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a worker hears what it is told.
    fn bus_terms(&self, worker: &WorkerId, bound: &Bound) -> Option<BusTerms> {
        self.entrance.as_ref().map(|entrance| BusTerms {
            url: entrance.url.clone(),
            password: self.site_key.bus_password(worker, bound),
            certificate_authority: entrance.certificate_authority.clone(),
        })
    }
}

fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Serves the workers of these exchanges' leases, if the settings say where. The address it listens on, if it does.
///
/// # Errors
/// When a file of the settings cannot be used, nobody can listen there, or a metric is refused.
pub async fn start(
    shell: &mut Shell,
    bus: &Bus,
    management: &Client,
    settings: &WorkersSettings,
    exchanges: &[StreamName],
) -> Result<Option<std::net::SocketAddr>> {
    let Some(listen) = settings.listen else { return Ok(None) };
    let path = settings.site_key_file.as_deref().context("workers.site_key_file: is not set")?;
    let key = std::fs::read(path).with_context(|| format!("workers.site_key_file: {}", path.display()))?;
    // Editors end files with line ends.
    let site_key = SiteKey::new(key.trim_ascii()).context("workers.site_key_file")?;
    let acceptor = door::acceptor(settings)?;
    let listener = door::bind(listen).await?;
    let address = listener.local_addr()?;
    let now = clock();
    let limits = DeskSettings { dead_seconds: settings.dead_seconds.get(), repeat_seconds: REPEAT_SECONDS };
    let office = Arc::new(Office {
        bus: bus.clone(),
        management: management.clone(),
        tenants: Tenants::new(management.clone()),
        site_key,
        settings: settings.clone(),
        figures: Figures::new(&shell.meter().of("controlplane"))?,
        desk: Mutex::new(Desk::new(limits, exchanges.iter().cloned(), now)),
        news: Notify::new(),
        entrance: Entrance::read(settings)?,
    });
    for exchange in exchanges {
        let (office, exchange) = (Arc::clone(&office), exchange.clone());
        shell.spawn(format!("leases of {exchange}"), Stage::Reader, move |stop| {
            follow::follow(office, exchange, stop)
        });
    }
    let ready = shell.health().condition("workers");
    ready.unmet("the leases, or who joined before, are not known yet");
    shell.spawn("workers", Stage::Entrance, move |mut stop| async move {
        let prepare = async {
            prepare(&office).await;
            ready.met("workers join and report");
        };
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = prepare => {}
        }
        let unique = format!("{:x}-{:x}", now.micros(), std::process::id());
        let asked = (secret::serve(&office).await?, callout::serve(&office).await?);
        let all = async {
            tokio::try_join!(
                door::serve(Arc::clone(&office), listener, acceptor, std::future::pending()),
                tell::run(Arc::clone(&office), unique),
                serving::run(Arc::clone(&office)),
            )
        };
        let ended = tokio::select! {
            () = stop.requested() => Ok(()),
            ended = all => ended.map(drop),
        };
        drop(asked);
        ended
    });
    Ok(Some(address))
}

/// Waits until the leases are known and who joined before. Until then nobody can be told anything that is true.
async fn prepare(office: &Office) {
    loop {
        match bindings::list(&office.management).await {
            Ok(found) => {
                tracing::info!(workers = found.len(), "workers that joined before");
                for one in found {
                    office.desk().remember(clock(), one.worker, one.bound, one.holder);
                }
                break;
            }
            Err(error) => {
                tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "who joined is not known yet");
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }
    while !office.desk().is_ready() {
        office.news.notified().await;
    }
}
