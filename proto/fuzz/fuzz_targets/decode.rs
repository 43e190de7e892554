//! Whatever bytes arrive, every decoder of the bus reads or refuses them, and what it read can be said again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::decode;
use proto::envelope::{Answers, EventBatch, Refused};
use proto::market::{Answer, MarketCommand, MarketEvent, MarketReport};
use proto::subject::CommandSubject;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check_refused(refused: &Refused) {
    let refusal = &refused.refusal;
    assert!(!refusal.field.is_empty(), "{refused:?}");
    assert!(refusal.message.starts_with(&refusal.field), "{refused:?}");
    assert!(refusal.message.chars().count() < 600, "{refused:?}");
    assert!(!refusal.message.chars().any(char::is_control), "{refused:?}");
    comes_back(refused);
}

/// What was understood can be said again and is then understood alike.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let again = serde_json::to_vec(value).expect("plain data has a text");
    assert_eq!(&serde_json::from_slice::<T>(&again).expect("what we wrote can be read"), value);
}

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(payload: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(payload) {
        comes_back(&value);
    }
}

fuzz_target!(|payload: &[u8]| {
    match decode::commands::<MarketCommand>(payload) {
        Ok(commands) => {
            assert!(!commands.is_empty());
            for command in commands {
                match command {
                    Ok(command) => comes_back(&command),
                    Err(refused) => check_refused(&refused),
                }
            }
        }
        Err(refused) => check_refused(&refused),
    }
    check::<EventBatch<MarketEvent>>(payload);
    check::<Answers<Answer>>(payload);
    check::<MarketReport>(payload);
    if let Ok(text) = std::str::from_utf8(payload)
        && let Ok(subject) = CommandSubject::parse(text)
    {
        assert_eq!(subject.to_string(), text);
    }
});
