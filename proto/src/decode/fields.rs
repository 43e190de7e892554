//! An object's fields as they came, for finding out what is wrong with a command.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of one object: in order, duplicates included, values unread.
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The fields of a text that is an object.
    pub(super) fn of(object: &'a RawValue) -> Option<Self> {
        serde_json::from_str(object.get()).ok()
    }

    /// A field's value; the last one's where it stands more than once.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, value)| *value)
    }

    /// A field's value if it is a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// The same object with one field moved to the front.
    pub(super) fn with_first(&self, name: &str) -> String {
        let (first, rest): (Vec<_>, Vec<_>) = self.0.iter().partition(|(field, _)| field == name);
        let write = |(field, value): &&(Cow<'a, str>, &'a RawValue)| {
            // A text always has a JSON form.
            format!("{}:{}", serde_json::to_string(field).unwrap_or_default(), value.get())
        };
        let fields: Vec<String> = first.iter().chain(&rest).map(write).collect();
        format!("{{{}}}", fields.join(","))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FieldsVisitor).map(Self)
    }
}

/// A field's name, borrowed where its text holds no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(fields)
    }
}

/// The value at a path as `serde_path_to_error` writes it: `options[0].limit`.
pub(super) fn at_path<'a>(value: &'a RawValue, path: &str) -> Option<&'a RawValue> {
    // A field may be called anything, dots and brackets included.
    if let Some(field) = Fields::of(value).and_then(|fields| fields.get(path)) {
        return Some(field);
    }
    let mut here = value;
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        here = match serde_json::from_str::<Vec<&RawValue>>(here.get()) {
            Ok(items) => items.get(part.parse::<usize>().ok()?)?,
            Err(_) => Fields::of(here)?.get(part)?,
        };
    }
    Some(here)
}
