//! What time it is, and whether to believe it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proto::Timestamp;

/// A wall clock that moves this much against the monotonic one has been set, and is not to be trusted.
pub const CLOCK_STEP_SECONDS_MAX: i64 = 5;

/// After so long the two clocks are compared from a new beginning, so that honest slewing, half a millisecond
/// per second at most, never adds up to a step.
const ANCHOR_MICROS: i64 = 60_000_000;

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the wall clock moved {} ms against the monotonic one", .by_micros / 1_000)]
pub struct ClockStepped {
    /// By how much, in microseconds; negative: back.
    pub by_micros: i64,
}

/// Two clocks' readings of one moment, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    wall: i64,
    monotonic: i64,
}

type Source = dyn Fn() -> (i64, i64) + Send + Sync;

/// The wall clock, watched. Clones share the readings but not what they compare with.
pub struct Clock {
    source: Arc<Source>,
    anchor: Mutex<Option<Reading>>,
}

impl Clone for Clock {
    fn clone(&self) -> Self {
        Self { source: Arc::clone(&self.source), anchor: Mutex::new(None) }
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Clock").finish_non_exhaustive()
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        let begun = Instant::now();
        Self::of(move || {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros() as i64);
            (wall, begun.elapsed().as_micros() as i64)
        })
    }

    /// A clock of somebody else's making: gives wall and monotonic time in microseconds, for tests.
    pub fn of(source: impl Fn() -> (i64, i64) + Send + Sync + 'static) -> Self {
        Self { source: Arc::new(source), anchor: Mutex::new(None) }
    }

    fn read(&self) -> Reading {
        let (wall, monotonic) = (self.source)();
        Reading { wall, monotonic }
    }

    /// The wall clock's time, whether it is to be believed or not: for claims, which expire by it everywhere.
    pub fn wall_micros(&self) -> i64 {
        self.read().wall
    }

    /// The time.
    ///
    /// # Errors
    /// When the wall clock has moved against the monotonic one by more than [`CLOCK_STEP_SECONDS_MAX`] since
    /// this clone was first asked, or within the last minute.
    pub fn now(&self) -> Result<Timestamp, ClockStepped> {
        let now = self.read();
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let from = *anchor.get_or_insert(now);
        let by_micros = (now.wall - from.wall) - (now.monotonic - from.monotonic);
        if by_micros.abs() > CLOCK_STEP_SECONDS_MAX * 1_000_000 {
            return Err(ClockStepped { by_micros });
        }
        if now.monotonic - from.monotonic > ANCHOR_MICROS {
            *anchor = Some(now);
        }
        Ok(Timestamp::from_micros(now.wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock_at(readings: &Arc<Mutex<(i64, i64)>>) -> Clock {
        let readings = Arc::clone(readings);
        Clock::of(move || *readings.lock().unwrap())
    }

    #[test]
    fn a_step_is_told_and_slewing_is_not() {
        let readings = Arc::new(Mutex::new((1_000_000, 0)));
        let clock = clock_at(&readings);
        assert_eq!(clock.now(), Ok(Timestamp::from_micros(1_000_000)));
        // A day at the fastest slew: 43 s in all, never 5 s in a minute.
        for second in 1..86_400_i64 {
            *readings.lock().unwrap() = (1_000_000 + second * 1_000_500, second * 1_000_000);
            assert!(clock.now().is_ok(), "second {second}");
        }
        for by in [-6_000_000, 6_000_000] {
            let clock = clock_at(&readings);
            assert!(clock.now().is_ok());
            readings.lock().unwrap().0 += by;
            assert_eq!(clock.now(), Err(ClockStepped { by_micros: by }));
            assert!(clock.clone().now().is_ok(), "a new beginning");
        }
        let clock = clock_at(&readings);
        assert!(clock.now().is_ok());
        readings.lock().unwrap().0 += 4_900_000;
        assert!(clock.now().is_ok());
    }
}
