//! What can go wrong with the record, each with what it happened to.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// An operating error of the journal. `database` never holds the user name or the password of the URL.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The database URL cannot be used. It is not repeated here, because it may hold a password.
    #[error("database URL: {why}")]
    Url {
        /// What is wrong with it.
        why: String,
    },
    /// The database could not be reached or prepared.
    #[error("database {database}: cannot {operation}")]
    Open {
        /// The database, without credentials.
        database: Arc<str>,
        /// What was being done.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The database is not set up in a way that keeps the promises of this crate.
    #[error("database {database}: {why}")]
    Unfit {
        /// The database, without credentials.
        database: Arc<str>,
        /// What is missing.
        why: String,
    },
    /// The tables were written by a newer program.
    #[error("database {database}: its tables have version {found}, this program knows up to {known}")]
    Schema {
        /// The database, without credentials.
        database: Arc<str>,
        /// The version found.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// A statement failed. For an append the outcome is then unknown.
    #[error("database {database}, stream {stream}: cannot {operation}")]
    Statement {
        /// The database, without credentials.
        database: Arc<str>,
        /// The stream.
        stream: String,
        /// What was being done.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The caller passed a value outside its bounds. Nothing was written.
    #[error("stream {stream}: {field} is {value}, must be {bound}")]
    Bound {
        /// The stream.
        stream: String,
        /// The argument or field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        bound: String,
    },
    /// Rows are missing.
    #[error("database {database}, stream {stream}: row {expected} is missing, the next one is {found}")]
    Gap {
        /// The database, without credentials, or the archive file.
        database: Arc<str>,
        /// The stream.
        stream: String,
        /// The row that should have come.
        expected: u64,
        /// The row that came.
        found: u64,
    },
    /// What was read back is not what can have been written.
    #[error("database {database}, stream {stream}, row {seq}: {what}")]
    Damaged {
        /// The database, without credentials.
        database: Arc<str>,
        /// The stream.
        stream: String,
        /// The row.
        seq: u64,
        /// What is wrong with it.
        what: String,
    },
    /// An archive file could not be written or read.
    #[error("archive {}: cannot {operation}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// An archive file is not what was written, or does not follow the one before.
    #[error("archive {}: {what}", path.display())]
    Archive {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}
