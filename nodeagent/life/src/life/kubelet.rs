//! The kubelet, kept running for as long as it is wanted.

use std::time::Duration;

use tunnel::Backoff;

use crate::limits::Limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not there, and not to be.
    Off,
    /// To be started at an instant.
    Waiting(Duration),
    /// There since.
    Running(Duration),
    /// Asked to end; killed at an instant.
    Ending(Duration),
    /// Killed; given up at an instant.
    Killed(Duration),
}

/// How it is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Ask,
    Kill,
}

/// The supervision of one kubelet.
#[derive(Debug, Clone)]
pub(super) struct Kubelet {
    state: State,
    backoff: Backoff,
    settled: Duration,
    stop: Duration,
    pub(super) restarts: u32,
}

impl Kubelet {
    pub(super) fn new(limits: &Limits, restarts: u32) -> Kubelet {
        Kubelet {
            state: State::Off,
            backoff: Backoff::new(limits.retry, limits.kubelet_cap),
            settled: limits.kubelet_settled,
            stop: limits.kubelet_stop,
            restarts,
        }
    }

    /// It is to run.
    pub(super) fn on(&mut self, now: Duration) {
        if self.state == State::Off {
            self.state = State::Waiting(now);
        }
    }

    /// It is there, whoever started it.
    pub(super) fn is_there(&mut self, now: Duration) {
        self.state = State::Running(now);
    }

    /// Whether it is not there any more, or given up.
    pub(super) fn has_ended(&self, now: Duration) -> bool {
        match self.state {
            State::Off => true,
            State::Killed(until) => now >= until,
            State::Waiting(_) | State::Running(_) | State::Ending(_) => false,
        }
    }

    /// Whether it was killed and is there all the same.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self.state, State::Killed(_))
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// It ended, or could not be started.
    pub(super) fn ended(&mut self, now: Duration, chance: u64) {
        self.state = match self.state {
            State::Running(since) => {
                if now.saturating_sub(since) >= self.settled {
                    self.backoff.reset();
                }
                self.restarts = self.restarts.saturating_add(1);
                State::Waiting(now + self.backoff.step(chance))
            }
            State::Ending(_) | State::Killed(_) | State::Off => State::Off,
            waiting @ State::Waiting(_) => waiting,
        };
    }

    /// Whether it is to be started now, which it is from here on.
    pub(super) fn starts(&mut self, now: Duration) -> bool {
        let starts = matches!(self.state, State::Waiting(at) if at <= now);
        if starts {
            self.state = State::Running(now);
        }
        starts
    }

    /// It is to end: what is to be done for that now, once.
    pub(super) fn end(&mut self, now: Duration) -> Option<Ending> {
        match self.state {
            State::Waiting(_) => {
                self.state = State::Off;
                None
            }
            State::Running(_) => {
                self.state = State::Ending(now + self.stop);
                Some(Ending::Ask)
            }
            State::Ending(at) if at <= now => {
                self.state = State::Killed(now + self.stop);
                Some(Ending::Kill)
            }
            _ => None,
        }
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        match self.state {
            State::Waiting(at) | State::Ending(at) | State::Killed(at) => Some(at),
            State::Off | State::Running(_) => None,
        }
    }
}
