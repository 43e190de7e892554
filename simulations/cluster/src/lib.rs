//! A management cluster to test against: the Kubernetes API as data in memory, and the controllers around it
//! (scheduler, kubelets, Deployments, Kamaji) as they behave in time.
//!
//! It is pure: requests and instants go in, answers come out, and [`Cluster::wake_at`] says when its controllers want
//! to act next. Its chance comes from [`Settings::seed`]. The shell in `server` puts it behind HTTP.

mod admission;
mod api;
mod apply;
mod behaviour;
mod defaults;
mod discovery;
mod exposition;
pub mod fault;
pub mod fields;
pub mod json;
pub mod kind;
pub mod patch;
mod policy;
mod protobuf;
pub mod request;
pub mod selector;
pub mod shape;
pub mod status;
pub mod store;
mod table;
mod tenant;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use behaviour::Behaviour;
use fault::{Fault, Faults, Harm};
use request::Request;
use status::Refusal;
use store::{Key, Store};
use watch::Watch;

/// How the cluster behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where all chance comes from.
    pub seed: u64,
    /// Changes remembered for watches and lists in pieces.
    pub changes_kept: usize,
    /// From a change to a controller's reaction, in microseconds.
    pub reaction_micros: u32,
    /// From a pod's binding to its readiness, in microseconds; up to a quarter more by chance.
    pub pod_start_micros: u32,
    /// From a pod's deletion to its end, in microseconds, if its grace is not shorter.
    pub pod_stop_micros: u32,
    /// From a host's death to its being marked as unreachable, in microseconds.
    pub host_grace_micros: u32,
    /// One pass of Kamaji over one plane, in microseconds.
    pub kamaji_pass_micros: u32,
    /// What Kamaji computes certificates for a new plane for, in microseconds.
    pub kamaji_certificates_micros: u32,
    /// Planes that Kamaji works on at once.
    pub kamaji_concurrency: u16,
    /// What Kamaji moves a plane's data for, in microseconds.
    pub kamaji_migration_micros: u32,
    /// Where clients reach the cluster: what kubeconfigs of planes begin with.
    pub base_url: String,
    /// Certificates, in PEM, that kubeconfigs of planes name as the authority; empty where clients ask without TLS.
    pub certificate_authority: String,
    /// Whether approved certificates are signed here, with texts in the place of certificates; else by somebody outside.
    pub signs_certificates: bool,
}

impl Default for Settings {
    /// Times of the order that was seen on a running Kamaji with simulated pods.
    fn default() -> Self {
        Self {
            seed: 1,
            changes_kept: 100_000,
            reaction_micros: 10_000,
            pod_start_micros: 3_000_000,
            pod_stop_micros: 1_000_000,
            host_grace_micros: 40_000_000,
            kamaji_pass_micros: 100_000,
            kamaji_certificates_micros: 2_000_000,
            kamaji_concurrency: 1,
            kamaji_migration_micros: 20_000_000,
            base_url: "http://127.0.0.1:8001".to_owned(),
            certificate_authority: String::new(),
            signs_certificates: true,
        }
    }
}

/// What the outside does to the cluster, beside its API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Control {
    /// A host's machine stops without a word.
    Kill(String),
    /// It comes back.
    Revive(String),
    /// From now on these faults, and no others.
    Faults(Vec<Fault>),
    /// Old versions are forgotten: watches and lists that stand behind are told that they are gone.
    Compact,
    /// All watches break.
    DropWatches,
    /// From now on the servers of a plane take so long for each request, commit and piece of work.
    Pace {
        /// The plane's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// For a request, in microseconds.
        api_micros: u64,
        /// For a commit, in microseconds.
        commit_micros: u64,
        /// For a piece of a controller's work, in microseconds.
        controller_micros: u64,
    },
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// Body.
    pub body: Body,
    /// For 429: when to come again, in seconds.
    pub retry_after_seconds: Option<u32>,
    /// Warnings for people, each a header of its own.
    pub warnings: Vec<String>,
    /// How much later the answer is to be given, in microseconds.
    pub delay_micros: u64,
    /// Whether the connection breaks instead.
    pub lost: bool,
}

/// An answer's body.
#[derive(Debug)]
pub enum Body {
    /// One JSON document.
    Json(Value),
    /// Plain text.
    Text(String),
    /// A stream of them.
    Watch(Box<Watch>),
}

/// A management cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    settings: Settings,
    now: Timestamp,
    store: Store,
    behaviour: Behaviour,
    faults: Faults,
    /// What is made up (ids, names, addresses) is numbered.
    made_up: u64,
    /// Warnings of the request being answered.
    warnings: Vec<String>,
    /// Watches opened before this are broken.
    watch_generation: u64,
    /// What the planes that somebody has asked serve.
    tenants: tenant::Tenants,
    /// How quick planes are, from when on.
    paces: BTreeMap<Key, Vec<(Timestamp, exposition::Pace)>>,
}

impl Cluster {
    /// A cluster with its system namespaces and nothing else.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        let mut cluster = Self {
            store: Store::new(settings.changes_kept),
            behaviour: Behaviour::new(usize::from(settings.kamaji_concurrency.max(1))),
            faults: Faults::new(settings.seed),
            settings,
            now,
            made_up: 0,
            warnings: Vec::new(),
            watch_generation: 0,
            tenants: tenant::Tenants::default(),
            paces: BTreeMap::new(),
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease", "kamaji-system"] {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            // Nothing is in the way of a namespace in an empty store.
            let _made = cluster.make(namespace, "kube-apiserver");
        }
        cluster
    }

    /// What the cluster was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the cluster holds.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// An object, if it is there.
    pub fn get(&self, kind: &'static str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.store.get(&Key::new(kind, namespace, name))
    }

    /// The last instant it was told of.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Answers a request, after letting the controllers act up to now.
    pub fn handle(&mut self, now: Timestamp, request: &Request) -> Answer {
        self.advance(now);
        if let Some((plane, rest)) = tenant::of_path(&request.path) {
            return self.handle_tenant(&plane, &Request { path: rest, ..request.clone() });
        }
        self.warnings.clear();
        let mut answer = self.answer(request).unwrap_or_else(|refusal| refused(&refusal));
        answer.warnings = std::mem::take(&mut self.warnings);
        self.hear();
        answer
    }

    /// The lines that a watch has to tell now.
    pub fn watch(&mut self, now: Timestamp, watch: &mut Watch) -> Vec<Value> {
        self.advance(now);
        if let Some(plane) = watch.plane.take() {
            let lines = self.watch_tenant(&plane, watch);
            watch.plane = Some(plane);
            return lines;
        }
        if watch.generation < self.watch_generation {
            watch.drop_now();
        }
        let before = watch.wake_at();
        let lines = watch.lines(&self.store, self.now);
        let told = !lines.is_empty() && before > self.now;
        for harm in if told { self.faults.draw(watch.watched_kind(), "watch") } else { Vec::new() } {
            match harm {
                Harm::DropWatch => {
                    watch.drop_now();
                    return Vec::new();
                }
                Harm::Expire => return vec![watch.expire(self.store.oldest())],
                _ => {}
            }
        }
        lines
    }

    /// Does what the outside wants done.
    ///
    /// # Errors
    /// When it names a host that is not there.
    pub fn control(&mut self, now: Timestamp, control: Control) -> Result<(), Refusal> {
        self.advance(now);
        match control {
            Control::Kill(host) => self.kill(&host)?,
            Control::Revive(host) => self.revive(&host)?,
            Control::Faults(faults) => self.faults.set(faults),
            Control::Compact => self.store.compact(),
            Control::DropWatches => self.watch_generation += 1,
            Control::Pace { namespace, name, api_micros, commit_micros, controller_micros } => {
                let pace = exposition::Pace { api_micros, commit_micros, controller_micros };
                self.set_pace(Key::new("tenantcontrolplanes", &namespace, &name), pace);
            }
        }
        Ok(())
    }

    /// How many changes there were, in planes too: it differs when a watch may have something to tell.
    pub fn changes(&self) -> u64 {
        self.store.version() + self.tenants.changes() + self.watch_generation
    }

    /// Adds hosts in three zones, and the default data store.
    pub fn furnish(&mut self, now: Timestamp, hosts: u32) {
        self.advance(now);
        for number in 1..=hosts {
            let zone = format!("zone-{}", (number - 1) % 3 + 1);
            let host = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": format!("mgmt-{number}"),
                "labels": { "topology.kubernetes.io/zone": zone } } });
            // A host that is there already stays.
            let _made = self.make(host, "furnish");
        }
        let store = json!({ "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore",
            "metadata": { "name": "default" }, "spec": { "driver": "etcd", "endpoints": ["etcd-0.etcd:2379"] } });
        let _made = self.make(store, "furnish");
    }

    /// Adds an object as somebody outside would, with everything that controllers then make of it. What is there
    /// already stays as it is.
    pub fn furnish_with(&mut self, now: Timestamp, object: Value) {
        self.advance(now);
        let _made = self.make(object, "furnish");
    }

    /// A number that was never drawn before.
    fn draw(&mut self) -> u64 {
        self.made_up += 1;
        json::mix(self.settings.seed ^ json::mix(self.made_up))
    }
}

fn refused(refusal: &Refusal) -> Answer {
    let mut answer = Answer::json(refusal.code, refusal.body());
    if refusal.code == 429 {
        let seconds = json::number(&refusal.details, "retryAfterSeconds");
        // An eviction that a budget refuses says no time.
        answer.retry_after_seconds = u32::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    }
    answer
}

impl Answer {
    fn json(code: u16, body: Value) -> Self {
        Self {
            code,
            body: Body::Json(body),
            retry_after_seconds: None,
            warnings: Vec::new(),
            delay_micros: 0,
            lost: false,
        }
    }

    /// The document, null for a watch.
    pub fn document(&self) -> &Value {
        static NULL: Value = Value::Null;
        match &self.body {
            Body::Json(document) => document,
            Body::Text(_) | Body::Watch(_) => &NULL,
        }
    }
}
