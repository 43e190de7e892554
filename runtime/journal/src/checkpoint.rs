//! When SQLite's write-ahead log is folded into the database.
//!
//! Left to itself the append that fills the log pays for all before it: the more pages, the longer it stalls. So a
//! reader's connection folds the log in the background, which holds up nobody, every few megabytes. It never
//! catches up with a busy writer, though, and a log that is never folded to its end is never begun anew. That is
//! left to SQLite's own check at commit, at a size by which nearly all is done already.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlx::Executor;

use crate::database::{Journal, Kind};

/// Bytes of a page of a new SQLite database. Four times SQLite's own choice: a row of 400 KiB costs a third less
/// processor time, one of 300 bytes no more.
pub(crate) const PAGE_BYTES: u32 = 16 << 10;

/// Bytes of log after which the committing append makes sure that it begins anew; also what its file is cut back to.
pub(crate) const LOG_BYTES_MAX: u32 = 64 << 20;

/// Bytes of log after which it is folded in the background.
const FOLDED_BYTES: u64 = 4 << 20;

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

    async fn fold(&self) -> Result<(), crate::JournalError> {
        const OPERATION: &str = "fold the log";
        let mut lent = self.reader(OPERATION, "-").await?;
        let passive = sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)");
        let done = self.within(async { lent.connection().execute(passive).await }).await;
        done.map_err(|source| self.failed(OPERATION, "-", source))?;
        lent.give_back();
        Ok(())
    }
}
