//! What is said to people who look at a plane in the management cluster.

use proto::Timestamp;
use serde_json::json;

use crate::MANAGER;
use crate::change::Request;
use crate::desired::Plane;
use crate::diff::Note;
use crate::kind::Kind;
use crate::name::{digest, namespace_name, plane_name};

/// Bytes of the digest in an announcement's name: it tells apart what is said of one plane.
const NAME_BYTES: usize = 6;

/// A note about a plane as an event of Kubernetes. The same note said again is the same event, said later.
pub fn announce(plane: &Plane, note: &Note, now: Timestamp) -> Request {
    let (namespace, name) = (namespace_name(&plane.tenant), plane_name(&plane.cluster));
    let said = digest(format!("{} {}", note.reason.word(), note.message).as_bytes(), NAME_BYTES);
    let event = format!("{name}.{said}");
    // Whole seconds are what the field holds.
    let seconds = Timestamp::from_micros(now.micros().div_euclid(1_000_000) * 1_000_000).to_string();
    Request {
        method: "PATCH",
        path: format!("/api/v1/namespaces/{namespace}/events/{event}?fieldManager={MANAGER}&force=true"),
        content_type: "application/apply-patch+yaml",
        body: json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "namespace": namespace, "name": event },
            "involvedObject": { "apiVersion": Kind::Plane.api_version(), "kind": Kind::Plane.names().2,
                "namespace": namespace, "name": name },
            "type": "Warning", "reason": note.reason.word(), "message": note.message,
            "source": { "component": MANAGER }, "lastTimestamp": seconds,
        }),
    }
}
