//! When work that failed is tried again.

use std::time::Duration;

/// From the first failure to the next try.
pub(crate) const FIRST: Duration = Duration::from_millis(500);
/// From a later failure to the next try at most.
pub(crate) const LONGEST: Duration = Duration::from_mins(5);

/// How long to wait after so many failures one after the other, counted from 1: twice as long each time. Never less
/// than what the server asked for, unless that is more than the longest.
pub(crate) fn wait(failures: u32, asked: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).max(asked.unwrap_or_default()).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        assert_eq!(wait(1, None), FIRST);
        assert_eq!(wait(2, None), 2 * FIRST);
        assert_eq!(wait(u32::MAX, None), LONGEST);
        assert_eq!(wait(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(wait(1, Some(Duration::from_hours(7))), LONGEST);
    }
}
