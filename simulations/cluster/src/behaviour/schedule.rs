//! The scheduler: a pod without gates goes to the best host that fits, or waits until something changes.
//!
//! Filters: cordons, taints, node selector, required node affinity, requests, required pod anti-affinity, spread
//! constraints that must hold. Scores, in this order: preferred node affinity, spread that should hold, preferred
//! anti-affinity, least allocated; then the name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{request_millis, set_condition};
use crate::Cluster;
use crate::json::{at, items, members, number, quantity_millis, set, text, truth};
use crate::selector::{Selector, node_matches, node_matches_term};
use crate::store::Key;

const MANAGER: &str = "kube-scheduler";
/// What requests are compared for, and what is said where there is not enough.
const RESOURCES: [(&str, &str); 3] =
    [("cpu", "Insufficient cpu"), ("memory", "Insufficient memory"), ("pods", "Too many pods")];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The better host is the greater: preferred weight, then few of the same spread, then few neighbours to be
/// avoided, then most left, then the name.
type Score = (i64, i64, i64, i128, std::cmp::Reverse<String>);

impl Cluster {
    /// One try to find a host for a pod.
    pub(super) fn schedule(&mut self, key: &Key) {
        let Some(pod) = self.store.get(key).cloned() else { return };
        if !text(&pod, "spec.nodeName").is_empty() || !at(&pod, "metadata.deletionTimestamp").is_null() {
            return;
        }
        let now = self.now;
        if !items(&pod, "spec.schedulingGates").is_empty() {
            self.edit(key, MANAGER, "status", |pod| {
                let why = "Scheduling is blocked due to non-empty scheduling gates";
                set_condition(pod, "PodScheduled", "False", "SchedulingGated", why, now);
            });
            return;
        }
        if text(&pod, "spec.schedulerName") != "default-scheduler" {
            return;
        }
        let hosts: Vec<Arc<Value>> =
            self.store.list("nodes", None).map(|(_, host)| Arc::clone(host)).collect();
        let neighbours = self.neighbours(&pod);
        let mut best: Option<(Score, String)> = None;
        let mut refusals: BTreeMap<&str, usize> = BTreeMap::new();
        let spreads = spreads(&pod, &hosts, &neighbours);
        for host in &hosts {
            match self.score(&pod, host, &neighbours, &spreads) {
                Ok(score) => {
                    let name = text(host, "metadata.name").to_owned();
                    if best.as_ref().is_none_or(|(other, _)| score > *other) {
                        best = Some((score, name));
                    }
                }
                Err(why) => *refusals.entry(why).or_default() += 1,
            }
        }
        if let Some((_, host)) = best {
            self.bind_to(key, &host);
            return;
        }
        let told: Vec<_> = refusals.iter().map(|(why, count)| format!("{count} {why}")).collect();
        let message = format!("0/{} nodes are available: {}.", hosts.len(), told.join(", "));
        self.behaviour.waiting.insert(key.clone());
        self.edit(key, MANAGER, "status", |pod| {
            set_condition(pod, "PodScheduled", "False", "Unschedulable", &message, now);
        });
        if let Some(pod) = self.store.get(key).cloned() {
            self.event(&pod, "Warning", "FailedScheduling", &message);
        }
    }

    /// Binds a pod to a host.
    pub(crate) fn bind_to(&mut self, key: &Key, host: &str) {
        let now = self.now;
        self.edit(key, MANAGER, "", |pod| set(pod, "spec.nodeName", host));
        self.edit(key, MANAGER, "status", |pod| set_condition(pod, "PodScheduled", "True", "", "", now));
        self.behaviour.waiting.remove(key);
        // The next pod must see what this one takes.
        self.hear();
    }

    /// The bound pods of a pod's namespace, with their hosts.
    fn neighbours(&self, pod: &Value) -> Vec<Neighbour> {
        let all = self.store.list("pods", Some(text(pod, "metadata.namespace")));
        let staying = all.filter(|(_, other)| at(other, "metadata.deletionTimestamp").is_null());
        let bound = staying.filter_map(|(_, other)| {
            let host = self.get("nodes", "", text(other, "spec.nodeName"))?;
            Some(Neighbour { host: Arc::clone(host), pod: Arc::clone(other) })
        });
        bound.collect()
    }

    fn score(
        &self,
        pod: &Value,
        host: &Value,
        neighbours: &[Neighbour],
        spreads: &[Spread],
    ) -> Result<Score, &'static str> {
        if truth(host, "spec.unschedulable") {
            return Err("node(s) were unschedulable");
        }
        let refusing = |effect: &str| matches!(effect, "NoSchedule" | "NoExecute");
        let taints = items(host, "spec.taints").iter().filter(|taint| refusing(text(taint, "effect")));
        if taints.into_iter().any(|taint| tolerated(pod, taint).is_none()) {
            return Err("node(s) had untolerated taint(s)");
        }
        let labels = at(host, "metadata.labels");
        if !members(pod, "spec.nodeSelector").all(|(name, value)| labels[name] == value) {
            return Err("node(s) didn't match Pod's node affinity/selector");
        }
        let affinity = at(pod, "spec.affinity.nodeAffinity");
        let required = &affinity[REQUIRED];
        if !required.is_null() && !node_matches(items(required, "nodeSelectorTerms"), host) {
            return Err("node(s) didn't match Pod's node affinity/selector");
        }
        let left = self.left(pod, host)?;
        let avoided = avoided(pod, host, neighbours)?;
        let mut same = 0;
        for spread in spreads {
            let Some(here) = labels.get(&spread.label).and_then(Value::as_str) else {
                if spread.must {
                    return Err(
                        "node(s) didn't match pod topology spread constraints (missing required label)",
                    );
                }
                continue;
            };
            let count = spread.counts.get(here).copied().unwrap_or_default();
            let least = spread.counts.values().min().copied().unwrap_or_default();
            if spread.must && count + 1 - least > spread.skew {
                return Err("node(s) didn't match pod topology spread constraints");
            }
            same += count;
        }
        let preferred = items(affinity, PREFERRED).iter();
        let preferred = preferred.filter(|term| node_matches_term(at(term, "preference"), host));
        let weight = preferred.map(|term| number(term, "weight")).sum();
        Ok((weight, -same, -avoided, left, std::cmp::Reverse(text(host, "metadata.name").to_owned())))
    }

    /// The least share, in millionths, of a host's resources that is left once the pod runs there.
    fn left(&self, pod: &Value, host: &Value) -> Result<i128, &'static str> {
        let taken = self.behaviour.taken.get(text(host, "metadata.name")).copied().unwrap_or_default();
        let mut least = 1_000_000;
        for ((resource, lacking), (taken, wanted)) in RESOURCES.iter().zip(taken.into_iter().zip(takes(pod)))
        {
            let capacity = at(host, "status.allocatable").get(*resource).and_then(quantity_millis);
            let Some(capacity) = capacity.filter(|capacity| *capacity > 0) else {
                return Err("node(s) without allocatable resources");
            };
            let left = capacity - taken - wanted;
            if left < 0 {
                return Err(lacking);
            }
            least = least.min(left * 1_000_000 / capacity);
        }
        Ok(least)
    }
}

/// What a pod takes of its host, in thousandths, in the order of [`RESOURCES`].
pub(super) fn takes(pod: &Value) -> [i128; 3] {
    if matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
        return [0; 3];
    }
    [request_millis(pod, "cpu"), request_millis(pod, "memory"), 1_000]
}

/// A bound pod and its host.
struct Neighbour {
    host: Arc<Value>,
    pod: Arc<Value>,
}

impl Neighbour {
    fn is_on(&self, host: &Value) -> bool {
        text(&self.host, "metadata.name") == text(host, "metadata.name")
    }
}

/// One spread constraint, and how many pods it counts in each domain of the hosts that the pod may use.
struct Spread {
    label: String,
    skew: i64,
    must: bool,
    counts: BTreeMap<String, i64>,
}

fn spreads(pod: &Value, hosts: &[Arc<Value>], neighbours: &[Neighbour]) -> Vec<Spread> {
    let one = |constraint: &Value| {
        let label = text(constraint, "topologyKey").to_owned();
        let mut selector = Selector::of_object(at(constraint, "labelSelector"));
        for key in items(constraint, "matchLabelKeys").iter().filter_map(Value::as_str) {
            if let Some(value) = at(pod, "metadata.labels").get(key).and_then(Value::as_str) {
                selector.and(key, value);
            }
        }
        // A pod that may run on one host only would otherwise be spread over this one host.
        let everywhere = text(constraint, "nodeAffinityPolicy") == "Ignore";
        let mut counts = BTreeMap::new();
        for host in hosts {
            let required = at(pod, "spec.affinity.nodeAffinity").get(REQUIRED);
            let usable = required.is_none_or(|terms| node_matches(items(terms, "nodeSelectorTerms"), host))
                && members(pod, "spec.nodeSelector")
                    .all(|(name, value)| host["metadata"]["labels"][name] == value);
            let Some(domain) = at(host, "metadata.labels").get(&label).and_then(Value::as_str) else {
                continue;
            };
            let here = neighbours.iter().filter(|one| one.is_on(host) && selector.selects(&one.pod)).count();
            if usable || everywhere {
                *counts.entry(domain.to_owned()).or_default() += here as i64;
            }
        }
        let must = text(constraint, "whenUnsatisfiable") == "DoNotSchedule";
        Spread { label, skew: number(constraint, "maxSkew").max(1), must, counts }
    };
    items(pod, "spec.topologySpreadConstraints").iter().map(one).collect()
}

/// The weight of neighbours that a pod would rather not have in this host's domains; those it must not have refuse
/// the host.
fn avoided(pod: &Value, host: &Value, neighbours: &[Neighbour]) -> Result<i64, &'static str> {
    let anti = at(pod, "spec.affinity.podAntiAffinity");
    let meets = |term: &Value| {
        let selector = Selector::of_object(at(term, "labelSelector"));
        let Some(domain) = at(host, "metadata.labels").get(text(term, "topologyKey")) else { return false };
        let domain_of =
            |one: &Neighbour| at(&one.host, "metadata.labels").get(text(term, "topologyKey")).cloned();
        neighbours.iter().any(|one| domain_of(one).as_ref() == Some(domain) && selector.selects(&one.pod))
    };
    if items(anti, REQUIRED).iter().any(meets) {
        return Err("node(s) didn't match pod anti-affinity rules");
    }
    let preferred = items(anti, PREFERRED).iter();
    Ok(preferred.filter(|one| meets(at(one, "podAffinityTerm"))).map(|one| number(one, "weight")).sum())
}

/// For how many seconds a pod tolerates a taint: none if not at all, [`i64::MAX`] for ever.
pub(super) fn tolerated(pod: &Value, taint: &Value) -> Option<i64> {
    let fits = |one: &&Value| {
        let (key, effect) = (text(one, "key"), text(one, "effect"));
        let key_fits = key == text(taint, "key") || (key.is_empty() && text(one, "operator") == "Exists");
        let value_fits = text(one, "operator") == "Exists" || text(one, "value") == text(taint, "value");
        key_fits && value_fits && (effect.is_empty() || effect == text(taint, "effect"))
    };
    let fitting = items(pod, "spec.tolerations").iter().filter(fits);
    fitting.map(|one| at(one, "tolerationSeconds").as_i64().unwrap_or(i64::MAX)).min()
}

/// The taints of a host that stopped answering.
pub(super) fn unreachable_taints(now: &str) -> [Value; 2] {
    ["NoSchedule", "NoExecute"]
        .map(|effect| json!({ "key": "node.kubernetes.io/unreachable", "effect": effect, "timeAdded": now }))
}
