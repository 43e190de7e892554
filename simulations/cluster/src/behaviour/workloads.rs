//! `Deployment`, `ReplicaSet` and `StatefulSet`, as the controller manager treats them.

use std::sync::Arc;

use proto::Timestamp;
use serde_json::{Value, json};

use super::{Who, condition, counts, is_ready, set_condition};
use crate::Cluster;
use crate::json::{at, digest, items, list, number, owner, place, set, share, suffix, text, truth};
use crate::store::Key;

const MANAGER: &str = "kube-controller-manager";
const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// From a pod that was refused to the next try, in microseconds.
const AGAIN_MICROS: i64 = 5_000_000;

/// Most pods that one pass makes or ends for one owner.
const PODS_AT_ONCE_MAX: usize = 500;

/// A set of pods of one template.
struct Set {
    key: Key,
    object: Arc<Value>,
    wanted: i64,
    available: i64,
}

impl Cluster {
    /// One pass over a Deployment: its sets of pods are scaled within what its strategy allows, and counted.
    pub(super) fn deployment(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        let hash = suffix(digest([at(&object, "spec.template").to_string().as_str()]), 10);
        let mut sets = self.sets_of(&object);
        let ending = !at(&object, "metadata.deletionTimestamp").is_null();
        if !ending && !truth(&object, "spec.paused") {
            if !sets.iter().any(|set| text(&set.object, "metadata.labels.pod-template-hash") == hash) {
                self.new_set(&object, key, &hash, &sets);
                self.hear();
                sets = self.sets_of(&object);
            }
            for (set_key, wanted) in plan(&object, &hash, &sets) {
                self.edit(&set_key, MANAGER, "scale", |set_object| set(set_object, "spec.replicas", wanted));
            }
            self.hear();
            sets = self.sets_of(&object);
            self.drop_old_sets(&object, &hash, &sets);
        }
        self.deployment_status(key, &object, &hash, &sets);
    }

    fn sets_of(&self, deployment: &Value) -> Vec<Set> {
        let owned = self.owned(deployment, "replicasets").into_iter();
        owned
            .map(|(key, object)| Set {
                wanted: number(&object, "spec.replicas"),
                available: number(&object, "status.availableReplicas"),
                key,
                object,
            })
            .collect()
    }

    fn new_set(&mut self, deployment: &Value, key: &Key, hash: &str, sets: &[Set]) {
        let mut template = at(deployment, "spec.template").clone();
        place(&mut template, "metadata.labels")[HASH] = hash.into();
        let mut selector = at(deployment, "spec.selector").clone();
        place(&mut selector, "matchLabels")[HASH] = hash.into();
        let revisions = sets.iter().map(|set| at(&set.object, "metadata.annotations")[REVISION].as_str());
        let revisions = revisions.filter_map(|written| written?.parse::<u64>().ok());
        let revision = (revisions.max().unwrap_or_default() + 1).to_string();
        let set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": { "namespace": key.namespace, "name": format!("{}-{hash}", key.name),
                "labels": at(&template, "metadata.labels"), "annotations": { REVISION: revision },
                "ownerReferences": [owner(deployment, true)] },
            "spec": { "replicas": 0, "selector": selector, "template": template,
                "minReadySeconds": number(deployment, "spec.minReadySeconds") },
        });
        if self.make(set, MANAGER).is_ok() {
            self.edit(key, MANAGER, "", |deployment| {
                place(deployment, "metadata.annotations")[REVISION] = revision.into();
            });
        }
    }

    fn drop_old_sets(&mut self, deployment: &Value, hash: &str, sets: &[Set]) {
        let limit = usize::try_from(number(deployment, "spec.revisionHistoryLimit")).unwrap_or_default();
        let mut old: Vec<_> = sets.iter().filter(|set| !is_of(set, hash) && set.wanted == 0).collect();
        old.retain(|set| number(&set.object, "status.replicas") == 0);
        old.sort_by_key(|set| text(&set.object, "metadata.creationTimestamp"));
        for set in old.iter().take(old.len().saturating_sub(limit)) {
            // It may be gone already.
            let _gone = self.delete(&set.key, &Value::Null);
        }
    }

    fn deployment_status(&mut self, key: &Key, object: &Value, hash: &str, sets: &[Set]) {
        let sum =
            |name: &str| sets.iter().map(|set| number(&set.object, &format!("status.{name}"))).sum::<i64>();
        let new = sets.iter().find(|set| is_of(set, hash));
        let updated = new.map_or(0, |set| number(&set.object, "status.replicas"));
        let (replicas, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
        let wanted = number(object, "spec.replicas");
        let (_, down) = room(object);
        let done = updated == wanted && replicas == wanted && available == wanted;
        let now = self.now;
        let generation = number(object, "metadata.generation");
        self.edit(key, MANAGER, "status", |deployment| {
            counts(
                deployment,
                "status",
                &[
                    ("observedGeneration", generation),
                    ("replicas", replicas),
                    ("updatedReplicas", updated),
                    ("readyReplicas", ready),
                    ("availableReplicas", available),
                    ("unavailableReplicas", (wanted.max(replicas) - available).max(0)),
                ],
            );
            let enough = available >= wanted - down;
            let (status, reason) = if enough {
                ("True", "MinimumReplicasAvailable")
            } else {
                ("False", "MinimumReplicasUnavailable")
            };
            set_condition(deployment, "Available", status, reason, "", now);
            let reason = if done { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" };
            set_condition(deployment, "Progressing", "True", reason, "", now);
        });
    }

    /// One pass over a `ReplicaSet`: as many pods as wanted, and their count.
    pub(super) fn replica_set(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        let mut pods: Vec<_> =
            self.owned(&object, "pods").into_iter().filter(|(_, pod)| is_active(pod)).collect();
        let wanted = usize::try_from(number(&object, "spec.replicas")).unwrap_or_default();
        if at(&object, "metadata.deletionTimestamp").is_null() {
            for _ in pods.len()..wanted.min(pods.len() + PODS_AT_ONCE_MAX) {
                let name = format!("{}-{}", key.name, suffix(self.draw(), 5));
                if !self.make_pod(&object, &key.namespace, &name) {
                    // What refused it may be gone later, and tells nobody.
                    self.behaviour.at(Who::ReplicaSet, key.clone(), self.now.plus_micros(AGAIN_MICROS));
                    break;
                }
            }
            // First goes what is not bound, not ready, cheap to end, young.
            pods.sort_by_cached_key(|(_, pod)| {
                let cost =
                    at(pod, "metadata.annotations")["controller.kubernetes.io/pod-deletion-cost"].as_str();
                let cost = cost.and_then(|cost| cost.parse::<i64>().ok()).unwrap_or_default();
                let version = std::cmp::Reverse(crate::store::version_of(pod));
                (!text(pod, "spec.nodeName").is_empty(), is_ready(pod), cost, version)
            });
            for (pod, _) in pods.iter().take(pods.len().saturating_sub(wanted).min(PODS_AT_ONCE_MAX)) {
                // It may be gone already.
                let _gone = self.delete(pod, &Value::Null);
            }
        }
        self.hear();
        self.set_status(key, &object);
    }

    /// Counts the pods of a set.
    fn set_status(&mut self, key: &Key, object: &Value) {
        let pods: Vec<_> = self.owned(object, "pods").into_iter().filter(|(_, pod)| is_active(pod)).collect();
        let ready = pods.iter().filter(|(_, pod)| is_ready(pod)).count() as i64;
        let least = number(object, "spec.minReadySeconds");
        let mut available = 0;
        for (_, pod) in pods.iter().filter(|(_, pod)| is_ready(pod)) {
            let since = condition(pod, "Ready").and_then(|one| text(one, "lastTransitionTime").parse().ok());
            let since: Timestamp = since.unwrap_or(self.now);
            let from = since.plus_seconds(u32::try_from(least).unwrap_or_default());
            if least == 0 || from <= self.now {
                available += 1;
            } else {
                self.behaviour.at(Who::ReplicaSet, key.clone(), from);
            }
        }
        let generation = number(object, "metadata.generation");
        self.edit(key, MANAGER, "status", |set_object| {
            set(set_object, "status.replicas", pods.len());
            counts(
                set_object,
                "status",
                &[
                    ("fullyLabeledReplicas", pods.len() as i64),
                    ("readyReplicas", ready),
                    ("availableReplicas", available),
                    ("observedGeneration", generation),
                ],
            );
        });
    }

    /// Makes a pod of a set. Whether it may be.
    fn make_pod(&mut self, set: &Value, namespace: &str, name: &str) -> bool {
        let template = at(set, "spec.template");
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": at(template, "metadata"),
            "spec": at(template, "spec") });
        let metadata = place(&mut pod, "metadata");
        crate::json::set(metadata, "namespace", namespace);
        crate::json::set(metadata, "name", name);
        list(metadata, "ownerReferences").push(owner(set, true));
        let made = self.make(pod, MANAGER);
        if let Err(refusal) = &made {
            self.event(set, "Warning", "FailedCreate", &refusal.message);
        }
        made.is_ok()
    }

    /// One pass over a `StatefulSet`: pods by number, each made when the one before is ready, ended from the last.
    /// Pods of an older template are replaced one at a time from the last.
    pub(super) fn stateful_set(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        let pods = self.owned(&object, "pods");
        let wanted = number(&object, "spec.replicas").clamp(0, PODS_AT_ONCE_MAX as i64);
        let parallel = text(&object, "spec.podManagementPolicy") == "Parallel";
        let number_of = |pod: &Key| pod.name.rsplit('-').next().and_then(|end| end.parse::<i64>().ok());
        if at(&object, "metadata.deletionTimestamp").is_null() {
            for ordinal in 0..wanted {
                let pod = pods.iter().find(|(pod, _)| number_of(pod) == Some(ordinal));
                if pod.is_none() {
                    let _made = self.make_pod(&object, &key.namespace, &format!("{}-{ordinal}", key.name));
                }
                if !parallel && pod.is_none_or(|(_, pod)| !is_ready(pod)) {
                    break;
                }
            }
            let beyond =
                pods.iter().filter(|(pod, _)| number_of(pod).is_none_or(|ordinal| ordinal >= wanted));
            if let Some((pod, _)) = beyond.max_by_key(|(pod, _)| number_of(pod)) {
                // It may be gone already.
                let _gone = self.delete(pod, &Value::Null);
            }
        }
        let images = |pod: &Value, path: &str| {
            items(pod, path).iter().map(|one| text(one, "image").to_owned()).collect::<Vec<_>>()
        };
        let current = images(&object, "spec.template.spec.containers");
        let (old, new): (Vec<_>, Vec<_>) =
            pods.iter().partition(|(_, pod)| images(pod, "spec.containers") != current);
        if pods.iter().all(|(_, pod)| is_ready(pod))
            && let Some((pod, _)) = old.iter().max_by_key(|(pod, _)| number_of(pod))
        {
            // It may be gone already.
            let _gone = self.delete(pod, &Value::Null);
        }
        let ready = pods.iter().filter(|(_, pod)| is_ready(pod)).count() as i64;
        let generation = number(&object, "metadata.generation");
        self.edit(key, MANAGER, "status", |set_object| {
            set(set_object, "status.replicas", pods.len());
            counts(
                set_object,
                "status",
                &[
                    ("readyReplicas", ready),
                    ("availableReplicas", ready),
                    ("observedGeneration", generation),
                    ("updatedReplicas", new.len() as i64),
                    ("currentReplicas", new.len() as i64),
                ],
            );
        });
    }
}

fn is_active(pod: &Value) -> bool {
    at(pod, "metadata.deletionTimestamp").is_null()
        && !matches!(text(pod, "status.phase"), "Succeeded" | "Failed")
}

fn is_of(set: &Set, hash: &str) -> bool {
    text(&set.object, "metadata.labels.pod-template-hash") == hash
}

/// How many pods a rollout may have too many, and how many too few.
fn room(deployment: &Value) -> (i64, i64) {
    let wanted = number(deployment, "spec.replicas");
    if text(deployment, "spec.strategy.type") == "Recreate" {
        return (0, wanted);
    }
    let rolling = at(deployment, "spec.strategy.rollingUpdate");
    let up = share(at(rolling, "maxSurge"), wanted, "25%", true);
    let down = share(at(rolling, "maxUnavailable"), wanted, "25%", false);
    // Neither would mean that nothing ever moves.
    if up == 0 && down == 0 { (0, 1) } else { (up, down.min(wanted)) }
}

/// The sets whose size changes, and their new sizes (source: the rolling update of the Deployment controller: the
/// new set grows within the surge; old sets shrink, first by what is not available, then by what is spare).
fn plan(deployment: &Value, hash: &str, sets: &[Set]) -> Vec<(Key, i64)> {
    let wanted = number(deployment, "spec.replicas");
    let (up, down) = room(deployment);
    let total: i64 = sets.iter().map(|set| set.wanted).sum();
    let (new, mut old): (Vec<_>, Vec<_>) = sets.iter().partition(|set| is_of(set, hash));
    let Some(new) = new.first() else { return Vec::new() };
    old.retain(|set| set.wanted > 0);
    let mut changes = Vec::new();
    if text(deployment, "spec.strategy.type") == "Recreate" {
        let left =
            sets.iter().filter(|set| !is_of(set, hash)).any(|set| number(&set.object, "status.replicas") > 0);
        changes.extend(old.iter().map(|set| (set.key.clone(), 0)));
        if old.is_empty() && !left && new.wanted != wanted {
            changes.push((new.key.clone(), wanted));
        }
        return changes;
    }
    let grown = (new.wanted + (wanted + up - total).max(0)).min(wanted);
    if grown != new.wanted {
        changes.push((new.key.clone(), grown));
    }
    let least = wanted - down;
    let not_there = (new.wanted - new.available).max(0);
    let mut spare = total - least - not_there;
    let available: i64 = sets.iter().map(|set| set.available).sum();
    let mut spare_available = (available - least).max(0);
    old.sort_by_key(|set| text(&set.object, "metadata.creationTimestamp"));
    for set in old {
        let unhealthy = (set.wanted - set.available).clamp(0, spare.max(0));
        let healthy = (set.wanted - unhealthy).min(spare - unhealthy).min(spare_available).max(0);
        spare -= unhealthy + healthy;
        spare_available -= healthy;
        if unhealthy + healthy > 0 {
            changes.push((set.key.clone(), set.wanted - unhealthy - healthy));
        }
    }
    changes
}
