//! Bills of whole histories, from the machine's events, against what the rules say in so many words; and that nobody
//! gains by moving its limit around a notice.

#![allow(clippy::unwrap_used)] // helpers of tests fail like tests

use std::collections::BTreeMap;

use market::Market;
use market::billing::{EXACT_PER_NANO, Month, RateName, Unbilled};
use market::view::View;
use proptest::prelude::*;
use proto::machine::Received;
use proto::market::{LeaseNumber, MarketCommand, MarketEvent};
use proto::{Machine, Price, Role, Sender, TenantId, Timestamp};
use serde_json::{Value, json};

/// 23:40 on the last of January: histories cross the month's end.
const START: Timestamp = Timestamp::from_micros(1_769_902_800_000_000);
const SECOND: i64 = 1_000_000;
const NOTICE: i64 = 60 * SECOND;

/// A lease of the tenant under watch, as events tell of it.
#[derive(Clone, Debug, Default)]
struct Lease {
    ready_at: Option<i64>,
    dead: Vec<(i64, Option<i64>)>,
    /// Notices: from, until they were taken back.
    leaving: Vec<(i64, Option<i64>)>,
    over_at: Option<i64>,
}

impl Lease {
    fn is_charged(&self, at: i64) -> bool {
        let within = |&(from, to): &(i64, Option<i64>)| from <= at && to.is_none_or(|to| at < to);
        self.ready_at.is_some_and(|ready| ready <= at)
            && self.over_at.is_none_or(|over| at < over)
            && !self.dead.iter().any(within)
    }

    fn noticed_at(&self, at: i64) -> Option<i64> {
        let holds = |&&(from, to): &&(i64, Option<i64>)| from <= at && to.is_none_or(|to| at < to);
        self.leaving.iter().find(holds).map(|&(from, _)| from)
    }
}

struct World {
    market: Market,
    view: View,
    now: Timestamp,
    sequence: u64,
    ids: u64,
    /// Numbers of the watched tenant's bids.
    own: Vec<u64>,
    version: u32,
    prices: Vec<(i64, u64)>,
    /// The watched bid's limits, by since when.
    limits: Vec<(i64, u64)>,
    leases: BTreeMap<LeaseNumber, Lease>,
    waiting: Vec<LeaseNumber>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            market: Market::new(&"main".parse().unwrap()),
            view: View::new(),
            now: START,
            sequence: 0,
            ids: 0,
            own: Vec::new(),
            version: 1,
            prices: Vec::new(),
            limits: Vec::new(),
            leases: BTreeMap::new(),
            waiting: Vec::new(),
        };
        world.ask(Role::Operator, json!({"type": "AdoptRules", "rules": {"coalesce_milliseconds": 0}}));
        let settings = json!({"reserve": "0.001", "notice_seconds": 60});
        world.ask(Role::Operator, json!({"type": "DefineMarket", "market": "dfw/a", "settings": settings}));
        world.ask(
            Role::Operator,
            json!({"type": "SupplyOffered", "source": "h", "market": "dfw/a", "generation": 1, "units": 2}),
        );
        world
    }

    fn ask(&mut self, role: Role, mut command: Value) -> bool {
        self.ids += 1;
        if command.get("id").is_none() {
            command["id"] = format!("c{}", self.ids).into();
        }
        let sender = Sender { role, principal: "someone".parse().unwrap() };
        let command: MarketCommand = serde_json::from_value(command).unwrap();
        let mut events = Vec::new();
        self.market.step(self.now, &Received::new(sender, command), &mut events);
        let is_done = !matches!(events[0], MarketEvent::CommandRefused(_));
        self.fold(&events);
        self.wake();
        is_done
    }

    fn wake(&mut self) {
        while self.market.wake_at().is_some_and(|at| at <= self.now) {
            let mut events = Vec::new();
            self.market.wake(self.now, &mut events);
            self.fold(&events);
        }
    }

    fn fold(&mut self, events: &[MarketEvent]) {
        self.sequence += 1;
        let at = self.now.micros();
        for event in events {
            self.view.apply(self.now, self.sequence, event);
            match event {
                MarketEvent::BidPlaced { number, bid, .. } if bid.tenant.as_str() == "own" => {
                    self.own.push(*number);
                }
                MarketEvent::PriceChanged { prices, .. } => {
                    self.prices.extend(prices.price.map(|price| (at, price.micros())));
                }
                MarketEvent::UnitsAwarded { number, leases, .. } => {
                    self.waiting.extend(leases.first..leases.end());
                    if self.own.contains(number) {
                        self.leases.extend((leases.first..leases.end()).map(|one| (one, Lease::default())));
                    }
                }
                MarketEvent::NoticeGiven { leases, .. } => {
                    for (_, lease) in self.leases.range_mut(leases.first..leases.end()) {
                        lease.leaving.push((at, None));
                    }
                }
                MarketEvent::NoticeWithdrawn { leases, .. } => {
                    for (_, lease) in self.leases.range_mut(leases.first..leases.end()) {
                        lease.leaving.last_mut().unwrap().1 = Some(at);
                    }
                }
                MarketEvent::WorkersReady { leases, .. } => {
                    self.waiting.retain(|&lease| !leases.contains(lease));
                    for (_, lease) in self.leases.range_mut(leases.first..leases.end()) {
                        lease.ready_at.get_or_insert(at);
                        if let Some((_, to @ None)) = lease.dead.last_mut() {
                            *to = Some(at);
                        }
                    }
                }
                MarketEvent::WorkersDead { leases, since, .. } => {
                    for (_, lease) in self.leases.range_mut(leases.first..leases.end()) {
                        if lease.dead.last().is_none_or(|(_, to)| to.is_some()) {
                            // Not before it was last ready again.
                            let back = lease.dead.last().and_then(|&(_, to)| to).unwrap_or(i64::MIN);
                            lease.dead.push((since.micros().max(back), None));
                        }
                    }
                }
                MarketEvent::UnitsReleased { leases, .. } => {
                    self.waiting.retain(|&lease| !leases.contains(lease));
                    for (_, lease) in self.leases.range_mut(leases.first..leases.end()) {
                        lease.over_at = Some(at);
                    }
                }
                _ => {}
            }
        }
    }

    fn place(&mut self, tenant: &str, id: &str, limit: u64) {
        let limit_text = Price::micros_or_max(limit).to_string();
        let done = self.ask(
            Role::Gateway,
            json!({"type": "PlaceBid", "id": id, "tenant": tenant, "cluster": "c", "pool": "p", "quantity": 1,
                "options": [{"market": "dfw/a", "limit": limit_text}]}),
        );
        assert!(done);
        if tenant == "own" {
            self.limits.push((self.now.micros(), limit));
        }
    }

    fn amend(&mut self, tenant: &str, id: &str, version: u32, limit: u64) {
        let limit_text = Price::micros_or_max(limit).to_string();
        let done = self.ask(
            Role::Gateway,
            json!({"type": "AmendBid", "tenant": tenant, "bid": id, "version": version,
                "terms": {"quantity": 1, "options": [{"market": "dfw/a", "limit": limit_text}]}}),
        );
        assert!(done);
        if tenant == "own" {
            self.limits.push((self.now.micros(), limit));
        }
    }

    /// Everybody who has a server has a ready worker at once.
    fn boot(&mut self) {
        for lease in self.waiting.clone() {
            self.ask(Role::Service, json!({"type": "ReportReady", "leases": [lease]}));
        }
    }

    fn wait(&mut self, seconds: i64) {
        let end = self.now.plus_micros(seconds * SECOND);
        while let Some(due) = self.market.wake_at().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.wake();
            self.boot();
        }
        self.now = end;
        self.view.settle(end, self.sequence);
    }

    /// What the watched tenant owes, step by step, for the time between two instants.
    fn owed(&self, from: i64, to: i64) -> i128 {
        let mut steps: Vec<i64> = vec![from, to];
        steps.extend(self.prices.iter().map(|&(at, _)| at));
        steps.extend(self.limits.iter().map(|&(at, _)| at));
        for lease in self.leases.values() {
            let pairs = lease.dead.iter().chain(&lease.leaving);
            steps.extend(pairs.flat_map(|&(from, to)| [Some(from), to]).flatten());
            steps.extend([lease.ready_at, lease.over_at].into_iter().flatten());
        }
        steps.retain(|&at| from <= at && at <= to);
        steps.sort_unstable();
        steps.dedup();
        let mut sum = 0;
        for pair in steps.windows(2) {
            let price =
                self.prices.iter().rev().find(|&&(at, _)| at <= pair[0]).map_or(0, |&(_, price)| price);
            for lease in self.leases.values().filter(|lease| lease.is_charged(pair[0])) {
                let most = match lease.noticed_at(pair[0]) {
                    Some(noticed) => self.highest_limit(noticed - NOTICE, pair[0]),
                    None => u64::MAX,
                };
                sum += i128::from(price.min(most)) * i128::from(pair[1] - pair[0]);
            }
        }
        sum
    }

    fn highest_limit(&self, from: i64, to: i64) -> u64 {
        let ends = self.limits.iter().skip(1).map(|&(at, _)| at).chain([i64::MAX]);
        let held = self.limits.iter().zip(ends).filter(|&(&(at, _), end)| at <= to && end >= from);
        held.map(|(&(_, limit), _)| limit).max().unwrap_or(0)
    }

    fn check(&self) {
        assert_eq!(self.view.billing_fault(), None);
        let tenant: TenantId = "own".parse().unwrap();
        let mut month = Month::of(START);
        while month <= Month::of(self.now) {
            let bill = self.view.bill(&tenant, month, 0, 1_000);
            let to = month.end().min(self.now).micros();
            let owed = self.owed(month.start().micros(), to);
            assert_eq!(bill.total.nanos(), owed.div_euclid(EXACT_PER_NANO), "bill of {month}");
            let sum = |side: fn(&market::billing::LedgerEntry) -> proto::Charge| -> i128 {
                bill.ledger.iter().map(|entry| side(entry).nanos()).sum()
            };
            assert_eq!(sum(|entry| entry.debit), sum(|entry| entry.credit));
            assert_eq!(sum(|entry| entry.debit), bill.total.nanos());
            month = month.plus(1);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Own(u64),
    Rival(usize, u64),
    Dead(i64),
    Acknowledge,
    Lost,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let limit = || (1..=6_u64).prop_map(|rung| rung * 10_000);
    prop_oneof![
        6 => prop_oneof![Just(0), 1..30_i64, Just(60)].prop_map(Step::Wait),
        6 => limit().prop_map(Step::Own),
        6 => (0..2_usize, limit()).prop_map(|(rival, limit)| Step::Rival(rival, limit)),
        2 => (0..40_i64).prop_map(Step::Dead),
        1 => Just(Step::Acknowledge),
        1 => Just(Step::Lost),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A tenant that moves its limit as it likes, before, at and after notices, pays at every instant the price, or the
    /// highest limit it had since one notice before it was given notice: never less for having moved it.
    #[test]
    fn nobody_gains_by_moving_its_limit_around_a_notice(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        world.place("own", "b", 30_000);
        world.place("rival", "r0", 20_000);
        world.place("rival", "r1", 20_000);
        world.boot();
        let mut versions = [1, 1];
        for step in &steps {
            match *step {
                Step::Wait(seconds) => world.wait(seconds),
                Step::Own(limit) => {
                    world.amend("own", "b", world.version, limit);
                    world.version += 1;
                }
                Step::Rival(rival, limit) => {
                    world.amend("rival", &format!("r{rival}"), versions[rival], limit);
                    versions[rival] += 1;
                }
                Step::Dead(ago) => {
                    let lease = world.leases.iter().rev().find(|(_, lease)| lease.is_charged(world.now.micros()));
                    if let Some((&number, lease)) = lease {
                        // Nobody is heard of before it is ready.
                        let first = lease.ready_at.unwrap();
                        let last = (world.now.micros() - ago * SECOND).max(first);
                        let last = Timestamp::from_micros(last);
                        world.ask(Role::Service, json!({"type": "ReportDead", "leases": [number], "last_heartbeat_at": last}));
                    }
                }
                Step::Acknowledge | Step::Lost => {
                    let now = world.now.micros();
                    let leaving = |lease: &Lease| lease.over_at.is_none() && lease.noticed_at(now).is_some();
                    let found = world.leases.iter().find(|(_, lease)| leaving(lease)).map(|(&number, _)| number);
                    if let Some(number) = found {
                        world.ask(Role::Service, json!({"type": "ReportReleased", "leases": [number]}));
                    }
                }
                Step::Restart => {
                    world.view = View::restore(&world.view.snapshot()).unwrap();
                    let stream = "main".parse().unwrap();
                    world.market = Market::restore(&stream, &world.market.snapshot()).unwrap();
                }
            }
            world.boot();
            world.check();
        }
        world.wait(3_600);
        world.check();
    }
}

/// The worked example beside the meters, up to the broken notice.
#[test]
fn a_lease_tells_segment_by_segment_what_it_cost() {
    let mut world = World::new();
    world.place("own", "b", 25_000);
    world.place("rival", "r0", 20_000);
    world.wait(300);
    world.ask(Role::Service, json!({"type": "ReportReady", "leases": [1, 2]}));
    world.wait(3_300);
    // Two rivals at 0.030 take both servers: the price is 0.030.
    world.place("rival", "r1", 30_000);
    world.place("rival", "r2", 30_000);
    world.now = world.now.plus_micros(30 * SECOND);
    world.ask(
        Role::Operator,
        json!({"type": "SupplyOffered", "source": "h", "market": "dfw/a", "generation": 2, "units": 2,
            "cause": "failed", "lost": [1]}),
    );
    let own: TenantId = "own".parse().unwrap();
    let lease = world.view.lease(&own, 1).unwrap();
    let told: Vec<_> = lease
        .segments
        .iter()
        .map(|one| {
            let segment = &one.segment;
            let seconds = |at: Timestamp| at.micros_since(START) / SECOND;
            (
                seconds(segment.from),
                seconds(segment.to),
                segment.rate,
                segment.reason,
                segment.charge.to_string(),
            )
        })
        .collect();
    let market = |from, to, charge: &str| (from, to, RateName::Market, None, charge.to_owned());
    let unbilled = |from, to, why| (from, to, RateName::Unbilled, Some(why), "0.000".to_owned());
    assert_eq!(
        told,
        [
            // The month ends after 20 minutes.
            unbilled(0, 300, Unbilled::Provisioning),
            market(300, 1_200, "0.005"),
            market(1_200, 3_600, "0.013333333"),
            (3_600, 3_630, RateName::Capped, None, "0.000208333".to_owned()),
            unbilled(3_630, 3_660, Unbilled::NoticeBroken),
        ]
    );
    assert_eq!(lease.held, None);
    assert_eq!(lease.segments[3].segment.limit, Some(Price::micros_or_max(25_000)));
    let bill = world.view.bill(&own, Month::of(world.now), 0, 1);
    assert_eq!((bill.lines.len(), bill.segments.len(), bill.next), (1, 1, Some(1)));
    assert_eq!(bill.lines[0].unit_seconds, 2_430);
    // Nobody else sees it.
    assert_eq!(world.view.lease(&"rival".parse().unwrap(), 1), None);
}
