//! Deciding again what was decided, and comparing.

use proto::Machine;
use proto::envelope::EventBatch;
use proto::machine::{Decided, Entry, Received};

use crate::answers::{Answered, Locator};
use crate::delivery::Found;
use crate::fold::{FoldError, encode, events};
use crate::input::{Replayed, replay};
use crate::row::Row;
use crate::work::Turn;

/// Why a row does not stand up to being decided again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// It cannot even be taken in.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The same input gave other events.
    #[error("row {sequence}, entry {entry}: decided again, other events follow")]
    Events {
        /// Which row.
        sequence: u64,
        /// Which entry, counted from 0.
        entry: usize,
    },
    /// A command was decided although it had been decided before, or passed over although it had not.
    #[error("row {sequence}, message {message}, command {command}: {problem}")]
    Answered {
        /// Which row.
        sequence: u64,
        /// Which message of the input.
        message: u64,
        /// Which command of the message, counted from 0.
        command: u32,
        /// What is wrong.
        problem: &'static str,
    },
}

/// How a row was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audited {
    /// Decided again with the same outcome.
    Decided,
    /// Decided by other rules than this build's: folded, its hashes checked.
    Folded,
}

impl<M: Machine> Turn<M> {
    /// Takes in the next row by deciding its input again, and compares events, state and hashes. A row decided
    /// by other rules is folded.
    ///
    /// # Errors
    /// The first difference. The turn must not be used again.
    pub fn audit(&mut self, row: &Row) -> Result<Audited, AuditError> {
        if row.rules != M::RULES {
            self.fold(row, false)?;
            return Ok(Audited::Folded);
        }
        self.check_place(row)?;
        if row.link(&self.head.chain) != row.chain {
            return Err(FoldError::Chain { sequence: row.sequence }.into());
        }
        let unreadable = |problem| FoldError::Input { sequence: row.sequence, problem };
        let items = replay::<M>(&self.stream, row.position, &row.input).map_err(unreadable)?;
        let (entries, events) = (Vec::new(), Vec::new());
        let mut decided = Decided { sequence: row.sequence, at: row.at, entries, events };
        for item in items {
            match item {
                Replayed::Wake => {
                    self.machine.wake(row.at, &mut decided.events);
                    let events_end = decided.events.len();
                    decided.entries.push(Entry { received: None, events_end });
                }
                Replayed::Message { commands, skipped, found, delivery } => {
                    let message = delivery.position.sequence;
                    for (place, received) in commands {
                        let is_skipped = skipped.binary_search(&place).is_ok();
                        self.check_answered(&received, place, is_skipped, &found).map_err(|problem| {
                            AuditError::Answered { sequence: row.sequence, message, command: place, problem }
                        })?;
                        if !is_skipped {
                            self.redecide(received, &mut decided);
                        }
                    }
                }
            }
        }
        self.compare(row, &decided)?;
        self.settle(row)?;
        Ok(Audited::Decided)
    }

    fn redecide(&mut self, received: Received<M::Command>, decided: &mut Decided<M::Command, M::Event>) {
        self.machine.step(decided.at, &received, &mut decided.events);
        let locator = Locator::new(decided.sequence, decided.entries.len() as u32);
        self.answers.record(Answered { key: received.key, digest: received.digest, locator });
        decided.entries.push(Entry { received: Some(received), events_end: decided.events.len() });
    }

    fn check_answered(
        &self,
        received: &Received<M::Command>,
        place: u32,
        is_skipped: bool,
        found: &[Found],
    ) -> Result<(), &'static str> {
        let known = self.answers.find(received.key).is_some()
            || found.iter().any(|it| it.command == place && it.answered.key == received.key);
        match (known, is_skipped) {
            (true, false) => Err("it was decided twice"),
            (false, true) => Err("it was passed over although it was new"),
            _ => Ok(()),
        }
    }

    fn compare(&self, row: &Row, decided: &Decided<M::Command, M::Event>) -> Result<(), AuditError> {
        if encode::<M>(&self.stream, decided) == row.events {
            return Ok(());
        }
        // The text may differ where the same events are written another way, as by an older version.
        let journaled: EventBatch<M::Event> = events::<M>(&self.stream, row)?;
        let differs = |entry| AuditError::Events { sequence: row.sequence, entry };
        for (index, (again, first)) in decided.iter().zip(&journaled.entries).enumerate() {
            let key = again.0.received.as_ref().map(|received| received.key);
            if key != first.key || again.1 != first.events.as_slice() {
                return Err(differs(index));
            }
        }
        if decided.entries.len() == journaled.entries.len() {
            Ok(())
        } else {
            Err(differs(decided.entries.len().min(journaled.entries.len())))
        }
    }
}
