//! Hosts: their kubelets, which start and end pods, and what happens when a machine stops.

use proto::Timestamp;
use serde_json::{Value, json};

use super::schedule::{tolerated, unreachable_taints};
use super::{Who, condition, has_condition, set_condition};
use crate::Cluster;
use crate::json::{at, digest, items, list, mix, number, place, seconds, set, text};
use crate::kind;
use crate::status::Refusal;
use crate::store::Key;

const MANAGER: &str = "kubelet";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

impl Cluster {
    /// A machine stops.
    pub(crate) fn kill(&mut self, host: &str) -> Result<(), Refusal> {
        let key = self.host_key(host)?;
        let since = *self.behaviour.dead.entry(host.to_owned()).or_insert(self.now);
        self.behaviour.at(Who::Host, key, since.plus_micros(self.settings.host_grace_micros.into()));
        Ok(())
    }

    /// A machine comes back.
    pub(crate) fn revive(&mut self, host: &str) -> Result<(), Refusal> {
        let key = self.host_key(host)?;
        self.behaviour.dead.remove(host);
        self.soon(Who::Host, key);
        for pod in self.pods_on(host) {
            self.soon(Who::Kubelet, pod);
        }
        Ok(())
    }

    fn host_key(&self, host: &str) -> Result<Key, Refusal> {
        let key = Key::new("nodes", "", host);
        match self.store.get(&key) {
            Some(_) => Ok(key),
            None => Err(Refusal::not_found(kind::known("nodes"), host)),
        }
    }

    fn pods_on(&self, host: &str) -> Vec<Key> {
        self.behaviour.by_host.get(host).into_iter().flatten().cloned().collect()
    }

    /// One look at a host: whether its machine answers, and whom its taints drive away.
    pub(super) fn host(&mut self, key: &Key) {
        let now = self.now;
        let dead = self.behaviour.dead.get(&key.name).copied();
        let grace = i64::from(self.settings.host_grace_micros);
        let lost = dead.is_some_and(|since| now >= since.plus_micros(grace));
        if dead.is_some() && !lost {
            return;
        }
        let address =
            format!("10.0.{}.{}", digest([key.name.as_str()]) % 250, digest([&key.name, "b"]) % 250 + 1);
        self.edit(key, MANAGER, "status", |host| {
            let (status, reason) =
                if lost { ("Unknown", "NodeStatusUnknown") } else { ("True", "KubeletReady") };
            set_condition(host, "Ready", status, reason, "", now);
            set(host, "status.nodeInfo.kubeletVersion", "v1.36.2");
            let addresses = list(host, "status.addresses");
            if !addresses.iter().any(|one| text(one, "type") == "InternalIP") {
                addresses.push(json!({ "type": "InternalIP", "address": address }));
            }
        });
        self.edit(key, "kube-controller-manager", "", |host| {
            let marked = items(host, "spec.taints").iter().any(|taint| text(taint, "key") == UNREACHABLE);
            if lost && !marked {
                list(host, "spec.taints").extend(unreachable_taints(&seconds(now)));
            } else if !lost && marked {
                list(host, "spec.taints").retain(|taint| text(taint, "key") != UNREACHABLE);
            }
        });
        for pod in self.pods_on(&key.name) {
            if lost {
                self.edit(&pod, "kube-controller-manager", "status", |pod| {
                    set_condition(pod, "Ready", "False", "NodeNotReady", "", now);
                });
            }
            self.plan_eviction(key, &pod);
        }
    }

    /// Queues a pod's eviction for when it no longer tolerates its host's taints.
    fn plan_eviction(&mut self, host: &Key, pod: &Key) {
        if let Some(at) = self.eviction_at(host, pod) {
            self.behaviour.at(Who::Evict, pod.clone(), at.max(self.now));
        }
    }

    fn eviction_at(&self, host: &Key, pod: &Key) -> Option<Timestamp> {
        let (host, pod) = (self.store.get(host)?, self.store.get(pod)?);
        let driving = items(host, "spec.taints").iter().filter(|taint| text(taint, "effect") == "NoExecute");
        let until = driving.map(|taint| {
            let since = text(taint, "timeAdded").parse().unwrap_or(self.now);
            match tolerated(pod, taint) {
                Some(i64::MAX) => Timestamp::MAX,
                Some(seconds) => since.plus_micros(seconds.saturating_mul(1_000_000)),
                None => since,
            }
        });
        until.min().filter(|until| *until < Timestamp::MAX)
    }

    /// Ends a pod that does not tolerate its host's taints any longer.
    pub(super) fn evict_untolerated(&mut self, key: &Key) {
        let Some(pod) = self.store.get(key) else { return };
        let host = Key::new("nodes", "", text(pod, "spec.nodeName"));
        if self.eviction_at(&host, key).is_some_and(|at| at <= self.now) {
            // It may be gone already.
            let _gone = self.delete(key, &Value::Null);
        }
    }

    /// One look of a kubelet at a pod that is bound to its host: it starts in time, and ends in time.
    pub(super) fn kubelet(&mut self, key: &Key) {
        let Some(pod) = self.store.get(key).cloned() else { return };
        let name = text(&pod, "spec.nodeName").to_owned();
        let host = Key::new("nodes", "", &name);
        if self.behaviour.dead.contains_key(&name) || self.store.get(&host).is_none() {
            return;
        }
        self.plan_eviction(&host, key);
        if let Ok(end) = text(&pod, "metadata.deletionTimestamp").parse::<Timestamp>() {
            self.end_pod(key, &pod, end);
            return;
        }
        if matches!(text(&pod, "status.phase"), "Succeeded" | "Failed") || has_condition(&pod, "Ready") {
            return;
        }
        let now = self.now;
        let most = u64::from(self.settings.pod_start_micros);
        let uid = text(&pod, "metadata.uid");
        let chance = mix(self.settings.seed ^ digest([uid])) % (most / 4 + 1);
        // A pod that ran before its host came back is ready at once.
        let wait = if text(&pod, "status.phase") == "Running" { 0 } else { (most + chance) as i64 };
        let start = *self.behaviour.starts.entry(key.clone()).or_insert(now.plus_micros(wait));
        if now < start {
            self.behaviour.at(Who::Kubelet, key.clone(), start);
            return;
        }
        self.made_up += 1;
        let address = format!("10.244.{}.{}", self.made_up / 250 % 250, self.made_up % 250 + 1);
        let host_ip = self.store.get(&host).map_or(Value::Null, |host| internal_address(host).into());
        self.edit(key, MANAGER, "status", |pod| {
            for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
                set_condition(pod, kind, "True", "", "", now);
            }
            set(pod, "status.phase", "Running");
            if text(pod, "status.podIP").is_empty() {
                set(pod, "status.podIP", address.as_str());
                set(pod, "status.podIPs", json!([{ "ip": address }]));
                set(pod, "status.hostIP", host_ip);
                set(pod, "status.startTime", seconds(now));
            }
            let running = items(pod, "spec.containers").iter().map(|container| {
                json!({ "name": container["name"], "image": container["image"], "imageID": "", "ready": true,
                    "started": true, "restartCount": 0, "state": { "running": { "startedAt": seconds(now) } } })
            });
            let running: Vec<_> = running.collect();
            *place(pod, "status.containerStatuses") = running.into();
        });
    }

    fn end_pod(&mut self, key: &Key, pod: &Value, end: Timestamp) {
        let grace = number(pod, "metadata.deletionGracePeriodSeconds").saturating_mul(1_000_000);
        let begun = end.plus_micros(-grace);
        let over = begun.plus_micros(grace.min(self.settings.pod_stop_micros.into()));
        if self.now < over {
            self.behaviour.at(Who::Kubelet, key.clone(), over);
        } else if items(pod, "metadata.finalizers").is_empty() {
            self.store.take(key);
        } else if condition(pod, "Ready").is_some_and(|one| text(one, "status") == "True") {
            let now = self.now;
            self.edit(key, MANAGER, "status", |pod| {
                set(pod, "status.phase", "Succeeded");
                set_condition(pod, "Ready", "False", "PodCompleted", "", now);
            });
        }
    }
}

fn internal_address(host: &Value) -> String {
    let addresses = at(host, "status.addresses").as_array().into_iter().flatten();
    let internal = addresses.into_iter().find(|one| text(one, "type") == "InternalIP");
    internal.map_or(String::new(), |one| text(one, "address").to_owned())
}
