//! What a stream must be like, and what it holds.

use std::time::Duration;

use super::error::BusError;
use super::{Position, filter};

/// Largest message a stream takes unless it is told otherwise, in bytes: envelopes end at 768 KiB, and this
/// leaves room for headers.
pub const MESSAGE_BYTES_MAX: u32 = 1024 * 1024;

/// Where a stream keeps its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    File,
    /// In the broker's memory: gone when the broker ends.
    Memory,
}

/// What a stream must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Name: letters, digits, `-` and `_`.
    pub name: String,
    /// Filters of the subjects it keeps. No two streams may keep the same subject.
    pub subjects: Vec<String>,
    /// When full: refuse new messages (`true`) or forget the oldest (`false`).
    pub discard_new: bool,
    /// How long a message is kept; `None` = until it is purged.
    pub max_age: Option<Duration>,
    /// Size at which the stream is full, in bytes, headers and bookkeeping included.
    pub max_bytes: u64,
    /// Largest message, headers included, in bytes.
    pub max_message_bytes: u32,
    /// How many messages of one subject are kept; `None` = no limit.
    pub max_per_subject: Option<u64>,
    /// Where messages are kept.
    pub storage: Storage,
    /// How long an id is remembered. At least 100 ms, the broker's own floor.
    pub duplicate_window: Duration,
    /// Copies in a cluster of brokers: 1, 3 or 5.
    pub replicas: u8,
}

impl StreamSpec {
    /// A file stream of `name` over one filter: 1 GiB, forgets the oldest, ids remembered for two minutes.
    #[must_use]
    pub fn new(name: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            subjects: vec![subject.into()],
            discard_new: false,
            max_age: None,
            max_bytes: 1 << 30,
            max_message_bytes: MESSAGE_BYTES_MAX,
            max_per_subject: None,
            storage: Storage::File,
            duplicate_window: Duration::from_mins(2),
            replicas: 1,
        }
    }
}

/// What a stream holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// When it was created, UTC microseconds.
    pub created: i64,
    /// Sequence of the oldest message kept; `last + 1` when it is empty.
    pub first: u64,
    /// Sequence of the newest message ever stored; 0 when there was none.
    pub last: u64,
    /// Messages kept.
    pub messages: u64,
    /// Their size, in bytes.
    pub bytes: u64,
}

impl StreamState {
    /// Whether a reader that has seen everything up to `position` has reason to doubt that this is still
    /// the same stream: it was created at another instant, or it ends before the position.
    #[must_use]
    pub fn regressed_from(&self, position: Position) -> bool {
        self.created != position.created || self.last < position.sequence
    }
}

pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), BusError> {
    if filter::is_name(name) {
        Ok(())
    } else {
        Err(BusError::invalid(field, name, "only letters, digits, '-' and '_', 1 to 128 of them"))
    }
}

pub(super) fn check_spec(spec: &StreamSpec) -> Result<(), BusError> {
    check_name("name", &spec.name)?;
    if spec.subjects.is_empty() {
        return Err(BusError::invalid("subjects", "[]", "a stream keeps at least one subject"));
    }
    if let Some(bad) = spec.subjects.iter().find(|subject| !filter::is_filter(subject)) {
        return Err(BusError::invalid("subjects", bad, "not a subject filter"));
    }
    if spec.max_message_bytes == 0 || spec.max_message_bytes > MESSAGE_BYTES_MAX {
        let value = spec.max_message_bytes.to_string();
        return Err(BusError::invalid("max_message_bytes", value, "must be between 1 and 1 MiB"));
    }
    if spec.max_bytes < u64::from(spec.max_message_bytes) || i64::try_from(spec.max_bytes).is_err() {
        let value = spec.max_bytes.to_string();
        return Err(BusError::invalid("max_bytes", value, "must hold at least one message"));
    }
    if spec.duplicate_window < Duration::from_millis(100) {
        let value = format!("{:?}", spec.duplicate_window);
        return Err(BusError::invalid("duplicate_window", value, "must be at least 100 ms"));
    }
    if !matches!(spec.replicas, 1 | 3 | 5) {
        return Err(BusError::invalid("replicas", spec.replicas.to_string(), "must be 1, 3 or 5"));
    }
    Ok(())
}
