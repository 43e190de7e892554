//! Old rows in files: out of the database, still part of the record.
//!
//! An archive is a folder with one folder per stream, and in it one file per call of [`Journal::archive`]. Each
//! file ends with its hash and begins with the hash of the one before, so that no row can be changed, left out
//! or moved unseen; the database notes the last hash, so that neither can the newest files be.
//!
//! A crash at any point loses nothing. The range is noted first and then fixed, so whoever comes next writes
//! the same file again; rows are deleted only after the file is durable, was read back, and is noted.

mod file;
mod reading;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use sqlx::Row as _;
use sqlx::any::AnyRow;

pub use reading::{ArchivedRows, archived_rows, verify_archive};

use self::file::{Header, Reader, Writer, file_error, folder, name, sync_folder, wrong};
use crate::database::{Journal, check_stream, signed};
use crate::error::JournalError;
use crate::limits::{ARCHIVE_BYTES_MAX, ARCHIVE_ROWS_MAX};

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Where it is.
    pub path: PathBuf,
    /// Its first row.
    pub first_seq: u64,
    /// Its last row.
    pub last_seq: u64,
    /// Its trailing hash.
    pub sha256: [u8; 32],
}

/// How far the archive of a stream reaches, and the hash that stands for all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveTail {
    /// The stream.
    pub stream: String,
    /// The newest archived row.
    pub last_seq: u64,
    /// The newest file's trailing hash.
    pub sha256: [u8; 32],
}

/// A noted range. Without a hash its file may not be there yet.
#[derive(Clone, Copy, Debug)]
struct Noted {
    first_seq: u64,
    last_seq: u64,
    sha256: Option<[u8; 32]>,
}

const OPERATION: &str = "archive";

/// Rows read, and rows deleted, in one statement: a delete holds SQLite's write lock while it goes through
/// every page of its rows.
const ROWS_AT_A_TIME: u64 = 64;

/// Bytes of rows held in memory while a file is written.
const PAGE_BYTES: usize = 8 << 20;

const NOTED: &str = "
SELECT first_seq, last_seq, sha256 FROM archives WHERE stream = $1 ORDER BY first_seq DESC LIMIT 2";

const NOTE: &str = "INSERT INTO archives (stream, first_seq, last_seq, sha256) VALUES ($1, $2, $3, $4)";

const NOTE_HASH: &str = "UPDATE archives SET sha256 = $3 WHERE stream = $1 AND first_seq = $2";

const FIRST: &str = "SELECT seq FROM journal WHERE stream = $1 ORDER BY seq LIMIT 1";

const DELETE: &str = "DELETE FROM journal WHERE stream = $1 AND seq <= $2";

impl Journal {
    /// Moves the oldest rows of `stream`, up to `up_to_seq`, to one new file under `dir`. Only rows that the
    /// oldest good snapshot of `snapshot_version` covers move, never the last row, and at most as many as one
    /// file holds: call again until `None` comes, which says that there is nothing to move.
    ///
    /// # Errors
    /// A folder in use by another process or not the one used before, a file or database error. Calling again
    /// continues where it stopped.
    pub async fn archive(
        &self,
        stream: &str,
        dir: &Path,
        up_to_seq: u64,
        snapshot_version: u32,
    ) -> Result<Option<Archived>, JournalError> {
        check_stream(stream)?;
        let folder = folder(dir, stream);
        let _lock = blocking(&folder, lock).await?;
        let (tail, unfinished) = self.noted(stream).await?;
        if let Some(tail) = tail {
            // Rows that an interruption left undeleted are in the file for certain only if the file is there.
            check_tail(&folder, tail).await?;
            self.delete_through(stream, tail.last_seq).await?;
        }
        let range = match unfinished {
            Some(range) => Some(range),
            None => self.note_next(stream, tail, up_to_seq, snapshot_version).await?,
        };
        let Some(range) = range else { return Ok(None) };
        let previous = tail.and_then(|tail| tail.sha256).unwrap_or_default();
        let (path, sha256) = self.write_file(stream, &folder, range, previous).await?;
        self.note_hash(stream, range, &sha256).await?;
        self.delete_through(stream, range.last_seq).await?;
        let Noted { first_seq, last_seq, .. } = range;
        Ok(Some(Archived { path, first_seq, last_seq, sha256 }))
    }

    /// How far the archive of `stream` must reach. The same as what [`verify_archive`] finds, unless files are
    /// missing.
    ///
    /// # Errors
    /// A database error.
    pub async fn archive_tail(&self, stream: &str) -> Result<Option<ArchiveTail>, JournalError> {
        let (tail, _) = self.noted(stream).await?;
        Ok(tail.and_then(|tail| {
            let (stream, last_seq) = (stream.to_owned(), tail.last_seq);
            tail.sha256.map(|sha256| ArchiveTail { stream, last_seq, sha256 })
        }))
    }

    /// The newest range whose file is complete, and the one after it, if it was begun.
    async fn noted(&self, stream: &str) -> Result<(Option<Noted>, Option<Noted>), JournalError> {
        check_stream(stream)?;
        let rows = self.read(OPERATION, stream, || sqlx::query(NOTED).bind(stream)).await?;
        let decode = |row: &AnyRow| {
            Ok(Noted {
                first_seq: row.try_get::<i64, _>(0)? as u64,
                last_seq: row.try_get::<i64, _>(1)? as u64,
                // Not noted yet: the empty blob.
                sha256: row.try_get::<&[u8], _>(2)?.try_into().ok(),
            })
        };
        let noted = rows.iter().map(decode).collect::<Result<Vec<_>, sqlx::Error>>();
        let noted = noted.map_err(|source| self.failed(OPERATION, stream, source))?;
        let mut noted = noted.into_iter();
        match noted.next() {
            Some(newest) if newest.sha256.is_none() => Ok((noted.next(), Some(newest))),
            newest => Ok((newest, None)),
        }
    }

    /// Fixes the range of the next file, if there are rows for one.
    async fn note_next(
        &self,
        stream: &str,
        tail: Option<Noted>,
        up_to_seq: u64,
        snapshot_version: u32,
    ) -> Result<Option<Noted>, JournalError> {
        let first_seq = tail.map_or(1, |tail| tail.last_seq + 1);
        let Some(head) = self.head(stream).await? else { return Ok(None) };
        // The last row stays: the fence counts from it.
        let up_to_seq = up_to_seq.min(head.seq.saturating_sub(1));
        if up_to_seq < first_seq {
            return Ok(None);
        }
        let Some(covered) = self.covered_by_snapshots(stream, snapshot_version).await? else {
            return Ok(None);
        };
        let up_to_seq = up_to_seq.min(covered);
        let sizes = self.sizes(stream, first_seq - 1, ARCHIVE_ROWS_MAX).await?;
        let mut bytes = 0;
        let mut last_seq = None;
        for (seq, size) in sizes.into_iter().take_while(|(seq, _)| *seq <= up_to_seq) {
            bytes += size;
            last_seq = Some(seq);
            if bytes >= ARCHIVE_BYTES_MAX {
                break;
            }
        }
        let Some(last_seq) = last_seq else { return Ok(None) };
        let mut lent = self.writer(OPERATION, stream).await?;
        let query = sqlx::query(NOTE)
            .bind(stream)
            .bind(signed(stream, "first_seq", first_seq)?)
            .bind(signed(stream, "last_seq", last_seq)?)
            .bind(&[][..]);
        let done = self.within(query.execute(lent.connection())).await;
        done.map_err(|source| self.failed(OPERATION, stream, source))?;
        lent.give_back();
        Ok(Some(Noted { first_seq, last_seq, sha256: None }))
    }

    async fn write_file(
        &self,
        stream: &str,
        folder: &Path,
        range: Noted,
        previous: [u8; 32],
    ) -> Result<(PathBuf, [u8; 32]), JournalError> {
        let Noted { first_seq, last_seq, .. } = range;
        let header = Header { stream: stream.to_owned(), first_seq, last_seq, previous };
        let mut writer = blocking(folder, move |folder| Writer::create(folder, &header)).await?;
        let mut after = first_seq - 1;
        while after < last_seq {
            let wanted = (last_seq - after).min(ROWS_AT_A_TIME) as usize;
            let rows = self.load_stored(stream, after, wanted, PAGE_BYTES).await?;
            let Some(last) = rows.last().map(|stored| stored.row.seq) else {
                return Err(wrong(folder, format!("row {} is in the database no more", after + 1)));
            };
            after = last;
            let append =
                move |_: &Path| rows.iter().try_for_each(|stored| writer.append(stored)).map(|()| writer);
            writer = blocking(folder, append).await?;
        }
        let finish = move |_: &Path| {
            let (path, hash) = writer.finish()?;
            // What was written is read back before anything is deleted.
            let read = Reader::open(&path)?;
            if read.hash != hash {
                return Err(wrong(&path, "does not read back as it was written"));
            }
            Ok((path, hash))
        };
        blocking(folder, finish).await
    }

    async fn note_hash(&self, stream: &str, range: Noted, sha256: &[u8]) -> Result<(), JournalError> {
        let mut lent = self.writer(OPERATION, stream).await?;
        let first_seq = signed(stream, "first_seq", range.first_seq)?;
        let query = sqlx::query(NOTE_HASH).bind(stream).bind(first_seq).bind(sha256);
        let done = self.within(query.execute(lent.connection())).await;
        done.map_err(|source| self.failed(OPERATION, stream, source))?;
        lent.give_back();
        Ok(())
    }

    /// Deletes the rows up to `last_seq`, oldest first and few at a time.
    async fn delete_through(&self, stream: &str, last_seq: u64) -> Result<(), JournalError> {
        let last = signed(stream, "last_seq", last_seq)?;
        let Some(first) = self.read_number(OPERATION, stream, FIRST).await? else { return Ok(()) };
        for from in (first..=last).step_by(ROWS_AT_A_TIME as usize) {
            let through = last.min(from.saturating_add(ROWS_AT_A_TIME as i64 - 1));
            self.write(OPERATION, stream, DELETE, &[through]).await?;
        }
        Ok(())
    }
}

/// One archiver at a time in a folder. The lock goes with the process.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would not do: a child process that is just being started holds a copy of it for a
        // moment. What fails here is released by the closing.
        let _ = self.0.unlock();
    }
}

fn lock(folder: &Path) -> Result<Lock, JournalError> {
    if !folder.is_dir() {
        fs::create_dir_all(folder).map_err(|error| file_error(folder, "create", error))?;
        sync_folder(folder.parent().unwrap_or(Path::new(".")))?;
    }
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| file_error(&path, "create", error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(wrong(folder, "is in use by another archiver")),
        Err(TryLockError::Error(error)) => Err(file_error(&path, "lock", error)),
    }
}

/// The file that ends the chain so far must be there, or the folder is not the one used before.
async fn check_tail(folder: &Path, tail: Noted) -> Result<(), JournalError> {
    let check = move |folder: &Path| {
        let path = folder.join(name(tail.first_seq));
        if !path.exists() {
            return Err(wrong(&path, "is missing; is this the folder that was used before?"));
        }
        match Reader::open(&path)?.hash {
            hash if Some(hash) == tail.sha256 => Ok(()),
            _ => Err(wrong(&path, "is not the file that the database noted")),
        }
    };
    blocking(folder, check).await
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    folder: &Path,
    work: impl FnOnce(&Path) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let owned = folder.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.map_err(|error| file_error(folder, "work on files", std::io::Error::other(error)))?
}
