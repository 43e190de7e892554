//! Meters and bills against an oracle that writes down what every single lease pays, price by price.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::market::{BidNumber, LeaseNumber, LeaseSpan, MarketNumber};
use proto::{BidId, ClusterId, MarketId, PoolId, Price, TenantId, Timestamp};

use super::*;

const HOUR: i64 = 3_600_000_000;
/// 2023-12-20: a year from here has a leap day and thirteen months.
const START: i64 = 1_703_030_400_000_000;
const MARKETS: MarketNumber = 2;
const BIDS: u64 = 4;

#[derive(Clone, Debug)]
enum Op {
    Price(MarketNumber, Option<u64>),
    Grant(BidNumber, u32),
    Ready(Part),
    Dead(Part, i64),
    Leave(Part, u64),
    Stay(Part),
    Recap(BidNumber, u64),
    Release(Part, Option<i64>),
    /// The state is written and read again.
    Reload,
}

/// Some of the leases of a bid: picked by chance among those that live.
#[derive(Clone, Copy, Debug)]
struct Part {
    bid: BidNumber,
    pick: usize,
    units: u32,
}

fn part() -> impl Strategy<Value = Part> {
    (0..BIDS, any::<usize>(), 1..4_u32).prop_map(|(bid, pick, units)| Part { bid, pick, units })
}

/// Few prices, so that caps are met exactly and crossed often; some odd, so that nothing divides.
fn price() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..40_000_u64, (1..6_u64).prop_map(|rung| rung * 10_000), Just(999_999_999_999_999)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..MARKETS, prop::option::weighted(0.9, price())).prop_map(|(m, p)| Op::Price(m, p)),
        2 => (0..BIDS, 1..6_u32).prop_map(|(bid, units)| Op::Grant(bid, units)),
        3 => part().prop_map(Op::Ready),
        1 => (part(), 0..20 * HOUR).prop_map(|(part, ago)| Op::Dead(part, ago)),
        2 => (part(), price()).prop_map(|(part, cap)| Op::Leave(part, cap)),
        1 => part().prop_map(Op::Stay),
        1 => (0..BIDS, price()).prop_map(|(bid, limit)| Op::Recap(bid, limit)),
        2 => (part(), prop::option::of(0..20 * HOUR)).prop_map(|(part, ago)| Op::Release(part, ago)),
        1 => Just(Op::Reload),
    ]
}

/// A long and a short time between two things that happen, and none.
fn pause() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 1..1_000_i64, 0..40 * HOUR]
}

fn rate_of(bid: BidNumber) -> Rate {
    match bid {
        0 | 1 => Rate::Market,
        2 => Rate::Capped(20_000),
        _ => Rate::Flat(33_333),
    }
}

/// What one lease pays, as the oracle sees it.
#[derive(Clone, Debug)]
struct Lease {
    bid: BidNumber,
    market: MarketNumber,
    is_ready: bool,
    was_ready: bool,
    rate: Rate,
    leaving: Option<(u64, i64)>,
    granted: i64,
    over: Option<i64>,
    /// From, to, price, whether it is charged.
    paid: Vec<(i64, i64, u64, bool)>,
}

impl Lease {
    fn pay(&mut self, from: i64, to: i64, price: u64) {
        let rate = match (self.rate, self.leaving) {
            (Rate::Flat(flat), _) => flat,
            (_, Some((cap, _))) | (Rate::Capped(cap), None) => price.min(cap),
            _ => price,
        };
        if from < to {
            let price = if self.is_ready { rate } else { 0 };
            self.paid.push((from, to, price, self.is_ready));
        }
    }

    /// Nothing is charged from an instant on, as far back as the worker was ready without a break.
    fn stop(&mut self, since: i64) {
        for (from, to, price, is_charged) in self.paid.clone().into_iter().rev() {
            if !is_charged || to <= since {
                break;
            }
            self.paid.pop();
            if from < since {
                self.paid.push((from, since, price, true));
                break;
            }
        }
        self.is_ready = false;
    }

    /// What was paid between two instants.
    fn sum(&self, from: i64, to: i64) -> Exact {
        let within = |&(a, b, price, _): &(i64, i64, u64, bool)| {
            Exact::from(price) * Exact::from((b.min(to) - a.max(from)).max(0))
        };
        self.paid.iter().map(within).sum()
    }
}

struct Names {
    tenants: Vec<TenantId>,
    bids: Vec<BidId>,
    cluster: ClusterId,
    pool: PoolId,
}

impl Names {
    fn new() -> Self {
        Self {
            // Bids 0 and 2 are of one tenant.
            tenants: (0..BIDS).map(|bid| format!("t{}", bid % 2).parse().unwrap()).collect(),
            bids: (0..BIDS).map(|bid| format!("b{bid}").parse().unwrap()).collect(),
            cluster: "c".parse().unwrap(),
            pool: "p".parse().unwrap(),
        }
    }

    fn payer(&self, number: BidNumber) -> Payer<'_> {
        let place = number as usize;
        let (tenant, bid) = (&self.tenants[place], &self.bids[place]);
        Payer { number, tenant, bid, cluster: &self.cluster, pool: &self.pool }
    }
}

struct World {
    billing: Billing,
    names: Names,
    now: i64,
    prices: [u64; MARKETS as usize],
    leases: BTreeMap<LeaseNumber, Lease>,
}

impl World {
    fn new() -> Self {
        Self {
            billing: Billing::default(),
            names: Names::new(),
            now: START,
            prices: [0; MARKETS as usize],
            leases: BTreeMap::new(),
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    fn pass(&mut self, micros: i64) {
        let to = self.now + micros;
        for lease in self.leases.values_mut().filter(|lease| lease.over.is_none()) {
            lease.pay(self.now, to, self.prices[usize::from(lease.market)]);
        }
        self.now = to;
        self.billing.advance(Timestamp::from_micros(to));
    }

    /// Living leases of a bid, as a range that may have gaps.
    fn pick(&self, part: Part) -> Option<LeaseSpan> {
        let living: Vec<_> =
            self.leases.iter().filter(|(_, lease)| lease.bid == part.bid && lease.over.is_none()).collect();
        let &(&first, _) = living.get(part.pick.checked_rem(living.len())?)?;
        Some(LeaseSpan { first, units: part.units })
    }

    fn each(&mut self, part: Part, range: LeaseSpan, mut change: impl FnMut(&mut Lease)) {
        for (_, lease) in self.leases.range_mut(range.first..range.end()) {
            if lease.bid == part.bid && lease.over.is_none() {
                change(lease);
            }
        }
    }

    fn act(&mut self, op: &Op) {
        let at = self.at();
        match *op {
            Op::Price(market, price) => {
                self.billing.set_price(at, market, price.and_then(Price::from_micros));
                self.prices[usize::from(market)] = price.unwrap_or(self.prices[usize::from(market)]);
            }
            Op::Grant(bid, units) => self.grant(bid, units),
            Op::Recap(bid, limit) => {
                let price = Price::from_micros(limit);
                self.billing.recap(at, &self.names.payer(bid), |_| price);
                for lease in self.leases.values_mut().filter(|lease| lease.bid == bid) {
                    lease.leaving = lease.leaving.map(|(cap, until)| (cap.max(limit), until));
                    if let Rate::Capped(_) = lease.rate {
                        lease.rate = Rate::Capped(limit);
                    }
                }
            }
            Op::Reload => {
                let mut read = Billing::default();
                for record in self.billing.records() {
                    let bytes = postcard::to_stdvec(&record).unwrap();
                    read.put_back(postcard::from_bytes(&bytes).unwrap());
                }
                assert_eq!(read, self.billing);
                self.billing = read;
            }
            Op::Ready(part)
            | Op::Dead(part, _)
            | Op::Leave(part, _)
            | Op::Stay(part)
            | Op::Release(part, _) => {
                if let Some(range) = self.pick(part) {
                    self.act_on(op, part, range);
                }
            }
        }
    }

    fn grant(&mut self, bid: BidNumber, units: u32) {
        // Numbers of different bids alternate, as they do in an exchange.
        let first = self.leases.last_key_value().map_or(1, |(&last, _)| last + 1);
        let market = (first % u64::from(MARKETS)) as MarketNumber;
        let leases = LeaseSpan { first, units };
        self.billing.grant(self.at(), bid, leases, market, rate_of(bid));
        for number in first..leases.end() {
            let lease = Lease {
                bid,
                market,
                is_ready: false,
                was_ready: false,
                rate: rate_of(bid),
                leaving: None,
                granted: self.now,
                over: None,
                paid: Vec::new(),
            };
            self.leases.insert(number, lease);
        }
    }

    fn act_on(&mut self, op: &Op, part: Part, range: LeaseSpan) {
        let (at, now) = (self.at(), self.now);
        let names = std::mem::replace(&mut self.names, Names::new());
        let payer = names.payer(part.bid);
        match *op {
            Op::Ready(_) => {
                self.billing.ready(at, &payer, range);
                self.each(part, range, |lease| (lease.is_ready, lease.was_ready) = (true, true));
            }
            Op::Dead(_, ago) => {
                self.billing.dead(at, &payer, range, at.plus_micros(-ago));
                self.each(part, range, |lease| {
                    if lease.is_ready {
                        lease.stop(now - ago);
                    }
                });
            }
            Op::Leave(_, cap) => {
                let gone_at = now + 2 * HOUR;
                let price = Price::micros_or_max(cap);
                self.billing.leave(at, &payer, range, price, Timestamp::from_micros(gone_at));
                self.each(part, range, |lease| lease.leaving = Some((cap, gone_at)));
            }
            Op::Stay(_) => {
                self.billing.stay(at, &payer, range);
                self.each(part, range, |lease| lease.leaving = None);
            }
            Op::Release(_, ago) => {
                self.billing.release(at, &payer, range, ago.map(|ago| at.plus_micros(-ago)));
                self.each(part, range, |lease| {
                    if let Some(ago) = ago.filter(|_| lease.is_ready) {
                        lease.stop(now - ago);
                    }
                    let promised = lease.leaving.map_or(now, |(_, gone_at)| gone_at.max(now));
                    lease.over = Some(if ago.is_some() { promised } else { now });
                });
            }
            _ => {}
        }
    }

    /// Every segment of every month, each as the bill of its month has it.
    fn segments(&self) -> Vec<(Month, Segment)> {
        let mut all = Vec::new();
        let mut month = Month::of(Timestamp::from_micros(START));
        // A broken notice may reach a little into the next month.
        while month <= Month::of(self.at()).plus(1) {
            for tenant in ["t0", "t1"] {
                for line in self.billing.settled(&tenant.parse().unwrap(), month).into_values() {
                    all.extend(line.segments.into_iter().map(|segment| (month, segment)));
                }
            }
            for number in 0..BIDS {
                let open = self.billing.unsettled(self.at(), number, month);
                all.extend(open.map(|(segment, _)| (month, segment)));
            }
            month = month.plus(1);
        }
        all
    }

    fn check(&self) {
        assert_eq!(self.billing.fault(), None);
        let mut told: BTreeMap<LeaseNumber, Vec<(Month, Segment)>> = BTreeMap::new();
        for (month, segment) in self.segments() {
            assert_eq!(month, Month::of(segment.piece.from()));
            assert!(segment.piece.to() <= month.end());
            for lease in segment.leases().first..segment.leases().end() {
                told.entry(lease).or_default().push((month, segment));
            }
        }
        for (number, lease) in &self.leases {
            let mut segments = told.remove(number).unwrap_or_default();
            if lease.over.is_some() && !lease.was_ready {
                assert_eq!(segments.len(), 0, "lease {number} never had a worker");
                continue;
            }
            segments.sort_by_key(|(_, segment)| segment.piece.from());
            let mut end = lease.granted;
            for (_, segment) in &segments {
                let (from, to) = (segment.piece.from().micros(), segment.piece.to().micros());
                assert_eq!(from, end, "lease {number} has a gap or an overlap");
                assert!(from < to);
                end = to;
                assert_eq!(segment.piece.amount, lease.sum(from, to), "lease {number} from {from} to {to}");
            }
            assert_eq!(end, lease.over.unwrap_or(self.now), "lease {number} has segments to its end");
            if lease.over.is_none() {
                let alone = LeaseSpan { first: *number, units: 1 };
                let charged = self.billing.charged(self.at(), lease.bid, alone);
                assert_eq!(charged, nanos(lease.sum(i64::MIN, i64::MAX)));
            }
        }
        assert!(told.is_empty(), "segments of leases that never were: {told:?}");
        self.check_bills();
    }

    /// Bills are whole nano-dollars, lines add up to totals, segments to lines.
    fn check_bills(&self) {
        let name = |market: MarketNumber| format!("dfw/m{market}").parse::<MarketId>().ok();
        let mut month = Month::of(Timestamp::from_micros(START));
        while month <= Month::of(self.at()) {
            for tenant in 0..2 {
                let payers = [tenant, tenant + 2].map(|bid| self.names.payer(bid));
                let id = payers[0].tenant;
                let bill = self.billing.bill(self.at(), id, month, payers.into_iter(), name);
                let (from, to) = (month.start().micros(), month.end().micros());
                let own = self.leases.values().filter(|lease| lease.bid % 2 == tenant);
                let exact: Exact = own.map(|lease| lease.sum(from, to)).sum();
                assert_eq!(bill.total.nanos(), nanos(exact));
                assert_eq!(bill.lines.iter().map(|line| line.charge.nanos()).sum::<i128>(), nanos(exact));
                for line in &bill.lines {
                    if bill.segments.is_empty() {
                        continue;
                    }
                    let of_line = |s: &&BillSegment| s.bid == line.bid && s.market == line.market;
                    let parts = bill.segments.iter().filter(of_line).map(|s| s.charge.nanos());
                    assert_eq!(parts.sum::<i128>(), line.charge.nanos());
                }
            }
            month = month.plus(1);
        }
    }
}

/// Of more segments than are kept the sums stay.
#[test]
fn what_is_summed_up_is_charged_all_the_same() {
    let mut world = World::new();
    for round in 0..40 {
        world.act(&Op::Price(0, Some(12_345 + round)));
        world.act(&Op::Grant(0, 5));
        for _ in 0..2 {
            world.pass(7 * HOUR + round as i64);
            world.act(&Op::Ready(Part { bid: 0, pick: 0, units: 5 }));
        }
        world.act(&Op::Release(Part { bid: 0, pick: 0, units: 5 }, None));
    }
    world.check_bills();
    let before = world.billing.clone();
    world.billing.books.sum_up_all();
    assert_ne!(before, world.billing);
    world.check_bills();
    assert_eq!(world.billing.fault(), None);
}

/// A worker that was dead from before the market's first price pays nothing, at a flat rate too.
#[test]
fn death_reaches_back_behind_the_first_price() {
    let mut world = World::new();
    let part = Part { bid: 3, pick: 0, units: 2 };
    world.act(&Op::Grant(3, 3));
    world.act(&Op::Ready(part));
    world.pass(1);
    world.act(&Op::Price(1, Some(0)));
    world.act(&Op::Dead(part, 1));
    world.pass(HOUR);
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_lease_pays_what_every_price_says(
        steps in prop::collection::vec((pause(), op()), 1..500),
    ) {
        let mut world = World::new();
        let mut price = 0;
        for (pause, op) in &steps {
            world.pass(*pause);
            world.act(op);
            price += 1;
            if price % 50 == 0 {
                world.check();
            }
        }
        world.pass(HOUR);
        world.check();
    }
}

/// A year in which the price changes every few minutes: the totals are exact.
#[test]
fn a_year_of_prices_adds_up() {
    let mut world = World::new();
    for bid in 0..BIDS {
        world.grant(bid, 5);
        let part = Part { bid, pick: 0, units: 5 };
        world.act(&Op::Ready(part));
    }
    // A linear congruential generator (Knuth's MMIX constants): chance without a crate, the same every time.
    let mut state = 42_u64;
    let mut chance = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let year = 366 * 24 * HOUR;
    while world.now - START < year {
        world.pass(1 + chance(30 * 60_000_000) as i64);
        let op = match chance(400) {
            0 => Op::Leave(Part { bid: chance(BIDS), pick: chance(100) as usize, units: 2 }, chance(50_000)),
            1 => Op::Stay(Part { bid: chance(BIDS), pick: chance(100) as usize, units: 2 }),
            2 => Op::Release(Part { bid: chance(BIDS), pick: chance(100) as usize, units: 1 }, None),
            3 => Op::Grant(chance(BIDS), 1 + chance(3) as u32),
            4..8 => Op::Ready(Part { bid: chance(BIDS), pick: chance(100) as usize, units: 3 }),
            _ => Op::Price(chance(2) as MarketNumber, Some(chance(60_000))),
        };
        world.act(&op);
    }
    world.check();
}
