//! The record: what a stream decided, in order, on SQLite or PostgreSQL with one SQL text.
//!
//! A *stream* is the history of one machine: rows numbered 1, 2, 3, …, each the input and the events of one
//! turn. This crate keeps rows and gives them back; it does not know what is in them and decides nothing.
//! It may not read a clock to decide anything (instants are arguments), retry a write, or hand out a row
//! that does not follow the one before.
//!
//! What holds, and how:
//!
//! * **One effective writer per stream.** `PRIMARY KEY (stream, seq)` is the fence. A row is inserted only
//!   where it directly follows the last one, and two writers cannot both insert it; the loser is told
//!   [`Appended::Stale`]. A [claim](Journal::claim) only keeps replicas from working in vain: safety does
//!   not rest on it.
//! * **What is acknowledged is durable.** SQLite runs in WAL mode with `synchronous=FULL`, PostgreSQL with
//!   `synchronous_commit` never off. Any error of [`Journal::append`] means *outcome unknown*: drop the
//!   state, load again, never retry.
//! * **Reads are bounded and checked.** Pages have a limit in rows and in bytes, and a gap is an error.
//! * **Growth is bounded.** Three [snapshots](Journal::save_snapshot) are kept; old rows move to
//!   hash-chained [archive files](Journal::archive) once a good snapshot covers them.
//!
//! Types are `BIGINT`, `TEXT` and `BYTEA`, never NULL. SQLite keeps a value of a column declared `BYTEA` as
//! the blob it was given, so not even the table definitions differ.

mod answers;
mod archive;
mod checkpoint;
mod claim;
mod connections;
mod database;
mod error;
mod rows;
mod schema;
mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;

pub use answers::{Answer, AnswerKey, Found, IndexedKey};
pub use archive::{ArchiveTail, Archived, ArchivedRows, archived_rows, verify_archive};
pub use claim::{Claim, Owner};
pub use database::{Journal, Settings};
pub use error::JournalError;
pub use rows::{Appended, Head, Row};
pub use snapshot::{LoadedSnapshot, Skipped, Snapshot};

/// Limits of what the journal takes and gives, each with its reason.
pub mod limits {
    /// Bytes of a stream's or an owner's name. Both stand in every row; a folder name has 255, three per byte here.
    pub const NAME_BYTES_MAX: usize = 80;
    /// Rows in one append. More would hold SQLite's only writer for too long.
    pub const APPEND_ROWS_MAX: usize = 1_024;
    /// Bytes of input and events in one row. A turn of 1,024 commands is about 400 KiB.
    pub const ROW_BYTES_MAX: usize = 16 << 20;
    /// Bytes of one stored part of a snapshot. An append waits for at most one part to be written.
    pub const SNAPSHOT_PART_BYTES_MAX: usize = 256 << 10;
    /// Parts of one snapshot, which bounds a snapshot to 2 GiB.
    pub const SNAPSHOT_PARTS_MAX: usize = 8_192;
    /// Snapshots kept of the version saved last, and again of all other versions together.
    pub const SNAPSHOTS_KEPT: usize = 3;
    /// Rows in one archive file.
    pub const ARCHIVE_ROWS_MAX: usize = 1 << 16;
    /// Bytes of input and events after which an archive file ends.
    pub const ARCHIVE_BYTES_MAX: usize = 256 << 20;
}
