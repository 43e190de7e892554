//! Who owns which fields, and server-side apply.
//!
//! The rules are those of structured-merge-diff, the library behind the real server: an applier owns what its
//! configuration names; naming another value for somebody else's field is a conflict, unless forced; what it named
//! the last time and does not name now goes, unless somebody else owns it too. Everybody else owns what they change.

use proto::Timestamp;
use serde_json::{Value, json};

use crate::fields::Fields;
use crate::json::{items, remove, seconds, set, text};
use crate::kind::Kind;
use crate::shape::{Shape, item_key};
use crate::status::Refusal;

/// Who writes, and how.
#[derive(Clone, Debug)]
pub(crate) struct Writer<'a> {
    /// Field manager.
    pub manager: &'a str,
    /// Whether by server-side apply.
    pub apply: bool,
    /// The subresource written to, empty for the object itself.
    pub part: &'static str,
    /// When.
    pub now: Timestamp,
}

/// One manager's record.
struct Entry {
    written: Value,
    fields: Fields,
}

/// Most records of managers that do not apply; the oldest goes first, as on the real server.
const UPDATERS_MAX: usize = 10;

/// Most conflicts told at once.
const CONFLICTS_TOLD_MAX: usize = 20;

impl Writer<'_> {
    fn operation(&self) -> &'static str {
        if self.apply { "Apply" } else { "Update" }
    }

    fn is(&self, entry: &Entry) -> bool {
        text(&entry.written, "manager") == self.manager
            && text(&entry.written, "operation") == self.operation()
            && text(&entry.written, "subresource") == self.part
    }

    fn entry(&self, kind: &Kind, fields: Fields) -> Entry {
        let mut written = json!({
            "manager": self.manager, "operation": self.operation(), "apiVersion": kind.api_version(),
            "time": seconds(self.now), "fieldsType": "FieldsV1",
        });
        if !self.part.is_empty() {
            set(&mut written, "subresource", self.part);
        }
        Entry { written, fields }
    }
}

fn read(object: &Value) -> Vec<Entry> {
    let records = items(object, "metadata.managedFields").iter();
    records
        .map(|record| Entry { written: record.clone(), fields: Fields::from_json(&record["fieldsV1"]) })
        .collect()
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    let updaters = entries.iter().filter(|entry| text(&entry.written, "operation") == "Update").count();
    for _ in UPDATERS_MAX..updaters {
        let updates =
            entries.iter().enumerate().filter(|(_, one)| text(&one.written, "operation") == "Update");
        let oldest = updates.min_by(|(_, a), (_, b)| text(&a.written, "time").cmp(text(&b.written, "time")));
        if let Some((oldest, _)) = oldest {
            entries.remove(oldest);
        }
    }
    let records = entries.into_iter().map(|mut entry| {
        entry.written["fieldsV1"] = entry.fields.to_json();
        entry.written
    });
    let records: Vec<_> = records.collect();
    if records.is_empty() {
        remove(object, "metadata.managedFields");
    } else {
        set(object, "metadata.managedFields", records);
    }
}

/// Records who changed what between two states. Records that come with the new state replace those of the old one.
///
/// # Errors
/// When the new state has two items with one key.
pub(crate) fn record(
    kind: &Kind,
    before: &Value,
    after: &mut Value,
    writer: &Writer<'_>,
) -> Result<(), Refusal> {
    let (mut changed, mut gone) = Fields::difference(before, after, kind.shape)?;
    changed.forget_system();
    gone.forget_system();
    let given = !after["metadata"]["managedFields"].is_null();
    let mut entries = read(if given { after } else { before });
    for entry in &mut entries {
        entry.fields = entry.fields.minus(&gone);
        if !writer.is(entry) {
            entry.fields = entry.fields.minus(&changed);
        }
    }
    match entries.iter_mut().find(|entry| writer.is(entry)) {
        Some(own) if !changed.is_empty() => {
            own.fields.add(&changed);
            own.written["time"] = seconds(writer.now).into();
        }
        None if !changed.is_empty() => entries.push(writer.entry(kind, changed)),
        _ => {}
    }
    write(after, entries);
    Ok(())
}

/// The state after applying a configuration to a state (null if there is none), with its owners.
///
/// # Errors
/// A conflict with another owner unless forced; a configuration that cannot be merged.
pub(crate) fn apply(
    kind: &Kind,
    live: &Value,
    config: &Value,
    force: bool,
    writer: &Writer<'_>,
) -> Result<Value, Refusal> {
    if !items(config, "metadata.managedFields").is_empty() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    let mut named = Fields::of_object(config, kind.shape)?;
    if kind.has_status() {
        named.keep_member("status", writer.part == "status");
    }
    let mut merged = live.clone();
    merge(&mut merged, config, kind.shape)?;
    let (changed, _) = Fields::difference(live, &merged, kind.shape)?;
    let contested = changed.both(&named);

    let mut entries = read(live);
    let last = entries.iter().position(|entry| writer.is(entry)).map(|place| entries.remove(place));
    let mut causes = Vec::new();
    let mut kept = named.clone();
    for entry in &mut entries {
        let conflict = entry.fields.both(&contested);
        for path in conflict.paths(CONFLICTS_TOLD_MAX) {
            let message = format!("conflict with {}", who(&entry.written));
            causes.push(json!({ "reason": "FieldManagerConflict", "message": message, "field": path }));
        }
        entry.fields = entry.fields.minus(&conflict);
        kept.add(&entry.fields);
    }
    if !causes.is_empty() && !force {
        return Err(conflict(kind, &causes));
    }
    if let Some(last) = &last {
        last.fields.minus(&named).take_out_of(&mut merged, &kept, kind.shape);
    }
    let mut own = writer.entry(kind, named);
    if let Some(last) = last.filter(|last| last.fields == own.fields && contested.is_empty()) {
        own.written = last.written;
    }
    entries.push(own);
    write(&mut merged, entries);
    Ok(merged)
}

fn who(written: &Value) -> String {
    let with = |name: &str, word: &str| match text(written, name) {
        "" => String::new(),
        value => format!(" {word} {value:?}"),
    };
    let using =
        if text(written, "operation") == "Update" { with("apiVersion", "using") } else { String::new() };
    format!("{:?}{}{using}", text(written, "manager"), with("subresource", "with subresource"))
}

fn conflict(kind: &Kind, causes: &[Value]) -> Refusal {
    let several = if causes.len() == 1 { "conflict" } else { "conflicts" };
    let told: Vec<_> =
        causes.iter().map(|cause| format!("{}: {}", text(cause, "message"), text(cause, "field"))).collect();
    let message = format!("Apply failed with {} {several}: {}", causes.len(), told.join(", "));
    let mut refusal = Refusal::new(409, "Conflict", message);
    refusal.details = json!({ "group": kind.group, "kind": kind.plural, "causes": causes });
    refusal
}

/// Puts a configuration into a value: members one by one, items of keyed lists by key, values of sets if missing,
/// anything else as a whole.
///
/// # Errors
/// When an item of a keyed list lacks its key.
pub(crate) fn merge(live: &mut Value, config: &Value, shape: &Shape) -> Result<(), Refusal> {
    match (&mut *live, config, shape) {
        (Value::Object(live), Value::Object(config), Shape::Open(_)) => {
            for (name, value) in config {
                match live.get_mut(name) {
                    Some(place) => merge(place, value, shape.member(name))?,
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(config), Shape::Keyed(keys, inner)) => {
            for item in config {
                let key = item_key(item, keys)?;
                match live.iter_mut().find(|one| item_key(one, keys).is_ok_and(|other| other == key)) {
                    Some(place) => merge(place, item, inner)?,
                    None => live.push(item.clone()),
                }
            }
        }
        (Value::Array(live), Value::Array(config), Shape::Set) => {
            for item in config {
                if !live.contains(item) {
                    live.push(item.clone());
                }
            }
        }
        _ => *live = config.clone(),
    }
    Ok(())
}
