//! A bounded set of connections that never come back in doubt.
//!
//! A pool that tests a connection at every loan costs a round trip per append, and one that does not hands out
//! broken ones. Here a connection goes back only after its work succeeded; after anything else it is dropped
//! with all that were idle at that moment, since what broke one has usually broken the others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, Database, Executor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A connection idle for longer than this is tested before it is lent again: firewalls and failovers cut
/// connections without telling. Below it, the test would cost every append a round trip.
const IDLE_TRUSTED: Duration = Duration::from_secs(15);

/// Up to a fixed number of connections to one database, each prepared by the same statements. `D` is the driver:
/// `Any`, or one database's own.
pub(crate) struct Connections<D: Database> {
    options: Options<D>,
    session: Vec<String>,
    /// Shared by connections of different drivers of which only so many may work at a time.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle<D>>>,
}

pub(crate) type Options<D> = <<D as Database>::Connection as Connection>::Options;

struct Idle<D: Database> {
    connection: D::Connection,
    since: Instant,
}

/// A connection on loan. Dropping it closes it; [`Lent::give_back`] keeps it for the next.
pub(crate) struct Lent<'a, D: Database> {
    home: &'a Connections<D>,
    connection: D::Connection,
    _permit: OwnedSemaphorePermit,
}

impl<D: Database> Connections<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    pub(crate) fn new(options: Options<D>, session: Vec<String>, permits: Arc<Semaphore>) -> Self {
        Self { options, session, permits, idle: Mutex::default() }
    }

    /// Lends a connection, opening one where none is idle. Waits, in order of arrival, while all are lent.
    pub(crate) async fn lend(&self) -> Result<Lent<'_, D>, sqlx::Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let connection = match self.trusted().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Lent { home: self, connection, _permit: permit })
    }

    /// The idle connection used last, if there is one that still answers.
    async fn trusted(&self) -> Option<D::Connection> {
        let idle = self.idle().pop()?;
        let mut connection = idle.connection;
        if idle.since.elapsed() < IDLE_TRUSTED || connection.ping().await.is_ok() {
            return Some(connection);
        }
        self.forget_idle();
        None
    }

    async fn connect(&self) -> Result<D::Connection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        for statement in &self.session {
            connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement.as_str()))).await?;
        }
        Ok(connection)
    }

    /// Drops all idle connections.
    pub(crate) fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }

    /// Closes all idle connections in order, so that SQLite tidies up its write-ahead log.
    pub(crate) async fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for one in idle {
            if let Err(error) = one.connection.close().await {
                tracing::debug!(%error, "a connection did not close in order");
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle<D>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Database> Lent<'_, D> {
    pub(crate) fn connection(&mut self) -> &mut D::Connection {
        &mut self.connection
    }

    /// Keeps the connection for the next loan. Only after its work ended as it should.
    pub(crate) fn give_back(self) {
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(Idle { connection: self.connection, since: Instant::now() });
    }
}
