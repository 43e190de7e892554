//! The management cluster as `kubectl` sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// Label by which Kamaji names the plane of a pod.
const PLANE: &str = "kamaji.clastix.io/name";
/// Pods of planes.
const PODS: &str = "/api/v1/pods?labelSelector=kamaji.clastix.io%2Fcomponent%3Ddeployment";

/// A client of one API server.
pub(crate) struct Api {
    server: String,
    agent: ureq::Agent,
}

impl Api {
    /// The cluster that a kubeconfig leads to.
    pub(crate) fn of(kubeconfig: &Value) -> Self {
        let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
        let settings = ureq::Agent::config_builder().http_status_as_error(false);
        Self { server, agent: settings.timeout_connect(Some(Duration::from_secs(30))).build().into() }
    }

    /// The cluster that a kubeconfig in a file leads to.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self::of(&serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    }

    /// What is at a path; null where there is nothing.
    pub(crate) fn get(&self, path: &str) -> Value {
        let mut answered = self.agent.get(format!("{}{path}", self.server)).call().unwrap();
        let text = answered.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
        if answered.status() == 404 { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    /// Makes an object.
    pub(crate) fn make(&self, path: &str, object: &Value) {
        let request = self.agent.post(format!("{}{path}", self.server));
        let sent = request.header("content-type", "application/json").send(object.to_string());
        assert_eq!(sent.unwrap().status(), 201, "{path}");
    }

    /// Ends an object.
    pub(crate) fn end(&self, path: &str) {
        assert_eq!(
            self.agent.delete(format!("{}{path}", self.server)).call().unwrap().status(),
            200,
            "{path}"
        );
    }

    /// Changes an object by a merge patch.
    pub(crate) fn merge(&self, path: &str, patch: &Value) {
        let request = self.agent.patch(format!("{}{path}", self.server));
        let sent = request.header("content-type", "application/merge-patch+json").send(patch.to_string());
        assert_eq!(sent.unwrap().status(), 200, "{path}");
    }

    /// Does to the simulated cluster what nobody can over its API.
    pub(crate) fn control(&self, control: &Value) {
        let url = format!("{}/simulation/v1/control", self.server);
        assert_eq!(self.agent.post(url).send(control.to_string()).unwrap().status(), 200, "{control}");
    }

    /// Hosts with a ready pod, by plane.
    pub(crate) fn ready_on(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut ready: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in self.get(PODS)["items"].as_array().unwrap() {
            let hosts = ready.entry(plane_of(pod)).or_default();
            if is_ready(pod) {
                hosts.insert(pod["spec"]["nodeName"].as_str().unwrap().to_owned());
            }
        }
        ready
    }

    /// Planes and their versions of resource: nobody wrote them as long as they stay the same.
    pub(crate) fn planes(&self) -> BTreeMap<String, Value> {
        let planes = self.get("/apis/kamaji.clastix.io/v1alpha1/tenantcontrolplanes");
        let name = |plane: &Value| plane["metadata"]["name"].as_str().unwrap().to_owned();
        planes["items"].as_array().unwrap().iter().map(|plane| (name(plane), plane.clone())).collect()
    }
}

fn plane_of(pod: &Value) -> String {
    pod["metadata"]["labels"][PLANE].as_str().unwrap_or_default().to_owned()
}

/// Whether a pod is an endpoint of its plane.
fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    ready && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Watches pods, and remembers for each plane the fewest that were ready at once.
#[derive(Clone, Default)]
pub(crate) struct Endpoints(Arc<Mutex<BTreeMap<String, Counted>>>);

#[derive(Default)]
struct Counted {
    ready: BTreeSet<String>,
    fewest: usize,
}

impl Endpoints {
    /// Begins to watch from what is ready now, every change that comes.
    pub(crate) fn watch(api: &Api) -> Self {
        let endpoints = Self::default();
        let listed = api.get(PODS);
        for pod in listed["items"].as_array().unwrap() {
            endpoints.see("ADDED", pod);
        }
        for counted in endpoints.0.lock().unwrap().values_mut() {
            counted.fewest = counted.ready.len();
        }
        let version = listed["metadata"]["resourceVersion"].as_str().unwrap();
        let url = format!("{}{PODS}&watch=true&resourceVersion={version}", api.server);
        let mut answered = api.agent.get(url).call().unwrap();
        let seen = endpoints.clone();
        thread::spawn(move || {
            // It ends with the cluster.
            for line in BufReader::new(answered.body_mut().as_reader()).lines() {
                let Ok(line) = line else { return };
                let told: Value = serde_json::from_str(&line).unwrap();
                seen.see(told["type"].as_str().unwrap(), &told["object"]);
            }
        });
        endpoints
    }

    fn see(&self, what: &str, pod: &Value) {
        let mut all = self.0.lock().unwrap();
        let counted = all.entry(plane_of(pod)).or_default();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if what != "DELETED" && is_ready(pod) {
            counted.ready.insert(name);
        } else {
            counted.ready.remove(&name);
        }
        counted.fewest = counted.fewest.min(counted.ready.len());
    }

    /// The fewest pods that were ready at once, by plane.
    pub(crate) fn fewest(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().iter().map(|(plane, counted)| (plane.clone(), counted.fewest)).collect()
    }
}
