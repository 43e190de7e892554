//! Planes against a simulated management cluster, in virtual time.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};

use cluster::request::Request;
use cluster::{Cluster, Settings};
use controlplane::{
    Amount, Change, Desired, Kind, Observed, PLANE_LABEL, PLANE_OF_POD, Phase, Plan, Plane, PlaneState,
    Reason, diff, namespace_name, plane_name,
};
use proto::Timestamp;
use proto::placement::{Driver, PlaneNumber};
use serde_json::{Value, json};

/// Steps that anything may take to come to rest.
const STEPS_MAX: usize = 20_000;

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) now: Timestamp,
    pub(crate) desired: Desired,
    seen: Observed,
    seen_version: u64,
    /// How many changes of the cluster the controller has not seen.
    pub(crate) late: u64,
    /// After so many writes of each plan the controller crashes.
    pub(crate) writes_max: usize,
    pub(crate) states: BTreeMap<PlaneNumber, PlaneState>,
    /// Requests by verb, kind and code.
    pub(crate) requests: BTreeMap<(&'static str, Kind, u16), u64>,
    /// Planes that have served since they were last asked to be awake.
    serving: BTreeSet<PlaneNumber>,
    /// Whether serving planes must go on serving.
    pub(crate) guard: bool,
    /// Whether planes of one replica must, too.
    pub(crate) guard_single: bool,
    looked_at: u64,
    is_settled: bool,
    next_look: Option<Timestamp>,
}

impl World {
    pub(crate) fn new(seed: u64, hosts: u32) -> Self {
        let now = "2026-11-22T08:00:00Z".parse().unwrap();
        let mut cluster = Cluster::new(Settings { seed, ..Settings::default() }, now);
        cluster.furnish(now, hosts);
        let other = |name: &str, driver: &str| {
            json!({ "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore", "metadata": { "name": name },
                "spec": { "driver": driver, "endpoints": ["x:1"] } })
        };
        let mut world = Self {
            cluster,
            now,
            desired: Desired::default(),
            seen: Observed::default(),
            seen_version: 0,
            late: 0,
            writes_max: usize::MAX,
            states: BTreeMap::new(),
            requests: BTreeMap::new(),
            serving: BTreeSet::new(),
            guard: true,
            guard_single: true,
            looked_at: 0,
            is_settled: false,
            next_look: None,
        };
        for (name, driver) in [("second", "etcd"), ("mysql", "MySQL")] {
            let path = Kind::DataStore.path("", "");
            assert_eq!(world.send("POST", &path, "application/json", &other(name, driver)).0, 201);
        }
        world.cluster.advance(now);
        world
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            content_type: kind.to_owned(),
            accept: "application/json".to_owned(),
            user_agent: "test/1".to_owned(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let answer = self.cluster.handle(self.now, &request);
        (answer.code, answer.document().clone())
    }

    pub(crate) fn merge(&mut self, path: &str, body: Value) -> (u16, Value) {
        self.send("PATCH", path, "application/merge-patch+json", &body)
    }

    pub(crate) fn order(&mut self, number: PlaneNumber, plane: Plane) {
        if plane.replicas == 0 || plane.deleted {
            self.serving.remove(&number);
        }
        assert!(self.desired.order(number, plane));
        self.next_look = Some(self.now);
    }

    /// Changes the last order for a plane.
    pub(crate) fn reorder(&mut self, number: PlaneNumber, change: impl FnOnce(&mut Plane)) {
        let mut plane = self.desired.plane(number).unwrap().clone();
        plane.generation += 1;
        change(&mut plane);
        self.order(number, plane);
    }

    /// Sees what has changed, but for the latest changes if it is late. Deletions are seen like everything else.
    fn look(&mut self) {
        let until = self.cluster.store().version().saturating_sub(self.late);
        if self.seen_version == 0 {
            self.seen_version = self.cluster.store().oldest();
            let there = Kind::ALL.map(|kind| (kind, self.cluster.store().list(kind.names().3, None)));
            for (kind, objects) in there {
                for (_, object) in objects {
                    self.seen.take(kind, (**object).clone()).unwrap();
                }
            }
        }
        for change in self.cluster.store().changes_after(self.seen_version).unwrap() {
            if change.version > until {
                break;
            }
            self.seen_version = change.version;
            let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.names().3 == change.key.kind) else {
                continue;
            };
            let wanted = kind.selector().split_once('=');
            let after = change.after.as_ref().filter(|object| {
                wanted.is_none_or(|(name, value)| object["metadata"]["labels"][name] == value)
            });
            match after {
                Some(object) => drop(self.seen.take(kind, (**object).clone()).unwrap()),
                None => drop(self.seen.forget(kind, &change.key.namespace, &change.key.name, change.version)),
            }
        }
    }

    /// Looks, as late as it is, and writes what follows. What fails is tried again a second later.
    pub(crate) fn reconcile(&mut self) {
        self.look();
        let plan = diff(&self.desired, &self.seen, self.now);
        self.states = plan.states.iter().map(|state| (state.number, state.clone())).collect();
        self.next_look = plan.wake_at;
        self.check_disruptions(&plan);
        let mut is_whole = plan.changes.len() <= self.writes_max;
        for change in plan.changes.iter().take(self.writes_max) {
            is_whole &= self.carry_out(change) < 300;
        }
        if !is_whole || self.late > 0 {
            self.next_look = Some(self.now.plus_seconds(1));
        }
        self.is_settled = plan.changes.is_empty()
            && plan.states.iter().all(|state| state.reached.is_some() || state.phase == Phase::Gone);
    }

    /// At most one disruptive change of a plane at a time, and only while nothing else is under way with it.
    fn check_disruptions(&self, plan: &Plan) {
        let mut disrupted = BTreeSet::new();
        for change in plan.changes.iter().filter(|change| change.is_disruptive()) {
            let (kind, namespace, name) = change.subject();
            let name = match kind {
                Kind::Pod => match self.object(Kind::Pod, namespace, name) {
                    Some(pod) => {
                        pod["metadata"]["labels"][PLANE_OF_POD].as_str().unwrap_or_default().to_owned()
                    }
                    None => continue,
                },
                _ => name.to_owned(),
            };
            assert!(disrupted.insert((namespace, name.clone())), "{change:?}");
            let Some(plane) = self.object(Kind::Plane, namespace, &name).filter(|_| self.late == 0) else {
                continue;
            };
            let status = &plane["status"];
            let is_slow = self
                .states
                .values()
                .flat_map(|state| &state.notes)
                .any(|note| note.reason == Reason::RolloutSlow);
            let serves =
                status["kubernetesResources"]["deployment"]["readyReplicas"].as_u64().unwrap_or_default() > 0;
            let word = &status["kubernetesResources"]["version"]["status"];
            let is_ready = (word == "Ready" || word == "Sleeping")
                && status["observedGeneration"] == plane["metadata"]["generation"];
            assert!(is_ready || !serves || is_slow, "{change:?} while {status}");
        }
    }

    pub(crate) fn carry_out(&mut self, change: &Change) -> u16 {
        let request = change.request();
        let (code, answer) = self.send(request.method, &request.path, request.content_type, &request.body);
        *self.requests.entry((change.verb(), change.subject().0, code)).or_default() += 1;
        assert!(matches!(code, 200 | 201 | 404 | 409 | 422 | 429 | 500), "{change:?}: {answer}");
        code
    }

    /// Ready pods of a plane that stay.
    pub(crate) fn ready(&self, plane: &Plane) -> Vec<String> {
        let (namespace, name) = (namespace_name(&plane.tenant), plane_name(&plane.cluster));
        let pods = self.cluster.store().list("pods", Some(&namespace)).map(|(_, pod)| pod);
        let ours = pods.filter(|pod| pod["metadata"]["labels"][PLANE_OF_POD] == name.as_str());
        let staying = ours.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && is_ready(pod));
        staying.map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn check(&mut self) {
        let tenants: Vec<_> = self.desired.tenants().cloned().collect();
        for tenant in &tenants {
            for (number, plane) in
                self.desired.planes_of(tenant).filter(|(_, plane)| !plane.deleted && plane.replicas > 0)
            {
                let ready = self.ready(plane).len();
                let name = plane_name(&plane.cluster);
                let live = self.object(Kind::Plane, &namespace_name(tenant), &name).unwrap_or_default();
                if live["metadata"]["labels"][PLANE_LABEL] != number.to_string().as_str() {
                    // What serves under its name is its predecessor, or nobody's.
                } else if ready > 0 {
                    self.serving.insert(number);
                } else {
                    let lost = self.guard
                        && (self.guard_single || plane.replicas > 1)
                        && self.serving.contains(&number);
                    assert!(
                        !lost,
                        "plane {number} serves no more at {}: {:?}",
                        self.now,
                        self.states.get(&number)
                    );
                }
            }
        }
    }

    /// From now on it sees everything and writes everything.
    pub(crate) fn recover(&mut self) {
        (self.late, self.writes_max, self.next_look) = (0, usize::MAX, Some(self.now));
    }

    /// Lets so many seconds pass, reconciling after everything that happens.
    pub(crate) fn run(&mut self, seconds: u32) {
        let end = self.now.plus_seconds(seconds);
        self.until(end, |_| false);
    }

    /// Lets time pass until all is as ordered, at most so many seconds. Whether it came to that.
    pub(crate) fn settle(&mut self, seconds: u32) -> bool {
        let end = self.now.plus_seconds(seconds);
        self.until(end, |world| world.is_settled)
    }

    fn until(&mut self, end: Timestamp, done: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..STEPS_MAX {
            let changes = self.cluster.changes();
            let is_due = self.next_look.is_some_and(|at| at <= self.now);
            if changes != self.looked_at || is_due {
                self.next_look = None;
                self.looked_at = changes;
                self.reconcile();
            } else if done(self) {
                return true;
            } else {
                let next = [self.cluster.wake_at(), self.next_look].into_iter().flatten().min();
                let next = next.filter(|next| *next <= end);
                let Some(next) = next else {
                    self.now = end;
                    self.cluster.advance(end);
                    self.check();
                    return done(self);
                };
                self.now = self.now.max(next);
                self.cluster.advance(self.now);
            }
            self.check();
        }
        panic!("no rest after {STEPS_MAX} steps: {:?}", self.requests);
    }

    pub(crate) fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        self.cluster.get(kind.names().3, namespace, name).map(|object| (**object).clone())
    }

    pub(crate) fn writes(&self) -> u64 {
        self.requests.values().sum()
    }

    /// What is not as ordered, and what stands there instead.
    pub(crate) fn explain(&self) -> String {
        let mut told = Vec::new();
        for state in
            self.states.values().filter(|state| state.reached.is_none() && state.phase != Phase::Gone)
        {
            let Some(plane) = self.desired.plane(state.number) else { continue };
            let (namespace, name) = (namespace_name(&plane.tenant), plane_name(&plane.cluster));
            told.push(format!("{state:?}\n  ordered {plane:?}"));
            let live = self.object(Kind::Plane, &namespace, &name).unwrap_or_default();
            told.push(format!("  status {}", live["status"]["kubernetesResources"]));
            for (key, pod) in self.cluster.store().list("pods", Some(&namespace)) {
                told.push(format!(
                    "  pod {} on {} {}",
                    key.name, pod["spec"]["nodeName"], pod["status"]["conditions"]
                ));
            }
        }
        told.join("\n")
    }

    /// Everything that is in a namespace.
    pub(crate) fn inside(&self, namespace: &str) -> Vec<String> {
        let kinds = cluster::kind::KINDS.iter().filter(|kind| kind.namespaced);
        let objects = kinds.flat_map(|kind| self.cluster.store().list(kind.plural, Some(namespace)));
        objects.map(|(key, _)| format!("{} {}", key.kind, key.name)).collect()
    }
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// A plane of a tenant on hosts of these numbers.
pub(crate) fn plane(tenant: &str, cluster: &str, hosts: &[u32]) -> Plane {
    Plane {
        tenant: tenant.parse().unwrap(),
        cluster: cluster.parse().unwrap(),
        generation: 1,
        deleted: false,
        replicas: hosts.len() as u32,
        hosts: names(hosts),
        gone_at: None,
        version: "v1.34.0".parse().unwrap(),
        request: Amount { cpu_milli: 500, memory_mib: 1200 },
        data_store: "default".to_owned(),
        driver: Driver::Etcd,
    }
}

pub(crate) fn names(hosts: &[u32]) -> Vec<String> {
    hosts.iter().map(|number| format!("mgmt-{number}")).collect()
}
