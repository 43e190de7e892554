//! How a process ended, and what its exit code says of it.

use std::fmt;
use std::process::ExitCode;

use tokio::task::JoinError;

/// Exit codes. A clean stop is 0, a refused configuration or input 2.
pub mod exit {
    /// Told to stop, and everything stopped in order.
    pub const STOPPED: u8 = 0;
    /// A task failed, or ended without having been asked to.
    pub const FAILED: u8 = 1;
    /// The configuration or the input was refused.
    pub const REFUSED: u8 = 2;
    /// A task panicked.
    pub const PANICKED: u8 = 101;
    /// Told to stop, but something did not stop in time.
    pub const OVERDUE: u8 = 124;
    /// Ended at once by a second signal.
    pub const KILLED: u8 = 130;
}

/// Why a process stopped.
#[derive(Debug)]
pub enum Cause {
    /// A signal came, or a [`super::Stopper`] was used.
    Asked {
        /// Which signal.
        by: String,
    },
    /// A task failed.
    Failed {
        /// Which one.
        task: String,
        /// Why.
        error: anyhow::Error,
    },
    /// A task panicked.
    Panicked {
        /// Which one.
        task: String,
        /// What it said.
        message: String,
    },
    /// A task ended without having been asked to.
    Quit {
        /// Which one.
        task: String,
    },
}

impl Cause {
    pub(super) fn of_join_error(task: String, error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(payload) => {
                let message = payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".to_owned());
                Self::Panicked { task, message }
            }
            Err(error) => Self::Failed { task, error: error.into() },
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Asked { .. } => exit::STOPPED,
            Self::Failed { .. } | Self::Quit { .. } => exit::FAILED,
            Self::Panicked { .. } => exit::PANICKED,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked { by } => write!(out, "asked by {by}"),
            // The alternate form is the whole chain of causes on one line.
            Self::Failed { task, error } => write!(out, "{task}: {error:#}"),
            Self::Panicked { task, message } => write!(out, "{task}: panicked: {message}"),
            Self::Quit { task } => write!(out, "{task}: ended without having been asked to"),
        }
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Outcome {
    /// What stopped it.
    pub cause: Cause,
    /// Failures on the way out.
    pub later: Vec<Cause>,
    /// Tasks that did not stop in time.
    pub overdue: Vec<String>,
    /// Whether a second signal cut the stop short.
    pub killed: bool,
}

impl Outcome {
    pub(super) fn new(cause: Cause) -> Self {
        Self { cause, later: Vec::new(), overdue: Vec::new(), killed: false }
    }

    pub(super) fn add(&mut self, cause: Cause) {
        tracing::error!("while stopping: {cause}");
        self.later.push(cause);
    }

    /// What the process exits with: the code of what stopped it; where that was no failure, what went wrong on
    /// the way out. See [`exit`].
    pub fn exit_code(&self) -> u8 {
        let codes = std::iter::once(&self.cause).chain(&self.later).map(Cause::exit_code);
        let first_bad = codes.into_iter().find(|code| *code != exit::STOPPED);
        match first_bad {
            _ if self.killed => exit::KILLED,
            Some(code) => code,
            None if !self.overdue.is_empty() => exit::OVERDUE,
            None => exit::STOPPED,
        }
    }

    /// Ends the process. Nothing is waited for any more: a task that did not stop in time would hold up an
    /// orderly return from `main` for ever.
    pub fn exit(self) -> ! {
        std::process::exit(i32::from(self.exit_code()))
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.exit_code())
    }
}
