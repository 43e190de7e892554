//! The index of old answers: where the answer to a command id stands, for ids too old to be kept in memory.
//!
//! It is derived from the rows and built off the hot path, so it may lag; `answers_through` says how far it is.
//!
//! Keys are hashes, so a plain index over them would be written all over: with millions of ids nearly every new one
//! dirties a page of its own. Instead each call adds a *run*: its answers in the order of their keys, beside each
//! other, behind all runs before. That writes what it holds, and once. A look-up asks every run, and there are few:
//! callers add many thousands at a time. (The first step of a log-structured merge tree: O'Neil and others, 1996;
//! runs are not merged.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Connection, Row as _};

use crate::database::{Journal, bound, check_stream, signed};
use crate::error::JournalError;
use crate::rows::{begin, fixed};

/// A 128-bit hash of (principal, command id).
pub type AnswerKey = [u8; 16];

/// Where the answer to one command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose answer it is.
    pub key: AnswerKey,
    /// The row.
    pub seq: u64,
    /// The command's place in the row.
    pub index: u32,
    /// Hash of the command's content: the same id with another digest is not the same command.
    pub digest: u64,
}

/// A key in the index, and the run that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexedKey {
    /// The run.
    pub run: u64,
    /// The key.
    pub key: AnswerKey,
}

/// The answers found, by key.
pub type Found = BTreeMap<AnswerKey, Answer>;

/// Answers in one statement. One statement text serves any number: the last one is repeated to fill it.
const ANSWERS_PER_STATEMENT: usize = 64;

/// As many look-ups are also one statement: mostly few are asked for, and each costs a look into every run.
const FEW_ANSWERS: usize = 8;

/// Answers in one transaction, which bounds how long an append waits behind one.
const ANSWERS_PER_TRANSACTION: usize = 4_096;

/// An id that is in the run keeps its first place, whatever comes later: the first answer stands.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    let mut sql = "INSERT INTO indexed_answers (stream, run, id_hash, seq, entry, digest) VALUES ".to_owned();
    for place in 0..ANSWERS_PER_STATEMENT {
        let comma = if place == 0 { "" } else { ", " };
        let first = 3 + place * 4;
        // Writing to a string cannot fail.
        let _ = write!(sql, "{comma}($1, $2, ${first}, ${}, ${}, ${})", first + 1, first + 2, first + 3);
    }
    sql.push_str(" ON CONFLICT (stream, run, id_hash) DO NOTHING");
    sql
});

/// Run by run, each a look into the primary key: SQLite takes the tables of a cross join in their order.
const FIND_IN_RUNS: &str = "
SELECT a.id_hash, a.seq, a.entry, a.digest FROM answer_runs AS r CROSS JOIN indexed_answers AS a
WHERE r.stream = $1 AND a.stream = r.stream AND a.run = r.run AND a.id_hash";

static FIND: LazyLock<String> = LazyLock::new(|| find_some(ANSWERS_PER_STATEMENT));
static FIND_FEW: LazyLock<String> = LazyLock::new(|| find_some(FEW_ANSWERS));

fn find_some(keys: usize) -> String {
    let places: Vec<String> = (0..keys).map(|place| format!("${}", 2 + place)).collect();
    format!("{FIND_IN_RUNS} IN ({})", places.join(", "))
}

static FIND_ONE: LazyLock<String> = LazyLock::new(|| format!("{FIND_IN_RUNS} = $2"));

const COUNT: &str = "SELECT COUNT(DISTINCT id_hash) FROM indexed_answers WHERE stream = $1";

const KEYS: &str = "
SELECT run, id_hash FROM indexed_answers WHERE stream = $1 AND (run, id_hash) > ($2, $3)
ORDER BY run, id_hash LIMIT $4";

/// The run after the last. Two indexers at once may take the same, which is as good as one each.
const NEXT_RUN: &str = "SELECT 1 + COALESCE(MAX(run), 0) FROM answer_runs WHERE stream = $1";

const ADD_RUN: &str = "
INSERT INTO answer_runs (stream, run) VALUES ($1, $2) ON CONFLICT (stream, run) DO NOTHING";

const THROUGH: &str = "SELECT seq FROM answers_through WHERE stream = $1";

/// Never backwards: an indexer that lags behind another adds nothing.
const SET_THROUGH: &str = "
INSERT INTO answers_through (stream, seq) VALUES ($1, $2)
ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq WHERE answers_through.seq < excluded.seq";

impl Journal {
    /// Adds `answers` of `stream` to the index as a run, and notes that all rows up to `through_seq` are in it.
    /// Adding one again changes nothing that a look-up gives, so whoever was interrupted starts over from
    /// [`Journal::answers_through`]. Every look-up asks every run: add many at a time.
    ///
    /// # Errors
    /// A database error: some of the answers may be in the index, `through_seq` is not noted.
    pub async fn index_answers(
        &self,
        stream: &str,
        answers: &[Answer],
        through_seq: u64,
    ) -> Result<(), JournalError> {
        const OPERATION: &str = "index answers";
        check_stream(stream)?;
        let through = signed(stream, "through_seq", through_seq)?;
        for answer in answers {
            signed(stream, "seq", answer.seq)?;
        }
        // In the order of the index: two indexers at once then wait for each other instead of deadlocking, and
        // neighbours share pages. The sort is stable, so of two answers under one key the first is kept.
        let mut sorted = answers.to_vec();
        sorted.sort_by_key(|answer| answer.key);
        let run = self.read_number(OPERATION, stream, NEXT_RUN).await?.unwrap_or(1);
        for chunk in sorted.chunks(ANSWERS_PER_TRANSACTION) {
            let mut lent = self.writer(OPERATION, stream).await?;
            let work = async {
                let mut work = lent.connection().begin_with(begin(self.kind())).await?;
                sqlx::query(ADD_RUN).bind(stream).bind(run).execute(&mut *work).await?;
                for statement in chunk.chunks(ANSWERS_PER_STATEMENT) {
                    insert(&mut work, stream, run, statement).await?;
                }
                work.commit().await
            };
            self.within(work).await.map_err(|source| self.failed(OPERATION, stream, source))?;
            lent.give_back();
        }
        self.write(OPERATION, stream, SET_THROUGH, &[through]).await?;
        Ok(())
    }

    /// Those of `keys` that have an answer in the index of `stream`.
    ///
    /// # Errors
    /// A database error.
    pub async fn find_answers(&self, stream: &str, keys: &[AnswerKey]) -> Result<Found, JournalError> {
        const OPERATION: &str = "find answers";
        check_stream(stream)?;
        let mut found = Found::new();
        if let [key] = keys {
            let query = || sqlx::query(AssertSqlSafe(FIND_ONE.as_str())).bind(stream).bind(key.as_slice());
            let rows = self.read(OPERATION, stream, query).await?;
            collect(&rows, &mut found).map_err(|source| self.failed(OPERATION, stream, source))?;
            return Ok(found);
        }
        for chunk in keys.chunks(ANSWERS_PER_STATEMENT) {
            let (sql, places) = match chunk.len() {
                ..=FEW_ANSWERS => (&FIND_FEW, FEW_ANSWERS),
                _ => (&FIND, ANSWERS_PER_STATEMENT),
            };
            let query = || {
                let query = sqlx::query(AssertSqlSafe(sql.as_str())).bind(stream);
                filled(chunk, places).fold(query, |query, key| query.bind(key.as_slice()))
            };
            let rows = self.read(OPERATION, stream, query).await?;
            collect(&rows, &mut found).map_err(|source| self.failed(OPERATION, stream, source))?;
        }
        Ok(found)
    }

    /// How many answers the index of `stream` holds. Reads the whole index.
    ///
    /// # Errors
    /// A database error.
    pub async fn answer_count(&self, stream: &str) -> Result<u64, JournalError> {
        let count = self.read_number("count answers", stream, COUNT).await?;
        Ok(count.unwrap_or(0) as u64)
    }

    /// The row up to which the index of `stream` is complete; 0 where there is none.
    ///
    /// # Errors
    /// A database error.
    pub async fn answers_through(&self, stream: &str) -> Result<u64, JournalError> {
        let through = self.read_number("read the extent of the index of answers", stream, THROUGH).await?;
        Ok(through.unwrap_or(0) as u64)
    }

    /// Keys in the index of `stream` behind `after` (from the first: `None`), run by run, at most `max_keys`.
    /// Called again with the last one until nothing comes, it gives all of them, to rebuild a filter.
    ///
    /// # Errors
    /// A database error.
    pub async fn answer_keys(
        &self,
        stream: &str,
        after: Option<&IndexedKey>,
        max_keys: usize,
    ) -> Result<Vec<IndexedKey>, JournalError> {
        const OPERATION: &str = "list answers";
        check_stream(stream)?;
        if max_keys == 0 {
            return Err(bound(stream, "max_keys", "0", "at least 1".to_owned()));
        }
        let limit = i64::try_from(max_keys).unwrap_or(i64::MAX);
        // No run has the number 0.
        let (run, key) = after.map_or((0, &[][..]), |after| (after.run as i64, after.key.as_slice()));
        let query = || sqlx::query(KEYS).bind(stream).bind(run).bind(key).bind(limit);
        let rows = self.read(OPERATION, stream, query).await?;
        let key =
            |row: &AnyRow| Ok(IndexedKey { run: row.try_get::<i64, _>(0)? as u64, key: fixed(row, 1)? });
        let keys = rows.iter().map(key).collect::<Result<Vec<_>, sqlx::Error>>();
        keys.map_err(|source| self.failed(OPERATION, stream, source))
    }

    /// The first number of the first row of a query about `stream`.
    pub(crate) async fn read_number(
        &self,
        operation: &'static str,
        stream: &str,
        sql: &'static str,
    ) -> Result<Option<i64>, JournalError> {
        check_stream(stream)?;
        let rows = self.read(operation, stream, || sqlx::query(sql).bind(stream)).await?;
        let number = rows.first().map(|row| row.try_get(0)).transpose();
        number.map_err(|source| self.failed(operation, stream, source))
    }
}

async fn insert(
    connection: &mut sqlx::AnyConnection,
    stream: &str,
    run: i64,
    answers: &[Answer],
) -> Result<(), sqlx::Error> {
    let mut query = sqlx::query(AssertSqlSafe(INSERT.as_str())).bind(stream).bind(run);
    for answer in filled(answers, ANSWERS_PER_STATEMENT) {
        query = query
            .bind(answer.key.as_slice())
            .bind(answer.seq as i64)
            .bind(i64::from(answer.index))
            // The bits of the digest: SQL has no unsigned integers.
            .bind(answer.digest as i64);
    }
    query.execute(connection).await?;
    Ok(())
}

/// `chunk`, with its last element repeated until a statement is full.
fn filled<T>(chunk: &[T], places: usize) -> impl Iterator<Item = &T> {
    chunk.iter().chain(chunk.last().into_iter().cycle()).take(places)
}

fn collect(rows: &[AnyRow], found: &mut Found) -> Result<(), sqlx::Error> {
    for row in rows {
        let key = fixed(row, 0)?;
        let answer = Answer {
            key,
            seq: row.try_get::<i64, _>(1)? as u64,
            index: row.try_get::<i64, _>(2)? as u32,
            digest: row.try_get::<i64, _>(3)? as u64,
        };
        // Whichever run it stands in: the first answer stands.
        let first = found.entry(key).or_insert(answer);
        if (answer.seq, answer.index) < (first.seq, first.index) {
            *first = answer;
        }
    }
    Ok(())
}
