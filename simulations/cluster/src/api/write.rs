//! Writing objects: create, update, patch, apply; and the one way by which every change goes into the store.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::apply::{self, Writer};
use crate::json::{at, entry, items, remove, seconds, set, suffix, text, without_nulls};
use crate::kind::{self, Kind, Part};
use crate::request::{Query, Request, Target};
use crate::status::Refusal;
use crate::store::{Key, version_of};
use crate::{Answer, Cluster, admission, defaults, patch};

use super::NAME_BYTES_MAX;

impl Cluster {
    pub(super) fn create(
        &mut self,
        target: &Target,
        query: &Query,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let mut object = request.json()?;
        let prefix = text(&object, "metadata.generateName").to_owned();
        if text(&object, "metadata.name").is_empty() && !prefix.is_empty() {
            let end = suffix(self.draw(), 5);
            set(&mut object, "metadata.name", format!("{prefix}{end}"));
        }
        let key = key_of(target, &object)?;
        if self.store.get(&key).is_some() {
            return Err(Refusal::already_exists(target.kind, &key.name));
        }
        if !text(&object, "metadata.resourceVersion").is_empty() {
            return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let writer = Writer { manager: request.manager(query), apply: false, part: "", now: self.now };
        let made = self.commit(&key, None, object, &writer, dry(query))?;
        Ok(Answer::json(201, (*made).clone()))
    }

    pub(super) fn update(
        &mut self,
        target: &Target,
        query: &Query,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let object = request.json()?;
        let key = key_of(target, &object)?;
        let live = self.store.get(&key).map(Arc::clone);
        let live = live.ok_or_else(|| Refusal::not_found(target.kind, &key.name))?;
        if !target.kind.builtin && version_of(&object) == 0 {
            let why = "Invalid value: 0: must be specified for an update";
            return Err(Refusal::invalid(target.kind, &key.name, "metadata.resourceVersion", why));
        }
        let writer = Writer {
            manager: request.manager(query),
            apply: false,
            part: target.part.map_or("", Part::name),
            now: self.now,
        };
        let done = self.commit(&key, Some(&live), object, &writer, dry(query))?;
        Ok(Answer::json(200, (*done).clone()))
    }

    pub(super) fn patch(
        &mut self,
        target: &Target,
        query: &Query,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let change = request.json()?;
        let key = target.key();
        let live = self.store.get(&key).map(Arc::clone);
        let apply = request.content_type.starts_with("application/apply-patch");
        if live.is_none() && !(apply && target.part.is_none()) {
            return Err(Refusal::not_found(target.kind, &key.name));
        }
        let writer = Writer {
            manager: request.manager(query),
            apply,
            part: target.part.map_or("", Part::name),
            now: self.now,
        };
        if apply {
            return self.apply(target, query, change, live.as_ref(), &writer);
        }
        let mut object = live.as_deref().cloned().unwrap_or_default();
        match request.content_type.split(';').next().unwrap_or_default() {
            "application/merge-patch+json" => patch::merge(&mut object, &change),
            "application/json-patch+json" => patch::json(&mut object, &change)?,
            "application/strategic-merge-patch+json" if target.kind.builtin => {
                patch::strategic(&mut object, &change, target.kind.shape)?;
            }
            other => {
                let why = format!("the body of the request was in an unknown format: {other}");
                return Err(Refusal::new(415, "UnsupportedMediaType", why));
            }
        }
        let done = self.commit(&key, live.as_ref(), object, &writer, dry(query))?;
        Ok(Answer::json(200, (*done).clone()))
    }

    fn apply(
        &mut self,
        target: &Target,
        query: &Query,
        mut config: Value,
        live: Option<&Arc<Value>>,
        writer: &Writer<'_>,
    ) -> Result<Answer, Refusal> {
        if query.text("fieldManager").is_empty() {
            let why = "fieldManager is required for apply patch";
            return Err(Refusal::bad_request(why));
        }
        let key = key_of(target, &config)?;
        if kind::of(&config).is_none_or(|kind| kind.plural != target.kind.plural) {
            let why =
                format!("the configuration must be a {} of {}", target.kind.kind, target.kind.api_version());
            return Err(Refusal::bad_request(why));
        }
        without_nulls(&mut config);
        // Who applies names what is observed only in the status subresource, and nothing else there.
        if target.kind.has_status() && writer.part.is_empty() {
            remove(&mut config, "status");
        }
        let state = live.map_or_else(|| json!({}), |live| (**live).clone());
        let merged = apply::apply(target.kind, &state, &config, query.truth("force"), writer)?;
        let code = if live.is_some() { 200 } else { 201 };
        let done = self.commit(&key, live, merged, writer, dry(query))?;
        Ok(Answer::json(code, (*done).clone()))
    }

    /// Puts a state into the store, after completing and checking it. Nothing changes if it is what stands there.
    /// An object whose deletion waits for finalizers goes with the last of them.
    pub(crate) fn commit(
        &mut self,
        key: &Key,
        live: Option<&Arc<Value>>,
        mut new: Value,
        writer: &Writer<'_>,
        dry: bool,
    ) -> Result<Arc<Value>, Refusal> {
        let kind = kind::known(key.kind);
        let before = live.map_or(Value::Null, |live| (**live).clone());
        if live.is_some() {
            check_preconditions(kind, key, &before, &new)?;
        }
        without_nulls(&mut new);
        only_part(kind, &before, &mut new, writer.part);
        self.stamp(kind, key, &before, &mut new);
        defaults::complete(kind, &mut new);
        self.admit(kind, key, &before, &mut new)?;
        count_generation(kind, &before, &mut new);
        if !writer.apply {
            let known = if live.is_some() { &before } else { &json!({}) };
            apply::record(kind, known, &mut new, writer)?;
        }
        if new == before || dry {
            return Ok(Arc::new(new));
        }
        let ends = !at(&new, "metadata.deletionTimestamp").is_null()
            && items(&new, "metadata.finalizers").is_empty()
            && !matches!(key.kind, "pods" | "namespaces");
        if ends && live.is_some() {
            self.store.put(key.clone(), new);
            return Ok(self.store.take(key).unwrap_or_default());
        }
        Ok(self.store.put(key.clone(), new))
    }

    /// What the server itself says of an object.
    fn stamp(&mut self, kind: &Kind, key: &Key, before: &Value, new: &mut Value) {
        set(new, "apiVersion", kind.api_version());
        set(new, "kind", kind.kind);
        set(new, "metadata.name", key.name.as_str());
        if kind.namespaced {
            set(new, "metadata.namespace", key.namespace.as_str());
        }
        if before.is_null() {
            let (high, low) = (self.draw(), self.draw());
            let uid = format!(
                "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
                high >> 32,
                (high >> 16) & 0xffff,
                high & 0xfff,
                low >> 52,
                low & 0xffff_ffff_ffff
            );
            set(new, "metadata.uid", uid);
            set(new, "metadata.creationTimestamp", seconds(self.now));
            remove(new, "metadata.deletionTimestamp");
            return;
        }
        for name in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "resourceVersion",
            "generation",
        ] {
            match before["metadata"].get(name) {
                Some(value) => new["metadata"][name] = value.clone(),
                None => drop(remove(new, &format!("metadata.{name}"))),
            }
        }
    }

    /// Makes an object in a controller's name.
    pub(crate) fn make(&mut self, object: Value, manager: &str) -> Result<Arc<Value>, Refusal> {
        let kind = kind::of(&object).ok_or_else(|| Refusal::bad_request("no such kind"))?;
        let key = Key::new(kind.plural, text(&object, "metadata.namespace"), text(&object, "metadata.name"));
        if self.store.get(&key).is_some() {
            return Err(Refusal::already_exists(kind, &key.name));
        }
        let writer = Writer { manager, apply: false, part: "", now: self.now };
        self.commit(&key, None, object, &writer, false)
    }

    /// Changes an object, or its status, in a controller's name. None if it is not there or may not be so.
    pub(crate) fn edit(
        &mut self,
        key: &Key,
        manager: &str,
        part: &'static str,
        change: impl FnOnce(&mut Value),
    ) -> Option<Arc<Value>> {
        let live = Arc::clone(self.store.get(key)?);
        let mut new = (*live).clone();
        change(&mut new);
        let writer = Writer { manager, apply: false, part, now: self.now };
        self.commit(key, Some(&live), new, &writer, false).ok()
    }
}

/// Where an object that was sent stands; what it says of itself must agree with the path.
fn key_of(target: &Target, object: &Value) -> Result<Key, Refusal> {
    let (name, namespace) = (text(object, "metadata.name"), text(object, "metadata.namespace"));
    let kind = target.kind;
    if !object.is_object() {
        return Err(Refusal::bad_request("the body must be an object"));
    }
    let said = text(object, "kind");
    if !said.is_empty() && said != kind.kind {
        let why = format!("the kind of the body ({said}) is not that of the path ({})", kind.kind);
        return Err(Refusal::bad_request(why));
    }
    let mut key = target.key();
    if target.name.is_empty() {
        name.clone_into(&mut key.name);
    } else if !name.is_empty() && name != target.name {
        let why =
            format!("the name of the object ({name}) does not match the name on the URL ({})", key.name);
        return Err(Refusal::bad_request(why));
    }
    if kind.namespaced && !namespace.is_empty() && namespace != key.namespace {
        let why = format!(
            "the namespace of the provided object does not match the namespace sent on the request: {namespace}"
        );
        return Err(Refusal::bad_request(why));
    }
    admission::check_name(kind, &key.name, NAME_BYTES_MAX)?;
    Ok(key)
}

pub(super) fn dry(query: &Query) -> bool {
    query.text("dryRun") == "All"
}

fn check_preconditions(kind: &Kind, key: &Key, before: &Value, new: &Value) -> Result<(), Refusal> {
    let changed =
        "the object has been modified; please apply your changes to the latest version and try again";
    let stated = version_of(new);
    if stated != 0 && stated != version_of(before) {
        return Err(Refusal::conflict(kind, &key.name, changed));
    }
    let (uid, is) = (text(new, "metadata.uid"), text(before, "metadata.uid"));
    if !uid.is_empty() && uid != is {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {is}");
        return Err(Refusal::conflict(kind, &key.name, &why));
    }
    Ok(())
}

/// Counts the changes of what is desired, for kinds whose observers say how far they have seen.
fn count_generation(kind: &Kind, before: &Value, new: &mut Value) {
    if !kind.has_status() || matches!(kind.plural, "pods" | "nodes" | "services" | "namespaces") {
        return;
    }
    let desired = |object: &Value| {
        let members = object.as_object().into_iter().flatten();
        let members = members.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status"));
        members.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    if before.is_null() || desired(before) != desired(new) {
        let generation = crate::json::number(before, "metadata.generation") + 1;
        set(new, "metadata.generation", generation);
    }
}

/// Keeps of a new state only what may be written through a subresource, or, for the object itself, what may not.
fn only_part(kind: &Kind, before: &Value, new: &mut Value, part: &str) {
    let made = before.is_null();
    if part.is_empty() {
        // Hosts tell their capacity when they are made.
        if kind.has_status() && !(made && kind.plural == "nodes") {
            match before.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => drop(remove(new, "status")),
            }
        }
        return;
    }
    if matches!(part, "status" | "approval") {
        let written = std::mem::take(entry(new, "status"));
        let records = at(new, "metadata.managedFields").clone();
        *new = before.clone();
        new["status"] = if written.is_null() { json!({}) } else { written };
        if !records.is_null() {
            set(new, "metadata.managedFields", records);
        }
        if part == "approval" {
            // Who approves says only that; the signer's certificate stays.
            let conditions = at(new, "status.conditions").clone();
            new["status"] = at(before, "status").clone();
            set(new, "status.conditions", conditions);
        }
    }
}
