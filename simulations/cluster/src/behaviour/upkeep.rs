//! What keeps the cluster tidy: owners and what they own, namespaces that end, budgets, endpoints, signatures.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Who, condition, counts, is_ready};
use crate::Cluster;
use crate::defaults::base64;
use crate::json::{at, items, list, number, owner, place, set, share, text};
use crate::kind;
use crate::selector::Selector;
use crate::store::Key;

const MANAGER: &str = "kube-controller-manager";

impl Cluster {
    /// Ends an object whose owners are all gone, or lets one go that waited for what it owns.
    pub(super) fn garbage(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).cloned() else { return };
        if key.kind == "pods" {
            let host = text(&object, "spec.nodeName");
            if !host.is_empty() && self.get("nodes", "", host).is_none() {
                self.store.take(key);
                return;
            }
        }
        if !at(&object, "metadata.deletionTimestamp").is_null() {
            self.release(key, &object);
            return;
        }
        let owners = items(&object, "metadata.ownerReferences");
        let alive = |reference: &Value| {
            kind::of(reference).is_none_or(|kind| {
                let namespace = if kind.namespaced { key.namespace.as_str() } else { "" };
                let owner = self.get(kind.plural, namespace, text(reference, "name"));
                owner.is_some_and(|owner| text(owner, "metadata.uid") == text(reference, "uid"))
            })
        };
        let ending_in_foreground = owners.iter().filter_map(kind::of).zip(owners).any(|(kind, reference)| {
            let owner = self.get(kind.plural, &key.namespace, text(reference, "name"));
            owner.is_some_and(|owner| waits_for(owner, "foregroundDeletion"))
        });
        if owners.is_empty() || (owners.iter().any(alive) && !ending_in_foreground) {
            return;
        }
        let policy =
            if ending_in_foreground { json!({ "propagationPolicy": "Foreground" }) } else { Value::Null };
        // It may be gone already.
        let _gone = self.delete(key, &policy);
    }

    fn release(&mut self, key: &Key, object: &Value) {
        let owned = self.owned_by(text(object, "metadata.uid"));
        let uid = text(object, "metadata.uid").to_owned();
        let mut done = Vec::new();
        if waits_for(object, "orphan") {
            for dependent in &owned {
                self.edit(dependent, MANAGER, "", |dependent| {
                    list(dependent, "metadata.ownerReferences").retain(|owner| text(owner, "uid") != uid);
                });
            }
            done.push("orphan");
        }
        if waits_for(object, "foregroundDeletion") {
            if owned.is_empty() {
                done.push("foregroundDeletion");
            }
            let waiting = owned.into_iter().filter(|one| {
                self.store.get(one).is_some_and(|one| at(one, "metadata.deletionTimestamp").is_null())
            });
            for dependent in waiting.collect::<Vec<_>>() {
                self.soon(Who::Garbage, dependent);
            }
        }
        if !done.is_empty() {
            self.edit(key, MANAGER, "", |object| {
                list(object, "metadata.finalizers").retain(|one| !done.iter().any(|done| one == done));
            });
        }
    }

    /// Empties a namespace that ends, and ends it when it is empty.
    pub(super) fn namespace(&mut self, key: &Key) {
        let Some(object) = self.store.get(key) else { return };
        if at(object, "metadata.deletionTimestamp").is_null() {
            return;
        }
        let kinds = kind::KINDS.iter().filter(|kind| kind.namespaced);
        let inside = kinds.flat_map(|kind| self.store.list(kind.plural, Some(&key.name)));
        let inside: Vec<Key> = inside.map(|(key, _)| key.clone()).collect();
        if inside.is_empty() && items(object, "metadata.finalizers").is_empty() {
            self.store.take(key);
            return;
        }
        for inner in inside {
            let begun =
                self.store.get(&inner).is_some_and(|one| !at(one, "metadata.deletionTimestamp").is_null());
            if !begun {
                // It may be gone already.
                let _gone = self.delete(&inner, &Value::Null);
            }
        }
    }

    /// Healthy pods, healthy pods wanted, and disruptions that a budget allows now.
    pub(crate) fn budget(&self, key: &Key) -> (i64, i64, i64) {
        let Some(budget) = self.store.get(key) else { return (0, 0, 0) };
        let selector = Selector::of_object(at(budget, "spec.selector"));
        let pods = self.store.list("pods", Some(&key.namespace)).filter(|(_, pod)| selector.selects(pod));
        let pods: Vec<_> = pods.collect();
        let disrupted = at(budget, "status.disruptedPods");
        let healthy =
            pods.iter().filter(|(pod, object)| is_ready(object) && disrupted.get(&pod.name).is_none());
        let healthy = healthy.count() as i64;
        let (least, most) = (at(budget, "spec.minAvailable"), at(budget, "spec.maxUnavailable"));
        let expected = if most.is_null() && least.is_i64() {
            pods.len() as i64
        } else {
            self.scale_behind(&pods.iter().map(|(_, pod)| &***pod).collect::<Vec<_>>())
        };
        let desired = if most.is_null() {
            share(least, expected, "0%", true)
        } else {
            (expected - share(most, expected, "0%", true)).max(0)
        };
        let allowed = if expected == 0 { 0 } else { (healthy - desired).max(0) };
        (healthy, desired, allowed)
    }

    /// How many pods the owners of some pods want together; a pod without owner counts for itself.
    fn scale_behind(&self, pods: &[&Value]) -> i64 {
        let mut owners = BTreeSet::new();
        let mut sum = 0;
        for pod in pods {
            let namespace = text(pod, "metadata.namespace");
            let top = |object: &Value| {
                let reference =
                    items(object, "metadata.ownerReferences").iter().find(|one| one["controller"] == true)?;
                let owner = kind::of(reference)
                    .filter(|kind| matches!(kind.plural, "replicasets" | "deployments" | "statefulsets"))?;
                self.get(owner.plural, namespace, text(reference, "name")).cloned()
            };
            let Some(set) = top(pod) else {
                sum += 1;
                continue;
            };
            let owner = top(&set).unwrap_or(set);
            if owners.insert(text(&owner, "metadata.uid").to_owned()) {
                sum += number(&owner, "spec.replicas");
            }
        }
        sum
    }

    /// Writes what a budget allows.
    pub(super) fn budget_status(&mut self, key: &Key) {
        let Some(budget) = self.store.get(key).cloned() else { return };
        // Who is being evicted is on the list until the deletion is seen.
        let over = |name: &String| {
            let pod = self.get("pods", &key.namespace, name);
            pod.is_none_or(|pod| !at(pod, "metadata.deletionTimestamp").is_null())
        };
        let disrupted = at(&budget, "status.disruptedPods").as_object().into_iter().flatten();
        let over: Vec<String> = disrupted.map(|(name, _)| name).filter(|name| over(name)).cloned().collect();
        let (healthy, desired, allowed) = self.budget(key);
        let selector = Selector::of_object(at(&budget, "spec.selector"));
        let pods = self.store.list("pods", Some(&key.namespace)).filter(|(_, pod)| selector.selects(pod));
        let expected = pods.count() as i64;
        let generation = number(&budget, "metadata.generation");
        self.edit(key, MANAGER, "status", |budget| {
            if let Some(members) = place(budget, "status.disruptedPods").as_object_mut() {
                members.retain(|name, _| !over.contains(name));
            }
            for (name, count) in [
                ("currentHealthy", healthy),
                ("desiredHealthy", desired),
                ("disruptionsAllowed", allowed),
                ("expectedPods", expected),
            ] {
                set(place(budget, "status"), name, count);
            }
            counts(budget, "status", &[("observedGeneration", generation)]);
        });
    }

    /// Writes which pods serve a service.
    pub(super) fn slice(&mut self, key: &Key) {
        let Some(service) = self.store.get(key).cloned() else { return };
        let labels = at(&service, "spec.selector");
        if labels.is_null() {
            return;
        }
        let selector = Selector::of_object(&json!({ "matchLabels": labels }));
        let pods = self.store.list("pods", Some(&key.namespace)).filter(|(_, pod)| selector.selects(pod));
        let endpoints = pods.filter(|(_, pod)| !text(pod, "status.podIP").is_empty()).map(|(pod, object)| {
            let ending = !at(object, "metadata.deletionTimestamp").is_null();
            json!({
                "addresses": [text(object, "status.podIP")], "nodeName": text(object, "spec.nodeName"),
                "conditions": { "ready": is_ready(object), "serving": super::has_condition(object, "Ready"),
                    "terminating": ending },
                "targetRef": { "kind": "Pod", "namespace": pod.namespace, "name": pod.name,
                    "uid": text(object, "metadata.uid") },
            })
        });
        let endpoints: Vec<_> = endpoints.collect();
        let ports = items(&service, "spec.ports").iter().map(|port| {
            json!({ "name": text(port, "name"), "port": at(port, "targetPort"), "protocol": text(port, "protocol") })
        });
        let ports: Vec<_> = ports.collect();
        let slice = Key::new("endpointslices", &key.namespace, &format!("{}-1", key.name));
        if self.store.get(&slice).is_some() {
            self.edit(&slice, MANAGER, "", |slice| {
                set(slice, "endpoints", endpoints);
                set(slice, "ports", ports);
            });
            return;
        }
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "namespace": key.namespace, "name": slice.name, "ownerReferences": [owner(&service, true)],
                "labels": { "kubernetes.io/service-name": key.name } },
            "endpoints": endpoints, "ports": ports,
        });
        // A namespace that ends takes none any more.
        let _made = self.make(object, MANAGER);
    }

    /// Issues the certificate of a request that was approved. It is a text that names the request, no certificate.
    pub(super) fn sign(&mut self, key: &Key) {
        let Some(request) = self.store.get(key).cloned() else { return };
        let said = |kind: &str| condition(&request, kind).is_some();
        if !self.settings.signs_certificates
            || !said("Approved")
            || said("Denied")
            || !text(&request, "status.certificate").is_empty()
        {
            return;
        }
        let signed = format!("certificate of {} {}", key.name, text(&request, "spec.signerName"));
        let body = base64(signed.as_bytes());
        let certificate = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        self.edit(key, MANAGER, "status", |request| {
            set(request, "status.certificate", base64(certificate.as_bytes()));
        });
    }
}

fn waits_for(object: &Value, finalizer: &str) -> bool {
    items(object, "metadata.finalizers").iter().any(|one| one == finalizer)
}
