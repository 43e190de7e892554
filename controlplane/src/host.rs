//! A host as its Node shows it.

use std::collections::{BTreeMap, BTreeSet};

use proto::Timestamp;
use proto::placement::Amount;
use serde_json::Value;

use crate::observed::{at, condition_of, text};
use crate::quantity::{milli, whole};

/// Annotation of a Node that says when its machine is gone, as RFC 3339.
pub const GONE_AT: &str = "walras.dev/gone-at";
/// Annotation of a Node that names the hypervisor whose notices count for it.
pub const HYPERVISOR: &str = "walras.dev/hypervisor";
/// Label of a Node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of a Node's region.
const REGION: &str = "topology.kubernetes.io/region";
/// Taints that say that a Node does not answer: that is told by its condition, with an instant.
const SILENT: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const BYTES_PER_MIB: u64 = 1 << 20;

/// A host of the management cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its identity: a machine that is set up anew has another.
    pub uid: String,
    /// Its resource version.
    pub version: u64,
    /// Whether it answers.
    pub ready: bool,
    /// Since when it does not.
    pub silent_since: Option<Timestamp>,
    /// Whether it takes no new pods.
    pub cordoned: bool,
    /// When its machine is gone, where somebody said so on the Node.
    pub gone_at: Option<Timestamp>,
    /// Its zone, empty if none is named.
    pub zone: String,
    /// Its region, empty if none is named.
    pub region: String,
    /// Whose notices count for it, empty if nobody's.
    pub hypervisor: String,
    /// What it has for pods.
    pub capacity: Amount,
    /// Its taints but those that say that it does not answer.
    pub taints: BTreeSet<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Host {
    /// Whether new pods may go there.
    pub fn takes_pods(&self) -> bool {
        self.ready && !self.cordoned
    }

    /// Whether it says the same as another, seen at another time.
    pub fn says_the_same(&self, other: &Self) -> bool {
        *self == Self { version: self.version, ..other.clone() }
    }

    pub(crate) fn read(node: &Value, uid: String, version: u64) -> Self {
        let label = |name: &str| text(node, &["metadata", "labels", name]).unwrap_or_default().to_owned();
        let annotation = |name: &str| text(node, &["metadata", "annotations", name]);
        let amount = |name: &str| text(node, &["status", "allocatable", name]).unwrap_or_default();
        let (ready, changed_at) = condition_of(node, "Ready");
        let taints = at(node, &["spec", "taints"]).as_array().into_iter().flatten();
        // A preference is no taint that anybody must tolerate.
        let taints = taints.filter(|taint| taint["effect"] != "PreferNoSchedule");
        let taints = taints.filter_map(|taint| taint["key"].as_str()).filter(|key| !SILENT.contains(key));
        let labels = at(node, &["metadata", "labels"]).as_object().into_iter().flatten();
        let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        Self {
            uid,
            version,
            ready,
            silent_since: changed_at.filter(|_| !ready),
            cordoned: at(node, &["spec", "unschedulable"]) == true,
            gone_at: annotation(GONE_AT).and_then(|written| written.parse().ok()),
            zone: label(ZONE),
            region: label(REGION),
            hypervisor: annotation(HYPERVISOR).unwrap_or_default().to_owned(),
            capacity: Amount {
                cpu_milli: narrowed(milli(amount("cpu"))),
                memory_mib: narrowed(whole(amount("memory")).map(|bytes| bytes / BYTES_PER_MIB)),
                pods: narrowed(whole(amount("pods"))),
            },
            taints: taints.map(str::to_owned).collect(),
            labels: labels.collect(),
        }
    }
}

/// A quantity in the width that placement counts in; what cannot be read is nothing.
fn narrowed(read: Option<u64>) -> u32 {
    u32::try_from(read.unwrap_or_default()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_says_what_its_host_is() {
        let node = json!({
            "metadata": { "name": "h", "annotations": { GONE_AT: "2026-01-01T00:00:00Z", HYPERVISOR: "hv" },
                "labels": { ZONE: "z1", REGION: "oak", "pool": "planes" } },
            "spec": { "unschedulable": true, "taints": [
                { "key": "walras.dev/spot", "effect": "NoSchedule" },
                { "key": "soft", "effect": "PreferNoSchedule" },
                { "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" } ] },
            "status": { "allocatable": { "cpu": "7500m", "memory": "30Gi", "pods": "110" }, "conditions": [
                { "type": "Ready", "status": "Unknown", "lastTransitionTime": "2025-12-31T00:00:00Z" } ] },
        });
        let host = Host::read(&node, "u".to_owned(), 7);
        assert_eq!(host.capacity, Amount { cpu_milli: 7_500, memory_mib: 30 * 1_024, pods: 110 });
        assert_eq!((host.zone.as_str(), host.region.as_str(), host.hypervisor.as_str()), ("z1", "oak", "hv"));
        assert_eq!(host.taints, BTreeSet::from(["walras.dev/spot".to_owned()]));
        assert!(host.cordoned && !host.ready && !host.takes_pods());
        assert_eq!(host.silent_since, "2025-12-31T00:00:00Z".parse().ok());
        assert_eq!(host.gone_at, "2026-01-01T00:00:00Z".parse().ok());
        assert_eq!(host.labels["pool"], "planes");
    }
}
