//! The index of old answers: where the answer to a command id stands, for ids too old to be kept in memory.
//!
//! It is derived from the rows and built off the hot path, so it may lag; `answers_through` says how far it is.
//!
//! Keys are hashes, so a plain index over them would be written all over: with millions of ids nearly every new one
//! dirties a page of its own. Instead each call adds a *run*: its answers in the order of their keys, many to a
//! database row, a *block*, behind all runs before. That writes what it holds, and once; a block costs hardly more
//! than one answer in a row of its own would. A look-up asks every run for the block that its key would be in, and
//! there are few runs: callers add many thousands at a time. (The first step of a log-structured merge tree: O'Neil
//! and others, 1996; runs are not merged.)

use std::collections::{BTreeMap, BTreeSet};

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Connection, Row as _};

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

/// Answers in one block: so many that a block's own cost is small beside them, so few that a look-up reads no more
/// than a page.
const BLOCK_ANSWERS: usize = 64;

/// Bytes of an answer in a block: key, row, place and digest, numbers in network order.
const ANSWER_BYTES: usize = 36;

/// Blocks in one transaction, which bounds how long an append waits behind one.
const BLOCKS_PER_TRANSACTION: usize = 128;

/// Other indexers that may each take a number for their run before this one gets its own.
const RUN_ATTEMPTS_MAX: usize = 64;

/// Rows of the second version's index that are taken over at a time.
const TAKEN_OVER_AT_A_TIME: i64 = 16_384;

/// Refuses the number of a run that is there: a run is of one indexer, in whose order its blocks lie.
const ADD_RUN: &str = "
INSERT INTO answer_runs (stream, run) VALUES ($1, $2) ON CONFLICT (stream, run) DO NOTHING";

const ADD_BLOCK: &str = "
INSERT INTO answer_blocks (stream, run, first_hash, answers) VALUES ($1, $2, $3, $4)";

/// Run by run, each two looks into the primary key: SQLite takes the tables of a cross join in their order.
const FIND: &str = "
SELECT b.answers FROM answer_runs AS r CROSS JOIN answer_blocks AS b
WHERE r.stream = $1 AND b.stream = r.stream AND b.run = r.run AND b.first_hash = (
  SELECT c.first_hash FROM answer_blocks AS c
  WHERE c.stream = r.stream AND c.run = r.run AND c.first_hash <= $2 ORDER BY c.first_hash DESC LIMIT 1)";

/// From the block on that holds a key.
const BLOCKS: &str = "
SELECT run, answers FROM answer_blocks WHERE stream = $1 AND (run, first_hash) >= ($2, COALESCE((
  SELECT first_hash FROM answer_blocks WHERE stream = $1 AND run = $2 AND first_hash <= $3
  ORDER BY first_hash DESC LIMIT 1), $3))
ORDER BY run, first_hash LIMIT $4";

/// The run after the last. Two indexers at once may be told the same, and only one gets it.
const NEXT_RUN: &str = "SELECT 1 + COALESCE(MAX(run), 0) FROM answer_runs WHERE stream = $1";

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
        let mut sorted = answers.to_vec();
        // Stable, so of two answers under one key the first is kept.
        sorted.sort_by_key(|answer| answer.key);
        sorted.dedup_by_key(|answer| answer.key);
        if !sorted.is_empty() {
            let run = self.new_run(stream).await?;
            for chunk in sorted.chunks(BLOCK_ANSWERS * BLOCKS_PER_TRANSACTION) {
                let mut lent = self.writer(OPERATION, stream).await?;
                let work = async {
                    let mut work = lent.connection().begin_with(begin(self.kind())).await?;
                    add_blocks(&mut work, stream, run, chunk).await?;
                    work.commit().await
                };
                self.within(work).await.map_err(|source| self.failed(OPERATION, stream, source))?;
                lent.give_back();
            }
        }
        self.write(OPERATION, stream, SET_THROUGH, &[through]).await?;
        Ok(())
    }

    /// A number for a run that is nobody else's. One that stays empty does no harm.
    async fn new_run(&self, stream: &str) -> Result<i64, JournalError> {
        const OPERATION: &str = "begin a run of answers";
        for _ in 0..RUN_ATTEMPTS_MAX {
            let run = self.read_number(OPERATION, stream, NEXT_RUN).await?.unwrap_or(1);
            if self.write(OPERATION, stream, ADD_RUN, &[run]).await? == 1 {
                return Ok(run);
            }
        }
        let allowed = format!("at most {RUN_ATTEMPTS_MAX}");
        Err(bound(stream, "indexers at once", "more", allowed))
    }

    /// Those of `keys` that have an answer in the index of `stream`.
    ///
    /// # Errors
    /// A database error.
    pub async fn find_answers(&self, stream: &str, keys: &[AnswerKey]) -> Result<Found, JournalError> {
        const OPERATION: &str = "find answers";
        check_stream(stream)?;
        let mut found = Found::new();
        for key in keys {
            let query = || sqlx::query(FIND).bind(stream).bind(key.as_slice());
            let rows = self.read(OPERATION, stream, query).await?;
            let first = rows.iter().map(|row| find_in(row, key)).collect::<Result<Vec<_>, _>>();
            let first = first.map_err(|source| self.failed(OPERATION, stream, source))?;
            // Whichever run it stands in: the first answer stands.
            let first = first.into_iter().flatten().min_by_key(|answer| (answer.seq, answer.index));
            found.extend(first.map(|answer| (*key, answer)));
        }
        Ok(found)
    }

    /// How many different keys the index of `stream` holds. Reads the whole index.
    ///
    /// # Errors
    /// A database error.
    pub async fn answer_count(&self, stream: &str) -> Result<u64, JournalError> {
        const PAGE_KEYS: usize = 65_536;
        let (mut keys, mut after) = (BTreeSet::new(), None);
        loop {
            let page = self.answer_keys(stream, after.as_ref(), PAGE_KEYS).await?;
            let Some(last) = page.last() else { return Ok(keys.len() as u64) };
            after = Some(*last);
            keys.extend(page.into_iter().map(|indexed| indexed.key));
        }
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
        // Of the first and the last block some keys may not be wanted.
        let blocks = i64::try_from(max_keys / BLOCK_ANSWERS + 2).unwrap_or(i64::MAX);
        // No run has the number 0.
        let (run, key) = after.map_or((0, &[][..]), |after| (after.run as i64, after.key.as_slice()));
        let query = || sqlx::query(BLOCKS).bind(stream).bind(run).bind(key).bind(blocks);
        let rows = self.read(OPERATION, stream, query).await?;
        let mut keys = Vec::new();
        for row in &rows {
            let listed = list(row).map_err(|source| self.failed(OPERATION, stream, source))?;
            keys.extend(listed.into_iter().filter(|indexed| after.is_none_or(|after| indexed > after)));
        }
        keys.truncate(max_keys);
        Ok(keys)
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

/// Adds answers in the order of their keys.
async fn add_blocks(
    connection: &mut AnyConnection,
    stream: &str,
    run: i64,
    answers: &[Answer],
) -> Result<(), sqlx::Error> {
    for block in answers.chunks(BLOCK_ANSWERS) {
        let Some(first) = block.first() else { continue };
        let body: Vec<u8> = block.iter().flat_map(encoded).collect();
        let query = sqlx::query(ADD_BLOCK).bind(stream).bind(run).bind(first.key.as_slice()).bind(body);
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

fn encoded(answer: &Answer) -> [u8; ANSWER_BYTES] {
    let mut bytes = [0; ANSWER_BYTES];
    bytes[..16].copy_from_slice(&answer.key);
    bytes[16..24].copy_from_slice(&answer.seq.to_be_bytes());
    bytes[24..28].copy_from_slice(&answer.index.to_be_bytes());
    bytes[28..].copy_from_slice(&answer.digest.to_be_bytes());
    bytes
}

fn decoded(bytes: &[u8; ANSWER_BYTES]) -> Option<Answer> {
    let (key, rest) = bytes.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (index, digest) = rest.split_first_chunk()?;
    let digest = u64::from_be_bytes(digest.try_into().ok()?);
    Some(Answer { key: *key, seq: u64::from_be_bytes(*seq), index: u32::from_be_bytes(*index), digest })
}

/// The answers in a column of a row, in the order of their keys.
fn block(row: &AnyRow, index: usize) -> Result<Vec<Answer>, sqlx::Error> {
    let bytes: &[u8] = row.try_get(index)?;
    let (answers, rest) = bytes.as_chunks::<ANSWER_BYTES>();
    if !rest.is_empty() {
        return Err(sqlx::Error::Decode(format!("a block of answers has {} bytes", bytes.len()).into()));
    }
    Ok(answers.iter().filter_map(decoded).collect())
}

fn find_in(row: &AnyRow, key: &AnswerKey) -> Result<Option<Answer>, sqlx::Error> {
    let block = block(row, 0)?;
    Ok(block.binary_search_by_key(key, |answer| answer.key).ok().and_then(|place| block.get(place).copied()))
}

fn list(row: &AnyRow) -> Result<Vec<IndexedKey>, sqlx::Error> {
    let run = row.try_get::<i64, _>(0)? as u64;
    Ok(block(row, 1)?.into_iter().map(|answer| IndexedKey { run, key: answer.key }).collect())
}

/// Takes over the index of the second version, in which each answer was a row. Within the transaction that brings
/// the tables up to date.
pub(crate) async fn take_over(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    const OLD: &str = "
SELECT stream, run, id_hash, seq, entry, digest FROM indexed_answers
WHERE (stream, run, id_hash) > ($1, $2, $3) ORDER BY stream, run, id_hash LIMIT $4";
    let mut after = (String::new(), 0_i64, Vec::new());
    loop {
        let query = sqlx::query(OLD).bind(after.0).bind(after.1).bind(after.2).bind(TAKEN_OVER_AT_A_TIME);
        let rows = query.fetch_all(&mut *connection).await?;
        let old = |row: &AnyRow| {
            let (index, digest) = (row.try_get::<i64, _>(4)? as u32, row.try_get::<i64, _>(5)? as u64);
            let answer = Answer { key: fixed(row, 2)?, seq: row.try_get::<i64, _>(3)? as u64, index, digest };
            Ok::<_, sqlx::Error>((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?, answer))
        };
        let old = rows.iter().map(old).collect::<Result<Vec<_>, _>>()?;
        let Some((stream, run, last)) = old.last() else { return Ok(()) };
        after = (stream.clone(), *run, last.key.to_vec());
        for of_run in old.chunk_by(|left, right| (&left.0, left.1) == (&right.0, right.1)) {
            let Some((stream, run, _)) = of_run.first() else { continue };
            let answers: Vec<Answer> = of_run.iter().map(|(.., answer)| *answer).collect();
            add_blocks(connection, stream, *run, &answers).await?;
        }
    }
}
