//! What is to be done in each phase. Nothing here is remembered as done that was not answered.

use std::time::Duration;

use proto::worker::{UndoneWhat, WorkerState};

use super::kubelet::Ending;
use super::{Action, Exit, Life, Phase, Tunnel};
use crate::drain::{Drain, DrainAction};
use crate::notice::Source;
use crate::saved::Saved;

/// Numbers of reports taken at once, so that not every report is a write to disk.
const SEQUENCES: u64 = 1_000;

/// Phases that follow each other at one instant at most: all there are.
const PHASES: usize = 9;

impl Life {
    /// What belongs on disk.
    pub(super) fn to_save(&self) -> Option<Saved> {
        let mut saved = self.saved.clone()?;
        (saved.phase, saved.kubelet_restarts) = (self.phase, self.kubelet.restarts);
        Some(saved)
    }

    pub(super) fn act(&mut self, now: Duration, before: Option<&Saved>, actions: &mut Vec<Action>) {
        let mut after = Vec::new();
        for _ in 0..PHASES {
            let phase = self.phase;
            self.act_in_phase(now, &mut after);
            if self.phase == phase {
                break;
            }
        }
        self.report_if_due(now, &mut after);
        let renewed = std::mem::take(&mut self.renewed) && self.phase < Phase::Over;
        if let Some(saved) = self.saved.as_ref().filter(|_| renewed) {
            after.push(Action::RenewToken(saved.admission.clone()));
        }
        // What is on disk comes first: whatever is done after may be the last thing before a crash.
        let to_save = self.to_save();
        let changed = to_save.as_ref() != before;
        self.saved.clone_from(&to_save);
        let again = self.save.begins(now);
        if let Some(saved) = to_save.filter(|_| changed || again) {
            actions.push(Action::Save(Box::new(saved)));
        }
        actions.append(&mut after);
    }

    fn act_in_phase(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Redeeming => {
                if self.redeem.begins(now) {
                    actions.push(Action::Redeem);
                }
            }
            Phase::Configuring => self.configure(now, actions),
            Phase::Joining | Phase::Serving => self.serve(now, actions),
            Phase::Draining => self.drain(now, actions),
            Phase::Drained => self.drained(now),
            Phase::Stopping => self.stop(now, actions),
            Phase::Left => self.leave_at_last(now, actions),
            Phase::Over => actions.extend(self.ending.take().map(Action::Exit)),
        }
    }

    fn configure(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let begins = self.configure.begins(now);
        if let Some(saved) = self.saved.as_ref().filter(|_| begins) {
            actions.push(Action::Configure(saved.admission.clone()));
        }
    }

    /// Kubelet, tunnel, and looking at the Node: in service and while draining.
    fn keep(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.configure(now, actions);
        self.kubelet.on(now);
        if self.kubelet.starts(now) {
            actions.push(Action::StartKubelet);
        }
        let admission = self.saved.as_ref().map(|saved| saved.admission.clone());
        let tunnel = admission.filter(|admission| self.config.tunnel && admission.tunnel.is_some());
        if let Some(admission) = tunnel.filter(|_| self.tunnel == Tunnel::Off) {
            self.tunnel = Tunnel::On;
            actions.push(Action::StartTunnel(admission));
        }
        if self.look.begins(now) {
            actions.push(Action::Look);
        }
    }

    /// Whether pods can be run here and be reached.
    pub(super) fn is_ready(&self) -> bool {
        self.node_ready && (self.tunnel_open || self.tunnel == Tunnel::Off)
    }

    fn serve(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.tunnel == Tunnel::Draining {
            // The other side cannot be told that we drain no more, but a new stream does not drain.
            (self.tunnel, self.tunnel_open) = (Tunnel::Off, false);
            actions.push(Action::StopTunnel);
        }
        self.keep(now, actions);
        if self.saved.as_ref().is_some_and(|saved| saved.cordoned) {
            self.cordon_to(now, false, actions);
            if self.cordoned == Some(false)
                && let Some(saved) = &mut self.saved
            {
                saved.cordoned = false;
            }
        }
        if self.phase == Phase::Joining && self.is_ready() {
            self.phase = Phase::Serving;
        }
    }

    fn cordon_to(&mut self, now: Duration, cordoned: bool, actions: &mut Vec<Action>) {
        if self.cordoned == Some(cordoned) {
            self.cordon.forget();
            return;
        }
        self.cordon.at_if_idle(now);
        if self.cordon.begins(now) {
            actions.push(Action::Cordon(cordoned));
        }
    }

    fn drain(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.keep(now, actions);
        if let Some(saved) = &mut self.saved {
            // Before it is: whoever finds the state after a crash must not leave the Node cordoned by mistake.
            saved.cordoned = true;
        }
        if self.tunnel == Tunnel::On {
            self.tunnel = Tunnel::Draining;
            actions.push(Action::DrainTunnel);
        }
        self.cordon_to(now, true, actions);
        if self.drain.is_none() && (self.cordoned == Some(true) || now >= self.drain_at()) {
            let seed = self.chance();
            self.drain = Some(Drain::new(self.config.limits.clone(), now, self.drain_until(), seed));
        }
        let mut asked = Vec::new();
        if let Some(drain) = &mut self.drain {
            drain.poll(now, &mut asked);
        }
        for action in asked {
            if let DrainAction::Done { undone } = action {
                if self.cordoned != Some(true) {
                    let why = self.cordon_problem.clone().unwrap_or_else(|| "no answer in time".to_owned());
                    self.cannot(UndoneWhat::Cordon, why);
                }
                self.undo(undone);
                (self.phase, self.drain) = (Phase::Drained, None);
            } else {
                actions.push(Action::Drain(action));
            }
        }
    }

    fn drained(&mut self, now: Duration) {
        if self.reported == Some(WorkerState::Drained) || now >= self.drained_until() {
            self.phase = Phase::Stopping;
        }
    }

    fn stop(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.kubelet.end(now) {
            Some(Ending::Ask) => actions.push(Action::StopKubelet),
            Some(Ending::Kill) => actions.push(Action::KillKubelet),
            None => {}
        }
        if !self.kubelet.has_ended(now) {
            return;
        }
        if self.kubelet.is_stuck() {
            self.cannot(UndoneWhat::Kubelet, "it was killed and has not ended".to_owned());
        }
        if self.tunnel != Tunnel::Off {
            (self.tunnel, self.tunnel_open) = (Tunnel::Off, false);
            actions.push(Action::StopTunnel);
        }
        self.node_ready = false;
        self.phase = Phase::Left;
    }

    fn leave_at_last(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.reported != Some(WorkerState::Left) && now < self.left_until() {
            return;
        }
        if self.saved.as_ref().is_some_and(|saved| saved.notices.is_from(Source::Metadata)) {
            actions.push(Action::Acknowledge);
        }
        self.end(Exit::Left);
    }

    /// The next report's number. Of those that may have been sent before a crash none is larger.
    pub(super) fn next_sequence(&mut self) -> u64 {
        let Some(saved) = &mut self.saved else { return 0 };
        self.sequence = self.sequence.saturating_add(1);
        if self.sequence > saved.sequence {
            saved.sequence = self.sequence.saturating_add(SEQUENCES);
        }
        self.sequence
    }
}
