//! What was ever said on the bus can still be read, and is still said in the same bytes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests fail like tests

mod corpus;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proto::decode;
use proto::envelope::{Answers, Commands, EventBatch, Refused};
use proto::market::{Answer, MarketCommand, MarketEvent, MarketReport};
use proto::placement::{PlacementAnswer, PlacementCommand, PlacementEvent, ServerOrders};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The corpus of the wire format's first version. It stays when there is a second.
const VERSION: &str = "v1";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn is_update() -> bool {
    std::env::var_os("WALRAS_UPDATE").is_some_and(|value| value == "1")
}

/// Every committed file, of every version: name and text.
fn committed() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for version in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        if version.is_dir() {
            for file in fs::read_dir(version).unwrap().map(|entry| entry.unwrap()) {
                let name = file.file_name().into_string().unwrap();
                files.push((name, fs::read_to_string(file.path()).unwrap().trim_end().to_owned()));
            }
        }
    }
    assert!(!files.is_empty());
    files.sort();
    files
}

#[test]
fn every_message_has_its_file() {
    let folder = folder().join(VERSION);
    let all = corpus::all();
    let names: BTreeSet<&String> = all.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), all.len(), "two messages have one name");
    for (name, text) in &all {
        let path = folder.join(name);
        if is_update() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, format!("{text}\n")).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed.trim_end() == text,
            "proto/tests/golden/{VERSION}/{name} is not what is written today. Before a release: run \
             WALRAS_UPDATE=1 cargo test -p proto and commit. After one: readers out there know the old form; keep \
             it readable and start another version's folder.\n  was {committed}  is  {text}"
        );
    }
}

fn comes_back<T: Serialize + DeserializeOwned>(name: &str, text: &str) {
    let value: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(serde_json::to_string(&value).unwrap(), text, "{name}");
}

#[test]
fn every_file_is_read_and_written_in_the_same_bytes() {
    for (name, text) in committed() {
        match name.split('.').next().unwrap() {
            "command" => {
                comes_back::<MarketCommand>(&name, &text);
                let read = decode::commands::<MarketCommand>(text.as_bytes()).unwrap();
                assert!(matches!(&read[..], [Ok(_)]), "{name}: {read:?}");
            }
            "commands" => {
                comes_back::<Commands<MarketCommand>>(&name, &text);
                let read = decode::commands::<MarketCommand>(text.as_bytes()).unwrap();
                assert!(read.iter().all(Result::is_ok), "{name}: {read:?}");
            }
            "events" => comes_back::<EventBatch<MarketEvent>>(&name, &text),
            "answers" => comes_back::<Answers<Answer>>(&name, &text),
            "refused" => comes_back::<Refused>(&name, &text),
            "report" => comes_back::<MarketReport>(&name, &text),
            "placement-command" => {
                comes_back::<PlacementCommand>(&name, &text);
                let read = decode::commands::<PlacementCommand>(text.as_bytes()).unwrap();
                assert!(matches!(&read[..], [Ok(_)]), "{name}: {read:?}");
            }
            "placement-commands" => comes_back::<Commands<PlacementCommand>>(&name, &text),
            "placement-events" => comes_back::<EventBatch<PlacementEvent>>(&name, &text),
            "placement-answers" => comes_back::<Answers<PlacementAnswer>>(&name, &text),
            "placement-orders" => comes_back::<ServerOrders>(&name, &text),
            other => panic!("{name}: nothing is called {other}"),
        }
    }
}

proptest! {
    /// A file of the corpus, damaged: read or refused with a field, never a panic.
    #[test]
    fn a_damaged_file_is_read_or_refused(
        file in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..5_u8), 1..6),
    ) {
        let files = corpus::all();
        let mut payload = files[file.index(files.len())].1.clone().into_bytes();
        for (place, byte, kind) in damage {
            let place = place.index(payload.len().max(1));
            match kind {
                0 if !payload.is_empty() => payload[place] = byte,
                1 => payload.insert(place, byte),
                2 if !payload.is_empty() => drop(payload.remove(place)),
                3 => payload.truncate(place),
                // Swaps two pieces, which often keeps it JSON.
                _ => payload.rotate_left(place),
            }
        }
        match decode::commands::<MarketCommand>(&payload) {
            Ok(commands) => for refused in commands.into_iter().filter_map(Result::err) {
                prop_assert!(!refused.refusal.field.is_empty());
            },
            Err(refused) => prop_assert!(!refused.refusal.field.is_empty()),
        }
        match decode::commands::<PlacementCommand>(&payload) {
            Ok(commands) => for refused in commands.into_iter().filter_map(Result::err) {
                prop_assert!(!refused.refusal.field.is_empty());
            },
            Err(refused) => prop_assert!(!refused.refusal.field.is_empty()),
        }
        let _ = serde_json::from_slice::<EventBatch<PlacementEvent>>(&payload);
        let _ = serde_json::from_slice::<EventBatch<MarketEvent>>(&payload);
        let _ = serde_json::from_slice::<Answers<Answer>>(&payload);
        let _ = serde_json::from_slice::<Refused>(&payload);
        let _ = serde_json::from_slice::<MarketReport>(&payload);
    }
}
