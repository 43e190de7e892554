//! The life itself: what is to be done, by what happened.

mod acts;
mod kubelet;
mod report;
mod task;
mod time;
mod words;

use std::time::Duration;

use proto::Timestamp;
use proto::worker::{Admission, Undone, UndoneWhat, WorkerState};
use tunnel::spread;

use crate::drain::{Answered, Drain};
use crate::limits::Limits;
use crate::saved::Saved;
use crate::wall::Wall;
use kubelet::Kubelet;
use task::Task;
pub use words::{Action, Exit, Input, Look, Phase, Status};

/// What looks at the Node wait at most after some that failed, as a multiple of their usual distance.
const LOOKS: u32 = 5;

/// What a life has to know beside what the service tells it.
#[derive(Debug, Clone)]
pub struct LifeConfig {
    /// Every bound.
    pub limits: Limits,
    /// Whether the tunnel is ours to bring up; otherwise somebody else sees to it.
    pub tunnel: bool,
    /// What time it is by the worker's own clock.
    pub instant: Timestamp,
    /// Where chance comes from: a number that other workers do not have.
    pub seed: u64,
}

/// How far the tunnel is, as far as it is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tunnel {
    Off,
    On,
    Draining,
}

/// One life.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is something else that is so or not")]
pub struct Life {
    config: LifeConfig,
    wall: Wall,
    own: Wall,
    phase: Phase,
    saved: Option<Saved>,
    redeem: Task,
    save: Task,
    configure: Task,
    look: Task,
    report: Task,
    cordon: Task,
    kubelet: Kubelet,
    tunnel: Tunnel,
    tunnel_open: bool,
    bus_open: bool,
    node_ready: bool,
    /// What the Node is known to be; nothing after a restart.
    cordoned: Option<bool>,
    cordon_problem: Option<String>,
    drain: Option<Drain>,
    /// When the notice that counts was first acted upon.
    noticed_at: Duration,
    reported: Option<WorkerState>,
    reporting: Option<WorkerState>,
    /// The state that a report was last made due for.
    told: Option<WorkerState>,
    sequence: u64,
    /// The newest word of the service, by its own clock.
    heeded_at: Option<Timestamp>,
    /// When the tunnel's token is to be renewed.
    token_at: Option<Duration>,
    renewed: bool,
    ending: Option<Exit>,
    chances: u64,
}

impl Life {
    /// A life that begins, or goes on from what is on disk.
    pub fn new(config: LifeConfig, saved: Option<Saved>, now: Duration) -> Life {
        let limits = &config.limits;
        let task = || Task::new(limits.retry, limits.retry_cap);
        let own = Wall::new(now, config.instant);
        let skew = saved.as_ref().map_or(0, |saved| saved.skew_micros);
        let restarts = saved.as_ref().map_or(0, |saved| saved.kubelet_restarts);
        let mut life = Life {
            wall: Wall::new(now, config.instant.plus_micros(skew)),
            own,
            phase: saved.as_ref().map_or(Phase::Redeeming, |saved| saved.phase),
            redeem: task(),
            save: task(),
            configure: task(),
            look: Task::new(limits.look, limits.look * LOOKS),
            report: task(),
            cordon: task(),
            kubelet: Kubelet::new(limits, restarts),
            tunnel: Tunnel::Off,
            tunnel_open: false,
            bus_open: false,
            node_ready: false,
            cordoned: None,
            cordon_problem: None,
            drain: None,
            noticed_at: now,
            reported: None,
            reporting: None,
            told: None,
            sequence: saved.as_ref().map_or(0, |saved| saved.sequence),
            heeded_at: None,
            token_at: None,
            renewed: false,
            ending: None,
            chances: config.seed,
            saved,
            config,
        };
        match life.phase {
            Phase::Over => life.ending = Some(Exit::Left),
            // The one that the agent left running when it broke off.
            Phase::Drained | Phase::Stopping => life.kubelet.is_there(now),
            _ => {}
        }
        life.set_token_at(now);
        // Files may be of an older agent, or half of them lost: they are written again.
        life.redeem.at(now);
        life.configure.at(now);
        life.look.at(now);
        life.report.at(now);
        life
    }

    /// Takes what happened, and says what is to be done.
    pub fn step(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        if self.phase == Phase::Over && self.ending.is_none() {
            return;
        }
        let before = self.to_save();
        self.take(now, input);
        self.act(now, before.as_ref(), actions);
    }

    /// When something is to be done next, if nothing happens until then.
    pub fn wake_at(&self) -> Option<Duration> {
        let cordons =
            self.phase == Phase::Draining || self.saved.as_ref().is_some_and(|saved| saved.cordoned);
        let told = [self.report.wake_at(), self.save.wake_at()].into_iter().flatten().min();
        let wakes = match self.phase {
            Phase::Redeeming => vec![self.redeem.wake_at()],
            Phase::Configuring => vec![told, self.configure.wake_at()],
            Phase::Joining | Phase::Serving | Phase::Draining => vec![
                told,
                self.configure.wake_at(),
                self.look.wake_at(),
                self.kubelet.wake_at(),
                self.cordon.wake_at().filter(|_| cordons),
                self.drain.as_ref().and_then(Drain::wake_at),
                (self.phase == Phase::Draining && self.drain.is_none()).then(|| self.drain_at()),
            ],
            Phase::Drained => vec![told, Some(self.drained_until())],
            Phase::Stopping => vec![told, self.kubelet.wake_at()],
            Phase::Left => vec![told, Some(self.left_until())],
            Phase::Over => vec![self.ending.map(|_| Duration::ZERO)],
        };
        wakes.into_iter().flatten().min()
    }

    /// What time it is, as far as it is known.
    pub fn wall(&self) -> Wall {
        self.wall
    }

    /// What is shown of it.
    pub fn status(&self) -> Status {
        let saved = self.saved.as_ref();
        Status {
            phase: self.phase,
            worker: saved.map(|saved| saved.admission.worker.to_string()),
            node_ready: self.node_ready,
            tunnel_open: self.tunnel_open,
            bus_open: self.bus_open,
            kubelet_running: self.kubelet.is_running(),
            kubelet_restarts: self.kubelet.restarts,
            notice: saved.and_then(|saved| saved.notices.first()).map(|(_, notice)| notice.clone()),
            pods_remaining: self.drain.as_ref().map_or(0, Drain::remaining),
            undone: saved.map(|saved| saved.undone.clone()).unwrap_or_default(),
            is_saved: self.save.wake_at().is_none(),
            skew_seconds: saved.map_or(0, |saved| saved.skew_micros / 1_000_000),
        }
    }

    fn take(&mut self, now: Duration, input: Input) {
        match input {
            Input::Tick => {}
            Input::Redeemed(admission) => self.admitted(now, *admission),
            Input::RedeemLater(wait) => {
                let chance = self.chance();
                self.redeem.failed(now, chance);
                self.redeem.not_before(now + spread(wait, chance).min(self.config.limits.retry_cap));
            }
            Input::RedeemRefused(reason) => self.end(Exit::Refused(reason)),
            Input::RedeemFailed => {
                let chance = self.chance();
                self.redeem.failed(now, chance);
            }
            Input::Saved => self.save.succeeded(now),
            Input::SaveFailed => {
                let chance = self.chance();
                self.save.failed(now, chance);
            }
            Input::Configured => self.configured(now),
            Input::ConfigureFailed => {
                let chance = self.chance();
                self.configure.failed(now, chance);
            }
            Input::KubeletEnded => {
                let chance = self.chance();
                self.kubelet.ended(now, chance);
                self.node_ready &= self.kubelet.is_running();
            }
            Input::Tunnel(open) => self.tunnel_open = open,
            Input::Looked(look) => self.looked(now, look.ready),
            Input::LookFailed => {
                let chance = self.chance();
                self.look.failed(now, chance);
            }
            Input::NoNode => self.no_node(now),
            Input::Noticed { source, when, reason } => self.noticed(now, source, when, &reason),
            Input::Withdrawn(source) => self.withdrawn(now, source),
            Input::Cordoned { cordoned } => {
                (self.cordoned, self.cordon_problem) = (Some(cordoned), None);
                self.cordon.succeeded(now);
            }
            Input::CordonFailed(why) => {
                self.cordon_problem = Some(self.short(&why));
                let chance = self.chance();
                self.cordon.failed(now, chance);
            }
            Input::Listed { pods, volumes } => {
                if let Some(drain) = &mut self.drain {
                    drain.listed(now, pods, volumes);
                }
            }
            Input::NotListed(why) => {
                let why = self.short(&why);
                if let Some(drain) = &mut self.drain {
                    drain.not_listed(now, why);
                }
            }
            Input::Answered { uid, answered } => {
                let answered = match answered {
                    Answered::Failed(why) => Answered::Failed(self.short(&why)),
                    other => other,
                };
                if let Some(drain) = &mut self.drain {
                    drain.answered(now, &uid, answered);
                }
            }
            Input::Reported(answer) => self.report_taken(now, *answer),
            Input::Bus(open) => self.bus_heard(now, open),
            Input::Told(answer) => self.told_by_itself(now, *answer),
            Input::ReportFailed => {
                self.reporting = None;
                let chance = self.chance();
                self.report.failed(now, chance);
            }
        }
    }

    fn admitted(&mut self, now: Duration, admission: Admission) {
        self.redeem.succeeded(now);
        if self.phase != Phase::Redeeming {
            return;
        }
        self.set_wall(now, admission.now);
        let mut saved = Saved::new(admission);
        saved.skew_micros = self.skew(now);
        self.saved = Some(saved);
        self.phase = Phase::Configuring;
        self.set_token_at(now);
    }

    fn end(&mut self, exit: Exit) {
        (self.phase, self.ending) = (Phase::Over, Some(exit));
    }

    fn configured(&mut self, now: Duration) {
        self.configure.succeeded(now);
        self.configure.forget();
        if self.phase == Phase::Configuring {
            self.phase = Phase::Joining;
        }
    }

    fn looked(&mut self, now: Duration, ready: bool) {
        self.node_ready = ready;
        self.look.succeeded(now);
        let report = self.saved.as_ref().map_or(0, |saved| saved.admission.report_seconds);
        let chance = self.chance();
        let calm = Duration::from_secs(report.into()).max(self.config.limits.look);
        let settled = ready && self.phase == Phase::Serving;
        self.look.at(now + spread(if settled { calm } else { self.config.limits.look }, chance));
    }

    fn no_node(&mut self, now: Duration) {
        self.node_ready = false;
        let chance = self.chance();
        // Whichever of the two asked.
        self.look.failed(now, chance);
        self.look.not_before(now + spread(self.config.limits.look, chance));
        if self.phase == Phase::Draining {
            // Where there is no Node there is nothing to send away.
            (self.phase, self.drain) = (Phase::Drained, None);
        }
        self.cordon.succeeded(now);
        self.cordon.forget();
    }

    fn chance(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.chances = self.chances.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chances;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn short(&self, text: &str) -> String {
        let mut length = 0;
        let fits = |character: &char| {
            length += character.len_utf8();
            length <= self.config.limits.text_bytes
        };
        text.chars().filter(|character| !character.is_control()).take_while(fits).collect()
    }

    fn undo(&mut self, undone: impl IntoIterator<Item = Undone>) {
        let Some(saved) = &mut self.saved else { return };
        saved.undone.extend(undone);
    }

    fn cannot(&mut self, what: UndoneWhat, why: String) {
        self.undo([Undone { what, which: String::new(), why }]);
    }
}
