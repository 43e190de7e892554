//! The order in which a process stops.

/// How long a stop may take altogether, in seconds: less than the 30 that Kubernetes and most others give.
pub const STOP_SECONDS_MAX: u64 = 25;

/// When in a stop a task is told to end. Declaration order is the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What takes work from outside: the gateway, simulated parties.
    Entrance,
    /// What runs machines: it stops reading, finishes its turn, publishes, and releases its claims.
    Runner,
    /// What only reads: followers, views, answers to queries.
    Reader,
    /// What the others stand on: the broker that is our child.
    Ground,
    /// Health and metrics, so that whoever watches sees the stop to its end.
    Admin,
}

impl Stage {
    /// All, in the order in which they stop.
    pub const ORDER: [Self; 5] = [Self::Entrance, Self::Runner, Self::Reader, Self::Ground, Self::Admin];

    /// The part of the whole stop at which this stage must have ended. Time that one stage did not need is the
    /// next one's.
    pub(super) const fn ends_by(self) -> f64 {
        match self {
            Self::Entrance => 0.12,
            Self::Runner => 0.60,
            Self::Reader => 0.68,
            Self::Ground => 0.96,
            Self::Admin => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_end_one_after_the_other_and_all_in_time() {
        assert!(
            Stage::ORDER.windows(2).all(|pair| pair[0] < pair[1] && pair[0].ends_by() < pair[1].ends_by())
        );
        assert!(Stage::ORDER.iter().all(|stage| stage.ends_by() <= 1.0));
    }
}
