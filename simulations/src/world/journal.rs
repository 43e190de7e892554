//! The journal as the simulated world has it: the fence is its place in the stream, and a commit can fail in
//! both ways, with the row written and without.

use std::collections::BTreeMap;

use proto::machine::CommandKey;
use turn::{Answered, Row};

/// What an append did, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// The row is there.
    Committed,
    /// Somebody else wrote a row in its place.
    Stale,
    /// Nobody knows.
    Unknown,
}

/// Rows, snapshots and the index of old answers of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    pub(super) rows: Vec<Row>,
    pub(super) snapshots: Vec<Vec<u8>>,
    pub(super) index: BTreeMap<CommandKey, Answered>,
}

impl Journal {
    /// Writes a row. `fault`: the caller is not told; the row is written only if it says so.
    pub(super) fn append(&mut self, row: &Row, fault: Option<bool>) -> Appended {
        if row.sequence != self.rows.len() as u64 + 1 {
            return Appended::Stale;
        }
        if fault != Some(false) {
            self.rows.push(row.clone());
        }
        if fault.is_some() { Appended::Unknown } else { Appended::Committed }
    }

    pub(super) fn row(&self, sequence: u64) -> Option<&Row> {
        self.rows.get((sequence as usize).checked_sub(1)?)
    }
}
