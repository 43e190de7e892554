//! What a row keeps of its input, so that it can be decided again.
//!
//! `[{"wake":true}, {"subject":…, "sequence":…, "payload":…, "skipped":[…], "found":[…]}, …]`. Payloads stand
//! as they came. Commands that were not decided (malformed, repeated, their id used before) are named by their
//! place in the message; messages without a decided command are not kept, so that a flood of repeats or of
//! malformed messages does not fill the journal.

use std::borrow::Cow;

use bytes::Bytes;
use proto::machine::{CommandKey, Entry, Received};
use proto::{Machine, StreamName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answers::{Answered, Locator};
use crate::delivery::{Content, Delivery, Found, Position, decode};
use crate::fold::FoldError;
use crate::row::Row;

/// One item of a row's input as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    #[serde(default)]
    wake: bool,
    #[serde(default, borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(default)]
    sequence: u64,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    skipped: Vec<u32>,
    #[serde(default)]
    found: Vec<FoundRecord>,
}

/// A skipped command that only the index of old answers knew.
#[derive(Serialize, Deserialize)]
struct FoundRecord {
    command: u32,
    key: CommandKey,
    digest: u64,
    row: u64,
    entry: u32,
}

/// Writes a row's input.
#[derive(Debug)]
pub(crate) struct InputWriter {
    json: Vec<u8>,
}

impl InputWriter {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut json = Vec::with_capacity(bytes + 256);
        json.push(b'[');
        Self { json }
    }

    fn separate(&mut self) {
        if self.json.len() > 1 {
            self.json.push(b',');
        }
    }

    pub(crate) fn wake(&mut self) {
        self.separate();
        self.json.extend_from_slice(br#"{"wake":true}"#);
    }

    pub(crate) fn message(&mut self, delivery: &Delivery, skipped: &[u32], found: &[Found]) {
        self.separate();
        self.json.extend_from_slice(br#"{"subject":"#);
        self.write(&delivery.subject);
        self.json.extend_from_slice(br#","sequence":"#);
        self.write(&delivery.position.sequence);
        self.json.extend_from_slice(br#","payload":"#);
        self.json.extend_from_slice(&delivery.payload);
        if !skipped.is_empty() {
            self.json.extend_from_slice(br#","skipped":"#);
            self.write(&skipped);
        }
        if !found.is_empty() {
            let record = |found: &Found| FoundRecord {
                command: found.command,
                key: found.answered.key,
                digest: found.answered.digest,
                row: found.answered.locator.sequence(),
                entry: found.answered.locator.index(),
            };
            self.json.extend_from_slice(br#","found":"#);
            self.write(&found.iter().map(record).collect::<Vec<_>>());
        }
        self.json.push(b'}');
    }

    fn write<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Numbers, texts and lists of them; writing to memory does not fail.
        let _ = serde_json::to_writer(&mut self.json, value);
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.json.push(b']');
        Bytes::from(self.json)
    }
}

/// One item of a row's input, decoded again.
pub(crate) enum Replayed<C> {
    Wake,
    Message {
        /// All commands that can be read, with their places.
        commands: Vec<(u32, Received<C>)>,
        skipped: Vec<u32>,
        found: Vec<Found>,
        delivery: Delivery,
    },
}

/// Reads a row's input back.
pub(crate) fn replay<M: Machine>(
    stream: &StreamName,
    position: Position,
    input: &Bytes,
) -> Result<Vec<Replayed<M::Command>>, String> {
    let items: Vec<Item<'_>> = serde_json::from_slice(input).map_err(|error| error.to_string())?;
    items.into_iter().map(|item| replay_item::<M>(stream, position, input, item)).collect()
}

fn replay_item<M: Machine>(
    stream: &StreamName,
    position: Position,
    input: &Bytes,
    item: Item<'_>,
) -> Result<Replayed<M::Command>, String> {
    let (subject, payload) = match (item.wake, item.subject, item.payload) {
        (true, None, None) => return Ok(Replayed::Wake),
        (false, Some(subject), Some(payload)) => (subject.into_owned(), payload),
        _ => return Err("an item is neither a wake nor a message".to_owned()),
    };
    let position = Position { created: position.created, sequence: item.sequence };
    let delivery = Delivery { subject, position, payload: input.slice_ref(payload.get().as_bytes()) };
    let decoded = decode::<M>(stream, delivery);
    let Content::Commands { commands, .. } = decoded.content else {
        return Err(format!("message {} holds no commands", item.sequence));
    };
    let commands = (0..).zip(commands).filter_map(|(place, command)| Some((place, command.ok()?))).collect();
    let found = item.found.iter().map(found).collect();
    Ok(Replayed::Message { commands, skipped: item.skipped, found, delivery: decoded.delivery })
}

fn found(record: &FoundRecord) -> Found {
    let locator = Locator::new(record.row, record.entry);
    let answered = Answered { key: record.key, digest: record.digest, locator };
    Found { command: record.command, answered }
}

/// What a row decided, in order: its commands and wakes, without their events. For deciding them otherwise.
///
/// # Errors
/// When the row's input cannot be read.
pub fn decided_input<M: Machine>(
    stream: &StreamName,
    row: &Row,
) -> Result<Vec<Entry<M::Command>>, FoldError> {
    let unreadable = |problem| FoldError::Input { sequence: row.sequence, problem };
    entries::<M>(stream, row.position, &row.input).map_err(unreadable)
}

/// The entries of a row, without their events: `events_end` is 0.
pub(crate) fn entries<M: Machine>(
    stream: &StreamName,
    position: Position,
    input: &Bytes,
) -> Result<Vec<Entry<M::Command>>, String> {
    let mut entries = Vec::new();
    for item in replay::<M>(stream, position, input)? {
        match item {
            Replayed::Wake => entries.push(Entry { received: None, events_end: 0 }),
            Replayed::Message { commands, skipped, .. } => {
                let decided = commands.into_iter().filter(|(place, _)| skipped.binary_search(place).is_err());
                entries.extend(decided.map(|(_, it)| Entry { received: Some(it), events_end: 0 }));
            }
        }
    }
    Ok(entries)
}
