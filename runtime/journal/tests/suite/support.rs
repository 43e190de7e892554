//! What the tests share: a fresh database of each kind, and rows to put into it.

use std::path::PathBuf;

use journal::testing::Postgres;
use journal::{Journal, Owner, Row};
use sqlx::{AnyConnection, Connection};
use tempfile::TempDir;

/// A fresh database, and ways to look past the journal at it.
pub(crate) struct Fresh {
    pub(crate) url: String,
    pub(crate) journal: Journal,
    folder: TempDir,
}

impl Fresh {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::open(format!("sqlite:{}", folder.path().join("journal.db").display()), folder).await
    }

    pub(crate) async fn postgres() -> Option<Self> {
        let url = tokio::task::spawn_blocking(|| Some(Postgres::shared()?.database())).await.unwrap()?;
        Some(Self::open(url, tempfile::tempdir().unwrap()).await)
    }

    async fn open(url: String, folder: TempDir) -> Self {
        let journal = Journal::open(&url).await.unwrap();
        Self { url, journal, folder }
    }

    /// The same database through connections of its own: another process, as far as the database can tell.
    pub(crate) async fn again(&self) -> Journal {
        Journal::open(&self.url).await.unwrap()
    }

    /// A connection that bypasses the journal.
    pub(crate) async fn raw(&self) -> AnyConnection {
        AnyConnection::connect(&self.url).await.unwrap()
    }

    /// Runs a statement behind the journal's back, to damage things. Returns the number of rows changed.
    pub(crate) async fn tamper(&self, sql: &'static str) -> u64 {
        sqlx::query(sql).execute(&mut self.raw().await).await.unwrap().rows_affected()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().join("archive")
    }
}

/// Runs `test` on a fresh database of each kind.
pub(crate) fn on_both(test: impl AsyncFn(&Fresh)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        test(&Fresh::sqlite().await).await;
        if let Some(fresh) = Fresh::postgres().await {
            test(&fresh).await;
        }
    });
}

pub(crate) fn owner(name: &str) -> Owner {
    Owner::new(name).unwrap()
}

/// A row whose every field says which row it is.
pub(crate) fn row(seq: u64) -> Row {
    Row {
        seq,
        at_micros: 1_000_000 + seq as i64,
        rules: 7,
        position_created: -5,
        position_sequence: seq * 10,
        published: seq - 1,
        state_hash: [seq as u8; 16],
        chain: [seq as u8 ^ 0xff; 32],
        input: format!("input {seq}").into_bytes(),
        events: vec![0, 255, seq as u8],
    }
}

pub(crate) fn rows(from: u64, to: u64) -> Vec<Row> {
    (from..=to).map(row).collect()
}

/// Appends rows 1 to `to`.
pub(crate) async fn fill(journal: &Journal, stream: &str, to: u64) {
    let me = owner("filler");
    for chunk in rows(1, to).chunks(journal::limits::APPEND_ROWS_MAX) {
        let appended = journal.append(stream, &me, chunk).await.unwrap();
        assert_eq!(appended, journal::Appended::Committed);
    }
}

/// The message of an error and of all that caused it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
