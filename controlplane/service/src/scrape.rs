//! Looks at how quick planes are, each every so often, and counts their workers on the way.
//!
//! API servers are asked as the plane's administrator, through the address that its kubeconfig names; controller
//! managers through the management cluster's proxy to pods. What is shown is read up to a bound.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use controlplane::{Counts, Health, Objectives, PlaneState};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::Secret;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use proto::placement::PlaneNumber;
use runtime::shell::Stop;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client_of;
use crate::figures::Quickness;
use crate::kubeconfig::MEMBER;
use crate::speaker::Measured;

/// Planes that are looked at at once.
const LOOKS_AT_ONCE_MAX: usize = 16;
/// How long one look may take.
const LOOK_WAIT: Duration = Duration::from_secs(10);
/// Bytes of what one server shows that are read.
const SHOWN_BYTES_MAX: usize = 16 << 20;
/// Where controller managers show what they count.
const CONTROLLER_PORT: u16 = 10257;

/// Looks at the planes of a site.
pub(crate) struct Scraper {
    pub(crate) client: Client,
    pub(crate) planes: watch::Receiver<BTreeMap<PlaneNumber, PlaneState>>,
    pub(crate) measured: mpsc::Sender<Measured>,
    pub(crate) objectives: Objectives,
    /// From one look at a plane to the next.
    pub(crate) every: Duration,
    pub(crate) figures: Quickness,
}

/// A plane that is looked at.
struct Known {
    health: Health,
    /// How its API server is reached, once that is known.
    config: Option<Config>,
    due: Instant,
    is_looked_at: bool,
}

/// What one look gave.
struct Looked {
    number: PlaneNumber,
    config: Option<Config>,
    counts: Result<Vec<Counts>>,
}

impl Scraper {
    /// Looks until the stop.
    pub(crate) async fn run(mut self, mut stop: Stop) -> Result<()> {
        let mut known: BTreeMap<PlaneNumber, Known> = BTreeMap::new();
        let mut looks: JoinSet<Looked> = JoinSet::new();
        loop {
            self.begin(&mut known, &mut looks);
            let next = known.values().filter(|one| !one.is_looked_at).map(|one| one.due).min();
            let next = next.filter(|_| looks.len() < LOOKS_AT_ONCE_MAX);
            let nap = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.requested() => return Ok(()),
                changed = self.planes.changed() => {
                    if changed.is_err() {
                        stop.requested().await;
                        return Ok(());
                    }
                    self.note(&mut known);
                }
                Some(looked) = looks.join_next() => self.take(&mut known, looked?).await,
                () = nap => {}
            }
        }
    }

    /// Takes note of the planes that serve. New ones are looked at one after the other, not all at once.
    fn note(&mut self, known: &mut BTreeMap<PlaneNumber, Known>) {
        let planes = self.planes.borrow_and_update();
        let serves = |number: &PlaneNumber| {
            planes.get(number).is_some_and(|plane| !plane.ready_on.is_empty() && plane.kubeconfig.is_some())
        };
        known.retain(|number, one| serves(number) || one.is_looked_at);
        for number in planes.keys().filter(|number| serves(number)) {
            known.entry(*number).or_insert_with(|| Known {
                health: Health::default(),
                config: None,
                due: Instant::now(),
                is_looked_at: false,
            });
        }
    }

    /// Begins the looks that are due.
    fn begin(&self, known: &mut BTreeMap<PlaneNumber, Known>, looks: &mut JoinSet<Looked>) {
        let now = Instant::now();
        let planes = self.planes.borrow();
        for (number, one) in known.iter_mut().filter(|(_, one)| !one.is_looked_at && one.due <= now) {
            if looks.len() >= LOOKS_AT_ONCE_MAX {
                return;
            }
            one.due = now + self.every;
            let Some(plane) = planes.get(number) else { continue };
            one.is_looked_at = true;
            looks.spawn(look(self.client.clone(), plane.clone(), one.config.take()));
        }
    }

    async fn take(&mut self, known: &mut BTreeMap<PlaneNumber, Known>, looked: Looked) {
        let Looked { number, config, counts } = looked;
        let Some(one) = known.get_mut(&number) else { return };
        one.is_looked_at = false;
        match counts {
            Ok(counts) => {
                one.config = config;
                let look = one.health.look(counts, &self.objectives);
                self.figures.saw(&look);
                let measured = Measured { number, workers: look.workers, is_slow: look.is_slow };
                // Who takes them stops when we do.
                let _taken = self.measured.send(measured).await;
            }
            Err(error) => {
                // Its key may have been replaced: it is read again.
                self.figures.failed();
                tracing::debug!(plane = number, error = format!("{error:#}"), "a plane was not looked at");
            }
        }
        self.note(known);
    }
}

/// Looks at one plane.
async fn look(client: Client, plane: PlaneState, known: Option<Config>) -> Looked {
    let number = plane.number;
    let looking = async {
        let config = match known {
            Some(config) => config,
            None => config_of(&client, &plane).await?,
        };
        let server = client_of(config.clone())?;
        let mut counts = vec![Counts::of_api_server(&shown(&server, "/metrics").await?)];
        for pod in &plane.ready_pods {
            let namespace = &plane.namespace;
            let path =
                format!("/api/v1/namespaces/{namespace}/pods/https:{pod}:{CONTROLLER_PORT}/proxy/metrics");
            match shown(&client, &path).await {
                Ok(text) => counts.push(Counts::of_controllers(&text)),
                // Its API server tells more than nothing.
                Err(error) => tracing::debug!(plane = number, pod, error = format!("{error:#}"), "no answer"),
            }
        }
        Ok((config, counts))
    };
    match tokio::time::timeout(LOOK_WAIT, looking).await {
        Ok(Ok((config, counts))) => Looked { number, config: Some(config), counts: Ok(counts) },
        Ok(Err(error)) => Looked { number, config: None, counts: Err(error) },
        Err(_) => Looked { number, config: None, counts: Err(anyhow::anyhow!("not within {LOOK_WAIT:?}")) },
    }
}

/// How a plane's API server is reached by its administrator.
async fn config_of(client: &Client, plane: &PlaneState) -> Result<Config> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &plane.namespace);
    let secret = secrets.get(plane.kubeconfig.as_deref().unwrap_or_default()).await?;
    let file =
        secret.data.and_then(|mut data| data.remove(MEMBER)).context("the Secret has no kubeconfig")?;
    let kubeconfig = Kubeconfig::from_yaml(&String::from_utf8(file.0)?)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

/// What is shown at a path, up to a bound.
async fn shown(client: &Client, path: &str) -> Result<String> {
    let response = client.send(http::Request::get(path).body(Body::empty())?).await?;
    anyhow::ensure!(response.status().is_success(), "{path} is answered with {}", response.status());
    let body = Limited::new(response.into_body(), SHOWN_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
    Ok(String::from_utf8(body.to_bytes().into())?)
}
