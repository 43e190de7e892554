//! Sets of fields, for who owns what. They are written as `managedFields` writes them (`FieldsV1`): `f:name` for a
//! member, `k:{…}` for an item of a keyed list, `v:…` for a value of a set, `.` where the thing itself is owned.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::shape::{ANY, Shape, item_key};
use crate::status::Refusal;

/// A set of fields of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Whether the thing itself is in the set.
    own: bool,
    inner: BTreeMap<String, Fields>,
}

/// What an object holds besides what somebody set: never owned.
const SYSTEM: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
];

impl Fields {
    /// A set of the thing itself.
    fn leaf() -> Self {
        Self { own: true, inner: BTreeMap::new() }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        !self.own && self.inner.values().all(Self::is_empty)
    }

    /// All fields that a value sets.
    ///
    /// # Errors
    /// When an item of a keyed list lacks its key, or two have the same.
    pub fn of(value: &Value, shape: &Shape) -> Result<Self, Refusal> {
        let mut set = Self::default();
        for (step, item, shape) in parts(value, shape)? {
            let mut inner = Self::of(item, shape)?;
            // Items of lists are owned themselves; members are owned by what they hold.
            inner.own |= !step.starts_with("f:");
            set.inner.insert(step, inner);
        }
        set.own = set.inner.is_empty();
        Ok(set)
    }

    /// All fields of an object that somebody can own.
    ///
    /// # Errors
    /// As [`Fields::of`].
    pub fn of_object(object: &Value, shape: &Shape) -> Result<Self, Refusal> {
        let mut set = Self::of(object, shape)?;
        set.forget_system();
        Ok(set)
    }

    /// Takes away what the server sets itself.
    pub fn forget_system(&mut self) {
        self.own = false;
        for name in ["f:apiVersion", "f:kind"] {
            self.inner.remove(name);
        }
        if let Some(metadata) = self.inner.get_mut("f:metadata") {
            metadata.own = false;
            metadata.inner.retain(|name, _| !SYSTEM.contains(&name.trim_start_matches("f:")));
        }
        self.tidy();
    }

    /// Keeps only what stands in one member, or takes it away.
    pub fn keep_member(&mut self, name: &str, keep: bool) {
        self.inner.retain(|step, _| (step.strip_prefix("f:") == Some(name)) == keep);
    }

    fn tidy(&mut self) {
        self.inner.values_mut().for_each(Self::tidy);
        self.inner.retain(|_, fields| !fields.is_empty());
    }

    /// Adds another set's fields.
    pub fn add(&mut self, other: &Self) {
        self.own |= other.own;
        for (step, fields) in &other.inner {
            self.inner.entry(step.clone()).or_default().add(fields);
        }
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let none = Self::default();
        let inner = self
            .inner
            .iter()
            .map(|(step, fields)| (step.clone(), fields.minus(other.inner.get(step).unwrap_or(&none))));
        let mut left = Self { own: self.own && !other.own, inner: inner.collect() };
        left.inner.retain(|_, fields| !fields.is_empty());
        left
    }

    /// What is in both sets.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let inner = self
            .inner
            .iter()
            .filter_map(|(step, fields)| Some((step.clone(), fields.both(other.inner.get(step)?))));
        let mut both = Self { own: self.own && other.own, inner: inner.collect() };
        both.inner.retain(|_, fields| !fields.is_empty());
        both
    }

    /// What two states differ in: set or changed by the second, and gone with it.
    ///
    /// # Errors
    /// As [`Fields::of`].
    pub fn difference(before: &Value, after: &Value, shape: &Shape) -> Result<(Self, Self), Refusal> {
        let (mut changed, mut gone) = (Self::default(), Self::default());
        if before == after {
            return Ok((changed, gone));
        }
        let (old, new) = (parts(before, shape)?, parts(after, shape)?);
        if old.is_empty() || new.is_empty() {
            gone = if before.is_null() { Self::default() } else { Self::of(before, shape)? };
            changed = if after.is_null() { Self::default() } else { Self::of(after, shape)? };
            gone = gone.minus(&changed);
            return Ok((changed, gone));
        }
        let mut old: BTreeMap<_, _> = old.into_iter().map(|(step, value, _)| (step, value)).collect();
        for (step, value, shape) in new {
            let (inner, lost) = if let Some(before) = old.remove(&step) {
                Self::difference(before, value, shape)?
            } else {
                let mut all = Self::of(value, shape)?;
                all.own |= !step.starts_with("f:");
                (all, Self::default())
            };
            changed.inner.insert(step.clone(), inner);
            gone.inner.insert(step, lost);
        }
        for (step, value) in old {
            let inner_shape = inner_shape(shape, &step);
            let mut all = Self::of(value, inner_shape)?;
            all.own = true;
            gone.inner.insert(step, all);
        }
        changed.tidy();
        gone.tidy();
        Ok((changed, gone))
    }

    /// Takes the fields of this set out of a value, except what stands in `kept`. An item or member goes as a
    /// whole if it is in the set itself and nothing of it is kept; what is emptied by this goes too.
    pub fn take_out_of(&self, value: &mut Value, kept: &Self, shape: &Shape) {
        let none = Self::default();
        for (step, fields) in &self.inner {
            let kept = kept.inner.get(step).unwrap_or(&none);
            let inner_shape = inner_shape(shape, step);
            let whole = fields.own && kept.is_empty();
            let Some(item) = find(value, step, shape) else { continue };
            if !whole {
                let mut kept = kept.clone();
                if let Shape::Keyed(keys, _) = shape {
                    // An item that stays keeps what tells it apart.
                    kept.inner.extend(keys.iter().map(|key| (format!("f:{key}"), Self::leaf())));
                }
                fields.take_out_of(item, &kept, inner_shape);
                let emptied = match item {
                    Value::Object(members) => members.is_empty(),
                    Value::Array(items) => items.is_empty(),
                    _ => false,
                };
                if !(emptied && kept.is_empty()) {
                    continue;
                }
            }
            drop_step(value, step, shape);
        }
    }

    /// The paths of what is in the set, as messages write them; at most so many.
    pub fn paths(&self, most: usize) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(&mut String::new(), &mut found, most);
        found
    }

    fn collect(&self, path: &mut String, found: &mut Vec<String>, most: usize) {
        if self.own && found.len() < most {
            found.push(path.clone());
        }
        for (step, fields) in &self.inner {
            let length = path.len();
            match step.split_at(2.min(step.len())) {
                ("f:", name) => {
                    path.push('.');
                    path.push_str(name);
                }
                (_, key) => {
                    path.push('[');
                    path.push_str(key);
                    path.push(']');
                }
            }
            fields.collect(path, found, most);
            path.truncate(length);
        }
    }

    /// As `managedFields` writes it.
    pub fn to_json(&self) -> Value {
        let mut members: Map<_, _> =
            self.inner.iter().map(|(step, fields)| (step.clone(), fields.to_json())).collect();
        if self.own && !members.is_empty() {
            members.insert(".".to_owned(), Value::Object(Map::new()));
        }
        Value::Object(members)
    }

    /// Reads what [`Fields::to_json`] writes.
    pub fn from_json(written: &Value) -> Self {
        Self { own: false, ..Self::read(written) }
    }

    fn read(written: &Value) -> Self {
        let members = written.as_object().into_iter().flatten().filter(|(step, _)| *step != ".");
        let inner: BTreeMap<_, _> = members.map(|(step, value)| (step.clone(), Self::read(value))).collect();
        let own = inner.is_empty() || written.get(".").is_some();
        Self { own, inner }
    }
}

/// The parts of a value that are merged one by one, with the steps to them; none for what is replaced as a whole.
fn parts<'a>(value: &'a Value, shape: &Shape) -> Result<Vec<(String, &'a Value, &'static Shape)>, Refusal> {
    match (value, shape) {
        (Value::Object(members), Shape::Open(_)) => {
            let part = |(name, value): (&String, &'a Value)| (format!("f:{name}"), value, shape.member(name));
            Ok(members.iter().map(part).collect())
        }
        (Value::Array(items), Shape::Keyed(keys, inner)) => {
            let mut found: Vec<(String, &Value, &'static Shape)> = Vec::with_capacity(items.len());
            for item in items {
                let step = format!("k:{}", item_key(item, keys)?);
                if found.iter().any(|(other, ..)| *other == step) {
                    let why = format!("duplicate entries for key {} in a list", &step[2..]);
                    return Err(Refusal::new(422, "Invalid", why));
                }
                found.push((step, item, inner));
            }
            Ok(found)
        }
        (Value::Array(items), Shape::Set) => {
            Ok(items.iter().map(|item| (format!("v:{item}"), item, &ANY)).collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn inner_shape(shape: &Shape, step: &str) -> &'static Shape {
    match shape {
        Shape::Keyed(_, inner) => inner,
        _ => shape.member(step.strip_prefix("f:").unwrap_or_default()),
    }
}

fn is_at(item: &Value, step: &str, shape: &Shape) -> bool {
    match (shape, step.split_at(2.min(step.len()))) {
        (Shape::Keyed(keys, _), ("k:", key)) => item_key(item, keys).is_ok_and(|found| found == key),
        (_, ("v:", value)) => serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item),
        _ => false,
    }
}

fn find<'a>(value: &'a mut Value, step: &str, shape: &Shape) -> Option<&'a mut Value> {
    match step.strip_prefix("f:") {
        Some(name) => value.get_mut(name),
        None => value.as_array_mut()?.iter_mut().find(|item| is_at(item, step, shape)),
    }
}

fn drop_step(value: &mut Value, step: &str, shape: &Shape) {
    match (value, step.strip_prefix("f:")) {
        (Value::Object(members), Some(name)) => {
            members.remove(name);
        }
        (Value::Array(items), None) => items.retain(|item| !is_at(item, step, shape)),
        _ => {}
    }
}
