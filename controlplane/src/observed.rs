//! What the management cluster holds, as far as it was read: of each object only what decides something.

use std::collections::{BTreeMap, BTreeSet};

use proto::Timestamp;
use serde_json::Value;

use crate::host::Host;
use crate::kind::Kind;
use crate::{GATE, MANAGER, PLANE_OF_POD};

/// Why an object could not be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} without {field}")]
pub struct Unreadable {
    /// What it was to be.
    pub kind: &'static str,
    /// What it lacks.
    pub field: &'static str,
}

/// An object that is compared as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its identity.
    pub uid: String,
    /// Its resource version: versions of one API server are numbers that grow.
    pub version: u64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When we changed it last, if we did.
    pub changed_at: Option<Timestamp>,
    /// The object, without what nobody here reads.
    pub body: Value,
}

/// A pod of a plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its identity.
    pub uid: String,
    /// Its resource version.
    pub version: u64,
    /// The name of its plane.
    pub plane: String,
    /// Which template it was made from.
    pub template: String,
    /// Where it runs.
    pub host: Option<String>,
    /// The only host where it may run.
    pub pinned: Option<String>,
    /// The place of our gate in its list of gates, while it has it.
    pub gate: Option<usize>,
    /// What else says where it may run.
    pub affinity: Value,
    /// Whether it serves.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Since when it exists.
    pub created_at: Timestamp,
}

/// What a change of what was read concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// Nothing: it was known.
    Nothing,
    /// One namespace.
    Namespace(String),
    /// Potentially all of them: a host, a data store, a policy.
    Everything,
}

type Name = (String, String);

/// What was read of a management cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    objects: BTreeMap<Kind, BTreeMap<Name, Object>>,
    pods: BTreeMap<String, BTreeMap<String, Pod>>,
    hosts: BTreeMap<String, Host>,
    /// The newest version of each kind that its watch has told: it has told all older ones.
    told: BTreeMap<Kind, u64>,
}

impl Observed {
    /// Takes in what a write answered, before the watch tells it. What the watch has passed already is left alone: an
    /// object that it does not know any more is gone.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn answer(&mut self, kind: Kind, object: Value) -> Result<Touched, Unreadable> {
        let version =
            text(&object, &["metadata", "resourceVersion"]).and_then(|version| version.parse().ok());
        let told = self.told.get(&kind).copied().unwrap_or_default();
        if version.is_some_and(|version: u64| version <= told) {
            return Ok(Touched::Nothing);
        }
        let touched = self.take(kind, object);
        self.told.insert(kind, told);
        touched
    }

    /// Takes an object in, unless a newer version of it is known.
    ///
    /// # Errors
    /// When it has no name, identity, version or, if it is a pod, time of creation.
    pub fn take(&mut self, kind: Kind, mut object: Value) -> Result<Touched, Unreadable> {
        let lacks = |field| Unreadable { kind: kind.names().2, field };
        let metadata = |name: &str| text(&object, &["metadata", name]);
        let name = metadata("name").ok_or_else(|| lacks("metadata.name"))?.to_owned();
        let namespace = metadata("namespace").unwrap_or_default().to_owned();
        let uid = metadata("uid").ok_or_else(|| lacks("metadata.uid"))?.to_owned();
        let version = metadata("resourceVersion").and_then(|version| version.parse().ok());
        let version = version.ok_or_else(|| lacks("metadata.resourceVersion"))?;
        let told = self.told.entry(kind).or_default();
        *told = (*told).max(version);
        if self.version(kind, &namespace, &name).is_some_and(|known| known >= version) {
            return Ok(Touched::Nothing);
        }
        let deleting = !at(&object, &["metadata", "deletionTimestamp"]).is_null();
        let touched = touched(kind, &namespace, &name);
        match kind {
            Kind::Pod => {
                let created_at = metadata("creationTimestamp").and_then(|at| at.parse().ok());
                let created_at = created_at.ok_or_else(|| lacks("metadata.creationTimestamp"))?;
                let pod = read_pod(&object, uid, version, deleting, created_at);
                let known = self.pods.entry(namespace).or_default().insert(name, pod.clone());
                if known.is_some_and(|known| Pod { version, ..known } == pod) {
                    return Ok(Touched::Nothing);
                }
            }
            Kind::Host => {
                let host = Host::read(&object, uid, version);
                let takes_pods = host.takes_pods();
                let known = self.hosts.insert(name, host);
                // Hosts report every few seconds that they are there, and much that no plane is written for.
                if known.is_some_and(|known| known.takes_pods() == takes_pods) {
                    return Ok(Touched::Nothing);
                }
            }
            _ => {
                let changed_at = changed_at(&object);
                trim(kind, &mut object);
                let object = Object { uid, version, deleting, changed_at, body: object };
                let known = self.objects.entry(kind).or_default().insert((namespace, name), object.clone());
                // Much is told that nobody here reads, such as who uses a data store.
                if known.is_some_and(|known| Object { version, ..known } == object) {
                    return Ok(Touched::Nothing);
                }
            }
        }
        Ok(touched)
    }

    /// Forgets an object that its watch says is gone, as of a version.
    pub fn forget(&mut self, kind: Kind, namespace: &str, name: &str, version: u64) -> Touched {
        let told = self.told.entry(kind).or_default();
        *told = (*told).max(version);
        self.drop(kind, namespace, name)
    }

    fn drop(&mut self, kind: Kind, namespace: &str, name: &str) -> Touched {
        let gone = match kind {
            Kind::Pod => {
                let pods = self.pods.get_mut(namespace);
                let gone = pods.and_then(|pods| pods.remove(name)).is_some();
                if self.pods.get(namespace).is_some_and(BTreeMap::is_empty) {
                    self.pods.remove(namespace);
                }
                gone
            }
            Kind::Host => self.hosts.remove(name).is_some(),
            _ => {
                let of_kind = self.objects.get_mut(&kind);
                of_kind.and_then(|objects| objects.remove(&(namespace.to_owned(), name.to_owned()))).is_some()
            }
        };
        if gone { touched(kind, namespace, name) } else { Touched::Nothing }
    }

    /// Forgets what a complete list of a kind did not name. What that concerns.
    pub fn keep_only(&mut self, kind: Kind, listed: &BTreeSet<(String, String)>) -> Vec<Touched> {
        let gone: Vec<Name> = self.names(kind).filter(|name| !listed.contains(name)).collect();
        gone.iter().map(|(namespace, name)| self.drop(kind, namespace, name)).collect()
    }

    fn names(&self, kind: Kind) -> Box<dyn Iterator<Item = Name> + '_> {
        match kind {
            Kind::Pod => Box::new(
                self.pods
                    .iter()
                    .flat_map(|(namespace, pods)| pods.keys().map(|name| (namespace.clone(), name.clone()))),
            ),
            Kind::Host => Box::new(self.hosts.keys().map(|name| (String::new(), name.clone()))),
            _ => Box::new(self.objects.get(&kind).into_iter().flat_map(|objects| objects.keys().cloned())),
        }
    }

    fn version(&self, kind: Kind, namespace: &str, name: &str) -> Option<u64> {
        match kind {
            Kind::Pod => self.pods.get(namespace)?.get(name).map(|pod| pod.version),
            Kind::Host => self.hosts.get(name).map(|host| host.version),
            _ => self.object(kind, namespace, name).map(|object| object.version),
        }
    }

    /// An object of a kind that is compared as a whole.
    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&kind)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The objects of a kind in a namespace, by name.
    pub fn objects_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = (&str, &Object)> {
        let from = (namespace.to_owned(), String::new());
        let objects =
            self.objects.get(&kind).into_iter().flat_map(move |objects| objects.range(from.clone()..));
        let namespace = namespace.to_owned();
        objects
            .take_while(move |((at, _), _)| *at == namespace)
            .map(|((_, name), object)| (name.as_str(), object))
    }

    /// The pods of planes in a namespace, by name.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = (&str, &Pod)> {
        self.pods.get(namespace).into_iter().flatten().map(|(name, pod)| (name.as_str(), pod))
    }

    /// All hosts by name.
    pub fn hosts(&self) -> &BTreeMap<String, Host> {
        &self.hosts
    }

    /// A host.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name)
    }

    /// How many objects are known, pods and hosts with them.
    pub fn len(&self) -> usize {
        let objects: usize = self.objects.values().map(BTreeMap::len).sum();
        objects + self.pods.values().map(BTreeMap::len).sum::<usize>() + self.hosts.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn touched(kind: Kind, namespace: &str, name: &str) -> Touched {
    match kind {
        Kind::Namespace => Touched::Namespace(name.to_owned()),
        _ if kind.is_namespaced() => Touched::Namespace(namespace.to_owned()),
        _ => Touched::Everything,
    }
}

fn read_pod(object: &Value, uid: String, version: u64, deleting: bool, created_at: Timestamp) -> Pod {
    let label = |name: &str| text(object, &["metadata", "labels", name]).unwrap_or_default().to_owned();
    let gates = at(object, &["spec", "schedulingGates"]).as_array();
    let affinity = at(object, &["spec", "affinity"]).clone();
    let phase = text(object, &["status", "phase"]).unwrap_or_default();
    Pod {
        uid,
        version,
        plane: label(PLANE_OF_POD),
        template: label("pod-template-hash"),
        host: text(object, &["spec", "nodeName"]).map(str::to_owned),
        pinned: pinned(&affinity),
        gate: gates.and_then(|gates| gates.iter().position(|gate| gate["name"] == GATE)),
        affinity,
        ready: condition(object, "Ready") && !deleting,
        // A pod that ended does not come back: its set makes another.
        deleting: deleting || matches!(phase, "Succeeded" | "Failed"),
        created_at,
    }
}

/// The host to which the first term of an affinity ties a pod.
fn pinned(affinity: &Value) -> Option<String> {
    let path = ["nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let term = at(affinity, &path).get(0)?;
    let fields = term.get("matchFields")?.as_array()?;
    let field = fields.iter().find(|field| field["key"] == "metadata.name")?;
    field["values"].get(0)?.as_str().map(str::to_owned)
}

/// Leaves out what nobody here reads: who owns which field, and of a status what does not decide.
fn trim(kind: Kind, object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for unread in ["managedFields", "creationTimestamp", "resourceVersion", "uid", "selfLink"] {
            metadata.remove(unread);
        }
    }
    let read: &[&str] = match kind {
        Kind::Plane => {
            &["kubernetesResources", "storage", "observedGeneration", "controlPlaneEndpoint", "kubeconfig"]
        }
        Kind::ClusterApiPlane => &["observedGeneration"],
        Kind::DataStore => &["ready"],
        _ => &[],
    };
    let Some(members) = object.as_object_mut() else { return };
    if let Some(status) = members.get_mut("status").and_then(Value::as_object_mut) {
        status.retain(|name, _| read.contains(&name.as_str()));
    }
    if read.is_empty() {
        members.remove("status");
    }
}

/// When we changed an object last, as the server recorded it.
fn changed_at(object: &Value) -> Option<Timestamp> {
    let records = at(object, &["metadata", "managedFields"]).as_array()?;
    let ours = records.iter().filter(|record| record["manager"] == MANAGER);
    ours.filter_map(|record| record["time"].as_str()?.parse().ok()).max()
}

fn condition(object: &Value, kind: &str) -> bool {
    condition_of(object, kind).0
}

/// Whether a condition holds, and since when it is as it is.
pub(crate) fn condition_of(object: &Value, kind: &str) -> (bool, Option<Timestamp>) {
    let conditions = at(object, &["status", "conditions"]).as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    let since = found.and_then(|found| text(found, &["lastTransitionTime"])).and_then(|at| at.parse().ok());
    (found.is_some_and(|found| found["status"] == "True"), since)
}

/// The value at a path of member names, null if there is none.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, name| value.get(name).unwrap_or(&Value::Null))
}

/// The text at a path, if there is one that is not empty.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path).as_str().filter(|text| !text.is_empty())
}

/// The whole number at a path, 0 if there is none.
pub(crate) fn number(value: &Value, path: &[&str]) -> u64 {
    at(value, path).as_u64().unwrap_or_default()
}
