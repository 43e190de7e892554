//! What the service is told, and what it answers.

use std::time::Duration;

use proto::worker::{Report, ReportAnswer, WorkerState};
use tunnel::spread;

use super::{Action, Life, Phase};
use crate::notice::{Source, When};

/// A word of the service that is older than the newest by no more than this was overtaken on its way; one that is
/// older still comes from a service whose clock was set, and counts. In microseconds.
const OVERTAKEN_MICROS_MAX: i64 = 30_000_000;

/// A token is renewed when less than a third of its life is left, counted from when it came.
const RENEW_PART: u32 = 3;

impl Life {
    /// What the worker is, in the service's words.
    fn state(&self) -> WorkerState {
        match self.phase {
            Phase::Redeeming | Phase::Configuring | Phase::Joining => WorkerState::Joining,
            Phase::Serving if self.is_ready() => WorkerState::Ready,
            Phase::Serving => WorkerState::Failing,
            Phase::Draining => WorkerState::Draining,
            Phase::Drained | Phase::Stopping => WorkerState::Drained,
            Phase::Left | Phase::Over => WorkerState::Left,
        }
    }

    pub(super) fn report_if_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Redeeming | Phase::Over) || self.saved.is_none() {
            return;
        }
        let state = self.state();
        if self.reported != Some(state) && self.reporting != Some(state) && self.told != Some(state) {
            // News are told at once, but once: what is not taken is tried again like everything else.
            self.told = Some(state);
            self.report.at(now);
        }
        if !self.report.begins(now) {
            return;
        }
        self.reporting = Some(state);
        let (sequence, limits) = (self.next_sequence(), &self.config.limits);
        let renew_token = self.token_at.is_some_and(|at| now >= at);
        let Some(saved) = &self.saved else { return };
        let undone: Vec<_> = saved.undone.iter().take(limits.undone).cloned().collect();
        let undone_more = u32::try_from(saved.undone.len() - undone.len()).unwrap_or(u32::MAX);
        actions.push(Action::Report(Box::new(Report {
            worker: saved.admission.worker.clone(),
            generation: saved.admission.generation,
            sequence,
            state,
            gone_at: saved.notices.first().map(|(_, notice)| notice.gone_at),
            undone,
            undone_more,
            kubelet_restarts: self.kubelet.restarts,
            renew_token,
        })));
    }

    pub(super) fn report_taken(&mut self, now: Duration, answer: ReportAnswer) {
        self.reported = self.reporting.take();
        self.report.succeeded(now);
        let chance = self.chance();
        let Some(saved) = &self.saved else { return };
        let every = Duration::from_secs(saved.admission.report_seconds.into()).max(self.config.limits.retry);
        self.report.at(now + spread(every, chance));
        self.heed(now, answer);
    }

    /// The bus can be heard, or cannot.
    pub(super) fn bus_heard(&mut self, now: Duration, open: bool) {
        if open && !self.bus_open {
            // What was said while nobody listened is asked for; not by all workers of a broker at once.
            let chance = self.chance();
            self.report.at(now + spread(self.config.limits.catch_up, chance));
        }
        self.bus_open = open;
    }

    /// The service said something without having been asked.
    pub(super) fn told_by_itself(&mut self, now: Duration, answer: ReportAnswer) {
        if !matches!(self.phase, Phase::Redeeming | Phase::Over) {
            self.heed(now, answer);
        }
    }

    fn heed(&mut self, now: Duration, answer: ReportAnswer) {
        let Some(saved) = &self.saved else { return };
        let ours = saved.admission.generation;
        if answer.generation < ours {
            // The word of somebody who has not heard yet that the lease moved here.
            return;
        }
        if let Some(terms) = answer.tunnel
            && let Some(saved) = &mut self.saved
        {
            saved.admission.tunnel = Some(terms);
            saved.admission.now = answer.now;
            self.renewed = true;
        }
        // Two ways lead here, and on one the word may have been overtaken by a newer one on the other.
        let behind = self.heeded_at.map_or(0, |newest| newest.micros_since(answer.now));
        if (1..=OVERTAKEN_MICROS_MAX).contains(&behind) {
            return;
        }
        self.heeded_at = Some(answer.now);
        self.set_wall(now, answer.now);
        if self.renewed {
            self.set_token_at(now);
        }
        if answer.generation > ours {
            self.noticed(now, Source::Market, When::At(answer.now), "the lease is elsewhere");
            return;
        }
        match answer.notice {
            Some(order) => self.noticed(now, Source::Market, When::At(order.gone_at), &order.reason),
            None => self.withdrawn(now, Source::Market),
        }
    }

    /// When the tunnel's token is to be renewed.
    pub(super) fn set_token_at(&mut self, now: Duration) {
        let tunnel = self.saved.as_ref().and_then(|saved| saved.admission.tunnel.as_ref());
        self.token_at = tunnel.map(|terms| {
            let expires = self.wall.span(terms.token_expires_at);
            expires.saturating_sub(expires.saturating_sub(now) / RENEW_PART)
        });
    }
}
