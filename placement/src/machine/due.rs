//! What becomes due by itself, and when.

use std::collections::{BTreeMap, BTreeSet};

use proto::Timestamp;
use proto::placement::{HostNumber, MoveNumber, PlaneNumber};

/// What becomes due. At one instant, an earlier one comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A host is gone.
    Gone(HostNumber),
    /// A move was to be done by now.
    Late(MoveNumber),
    /// A plane gets a smaller size.
    Shrink(PlaneNumber),
    /// A plane was slow for too long.
    Slow(PlaneNumber),
    /// A plane falls asleep.
    Sleep(PlaneNumber),
    /// What would help is to be worked out.
    Advice,
    /// Servers are gone.
    Servers,
}

/// Timers: at most one for each thing that can become due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Timers {
    at: BTreeMap<Due, Timestamp>,
    order: BTreeSet<(Timestamp, Due)>,
}

impl Timers {
    /// Sets or takes away one timer.
    pub(super) fn set(&mut self, due: Due, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.at.insert(due, at),
            None => self.at.remove(&due),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, due));
        }
        if let Some(at) = at {
            self.order.insert((at, due));
        }
    }

    /// The first.
    pub(super) fn first(&self) -> Option<(Timestamp, Due)> {
        self.order.first().copied()
    }
}
