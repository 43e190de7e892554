//! The two bodies that `kubectl drain` sends as protobuf and never as anything else: evictions, and options of
//! deletions. Everything else must be JSON.
//!
//! The envelope is `k8s\0` and a `runtime.Unknown` (1: type with 1: version, 2: kind; 2: the body).

use serde_json::{Map, Value, json};

/// Reads a body, if it is one of the two.
pub(crate) fn read(bytes: &[u8]) -> Option<Value> {
    let envelope = fields(bytes.strip_prefix(b"k8s\0")?)?;
    let (meta, body) = (fields(bytes_of(&envelope, 1)?)?, bytes_of(&envelope, 2).unwrap_or_default());
    let (version, kind) = (text_of(&meta, 1)?, text_of(&meta, 2)?);
    match kind.as_str() {
        "Eviction" => {
            let eviction = fields(body)?;
            let metadata = fields(bytes_of(&eviction, 1).unwrap_or_default())?;
            let options = delete_options(bytes_of(&eviction, 2).unwrap_or_default())?;
            Some(json!({ "apiVersion": version, "kind": kind, "deleteOptions": options,
                "metadata": { "name": text_of(&metadata, 1), "namespace": text_of(&metadata, 3) } }))
        }
        "DeleteOptions" => delete_options(body),
        _ => None,
    }
}

fn delete_options(bytes: &[u8]) -> Option<Value> {
    let read = fields(bytes)?;
    let mut options = Map::new();
    if let Some(Wire::Number(seconds)) = find(&read, 1) {
        options.insert("gracePeriodSeconds".into(), (*seconds as i64).into());
    }
    if let Some(preconditions) = bytes_of(&read, 2) {
        let read = fields(preconditions)?;
        let named = json!({ "uid": text_of(&read, 1), "resourceVersion": text_of(&read, 2) });
        options.insert("preconditions".into(), named);
    }
    if let Some(policy) = text_of(&read, 4) {
        options.insert("propagationPolicy".into(), policy.into());
    }
    Some(Value::Object(options))
}

/// A field's value as it is on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn find<'a, 'b>(fields: &'b [(u64, Wire<'a>)], number: u64) -> Option<&'b Wire<'a>> {
    fields.iter().find(|(named, _)| *named == number).map(|(_, wire)| wire)
}

fn bytes_of<'a>(fields: &[(u64, Wire<'a>)], number: u64) -> Option<&'a [u8]> {
    match find(fields, number)? {
        Wire::Bytes(bytes) => Some(bytes),
        Wire::Number(_) => None,
    }
}

fn text_of(fields: &[(u64, Wire<'_>)], number: u64) -> Option<String> {
    Some(String::from_utf8_lossy(bytes_of(fields, number)?).into_owned()).filter(|text| !text.is_empty())
}

/// The fields of a message; none if it is damaged or has fields of fixed width, which these messages have not.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = number(&mut bytes)?;
        let wire = match tag & 7 {
            0 => Wire::Number(number(&mut bytes)?),
            2 => {
                let length = usize::try_from(number(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Wire::Bytes(value)
            }
            _ => return None,
        };
        found.push((tag >> 3, wire));
    }
    Some(found)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(7 * place)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eviction_is_read_and_what_is_damaged_is_not() {
        let options = [0x08, 30];
        let metadata = [0x0a, 1, b'p', 0x1a, 1, b't'];
        let mut eviction = vec![0x0a, metadata.len() as u8];
        eviction.extend(metadata);
        eviction.extend([0x12, options.len() as u8]);
        eviction.extend(options);
        let kind = [b"\x0a\x09policy/v1\x12\x08Eviction".as_slice()].concat();
        let mut whole = b"k8s\0\x0a".to_vec();
        whole.push(kind.len() as u8);
        whole.extend(kind);
        whole.extend([0x12, eviction.len() as u8]);
        whole.extend(eviction);
        let expected = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": "p", "namespace": "t" }, "deleteOptions": { "gracePeriodSeconds": 30 } });
        assert_eq!(read(&whole), Some(expected));
        for length in 0..whole.len() {
            let cut = read(&whole[..length]);
            assert!(cut.is_none_or(|value| value["kind"] == "Eviction"), "{length}");
        }
    }
}
