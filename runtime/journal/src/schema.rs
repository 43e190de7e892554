//! The tables, and how an older database becomes a current one.

use sqlx::{AnyConnection, Connection, Executor, Row as _};

use crate::answers;
use crate::checkpoint::reserve;
use crate::database::{Journal, Kind};
use crate::error::JournalError;
use crate::rows::begin;

/// Versions of the tables, oldest first. Never edit one that was released: append another.
const VERSIONS: &[&str] = &[
    "
CREATE TABLE journal (
  stream TEXT NOT NULL,
  seq BIGINT NOT NULL,
  at_micros BIGINT NOT NULL,
  rules BIGINT NOT NULL,
  position_created BIGINT NOT NULL,
  position_sequence BIGINT NOT NULL,
  published BIGINT NOT NULL,
  state_hash BYTEA NOT NULL,
  chain BYTEA NOT NULL,
  owner TEXT NOT NULL,
  input BYTEA NOT NULL,
  events BYTEA NOT NULL,
  PRIMARY KEY (stream, seq)
);
CREATE TABLE claims (
  stream TEXT NOT NULL PRIMARY KEY,
  owner TEXT NOT NULL,
  generation BIGINT NOT NULL,
  expires_at_micros BIGINT NOT NULL
);
CREATE TABLE snapshots (
  stream TEXT NOT NULL,
  seq BIGINT NOT NULL,
  version BIGINT NOT NULL,
  parts BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  sha256 BYTEA NOT NULL,
  PRIMARY KEY (stream, seq, version)
);
CREATE TABLE snapshot_parts (
  stream TEXT NOT NULL,
  seq BIGINT NOT NULL,
  version BIGINT NOT NULL,
  part BIGINT NOT NULL,
  body BYTEA NOT NULL,
  PRIMARY KEY (stream, seq, version, part)
);
CREATE TABLE answers (
  stream TEXT NOT NULL,
  id_hash BYTEA NOT NULL,
  seq BIGINT NOT NULL,
  entry BIGINT NOT NULL,
  digest BIGINT NOT NULL,
  PRIMARY KEY (stream, id_hash)
);
CREATE TABLE answers_through (
  stream TEXT NOT NULL PRIMARY KEY,
  seq BIGINT NOT NULL
);
CREATE TABLE archives (
  stream TEXT NOT NULL,
  first_seq BIGINT NOT NULL,
  last_seq BIGINT NOT NULL,
  sha256 BYTEA NOT NULL,
  PRIMARY KEY (stream, first_seq)
);
",
    "
CREATE TABLE answer_runs (
  stream TEXT NOT NULL,
  run BIGINT NOT NULL,
  PRIMARY KEY (stream, run)
);
CREATE TABLE indexed_answers (
  stream TEXT NOT NULL,
  run BIGINT NOT NULL,
  id_hash BYTEA NOT NULL,
  seq BIGINT NOT NULL,
  entry BIGINT NOT NULL,
  digest BIGINT NOT NULL,
  PRIMARY KEY (stream, run, id_hash)
);
INSERT INTO indexed_answers (stream, run, id_hash, seq, entry, digest)
SELECT stream, 1, id_hash, seq, entry, digest FROM answers;
INSERT INTO answer_runs (stream, run) SELECT DISTINCT stream, 1 FROM answers;
DROP TABLE answers;
",
    "
CREATE TABLE answer_blocks (
  stream TEXT NOT NULL,
  run BIGINT NOT NULL,
  first_hash BYTEA NOT NULL,
  answers BYTEA NOT NULL,
  PRIMARY KEY (stream, run, first_hash)
);
",
];

/// The version in which answers are kept in blocks, and the table that held them before. Only a program can make
/// the one of the other.
const BLOCKS_VERSION: i64 = 3;
const DROP_INDEXED_ANSWERS: &str = "DROP TABLE indexed_answers";

/// How PostgreSQL stores what never compresses well or is read whole: its own compression would cost more
/// time than the append.
const POSTGRES_STORAGE: &str = "
ALTER TABLE journal ALTER COLUMN input SET STORAGE EXTERNAL;
ALTER TABLE journal ALTER COLUMN events SET STORAGE EXTERNAL;
ALTER TABLE snapshot_parts ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE answer_blocks ALTER COLUMN answers SET STORAGE EXTERNAL;
";

/// Two programs that start at once must not both create the tables. Any fixed number will do.
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(7235421860321)";

/// Brings the tables up to date and checks that commits are durable.
pub(crate) async fn prepare(journal: &Journal) -> Result<(), JournalError> {
    let lent = journal.writer("connect", "-").await;
    let mut lent = lent.map_err(|error| match error {
        JournalError::Statement { source, .. } => journal.cannot_open("connect", source),
        other => other,
    })?;
    check_durable(journal, lent.connection()).await?;
    // Looked up first: a role that may only read and write rows can then start on a prepared database.
    let known = VERSIONS.len() as i64;
    let found = version(lent.connection()).await.unwrap_or(0);
    if found > known {
        return Err(JournalError::Schema { database: journal.label(), found, known });
    }
    if found < known {
        let upgraded = journal.within(upgrade(journal.kind(), lent.connection())).await;
        upgraded.map_err(|source| journal.cannot_open("create the tables", source))?;
    }
    if journal.kind() == Kind::Sqlite {
        reserve(journal, lent.connection()).await?;
    }
    lent.give_back();
    Ok(())
}

async fn version(connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("SELECT version FROM journal_schema").fetch_one(connection).await?;
    row.try_get(0)
}

async fn upgrade(kind: Kind, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let mut work = connection.begin_with(begin(kind)).await?;
    if kind == Kind::Postgres {
        work.execute(sqlx::raw_sql(POSTGRES_LOCK)).await?;
    }
    let create = "CREATE TABLE IF NOT EXISTS journal_schema (version BIGINT NOT NULL)";
    work.execute(sqlx::raw_sql(create)).await?;
    // Asked again under the lock: another program may have been faster.
    let stored = sqlx::query("SELECT version FROM journal_schema").fetch_optional(&mut *work).await?;
    let found: i64 = match &stored {
        Some(row) => row.try_get(0)?,
        None => 0,
    };
    let missing = VERSIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX));
    for statements in missing {
        work.execute(sqlx::raw_sql(*statements)).await?;
    }
    if found < BLOCKS_VERSION {
        answers::take_over(&mut work).await?;
        work.execute(sqlx::raw_sql(DROP_INDEXED_ANSWERS)).await?;
    }
    if found == 0 && kind == Kind::Postgres {
        work.execute(sqlx::raw_sql(POSTGRES_STORAGE)).await?;
    }
    let store = if stored.is_some() {
        "UPDATE journal_schema SET version = $1"
    } else {
        "INSERT INTO journal_schema (version) VALUES ($1)"
    };
    // Never backwards: a newer program may have been the faster one.
    sqlx::query(store).bind(found.max(VERSIONS.len() as i64)).execute(&mut *work).await?;
    work.commit().await
}

/// A record that forgets is worse than none, so a database that would is refused, or at least complained about.
async fn check_durable(journal: &Journal, connection: &mut AnyConnection) -> Result<(), JournalError> {
    match journal.kind() {
        Kind::Sqlite => {
            let mode = setting(journal, connection, "PRAGMA journal_mode").await?;
            if mode != "wal" {
                let why = format!("journal_mode is {mode}, must be wal; is it on a network file system?");
                return Err(JournalError::Unfit { database: journal.label(), why });
            }
        }
        Kind::Postgres => {
            for (name, sql) in [("fsync", "SHOW fsync"), ("full_page_writes", "SHOW full_page_writes")] {
                let value = setting(journal, connection, sql).await?;
                if value != "on" {
                    // Copy-on-write file systems do without full_page_writes, so this is a complaint.
                    tracing::error!(database = journal.database(), setting = name, %value,
                        "acknowledged rows may be lost when the database server loses power");
                }
            }
        }
    }
    Ok(())
}

async fn setting(
    journal: &Journal,
    connection: &mut AnyConnection,
    sql: &'static str,
) -> Result<String, JournalError> {
    let row = journal.within(async { connection.fetch_one(sqlx::raw_sql(sql)).await }).await;
    row.and_then(|row| row.try_get(0)).map_err(|source| journal.cannot_open("check its settings", source))
}
