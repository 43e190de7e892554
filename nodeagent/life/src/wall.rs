//! What time it is, by the service's clock.

use std::time::Duration;

use proto::Timestamp;

/// The wall clock as it is known: an instant, and the span since the start at which it was that instant. Workers' own
/// clocks may be wrong by minutes, and a notice names an instant; so the service's word counts, as soon as it is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wall {
    now: Duration,
    instant: Timestamp,
}

impl Wall {
    /// At `now` it is `instant`.
    pub fn new(now: Duration, instant: Timestamp) -> Wall {
        Wall { now, instant }
    }

    /// What time it is at `now`.
    pub fn at(&self, now: Duration) -> Timestamp {
        let since = micros(now).saturating_sub(micros(self.now));
        self.instant.plus_micros(since)
    }

    /// When it is `instant`, as the span since the start; zero if that was before.
    pub fn span(&self, instant: Timestamp) -> Duration {
        let ahead = instant.micros_since(self.instant).saturating_add(micros(self.now));
        Duration::from_micros(u64::try_from(ahead).unwrap_or_default())
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_spans_agree() {
        let wall = Wall::new(Duration::from_secs(5), Timestamp::from_micros(100_000_000));
        assert_eq!(wall.at(Duration::from_secs(6)).micros(), 101_000_000);
        assert_eq!(wall.at(Duration::from_secs(1)).micros(), 96_000_000);
        assert_eq!(wall.span(Timestamp::from_micros(101_000_000)), Duration::from_secs(6));
        assert_eq!(wall.span(Timestamp::from_micros(1)), Duration::ZERO);
        assert_eq!(wall.at(Duration::MAX), Timestamp::MAX);
    }
}
