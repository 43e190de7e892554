//! A cluster in virtual time, for tests.

#![allow(dead_code, reason = "each test uses some of it")]

use cluster::request::Request;
use cluster::watch::Watch;
use cluster::{Answer, Body, Cluster, Settings};
use proto::Timestamp;
use serde_json::{Value, json};

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) now: Timestamp,
}

pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/t/deployments";
pub(crate) const PLANES: &str = "/apis/kamaji.clastix.io/v1alpha1/namespaces/t/tenantcontrolplanes";
pub(crate) const PODS: &str = "/api/v1/namespaces/t/pods";

impl World {
    pub(crate) fn new(seed: u64, hosts: u32) -> Self {
        let now = "2026-11-22T08:00:00Z".parse().unwrap();
        let mut cluster = Cluster::new(Settings { seed, ..Settings::default() }, now);
        cluster.furnish(now, hosts);
        let mut world = Self { cluster, now };
        world.make("/api/v1/namespaces", json!({ "metadata": { "name": "t" } }));
        world.run(1);
        world
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, kind: &str, body: &Value) -> Answer {
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
        self.cluster.handle(self.now, &request)
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let answer = self.ask(method, path, kind, body);
        (answer.code, answer.document().clone())
    }

    pub(crate) fn get(&mut self, path: &str) -> Value {
        self.send("GET", path, "", &Value::Null).1
    }

    pub(crate) fn make(&mut self, path: &str, body: Value) -> Value {
        let (code, made) = self.send("POST", path, "application/json", &body);
        assert_eq!(code, 201, "{made}");
        made
    }

    pub(crate) fn merge(&mut self, path: &str, body: Value) -> (u16, Value) {
        self.send("PATCH", path, "application/merge-patch+json", &body)
    }

    pub(crate) fn apply(&mut self, path: &str, manager: &str, force: bool, body: &Value) -> (u16, Value) {
        let path = format!("{path}?fieldManager={manager}&force={force}");
        self.send("PATCH", &path, "application/apply-patch+yaml", body)
    }

    pub(crate) fn watch(&mut self, path: &str) -> Box<Watch> {
        let path = format!("{path}{}watch=true", if path.contains('?') { '&' } else { '?' });
        match self.ask("GET", &path, "", &Value::Null).body {
            Body::Watch(watch) => watch,
            Body::Json(other) => panic!("{other}"),
            Body::Text(other) => panic!("{other}"),
        }
    }

    /// Lets so many seconds pass, looking after every reaction.
    pub(crate) fn run_and_look(&mut self, seconds: u32, mut look: impl FnMut(&Cluster)) {
        let end = self.now.plus_seconds(seconds);
        while let Some(next) = self.cluster.wake_at().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.cluster.advance(self.now);
            look(&self.cluster);
        }
        self.now = end;
        self.cluster.advance(end);
    }

    pub(crate) fn run(&mut self, seconds: u32) {
        self.run_and_look(seconds, |_| {});
    }

    /// Everything that the cluster holds, as text.
    pub(crate) fn whole(&self) -> String {
        let kinds = cluster::kind::KINDS.iter();
        let all = kinds.flat_map(|kind| self.cluster.store().list(kind.plural, None));
        all.map(|(key, object)| format!("{key:?} {object}")).collect::<Vec<_>>().join("\n")
    }
}

/// How many pods with a label's value are ready and stay.
pub(crate) fn ready(cluster: &Cluster, label: &str, value: &str) -> usize {
    let pods = cluster.store().list("pods", None).map(|(_, pod)| pod);
    let chosen = pods.filter(|pod| pod["metadata"]["labels"][label] == value);
    chosen.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && is_ready(pod)).count()
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

pub(crate) fn deployment(replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "t" },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": image,
                    "resources": { "requests": { "cpu": "500m", "memory": "1Gi" } } }] } } },
    })
}

pub(crate) fn plane(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": name, "namespace": "t" },
        "spec": {
            "dataStore": "default", "kubernetes": { "version": "v1.35.0" },
            "addons": { "konnectivity": {} },
            "controlPlane": { "service": { "serviceType": "ClusterIP" }, "deployment": { "replicas": replicas,
                "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["pod-template-hash"] }] } },
        },
    })
}
