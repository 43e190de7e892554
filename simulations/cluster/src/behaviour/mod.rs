//! What happens by itself: controllers, scheduler and kubelets, each a level-triggered reaction to what changed.
//!
//! A change concerns some workers; each gets the object's key into one queue, with the instant at which it acts.
//! Acting looks at the state and does the next thing. Nothing is remembered that the state does not hold, except
//! when something slow began.

mod hosts;
mod kamaji;
mod plane;
mod schedule;
mod upkeep;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::Timestamp;
use serde_json::{Value, json};

use crate::Cluster;
use crate::json::{at, digest, items, list, number, place, quantity_millis, seconds, set, suffix, text};
use crate::kind;
use crate::store::{Change, Key};

/// A controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Budget,
    ClusterApi,
    DataStore,
    Deployment,
    Evict,
    Garbage,
    Host,
    Kamaji,
    Kubelet,
    Namespace,
    ReplicaSet,
    Scheduler,
    Signer,
    Slice,
    StatefulSet,
}

/// What the controllers keep beside the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    queue: BTreeSet<(Timestamp, Who, Key)>,
    due: BTreeMap<(Who, Key), Timestamp>,
    /// Objects by the uid of one of their owners.
    owned: BTreeMap<String, BTreeSet<Key>>,
    /// Pods by the host they are bound to.
    by_host: BTreeMap<String, BTreeSet<Key>>,
    /// What the pods bound to a host request, in thousandths: processors, bytes, pods.
    taken: BTreeMap<String, [i128; 3]>,
    /// Pods that found no host.
    waiting: BTreeSet<Key>,
    /// When a bound pod will be ready.
    starts: BTreeMap<Key, Timestamp>,
    /// Machines that stopped, and when.
    dead: BTreeMap<String, Timestamp>,
    /// When each of Kamaji's workers is free again.
    kamaji_free: Vec<Timestamp>,
    /// Slow work of Kamaji and when it is done: certificates and migrations.
    kamaji_until: BTreeMap<Key, Timestamp>,
}

/// Most reactions in one call: more are left for the next, so that a loop of controllers cannot hold the shell.
const REACTIONS_MAX: usize = 50_000;

impl Behaviour {
    pub(crate) fn new(kamaji_concurrency: usize) -> Self {
        Self { kamaji_free: vec![Timestamp::MIN; kamaji_concurrency], ..Self::default() }
    }

    /// Queues a reaction, unless the same is queued for an earlier instant.
    fn at(&mut self, who: Who, key: Key, when: Timestamp) {
        let queued = self.due.get(&(who, key.clone())).copied();
        if queued.is_some_and(|queued| queued <= when) {
            return;
        }
        if let Some(queued) = queued {
            self.queue.remove(&(queued, who, key.clone()));
        }
        self.due.insert((who, key.clone()), when);
        self.queue.insert((when, who, key));
    }

    fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, Who, Key)> {
        let first = self.queue.first().filter(|(when, ..)| *when <= now).cloned()?;
        self.queue.remove(&first);
        self.due.remove(&(first.1, first.2.clone()));
        Some(first)
    }

    fn index(&mut self, change: &Change) {
        let file = |index: &mut BTreeMap<String, BTreeSet<Key>>, name: &str, here: bool| {
            let keys = index.entry(name.to_owned()).or_default();
            if here {
                keys.insert(change.key.clone())
            } else {
                keys.remove(&change.key)
            };
            if keys.is_empty() {
                index.remove(name);
            }
        };
        for (object, here) in [(&change.before, false), (&change.after, true)] {
            let Some(object) = object else { continue };
            for owner in items(object, "metadata.ownerReferences") {
                file(&mut self.owned, text(owner, "uid"), here);
            }
            let host = text(object, "spec.nodeName");
            if change.key.kind == "pods" && !host.is_empty() {
                file(&mut self.by_host, host, here);
                let taken = self.taken.entry(host.to_owned()).or_default();
                for (sum, part) in taken.iter_mut().zip(schedule::takes(object)) {
                    *sum += if here { part } else { -part };
                }
            }
        }
        if change.after.is_none() {
            self.starts.remove(&change.key);
            self.waiting.remove(&change.key);
            self.kamaji_until.remove(&change.key);
        }
    }
}

impl Cluster {
    /// Lets the controllers act up to an instant, each at the instant it is due.
    pub fn advance(&mut self, now: Timestamp) {
        let now = now.max(self.now);
        for _ in 0..REACTIONS_MAX {
            self.hear();
            let Some((when, who, key)) = self.behaviour.pop(now) else { break };
            self.now = self.now.max(when);
            self.act(who, &key);
        }
        self.now = now;
        self.hear();
        self.tenants.advance(now);
    }

    /// When the controllers want to act next, if nothing changes until then.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let own = self.behaviour.queue.first().map(|(when, ..)| *when);
        own.into_iter().chain(self.tenants.wake_at()).min()
    }

    fn act(&mut self, who: Who, key: &Key) {
        match who {
            Who::Budget => self.budget_status(key),
            Who::ClusterApi => self.cluster_api(key),
            Who::DataStore => self.data_store(key),
            Who::Deployment => self.deployment(key),
            Who::Evict => self.evict_untolerated(key),
            Who::Garbage => self.garbage(key),
            Who::Host => self.host(key),
            Who::Kamaji => self.kamaji(key),
            Who::Kubelet => self.kubelet(key),
            Who::Namespace => self.namespace(key),
            Who::ReplicaSet => self.replica_set(key),
            Who::Scheduler => self.schedule(key),
            Who::Signer => self.sign(key),
            Who::Slice => self.slice(key),
            Who::StatefulSet => self.stateful_set(key),
        }
    }

    pub(crate) fn hear(&mut self) {
        for change in self.store.take_news() {
            self.behaviour.index(&change);
            self.concern(&change);
        }
    }

    /// Queues a reaction after the usual time.
    fn soon(&mut self, who: Who, key: Key) {
        let when = self.now.plus_micros(self.settings.reaction_micros.into());
        if who == Who::Kamaji {
            self.queue_kamaji(key, when);
        } else {
            self.behaviour.at(who, key, when);
        }
    }

    /// Queues whoever a change concerns.
    fn concern(&mut self, change: &Change) {
        let key = &change.key;
        let Some(object) = change.after.as_ref().or(change.before.as_ref()).cloned() else { return };
        let own = match key.kind {
            "deployments" => Some(Who::Deployment),
            "replicasets" => Some(Who::ReplicaSet),
            "statefulsets" => Some(Who::StatefulSet),
            "nodes" => Some(Who::Host),
            "poddisruptionbudgets" => Some(Who::Budget),
            "services" => Some(Who::Slice),
            "tenantcontrolplanes" => Some(Who::Kamaji),
            "datastores" => Some(Who::DataStore),
            "kamajicontrolplanes" => Some(Who::ClusterApi),
            "certificatesigningrequests" => Some(Who::Signer),
            "namespaces" => Some(Who::Namespace),
            _ => None,
        };
        if let Some(own) = own.filter(|_| change.after.is_some()) {
            self.soon(own, key.clone());
        }
        for owner in items(&object, "metadata.ownerReferences") {
            let Some(kind) = kind::of(owner) else { continue };
            let owner = Key::new(kind.plural, &key.namespace, text(owner, "name"));
            if change.after.is_none() {
                // It may wait in the foreground for the end of what it owns.
                self.soon(Who::Garbage, owner.clone());
            }
            match kind.plural {
                "replicasets" => self.soon(Who::ReplicaSet, owner),
                "deployments" => self.soon(Who::Deployment, owner),
                "statefulsets" => self.soon(Who::StatefulSet, owner),
                "tenantcontrolplanes" => self.soon(Who::Kamaji, owner),
                "kamajicontrolplanes" => self.soon(Who::ClusterApi, owner),
                _ => {}
            }
        }
        match key.kind {
            "pods" => self.concern_pod(change, &object),
            "nodes" => self.retry_waiting(),
            "tenantcontrolplanes" => {
                for plane in [&change.before, &change.after].into_iter().flatten() {
                    for path in ["spec.dataStore", "status.storage.dataStoreName"] {
                        self.soon(Who::DataStore, Key::new("datastores", "", text(plane, path)));
                    }
                }
            }
            _ => {}
        }
        let ending = !at(&object, "metadata.deletionTimestamp").is_null();
        if change.after.is_none() {
            let uid = text(&object, "metadata.uid");
            for owned in self.behaviour.owned.get(uid).into_iter().flatten().cloned().collect::<Vec<_>>() {
                self.soon(Who::Garbage, owned);
            }
            if key.kind == "nodes" {
                for pod in
                    self.behaviour.by_host.get(&key.name).into_iter().flatten().cloned().collect::<Vec<_>>()
                {
                    self.soon(Who::Garbage, pod);
                }
            }
            self.soon(Who::Namespace, Key::new("namespaces", "", &key.namespace));
        } else if ending || !items(&object, "metadata.ownerReferences").is_empty() {
            self.soon(Who::Garbage, key.clone());
        }
    }

    fn concern_pod(&mut self, change: &Change, pod: &Value) {
        let key = &change.key;
        let bound = !text(pod, "spec.nodeName").is_empty();
        match &change.after {
            Some(_) if bound => self.soon(Who::Kubelet, key.clone()),
            Some(_) => self.soon(Who::Scheduler, key.clone()),
            None => self.retry_waiting(),
        }
        for kind in ["poddisruptionbudgets", "services"] {
            let all: Vec<_> =
                self.store.list(kind, Some(&key.namespace)).map(|(key, _)| key.clone()).collect();
            let who = if kind == "services" { Who::Slice } else { Who::Budget };
            for key in all {
                self.soon(who, key);
            }
        }
    }

    fn retry_waiting(&mut self) {
        for pod in self.behaviour.waiting.clone() {
            self.soon(Who::Scheduler, pod);
        }
    }

    /// The objects that an owner owns.
    pub(crate) fn owned_by(&self, uid: &str) -> Vec<Key> {
        self.behaviour.owned.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The objects of a kind that an owner owns, as they are.
    fn owned(&self, owner: &Value, kind: &str) -> Vec<(Key, Arc<Value>)> {
        let keys = self.behaviour.owned.get(text(owner, "metadata.uid")).into_iter().flatten();
        let keys = keys.filter(|key| key.kind == kind);
        keys.filter_map(|key| Some((key.clone(), Arc::clone(self.store.get(key)?)))).collect()
    }

    /// Records an event for people. The same about the same object again counts up.
    fn event(&mut self, about: &Value, kind: &str, reason: &str, message: &str) {
        let (namespace, name) = (text(about, "metadata.namespace"), text(about, "metadata.name"));
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        let end = suffix(digest([text(about, "metadata.uid"), reason, message]), 10);
        let key = Key::new("events", namespace, &format!("{name}.{end}"));
        let now = seconds(self.now);
        if let Some(known) = self.store.get(&key) {
            let count = number(known, "count") + 1;
            self.edit(&key, "kube-controller-manager", "", |event| {
                set(event, "count", count);
                set(event, "lastTimestamp", now);
            });
            return;
        }
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "namespace": namespace, "name": key.name },
            "involvedObject": { "apiVersion": about["apiVersion"], "kind": about["kind"], "name": name,
                "namespace": namespace, "uid": text(about, "metadata.uid") },
            "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "source": { "component": "cluster" },
        });
        // A namespace that ends takes no events any more.
        let _made = self.make(event, "kube-controller-manager");
    }
}

/// Whether a pod serves: it says that it is ready, and is not on its way out.
pub(crate) fn is_ready(pod: &Value) -> bool {
    at(pod, "metadata.deletionTimestamp").is_null() && has_condition(pod, "Ready")
}

fn has_condition(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|one| text(one, "status") == "True")
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(object, "status.conditions").iter().find(|one| text(one, "type") == kind)
}

/// Sets a condition; its instant moves only with its status.
fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
    let mut new = json!({ "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": seconds(now) });
    let conditions = list(object, "status.conditions");
    match conditions.iter_mut().find(|one| text(one, "type") == kind) {
        Some(old) => {
            if text(old, "status") == status {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// What the containers of a pod request of a resource, in thousandths.
fn request_millis(pod: &Value, resource: &str) -> i128 {
    let of = |group: &str| {
        let each = items(pod, group).iter().map(|container| {
            let named = at(container, "resources.requests").get(resource);
            let named = named.or_else(|| at(container, "resources.limits").get(resource));
            named.and_then(quantity_millis).unwrap_or_default()
        });
        each.collect::<Vec<_>>()
    };
    let together: i128 = of("spec.containers").into_iter().sum();
    together.max(of("spec.initContainers").into_iter().max().unwrap_or_default())
}

/// What a pod takes of a quota, in thousandths: pods, or requests of a resource.
pub(crate) fn quota_use(pod: &Value, resource: &str) -> i128 {
    if matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
        return 0;
    }
    match resource.strip_prefix("requests.").unwrap_or(resource) {
        "pods" | "count/pods" => 1_000,
        resource @ ("cpu" | "memory") => request_millis(pod, resource),
        _ => 0,
    }
}

/// Leaves out numbers that are 0, as the real server's status does.
fn counts(object: &mut Value, path: &str, counts: &[(&str, i64)]) {
    let place = place(object, path);
    for (name, count) in counts {
        if *count == 0 {
            if let Some(members) = place.as_object_mut() {
                members.remove(*name);
            }
        } else {
            crate::json::set(place, name, *count);
        }
    }
}
