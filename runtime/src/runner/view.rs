//! What a service reads from: a fold of the machine's events, beside a replica of the machine.

use std::time::Duration;

use bytes::Bytes;
use proto::machine::RestoreError;
use proto::{Machine, StreamName, Timestamp};
use serde::Deserialize;

use crate::telemetry::{Meter, MeterError};

/// How long an answer waits for the sequence that its question asks for, in seconds.
pub const QUERY_WAIT_SECONDS_MAX: u64 = 5;

pub(super) const QUERY_WAIT_MAX: Duration = Duration::from_secs(QUERY_WAIT_SECONDS_MAX);

/// A fold of one machine's events, kept by the follower, and the answers to the questions asked of it on
/// `walras.v1.query.<machine>.<stream>.<question>`.
pub trait View<M: Machine>: Sized + Send + Sync + 'static {
    /// Version of its snapshots' layout.
    const SNAPSHOT: u16;

    /// A view before the first event.
    fn new(stream: &StreamName) -> Self;

    /// Folds one event of the row `sequence`.
    fn apply(&mut self, at: Timestamp, sequence: u64, event: &M::Event);

    /// All events of the row `sequence` are folded; there may have been none.
    fn settle(&mut self, at: Timestamp, sequence: u64);

    /// The whole view as bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// The view a snapshot holds.
    ///
    /// # Errors
    /// When the bytes are no snapshot of version [`View::SNAPSHOT`].
    fn restore(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError>;

    /// Answers a question. Called on any thread, several at a time, but never while a row is being folded.
    ///
    /// # Errors
    /// One line for whoever asked.
    fn answer(&self, machine: &M, question: &str, payload: &[u8]) -> Result<Bytes, String>;

    /// From now on tells `meter` what it folds: called once it has caught up, so that history is not counted
    /// again. What it tells by gauges is gone with it.
    ///
    /// # Errors
    /// When a metric is not declared for the meter's service.
    fn measure(&mut self, _: &Meter, _: &StreamName) -> Result<(), MeterError> {
        Ok(())
    }

    /// The row that must be folded before the question is answered, so that one reads one's own writes.
    fn wait_for(_question: &str, payload: &[u8]) -> Option<u64> {
        serde_json::from_slice::<WaitFor>(payload).ok()?.wait_for_sequence
    }
}

/// The field of a question's payload that asks to wait.
#[derive(Debug, Deserialize)]
pub struct WaitFor {
    /// The row to wait for, at most [`QUERY_WAIT_SECONDS_MAX`].
    #[serde(default)]
    pub wait_for_sequence: Option<u64>,
}

/// For machines that nobody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoView;

impl<M: Machine> View<M> for NoView {
    const SNAPSHOT: u16 = 0;

    fn new(_: &StreamName) -> Self {
        Self
    }

    fn apply(&mut self, _: Timestamp, _: u64, _: &M::Event) {}

    fn settle(&mut self, _: Timestamp, _: u64) {}

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(_: &StreamName, _: &[u8]) -> Result<Self, RestoreError> {
        Ok(Self)
    }

    fn answer(&self, _: &M, question: &str, _: &[u8]) -> Result<Bytes, String> {
        Err(format!("question {question} is unknown"))
    }
}
