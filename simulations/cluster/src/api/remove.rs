//! Deleting: finalizers, grace, owners and what they own.

use std::sync::Arc;

use proto::Timestamp;
use serde_json::{Value, json};

use crate::api::write::dry;
use crate::json::{at, items, list, number, seconds, set, text};
use crate::kind::{self, Kind};
use crate::request::{Query, Request, Target};
use crate::status::Refusal;
use crate::store::Key;
use crate::{Answer, Cluster};

/// How long a pod may take to end when nobody says otherwise, in seconds.
const GRACE_SECONDS: i64 = 30;

impl Cluster {
    pub(super) fn delete_one(
        &mut self,
        target: &Target,
        query: &Query,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let options = options(query, request)?;
        let key = target.key();
        let live = self.store.get(&key).cloned().ok_or_else(|| Refusal::not_found(target.kind, &key.name))?;
        check_options(target.kind, &key, &live, &options)?;
        if dry(query) {
            return Ok(Answer::json(200, (*live).clone()));
        }
        // Still there, until its finalizers or its grace are over.
        if let Some(waiting) = self.delete(&key, &options)? {
            return Ok(Answer::json(200, (*waiting).clone()));
        }
        let details = json!({ "name": key.name, "group": target.kind.group, "kind": target.kind.plural,
            "uid": text(&live, "metadata.uid") });
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": details });
        Ok(Answer::json(200, status))
    }

    pub(super) fn delete_many(
        &mut self,
        target: &Target,
        query: &Query,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let options = options(query, request)?;
        let (labels, fields) = query.selectors()?;
        let all = self.store.list(target.kind.plural, target.namespace.as_deref());
        let chosen = all.filter(|(_, object)| labels.selects(object) && fields.selects_fields(object));
        let chosen: Vec<Key> = chosen.map(|(key, _)| key.clone()).collect();
        for key in chosen.iter().filter(|_| !dry(query)) {
            self.delete(key, &options)?;
        }
        Ok(Answer::json(200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })))
    }

    /// Deletes an object, or begins to. Gives back what is left of it until finalizers and grace are over.
    pub(crate) fn delete(&mut self, key: &Key, options: &Value) -> Result<Option<Arc<Value>>, Refusal> {
        let kind = kind::known(key.kind);
        let live = self.store.get(key).cloned().ok_or_else(|| Refusal::not_found(kind, &key.name))?;
        let mut object = (*live).clone();
        let begun = !at(&live, "metadata.deletionTimestamp").is_null();
        match text(options, "propagationPolicy") {
            "Foreground" if self.owns_any(&live) => wait_for(&mut object, "foregroundDeletion"),
            "Orphan" => wait_for(&mut object, "orphan"),
            _ => {}
        }
        let grace = match key.kind {
            "pods" => grace(&live, options),
            // What lives in it goes first.
            "namespaces" => i64::from(!items(&live, "spec.finalizers").is_empty()),
            _ => 0,
        };
        if grace == 0 && items(&object, "metadata.finalizers").is_empty() {
            self.store.take(key);
            return Ok(None);
        }
        let grace = if key.kind == "pods" { grace } else { 0 };
        if !begun || (key.kind == "pods" && grace < number(&live, "metadata.deletionGracePeriodSeconds")) {
            let end = self.now.plus_micros(grace.saturating_mul(1_000_000));
            set(&mut object, "metadata.deletionTimestamp", seconds(end));
            set(&mut object, "metadata.deletionGracePeriodSeconds", grace);
            if key.kind == "namespaces" {
                set(&mut object, "status.phase", "Terminating");
            } else if object["metadata"].get("generation").is_some() {
                set(&mut object, "metadata.generation", number(&live, "metadata.generation") + 1);
            }
        }
        if object == *live {
            return Ok(Some(live));
        }
        Ok(Some(self.store.put(key.clone(), object)))
    }

    fn owns_any(&self, owner: &Value) -> bool {
        !self.owned_by(text(owner, "metadata.uid")).is_empty()
    }
}

/// Seconds that a pod has for its end; one that runs nowhere needs none.
/// Checks whether what is to go is what the options say.
pub(super) fn check_options(kind: &Kind, key: &Key, live: &Value, options: &Value) -> Result<(), Refusal> {
    for name in ["uid", "resourceVersion"] {
        let asked = text(options, &format!("preconditions.{name}"));
        let is = at(live, "metadata")[name].as_str().unwrap_or_default();
        if !asked.is_empty() && asked != is {
            let why =
                format!("Precondition failed: {name} in precondition: {asked}, {name} in object meta: {is}");
            return Err(Refusal::conflict(kind, &key.name, &why));
        }
    }
    Ok(())
}

fn grace(pod: &Value, options: &Value) -> i64 {
    let host = text(pod, "spec.nodeName");
    if host.is_empty() || matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let given = at(options, "gracePeriodSeconds").as_i64();
    let own = at(pod, "spec.terminationGracePeriodSeconds").as_i64();
    given.or(own).unwrap_or(GRACE_SECONDS).clamp(0, Timestamp::MAX.micros() / 2_000_000)
}

fn wait_for(object: &mut Value, finalizer: &str) {
    let finalizers = list(object, "metadata.finalizers");
    if !finalizers.iter().any(|one| one == finalizer) {
        finalizers.push(finalizer.into());
    }
}

fn options(query: &Query, request: &Request) -> Result<Value, Refusal> {
    let mut options = if request.body.is_empty() { json!({}) } else { request.json()? };
    if !query.text("propagationPolicy").is_empty() {
        set(&mut options, "propagationPolicy", query.text("propagationPolicy"));
    }
    if let Some(seconds) = query.number("gracePeriodSeconds")? {
        set(&mut options, "gracePeriodSeconds", seconds);
    }
    Ok(options)
}
