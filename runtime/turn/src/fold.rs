//! Taking in rows that were decided before, or elsewhere.

use bytes::Bytes;
use proto::envelope::EventBatch;
use proto::machine::{CommandKey, Decided, Entry, Hex};
use proto::{Machine, StreamName, Timestamp};
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::answers::{Answered, Locator};
use crate::input;
use crate::outgoing::{Outgoing, after_row};
use crate::row::Row;
use crate::work::Turn;

/// Why a row cannot be taken in. The journal was damaged, or it is another program's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// A row is missing, or comes twice.
    #[error("row {found} follows row {last}")]
    Gap {
        /// The last row taken in.
        last: u64,
        /// The row that came.
        found: u64,
    },
    /// Time went back.
    #[error("row {sequence} is of {at}, before its predecessor's {last}")]
    Time {
        /// Which row.
        sequence: u64,
        /// Its instant.
        at: Timestamp,
        /// The last row's instant.
        last: Timestamp,
    },
    /// The chain of hashes is broken: the row, or one before it, is not what was written.
    #[error("row {sequence} is not what was written: its chain hash does not fit")]
    Chain {
        /// Which row.
        sequence: u64,
    },
    /// Its events cannot be read.
    #[error("events of row {sequence}: {problem}")]
    Events {
        /// Which row.
        sequence: u64,
        /// What is wrong.
        problem: String,
    },
    /// Its input cannot be read.
    #[error("input of row {sequence}: {problem}")]
    Input {
        /// Which row.
        sequence: u64,
        /// What is wrong.
        problem: String,
    },
    /// Folding gave another state than deciding did.
    #[error("state after row {sequence} has hash {found:032x}, journaled is {expected:032x}")]
    State {
        /// Which row.
        sequence: u64,
        /// The hash in the row.
        expected: u128,
        /// The hash of the folded state.
        found: u128,
    },
}

/// A row with its events read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRow<E> {
    row: Row,
    batch: EventBatch<E>,
}

impl<E> ReadRow<E> {
    /// The row.
    pub const fn row(&self) -> &Row {
        &self.row
    }

    /// Its events, in order.
    pub fn events(&self) -> impl Iterator<Item = &E> {
        self.batch.entries.iter().flat_map(|entry| &entry.events)
    }
}

/// Reads a row's events, which needs no state.
///
/// # Errors
/// When they cannot be read, or are another row's.
pub fn read_row<M: Machine>(stream: &StreamName, row: Row) -> Result<ReadRow<M::Event>, FoldError> {
    let batch = events::<M>(stream, &row)?;
    Ok(ReadRow { row, batch })
}

/// What taking in a row gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold<E> {
    /// Its events.
    pub batch: EventBatch<E>,
    /// What follows from the row, made again; empty unless asked for.
    pub outgoing: Vec<Outgoing>,
}

impl<M: Machine> Turn<M> {
    /// Takes in the next row of the journal. With `tell`, makes its messages again, as they were made when it
    /// was decided: for rows that may not have been published.
    ///
    /// # Errors
    /// When the row does not follow or is not what was written. The turn must not be used again.
    pub fn fold(&mut self, row: &Row, tell: bool) -> Result<Fold<M::Event>, FoldError> {
        self.fold_read(read_row::<M>(&self.stream, row.clone())?, tell)
    }

    /// As [`Turn::fold`], of a row whose events were read before, as on another thread.
    ///
    /// # Errors
    /// As [`Turn::fold`].
    pub fn fold_read(&mut self, read: ReadRow<M::Event>, tell: bool) -> Result<Fold<M::Event>, FoldError> {
        let outgoing = self.fold_shared(&read, tell)?;
        Ok(Fold { batch: read.batch, outgoing })
    }

    /// As [`Turn::fold_read`], of a row that others take in as well; gives its messages.
    ///
    /// # Errors
    /// As [`Turn::fold`].
    pub fn fold_shared(&mut self, read: &ReadRow<M::Event>, tell: bool) -> Result<Vec<Outgoing>, FoldError> {
        let ReadRow { row, batch } = read;
        self.check_place(row)?;
        if row.link(&self.head.chain) != row.chain {
            return Err(FoldError::Chain { sequence: row.sequence });
        }
        self.fold_events(row, batch)?;
        if tell { self.tell(row, batch) } else { Ok(Vec::new()) }
    }

    /// Takes in the next row after another turn did so in the same process: as [`Turn::fold_shared`], without hashing
    /// the row's bytes again.
    ///
    /// # Errors
    /// As [`Turn::fold`].
    pub fn follow_read(&mut self, read: &ReadRow<M::Event>) -> Result<(), FoldError> {
        self.check_place(&read.row)?;
        self.fold_events(&read.row, &read.batch)
    }

    fn fold_events(&mut self, row: &Row, batch: &EventBatch<M::Event>) -> Result<(), FoldError> {
        for (index, entry) in (0..).zip(&batch.entries) {
            for event in &entry.events {
                self.machine.apply(row.at, event);
            }
            if let Some(key) = entry.key {
                let digest = entry.digest.as_deref().and_then(|hex| u64::from_str_radix(hex, 16).ok());
                let digest = digest.ok_or_else(|| FoldError::Events {
                    sequence: row.sequence,
                    problem: format!("entry {index} has a key and no digest"),
                })?;
                self.answers.record(Answered { key, digest, locator: Locator::new(row.sequence, index) });
            }
        }
        self.settle(row)
    }

    /// Takes in the next row as it was decided in the same process: as [`Turn::fold`], without reading the
    /// row's bytes again.
    ///
    /// # Errors
    /// When the row does not follow, or gives another state. The turn must not be used again.
    pub fn follow(&mut self, row: &Row, decided: &Decided<M::Command, M::Event>) -> Result<(), FoldError> {
        self.check_place(row)?;
        for event in &decided.events {
            self.machine.apply(row.at, event);
        }
        for (index, entry) in (0..).zip(&decided.entries) {
            if let Some(received) = &entry.received {
                let locator = Locator::new(row.sequence, index);
                self.answers.record(Answered { key: received.key, digest: received.digest, locator });
            }
        }
        self.settle(row)
    }

    pub(crate) fn check_place(&self, row: &Row) -> Result<(), FoldError> {
        if row.sequence != self.head.sequence + 1 {
            return Err(FoldError::Gap { last: self.head.sequence, found: row.sequence });
        }
        if row.at < self.head.at {
            return Err(FoldError::Time { sequence: row.sequence, at: row.at, last: self.head.at });
        }
        Ok(())
    }

    /// Checks the state against the row and moves the head to it.
    pub(crate) fn settle(&mut self, row: &Row) -> Result<(), FoldError> {
        let found = self.machine.hash();
        if found != row.state_hash {
            let (sequence, expected) = (row.sequence, row.state_hash.0);
            return Err(FoldError::State { sequence, expected, found: found.0 });
        }
        self.advance(row);
        self.reached = row.position;
        self.published = self.published.max(row.published);
        Ok(())
    }

    fn tell(&self, row: &Row, batch: &EventBatch<M::Event>) -> Result<Vec<Outgoing>, FoldError> {
        let decided = decided::<M>(&self.stream, row, batch)?;
        Ok(after_row(&self.machine, &self.stream, &decided, &row.events))
    }
}

/// The batch of events in a row.
pub(crate) fn events<M: Machine>(stream: &StreamName, row: &Row) -> Result<EventBatch<M::Event>, FoldError> {
    let unreadable = |problem: String| FoldError::Events { sequence: row.sequence, problem };
    let batch: EventBatch<M::Event> =
        serde_json::from_slice(&row.events).map_err(|error| unreadable(error.to_string()))?;
    if batch.machine != M::NAME || batch.stream != *stream || batch.sequence != row.sequence {
        let (machine, stream, sequence) = (&batch.machine, &batch.stream, batch.sequence);
        return Err(unreadable(format!("they are of row {sequence} of {machine}, stream {stream}")));
    }
    Ok(batch)
}

/// A row as it was decided.
fn decided<M: Machine>(
    stream: &StreamName,
    row: &Row,
    batch: &EventBatch<M::Event>,
) -> Result<Decided<M::Command, M::Event>, FoldError> {
    let unreadable = |problem: String| FoldError::Input { sequence: row.sequence, problem };
    let mut entries = input::entries::<M>(stream, row.position, &row.input).map_err(unreadable)?;
    if entries.len() != batch.entries.len() {
        let (inputs, outputs) = (entries.len(), batch.entries.len());
        return Err(unreadable(format!("{inputs} inputs have {outputs} outcomes")));
    }
    let mut events = Vec::new();
    for (entry, outcome) in entries.iter_mut().zip(&batch.entries) {
        if entry.received.as_ref().map(|received| received.key) != outcome.key {
            return Err(unreadable("the outcomes are those of other commands".to_owned()));
        }
        events.extend_from_slice(&outcome.events);
        entry.events_end = events.len();
    }
    Ok(Decided { sequence: row.sequence, at: row.at, entries, events })
}

/// The JSON of an [`EventBatch`], without building one.
pub(crate) fn encode<M: Machine>(stream: &StreamName, decided: &Decided<M::Command, M::Event>) -> Bytes {
    // An event is mostly a few short fields; growing twice is cheaper than guessing too high.
    let mut json = Vec::with_capacity(256 + decided.events.len() * 256);
    let batch = Batch {
        machine: M::NAME,
        stream,
        sequence: decided.sequence,
        at: decided.at,
        rules: M::RULES,
        entries: Entries(decided),
    };
    // Events are plain data; writing them to memory does not fail.
    let _ = proto::json::write(&batch, &mut json);
    Bytes::from(json)
}

#[derive(Serialize)]
#[serde(bound = "E: Serialize")]
struct Batch<'a, C, E> {
    machine: &'static str,
    stream: &'a StreamName,
    sequence: u64,
    at: Timestamp,
    rules: u32,
    entries: Entries<'a, C, E>,
}

struct Entries<'a, C, E>(&'a Decided<C, E>);

#[derive(Serialize)]
#[serde(bound = "E: Serialize")]
struct Outcome<'a, E> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<CommandKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Hex<16>>,
    events: &'a [E],
}

impl<C, E: Serialize> Serialize for Entries<'_, C, E> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut list = out.serialize_seq(Some(self.0.entries.len()))?;
        for (Entry { received, .. }, events) in self.0.iter() {
            let key = received.as_ref().map(|received| received.key);
            let digest = received.as_ref().map(|received| Hex::of(u128::from(received.digest)));
            list.serialize_element(&Outcome { key, digest, events })?;
        }
        list.end()
    }
}
