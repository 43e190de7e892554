//! How long to wait before the next attempt.

use std::time::Duration;

/// Waiting grows by half with each failure, from `first` to `cap`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// From `first` to `cap`, of which the larger is the cap.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Backoff { first, cap: cap.max(first), next: first }
    }

    /// The wait before the next attempt, spread by `chance` over its second half and a little beyond, so that many
    /// agents that lost the same server do not return in step.
    pub fn step(&mut self, chance: u64) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_add(wait / 2).min(self.cap);
        spread(wait, chance)
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A wait between a half of `wait` and 1.5 times it, evenly over all values of `chance`.
pub fn spread(wait: Duration, chance: u64) -> Duration {
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    // The high half of the product is `chance` scaled to 0..=micros.
    let scaled = (u128::from(chance) * (u128::from(micros) + 1)) >> 64;
    wait / 2 + Duration::from_micros(scaled as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Backoff, spread};

    proptest! {
        #[test]
        fn waits_are_bounded_and_grow_only_to_the_cap(first in 1_u64..5_000, cap in 1_u64..60_000, chances in prop::collection::vec(any::<u64>(), 1..60)) {
            let (first, cap) = (Duration::from_millis(first), Duration::from_millis(cap));
            let mut backoff = Backoff::new(first, cap);
            for chance in chances {
                let wait = backoff.step(chance);
                prop_assert!(wait >= first / 2);
                prop_assert!(wait <= cap.max(first) * 3 / 2);
            }
            backoff.reset();
            prop_assert!(backoff.step(u64::MAX) <= first * 3 / 2);
        }
    }

    #[test]
    fn the_spread_covers_its_whole_range() {
        let wait = Duration::from_secs(1);
        assert_eq!(spread(wait, 0), Duration::from_millis(500));
        assert_eq!(spread(wait, u64::MAX), Duration::from_millis(1500));
        assert_eq!(spread(wait, 1 << 63), Duration::from_secs(1));
    }
}
