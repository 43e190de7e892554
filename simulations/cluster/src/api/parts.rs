//! Subresources that are objects of their own: scale, binding, eviction.

use serde_json::{Value, json};

use crate::api::remove::check_options;
use crate::api::write::dry;
use crate::apply::Writer;
use crate::json::{at, items, number, remove, set, text};
use crate::kind::Part;
use crate::request::{Query, Request, Target};
use crate::selector::Selector;
use crate::status::Refusal;
use crate::store::{Key, version_of};
use crate::{Answer, Cluster, patch, table};

/// How long a token may be asked for, in seconds.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 86_400;

impl Cluster {
    /// An object's scale.
    pub(super) fn scale(&self, target: &Target) -> Result<Value, Refusal> {
        let Some(Part::Scale(desired, observed, selector)) = target.part else {
            return Err(super::not_allowed());
        };
        let object = self.store.get(&target.key());
        let object = object.ok_or_else(|| Refusal::not_found(target.kind, &target.name))?;
        let selector = match at(object, selector) {
            Value::String(written) => written.clone(),
            _ => table::pairs(object, &format!("{selector}.matchLabels")),
        };
        let metadata = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
        let metadata: Value =
            metadata.iter().map(|name| ((*name).to_owned(), object["metadata"][*name].clone())).collect();
        Ok(json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
            "spec": { "replicas": number(object, desired) },
            "status": { "replicas": number(object, observed), "selector": selector },
        }))
    }

    pub(super) fn write_scale(
        &mut self,
        verb: &str,
        target: &Target,
        query: &Query,
        request: &Request,
        desired: &'static str,
    ) -> Result<Answer, Refusal> {
        let mut scale = self.scale(target)?;
        let change = request.json()?;
        match request.content_type.split(';').next().unwrap_or_default() {
            _ if verb == "update" => scale = change,
            "application/json-patch+json" => patch::json(&mut scale, &change)?,
            _ => patch::merge(&mut scale, &change),
        }
        let replicas = at(&scale, "spec.replicas").as_i64().filter(|replicas| *replicas >= 0);
        let replicas = replicas.ok_or_else(|| {
            Refusal::invalid(target.kind, &target.name, "spec.replicas", "must be greater than or equal to 0")
        })?;
        let key = target.key();
        let live = self.store.get(&key).cloned().ok_or_else(|| Refusal::not_found(target.kind, &key.name))?;
        let mut object = (*live).clone();
        set(&mut object, desired, replicas);
        if version_of(&scale) != 0 {
            set(&mut object, "metadata.resourceVersion", at(&scale, "metadata.resourceVersion").clone());
        }
        let writer = Writer { manager: request.manager(query), apply: false, part: "scale", now: self.now };
        self.commit(&key, Some(&live), object, &writer, dry(query))?;
        Ok(Answer::json(200, self.scale(target)?))
    }

    /// Binds a pod to a host, as schedulers do.
    pub(super) fn bind(&mut self, target: &Target, binding: &Value) -> Result<Answer, Refusal> {
        let (key, host) = (target.key(), text(binding, "target.name").to_owned());
        let pod = self.store.get(&key).ok_or_else(|| Refusal::not_found(target.kind, &target.name))?;
        if !text(pod, "spec.nodeName").is_empty() {
            let why =
                format!("pod {} is already assigned to node {:?}", key.name, text(pod, "spec.nodeName"));
            return Err(Refusal::conflict(target.kind, &key.name, &why));
        }
        if !items(pod, "spec.schedulingGates").is_empty() {
            let why = "pod has non-empty .spec.schedulingGates";
            return Err(Refusal::conflict(target.kind, &key.name, why));
        }
        self.bind_to(&key, &host);
        Ok(Answer::json(
            201,
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201 }),
        ))
    }

    /// A token for an account: a text that says whose it is, and until when.
    pub(super) fn token(&mut self, target: &Target, request: &Value) -> Result<Answer, Refusal> {
        let key = target.key();
        if self.store.get(&key).is_none() {
            return Err(Refusal::not_found(target.kind, &target.name));
        }
        let seconds = number(request, "spec.expirationSeconds").clamp(TOKEN_SECONDS_MIN, TOKEN_SECONDS_MAX);
        let expires = crate::json::seconds(self.now.plus_micros(seconds * 1_000_000));
        let mut answer = request.clone();
        let token = format!("token-of-{}-{}-until-{expires}", key.namespace, key.name);
        set(&mut answer, "status", json!({ "token": token, "expirationTimestamp": expires }));
        Ok(Answer::json(201, answer))
    }

    /// Evicts a pod if the budgets that select it allow that.
    pub(super) fn evict(
        &mut self,
        target: &Target,
        query: &Query,
        eviction: &Value,
    ) -> Result<Answer, Refusal> {
        let key = target.key();
        let pod =
            self.store.get(&key).cloned().ok_or_else(|| Refusal::not_found(target.kind, &target.name))?;
        check_options(target.kind, &key, &pod, at(eviction, "deleteOptions"))?;
        let budgets = self.store.list("poddisruptionbudgets", Some(&key.namespace));
        let selecting: Vec<Key> = budgets
            .filter(|(_, budget)| Selector::of_object(at(budget, "spec.selector")).selects(&pod))
            .map(|(key, _)| key.clone())
            .collect();
        let done = matches!(text(&pod, "status.phase"), "Succeeded" | "Failed" | "Pending")
            || !at(&pod, "metadata.deletionTimestamp").is_null();
        match &selecting[..] {
            _ if done => {}
            [] => {}
            [one] => self.spend(one, &pod, dry(query))?,
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Refusal::new(500, "InternalError", why));
            }
        }
        let mut options = at(eviction, "deleteOptions").clone();
        if dry(query) {
            return Ok(Answer::json(201, success()));
        }
        remove(&mut options, "dryRun");
        self.delete(&key, &options)?;
        Ok(Answer::json(201, success()))
    }

    /// Takes one disruption from a budget for a pod.
    fn spend(&mut self, budget: &Key, pod: &Value, dry: bool) -> Result<(), Refusal> {
        let (healthy, desired, allowed) = self.budget(budget);
        let Some(object) = self.store.get(budget) else { return Ok(()) };
        let ready = crate::behaviour::is_ready(pod);
        let policy = text(object, "spec.unhealthyPodEvictionPolicy");
        if !ready && (policy == "AlwaysAllow" || healthy >= desired) {
            return Ok(());
        }
        let name = text(pod, "metadata.name").to_owned();
        if allowed <= 0 {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            let mut refusal = Refusal::new(429, "TooManyRequests", message);
            let why = format!(
                "The disruption budget {} needs {desired} healthy pods and has {healthy} currently",
                budget.name
            );
            refusal.details =
                json!({ "name": name, "causes": [{ "reason": "DisruptionBudget", "message": why }] });
            return Err(refusal);
        }
        if !dry {
            let now = crate::json::seconds(self.now);
            self.edit(budget, "kube-apiserver", "status", |object| {
                set(object, "status.disruptionsAllowed", allowed - 1);
                crate::json::entry(crate::json::place(object, "status.disruptedPods"), &name);
                object["status"]["disruptedPods"][&name] = now.into();
            });
        }
        Ok(())
    }
}

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}
