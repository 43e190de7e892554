//! Reading commands from the bus: strict, and exact about what is wrong.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::envelope::{COMMANDS_MAX, Commands, MESSAGE_BYTES_MAX, Refusal, RefusalReason, Refused};
use crate::id::shorten;

/// Deserializes an enum by its `type` field. Where `type` comes first, as every writer of ours puts it, nothing
/// is buffered; elsewhere the object is read whole first.
macro_rules! tagged {
    ($from:expr, $name:ident { $($variant:ident),* $(,)? }) => {{
        struct Tagged;
        impl<'de> serde::de::Visitor<'de> for Tagged {
            type Value = $name;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object with a type")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                use serde::de::{Error, IntoDeserializer};
                const KINDS: &[&str] = &[$(stringify!($variant)),*];
                let Some(first) = map.next_key::<std::borrow::Cow<'de, str>>()? else {
                    return Err(A::Error::missing_field("type"));
                };
                if first == "type" {
                    let kind = map.next_value::<std::borrow::Cow<'de, str>>()?;
                    let rest = serde::de::value::MapAccessDeserializer::new(map);
                    return match &*kind {
                        $(stringify!($variant) => serde::Deserialize::deserialize(rest).map($name::$variant),)*
                        other => Err(A::Error::unknown_variant(other, KINDS)),
                    };
                }
                let mut fields = serde_json::Map::new();
                let mut kind: Option<String> = None;
                let mut key = first.into_owned();
                loop {
                    if key == "type" {
                        if kind.replace(map.next_value()?).is_some() {
                            return Err(A::Error::duplicate_field("type"));
                        }
                    } else if fields.insert(key.clone(), map.next_value()?).is_some() {
                        return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
                    }
                    match map.next_key::<String>()? {
                        Some(next) => key = next,
                        None => break,
                    }
                }
                let kind = kind.ok_or_else(|| A::Error::missing_field("type"))?;
                let rest = serde_json::Value::Object(fields).into_deserializer();
                match kind.as_str() {
                    $(stringify!($variant) => serde::Deserialize::deserialize(rest)
                        .map($name::$variant)
                        .map_err(|error: serde_json::Error| A::Error::custom(error)),)*
                    other => Err(A::Error::unknown_variant(other, KINDS)),
                }
            }
        }
        $from.deserialize_map(Tagged)
    }};
}
pub(crate) use tagged;

/// Reads one message: an envelope of commands, or a single plain command. Each command is read for itself, so
/// that a malformed one does not cost its neighbours their answers.
///
/// # Errors
/// One refusal when the message as a whole is none: too large, not JSON, no envelope.
pub fn commands<C: DeserializeOwned>(payload: &[u8]) -> Result<Vec<Result<C, Refused>>, Box<Refused>> {
    if payload.len() > MESSAGE_BYTES_MAX {
        let problem = format!("a message has at most {MESSAGE_BYTES_MAX} bytes");
        return Err(whole(Refusal::new(RefusalReason::TooLarge, "message", payload.len(), &problem)));
    }
    // What nearly always comes is read in one pass.
    if let Ok(envelope) = serde_json::from_slice::<Commands<C>>(payload)
        && (1..=COMMANDS_MAX).contains(&envelope.commands.len())
    {
        return Ok(envelope.commands.into_iter().map(Ok).collect());
    }
    if let Ok(single) = serde_json::from_slice::<C>(payload) {
        return Ok(vec![Ok(single)]);
    }
    one_by_one(payload)
}

fn whole(refusal: Refusal) -> Box<Refused> {
    Box::new(Refused { id: None, tenant: None, sequence: None, refusal })
}

fn one_by_one<C: DeserializeOwned>(payload: &[u8]) -> Result<Vec<Result<C, Refused>>, Box<Refused>> {
    let malformed = |field: &str, value: &str, problem: &str| {
        whole(Refusal::new(RefusalReason::Malformed, field, value, problem))
    };
    let value: &RawValue = serde_json::from_slice(payload)
        .map_err(|error| malformed("message", &String::from_utf8_lossy(payload), &error.to_string()))?;
    let is_envelope =
        serde_json::from_str::<Value>(value.get()).is_ok_and(|value| value.get("commands").is_some());
    if !is_envelope {
        return Ok(vec![read_one(value)]);
    }
    let envelope: Commands<&RawValue> = serde_json::from_str(value.get())
        .map_err(|error| malformed("message", value.get(), &error.to_string()))?;
    match envelope.commands.len() {
        0 => Err(malformed("commands", "0", "an envelope holds at least one command")),
        1..=COMMANDS_MAX => Ok(envelope.commands.into_iter().map(read_one).collect()),
        many => Err(malformed(
            "commands",
            &many.to_string(),
            &format!("an envelope holds at most {COMMANDS_MAX} commands"),
        )),
    }
}

fn read_one<C: DeserializeOwned>(raw: &RawValue) -> Result<C, Refused> {
    serde_json::from_str::<C>(raw.get()).map_err(|_| explain::<C>(raw))
}

/// Says which field is wrong and what stood there.
fn explain<C: DeserializeOwned>(raw: &RawValue) -> Refused {
    let value: Value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let id = text("id").and_then(|id| id.parse().ok());
    let tenant = text("tenant").and_then(|tenant| tenant.parse().ok());
    let read = serde_path_to_error::deserialize::<_, C>(&mut serde_json::Deserializer::from_str(raw.get()));
    let (path, problem) = match read {
        Ok(_) => ("message".to_owned(), "cannot be read".to_owned()),
        Err(error) => {
            let path = error.path().to_string();
            (if path == "." { "message".to_owned() } else { path }, error.inner().to_string())
        }
    };
    // The parser's place in the text says nothing to a sender of JSON made by a program.
    let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
    let found = at_path(&value, &path).map_or_else(|| raw.get().to_owned(), Value::to_string);
    let refusal = Refusal::new(RefusalReason::Malformed, &shorten(&path), found, &problem);
    Refused { id, tenant, sequence: None, refusal }
}

/// The value at a path as `serde_path_to_error` writes it: `options[0].limit`.
fn at_path<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = value;
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        here = match here {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            other => other.get(part)?,
        };
    }
    (path != "message").then_some(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::MarketCommand;

    const BID: &str = r#"{"type":"PlaceBid","id":"b1","tenant":"t","cluster":"c","pool":"p","quantity":2,"options":[{"market":"dfw/gp.large","limit":"0.030"}]}"#;

    fn read(payload: &str) -> Vec<Result<MarketCommand, Refused>> {
        commands(payload.as_bytes()).unwrap()
    }

    #[test]
    fn a_plain_command_and_an_envelope_of_one_are_the_same() {
        let plain = read(BID);
        assert!(plain[0].is_ok(), "{plain:?}");
        assert_eq!(plain, read(&format!(r#"{{"commands":[{BID}]}}"#)));
    }

    #[test]
    fn the_type_may_stand_anywhere() {
        let moved = BID
            .replace(r#""type":"PlaceBid","#, "")
            .replace(r#""quantity":2"#, r#""quantity":2,"type":"PlaceBid""#);
        assert_eq!(read(&moved), read(BID));
    }

    #[test]
    fn one_malformed_command_does_not_cost_the_others() {
        let bad = BID.replace(r#""0.030""#, "0.03").replace("b1", "b2");
        let read = read(&format!(r#"{{"commands":[{BID},{bad},{BID}]}}"#));
        assert!(read[0].is_ok() && read[2].is_ok());
        let refused = read[1].as_ref().unwrap_err();
        assert_eq!(refused.id.as_ref().unwrap().as_str(), "b2");
        assert_eq!(refused.refusal.field, "options[0].limit");
        assert_eq!(refused.refusal.value, "0.03");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, field, value) in [
            (r#""quantity":2"#, r#""quantity":-1"#, "quantity", "-1"),
            (r#""quantity":2"#, r#""quantity":9223372036854775808"#, "quantity", "9223372036854775808"),
            (r#""quantity":2"#, r#""quantity":2.5"#, "quantity", "2.5"),
            (r#""0.030""#, r#""1e5""#, "options[0].limit", "\"1e5\""),
            (r#""pool":"p""#, r#""pool":"p","colour":"red""#, "colour", "\"red\""),
            (r#""tenant":"t""#, r#""tenant":"a b""#, "tenant", "\"a b\""),
        ] {
            let read = read(&BID.replace(from, to));
            let refused = read[0].as_ref().unwrap_err();
            assert_eq!((&*refused.refusal.field, &*refused.refusal.value), (field, value), "{refused:?}");
        }
    }

    #[test]
    fn a_message_that_is_none_is_refused_whole() {
        for bad in ["", "{", "\u{0}", r#"{"commands":[]}"#, r#"{"commands":[1"#, r#"{"commands":3}"#] {
            assert!(commands::<MarketCommand>(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let large = vec![b' '; MESSAGE_BYTES_MAX + 1];
        let refused = commands::<MarketCommand>(&large).unwrap_err();
        assert_eq!(refused.refusal.reason, RefusalReason::TooLarge);
        let many = format!(r#"{{"commands":[{}]}}"#, vec![BID; COMMANDS_MAX + 1].join(","));
        assert!(commands::<MarketCommand>(many.as_bytes()).is_err());
    }
}
