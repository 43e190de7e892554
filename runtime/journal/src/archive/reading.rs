//! Reading archives back: to check them, and to audit from the first row.

use std::fs;
use std::path::{Path, PathBuf};

use super::ArchiveTail;
use super::file::{Reader, file_error, folder, wrong};
use crate::error::JournalError;
use crate::rows::Row;

/// Checks every file under `dir`: its hash, its rows, and that it follows the one before. Returns how far each
/// stream reaches, by folder name. Reads everything, and blocks: not for an async thread.
///
/// Whether the newest files are there at all only the database knows: compare with
/// [`Journal::archive_tail`](crate::Journal::archive_tail).
///
/// # Errors
/// The first file that is damaged, out of place or unreadable.
pub fn verify_archive(dir: &Path) -> Result<Vec<ArchiveTail>, JournalError> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| file_error(dir, "list", error))? {
        let path = entry.map_err(|error| file_error(dir, "list", error))?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    let mut tails = Vec::with_capacity(folders.len());
    for folder in folders {
        let mut rows = ArchivedRows::of_folder(&folder, 0)?;
        for row in rows.by_ref() {
            row?;
        }
        tails.extend(rows.tail);
    }
    Ok(tails)
}

/// The archived rows of `stream` that follow `after_seq`, in order and checked as [`verify_archive`] does.
/// Blocks: not for an async thread. None where nothing was archived.
///
/// # Errors
/// A folder that cannot be read. Damage shows as an error among the rows, which ends them.
pub fn archived_rows(dir: &Path, stream: &str, after_seq: u64) -> Result<ArchivedRows, JournalError> {
    let folder = folder(dir, stream);
    let mut rows = ArchivedRows::of_folder(&folder, after_seq)?;
    rows.stream = Some(stream.to_owned());
    Ok(rows)
}

/// Archived rows, in order, one file in memory at no time. Ends after the first error.
#[derive(Debug)]
pub struct ArchivedRows {
    /// Files left, in order.
    files: std::vec::IntoIter<PathBuf>,
    open: Option<Reader>,
    after_seq: u64,
    /// The stream the files must be of: the one asked for, else the first file's.
    stream: Option<String>,
    /// The file before the open one.
    tail: Option<ArchiveTail>,
    ended: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reader").field("header", &self.header).finish_non_exhaustive()
    }
}

impl ArchivedRows {
    fn of_folder(folder: &Path, after_seq: u64) -> Result<Self, JournalError> {
        let mut files = Vec::new();
        if folder.is_dir() {
            for entry in fs::read_dir(folder).map_err(|error| file_error(folder, "list", error))? {
                let path = entry.map_err(|error| file_error(folder, "list", error))?.path();
                if path.extension().is_some_and(|extension| extension == "rows") {
                    files.push(path);
                }
            }
        }
        // Names are first rows with leading zeros.
        files.sort();
        let files = files.into_iter();
        Ok(Self { files, open: None, after_seq, stream: None, tail: None, ended: false })
    }

    fn next_row(&mut self) -> Result<Option<Row>, JournalError> {
        loop {
            if let Some(reader) = &mut self.open {
                match reader.next_row()? {
                    Some(stored) if stored.row.seq > self.after_seq => return Ok(Some(stored.row)),
                    Some(_) => continue,
                    None => self.open = None,
                }
            }
            let Some(path) = self.files.next() else { return Ok(None) };
            self.enter(&path)?;
        }
    }

    /// Opens the next file and checks that it follows the one before.
    fn enter(&mut self, path: &Path) -> Result<(), JournalError> {
        let reader = Reader::open(path)?;
        let header = &reader.header;
        let (first_seq, previous) =
            self.tail.as_ref().map_or((1, [0; 32]), |tail| (tail.last_seq + 1, tail.sha256));
        if header.first_seq != first_seq || header.last_seq < first_seq {
            let what = format!(
                "holds rows {} to {}, must begin with {first_seq}",
                header.first_seq, header.last_seq
            );
            return Err(wrong(path, what));
        }
        if path.file_name().is_none_or(|found| *found != *super::file::name(first_seq)) {
            return Err(wrong(path, format!("its name does not say that it begins with row {first_seq}")));
        }
        if header.previous != previous {
            return Err(wrong(path, "does not follow the file before: the hash in its header is another"));
        }
        let stream = self.stream.get_or_insert_with(|| header.stream.clone());
        if *stream != header.stream {
            return Err(wrong(path, format!("is of stream {}, must be of {stream}", header.stream)));
        }
        self.tail =
            Some(ArchiveTail { stream: stream.clone(), last_seq: header.last_seq, sha256: reader.hash });
        self.open = Some(reader);
        Ok(())
    }
}

impl Iterator for ArchivedRows {
    type Item = Result<Row, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_row().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
