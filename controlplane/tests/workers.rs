//! Workers: who joins, what the market is told of them, and that nothing is told for ever.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

use controlplane::workers::{Act, Desk, DeskSettings, Judged, Statement};
use proptest::prelude::*;
use proto::Timestamp;
use proto::envelope::{EventBatch, EventEntry};
use proto::market::{
    LeaseNotice, LeaseSpan, LossReason, MarketEvent, ReleaseReason, RosterBid, RosterLeases, RosterMarket,
    RosterState, WorkerStand,
};
use proto::worker::{
    Bound, PublicKey, Redemption, RedemptionRefusal, Report, SiteKey, WorkerId, WorkerState,
};

const DEAD_SECONDS: u32 = 60;
const REPEAT_SECONDS: u32 = 10;
const LEASES: u32 = 6;

fn at(seconds: u32) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000).plus_seconds(seconds)
}

fn worker(lease: u64) -> WorkerId {
    format!("main-{lease}").parse().unwrap()
}

fn span(first: u64, units: u32) -> LeaseSpan {
    LeaseSpan { first, units }
}

/// A desk, and the market beside it as far as workers see it.
struct World {
    desk: Desk,
    sequence: u64,
    now: u32,
    reports: u64,
    told: Vec<(u64, Statement)>,
    cleaned: Vec<u64>,
    /// What the market makes of what it is told.
    stands: Vec<WorkerStand>,
    notices: Vec<Option<LeaseNotice>>,
    over: Vec<bool>,
}

impl World {
    fn new() -> Self {
        let settings = DeskSettings { dead_seconds: DEAD_SECONDS, repeat_seconds: REPEAT_SECONDS };
        let mut desk = Desk::new(settings, ["main".parse().unwrap()], at(0));
        let leases =
            RosterLeases { leases: span(1, LEASES), market: 0, worker: WorkerStand::Booting, notice: None };
        assert!(!desk.is_ready());
        desk.restore(
            &"main".parse().unwrap(),
            RosterState {
                sequence: 7,
                next_lease: u64::from(LEASES) + 1,
                markets: vec![RosterMarket {
                    number: 0,
                    id: "dfw/gp.large".parse().unwrap(),
                    sources: vec!["h1".parse().unwrap()],
                }],
                bids: vec![RosterBid {
                    number: 1,
                    tenant: "acme".parse().unwrap(),
                    cluster: "c".parse().unwrap(),
                    pool: "p".parse().unwrap(),
                    leases: vec![leases],
                }],
            },
        );
        assert!(desk.is_ready());
        let count = LEASES as usize + 1;
        Self {
            desk,
            sequence: 7,
            now: 0,
            reports: 0,
            told: Vec::new(),
            cleaned: Vec::new(),
            stands: vec![WorkerStand::Booting; count],
            notices: vec![None; count],
            over: vec![false; count],
        }
    }

    fn decide(&mut self, event: MarketEvent) {
        self.sequence += 1;
        let entries = vec![EventEntry { key: None, digest: None, events: vec![event] }];
        let batch = EventBatch {
            machine: "market".to_owned(),
            stream: "main".parse().unwrap(),
            sequence: self.sequence,
            at: at(self.now),
            rules: 1,
            entries,
        };
        self.desk.follow(&"main".parse().unwrap(), &batch).unwrap();
    }

    fn join(&mut self, lease: u64) {
        let bound = Bound { generation: 1, fingerprint: "f".to_owned() };
        let holder = controlplane::workers::Holder {
            tenant: "acme".parse().unwrap(),
            cluster: "c".parse().unwrap(),
            pool: None,
            market: None,
        };
        self.desk.remember(at(self.now), worker(lease), bound, holder);
    }

    fn report(&mut self, lease: u64, state: WorkerState) -> Option<proto::worker::ReportAnswer> {
        self.reports += 1;
        let report = Report {
            worker: worker(lease),
            generation: 1,
            sequence: self.reports,
            state,
            gone_at: None,
            undone: Vec::new(),
            undone_more: 0,
            kubelet_restarts: 0,
            renew_token: false,
        };
        self.desk.report(at(self.now), &report)
    }

    fn notice(&mut self, lease: u64, gone_in: u32) {
        let notice = LeaseNotice { gone_at: at(self.now + gone_in), reason: LossReason::Outbid };
        self.notices[lease as usize] = Some(notice);
        self.decide(MarketEvent::NoticeGiven {
            number: 1,
            market: 0,
            leases: span(lease, 1),
            round: 1,
            gone_at: notice.gone_at,
            reason: notice.reason,
            kept_by: None,
        });
    }

    fn withdraw(&mut self, lease: u64) {
        self.notices[lease as usize] = None;
        self.decide(MarketEvent::NoticeWithdrawn { number: 1, market: 0, leases: span(lease, 1), round: 1 });
    }

    fn release(&mut self, lease: u64) {
        self.over[lease as usize] = true;
        let reason = ReleaseReason::NoticeEnded;
        self.decide(MarketEvent::UnitsReleased { number: 1, market: 0, leases: span(lease, 1), reason });
    }

    /// Lets the desk work, and the market take what it is told, as it would.
    fn work(&mut self) -> usize {
        let acts = self.desk.work(at(self.now));
        let count = acts.len();
        for act in acts {
            match act {
                Act::Tell(worker, statement) => self.tell(worker.lease(), statement),
                Act::Order(worker, answer) => {
                    let wanted = self.notices[worker.lease() as usize].map(|notice| notice.gone_at);
                    assert_eq!(answer.notice.map(|notice| notice.gone_at), wanted);
                }
                Act::Clean(worker, _) => {
                    assert!(self.over[worker.lease() as usize], "{worker} is not over");
                    self.cleaned.push(worker.lease());
                    self.desk.forget(&worker);
                }
            }
        }
        count
    }

    fn tell(&mut self, lease: u64, statement: Statement) {
        self.told.push((lease, statement));
        let (number, market, leases) = (1, 0, span(lease, 1));
        let place = lease as usize;
        assert!(!self.over[place], "nothing is said of a lease that is over");
        match statement {
            Statement::Ready => {
                self.stands[place] = WorkerStand::Ready;
                self.decide(MarketEvent::WorkersReady { number, market, leases });
            }
            Statement::Dead { last_heartbeat_at } => {
                assert_eq!(self.stands[place], WorkerStand::Ready, "the market refuses it");
                self.stands[place] = WorkerStand::Dead;
                let since = last_heartbeat_at;
                self.decide(MarketEvent::WorkersDead { number, market, leases, since });
            }
            Statement::Released => {
                assert!(self.notices[place].is_some(), "the market refuses it");
                self.release(lease);
            }
        }
    }
}

#[test]
fn a_worker_joins_is_charged_dies_comes_back_and_leaves() {
    let mut world = World::new();
    world.join(1);
    assert_eq!(world.work(), 0, "nothing is known of it yet");
    world.now = 5;
    world.report(1, WorkerState::Joining).unwrap();
    assert_eq!(world.work(), 0);
    world.now = 20;
    let answer = world.report(1, WorkerState::Ready).unwrap();
    assert_eq!((answer.generation, answer.notice), (1, None));
    world.work();
    assert_eq!(world.told, [(1, Statement::Ready)]);
    // Silence, longer than is waited.
    world.now = 20 + DEAD_SECONDS;
    assert_eq!(world.work(), 0);
    world.now += 1;
    world.work();
    assert_eq!(world.told.pop(), Some((1, Statement::Dead { last_heartbeat_at: at(20) })));
    world.now = 200;
    world.report(1, WorkerState::Failing).unwrap();
    assert_eq!(world.work(), 0, "heard, and not well");
    world.now = 201;
    world.report(1, WorkerState::Ready).unwrap();
    world.work();
    assert_eq!(world.told.pop(), Some((1, Statement::Ready)));
    // The notice comes by order and with the next answer.
    world.notice(1, 60);
    assert_eq!(world.work(), 1);
    let answer = world.report(1, WorkerState::Draining).unwrap();
    assert_eq!(answer.notice.unwrap().reason, "outbid");
    assert_eq!(world.work(), 0);
    world.now = 230;
    world.report(1, WorkerState::Left).unwrap();
    world.work();
    assert_eq!(world.told.pop(), Some((1, Statement::Released)));
    assert_eq!(world.report(1, WorkerState::Left).unwrap().generation, 2, "it is nobody's any more");
    world.work();
    assert_eq!(world.cleaned, [1]);
    assert_eq!(world.work(), 0);
    assert_eq!(world.report(1, WorkerState::Left), None, "nothing is left of it");
    assert!(world.desk.is_over(&worker(1)) && !world.desk.is_over(&worker(2)));
    assert!(!world.desk.is_over(&worker(u64::from(LEASES) + 1)), "not heard of yet");
}

#[test]
fn who_leaves_without_a_notice_is_no_longer_charged() {
    let mut world = World::new();
    world.join(1);
    world.report(1, WorkerState::Ready).unwrap();
    world.work();
    world.now = 30;
    world.report(1, WorkerState::Draining).unwrap();
    world.now = 40;
    world.report(1, WorkerState::Left).unwrap();
    world.work();
    assert_eq!(world.told.last(), Some(&(1, Statement::Dead { last_heartbeat_at: at(30) })));
    // A late word of before does not bring it back.
    world.report(1, WorkerState::Ready).unwrap();
    assert_eq!(world.work(), 0);
    world.notice(1, 60);
    world.work();
    assert_eq!(world.told.last(), Some(&(1, Statement::Released)));
}

#[test]
fn what_is_not_taken_is_said_again_and_not_more_often() {
    let mut world = World::new();
    world.join(1);
    world.report(1, WorkerState::Ready).unwrap();
    let said = |world: &mut World| world.desk.work(at(world.now)).len();
    assert_eq!(said(&mut world), 1);
    for now in 1..REPEAT_SECONDS {
        world.now = now;
        assert_eq!(said(&mut world), 0, "at {now}");
    }
    world.now = REPEAT_SECONDS;
    assert_eq!(said(&mut world), 1);
}

#[test]
fn a_deaf_desk_calls_nobody_dead() {
    let mut world = World::new();
    for lease in 1..=5 {
        world.join(lease);
        world.report(lease, WorkerState::Ready).unwrap();
    }
    world.work();
    world.told.clear();
    world.now = 10 * DEAD_SECONDS;
    world.work();
    assert_eq!(world.told, [], "nobody was heard at all");
    for lease in 1..5 {
        world.report(lease, WorkerState::Ready).unwrap();
    }
    world.work();
    assert_eq!(world.told, [(5, Statement::Dead { last_heartbeat_at: at(0) })]);
}

#[test]
fn redemptions_are_judged_by_lease_and_key() {
    let world = World::new();
    let site = SiteKey::new(&[7; 32]).unwrap();
    let key = |last: u8| {
        let mut point = [last; 65];
        point[0] = 4;
        PublicKey::from_bytes(&point).unwrap()
    };
    let claim = |lease: u64, generation: u64, last: u8| {
        let secret = site.mint(worker(lease), generation, at(900)).reveal();
        let signature = "30".repeat(70);
        site.claim(&Redemption { secret, public_key: key(last), signature }).unwrap()
    };
    let Judged::Bind(bound, holder) = world.desk.judge(at(1), &claim(1, 1, 1), None) else {
        panic!("the first key joins");
    };
    assert_eq!((holder.tenant.as_str(), holder.cluster.as_str()), ("acme", "c"));
    assert_eq!(holder.market.unwrap().to_string(), "dfw/gp.large");
    let refused = |reason| Judged::Refuse(reason);
    let judge = |claim, stored| world.desk.judge(at(1), &claim, stored);
    assert!(matches!(judge(claim(1, 1, 1), Some(&bound)), Judged::Again(_)));
    assert_eq!(judge(claim(1, 1, 2), Some(&bound)), refused(RedemptionRefusal::OtherKey));
    assert_eq!(judge(claim(1, 2, 1), None), refused(RedemptionRefusal::Over));
    assert_eq!(judge(claim(u64::from(LEASES) + 1, 1, 1), None), Judged::Wait, "not heard of yet");
    assert_eq!(world.desk.judge(at(900), &claim(1, 1, 1), None), refused(RedemptionRefusal::Expired));
    let mut over = World::new();
    over.release(1);
    assert_eq!(over.desk.judge(at(1), &claim(1, 1, 1), None), refused(RedemptionRefusal::Over));
    // A secret is for whoever has servers in the lease's market.
    assert_eq!(world.desk.may_boot(&worker(1), &"h1".parse().unwrap()), Some(1));
    assert_eq!(world.desk.may_boot(&worker(1), &"h2".parse().unwrap()), None);
    assert_eq!(over.desk.may_boot(&worker(1), &"h1".parse().unwrap()), None);
}

proptest! {
    /// Whatever happens: what the desk says is never refused by a market that knows what the desk knows; once nothing
    /// happens any more it falls silent, and by then the market knows who is well and nothing is left of who is over.
    #[test]
    fn it_falls_silent_with_everything_said(
        steps in prop::collection::vec((0_u8..8, 1_u64..=u64::from(LEASES), 0_u32..40), 1..80),
    ) {
        let mut world = World::new();
        let mut states: Vec<Option<WorkerState>> = vec![None; LEASES as usize + 1];
        for (what, lease, seconds) in steps {
            world.now += seconds;
            let place = lease as usize;
            let state = match what {
                0 => {
                    if !world.over[place] { world.join(lease); }
                    None
                }
                1 => {
                    if !world.over[place] { world.notice(lease, 60); }
                    None
                }
                2 => {
                    if !world.over[place] && world.notices[place].is_some() { world.withdraw(lease); }
                    None
                }
                3 => {
                    if !world.over[place] && seconds > 30 { world.release(lease); }
                    None
                }
                4 => Some(WorkerState::Ready),
                5 => Some(WorkerState::Failing),
                6 => Some(WorkerState::Draining),
                _ if seconds > 30 => Some(WorkerState::Left),
                _ => Some(WorkerState::Joining),
            };
            if let Some(state) = state
                && world.report(lease, state).is_some()
                && states[place] != Some(WorkerState::Left)
            {
                states[place] = Some(state);
            }
            world.work();
        }
        // Those who are well go on saying so; at last the desk has nothing more to say.
        let mut silent = false;
        for _ in 0..20 {
            world.now += 30;
            for lease in 1..=u64::from(LEASES) {
                if let Some(state) = states[lease as usize] {
                    world.report(lease, state);
                }
            }
            silent = world.work() == 0;
        }
        prop_assert!(silent, "it goes on and on: {:?}", world.told);
        for (lease, state) in states.iter().enumerate().skip(1) {
            let is_known = world.desk.bound(&worker(lease as u64)).is_some();
            if world.over[lease] {
                prop_assert!(!is_known, "{lease} is over");
            } else if is_known {
                let is_well = matches!(state, Some(WorkerState::Ready));
                if is_well {
                    prop_assert_eq!(world.stands[lease], WorkerStand::Ready);
                }
                if matches!(state, None | Some(WorkerState::Failing | WorkerState::Joining | WorkerState::Left)) {
                    prop_assert!(world.stands[lease] != WorkerStand::Ready, "{} is charged", lease);
                }
            }
        }
    }
}
