//! The runner: drives one machine's [`turn::Turn`] over the journal and the bus, and decides nothing itself.
//!
//! A runner claims its stream, loads the newest good snapshot and the rows behind it, and then works as a
//! pipeline of tasks, each a stage ahead of the next by a bounded number of batches:
//!
//! ```text
//! read + decode ─► step ─► pack ─► commit ─► answers (and orders) ─┬─► events, then prices
//!                                                                   └─► follower: queries, snapshots, index, archive
//! ```
//!
//! Stepping runs ahead of the commit on state that may never become durable; so nothing leaves before its row is
//! committed, and when a commit fails, or nobody knows whether it happened, everything is dropped and loaded
//! again. Batches are whatever waits: until the turn before is answered the next one gathers, unless it is full.
//!
//! Safety rests on the journal's fence: a runner that lost its stream cannot append, and steps down. The claim
//! only keeps replicas from working in vain.

mod claim;
mod clock;
mod commit;
mod counts;
mod follower;
mod load;
mod pack;
mod pages;
mod pipeline;
mod progress;
mod publish;
mod read;
mod rows;
mod step;
mod supervise;
mod view;

pub use clock::{CLOCK_STEP_SECONDS_MAX, Clock, ClockStepped};
pub use follower::{FOLLOWER_QUEUE_ROWS, SNAPSHOT_EVERY_COMMANDS};
pub use load::LoadError;
pub use rows::{journal_stream, turn_row};
pub use supervise::{Runner, RunnerError};
pub use view::{NoView, QUERY_WAIT_SECONDS_MAX, View, WaitFor};

use std::path::PathBuf;
use std::sync::Arc;

use journal::{Journal, Owner};
use proto::{Machine, StreamName};

use crate::admin::Pulse;
use crate::bus::Bus;
use crate::config::RunnerSettings;
use crate::telemetry::Meter;
use counts::Shown;

/// What every stage of one stream's pipeline needs.
#[derive(Clone)]
struct Context {
    bus: Bus,
    journal: Journal,
    owner: Owner,
    /// The machine's stream, such as the exchange `main`.
    stream: StreamName,
    /// The stream's name in the journal.
    journal_stream: Arc<str>,
    settings: Arc<RunnerSettings>,
    clock: Clock,
    shown: Arc<Shown>,
    meter: Meter,
    /// Shows that decisions end; none where nobody looks.
    pulse: Option<Arc<Pulse>>,
}

impl Context {
    fn turn_settings(&self) -> turn::Settings {
        turn::Settings { answers_kept: self.settings.answers_kept.get() as usize }
    }

    fn archive_dir(&self) -> Option<PathBuf> {
        self.settings.archive_dir.clone()
    }
}

/// A machine that can be run: its parts go from thread to thread.
pub trait Runnable:
    Machine<Command: Send + Sync + 'static, Event: Send + Sync + 'static> + Send + Sync + 'static
{
}

impl<M> Runnable for M
where
    M: Machine + Send + Sync + 'static,
    M::Command: Send + Sync + 'static,
    M::Event: Send + Sync + 'static,
{
}

/// Why a pipeline ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// Another runner has written to the stream.
    #[error("fenced: another runner wrote row {sequence}")]
    Fenced {
        /// The row that could not be appended.
        sequence: u64,
    },
    /// Another runner holds the claim.
    #[error("the claim is {owner}'s")]
    ClaimLost {
        /// Whose it is.
        owner: String,
    },
    /// A commit failed, or nobody knows whether it happened.
    #[error("commit of row {sequence} failed or its outcome is unknown")]
    Commit {
        /// The first row of the commit.
        sequence: u64,
        /// What the journal said.
        source: journal::JournalError,
    },
    /// The journal could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The clock is not to be trusted.
    #[error(transparent)]
    Clock(#[from] ClockStepped),
    /// An invariant does not hold.
    #[error(transparent)]
    Broken(#[from] proto::machine::Broken),
    /// The broker did not take a message for too long.
    #[error("{id} could not be published in {attempts} attempts: {problem}")]
    Publish {
        /// The message's id.
        id: String,
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt said.
        problem: String,
    },
    /// Old answers did not reach the index for too long.
    #[error("{unindexed} answers wait for the index")]
    Index {
        /// How many.
        unindexed: usize,
    },
    /// A stage is gone without having said why.
    #[error("the {stage} stage is gone: {problem}")]
    Gone {
        /// Which.
        stage: &'static str,
        /// What is known.
        problem: String,
    },
}
