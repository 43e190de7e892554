//! Serving certificates of kubelets: each tenant's cluster that has workers is watched for requests, and those are
//! approved that are for exactly the worker's Node: its name, its addresses, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use controlplane::workers::{Holder, read_serving_request};
use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt as _, watcher};
use proto::worker::WorkerId;
use proto::worker::certificate::unbase64;
use proto::{ClusterId, TenantId};
use serde_json::Value;
use tokio::task::AbortHandle;

use super::Office;
use super::ask::{ask, text};
use super::tenant::{Tenant, approve};

/// The signer of certificates with which kubelets serve.
const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// What such a certificate may be for.
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];
/// Who has joined is looked at this often, for clusters to watch.
const LOOK: Duration = Duration::from_secs(1);
/// A Node may say its addresses a moment after its kubelet asks for a certificate with them.
const TRIES_MAX: u32 = 5;
const TRY_PAUSE: Duration = Duration::from_secs(2);
/// Pause before a cluster that cannot be reached is watched again.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

type Place = (TenantId, ClusterId);

/// Watches the clusters that have workers, until it is dropped.
pub(super) async fn run(office: Arc<Office>) -> Result<()> {
    let mut watched: BTreeMap<Place, Watch> = BTreeMap::new();
    loop {
        let wanted: BTreeSet<Place> = {
            let desk = office.desk();
            let places = desk.workers().map(|(_, holder, _)| (holder.tenant.clone(), holder.cluster.clone()));
            places.collect()
        };
        watched.retain(|place, _| wanted.contains(place));
        for place in wanted {
            watched
                .entry(place.clone())
                .or_insert_with(|| Watch(tokio::spawn(watch(Arc::clone(&office), place)).abort_handle()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A cluster that is watched; dropped, it is no longer.
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch(office: Arc<Office>, (tenant, cluster): Place) {
    let holder = Holder { tenant, cluster, pool: None, market: None };
    loop {
        match office.tenants.of(&holder).await {
            Ok(Some(tenant)) => follow(&office, &tenant, &holder).await,
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(tenant = %holder.tenant, error = %format!("{error:#}"), "not watched yet");
            }
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

async fn follow(office: &Arc<Office>, tenant: &Tenant, holder: &Holder) {
    let resource = ApiResource {
        group: "certificates.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "certificates.k8s.io/v1".to_owned(),
        kind: "CertificateSigningRequest".to_owned(),
        plural: "certificatesigningrequests".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(tenant.client.clone(), &resource);
    let config = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
    let mut events = pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let object = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => object,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, tenant = %holder.tenant, "the watch of requests begins again");
                continue;
            }
        };
        let Ok(request) = serde_json::to_value(object) else { continue };
        let is_open =
            request.pointer("/status/conditions").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if text(&request, "/spec/signerName") == SIGNER && is_open {
            let name = text(&request, "/metadata/name").to_owned();
            if let Err(error) = decide(office, tenant, holder, request).await {
                tracing::warn!(name, error = %format!("{error:#}"), "a serving certificate is not decided upon");
            }
        }
    }
}

/// Approves or denies a request of one of our workers. Requests of others are left to others.
async fn decide(office: &Office, tenant: &Tenant, holder: &Holder, request: Value) -> Result<()> {
    let user = text(&request, "/spec/username");
    let Some(worker) = user.strip_prefix("system:node:").and_then(|name| name.parse::<WorkerId>().ok())
    else {
        return Ok(());
    };
    let is_ours = office
        .desk()
        .bound(&worker)
        .is_some_and(|(_, known)| (&known.tenant, &known.cluster) == (&holder.tenant, &holder.cluster));
    if !is_ours {
        return Ok(());
    }
    let mut decided = Err(String::new());
    for attempt in 0..TRIES_MAX {
        if attempt > 0 {
            tokio::time::sleep(TRY_PAUSE).await;
        }
        decided = judge(tenant, &worker, &request).await?;
        if decided.is_ok() {
            break;
        }
    }
    let result = match &decided {
        Ok(()) => "approved",
        Err(why) => {
            tracing::warn!(%worker, why, "a serving certificate is refused");
            "refused"
        }
    };
    office.figures.certificates.with_label_values(&["serving", result]).inc();
    let decided = decided.as_ref().map(|()| "exactly the Node of its lease").map_err(String::as_str);
    approve(&tenant.client, request, decided).await.map(drop)
}

async fn judge(tenant: &Tenant, worker: &WorkerId, request: &Value) -> Result<Result<(), String>> {
    let usages = request.pointer("/spec/usages").and_then(Value::as_array).context("it names no usages")?;
    if let Some(other) = usages.iter().find(|one| !one.as_str().is_some_and(|one| USAGES.contains(&one))) {
        return Ok(Err(format!("it is for {other} too")));
    }
    let pem = unbase64(text(request, "/spec/request")).and_then(|bytes| String::from_utf8(bytes).ok());
    let asked = match read_serving_request(&pem.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let nodes = ask(&tenant.client, "GET", "/api/v1/nodes", None).await?.unwrap_or_default();
    let (mut own, mut others): (Vec<IpAddr>, Vec<IpAddr>) = (Vec::new(), Vec::new());
    for node in nodes["items"].as_array().into_iter().flatten() {
        let list = if text(node, "/metadata/name") == worker.to_string() { &mut own } else { &mut others };
        let said = node.pointer("/status/addresses").and_then(Value::as_array);
        list.extend(
            said.into_iter().flatten().filter_map(|one| text(one, "/address").parse::<IpAddr>().ok()),
        );
    }
    Ok(asked.check(&worker.to_string(), &own, &others))
}
