//! Reading and writing inside JSON values by dotted paths.

use proto::Timestamp;
use serde_json::{Map, Value};

static NULL: Value = Value::Null;
static NOTHING: &[Value] = &[];

/// What stands at a path of field names with dots between; null where nothing does.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').try_fold(value, |value, name| value.get(name)).unwrap_or(&NULL)
}

/// The text at a path, empty where there is none.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The whole number at a path, 0 where there is none.
pub fn number(value: &Value, path: &str) -> i64 {
    at(value, path).as_i64().unwrap_or_default()
}

/// The truth value at a path, false where there is none.
pub fn truth(value: &Value, path: &str) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

/// The items at a path, none where there is no list.
pub fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map_or(NOTHING, Vec::as_slice)
}

/// The members at a path whose values are texts.
pub fn members<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let members = at(value, path).as_object().into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
}

/// The place at a path, made of objects where it is missing. What is no object on the way is replaced by one.
pub fn place<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(value, |value, name| entry(value, name))
}

/// The member of an object, null if new; what is no object becomes one.
pub fn entry<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    &mut value[name]
}

/// Puts a value at a path.
pub fn set(value: &mut Value, path: &str, new: impl Into<Value>) {
    *place(value, path) = new.into();
}

/// Takes away what stands at a path.
pub fn remove(value: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = path.rsplit_once('.').map_or((None, path), |(parent, name)| (Some(parent), name));
    let parent = match parent {
        Some(parent) => parent.split('.').try_fold(value, |value, name| value.get_mut(name))?,
        None => value,
    };
    parent.as_object_mut()?.remove(name)
}

/// The list at a path, made where it is missing.
pub fn list<'a>(value: &'a mut Value, path: &str) -> &'a mut Vec<Value> {
    let place = place(value, path);
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    match place {
        Value::Array(items) => items,
        _ => unreachable!("made a list above"),
    }
}

/// Takes every null away, as a server does that decodes into structures.
pub fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// An instant as Kubernetes writes it: whole seconds.
pub fn seconds(now: Timestamp) -> String {
    Timestamp::from_micros(now.micros().div_euclid(1_000_000) * 1_000_000).to_string()
}

/// The names of an object that owns others, as they refer to it.
pub fn owner(object: &Value, controller: bool) -> Value {
    serde_json::json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "name": text(object, "metadata.name"),
        "uid": text(object, "metadata.uid"), "controller": controller, "blockOwnerDeletion": controller,
    })
}

/// A small number that depends on texts alone (FNV-1a, 64 bits): for names and for chance from a seed.
pub fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A draw from a number, with every bit of it mixed into every bit of the result (the finaliser of `SplitMix64`,
/// Steele, Lea and Flood, 2014).
pub fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Letters and digits that stand for a number, as the ends of generated names do.
pub fn suffix(number: u64, length: u32) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..length)
        .map(|place| {
            let letter = (number / (LETTERS.len() as u64).pow(place)) % LETTERS.len() as u64;
            char::from(LETTERS[letter as usize])
        })
        .collect()
}

/// A resource quantity in thousandths: `"500m"` is 500, `"1Ki"` is 1,024,000. None if it cannot be read.
pub fn quantity_millis(value: &Value) -> Option<i128> {
    let written = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    const SCALES: &[(&str, i128)] = &[
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let (digits, scale_millis) = if let Some(digits) = written.strip_suffix('m') {
        (digits, 1)
    } else {
        let scale = SCALES.iter().find_map(|(end, scale)| Some((written.strip_suffix(end)?, *scale * 1_000)));
        scale.unwrap_or((&written, 1_000))
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = part.get(..part.len().min(9))?;
    let tenth = 10_i128.pow(part.len() as u32);
    let value = whole.parse::<i128>().ok()?.checked_mul(tenth)?;
    let value = if part.is_empty() { value } else { value.checked_add(part.parse::<u32>().ok()?.into())? };
    Some(value.checked_mul(scale_millis)? / tenth)
}

/// A count given as a number or as a part of a whole in percent (`"25%"`), rounded up or down.
pub fn share(value: &Value, whole: i64, default: &str, round_up: bool) -> i64 {
    let percent = |text: &str| {
        let percent = text.strip_suffix('%')?.parse::<i64>().ok()?;
        let hundredths = whole.saturating_mul(percent);
        Some(if round_up { hundredths.saturating_add(99) / 100 } else { hundredths / 100 })
    };
    value.as_i64().or_else(|| percent(value.as_str()?)).or_else(|| percent(default)).unwrap_or_default()
}
