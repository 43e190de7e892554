//! The API server, as far as a worker needs it: its own Node, the pods on it, and their ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use life::{Answered, Pod, PodKind, Wall};
use proto::Timestamp;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::places::Places;
use crate::client::{Answer, Ask, HttpError, ask};
use crate::konnectivity::{TlsError, TlsFiles};

/// Pods in one piece of a list.
const LIST_PIECE: usize = 250;

/// Pieces of a list at most: a Node holds some hundreds of pods.
const LIST_PIECES_MAX: usize = 40;

/// The time that a pod wants for ending if it says nothing, in seconds.
const GRACE_SECONDS: u32 = 30;

/// Why the API server was asked in vain.
#[derive(Debug, Error)]
pub(crate) enum KubeError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// No certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It refuses.
    #[error("the API server answers {0} to {1}: {2}")]
    Refused(u16, &'static str, String),
    /// Not what an API server answers.
    #[error("the API server's answer to {0} cannot be read")]
    Form(&'static str, #[source] serde_json::Error),
    /// A list that goes on and on.
    #[error("the list of pods has more than {LIST_PIECES_MAX} pieces")]
    Endless,
}

/// The Node's own API server.
#[derive(Debug, Clone)]
pub(crate) struct Kube {
    server: String,
    node: String,
    authority: PathBuf,
    /// The certificate with its key that the kubelet renewed, where it has; else the one of the admission.
    own: [(PathBuf, PathBuf); 2],
}

/// What is read of a Node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    pub(crate) ready: bool,
    pub(crate) volumes: u32,
}

impl Kube {
    pub(crate) fn new(places: &Places, server: &str, node: &str) -> Kube {
        let renewed = places.kubelet_certificate.clone();
        Kube {
            server: server.trim_end_matches('/').to_owned(),
            node: node.to_owned(),
            authority: places.authority.clone(),
            own: [(renewed.clone(), renewed), (places.certificate.clone(), places.key.clone())],
        }
    }

    /// Certificates are read anew for each request: the kubelet renews them.
    fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let [renewed, first] = &self.own;
        let own = if renewed.0.exists() { renewed } else { first };
        let protocols = vec!["http/1.1".to_owned()];
        TlsFiles { ca: self.authority.clone(), own: Some(own.clone()), protocols }.load_exactly()
    }

    async fn ask(&self, method: &str, path: &str, kind: &str, body: Value) -> Result<Answer, KubeError> {
        let url = format!("{}{path}", self.server);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let headers = [("content-type", kind), ("accept", "application/json")];
        Ok(ask(Ask { method, url: &url, headers: &headers, body }, Some(self.tls()?)).await?)
    }

    /// The Node, none if there is no such Node.
    pub(crate) async fn node(&self) -> Result<Option<Node>, KubeError> {
        let path = format!("/api/v1/nodes/{}", self.node);
        let answer = self.ask("GET", &path, "application/json", Value::Null).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let node: NodeRead = read("the Node", &answer)?;
        let ready = node.status.conditions.iter().any(|one| one.kind == "Ready" && one.status == "True");
        let volumes = node.status.volumes_attached.len().max(node.status.volumes_in_use.len());
        Ok(Some(Node { ready, volumes: u32::try_from(volumes).unwrap_or(u32::MAX) }))
    }

    /// Lets the Node take no new pods, or take them again. Whether there is such a Node.
    pub(crate) async fn cordon(&self, cordoned: bool) -> Result<bool, KubeError> {
        let path = format!("/api/v1/nodes/{}", self.node);
        let patch = json!({ "spec": { "unschedulable": cordoned } });
        let answer = self.ask("PATCH", &path, "application/merge-patch+json", patch).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        read::<Value>("the cordon", &answer).map(|_| true)
    }

    /// All pods on the Node. `wall` says what their instants are in spans.
    pub(crate) async fn pods(&self, wall: Wall) -> Result<Vec<Pod>, KubeError> {
        let (mut pods, mut next) = (Vec::new(), String::new());
        for _ in 0..LIST_PIECES_MAX {
            let mut path =
                format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}&limit={LIST_PIECE}", self.node);
            if !next.is_empty() {
                path.push_str("&continue=");
                path.extend(next.bytes().map(percent));
            }
            let answer = self.ask("GET", &path, "application/json", Value::Null).await?;
            let list: ListRead = read("the list of pods", &answer)?;
            pods.extend(list.items.into_iter().map(|pod| pod.into_pod(wall)));
            next = list.metadata.next;
            if next.is_empty() {
                return Ok(pods);
            }
        }
        Err(KubeError::Endless)
    }

    /// Asks for a pod's eviction.
    pub(crate) async fn evict(&self, pod: &Pod, grace_seconds: Option<u32>) -> Answered {
        let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", pod.namespace, pod.name);
        let mut options = json!({ "preconditions": { "uid": pod.uid } });
        if let (Some(seconds), Some(options)) = (grace_seconds, options.as_object_mut()) {
            options.insert("gracePeriodSeconds".to_owned(), seconds.into());
        }
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": pod.name, "namespace": pod.namespace },
            "deleteOptions": options,
        });
        answered("the eviction", self.ask("POST", &path, "application/json", eviction).await)
    }

    /// Deletes a pod.
    pub(crate) async fn delete(&self, pod: &Pod, grace_seconds: u32) -> Answered {
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": grace_seconds,
            "preconditions": { "uid": pod.uid },
        });
        answered("the deletion", self.ask("DELETE", &path, "application/json", options).await)
    }
}

fn answered(what: &'static str, answer: Result<Answer, KubeError>) -> Answered {
    match answer {
        // 409: another pod of that name.
        Ok(answer) if matches!(answer.status.as_u16(), 404 | 409) => Answered::Gone,
        Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => Answered::Blocked,
        Ok(answer) => match read::<Value>(what, &answer) {
            Ok(_) => Answered::Accepted,
            Err(error) => Answered::Failed(error.to_string()),
        },
        Err(error) => Answered::Failed(crate::chain(&error)),
    }
}

fn read<'a, T: Deserialize<'a>>(what: &'static str, answer: &'a Answer) -> Result<T, KubeError> {
    if !answer.status.is_success() {
        let said: Result<Value, _> = serde_json::from_slice(&answer.body);
        let said = said.ok().and_then(|said| said.get("message")?.as_str().map(str::to_owned));
        return Err(KubeError::Refused(answer.status.as_u16(), what, said.unwrap_or_default()));
    }
    serde_json::from_slice(&answer.body).map_err(|error| KubeError::Form(what, error))
}

/// What a continuation holds beside letters and digits is written in hexadecimal.
fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

#[derive(Deserialize)]
struct NodeRead {
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatus {
    conditions: Vec<Condition>,
    volumes_attached: Vec<Value>,
    volumes_in_use: Vec<Value>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Deserialize)]
struct ListRead {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<PodRead>,
}

#[derive(Deserialize, Default)]
struct ListMetadata {
    #[serde(rename = "continue", default)]
    next: String,
}

#[derive(Deserialize)]
struct PodRead {
    metadata: PodMetadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMetadata {
    #[serde(default)]
    namespace: String,
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<Owner>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    priority: i32,
    termination_grace_period_seconds: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

impl PodRead {
    fn into_pod(self, wall: Wall) -> Pod {
        let metadata = self.metadata;
        let daemon =
            metadata.owner_references.iter().any(|owner| owner.controller && owner.kind == "DaemonSet");
        let kind = if metadata.annotations.contains_key("kubernetes.io/config.mirror") {
            PodKind::Mirror
        } else if daemon {
            PodKind::Daemon
        } else if matches!(self.status.phase.as_str(), "Succeeded" | "Failed") {
            PodKind::Finished
        } else {
            PodKind::Ordinary
        };
        let ends_at = metadata.deletion_timestamp.and_then(|text| text.parse::<Timestamp>().ok());
        let grace = self.spec.termination_grace_period_seconds;
        Pod {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            priority: self.spec.priority,
            grace_seconds: grace
                .map_or(GRACE_SECONDS, |grace| u32::try_from(grace.max(0)).unwrap_or(u32::MAX)),
            kind,
            ends_at: ends_at.map(|instant| wall.span(instant).max(Duration::from_nanos(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Pod {
        let read: PodRead = serde_json::from_str(text).expect("a pod");
        read.into_pod(Wall::new(Duration::from_secs(10), Timestamp::from_micros(1_000_000_000)))
    }

    #[test]
    fn pods_are_told_apart() {
        for (text, kind) in [
            (r#"{"metadata":{"name":"a"}}"#, PodKind::Ordinary),
            (r#"{"metadata":{"name":"a"},"status":{"phase":"Failed"}}"#, PodKind::Finished),
            (
                r#"{"metadata":{"name":"a","annotations":{"kubernetes.io/config.mirror":"x"}},"status":{"phase":"Running"}}"#,
                PodKind::Mirror,
            ),
            (
                r#"{"metadata":{"name":"a","ownerReferences":[{"kind":"DaemonSet","controller":true}]}}"#,
                PodKind::Daemon,
            ),
            (r#"{"metadata":{"name":"a","ownerReferences":[{"kind":"DaemonSet"}]}}"#, PodKind::Ordinary),
        ] {
            assert_eq!(pod(text).kind, kind, "{text}");
        }
        let ending = pod(
            r#"{"metadata":{"namespace":"n","name":"a","uid":"u","deletionTimestamp":"1970-01-01T00:16:45Z"},"spec":{"priority":7,"terminationGracePeriodSeconds":600}}"#,
        );
        assert_eq!(
            (ending.ends_at, ending.priority, ending.grace_seconds),
            (Some(Duration::from_secs(15)), 7, 600)
        );
        assert_eq!(pod(r#"{"metadata":{"name":"a"}}"#).grace_seconds, 30);
    }
}
