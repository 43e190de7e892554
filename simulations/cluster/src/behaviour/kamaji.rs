//! Kamaji: from planes to Deployments and back to status, and Cluster API's provider above it. What it overwrites,
//! keeps, reports and in which order follows what was read in its source and seen on the running controller.

use proto::Timestamp;
use serde_json::{Value, json};

use super::{Who, is_ready, plane};
use crate::Cluster;
use crate::apply::Writer;
use crate::json::{at, entry, items, list, number, owner, place, remove, set, text, truth};
use crate::store::Key;

const MANAGER: &str = "kamaji";
const FINALIZER: &str = "finalizer.kamaji.clastix.io";
const SOOT: &str = "finalizer.kamaji.clastix.io/soot";
const STORE_FINALIZER: &str = "kamaji.clastix.io/TenantControlPlane";
/// How long Kamaji waits before it asks again for what is not there yet, in microseconds.
const AGAIN_MICROS: i64 = 1_000_000;

impl Cluster {
    /// Queues a pass for the first of Kamaji's workers that is free.
    pub(super) fn queue_kamaji(&mut self, key: Key, when: Timestamp) {
        let pass = i64::from(self.settings.kamaji_pass_micros);
        let queued = self.behaviour.due.get(&(Who::Kamaji, key.clone())).copied();
        if queued.is_some_and(|queued| queued <= when.plus_micros(pass.max(AGAIN_MICROS))) {
            return;
        }
        let Some(free) = self.behaviour.kamaji_free.iter_mut().min() else { return };
        let done = (*free).max(when).plus_micros(pass);
        *free = done;
        self.behaviour.at(Who::Kamaji, key, done);
    }

    /// Whether something slow is done; begins it if it has not begun. While it lasts, a worker is busy with it.
    fn slow(&mut self, key: &Key, micros: u32, busy: bool) -> bool {
        if let Some(until) = self.behaviour.kamaji_until.get(key).copied() {
            if until > self.now {
                self.behaviour.at(Who::Kamaji, key.clone(), until);
                return false;
            }
            self.behaviour.kamaji_until.remove(key);
            return true;
        }
        let now = self.now;
        let free = self.behaviour.kamaji_free.iter_mut().min().filter(|_| busy);
        let until = free.as_deref().copied().unwrap_or(now).max(now).plus_micros(micros.into());
        if let Some(free) = free {
            *free = until;
        }
        self.behaviour.kamaji_until.insert(key.clone(), until);
        self.behaviour.at(Who::Kamaji, key.clone(), until);
        false
    }

    /// One pass over a plane: the next thing that is missing, then its status.
    pub(super) fn kamaji(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        if at(&object, "metadata.annotations").get("kamaji.clastix.io/paused").is_some() {
            return;
        }
        if !at(&object, "metadata.deletionTimestamp").is_null() {
            self.end_plane(key, &object);
            return;
        }
        if !items(&object, "metadata.finalizers").iter().any(|one| one == FINALIZER) {
            self.edit(key, MANAGER, "", |plane| {
                list(plane, "metadata.finalizers").push(FINALIZER.into());
                // Kamaji completes the specification itself: a new plane's generation moves without its owner.
                if at(plane, "spec.kubernetes.kubelet.cgroupfs").is_null() {
                    set(plane, "spec.kubernetes.kubelet.cgroupfs", "systemd");
                }
            });
            return;
        }
        let Some(address) = self.expose(key, &object) else {
            self.behaviour.at(Who::Kamaji, key.clone(), self.now.plus_micros(AGAIN_MICROS));
            return;
        };
        let endpoint = format!("{address}:{}", number(&object, "spec.networkProfile.port"));
        if text(&object, "status.controlPlaneEndpoint") != endpoint {
            self.edit(key, MANAGER, "status", |plane| {
                set(plane, "status.controlPlaneEndpoint", endpoint);
                if text(plane, "status.kubernetesResources.version.status").is_empty() {
                    set(plane, "status.kubernetesResources.version.status", "Provisioning");
                }
            });
            return;
        }
        if self.prepare(key, &object) {
            self.roll(key);
        }
    }

    /// A plane that ends needs its data store, to drop what it holds there.
    fn end_plane(&mut self, key: &Key, object: &Value) {
        let store = text(object, "status.storage.dataStoreName");
        if !store.is_empty() && self.get("datastores", "", store).is_none() {
            self.event(object, "Warning", "DataStoreMissing", &format!("data store {store} is not there"));
            self.behaviour.at(Who::Kamaji, key.clone(), self.now.plus_micros(AGAIN_MICROS));
            return;
        }
        self.edit(key, MANAGER, "", |plane| {
            list(plane, "metadata.finalizers").retain(|one| one != FINALIZER && one != SOOT);
        });
    }

    /// The Service, and the address that it gives.
    fn expose(&mut self, key: &Key, object: &Value) -> Option<String> {
        let service = key.with_kind("services");
        let live = self.store.get(&service).cloned();
        let wanted = plane::service(object, live.as_deref());
        let made = match live {
            None => self.make(wanted, MANAGER).ok(),
            Some(_) => self.edit(&service, MANAGER, "", |service| *service = wanted),
        }?;
        let own = text(object, "spec.networkProfile.address");
        let given = match text(&made, "spec.type") {
            "LoadBalancer" => {
                items(&made, "status.loadBalancer.ingress").first().map_or("", |one| text(one, "ip"))
            }
            _ => text(&made, "spec.clusterIP"),
        };
        let address = if own.is_empty() { given } else { own };
        (!address.is_empty()).then(|| address.to_owned())
    }

    /// Data store, certificates, and the move from one data store to another. True once nothing is missing.
    fn prepare(&mut self, key: &Key, object: &Value) -> bool {
        let store = text(object, "spec.dataStore").to_owned();
        let ready = self.get("datastores", "", &store).filter(|store| truth(store, "status.ready"));
        let Some(driver) = ready.map(|store| text(store, "spec.driver").to_owned()) else {
            self.behaviour.at(Who::Kamaji, key.clone(), self.now.plus_micros(AGAIN_MICROS));
            return false;
        };
        let admin = plane::secret_key(key, "admin-kubeconfig");
        if self.store.get(&admin).is_none() {
            if self.slow(key, self.settings.kamaji_certificates_micros, true) {
                let settings = self.settings.clone();
                let ends = plane::SECRETS.iter().filter(|(_, only)| !only || plane::tunnel(object).is_some());
                for end in ends.map(|(end, _)| *end).chain(["admin-kubeconfig"]) {
                    // Those that are there already stay.
                    let _made = self.make(plane::secret(object, end, &settings), MANAGER);
                }
            } else {
                return false;
            }
        }
        let known = text(object, "status.storage.dataStoreName").to_owned();
        if !known.is_empty() && known != store {
            self.edit(key, MANAGER, "status", |plane| {
                set(plane, "status.kubernetesResources.version.status", "Migrating");
            });
            if !self.slow(key, self.settings.kamaji_migration_micros, false) {
                return false;
            }
        }
        let uid = text(object, "metadata.uid").to_owned();
        let chosen = |path: &str| match text(object, path) {
            "" => uid.clone(),
            chosen => chosen.to_owned(),
        };
        let setup =
            json!({ "schema": chosen("spec.dataStoreSchema"), "user": chosen("spec.dataStoreUsername") });
        let name = key.name.clone();
        let tunnel = plane::tunnel(object).map(|tunnel| at(tunnel, "agent.mode").clone());
        self.edit(key, MANAGER, "status", |plane| {
            let storage = place(plane, "status.storage");
            set(storage, "driver", driver);
            set(storage, "dataStoreName", store);
            set(storage, "setup", setup);
            set(storage, "config.secretName", format!("{name}-datastore-config"));
            for (path, end) in [
                ("admin", "admin-kubeconfig"),
                ("controllerManager", "controller-manager-kubeconfig"),
                ("scheduler", "scheduler-kubeconfig"),
            ] {
                set(plane, &format!("status.kubeconfig.{path}.secretName"), format!("{name}-{end}"));
            }
            set(plane, "status.addons.konnectivity.enabled", tunnel.is_some());
            set(plane, "status.addons.konnectivity.agent.mode", tunnel.unwrap_or_default());
        });
        true
    }

    /// The Deployment, and what it says of the plane.
    fn roll(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        let at_key = key.with_kind("deployments");
        let live = self.store.get(&at_key).cloned();
        let wanted = plane::deployment(&object, live.as_deref(), text(&object, "status.storage.driver"));
        let made = match &live {
            None => self.make(wanted, MANAGER).ok(),
            Some(_) => self.edit(&at_key, MANAGER, "", |deployment| *deployment = wanted),
        };
        let Some(deployment) = made else { return };
        let word = word(&object, &deployment);
        let version = text(&object, "spec.kubernetes.version").to_owned();
        let awake = word != "Sleeping";
        let service = self.store.get(&key.with_kind("services")).cloned().unwrap_or_default();
        let generation = number(&object, "metadata.generation");
        self.edit(key, MANAGER, "status", |plane| {
            let resources = place(plane, "status.kubernetesResources");
            set(resources, "version.status", word);
            if matches!(word, "Ready" | "Sleeping") {
                set(resources, "version.version", version);
            }
            let mut seen = at(&deployment, "status").clone();
            for (name, from) in [("name", "metadata.name"), ("namespace", "metadata.namespace")] {
                set(&mut seen, name, text(&deployment, from));
            }
            set(&mut seen, "selector", format!("kamaji.clastix.io/name={}", key.name));
            remove(&mut seen, "conditions");
            set(resources, "deployment", seen);
            set(resources, "service", json!({ "name": key.name, "namespace": key.namespace,
                "port": number(&object, "spec.networkProfile.port"), "loadBalancer": at(&service, "status.loadBalancer") }));
            set(plane, "status.observedGeneration", generation);
        });
        let has_soot = items(&object, "metadata.finalizers").iter().any(|one| one == SOOT);
        // What manages the tenant's inside runs while the plane is awake, from its first readiness.
        if has_soot != awake && (has_soot || word == "Ready") {
            self.edit(key, MANAGER, "", |plane| {
                let finalizers = list(plane, "metadata.finalizers");
                finalizers.retain(|one| one != SOOT);
                finalizers.extend(awake.then(|| Value::from(SOOT)));
            });
        }
    }

    /// A data store is ready at once, knows who uses it, and stays while somebody does.
    pub(super) fn data_store(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        let uses = |plane: &Value| {
            text(plane, "spec.dataStore") == key.name
                || text(plane, "status.storage.dataStoreName") == key.name
        };
        let planes = self.store.list("tenantcontrolplanes", None).filter(|(_, plane)| uses(plane));
        let users: Vec<_> = planes.map(|(plane, _)| format!("{}/{}", plane.namespace, plane.name)).collect();
        let (used, ends) = (!users.is_empty(), !at(&object, "metadata.deletionTimestamp").is_null());
        self.edit(key, MANAGER, "status", |store| {
            set(store, "status.ready", true);
            set(store, "status.usedBy", users);
        });
        let held = items(&object, "metadata.finalizers").iter().any(|one| one == STORE_FINALIZER);
        if held != used && !(ends && used) {
            self.edit(key, MANAGER, "", |store| {
                let finalizers = list(store, "metadata.finalizers");
                finalizers.retain(|one| one != STORE_FINALIZER);
                finalizers.extend(used.then(|| Value::from(STORE_FINALIZER)));
            });
        }
    }

    /// Cluster API's provider: one plane of the same name, rewritten from its owner at every pass.
    pub(super) fn cluster_api(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        if !at(&object, "metadata.deletionTimestamp").is_null() {
            return;
        }
        let plane_key = key.with_kind("tenantcontrolplanes");
        let live = self.store.get(&plane_key).cloned();
        let wanted = from_cluster_api(&object, live.as_deref());
        let writer = Writer { manager: "capi-kamaji", apply: false, part: "", now: self.now };
        let plane = match self.commit(&plane_key, live.as_ref(), wanted, &writer, false) {
            Ok(plane) => plane,
            Err(refusal) => {
                return self.event(&object, "Warning", "TenantControlPlaneRefused", &refusal.message);
            }
        };
        let word = text(&plane, "status.kubernetesResources.version.status");
        let ready = matches!(word, "Ready" | "Upgrading");
        let seen = at(&plane, "status.kubernetesResources.deployment").clone();
        let version = text(&plane, "status.kubernetesResources.version.version").to_owned();
        let generation = number(&object, "metadata.generation");
        self.edit(key, "capi-kamaji", "status", |object| {
            let initialized = ready || truth(object, "status.initialization.controlPlaneInitialized");
            let status = entry(object, "status");
            set(status, "ready", ready);
            set(status, "initialization.controlPlaneInitialized", initialized);
            set(status, "externalManagedControlPlane", true);
            set(status, "version", version);
            for (name, from) in [
                ("replicas", "replicas"),
                ("readyReplicas", "readyReplicas"),
                ("availableReplicas", "availableReplicas"),
                ("upToDateReplicas", "updatedReplicas"),
            ] {
                set(status, name, number(&seen, from));
            }
            set(status, "selector", text(&seen, "selector"));
            set(status, "observedGeneration", generation);
        });
    }

    /// How many pods of a plane serve.
    pub(crate) fn serving(&self, plane: &Key) -> usize {
        let pods = self.store.list("pods", Some(&plane.namespace));
        pods.filter(|(_, pod)| at(pod, "metadata.labels")["kamaji.clastix.io/name"] == plane.name.as_str())
            .filter(|(_, pod)| is_ready(pod))
            .count()
    }
}

/// The word that Kamaji says of a plane, in the order in which it looks.
fn word(plane: &Value, deployment: &Value) -> &'static str {
    let seen = |name: &str| number(deployment, &format!("status.{name}"));
    let wanted = number(plane, "spec.controlPlane.deployment.replicas");
    let limited = at(plane, "spec.writePermissions").as_object();
    let settled = seen("observedGeneration") == number(deployment, "metadata.generation")
        && ["updatedReplicas", "readyReplicas", "replicas"].iter().all(|name| seen(name) == wanted)
        && seen("unavailableReplicas") == 0;
    let installed = text(plane, "status.kubernetesResources.version.version");
    if wanted == 0 {
        "Sleeping"
    } else if seen("readyReplicas") == 0 {
        "NotReady"
    } else if limited.is_some_and(|limits| limits.values().any(|one| one == true)) {
        "WriteLimited"
    } else if settled {
        "Ready"
    } else if installed.is_empty() {
        "Provisioning"
    } else if installed != text(plane, "spec.kubernetes.version") {
        "Upgrading"
    } else {
        "Unknown"
    }
}

/// Where a `KamajiControlPlane`'s fields go in the plane: from, to.
const FROM_CLUSTER_API: &[(&str, &str)] = &[
    ("dataStoreName", "dataStore"),
    ("dataStoreSchema", "dataStoreSchema"),
    ("dataStoreUsername", "dataStoreUsername"),
    ("addons", "addons"),
    ("kubelet", "kubernetes.kubelet"),
    ("admissionControllers", "kubernetes.admissionControllers"),
    ("network.serviceType", "controlPlane.service.serviceType"),
    ("network.serviceAddress", "networkProfile.address"),
    ("network.certSANs", "networkProfile.certSANs"),
    ("network.dnsServiceIPs", "networkProfile.dnsServiceIPs"),
    ("replicas", "controlPlane.deployment.replicas"),
    ("apiServer.resources", "controlPlane.deployment.resources.apiServer"),
    ("controllerManager.resources", "controlPlane.deployment.resources.controllerManager"),
    ("scheduler.resources", "controlPlane.deployment.resources.scheduler"),
    ("kine.resources", "controlPlane.deployment.resources.kine"),
    ("apiServer.extraArgs", "controlPlane.deployment.extraArgs.apiServer"),
    ("controllerManager.extraArgs", "controlPlane.deployment.extraArgs.controllerManager"),
    ("scheduler.extraArgs", "controlPlane.deployment.extraArgs.scheduler"),
    ("deployment.nodeSelector", "controlPlane.deployment.nodeSelector"),
    ("deployment.affinity", "controlPlane.deployment.affinity"),
    ("deployment.tolerations", "controlPlane.deployment.tolerations"),
    ("deployment.topologySpreadConstraints", "controlPlane.deployment.topologySpreadConstraints"),
    ("deployment.runtimeClassName", "controlPlane.deployment.runtimeClassName"),
    ("deployment.strategy", "controlPlane.deployment.strategy"),
    ("deployment.additionalMetadata", "controlPlane.deployment.additionalMetadata"),
    ("deployment.podAdditionalMetadata", "controlPlane.deployment.podAdditionalMetadata"),
    ("deployment.probes", "controlPlane.deployment.probes"),
];

fn from_cluster_api(object: &Value, live: Option<&Value>) -> Value {
    let mut plane = live.cloned().unwrap_or_else(|| {
        json!({ "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
            "spec": { "controlPlane": { "service": { "serviceType": "LoadBalancer" } } } })
    });
    for (from, to) in FROM_CLUSTER_API {
        let (value, path) = (at(object, &format!("spec.{from}")).clone(), format!("spec.{to}"));
        // What decides where pods run is rewritten even where the owner says nothing.
        if value.is_null() && from.starts_with("deployment.") {
            remove(&mut plane, &path);
        } else if !value.is_null() {
            set(&mut plane, &path, value);
        }
    }
    let version = format!("v{}", text(object, "spec.version").trim_start_matches('v'));
    set(&mut plane, "spec.kubernetes.version", version);
    set(&mut plane, "metadata.ownerReferences", json!([owner(object, true)]));
    plane
}
