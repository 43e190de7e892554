//! A world around a life: it fails, is late, and breaks it off at any step.

#![allow(dead_code, reason = "what a test asks of it")]

use std::collections::BTreeSet;
use std::time::Duration;

use life::{
    Action, Answered, DrainAction, Exit, Input, Life, LifeConfig, Limits, Look, Pod, PodKind, Saved, Source,
    When,
};
use proptest::prelude::*;
use proto::Timestamp;
use proto::worker::{
    Admission, ClusterTerms, KubeletTerms, NoticeOrder, Report, ReportAnswer, TunnelTerms, WorkerState,
};

/// When the world begins, by the service's clock.
const EPOCH: i64 = 1_800_000_000_000_000;

const STEPS_MAX: usize = 20_000;

pub(crate) fn instant(now: Duration) -> Timestamp {
    Timestamp::from_micros(EPOCH).plus_micros(i64::try_from(now.as_micros()).unwrap())
}

pub(crate) fn tunnel_terms(now: Duration) -> TunnelTerms {
    TunnelTerms {
        host: "proxy".into(),
        port: 8132,
        token: format!("token-{}", now.as_secs()),
        token_expires_at: instant(now + Duration::from_mins(5)),
    }
}

pub(crate) fn admission(now: Duration) -> Admission {
    Admission {
        now: instant(now),
        worker: "main-7".parse().unwrap(),
        generation: 3,
        session: "session".into(),
        report_seconds: 10,
        cluster: ClusterTerms {
            api_server: "https://api:6443".into(),
            certificate_authority: "ca".into(),
            certificate: "certificate".into(),
        },
        kubelet: KubeletTerms::default(),
        tunnel: Some(tunnel_terms(now)),
        bus: None,
    }
}

/// What a case draws.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The worker's clock less the service's, in seconds.
    pub(crate) skew_seconds: i64,
    /// Of a thousand things done, so many fail.
    pub(crate) fails_permille: u64,
    /// Of a thousand actions, so many are the last before a crash.
    pub(crate) crashes_permille: u64,
    /// When the market gives notice, and how much, in seconds.
    pub(crate) notice: Option<(u64, u64)>,
    /// When it is taken back, in seconds.
    pub(crate) withdrawn: Option<u64>,
    /// When somebody stops the agent.
    pub(crate) signal: Option<u64>,
    pub(crate) pods: u32,
    pub(crate) chance: u64,
}

#[allow(clippy::struct_excessive_bools, reason = "each is something else")]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Duration,
    pub(crate) chance: u64,
    pub(crate) disk: Option<Saved>,
    pub(crate) life: Life,
    /// What is under way in this process: when it is over, and what comes of it.
    pub(crate) pending: Vec<(Duration, Input)>,
    pub(crate) configured: bool,
    pub(crate) kubelet: bool,
    pub(crate) kubelet_until: Option<Duration>,
    pub(crate) tunnel: bool,
    pub(crate) node: bool,
    pub(crate) cordoned: bool,
    pub(crate) pods: BTreeSet<u32>,
    pub(crate) populated: bool,
    pub(crate) reports: Vec<Report>,
    pub(crate) exit: Option<Exit>,
    pub(crate) crashes: u32,
    pub(crate) signalled: bool,
    /// Whether the disk takes anything.
    pub(crate) disk_is_full: bool,
    /// How long each kubelet lives, if not for ever.
    pub(crate) kubelet_lives: Option<Duration>,
    pub(crate) kubelets: u32,
}

pub(crate) fn life(plan: &Plan, now: Duration, saved: Option<Saved>) -> Life {
    let own = instant(now).plus_micros(plan.skew_seconds * 1_000_000);
    let config = LifeConfig { limits: Limits::default(), tunnel: true, instant: own, seed: plan.chance };
    Life::new(config, saved, now)
}

impl World {
    pub(crate) fn new(plan: &Plan) -> World {
        World {
            plan: plan.clone(),
            now: Duration::ZERO,
            chance: plan.chance,
            disk: None,
            life: life(plan, Duration::ZERO, None),
            pending: vec![(Duration::ZERO, Input::Tick)],
            configured: false,
            kubelet: false,
            kubelet_until: None,
            tunnel: false,
            node: false,
            cordoned: false,
            pods: BTreeSet::new(),
            populated: false,
            reports: Vec::new(),
            exit: None,
            crashes: 0,
            signalled: false,
            disk_is_full: false,
            kubelet_lives: None,
            kubelets: 0,
        }
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 33
    }

    pub(crate) fn fails(&mut self) -> bool {
        self.draw() % 1_000 < self.plan.fails_permille
    }

    pub(crate) fn later(&mut self, input: Input) {
        let at = self.now + Duration::from_millis(self.draw() % 50);
        self.pending.push((at, input));
    }

    /// One thing happens. Whether anything still will.
    pub(crate) fn happen(&mut self) -> bool {
        self.pending.sort_by_key(|(at, _)| *at);
        let wake = self.life.wake_at();
        let first = self.pending.first().map(|(at, _)| *at);
        let signal = self.plan.signal.map(Duration::from_secs).filter(|_| !self.signalled);
        let kubelet = self.kubelet_until;
        let Some(next) = [wake, first, signal, kubelet].into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        let input = if signal == Some(next) {
            self.signalled = true;
            let when = When::In(Duration::from_secs(30));
            Input::Noticed { source: Source::Signal, when, reason: "stopped".into() }
        } else if kubelet == Some(next) {
            (self.kubelet, self.kubelet_until, self.node) = (false, None, false);
            Input::KubeletEnded
        } else if first == Some(next) {
            self.pending.remove(0).1
        } else {
            Input::Tick
        };
        let (mut actions, ticked) = (Vec::new(), input == Input::Tick);
        self.life.step(self.now, input, &mut actions);
        let wakes_again = self.life.wake_at().is_some_and(|at| at <= self.now);
        assert!(!ticked || !actions.is_empty() || !wakes_again, "it wakes for nothing at {next:?}");
        for action in actions {
            if self.draw() % 1_000 < self.plan.crashes_permille {
                self.crash();
                return true;
            }
            self.perform(action);
        }
        true
    }

    /// The process ends, and another goes on from what is on disk. The kubelet stays, and is found again.
    pub(crate) fn crash(&mut self) {
        self.crashes += 1;
        self.pending = vec![(self.now + Duration::from_secs(1), Input::Tick)];
        self.tunnel = false;
        let disk = self.disk.clone().map(|saved| Saved::read(&saved.write().unwrap()).unwrap());
        self.life = life(&self.plan, self.now, disk);
        // A signal that was heard and is not on disk yet is given again, by whoever wanted it.
        let heard = self.disk.as_ref().is_some_and(|saved| saved.notices.is_from(Source::Signal));
        self.signalled &= heard;
        if let Some(at) = self.plan.signal.as_mut().filter(|_| !heard) {
            *at = (*at).max(self.now.as_secs() + 1);
        }
    }

    pub(crate) fn perform(&mut self, action: Action) {
        assert_eq!(self.exit, None, "nothing after the end: {action:?}");
        match action {
            Action::Redeem => {
                assert!(self.disk.is_none(), "redeemed again though it is on disk");
                let admission = admission(self.now);
                let input = match self.draw() % 4 {
                    0 => Input::RedeemLater(Duration::from_secs(2)),
                    _ if self.fails() => Input::RedeemFailed,
                    _ => Input::Redeemed(Box::new(admission)),
                };
                self.later(input);
            }
            Action::Save(saved) => {
                if self.fails() || self.disk_is_full {
                    self.later(Input::SaveFailed);
                } else {
                    self.disk = Some(*saved);
                    self.later(Input::Saved);
                }
            }
            Action::Configure(admission) => {
                assert_eq!(admission.worker.to_string(), "main-7");
                self.configured |= true;
                let input = if self.fails() { Input::ConfigureFailed } else { Input::Configured };
                self.later(input);
            }
            Action::RenewToken(admission) => assert!(admission.tunnel.is_some()),
            Action::StartKubelet => self.start_kubelet(),
            Action::StopKubelet | Action::KillKubelet => {
                let ends = action == Action::KillKubelet || !self.fails();
                if ends || !self.kubelet {
                    (self.kubelet, self.kubelet_until, self.node) = (false, None, false);
                    self.later(Input::KubeletEnded);
                }
            }
            Action::StartTunnel(_) => {
                assert!(!self.tunnel, "two tunnels");
                self.tunnel = true;
                self.later(Input::Tunnel(true));
            }
            Action::DrainTunnel => assert!(self.tunnel, "no tunnel to drain"),
            Action::StopTunnel => {
                assert!(self.tunnel, "no tunnel to stop");
                self.tunnel = false;
            }
            Action::Look => {
                let ready = self.node && self.kubelet;
                let input = if self.fails() { Input::LookFailed } else { Input::Looked(Look { ready }) };
                self.later(input);
            }
            Action::Cordon(cordoned) => {
                if cordoned {
                    let noticed = self.disk.as_ref().is_some_and(|saved| saved.cordoned);
                    let is_sound = self.plan.fails_permille == 0 && !self.disk_is_full;
                    assert!(noticed || !is_sound, "cordoned, and not on disk");
                }
                if self.fails() {
                    self.later(Input::CordonFailed("no answer".into()));
                } else {
                    self.cordoned = cordoned;
                    self.later(Input::Cordoned { cordoned });
                }
            }
            Action::Drain(action) => self.drain(action),
            Action::Report(report) => self.report(&report),
            Action::Acknowledge => panic!("nobody gave notice by metadata"),
            Action::Exit(exit) => {
                assert!(!self.kubelet || self.plan.fails_permille > 0, "left with a kubelet running");
                assert!(!self.tunnel, "left with a tunnel");
                self.exit = Some(exit);
            }
        }
    }

    pub(crate) fn start_kubelet(&mut self) {
        assert!(self.configured, "a kubelet without files");
        if self.fails() {
            self.kubelet_until = Some(self.now + Duration::from_secs(self.draw() % 30));
        }
        self.kubelets += 1;
        self.kubelet_until = self.kubelet_lives.map(|lives| self.now + lives).or(self.kubelet_until);
        (self.kubelet, self.node) = (true, true);
        if !std::mem::replace(&mut self.populated, true) {
            self.pods = (0..self.plan.pods).collect();
        }
    }

    pub(crate) fn drain(&mut self, action: DrainAction) {
        let pod = |number: &u32| Pod {
            namespace: "default".into(),
            name: number.to_string(),
            uid: number.to_string(),
            priority: 0,
            grace_seconds: 2,
            kind: PodKind::Ordinary,
            ends_at: None,
        };
        match action {
            DrainAction::List if self.fails() => self.later(Input::NotListed("no answer".into())),
            DrainAction::List => {
                let pods = self.pods.iter().map(pod).collect();
                self.later(Input::Listed { pods, volumes: 0 });
            }
            DrainAction::Evict { pod, .. } | DrainAction::Delete { pod, .. } => {
                if self.fails() {
                    self.later(Input::Answered { uid: pod.uid, answered: Answered::Failed("x".into()) });
                } else {
                    self.pods.remove(&pod.name.parse().unwrap());
                    self.later(Input::Answered { uid: pod.uid, answered: Answered::Accepted });
                }
            }
            DrainAction::Done { .. } => panic!("the life keeps that to itself"),
        }
    }

    /// The notice that stands by the service.
    pub(crate) fn notice(&self) -> Option<NoticeOrder> {
        let (at, seconds) = self.plan.notice?;
        let withdrawn = self.plan.withdrawn.is_some_and(|at| self.now.as_secs() >= at);
        let acknowledged = self.reports.iter().any(|report| report.state >= WorkerState::Drained);
        (self.now.as_secs() >= at && (acknowledged || !withdrawn)).then(|| NoticeOrder {
            gone_at: instant(Duration::from_secs(at + seconds)),
            reason: "outbid".into(),
        })
    }

    pub(crate) fn report(&mut self, report: &Report) {
        assert_eq!((report.worker.to_string().as_str(), report.generation), ("main-7", 3));
        // Numbers are taken on disk beforehand: only a disk that takes nothing and a crash together break the order.
        let sound = self.plan.fails_permille == 0 || self.crashes == 0;
        if let Some(last) = self.reports.last().filter(|_| sound) {
            assert!(report.sequence > last.sequence, "{report:?} after {last:?}");
        }
        if report.state == WorkerState::Left {
            assert!(!self.tunnel, "left, and the tunnel is up");
        }
        if report.state == WorkerState::Ready {
            assert!(self.configured);
        }
        // A report may arrive and its answer be lost.
        let lost = self.fails();
        self.reports.push(report.clone());
        if lost {
            return self.later(Input::ReportFailed);
        }
        let tunnel = report.renew_token.then(|| tunnel_terms(self.now));
        let notice = self.notice();
        self.later(Input::Reported(Box::new(ReportAnswer {
            now: instant(self.now),
            generation: 3,
            notice,
            tunnel,
        })));
    }

    pub(crate) fn run(&mut self, until: Duration) {
        for _ in 0..STEPS_MAX {
            if self.exit.is_some() || self.now > until || !self.happen() {
                return;
            }
        }
        panic!("too many steps until {:?}", self.now);
    }

    pub(crate) fn told(&self, state: WorkerState) -> bool {
        self.reports.iter().any(|report| report.state == state)
    }
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let fails = prop_oneof![2 => Just(0_u64), 1 => Just(50), 1 => Just(300)];
    let crashes = prop_oneof![1 => Just(0_u64), 1 => Just(10), 1 => Just(100)];
    let notice = prop::option::of((0_u64..300, 0_u64..360));
    (
        fails,
        crashes,
        notice,
        prop::option::weighted(0.3, 0_u64..400),
        prop::option::weighted(0.3, 0_u64..300),
        0_u32..20,
        any::<u64>(),
        -700_i64..700,
    )
        .prop_map(
            |(fails_permille, crashes_permille, notice, withdrawn, signal, pods, chance, skew_seconds)| {
                Plan {
                    skew_seconds,
                    fails_permille,
                    crashes_permille,
                    notice,
                    withdrawn,
                    signal,
                    pods,
                    chance,
                }
            },
        )
}
