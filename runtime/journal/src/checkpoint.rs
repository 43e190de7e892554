//! When SQLite's write-ahead log is folded into the database.
//!
//! Left to itself the append that fills the log pays for all before it: the more pages, the longer it stalls. So a
//! reader's connection folds the log in the background, which holds up nobody, every few megabytes. It never
//! catches up with a busy writer, though, and a log that is never folded to its end is never begun anew. That is
//! left to SQLite's own check at commit, at a size by which nearly all is done already.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlx::{AnyConnection, Executor, Row as _};

use crate::database::{Journal, Kind};
use crate::error::JournalError;

/// Bytes of a page of a new SQLite database. Four times SQLite's own choice: a row of 400 KiB costs a third less
/// processor time, one of 300 bytes no more.
pub(crate) const PAGE_BYTES: u32 = 16 << 10;

/// Bytes of log after which the committing append makes sure that it begins anew; also what its file is cut back to.
pub(crate) const LOG_BYTES_MAX: u32 = 16 << 20;

/// Bytes of log after which it is folded in the background.
const FOLDED_BYTES: u64 = 4 << 20;

/// Bytes that the log's file has from the start. An append into space that the file has already is synced by writing
/// its data; one that makes the file grow waits for the file system's own journal, too.
const RESERVED_BYTES: u32 = 8 << 20;

/// More than SQLite keeps of a transaction in memory. Only what exceeds it reaches the log before a commit.
const UNWRITTEN_BYTES: u32 = 4 << 20;

/// Pages that the smallest append writes: one of the table, one of its index.
const PAGES_PER_APPEND: u64 = 2;

/// How much was written since the log was folded last, as far as this process knows.
#[derive(Default)]
pub(crate) struct Checkpoints {
    written_bytes: AtomicU64,
    running: AtomicBool,
}

impl Journal {
    /// Notes an append of `bytes`, and has the log folded when it is time.
    pub(crate) fn note_written(&self, bytes: usize) {
        if self.kind() != Kind::Sqlite {
            return;
        }
        let checkpoints = self.checkpoints();
        let bytes = bytes as u64 + PAGES_PER_APPEND * u64::from(PAGE_BYTES);
        let written = checkpoints.written_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written < FOLDED_BYTES || checkpoints.running.swap(true, Ordering::AcqRel) {
            return;
        }
        checkpoints.written_bytes.store(0, Ordering::Relaxed);
        let journal = self.clone();
        tokio::spawn(async move {
            if let Err(error) = journal.fold().await {
                // Nothing is lost: the log only stays longer, and the next append asks again.
                tracing::warn!(database = journal.database(), %error, "the log was not folded");
            }
            journal.checkpoints().running.store(false, Ordering::Release);
        });
    }

    async fn fold(&self) -> Result<(), JournalError> {
        const OPERATION: &str = "fold the log";
        let mut lent = self.reader(OPERATION, "-").await?;
        let passive = sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)");
        let done = self.within(async { lent.connection().execute(passive).await }).await;
        done.map_err(|source| self.failed(OPERATION, "-", source))?;
        lent.give_back();
        Ok(())
    }
}

/// Gives the log's file its space, by a transaction that is rolled back.
pub(crate) async fn reserve(journal: &Journal, connection: &mut AnyConnection) -> Result<(), JournalError> {
    let bytes = RESERVED_BYTES + UNWRITTEN_BYTES;
    let fill = format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE log_space (filling BYTEA NOT NULL);
         INSERT INTO log_space (filling) VALUES (zeroblob({bytes}));
         ROLLBACK"
    );
    let work = async {
        // Name and file of each open database; the first is the journal.
        let file: String = connection.fetch_one(sqlx::raw_sql("PRAGMA database_list")).await?.try_get(2)?;
        // A log that was left behind has its space and possibly rows.
        let is_there =
            std::fs::metadata(format!("{file}-wal")).is_ok_and(|log| log.len() >= u64::from(RESERVED_BYTES));
        if !is_there {
            connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(fill))).await?;
        }
        Ok(())
    };
    journal.within(work).await.map_err(|source| journal.cannot_open("reserve space for its log", source))
}
