//! What can go wrong on a bus.

use thiserror::Error;

use super::{Position, StreamState};

/// Why a stream or a connection could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BusError {
    /// A value that cannot be.
    #[error("{field} {value:?}: {why}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What it was.
        value: String,
        /// What it must be.
        why: &'static str,
    },
    /// There is no stream of that name.
    #[error("stream {stream}: does not exist")]
    NoSuchStream {
        /// Its name.
        stream: String,
    },
    /// A stream exists, but using it could lose or forge messages.
    #[error("stream {stream}: exists with unsafe settings: {problems}")]
    UnsafeStream {
        /// Its name.
        stream: String,
        /// Each setting with its value and what it must be, separated by `; `.
        problems: String,
    },
    /// No server could be reached.
    #[error("NATS {url}: {why}")]
    Connect {
        /// The address tried.
        url: String,
        /// What happened.
        why: String,
    },
    /// The server is too old to be trusted with this.
    #[error("NATS {url}: {source}")]
    Version {
        /// The server's address.
        url: String,
        /// What is wrong with its version.
        source: crate::nats::version::VersionError,
    },
    /// The broker refused or did not answer.
    #[error("{operation} {name}: {why}")]
    Broker {
        /// What was asked of it.
        operation: &'static str,
        /// Of which stream, consumer or subject.
        name: String,
        /// What it said.
        why: String,
    },
}

impl BusError {
    pub(crate) fn invalid(field: &'static str, value: impl Into<String>, why: &'static str) -> Self {
        Self::Invalid { field, value: value.into(), why }
    }

    pub(crate) fn broker(operation: &'static str, name: &str, why: impl std::fmt::Display) -> Self {
        Self::Broker { operation, name: name.to_owned(), why: format!("{why}") }
    }
}

/// Why a publish was not acknowledged.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PublishError {
    /// It was not stored, and the same again would be refused again.
    #[error("publish to {subject}: refused: {reason}")]
    Refused {
        /// Where to.
        subject: String,
        /// Why.
        reason: Refusal,
    },
    /// It may or may not be stored: publish it again with the same id.
    #[error("publish to {subject}: outcome unknown: {why}")]
    Ambiguous {
        /// Where to.
        subject: String,
        /// Why nobody knows.
        why: String,
    },
}

/// Why a publish was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The stream is full and keeps what it has.
    #[error("the stream is full ({description})")]
    Full {
        /// The broker's words.
        description: String,
    },
    /// The message is larger than the stream or the server takes.
    #[error("message of {bytes} bytes is over the limit")]
    TooLarge {
        /// Its payload.
        bytes: usize,
    },
    /// Not a literal subject.
    #[error("not a subject")]
    Subject,
    /// The id or a header holds what a header cannot carry.
    #[error("header {name}: not one line of text")]
    Header {
        /// Which one.
        name: String,
    },
    /// Anything else the broker is sure about.
    #[error("{description} (code {code})")]
    Broker {
        /// The broker's error code.
        code: u64,
        /// Its words.
        description: String,
    },
}

/// Why a reader stopped for the moment. It can be asked again after each of these.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadEnd {
    /// The stream was recreated, or ends before what was already read: somebody deleted it or restored an
    /// older copy. The next batch begins with its first message.
    #[error(
        "stream {stream}: went backwards: read up to {} of the one created at {}, found one created at {} that ends at {}",
        old.sequence, old.created, new.created, new.last
    )]
    StreamRegressed {
        /// Its name.
        stream: String,
        /// What was read before.
        old: Position,
        /// What is there now.
        new: StreamState,
    },
    /// The stream could not be opened for a bounded number of attempts.
    #[error("stream {stream}: gave up after {attempts} attempts: {why}")]
    GaveUp {
        /// Its name.
        stream: String,
        /// How many attempts in a row failed.
        attempts: u32,
        /// What the last one said.
        why: String,
    },
}

/// Why a question has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// Nobody serves the subject.
    #[error("request to {subject}: nobody answers there")]
    NoResponder {
        /// What was asked.
        subject: String,
    },
    /// The answer, or the rest of it, did not come in time.
    #[error("request to {subject}: no complete answer in time ({parts} parts came)")]
    TimedOut {
        /// What was asked.
        subject: String,
        /// How much of it came.
        parts: usize,
    },
    /// A part of the answer is missing, or is no part.
    #[error("request to {subject}: broken answer: {why}")]
    Broken {
        /// What was asked.
        subject: String,
        /// What is wrong.
        why: String,
    },
    /// Whoever serves it refused.
    #[error("request to {subject}: {why}")]
    Refused {
        /// What was asked.
        subject: String,
        /// Their words.
        why: String,
    },
}
