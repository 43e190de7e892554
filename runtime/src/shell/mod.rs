//! Starts the tasks of a process and ends them in order.
//!
//! The first failure of a task, or a signal, stops all: the process says that it is not ready, then each
//! [`Stage`] is told to stop and waited for, in order, all within [`STOP_SECONDS_MAX`]. A second signal ends
//! the process at once. A task that panics, or that ends without having been asked to, counts as a failure.

mod outcome;
mod stage;
mod stop;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Duration, Instant, sleep_until};

use crate::admin::{self, Health};
use crate::config::Config;
use crate::telemetry::{self, LogError, Meter, MeterError};

pub use outcome::{Cause, Outcome, exit};
pub use stage::{STOP_SECONDS_MAX, Stage};
pub use stop::{Stop, Stopper};

use stop::Switches;

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// Logging was not set up.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Metrics were not set up.
    #[error(transparent)]
    Meter(#[from] MeterError),
    /// Nobody can listen there.
    #[error("admin.listen: {address}: cannot listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be caught.
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
}

/// The tasks of one process.
pub struct Shell {
    health: Health,
    meter: Meter,
    admin: Option<SocketAddr>,
    tasks: JoinSet<anyhow::Result<()>>,
    running: BTreeMap<Id, (String, Stage)>,
    switches: Switches,
    asked: Arc<Notify>,
    signals: Signals,
    patience: Duration,
}

/// The signals that end a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, ShellError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(ShellError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(ShellError::Signals)?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Shell {
    /// Starts logging, metrics and the admin endpoints as the configuration says. From here on signals are ours.
    ///
    /// # Errors
    /// [`ShellError`].
    pub async fn start(service: &'static str, config: &Config) -> Result<Self, ShellError> {
        telemetry::init(&config.telemetry)?;
        let mut shell = Self::bare(service)?;
        let address = config.admin.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| ShellError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| ShellError::Listen { address, source })?;
        shell.admin = Some(address);
        let (health, meter) = (shell.health.clone(), shell.meter.clone());
        shell.spawn("admin", Stage::Admin, |stop| async move {
            Ok(admin::serve(listener, health, meter, stop.into_requested()).await?)
        });
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "{service} starts; health and metrics are here");
        Ok(shell)
    }

    /// A shell without logging and admin endpoints, for tests and short commands.
    ///
    /// # Errors
    /// [`ShellError`].
    pub fn bare(service: &'static str) -> Result<Self, ShellError> {
        let meter = Meter::new(service)?;
        Ok(Self {
            health: Health::new(&meter)?,
            meter,
            admin: None,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            switches: Switches::new(),
            asked: Arc::new(Notify::new()),
            signals: Signals::new()?,
            patience: Duration::from_secs(STOP_SECONDS_MAX),
        })
    }

    /// Stops within `patience` instead of [`STOP_SECONDS_MAX`]; stages get their shares of it.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What the process says of its health.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Where the process counts.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Where the admin endpoints are served.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Something that can stop all, as a signal would.
    pub fn stopper(&self) -> Stopper {
        Stopper::new(Arc::clone(&self.asked))
    }

    /// Starts a task. It runs until it is told to stop, and then ends soon; ending before is a failure.
    pub fn spawn<F, T>(&mut self, name: impl Into<String>, stage: Stage, task: F)
    where
        F: FnOnce(Stop) -> T,
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let handle = self.tasks.spawn(task(self.switches.stop(stage)));
        self.running.insert(handle.id(), (name.into(), stage));
    }

    /// Waits for the first failure or a signal, then stops all.
    pub async fn wait(mut self) -> Outcome {
        let cause = self.first_end().await;
        match &cause {
            Cause::Asked { by } => tracing::info!(%by, "stopping"),
            other => tracing::error!("stopping: {other}"),
        }
        self.health.stop();
        let mut outcome = Outcome::new(cause);
        let begun = Instant::now();
        for stage in Stage::ORDER {
            self.switches.stop_stage(stage);
            let deadline = begun + self.patience.mul_f64(stage.ends_by());
            if !self.finish(stage, deadline, &mut outcome).await {
                outcome.killed = true;
                break;
            }
        }
        outcome
    }

    async fn first_end(&mut self) -> Cause {
        loop {
            tokio::select! {
                by = self.signals.next() => return Cause::Asked { by: by.to_owned() },
                () = self.asked.notified() => return Cause::Asked { by: "ourselves".to_owned() },
                // Without tasks there is nothing to wait for but a signal.
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some((_, cause)) = self.account(ended) {
                        return cause.unwrap_or_else(|task| Cause::Quit { task });
                    }
                }
            }
        }
    }

    /// Waits for the tasks of a stage until its deadline. False: a second signal came.
    async fn finish(&mut self, stage: Stage, deadline: Instant, outcome: &mut Outcome) -> bool {
        while self.running.values().any(|(_, other)| *other == stage) {
            tokio::select! {
                _ = self.signals.next() => return false,
                ended = self.tasks.join_next_with_id() => {
                    let Some(ended) = ended else { return true };
                    if let Some((task_stage, result)) = self.account(ended) {
                        match result {
                            Err(task) if task_stage > stage => outcome.add(Cause::Quit { task }),
                            Err(_) => {}
                            Ok(cause) => outcome.add(cause),
                        }
                    }
                }
                () = sleep_until(deadline) => {
                    let late: Vec<String> = self.names_of(stage);
                    tracing::error!(tasks = ?late, "did not stop in time");
                    outcome.overdue.extend(late);
                    // They are left behind: what they would still write, the fence and the next run sort out.
                    self.running.retain(|_, (_, other)| *other != stage);
                    return true;
                }
            }
        }
        true
    }

    fn names_of(&self, stage: Stage) -> Vec<String> {
        self.running.values().filter(|(_, other)| *other == stage).map(|(name, _)| name.clone()).collect()
    }

    /// Takes an ended task off the list: its stage, and why it failed, or its name if it just ended.
    #[allow(clippy::type_complexity)]
    fn account(
        &mut self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
    ) -> Option<(Stage, Result<Cause, String>)> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let (task, stage) = self.running.remove(&id)?;
        let result = match ended {
            Ok((_, Ok(()))) => Err(task),
            Ok((_, Err(error))) => Ok(Cause::Failed { task, error }),
            Err(error) => Ok(Cause::of_join_error(task, error)),
        };
        Some((stage, result))
    }
}
