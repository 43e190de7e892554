//! The handle: which database it is, how its connections are set up, and how errors are told.

use std::fmt;
use std::future::Future;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, ConnectOptions, Database, Executor, Postgres, Sqlite};
use tokio::sync::Semaphore;

use crate::checkpoint::{Checkpoints, LOG_BYTES_MAX, PAGE_BYTES};
use crate::connections::{Connections, Lent, Options};
use crate::error::JournalError;
use crate::limits::NAME_BYTES_MAX;
use crate::schema;

/// Attempts at a read. The second has a new connection; what fails again is not the connection.
const READ_ATTEMPTS_MAX: u32 = 2;

/// How a journal uses its database. The defaults are meant to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections for writing on PostgreSQL, where streams can be written at the same time. SQLite has one.
    pub writer_connections: u32,
    /// Connections for reading.
    pub reader_connections: u32,
    /// How long a write waits for SQLite's write lock while another process holds it, in milliseconds.
    pub lock_wait_millis: u32,
    /// How long a statement may take before it counts as failed, its outcome unknown, in seconds.
    pub answer_seconds_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { writer_connections: 8, reader_connections: 4, lock_wait_millis: 5_000, answer_seconds_max: 30 }
    }
}

/// Which of the two databases it is. Only what is outside SQL's common part asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// The record of all streams in one database. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    /// The URL without user, password and parameters.
    label: Arc<str>,
    writers: Connections<Any>,
    readers: Connections<Any>,
    appenders: Appenders,
    checkpoints: Checkpoints,
    answer_max: Duration,
}

/// Connections for appending, of the database's own driver. The SQL text is the same; the common driver would
/// copy every row twice more on its way, which at 400 KiB is a quarter of the time an append takes.
pub(crate) enum Appenders {
    Sqlite(Connections<Sqlite>),
    Postgres(Connections<Postgres>),
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Journal").field("database", &self.inner.label).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the database at `url` (`sqlite:PATH`, created where missing, or `postgres://…`), creates or
    /// upgrades its tables, and checks that what it acknowledges is durable.
    ///
    /// # Errors
    /// A URL of another kind, a database that cannot be reached, is not durable, or holds the tables of a
    /// newer program.
    pub async fn open(url: &str) -> Result<Self, JournalError> {
        Self::open_with(url, Settings::default()).await
    }

    /// As [`Journal::open`], with settings.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub async fn open_with(url: &str, settings: Settings) -> Result<Self, JournalError> {
        sqlx::any::install_default_drivers();
        let (kind, label) = describe(url)?;
        let readers_max = settings.reader_connections as usize;
        let (writer_url, reader_url, writers_max) = match kind {
            // Readers open the file for writing too: in WAL mode a reader takes part in the shared memory of
            // the log and may have to create it. `query_only` keeps them from changing anything.
            Kind::Sqlite => (with_mode(url, "rwc"), with_mode(url, "rw"), 1),
            Kind::Postgres => (url.to_owned(), url.to_owned(), settings.writer_connections as usize),
        };
        let writing = Arc::new(Semaphore::new(writers_max.max(1)));
        let reading = Arc::new(Semaphore::new(readers_max.max(1)));
        let writers = connections(&writer_url, session(kind, settings, false), &writing)?;
        let readers = connections(&reader_url, session(kind, settings, true), &reading)?;
        // Under the writers' permits: SQLite's two writing connections never get in each other's way.
        let session = session(kind, settings, false);
        let appenders = match kind {
            Kind::Sqlite => Appenders::Sqlite(connections(&writer_url, session, &writing)?),
            Kind::Postgres => Appenders::Postgres(connections(&writer_url, session, &writing)?),
        };
        let answer_max = Duration::from_secs(u64::from(settings.answer_seconds_max));
        let checkpoints = Checkpoints::default();
        let inner = Inner { kind, label, writers, readers, appenders, checkpoints, answer_max };
        let journal = Self { inner: Arc::new(inner) };
        schema::prepare(&journal).await?;
        Ok(journal)
    }

    /// Closes the connections that are not in use, so that SQLite folds its log into the database.
    /// The handle stays usable; a process that ends without this loses nothing.
    pub async fn close(&self) {
        self.inner.readers.close_idle().await;
        match &self.inner.appenders {
            Appenders::Sqlite(appenders) => appenders.close_idle().await,
            Appenders::Postgres(appenders) => appenders.close_idle().await,
        }
        self.inner.writers.close_idle().await;
    }

    /// The database, without user, password and parameters: for logs and errors.
    pub fn database(&self) -> &str {
        &self.inner.label
    }

    pub(crate) fn kind(&self) -> Kind {
        self.inner.kind
    }

    pub(crate) fn label(&self) -> Arc<str> {
        Arc::clone(&self.inner.label)
    }

    pub(crate) fn appenders(&self) -> &Appenders {
        &self.inner.appenders
    }

    pub(crate) fn checkpoints(&self) -> &Checkpoints {
        &self.inner.checkpoints
    }

    /// A connection for writing, in order of arrival.
    pub(crate) async fn writer(
        &self,
        operation: &'static str,
        stream: &str,
    ) -> Result<Lent<'_, Any>, JournalError> {
        let lent = self.within(self.inner.writers.lend()).await;
        lent.map_err(|source| self.failed(operation, stream, source))
    }

    /// A connection for reading. Never waits for a writer.
    pub(crate) async fn reader(
        &self,
        operation: &'static str,
        stream: &str,
    ) -> Result<Lent<'_, Any>, JournalError> {
        let lent = self.within(self.inner.readers.lend()).await;
        lent.map_err(|source| self.failed(operation, stream, source))
    }

    /// All rows of a query. A connection found broken is replaced once: after a restart of the server that is all
    /// of them, and to read again changes nothing.
    pub(crate) async fn read<'q>(
        &self,
        operation: &'static str,
        stream: &str,
        query: impl Fn() -> Query<'q, Any, AnyArguments>,
    ) -> Result<Vec<AnyRow>, JournalError> {
        let mut attempt = 1;
        loop {
            let work = async {
                let mut lent = self.inner.readers.lend().await?;
                let rows = query().fetch_all(lent.connection()).await?;
                lent.give_back();
                Ok(rows)
            };
            let error = match self.within(work).await {
                Ok(rows) => return Ok(rows),
                Err(error) => self.failed(operation, stream, error),
            };
            if attempt == READ_ATTEMPTS_MAX || !is_broken_connection(&error) {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Waits for `work`, but not for ever: a database that fell silent counts as failed.
    pub(crate) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let max = self.inner.answer_max;
        tokio::time::timeout(max, work).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", max.as_secs());
            Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why)))
        })
    }

    /// The error of a statement. Idle connections are dropped with it: a restarted server has cut them all.
    pub(crate) fn failed(&self, operation: &'static str, stream: &str, source: sqlx::Error) -> JournalError {
        match &self.inner.appenders {
            Appenders::Sqlite(appenders) => appenders.forget_idle(),
            Appenders::Postgres(appenders) => appenders.forget_idle(),
        }
        self.inner.writers.forget_idle();
        self.inner.readers.forget_idle();
        JournalError::Statement { database: self.label(), stream: stream.to_owned(), operation, source }
    }

    pub(crate) fn cannot_open(&self, operation: &'static str, source: sqlx::Error) -> JournalError {
        JournalError::Open { database: self.label(), operation, source }
    }
}

/// Names are written to rows, logs and file names, so they are short and printable.
pub(crate) fn check_stream(stream: &str) -> Result<(), JournalError> {
    if !is_name(stream) {
        return Err(bound("", "stream", &format!("{stream:?}"), name_bound()));
    }
    Ok(())
}

pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(crate) fn name_bound() -> String {
    format!("1 to {NAME_BYTES_MAX} printable ASCII characters without blanks")
}

pub(crate) fn bound(stream: &str, field: &'static str, value: &str, bound: String) -> JournalError {
    JournalError::Bound { stream: stream.to_owned(), field, value: value.to_owned(), bound }
}

/// SQL has no unsigned integers; what does not fit into 63 bits was never a count of ours.
pub(crate) fn signed(stream: &str, field: &'static str, value: u64) -> Result<i64, JournalError> {
    i64::try_from(value)
        .map_err(|_| bound(stream, field, &value.to_string(), format!("at most {}", i64::MAX)))
}

/// Whether a statement failed with its connection: cut, or ended by a PostgreSQL that shuts down (class 57P).
fn is_broken_connection(error: &JournalError) -> bool {
    match error {
        // A silent server is not asked twice: that took its time already.
        JournalError::Statement { source: sqlx::Error::Io(source), .. } => {
            source.kind() != io::ErrorKind::TimedOut
        }
        JournalError::Statement { source: sqlx::Error::Database(source), .. } => {
            source.code().is_some_and(|code| code.starts_with("57P"))
        }
        _ => false,
    }
}

/// The kind of database, and its URL without anything secret.
fn describe(url: &str) -> Result<(Kind, Arc<str>), JournalError> {
    let without_parameters = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = without_parameters.split_once(':') else {
        return Err(JournalError::Url { why: "has no scheme; use sqlite:PATH or postgres://…".to_owned() });
    };
    match scheme {
        "sqlite" if rest.is_empty() || rest == "//" => {
            Err(JournalError::Url { why: "names no file; use sqlite:PATH".to_owned() })
        }
        "sqlite" if rest.contains(":memory:") || url.contains("mode=memory") => {
            Err(JournalError::Url { why: "a database in memory is no record; use sqlite:PATH".to_owned() })
        }
        "sqlite" => Ok((Kind::Sqlite, without_parameters.into())),
        "postgres" | "postgresql" => {
            // The last `@`: a password may hold one that nobody escaped.
            let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
            Ok((Kind::Postgres, format!("postgres://{}", place.trim_start_matches('/')).into()))
        }
        _ => Err(JournalError::Url { why: format!("scheme {scheme} is unknown; use sqlite or postgres") }),
    }
}

fn with_mode(url: &str, mode: &str) -> String {
    match url.split_once('?') {
        None => format!("{url}?mode={mode}"),
        Some((_, parameters)) if parameters.split('&').any(|one| one.starts_with("mode=")) => url.to_owned(),
        Some(_) => format!("{url}&mode={mode}"),
    }
}

fn connections<D: Database>(
    url: &str,
    session: Vec<String>,
    permits: &Arc<Semaphore>,
) -> Result<Connections<D>, JournalError>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    // The driver's own message may quote the URL, so it is not passed on.
    let options = Options::<D>::from_str(url)
        .map_err(|_| JournalError::Url { why: "is not a well-formed URL".to_owned() })?;
    Ok(Connections::new(options.disable_statement_logging(), session, Arc::clone(permits)))
}

/// A transaction that its client forgot holds back everybody who writes the same row.
const POSTGRES_IDLE_TRANSACTION_SECONDS: u32 = 10;

/// What every new connection is told before its first use.
fn session(kind: Kind, settings: Settings, read_only: bool) -> Vec<String> {
    let own = |text: &str| text.to_owned();
    match (kind, read_only) {
        (Kind::Sqlite, false) => vec![
            // First, so that the statements below wait for a process that holds the lock at this moment.
            format!("PRAGMA busy_timeout = {}", settings.lock_wait_millis),
            // Of a new file only. A large row is many pages, and each has its cost.
            format!("PRAGMA page_size = {PAGE_BYTES}"),
            own("PRAGMA journal_mode = WAL"),
            own("PRAGMA synchronous = FULL"),
            // Without it macOS acknowledges from the drive's cache. Other systems ignore it.
            own("PRAGMA fullfsync = ON"),
            format!("PRAGMA wal_autocheckpoint = {}", LOG_BYTES_MAX / PAGE_BYTES),
            format!("PRAGMA journal_size_limit = {LOG_BYTES_MAX}"),
        ],
        (Kind::Sqlite, true) => vec![
            format!("PRAGMA busy_timeout = {}", settings.lock_wait_millis),
            own("PRAGMA query_only = ON"),
        ],
        (Kind::Postgres, _) => {
            let read_only = if read_only { "on" } else { "off" };
            vec![
                own("SET application_name = 'walras'"),
                // A role or a database may have been set otherwise; the fence needs no more than this.
                own("SET default_transaction_isolation = 'read committed'"),
                format!("SET default_transaction_read_only = {read_only}"),
                format!("SET statement_timeout = '{}s'", settings.answer_seconds_max),
                format!("SET idle_in_transaction_session_timeout = '{POSTGRES_IDLE_TRANSACTION_SECONDS}s'"),
                own("SELECT set_config('synchronous_commit', 'on', false) \
                     WHERE current_setting('synchronous_commit') = 'off'"),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_holds_nothing_secret() {
        let cases = [
            ("postgres://u:secret@db:5432/walras?password=secret", "postgres://db:5432/walras"),
            ("postgresql://u:p@ss@db/walras", "postgres://db/walras"),
            ("postgres:///walras?host=/run/pg&password=secret", "postgres://walras"),
            ("sqlite:/var/lib/walras.db?mode=rwc", "sqlite:/var/lib/walras.db"),
            ("sqlite://walras.db", "sqlite://walras.db"),
        ];
        for (url, label) in cases {
            assert_eq!(&*describe(url).unwrap().1, label, "{url}");
        }
    }

    #[test]
    fn an_unusable_url_is_refused_without_being_repeated() {
        for url in [
            "",
            "walras.db",
            "mysql://u:secret@db/x",
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:x?mode=memory",
        ] {
            let error = describe(url).unwrap_err().to_string();
            assert!(error.starts_with("database URL: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_mode_is_added_once() {
        assert_eq!(with_mode("sqlite:a", "rwc"), "sqlite:a?mode=rwc");
        assert_eq!(with_mode("sqlite:a?cache=private", "rwc"), "sqlite:a?cache=private&mode=rwc");
        assert_eq!(with_mode("sqlite:a?mode=rw", "rwc"), "sqlite:a?mode=rw");
    }
}
