//! The clock of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use proto::Timestamp;

/// UTC, as the machine's clock has it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
