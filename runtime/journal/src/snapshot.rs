//! Snapshots: states a replay can start from. Losing one costs time, never data, so whatever is wrong with one
//! is a reason to skip it.

use sha2::{Digest, Sha256};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::database::{Journal, bound, check_stream, signed};
use crate::error::JournalError;
use crate::limits::{SNAPSHOT_PART_BYTES_MAX, SNAPSHOT_PARTS_MAX, SNAPSHOTS_KEPT};
use crate::rows::fixed;

/// A state after a row, in the caller's canonical encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The row whose effects are the last ones in it.
    pub seq: u64,
    /// Version of the encoding. A program loads only the version it knows.
    pub version: u32,
    /// The encoded state.
    pub body: Vec<u8>,
}

/// The newest usable snapshot, and what was passed over to find it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedSnapshot {
    /// The newest good one of the version asked for, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Newer ones that could not be used, newest first. For the log and a metric.
    pub skipped: Vec<Skipped>,
}

/// A snapshot that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The row it was made after.
    pub seq: u64,
    /// The version of its encoding.
    pub version: i64,
    /// Why it was skipped.
    pub why: String,
}

/// The row that makes the parts a snapshot. It is written last, so that a torn save is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Title {
    seq: i64,
    version: i64,
    parts: i64,
    bytes: i64,
    sha256: [u8; 32],
}

/// Parts fetched in one query: 4 MiB.
const PARTS_FETCHED: i64 = 16;

/// Snapshots looked at. More can only be there when pruning failed again and again.
const TITLES_MAX: i64 = 64;

const TITLES: &str = "
SELECT seq, version, parts, bytes, sha256 FROM snapshots WHERE stream = $1
ORDER BY seq DESC, version DESC LIMIT $2";

const PARTS: &str = "
SELECT body FROM snapshot_parts
WHERE stream = $1 AND seq = $2 AND version = $3 AND part >= $4 AND part < $5 ORDER BY part";

/// A part left over from a save that was interrupted is replaced.
const SAVE_PART: &str = "
INSERT INTO snapshot_parts (stream, seq, version, part, body) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (stream, seq, version, part) DO UPDATE SET body = excluded.body";

const SAVE_TITLE: &str = "
INSERT INTO snapshots (stream, seq, version, parts, bytes, sha256) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (stream, seq, version)
DO UPDATE SET parts = excluded.parts, bytes = excluded.bytes, sha256 = excluded.sha256";

const DROP_TITLE: &str = "DELETE FROM snapshots WHERE stream = $1 AND seq = $2 AND version = $3";

const DROP_PARTS: &str =
    "DELETE FROM snapshot_parts WHERE stream = $1 AND seq = $2 AND version = $3 AND part >= $4 AND part < $5";

/// Parts of saves that never came to their title, or whose title was dropped. Only before the snapshot just
/// saved: a later save may be under way.
const ORPHANS: &str = "
SELECT seq, version, MAX(part) FROM snapshot_parts
WHERE stream = $1 AND seq < $2 AND NOT EXISTS (
  SELECT 1 FROM snapshots WHERE snapshots.stream = snapshot_parts.stream
  AND snapshots.seq = snapshot_parts.seq AND snapshots.version = snapshot_parts.version)
GROUP BY seq, version";

impl Journal {
    /// Saves a snapshot of `stream`, then drops all but the newest three of its version, and all but the newest
    /// three of other versions. Every part is a transaction of its own, so that an append waits for one part
    /// at most; an interrupted save leaves no snapshot.
    ///
    /// # Errors
    /// A body above 2 GiB, or a database error; the snapshot may then be saved or not.
    pub async fn save_snapshot(&self, stream: &str, snapshot: &Snapshot) -> Result<(), JournalError> {
        const OPERATION: &str = "save a snapshot";
        check_stream(stream)?;
        let title = title_of(stream, snapshot)?;
        // A good title over parts that are being replaced would be a damaged snapshot for a while.
        self.write(OPERATION, stream, DROP_TITLE, &[title.seq, title.version]).await?;
        for (part, body) in snapshot.body.chunks(SNAPSHOT_PART_BYTES_MAX).enumerate() {
            let mut lent = self.writer(OPERATION, stream).await?;
            let query = sqlx::query(SAVE_PART)
                .bind(stream)
                .bind(title.seq)
                .bind(title.version)
                .bind(part as i64)
                .bind(body);
            let done = self.within(query.execute(lent.connection())).await;
            done.map_err(|source| self.failed(OPERATION, stream, source))?;
            lent.give_back();
        }
        let mut lent = self.writer(OPERATION, stream).await?;
        let query = sqlx::query(SAVE_TITLE)
            .bind(stream)
            .bind(title.seq)
            .bind(title.version)
            .bind(title.parts)
            .bind(title.bytes)
            .bind(title.sha256.as_slice());
        let done = self.within(query.execute(lent.connection())).await;
        done.map_err(|source| self.failed(OPERATION, stream, source))?;
        lent.give_back();
        self.prune_snapshots(stream, &title).await
    }

    /// The newest good snapshot of `stream` in encoding `version`, and those that had to be skipped.
    ///
    /// # Errors
    /// A database error. A damaged or unknown snapshot is not an error.
    pub async fn load_snapshot(&self, stream: &str, version: u32) -> Result<LoadedSnapshot, JournalError> {
        let mut loaded = LoadedSnapshot::default();
        for title in self.snapshot_titles(stream).await? {
            let skipped = if title.version == i64::from(version) {
                match self.read_snapshot(stream, &title).await? {
                    Ok(snapshot) => {
                        loaded.snapshot = Some(snapshot);
                        break;
                    }
                    Err(why) => why,
                }
            } else {
                format!("its version is {}, this program reads {version}", title.version)
            };
            tracing::warn!(database = self.database(), stream, seq = title.seq, why = %skipped,
                "a snapshot is skipped");
            loaded.skipped.push(Skipped { seq: title.seq as u64, version: title.version, why: skipped });
        }
        Ok(loaded)
    }

    /// The `seq` of the oldest good snapshot in encoding `version`: rows after it are needed to start from any.
    pub(crate) async fn covered_by_snapshots(
        &self,
        stream: &str,
        version: u32,
    ) -> Result<Option<u64>, JournalError> {
        let titles = self.snapshot_titles(stream).await?;
        for title in titles.iter().rev().filter(|title| title.version == i64::from(version)) {
            if self.read_snapshot(stream, title).await?.is_ok() {
                return Ok(Some(title.seq as u64));
            }
        }
        Ok(None)
    }

    async fn snapshot_titles(&self, stream: &str) -> Result<Vec<Title>, JournalError> {
        const OPERATION: &str = "list snapshots";
        check_stream(stream)?;
        let query = || sqlx::query(TITLES).bind(stream).bind(TITLES_MAX);
        let found = self.read(OPERATION, stream, query).await?;
        let title = |row: &AnyRow| {
            Ok(Title {
                seq: row.try_get(0)?,
                version: row.try_get(1)?,
                parts: row.try_get(2)?,
                bytes: row.try_get(3)?,
                // A hash of another length matches nothing, so the snapshot is skipped, not an error.
                sha256: fixed(row, 4).unwrap_or_default(),
            })
        };
        let titles = found.iter().map(title).collect::<Result<Vec<_>, sqlx::Error>>();
        titles.map_err(|source| self.failed(OPERATION, stream, source))
    }

    /// The inner result says why the snapshot cannot be used.
    async fn read_snapshot(
        &self,
        stream: &str,
        title: &Title,
    ) -> Result<Result<Snapshot, String>, JournalError> {
        const OPERATION: &str = "load a snapshot";
        let bytes_max = SNAPSHOT_PARTS_MAX * SNAPSHOT_PART_BYTES_MAX;
        let Some(bytes) = usize::try_from(title.bytes).ok().filter(|bytes| *bytes <= bytes_max) else {
            return Ok(Err(format!("its length is {}, at most {bytes_max} is possible", title.bytes)));
        };
        let parts = title.parts.clamp(0, SNAPSHOT_PARTS_MAX as i64);
        let mut body = Vec::with_capacity(bytes);
        for from in (0..parts).step_by(PARTS_FETCHED as usize) {
            let through = (from + PARTS_FETCHED).min(parts);
            let place = [title.seq, title.version, from, through];
            let query =
                || place.iter().fold(sqlx::query(PARTS).bind(stream), |query, number| query.bind(*number));
            for row in self.read(OPERATION, stream, query).await? {
                let part = row.try_get::<&[u8], _>(0);
                body.extend_from_slice(part.map_err(|source| self.failed(OPERATION, stream, source))?);
            }
        }
        if body.len() != bytes {
            return Ok(Err(format!("{} of {bytes} bytes are there", body.len())));
        }
        if hash(title.seq, title.version, &body) != title.sha256 {
            return Ok(Err("its hash does not match".to_owned()));
        }
        // The version asked for was a u32, and this title's equals it.
        Ok(Ok(Snapshot { seq: title.seq as u64, version: title.version as u32, body }))
    }

    async fn prune_snapshots(&self, stream: &str, saved: &Title) -> Result<(), JournalError> {
        const OPERATION: &str = "drop old snapshots";
        let titles = self.snapshot_titles(stream).await?;
        let (same, other): (Vec<_>, Vec<_>) =
            titles.into_iter().partition(|title| title.version == saved.version);
        for title in same.iter().skip(SNAPSHOTS_KEPT).chain(other.iter().skip(SNAPSHOTS_KEPT)) {
            self.write(OPERATION, stream, DROP_TITLE, &[title.seq, title.version]).await?;
        }
        let query = || sqlx::query(ORPHANS).bind(stream).bind(saved.seq);
        let found = self.read(OPERATION, stream, query).await?;
        let orphan = |row: &AnyRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let orphans = found.iter().map(orphan).collect::<Result<Vec<(i64, i64, i64)>, sqlx::Error>>();
        let orphans = orphans.map_err(|source| self.failed(OPERATION, stream, source))?;
        for (seq, version, last) in orphans {
            // From the end, so that what an interruption leaves still begins with part 0 and is found again.
            for from in (0..=last).step_by(PARTS_FETCHED as usize).collect::<Vec<_>>().into_iter().rev() {
                let place = [seq, version, from, from + PARTS_FETCHED];
                self.write(OPERATION, stream, DROP_PARTS, &place).await?;
            }
        }
        Ok(())
    }

    /// One statement of a stream and numbers, in its own transaction.
    pub(crate) async fn write(
        &self,
        operation: &'static str,
        stream: &str,
        sql: &'static str,
        numbers: &[i64],
    ) -> Result<u64, JournalError> {
        let mut lent = self.writer(operation, stream).await?;
        let mut query = sqlx::query(sql).bind(stream);
        for number in numbers {
            query = query.bind(*number);
        }
        let done = self.within(query.execute(lent.connection())).await;
        let done = done.map_err(|source| self.failed(operation, stream, source))?;
        lent.give_back();
        Ok(done.rows_affected())
    }
}

fn title_of(stream: &str, snapshot: &Snapshot) -> Result<Title, JournalError> {
    let parts = snapshot.body.len().div_ceil(SNAPSHOT_PART_BYTES_MAX);
    if parts > SNAPSHOT_PARTS_MAX {
        let allowed = format!("at most {}", SNAPSHOT_PARTS_MAX * SNAPSHOT_PART_BYTES_MAX);
        return Err(bound(stream, "bytes of a snapshot", &snapshot.body.len().to_string(), allowed));
    }
    let (seq, version) = (signed(stream, "seq", snapshot.seq)?, i64::from(snapshot.version));
    Ok(Title {
        seq,
        version,
        parts: parts as i64,
        bytes: snapshot.body.len() as i64,
        sha256: hash(seq, version, &snapshot.body),
    })
}

/// Over the place as well as the body, so that a snapshot under another's number is found out.
fn hash(seq: i64, version: i64, body: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seq.to_le_bytes());
    hasher.update(version.to_le_bytes());
    hasher.update(body);
    hasher.finalize().into()
}
