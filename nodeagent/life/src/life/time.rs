//! Notices, and how much time they leave.

use std::time::Duration;

use proto::Timestamp;

use super::{Exit, Life, Phase};
use crate::notice::{Notice, Source, When};
use crate::wall::Wall;

impl Life {
    pub(super) fn noticed(&mut self, now: Duration, source: Source, when: When, reason: &str) {
        let reason = self.short(reason);
        let gone_at = match when {
            When::At(instant) => instant,
            When::In(span) => self.wall.at(now + span),
        };
        let Some(saved) = &mut self.saved else {
            // It has nothing to take leave of.
            self.end(Exit::Left);
            return;
        };
        if self.phase >= Phase::Drained || (matches!(when, When::In(_)) && saved.notices.is_from(source)) {
            return;
        }
        saved.notices.heard(source, Notice { gone_at, reason });
        match self.phase {
            Phase::Configuring => self.phase = Phase::Drained,
            Phase::Joining | Phase::Serving => {
                (self.phase, self.noticed_at) = (Phase::Draining, now);
            }
            _ => {}
        }
        self.new_deadline(now);
    }

    pub(super) fn withdrawn(&mut self, now: Duration, source: Source) {
        let Some(saved) = &mut self.saved else { return };
        if self.phase >= Phase::Drained || !saved.notices.withdrawn(source) {
            return;
        }
        if saved.notices.first().is_none() {
            // It has to be seen to be ready again, and the other side of the tunnel has to hear that it is.
            (self.phase, self.drain) = (Phase::Joining, None);
            self.look.at(now);
        }
        self.new_deadline(now);
    }

    /// What the service's answer says of time is heeded, so a deadline may move at any time.
    pub(super) fn new_deadline(&mut self, now: Duration) {
        let deadline = self.drain_until();
        if let Some(drain) = &mut self.drain {
            drain.set_deadline(now, deadline);
        }
    }

    pub(super) fn set_wall(&mut self, now: Duration, instant: Timestamp) {
        self.wall = Wall::new(now, instant);
        let skew = self.skew(now);
        if let Some(saved) = &mut self.saved {
            saved.skew_micros = skew;
        }
        self.new_deadline(now);
    }

    pub(super) fn skew(&self, now: Duration) -> i64 {
        self.wall.at(now).micros_since(self.own.at(now))
    }

    /// When the server is gone, with a little time in any case: what is past already may still take a moment.
    pub(super) fn gone(&self) -> Duration {
        let notice = self.saved.as_ref().and_then(|saved| saved.notices.first());
        let gone = notice.map_or(self.noticed_at, |(_, notice)| self.wall.span(notice.gone_at));
        gone.max(self.noticed_at + self.config.limits.past_notice)
    }

    /// Time kept for leaving.
    pub(super) fn leave(&self) -> Duration {
        self.config.limits.leave.min(self.gone().saturating_sub(self.noticed_at) / 5)
    }

    pub(super) fn drain_until(&self) -> Duration {
        self.gone().saturating_sub(self.leave())
    }

    /// When a drain begins though the Node is not cordoned.
    pub(super) fn drain_at(&self) -> Duration {
        self.noticed_at + self.drain_until().saturating_sub(self.noticed_at) / 4
    }

    /// Until when it is tried to say that the drain is over.
    pub(super) fn drained_until(&self) -> Duration {
        self.gone().saturating_sub(self.leave() / 2)
    }

    /// Until when it is tried to say that the worker has left.
    pub(super) fn left_until(&self) -> Duration {
        self.gone() + self.config.limits.last_report
    }
}
