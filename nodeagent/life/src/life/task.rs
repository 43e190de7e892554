//! Something that is done now and then, one at a time, and again after a while if it failed.

use std::time::Duration;

use tunnel::Backoff;

/// When a task is due, and whether it is being done.
#[derive(Debug, Clone)]
pub(super) struct Task {
    due: Option<Duration>,
    running: bool,
    /// Asked for while it was running: what runs may not know of what changed since.
    again: bool,
    backoff: Backoff,
}

impl Task {
    pub(super) fn new(first: Duration, cap: Duration) -> Task {
        Task { due: None, running: false, again: false, backoff: Backoff::new(first, cap) }
    }

    /// It is to be done at `when`, or before if that was so.
    pub(super) fn at(&mut self, when: Duration) {
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
        self.again |= self.running;
    }

    /// It is to be done now, unless it is being done, or waits to be.
    pub(super) fn at_if_idle(&mut self, now: Duration) {
        if !self.running && self.due.is_none() {
            self.due = Some(now);
        }
    }

    /// It is to be done at `when` and not before.
    pub(super) fn not_before(&mut self, when: Duration) {
        self.due = Some(when);
    }

    /// Whether it is to be begun now, which it is from here on.
    pub(super) fn begins(&mut self, now: Duration) -> bool {
        let begins = !self.running && self.due.is_some_and(|due| due <= now);
        if begins {
            (self.running, self.again, self.due) = (true, false, None);
        }
        begins
    }

    /// It was done.
    pub(super) fn succeeded(&mut self, now: Duration) {
        self.running = false;
        self.backoff.reset();
        if std::mem::take(&mut self.again) {
            self.at(now);
        }
    }

    /// It failed, and is to be done again.
    pub(super) fn failed(&mut self, now: Duration, chance: u64) {
        self.running = false;
        self.due = Some(now + self.backoff.step(chance));
    }

    /// It need not be done any more.
    pub(super) fn forget(&mut self) {
        self.due = None;
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.due.filter(|_| !self.running)
    }
}
