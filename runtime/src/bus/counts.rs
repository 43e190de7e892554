//! What went out of the ordinary on a bus, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often something out of the ordinary happened on this bus, since it was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounts {
    /// Connections made, the first included.
    pub connects: u64,
    /// Connections lost.
    pub disconnects: u64,
    /// Times the client dropped a message of a subscription that was not read fast enough. Streams are
    /// pulled within what there is room for, so only announcements and answers can be hit.
    pub slow_consumers: u64,
    /// Times a reader opened its stream again behind its position.
    pub reader_reopens: u64,
    /// Times a reader found its stream recreated or shorter than its position.
    pub stream_regressions: u64,
    /// Publishes whose outcome is unknown.
    pub ambiguous_publishes: u64,
    /// Publishes refused.
    pub refused_publishes: u64,
    /// Errors the broker reported on the connection, such as a permission that is missing.
    pub broker_errors: u64,
}

/// The counters behind [`BusCounts`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connects: AtomicU64,
    pub(crate) disconnects: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
    pub(crate) reader_reopens: AtomicU64,
    pub(crate) stream_regressions: AtomicU64,
    pub(crate) ambiguous_publishes: AtomicU64,
    pub(crate) refused_publishes: AtomicU64,
    pub(crate) broker_errors: AtomicU64,
}

/// One more of it.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) -> BusCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BusCounts {
            connects: get(&self.connects),
            disconnects: get(&self.disconnects),
            slow_consumers: get(&self.slow_consumers),
            reader_reopens: get(&self.reader_reopens),
            stream_regressions: get(&self.stream_regressions),
            ambiguous_publishes: get(&self.ambiguous_publishes),
            refused_publishes: get(&self.refused_publishes),
            broker_errors: get(&self.broker_errors),
        }
    }
}
