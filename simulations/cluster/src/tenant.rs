//! What planes serve: each tenant's own cluster, behind `/tenants/NAMESPACE/NAME`, as long as a pod of the plane is
//! ready. Its data stays while the plane sleeps or moves, and goes with the plane.

use std::collections::BTreeMap;

use proto::Timestamp;
use serde_json::Value;

use crate::json::{at, text, truth};
use crate::request::Request;
use crate::status::Refusal;
use crate::store::Key;
use crate::watch::Watch;
use crate::{Answer, Cluster, Settings, refused};

/// Clusters of tenants by their planes, each with its plane's uid.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenants(BTreeMap<Key, (String, Box<Cluster>)>);

impl Tenants {
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.0.values_mut().for_each(|(_, cluster)| cluster.advance(now));
    }

    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.0.values().filter_map(|(_, cluster)| cluster.wake_at()).min()
    }
}

impl Tenants {
    pub(crate) fn changes(&self) -> u64 {
        self.0.values().map(|(_, cluster)| cluster.changes()).sum()
    }
}

/// The plane that a path leads into, and the path inside.
pub(crate) fn of_path(path: &str) -> Option<(Key, String)> {
    let rest = path.strip_prefix("/tenants/")?;
    let (namespace, rest) = rest.split_once('/')?;
    let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
    Some((Key::new("tenantcontrolplanes", namespace, name), format!("/{rest}")))
}

impl Cluster {
    /// The cluster of a plane, if a pod of it answers.
    fn tenant(&mut self, key: &Key) -> Result<&mut Self, Refusal> {
        let Some(plane) = self.store.get(key) else {
            self.tenants.0.remove(key);
            return Err(Refusal::new(404, "NotFound", format!("no plane {}/{}", key.namespace, key.name)));
        };
        let uid = text(plane, "metadata.uid").to_owned();
        if self.serving(key) == 0 {
            let why = format!("no pod of plane {}/{} is ready", key.namespace, key.name);
            return Err(Refusal::new(503, "ServiceUnavailable", why));
        }
        let settings = Settings {
            seed: crate::json::digest([uid.as_str()]) ^ self.settings.seed,
            base_url: format!("{}/tenants/{}/{}", self.settings.base_url, key.namespace, key.name),
            ..self.settings.clone()
        };
        let now = self.now;
        let fresh = || (uid.clone(), Box::new(Cluster::new(settings.clone(), now)));
        let known = self.tenants.0.entry(key.clone()).or_insert_with(fresh);
        if known.0 != uid {
            *known = fresh();
        }
        Ok(&mut known.1)
    }

    /// Answers a request to a plane.
    pub(crate) fn handle_tenant(&mut self, key: &Key, request: &Request) -> Answer {
        let blocked = self.store.get(key).and_then(|plane| blocked(plane, request));
        let now = self.now;
        if request.path == "/metrics" {
            return match self.tenant(key).map(|tenant| tenant.store.list("nodes", None).count()) {
                Ok(workers) => self.server_metrics(key, workers),
                Err(refusal) => refused(&refusal),
            };
        }
        let mut answer = match self.tenant(key) {
            Err(refusal) => return refused(&refusal),
            Ok(_) if blocked.is_some() => {
                return refused(&blocked.unwrap_or_else(|| unreachable!("looked at")));
            }
            Ok(tenant) => tenant.handle(now, request),
        };
        if let crate::Body::Watch(watch) = &mut answer.body {
            watch.plane = Some(key.clone());
        }
        answer
    }

    /// The lines of a watch on a plane; it breaks when no pod of the plane is ready.
    pub(crate) fn watch_tenant(&mut self, key: &Key, watch: &mut Watch) -> Vec<Value> {
        let now = self.now;
        if let Ok(tenant) = self.tenant(key) {
            return tenant.watch(now, watch);
        }
        watch.drop_now();
        Vec::new()
    }
}

/// The refusal of a write that the plane's owner blocked, or that its migration blocks. What the system itself writes
/// passes.
fn blocked(plane: &Value, request: &Request) -> Option<Refusal> {
    let exempt = request.path.contains("/namespaces/kube-system/") || request.path.contains("/leases");
    let migrating = text(plane, "status.kubernetesResources.version.status") == "Migrating";
    let named = match request.method.as_str() {
        "POST" => "blockCreation",
        "PUT" | "PATCH" => "blockUpdate",
        "DELETE" => "blockDeletion",
        _ => return None,
    };
    let limited = truth(at(plane, "spec.writePermissions"), named);
    let why = "admission webhook denied the request: the tenant control plane is limited in what it lets be written";
    ((limited || migrating) && !exempt).then(|| Refusal::new(403, "Forbidden", why))
}
