//! One write to the management cluster, and the request that it is.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::{APPLIED, GATE, MANAGER};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An object is to say this, by server-side apply: our fields, all of them, and no others.
    Apply {
        /// What it is.
        kind: Kind,
        /// Its namespace, empty if it has none.
        namespace: String,
        /// Its name.
        name: String,
        /// What it is to say.
        manifest: Value,
        /// The version on which a disruptive change was worked out: it is refused on any other.
        on_version: Option<u64>,
    },
    /// An object is to go; another of that name stays.
    Delete {
        /// What it is.
        kind: Kind,
        /// Its namespace, empty if it has none.
        namespace: String,
        /// Its name.
        name: String,
        /// Its identity.
        uid: String,
        /// The version that may go, where another may be worth keeping.
        on_version: Option<u64>,
    },
    /// A pod is to go, if its budget allows.
    Evict {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its identity.
        uid: String,
    },
    /// A held pod may start, on one host, or anywhere that its template allows.
    Release {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its identity.
        uid: String,
        /// The place of our gate in its list of gates.
        gate: usize,
        /// Which host, and where else its template wants it, narrowed to that host.
        to: Option<(String, Value)>,
    },
}

/// An HTTP request to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its method.
    pub method: &'static str,
    /// Its path and query.
    pub path: String,
    /// The type of its body.
    pub content_type: &'static str,
    /// Its body.
    pub body: Value,
}

impl Change {
    /// What it changes: kind, namespace, name.
    pub fn subject(&self) -> (Kind, &str, &str) {
        match self {
            Self::Apply { kind, namespace, name, .. } | Self::Delete { kind, namespace, name, .. } => {
                (*kind, namespace, name)
            }
            Self::Evict { namespace, name, .. } | Self::Release { namespace, name, .. } => {
                (Kind::Pod, namespace, name)
            }
        }
    }

    /// The word for it in metrics and messages.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "apply",
            Self::Delete { .. } => "delete",
            Self::Evict { .. } => "evict",
            Self::Release { .. } => "release",
        }
    }

    /// A text that is the same for the same change, on whatever version it was worked out.
    pub fn signature(&self) -> String {
        let (kind, namespace, name) = self.subject();
        let content = match self {
            Self::Apply { manifest, .. } => {
                manifest["metadata"]["annotations"][APPLIED].as_str().unwrap_or_default()
            }
            Self::Delete { uid, .. } | Self::Evict { uid, .. } | Self::Release { uid, .. } => uid,
        };
        format!("{} {} {namespace}/{name} {content}", self.verb(), kind.names().3)
    }

    /// Whether pods that serve may begin or end because of it.
    pub const fn is_disruptive(&self) -> bool {
        matches!(self, Self::Apply { on_version: Some(_), .. } | Self::Evict { .. })
    }

    /// The request that carries it out. Sent twice it has the effect of once, for it names identity, or content.
    pub fn request(&self) -> Request {
        let (kind, namespace, name) = self.subject();
        let path = kind.path(namespace, name);
        let json = "application/json";
        match self {
            Self::Apply { manifest, on_version, .. } => {
                let mut body = manifest.clone();
                if let Some(version) = on_version {
                    body["metadata"]["resourceVersion"] = version.to_string().into();
                }
                let path = format!("{path}?fieldManager={MANAGER}&force=true");
                Request { method: "PATCH", path, content_type: "application/apply-patch+yaml", body }
            }
            Self::Delete { uid, on_version, .. } => {
                let mut body =
                    json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
                if let Some(version) = on_version {
                    body["preconditions"]["resourceVersion"] = version.to_string().into();
                }
                Request { method: "DELETE", path, content_type: json, body }
            }
            Self::Evict { uid, .. } => Request {
                method: "POST",
                path: format!("{path}/eviction"),
                content_type: json,
                body: json!({ "apiVersion": "policy/v1", "kind": "Eviction",
                    "metadata": { "namespace": namespace, "name": name },
                    "deleteOptions": { "preconditions": { "uid": uid } } }),
            },
            Self::Release { uid, gate, to, .. } => {
                let mut patch = vec![
                    json!({ "op": "test", "path": "/metadata/uid", "value": uid }),
                    json!({ "op": "test", "path": format!("/spec/schedulingGates/{gate}/name"), "value": GATE }),
                ];
                if let Some((_, affinity)) = to {
                    patch.push(json!({ "op": "add", "path": "/spec/affinity", "value": affinity }));
                }
                patch.push(json!({ "op": "remove", "path": format!("/spec/schedulingGates/{gate}") }));
                Request {
                    method: "PATCH",
                    path: format!("{path}?fieldManager={MANAGER}"),
                    content_type: "application/json-patch+json",
                    body: Value::from(patch),
                }
            }
        }
    }
}
