//! Rows of the journal, from the database or, where they have left it, from the archive.

use std::path::PathBuf;

use journal::{JournalError, Row as JournalRow};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use turn::{FoldError, ReadRow, Row, read_row};

use super::load::{LoadError, damaged, interrupted};
use super::rows::turn_row;
use super::{Context, Runnable};

/// Rows of one page.
const PAGE_ROWS_MAX: usize = 512;
/// Bytes of one page, as they are stored: about sixteen rows of full turns.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// Pages read ahead of the one that is next.
const PAGES_AHEAD: usize = 1;

/// What one reading gives: rows with their events.
pub(super) type Page<M> = Vec<ReadRow<<M as proto::Machine>::Event>>;

/// Rows in order: while one page is taken in, the events of the next ones are read on threads of their own and the
/// rows behind those are fetched.
pub(super) struct Pages<M: Runnable> {
    context: Context,
    pages: mpsc::Receiver<Result<Reading<M>, LoadError>>,
    /// Ends with this value.
    fetching: JoinSet<()>,
}

/// A page whose events are being read.
type Reading<M> = JoinHandle<Result<Page<M>, FoldError>>;

impl<M: Runnable> Pages<M> {
    pub(super) fn after(context: &Context, sequence: u64) -> Self {
        let (out, pages) = mpsc::channel(PAGES_AHEAD);
        let mut fetching = JoinSet::new();
        fetching.spawn(fetch::<M>(context.clone(), sequence, out));
        Self { context: context.clone(), pages, fetching }
    }

    /// The next page; `None` at the end of the journal.
    pub(super) async fn next(&mut self) -> Result<Option<Page<M>>, LoadError> {
        let Some(reading) = self.pages.recv().await else {
            // At the end, and not just gone.
            while let Some(ended) = self.fetching.join_next().await {
                ended.map_err(interrupted)?;
            }
            return Ok(None);
        };
        let read = reading?.await.map_err(interrupted)?;
        read.map(Some).map_err(|source| damaged(&self.context, source))
    }
}

async fn fetch<M: Runnable>(
    context: Context,
    mut after: u64,
    out: mpsc::Sender<Result<Reading<M>, LoadError>>,
) {
    loop {
        let reading = match page(&context, after).await {
            Ok(rows) => {
                let Some(last) = rows.last() else { return };
                after = last.seq;
                let stream = context.stream.clone();
                let read =
                    move || rows.into_iter().map(|row| read_row::<M>(&stream, turn_row(row))).collect();
                Ok(tokio::task::spawn_blocking(read))
            }
            Err(error) => Err(error),
        };
        let is_last = reading.is_err();
        // Who takes them in may be gone.
        if out.send(reading).await.is_err() || is_last {
            return;
        }
    }
}

/// The next rows, from the database or, where they have left it, from the archive.
async fn page(context: &Context, after: u64) -> Result<Vec<JournalRow>, LoadError> {
    let stream = &context.journal_stream;
    match context.journal.load_from(stream, after, PAGE_ROWS_MAX, PAGE_BYTES_MAX).await {
        Err(JournalError::Gap { expected, .. })
            if context.settings.archive_dir.is_some() && expected == after + 1 =>
        {
            let dir = context.archive_dir().unwrap_or_default();
            let rows = archived(dir, stream.to_string(), after, PAGE_ROWS_MAX).await?;
            // Nothing in the archive either: the gap is real.
            if rows.first().is_none_or(|row| row.seq != after + 1) {
                return Ok(context.journal.load_from(stream, after, PAGE_ROWS_MAX, PAGE_BYTES_MAX).await?);
            }
            Ok(rows)
        }
        other => Ok(other?),
    }
}

async fn archived(
    dir: PathBuf,
    stream: String,
    after: u64,
    rows_max: usize,
) -> Result<Vec<JournalRow>, LoadError> {
    let read = move || journal::archived_rows(&dir, &stream, after)?.take(rows_max).collect();
    let read: Result<Vec<_>, JournalError> = tokio::task::spawn_blocking(read).await.map_err(interrupted)?;
    Ok(read?)
}

/// One row, from the database or from the archive.
pub(super) async fn one_row(context: &Context, sequence: u64) -> Result<Option<Row>, LoadError> {
    if let Some(row) = context.journal.row(&context.journal_stream, sequence).await? {
        return Ok(Some(turn_row(row)));
    }
    let Some(dir) = context.archive_dir() else { return Ok(None) };
    let stream = context.journal_stream.to_string();
    let rows = archived(dir, stream, sequence.saturating_sub(1), 1).await?;
    Ok(rows.into_iter().next().filter(|row| row.seq == sequence).map(turn_row))
}
