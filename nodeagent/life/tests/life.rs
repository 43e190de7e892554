//! A life against a world that fails, is late, and breaks it off at any step.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use life::{
    Action, Answered, DrainAction, Exit, Input, Life, LifeConfig, Limits, Look, Phase, Pod, PodKind, Saved,
    Source, When,
};
use proptest::prelude::*;
use proto::Timestamp;
use proto::worker::{
    Admission, ClusterTerms, KubeletTerms, NoticeOrder, RedemptionRefusal, Report, ReportAnswer, TunnelTerms,
    UndoneWhat, WorkerState,
};

/// When the world begins, by the service's clock.
const EPOCH: i64 = 1_800_000_000_000_000;

const STEPS_MAX: usize = 20_000;

fn instant(now: Duration) -> Timestamp {
    Timestamp::from_micros(EPOCH).plus_micros(i64::try_from(now.as_micros()).unwrap())
}

fn tunnel_terms(now: Duration) -> TunnelTerms {
    TunnelTerms {
        host: "proxy".into(),
        port: 8132,
        token: format!("token-{}", now.as_secs()),
        token_expires_at: instant(now + Duration::from_mins(5)),
    }
}

fn admission(now: Duration) -> Admission {
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
    }
}

/// What a case draws.
#[derive(Debug, Clone)]
struct Plan {
    /// The worker's clock less the service's, in seconds.
    skew_seconds: i64,
    /// Of a thousand things done, so many fail.
    fails_permille: u64,
    /// Of a thousand actions, so many are the last before a crash.
    crashes_permille: u64,
    /// When the market gives notice, and how much, in seconds.
    notice: Option<(u64, u64)>,
    /// When it is taken back, in seconds.
    withdrawn: Option<u64>,
    /// When somebody stops the agent.
    signal: Option<u64>,
    pods: u32,
    chance: u64,
}

#[allow(clippy::struct_excessive_bools, reason = "each is something else")]
struct World {
    plan: Plan,
    now: Duration,
    chance: u64,
    disk: Option<Saved>,
    life: Life,
    /// What is under way in this process: when it is over, and what comes of it.
    pending: Vec<(Duration, Input)>,
    configured: bool,
    kubelet: bool,
    kubelet_until: Option<Duration>,
    tunnel: bool,
    node: bool,
    cordoned: bool,
    pods: BTreeSet<u32>,
    reports: Vec<Report>,
    exit: Option<Exit>,
    crashes: u32,
    signalled: bool,
}

fn life(plan: &Plan, now: Duration, saved: Option<Saved>) -> Life {
    let own = instant(now).plus_micros(plan.skew_seconds * 1_000_000);
    let config = LifeConfig { limits: Limits::default(), tunnel: true, instant: own, seed: plan.chance };
    Life::new(config, saved, now)
}

impl World {
    fn new(plan: &Plan) -> World {
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
            pods: (0..plan.pods).collect(),
            reports: Vec::new(),
            exit: None,
            crashes: 0,
            signalled: false,
        }
    }

    fn draw(&mut self) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 33
    }

    fn fails(&mut self) -> bool {
        self.draw() % 1_000 < self.plan.fails_permille
    }

    fn later(&mut self, input: Input) {
        let at = self.now + Duration::from_millis(self.draw() % 50);
        self.pending.push((at, input));
    }

    /// One thing happens. Whether anything still will.
    fn happen(&mut self) -> bool {
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
    fn crash(&mut self) {
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

    fn perform(&mut self, action: Action) {
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
                if self.fails() {
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
            Action::StartKubelet => {
                assert!(self.configured, "a kubelet without files");
                if self.fails() {
                    self.kubelet_until = Some(self.now + Duration::from_secs(self.draw() % 30));
                }
                (self.kubelet, self.node) = (true, true);
            }
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
                    assert!(noticed || self.plan.fails_permille > 0, "cordoned, and not on disk");
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

    fn drain(&mut self, action: DrainAction) {
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
    fn notice(&self) -> Option<NoticeOrder> {
        let (at, seconds) = self.plan.notice?;
        let withdrawn = self.plan.withdrawn.is_some_and(|at| self.now.as_secs() >= at);
        let acknowledged = self.reports.iter().any(|report| report.state >= WorkerState::Drained);
        (self.now.as_secs() >= at && (acknowledged || !withdrawn)).then(|| NoticeOrder {
            gone_at: instant(Duration::from_secs(at + seconds)),
            reason: "outbid".into(),
        })
    }

    fn report(&mut self, report: &Report) {
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

    fn run(&mut self, until: Duration) {
        for _ in 0..STEPS_MAX {
            if self.exit.is_some() || self.now > until || !self.happen() {
                return;
            }
        }
        panic!("too many steps until {:?}", self.now);
    }

    fn told(&self, state: WorkerState) -> bool {
        self.reports.iter().any(|report| report.state == state)
    }
}

fn plan() -> impl Strategy<Value = Plan> {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_life_keeps_its_promises(plan in plan()) {
        let limits = Limits::default();
        let mut world = World::new(&plan);
        let gone = plan.notice.map(|(at, seconds)| at + seconds);
        world.run(Duration::from_mins(15));
        let quiet = plan.fails_permille == 0 && plan.crashes_permille == 0;
        if let Some(gone) = gone.filter(|_| plan.withdrawn.is_none()) {
            // Whatever fails: it ends soon after the server should be gone, as it heard of the notice at the
            // latest a report's distance and the largest wait later.
            let heard = limits.retry_cap.as_secs() * 3;
            let latest = gone + limits.last_report.as_secs() + heard + 60;
            prop_assert_eq!(world.exit, Some(Exit::Left), "{:?} at {:?}", world.life.status(), world.now);
            prop_assert!(world.now.as_secs() <= latest, "{:?}", world.now);
        }
        if let Some((_, seconds)) = plan.notice.filter(|(_, seconds)| *seconds >= 60 && quiet)
            && plan.withdrawn.is_none()
        {
            prop_assert!(world.pods.is_empty(), "{} s were enough", seconds);
            prop_assert!(world.told(WorkerState::Drained) && world.told(WorkerState::Left));
            prop_assert!(world.now.as_secs() <= gone.unwrap());
            prop_assert!(world.cordoned || world.disk.as_ref().is_none_or(|saved| saved.undone.is_empty()));
        }
        if plan.notice.is_none() && plan.signal.is_none() {
            prop_assert_eq!(world.exit, None);
            if plan.crashes_permille == 0 && plan.fails_permille == 0 {
                prop_assert_eq!(world.life.status().phase, Phase::Serving);
                prop_assert!(world.told(WorkerState::Ready) && !world.cordoned);
                prop_assert!(world.reports.len() < 200, "{} reports", world.reports.len());
                // Of a token that lives for 300 s a new one is asked for in time.
                prop_assert!(world.reports.iter().any(|report| report.renew_token));
            }
        }
        if plan.skew_seconds != 0 && plan.fails_permille == 0 && world.disk.is_some() {
            let skew = world.disk.as_ref().unwrap().skew_micros;
            prop_assert!((skew + plan.skew_seconds * 1_000_000).abs() < 1_000_000, "{skew}");
        }
    }

    #[test]
    fn a_notice_that_is_withdrawn_in_time_leaves_a_worker_in_service(chance in any::<u64>(), crashes_permille in prop_oneof![Just(0_u64), Just(20)]) {
        let plan = Plan {
            skew_seconds: 0,
            fails_permille: 0,
            crashes_permille,
            notice: Some((60, 600)),
            withdrawn: Some(62),
            signal: None,
            pods: 0,
            chance,
        };
        let mut world = World::new(&plan);
        world.run(Duration::from_secs(500));
        if world.told(WorkerState::Drained) {
            // It was drained before it heard: then it leaves.
            prop_assert_eq!(world.exit, Some(Exit::Left));
        } else {
            prop_assert_eq!(world.exit, None);
            prop_assert!(!world.cordoned, "{:?}", world.life.status());
            prop_assert!(world.kubelet && (world.tunnel || world.crashes > 0));
            if crashes_permille == 0 {
                prop_assert_eq!(world.life.status().phase, Phase::Serving);
            }
        }
    }
}

fn calm(notice: Option<(u64, u64)>) -> Plan {
    Plan {
        skew_seconds: 600,
        fails_permille: 0,
        crashes_permille: 0,
        notice,
        withdrawn: None,
        signal: None,
        pods: 5,
        chance: 7,
    }
}

#[test]
fn a_worker_with_a_wrong_clock_leaves_in_time() {
    for skew_seconds in [-600, 600] {
        let mut world = World::new(&Plan { skew_seconds, ..calm(Some((100, 60))) });
        world.run(Duration::from_mins(15));
        assert_eq!(world.exit, Some(Exit::Left));
        assert!(world.pods.is_empty() && world.now < Duration::from_secs(160), "{:?}", world.now);
        let order: Vec<WorkerState> = {
            let mut states: Vec<_> = world.reports.iter().map(|report| report.state).collect();
            states.dedup();
            states
        };
        let usual = [
            WorkerState::Joining,
            WorkerState::Ready,
            WorkerState::Draining,
            WorkerState::Drained,
            WorkerState::Left,
        ];
        assert_eq!(order, usual);
        assert!(world.disk.as_ref().is_some_and(|saved| saved.phase == Phase::Over));
    }
}

#[test]
fn a_refused_secret_is_the_end() {
    for reason in [RedemptionRefusal::Foreign, RedemptionRefusal::OtherKey] {
        let mut life = life(&calm(None), Duration::ZERO, None);
        let mut actions = Vec::new();
        life.step(Duration::ZERO, Input::Tick, &mut actions);
        assert_eq!(actions, [Action::Redeem]);
        actions.clear();
        life.step(Duration::ZERO, Input::RedeemRefused(reason), &mut actions);
        assert_eq!(actions, [Action::Exit(Exit::Refused(reason))]);
        assert_eq!(life.wake_at(), None);
    }
}

#[test]
fn a_control_plane_that_is_away_is_asked_ever_more_seldom() {
    let mut life = life(&calm(None), Duration::ZERO, None);
    let (mut asked, mut now) = (Vec::new(), Duration::ZERO);
    while now < Duration::from_hours(1) {
        let mut actions = Vec::new();
        life.step(now, Input::Tick, &mut actions);
        assert_eq!(actions, [Action::Redeem]);
        asked.push(now);
        life.step(now, Input::RedeemFailed, &mut Vec::new());
        now = life.wake_at().expect("it asks again");
    }
    assert!((50..130).contains(&asked.len()), "{}", asked.len());
}

#[test]
fn what_another_version_saved_is_not_guessed_at() {
    let mut world = World::new(&calm(None));
    world.run(Duration::from_secs(100));
    let text = String::from_utf8(world.disk.unwrap().write().unwrap()).unwrap();
    assert!(Saved::read(text.as_bytes()).is_ok());
    assert!(Saved::read(text.replace("\"version\": 1", "\"version\": 2").as_bytes()).is_err());
    assert!(Saved::read(&text.as_bytes()[..text.len() / 2]).is_err());
    assert!(Saved::read(b"").is_err());
}

#[test]
fn a_kubelet_that_does_not_end_is_killed_and_reported() {
    let mut life = life(&calm(None), Duration::ZERO, None);
    let (mut now, mut said) = (Duration::ZERO, Vec::new());
    let mut inputs = vec![Input::Redeemed(Box::new(admission(now))), Input::Configured];
    inputs.push(Input::Noticed {
        source: Source::Signal,
        when: When::In(Duration::from_mins(1)),
        reason: "stopped".into(),
    });
    inputs.push(Input::NoNode);
    for input in inputs {
        life.step(now, input, &mut said);
    }
    let answer = ReportAnswer { now: instant(now), generation: 3, notice: None, tunnel: None };
    for _ in 0..200 {
        let mut actions = Vec::new();
        life.step(now, Input::Tick, &mut actions);
        if actions.iter().any(|action| matches!(action, Action::Report(_))) || said.len() < 12 {
            life.step(
                now,
                Input::Reported(Box::new(ReportAnswer { now: instant(now), ..answer.clone() })),
                &mut actions,
            );
        }
        said.append(&mut actions);
        match life.wake_at() {
            Some(at) => now = at,
            None => break,
        }
    }
    let at = |wanted: &Action| said.iter().position(|action| action == wanted);
    assert!(at(&Action::StopKubelet) < at(&Action::KillKubelet), "{said:?}");
    assert!(at(&Action::KillKubelet).is_some() && at(&Action::Exit(Exit::Left)).is_some());
    assert!(life.status().undone.iter().any(|undone| undone.what == UndoneWhat::Kubelet));
}
