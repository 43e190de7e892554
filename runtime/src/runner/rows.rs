//! Rows between the turn and the journal.

use journal::Row as JournalRow;
use proto::{Machine, StateHash, StreamName, Timestamp};
use turn::{Position, Row};

/// The name of a machine's stream in the journal.
pub fn journal_stream<M: Machine>(stream: &StreamName) -> String {
    format!("{}.{stream}", M::NAME)
}

/// A row of the journal as the turn knows it.
pub fn turn_row(row: JournalRow) -> Row {
    Row {
        sequence: row.seq,
        at: Timestamp::from_micros(row.at_micros),
        rules: row.rules,
        position: Position { created: row.position_created, sequence: row.position_sequence },
        published: row.published,
        state_hash: StateHash(u128::from_be_bytes(row.state_hash)),
        chain: row.chain,
        input: row.input.into(),
        events: row.events.into(),
    }
}

/// A row of a turn as the journal takes it.
pub(super) fn journal_row(row: &Row) -> JournalRow {
    JournalRow {
        seq: row.sequence,
        at_micros: row.at.micros(),
        rules: row.rules,
        position_created: row.position.created,
        position_sequence: row.position.sequence,
        published: row.published,
        state_hash: row.state_hash.0.to_be_bytes(),
        chain: row.chain,
        input: row.input.to_vec(),
        events: row.events.to_vec(),
    }
}
