//! Patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902), and strategic merge patch, which merges the lists of
//! kinds whose structure the server knows.

use serde_json::{Map, Value};

use crate::json::text;
use crate::shape::Shape;
use crate::status::Refusal;

/// Most operations of a JSON patch.
const OPERATIONS_MAX: usize = 10_000;

/// A JSON merge patch.
pub fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(members) = value else { unreachable!("made an object above") };
    for (name, change) in patch {
        if change.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// A JSON patch: operations in order, all or none.
///
/// # Errors
/// When an operation cannot be read, names a place that is not there, or tests what is not so.
pub fn json(value: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let operations =
        patch.as_array().ok_or_else(|| Refusal::bad_request("a JSON patch is a list of operations"))?;
    if operations.len() > OPERATIONS_MAX {
        let why =
            format!("a JSON patch has at most {OPERATIONS_MAX} operations, this has {}", operations.len());
        return Err(Refusal::new(413, "RequestEntityTooLarge", why));
    }
    for operation in operations {
        if one(value, operation).is_none() {
            let why = format!("the server rejected our request due to an error in our request: {operation}");
            return Err(Refusal::new(422, "Invalid", why));
        }
    }
    Ok(())
}

fn one(value: &mut Value, operation: &Value) -> Option<()> {
    let path = operation.get("path")?.as_str()?;
    let given = || operation.get("value").cloned();
    match text(operation, "op") {
        "add" => add(value, path, given()?),
        "remove" => take(value, path).map(drop),
        "replace" => {
            *value.pointer_mut(path)? = given()?;
            Some(())
        }
        "move" => {
            let moved = take(value, text(operation, "from"))?;
            add(value, path, moved)
        }
        "copy" => {
            let copied = value.pointer(text(operation, "from"))?.clone();
            add(value, path, copied)
        }
        "test" => (value.pointer(path)? == operation.get("value")?).then_some(()),
        _ => None,
    }
}

fn parent<'a>(value: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, name) = path.rsplit_once('/')?;
    Some((value.pointer_mut(parent)?, name.replace("~1", "/").replace("~0", "~")))
}

fn add(value: &mut Value, path: &str, new: Value) -> Option<()> {
    if path.is_empty() {
        *value = new;
        return Some(());
    }
    match parent(value, path)? {
        (Value::Object(members), name) => {
            members.insert(name, new);
        }
        (Value::Array(items), name) if name == "-" => items.push(new),
        (Value::Array(items), place) => {
            let place = place.parse().ok().filter(|place| *place <= items.len())?;
            items.insert(place, new);
        }
        _ => return None,
    }
    Some(())
}

fn take(value: &mut Value, path: &str) -> Option<Value> {
    match parent(value, path)? {
        (Value::Object(members), name) => members.remove(&name),
        (Value::Array(items), place) => {
            let place = place.parse().ok().filter(|place| *place < items.len())?;
            Some(items.remove(place))
        }
        _ => None,
    }
}

/// A strategic merge patch, with the directives `$patch`, `$retainKeys`, `$setElementOrder/…` and
/// `$deleteFromPrimitiveList/…`. Lists are merged by the first member of their key.
///
/// # Errors
/// When a directive is unknown or an item of a merged list lacks its key.
pub fn strategic(value: &mut Value, patch: &Value, shape: &Shape) -> Result<(), Refusal> {
    match (patch, shape) {
        (Value::Object(patch), Shape::Open(_)) => members(value, patch, shape),
        (Value::Array(patch), Shape::Keyed(keys, inner)) => {
            let key = keys.first().copied().unwrap_or_default();
            keyed(value, patch, key, inner)
        }
        (Value::Array(patch), Shape::Set) => {
            let live = made_list(value);
            for item in patch {
                if !live.contains(item) {
                    live.push(item.clone());
                }
            }
            Ok(())
        }
        _ => {
            *value = without_directives(patch);
            Ok(())
        }
    }
}

fn members(value: &mut Value, patch: &Map<String, Value>, shape: &Shape) -> Result<(), Refusal> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *value = without_directives(&Value::Object(patch.clone()));
            return Ok(());
        }
        Some("delete") => {
            *value = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(Refusal::bad_request(format!("unknown directive $patch: {other:?}"))),
    }
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(live) = value else { unreachable!("made an object above") };
    if let Some(Value::Array(retained)) = patch.get("$retainKeys") {
        live.retain(|name, _| retained.iter().any(|one| one == name.as_str()));
    }
    for (name, change) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        if change.is_null() {
            live.remove(name);
        } else {
            strategic(live.entry(name.clone()).or_insert(Value::Null), change, shape.member(name))?;
        }
    }
    for (directive, given) in patch.iter().filter(|(name, _)| name.starts_with('$')) {
        let Some((directive, name)) = directive.split_once('/') else { continue };
        let (Some(Value::Array(items)), Value::Array(given)) = (live.get_mut(name), given) else { continue };
        match directive {
            "$deleteFromPrimitiveList" => items.retain(|item| !given.contains(item)),
            "$setElementOrder" => order(items, given, shape.member(name)),
            _ => return Err(Refusal::bad_request(format!("unknown directive {directive:?}"))),
        }
    }
    Ok(())
}

fn keyed(value: &mut Value, patch: &[Value], key: &str, inner: &Shape) -> Result<(), Refusal> {
    let live = made_list(value);
    if patch.iter().any(|item| item["$patch"] == "replace") {
        live.clear();
    }
    for item in patch {
        let directive = text(item, "$patch");
        let Some(name) = item.get(key) else {
            if directive == "replace" {
                continue;
            }
            let why = format!("map: {item} does not contain declared merge key: {key}");
            return Err(Refusal::bad_request(why));
        };
        let place = live.iter().position(|one| one.get(key) == Some(name));
        match (directive, place) {
            ("delete", Some(place)) => {
                live.remove(place);
            }
            ("delete", None) => {}
            (_, Some(place)) => {
                if let Some(one) = live.get_mut(place) {
                    strategic(one, item, inner)?;
                }
            }
            (_, None) => live.push(without_directives(item)),
        }
    }
    Ok(())
}

/// Sorts the items that are named into the order given; the others stay behind those they followed.
fn order(items: &mut [Value], given: &[Value], shape: &Shape) {
    let place = |item: &Value| match shape {
        Shape::Keyed([key, ..], _) => given.iter().position(|one| one.get(key) == item.get(key)),
        _ => given.iter().position(|one| one == item),
    };
    let mut last = 0;
    items.sort_by_cached_key(|item| {
        last = place(item).unwrap_or(last);
        last
    });
}

fn made_list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(items) => items,
        _ => unreachable!("made a list above"),
    }
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let plain = members.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            plain.map(|(name, value)| (name.clone(), without_directives(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_directives).collect(),
        plain => plain.clone(),
    }
}
