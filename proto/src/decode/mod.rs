//! Reading commands from the bus: strict, and exact about what is wrong.

mod envelope;
mod fields;
mod refuse;
mod tagged;
mod wording;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use self::fields::Fields;
use self::refuse::explain;
pub(crate) use self::tagged::{ByType, Strict, tagged};
use crate::envelope::{COMMANDS_MAX, Commands, MESSAGE_BYTES_MAX, Refusal, RefusalReason, Refused};

/// Few commands are shorter than this: so many find room in the first list made for a message.
const COMMAND_BYTES_LEAST: usize = 96;

/// Reads one message: an envelope of commands, or a single plain command. Each command is read for itself, so
/// that a malformed one does not cost its neighbours their answers.
///
/// # Errors
/// One refusal when the message as a whole is none: too large, not JSON, no envelope.
#[allow(clippy::result_large_err)] // kept beside commands of the same size
pub fn commands<C: DeserializeOwned>(payload: &[u8]) -> Result<Vec<Result<C, Refused>>, Box<Refused>> {
    let read = commands_as(payload, |command: C| command)?;
    Ok(read.into_iter().map(|it| it.map_err(|refused| *refused)).collect())
}

/// As [`commands`], where each command is at once made into what is needed of it: a thousand of them are not moved from
/// list to list.
///
/// # Errors
/// As [`commands`].
pub fn commands_as<C: DeserializeOwned, T>(
    payload: &[u8],
    mut make: impl FnMut(C) -> T,
) -> Result<Vec<Result<T, Box<Refused>>>, Box<Refused>> {
    if payload.len() > MESSAGE_BYTES_MAX {
        let problem = format!("a message has at most {MESSAGE_BYTES_MAX} bytes");
        return Err(whole(Refusal::new(RefusalReason::TooLarge, "message", payload.len(), &problem)));
    }
    // What nearly always comes is read in one pass.
    let room = (payload.len() / COMMAND_BYTES_LEAST).clamp(1, COMMANDS_MAX);
    if let Some(read) = envelope::read(payload, room, |command| Ok(make(command))) {
        return Ok(read);
    }
    if let Ok(single) = serde_json::from_slice::<C>(payload) {
        return Ok(vec![Ok(make(single))]);
    }
    let read = one_by_one(payload)?;
    Ok(read.into_iter().map(|it| it.map(&mut make).map_err(Box::new)).collect())
}

/// What is wrong with a JSON text that was not read as a `C`: the field, its value, and why. A fault that is no
/// field's is called `whole`'s.
pub fn fault<C: DeserializeOwned>(raw: &RawValue, whole: &str) -> Refusal {
    explain::<C>(raw, whole).refusal
}

/// Reads a document somebody wrote as a file: all of the text, or what is wrong with the first field that is. A
/// fault that is no field's is called `whole`'s.
///
/// # Errors
/// The field, its value, and why.
pub fn document<T: DeserializeOwned>(text: &str, whole: &str) -> Result<T, Refusal> {
    let refused = |error: &serde_json::Error| {
        // Here the place helps: a person wrote this, and has an editor.
        Refusal::new(RefusalReason::Malformed, whole, text, &error.to_string())
    };
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| refused(&error))?;
    serde_json::from_str(text).map_err(|_| fault::<T>(raw, whole))
}

#[allow(clippy::unnecessary_box_returns)] // as its callers give it on
fn whole(refusal: Refusal) -> Box<Refused> {
    Box::new(Refused { id: None, tenant: None, sequence: None, refusal })
}

fn one_by_one<C: DeserializeOwned>(payload: &[u8]) -> Result<Vec<Result<C, Refused>>, Box<Refused>> {
    let malformed = |field: &str, value: &str, problem: &str| {
        whole(Refusal::new(RefusalReason::Malformed, field, value, problem))
    };
    let value: &RawValue = serde_json::from_slice(payload)
        .map_err(|error| malformed("message", &String::from_utf8_lossy(payload), &error.to_string()))?;
    if Fields::of(value).is_none_or(|fields| fields.get("commands").is_none()) {
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

#[allow(clippy::result_large_err)] // kept beside commands of the same size
fn read_one<C: DeserializeOwned>(raw: &RawValue) -> Result<C, Refused> {
    serde_json::from_str::<C>(raw.get()).map_err(|_| explain::<C>(raw, "message"))
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
