//! Rows: appended behind the fence, read back in order.

use sqlx::any::AnyRow;
use sqlx::{Connection, Row as _};

use crate::claim::Owner;
use crate::database::{Appenders, Journal, Kind, bound, check_stream, signed};
use crate::error::JournalError;
use crate::limits::{APPEND_ROWS_MAX, ROW_BYTES_MAX};

/// One turn: what came in, what followed, and where that leaves the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Place in the stream: 1, 2, 3, ….
    pub seq: u64,
    /// The turn's instant, UTC microseconds.
    pub at_micros: i64,
    /// Version of the rules in force.
    pub rules: u32,
    /// Creation of the input stream that `position_sequence` counts in, UTC microseconds.
    pub position_created: i64,
    /// How far into its input the stream has come.
    pub position_sequence: u64,
    /// Highest `seq` known to be published when this row was written.
    pub published: u64,
    /// Hash of the machine's state after the turn.
    pub state_hash: [u8; 16],
    /// Hash over this row and the `chain` of the one before; made and checked by the caller.
    pub chain: [u8; 32],
    /// The turn's commands, in the caller's encoding.
    pub input: Vec<u8>,
    /// The turn's events, in the caller's encoding.
    pub events: Vec<u8>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The rows are durable.
    Committed,
    /// Nothing was written: the rows do not follow the stream's last one. Somebody else owns the stream.
    Stale,
}

/// The end of a stream: its last row without the bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last row's `seq`.
    pub seq: u64,
    /// Its instant, UTC microseconds.
    pub at_micros: i64,
    /// Version of the rules in force.
    pub rules: u32,
    /// Creation of the input stream, UTC microseconds.
    pub position_created: i64,
    /// How far into its input the stream has come.
    pub position_sequence: u64,
    /// Highest `seq` that was known to be published.
    pub published: u64,
    /// Hash of the machine's state after the last row.
    pub state_hash: [u8; 16],
    /// The last row's chain hash.
    pub chain: [u8; 32],
    /// Who wrote the last row.
    pub owner: String,
}

/// A row as it is stored: with the name of its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) row: Row,
    pub(crate) owner: String,
}

/// The whole fence. Selecting the constants under a condition costs one look at the end of the primary key's
/// index, where the insert goes anyway, and refuses a gap; the key itself refuses the second of two writers.
/// One statement is one transaction, so that an append of one row is one exchange with the database.
const INSERT: &str = "
INSERT INTO journal (stream, seq, at_micros, rules, position_created, position_sequence, published,
                     state_hash, chain, owner, input, events)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
WHERE $2 = 1 + COALESCE((SELECT MAX(seq) FROM journal WHERE stream = $1), 0)";

const HEAD: &str = "
SELECT seq, at_micros, rules, position_created, position_sequence, published, state_hash, chain, owner
FROM journal WHERE stream = $1 ORDER BY seq DESC LIMIT 1";

/// Sizes first: they come without the bodies, so that a page has a bound in bytes before it is fetched.
const SIZES: &str = "
SELECT seq, length(input) + length(events) FROM journal
WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3";

const ROWS: &str = "
SELECT seq, at_micros, rules, position_created, position_sequence, published, state_hash, chain, owner,
       input, events
FROM journal WHERE stream = $1 AND seq > $2 AND seq <= $3 ORDER BY seq";

/// Inserts one row through one driver's connection. `check_append` has seen that the counts fit.
macro_rules! insert {
    ($connection:expr, $stream:expr, $owner:expr, $row:expr) => {{
        let query = sqlx::query(INSERT)
            .bind($stream)
            .bind($row.seq as i64)
            .bind($row.at_micros)
            .bind(i64::from($row.rules))
            .bind($row.position_created)
            .bind($row.position_sequence as i64)
            .bind($row.published as i64)
            .bind($row.state_hash.as_slice())
            .bind($row.chain.as_slice())
            .bind($owner.as_str())
            // Given away, not lent: a driver copies what it is lent.
            .bind($row.input)
            .bind($row.events);
        match query.execute($connection).await {
            Ok(done) if done.rows_affected() == 1 => Ok(Appended::Committed),
            Ok(_) => Ok(Appended::Stale),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Appended::Stale),
            Err(error) => Err(error),
        }
    }};
}

/// An append through one driver's connections. A macro, because what SQL values a driver takes would have to be
/// said anew for a function over drivers, and is the same text for both here.
macro_rules! append_through {
    ($journal:expr, $appenders:expr, $stream:expr, $owner:expr, $rows:expr) => {{
        let work = async {
            let mut lent = $appenders.lend().await?;
            let appended = if $rows.len() == 1 {
                let mut appended = Appended::Stale;
                for row in $rows {
                    appended = insert!(lent.connection(), $stream, $owner, row)?;
                }
                appended
            } else {
                let mut work = lent.connection().begin_with(begin($journal.kind())).await?;
                let mut appended = Appended::Committed;
                for row in $rows {
                    appended = insert!(&mut *work, $stream, $owner, row)?;
                    if appended == Appended::Stale {
                        break;
                    }
                }
                match appended {
                    Appended::Committed => work.commit().await?,
                    Appended::Stale => work.rollback().await?,
                }
                appended
            };
            lent.give_back();
            Ok(appended)
        };
        $journal.within(work).await
    }};
}

impl Journal {
    /// Appends `rows` to `stream` in one transaction, in the name of `owner`. The first row must directly
    /// follow the stream's last one (be 1 in an empty stream).
    ///
    /// # Errors
    /// [`JournalError::Bound`]: the rows cannot be appended by anybody; nothing was written. Any other error:
    /// the outcome is unknown. It is never retried here; the caller drops its state and loads again.
    pub async fn append(&self, stream: &str, owner: &Owner, rows: &[Row]) -> Result<Appended, JournalError> {
        self.append_given(stream, owner, rows.to_vec()).await
    }

    /// As [`Journal::append`], of rows that the caller gives away: their bodies are not copied once more.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub async fn append_given(
        &self,
        stream: &str,
        owner: &Owner,
        rows: Vec<Row>,
    ) -> Result<Appended, JournalError> {
        const OPERATION: &str = "append";
        check_append(stream, &rows)?;
        let bytes = rows.iter().map(bytes_of).sum();
        let appended = match self.appenders() {
            Appenders::Sqlite(appenders) => append_through!(self, appenders, stream, owner, rows),
            Appenders::Postgres(appenders) => append_through!(self, appenders, stream, owner, rows),
        };
        let appended = appended.map_err(|source| self.failed(OPERATION, stream, source))?;
        self.note_written(bytes);
        Ok(appended)
    }

    /// The rows of `stream` that follow `after_seq`, in order: at most `max_rows`, and together at most
    /// `max_bytes` of input and events, but always at least one if there is one. Empty: there are no more.
    ///
    /// # Errors
    /// [`JournalError::Gap`] where a row is missing (rows at the start may have been archived), a row of
    /// impossible content, or a database error.
    pub async fn load_from(
        &self,
        stream: &str,
        after_seq: u64,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, JournalError> {
        let stored = self.load_stored(stream, after_seq, max_rows, max_bytes).await?;
        Ok(stored.into_iter().map(|stored| stored.row).collect())
    }

    /// The end of `stream`, or `None` where it has no rows.
    ///
    /// # Errors
    /// A database error, or a row of impossible content.
    pub async fn head(&self, stream: &str) -> Result<Option<Head>, JournalError> {
        const OPERATION: &str = "read the head";
        check_stream(stream)?;
        let found = self.read(OPERATION, stream, || sqlx::query(HEAD).bind(stream)).await?;
        found.first().map(|row| self.decode_head(stream, row)).transpose()
    }

    /// One row, or `None` where it does not exist or was archived.
    ///
    /// # Errors
    /// A database error, or a row of impossible content.
    pub async fn row(&self, stream: &str, seq: u64) -> Result<Option<Row>, JournalError> {
        let Some(after_seq) = seq.checked_sub(1) else { return Ok(None) };
        let stored = self.rows_between(stream, after_seq, seq).await?;
        Ok(stored.into_iter().next().map(|stored| stored.row))
    }

    /// As [`Journal::load_from`], with the writers' names.
    pub(crate) async fn load_stored(
        &self,
        stream: &str,
        after_seq: u64,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let sizes = self.sizes(stream, after_seq, max_rows).await?;
        let Some(last) = last_within(&sizes, max_bytes) else { return Ok(Vec::new()) };
        let stored = self.rows_between(stream, after_seq, last).await?;
        for (expected, found) in (after_seq + 1..).zip(stored.iter().map(|stored| stored.row.seq)) {
            if found != expected {
                let (database, stream) = (self.label(), stream.to_owned());
                return Err(JournalError::Gap { database, stream, expected, found });
            }
        }
        Ok(stored)
    }

    /// `seq` and bytes of the rows that follow `after_seq`.
    pub(crate) async fn sizes(
        &self,
        stream: &str,
        after_seq: u64,
        max_rows: usize,
    ) -> Result<Vec<(u64, usize)>, JournalError> {
        const OPERATION: &str = "read the sizes of rows";
        check_stream(stream)?;
        let after = signed(stream, "after_seq", after_seq)?;
        let limit = i64::try_from(max_rows.max(1)).unwrap_or(i64::MAX);
        let query = || sqlx::query(SIZES).bind(stream).bind(after).bind(limit);
        let found = self.read(OPERATION, stream, query).await?;
        let size = |row: &AnyRow| Ok((row.try_get::<i64, _>(0)? as u64, row.try_get::<i64, _>(1)? as usize));
        let sizes = found.iter().map(size).collect::<Result<Vec<_>, sqlx::Error>>();
        sizes.map_err(|source| self.failed(OPERATION, stream, source))
    }

    async fn rows_between(
        &self,
        stream: &str,
        after_seq: u64,
        last_seq: u64,
    ) -> Result<Vec<Stored>, JournalError> {
        const OPERATION: &str = "read rows";
        check_stream(stream)?;
        let (after, last) = (signed(stream, "after_seq", after_seq)?, signed(stream, "seq", last_seq)?);
        let query = || sqlx::query(ROWS).bind(stream).bind(after).bind(last);
        let found = self.read(OPERATION, stream, query).await?;
        found.iter().map(|row| self.decode_row(stream, row)).collect()
    }

    fn decode_head(&self, stream: &str, row: &AnyRow) -> Result<Head, JournalError> {
        let number = |index: usize| row.try_get::<i64, _>(index);
        let fields = || -> Result<Head, sqlx::Error> {
            Ok(Head {
                seq: number(0)? as u64,
                at_micros: number(1)?,
                rules: u32::try_from(number(2)?).map_err(|error| sqlx::Error::Decode(error.into()))?,
                position_created: number(3)?,
                position_sequence: number(4)? as u64,
                published: number(5)? as u64,
                state_hash: fixed(row, 6)?,
                chain: fixed(row, 7)?,
                owner: row.try_get(8)?,
            })
        };
        fields().map_err(|source| self.damaged(stream, number(0).unwrap_or(0) as u64, &source))
    }

    fn decode_row(&self, stream: &str, row: &AnyRow) -> Result<Stored, JournalError> {
        let head = self.decode_head(stream, row)?;
        let body = |index: usize| {
            row.try_get::<Vec<u8>, _>(index).map_err(|source| self.damaged(stream, head.seq, &source))
        };
        let (input, events) = (body(9)?, body(10)?);
        let row = Row {
            seq: head.seq,
            at_micros: head.at_micros,
            rules: head.rules,
            position_created: head.position_created,
            position_sequence: head.position_sequence,
            published: head.published,
            state_hash: head.state_hash,
            chain: head.chain,
            input,
            events,
        };
        Ok(Stored { row, owner: head.owner })
    }

    fn damaged(&self, stream: &str, seq: u64, source: &sqlx::Error) -> JournalError {
        let (database, what) = (self.label(), source.to_string());
        JournalError::Damaged { database, stream: stream.to_owned(), seq, what }
    }
}

/// How a transaction begins that will write. SQLite must take its write lock at once: a transaction that
/// begins by reading and upgrades later fails without waiting when another wrote in between.
pub(crate) fn begin(kind: Kind) -> &'static str {
    match kind {
        Kind::Sqlite => "BEGIN IMMEDIATE",
        Kind::Postgres => "BEGIN",
    }
}

fn check_append(stream: &str, rows: &[Row]) -> Result<(), JournalError> {
    check_stream(stream)?;
    if !(1..=APPEND_ROWS_MAX).contains(&rows.len()) {
        return Err(bound(stream, "rows", &rows.len().to_string(), format!("1 to {APPEND_ROWS_MAX}")));
    }
    let mut before: Option<u64> = None;
    for row in rows {
        signed(stream, "seq", row.seq)?;
        signed(stream, "position_sequence", row.position_sequence)?;
        signed(stream, "published", row.published)?;
        if let Some(before) = before.filter(|before| row.seq != before + 1) {
            return Err(bound(stream, "seq", &row.seq.to_string(), format!("{}", before + 1)));
        }
        before = Some(row.seq);
        let bytes = bytes_of(row);
        if bytes > ROW_BYTES_MAX {
            return Err(bound(
                stream,
                "bytes of a row",
                &bytes.to_string(),
                format!("at most {ROW_BYTES_MAX}"),
            ));
        }
    }
    Ok(())
}

fn bytes_of(row: &Row) -> usize {
    row.input.len() + row.events.len()
}

/// The last row of a page of at most `max_bytes`, but at least one row, so that reading always proceeds.
fn last_within(sizes: &[(u64, usize)], max_bytes: usize) -> Option<u64> {
    let mut bytes = 0_usize;
    let mut last = None;
    for &(seq, size) in sizes {
        bytes = bytes.saturating_add(size);
        if last.is_some() && bytes > max_bytes {
            break;
        }
        last = Some(seq);
    }
    last
}

/// A blob of a fixed length.
pub(crate) fn fixed<const N: usize>(row: &AnyRow, index: usize) -> Result<[u8; N], sqlx::Error> {
    let bytes: &[u8] = row.try_get(index)?;
    bytes.try_into().map_err(|_| {
        sqlx::Error::Decode(format!("column {index} holds {} bytes, must be {N}", bytes.len()).into())
    })
}

#[cfg(test)]
mod tests {
    use super::last_within;

    #[test]
    fn a_page_ends_before_the_bytes_do_but_is_never_empty() {
        let sizes = [(5, 10), (6, 10), (7, 10)];
        for (max_bytes, last) in [(0, 5), (9, 5), (10, 5), (19, 5), (20, 6), (30, 7), (usize::MAX, 7)] {
            assert_eq!(last_within(&sizes, max_bytes), Some(last), "{max_bytes}");
        }
        assert_eq!(last_within(&[], 10), None);
    }
}
