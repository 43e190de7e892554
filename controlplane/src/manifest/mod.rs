//! What we write, as types that say exactly the fields that are ours.

mod cluster_api;
mod plane;
mod site;
mod tenant;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::name::digest;
use crate::{APPLIED, MANAGED_BY, PLANE_LABEL};

pub(crate) use cluster_api::cluster_api_plane;
pub(crate) use plane::{PlaneTerms, UNREACHABLE_SECONDS, plane};
pub(crate) use site::{data_store, kamaji_driver, policies};
pub(crate) use tenant::{budget, tenant};

/// Bytes of the digest of what was applied: it tells apart what one plane is asked to be one time and the next.
const APPLIED_BYTES: usize = 8;

/// A manifest, and what it is of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) body: Value,
}

/// What is said of an object beside its kind's own members.
#[derive(Clone, Debug, Default, Serialize)]
struct Metadata {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Metadata {
    fn new(namespace: &str, name: &str) -> Self {
        let labels = BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]);
        Self { name: name.to_owned(), namespace: namespace.to_owned(), labels, annotations: BTreeMap::new() }
    }

    fn of_plane(mut self, number: u64) -> Self {
        self.labels.insert(PLANE_LABEL.to_owned(), number.to_string());
        self
    }

    fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// Puts a manifest together, with the digest of itself.
fn manifest(kind: Kind, metadata: Metadata, members: &impl Serialize) -> Manifest {
    let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone());
    // These are plain types whose keys are texts; writing them to memory cannot fail.
    let mut body = serde_json::to_value(members).unwrap_or_default();
    if body.is_null() {
        body = json!({});
    }
    body["apiVersion"] = kind.api_version().into();
    body["kind"] = kind.names().2.into();
    body["metadata"] = serde_json::to_value(metadata).unwrap_or_default();
    let applied = digest(body.to_string().as_bytes(), APPLIED_BYTES);
    body["metadata"]["annotations"][APPLIED] = applied.into();
    Manifest { kind, namespace, name, body }
}

/// Members of an object with a specification.
#[derive(Serialize)]
struct Spec<T> {
    spec: T,
}

/// Requests of a container.
#[derive(Clone, Debug, Serialize)]
struct Resources {
    requests: BTreeMap<&'static str, String>,
}

impl Resources {
    fn new(cpu_milli: u32, memory_mib: u32) -> Self {
        Self {
            requests: BTreeMap::from([
                ("cpu", format!("{cpu_milli}m")),
                ("memory", format!("{memory_mib}Mi")),
            ]),
        }
    }
}
