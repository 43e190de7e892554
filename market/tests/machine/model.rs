//! The rules, written down once more: slow, obvious, unit by unit and lease by lease, without a line of the machine.
//!
//! A unit is one wanted server with its place in the queue; a lease is one won server. Every round sorts all units
//! and looks who is among the first. What the model says of a turn is a list of facts about single leases.

use std::collections::BTreeMap;

use proto::market::{LossReason, ReleaseReason};

/// Microseconds.
pub(crate) type Instant = i64;
const DELAYS_TOLD_EVERY: Instant = 5_000_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    Refused(&'static str),
    Placed(u64),
    Amended(u64, u32),
    Cancelled(u64),
    Expired(u64),
    Acknowledged(u64, u32),
    Supply(u32),
    Other,
    Awarded {
        lease: u64,
        bid: u64,
        by: Option<Instant>,
    },
    Notice {
        lease: u64,
        gone_at: Instant,
        reason: LossReason,
        kept_by: Option<u64>,
    },
    Moved {
        lease: u64,
        from: u64,
        by: Option<Instant>,
    },
    Withdrawn {
        lease: u64,
    },
    Delayed {
        lease: u64,
        by: Instant,
    },
    Ready {
        lease: u64,
    },
    Dead {
        lease: u64,
        since: Instant,
    },
    Released {
        lease: u64,
        reason: ReleaseReason,
    },
    Price {
        market: usize,
        price: Option<u64>,
        lowest: Option<u64>,
        reserve: u64,
        supply: u32,
        sold: u32,
        wanted: u64,
    },
    Round(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Served,
    /// Told by when, and the award it came with: leases of one award that still wait side by side are told alike.
    Waiting(Instant, u64),
    Leaving(Instant, LossReason),
}

/// A worker, and since when a served lease has been without a ready one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worker {
    Booting(Instant),
    Ready,
    Dead(Instant),
}

#[derive(Clone, Debug)]
struct Lease {
    number: u64,
    market: usize,
    state: State,
    worker: Worker,
    replaces: Option<u64>,
}

#[derive(Clone, Debug)]
struct Unit {
    age: u64,
    is_incumbent: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Bid {
    pub(crate) number: u64,
    pub(crate) version: u32,
    pub(crate) market: usize,
    pub(crate) limit: u64,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) stands: bool,
    units: Vec<Unit>,
    leases: Vec<Lease>,
}

#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) reserve: u64,
    pub(crate) step: u64,
    pub(crate) notice: Instant,
    pub(crate) withdraw_until: Option<Instant>,
    pub(crate) sources: BTreeMap<String, (u64, u32, Option<Instant>)>,
    departures: Vec<(Instant, u32)>,
    told: Option<Fact>,
    told_supply: u32,
    /// Units in line may get their servers later than they were told.
    is_shaken: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) is_highest_rejected: bool,
    pub(crate) pause: Instant,
    /// How long a lease may be without a worker at first, and later; 0: for ever.
    pub(crate) booting_max: Instant,
    pub(crate) dead_max: Instant,
    pub(crate) markets: Vec<Place>,
    pub(crate) bids: Vec<Bid>,
    age: u64,
    lease: u64,
    round: u64,
    round_at: Option<Instant>,
    awards: u64,
    /// When something changed first since the last round.
    changed_at: Option<Instant>,
    now: Instant,
}

/// One unit in the order in which units win.
type Rank = (std::cmp::Reverse<u64>, bool, u64, u64);

impl Place {
    fn supply(&self) -> u32 {
        self.sources.values().map(|(_, units, _)| units).sum()
    }
}

impl Model {
    fn new_age(&mut self) -> u64 {
        self.age += 1;
        self.age
    }

    /// Something happened that a round must look at.
    pub(crate) fn touch(&mut self) {
        self.changed_at.get_or_insert(self.now);
    }

    fn bid(&mut self, number: u64) -> &mut Bid {
        self.bids.iter_mut().find(|bid| bid.number == number).unwrap()
    }

    pub(crate) fn define(
        &mut self,
        market: usize,
        reserve: u64,
        step: u64,
        notice: Instant,
        until: Option<Instant>,
    ) {
        self.touch();
        if let Some(place) = self.markets.get_mut(market) {
            (place.reserve, place.step, place.notice, place.withdraw_until) = (reserve, step, notice, until);
            return;
        }
        self.markets.push(Place {
            reserve,
            step,
            notice,
            withdraw_until: until,
            sources: BTreeMap::new(),
            departures: Vec::new(),
            told: None,
            told_supply: 0,
            is_shaken: false,
        });
    }

    pub(crate) fn place(
        &mut self,
        market: usize,
        quantity: u32,
        limit: u64,
        expires_at: Option<Instant>,
    ) -> u64 {
        self.touch();
        let age = self.new_age();
        let number = self.bids.len() as u64 + 1;
        let units = (0..quantity).map(|_| Unit { age, is_incumbent: false }).collect();
        let leases = Vec::new();
        self.bids.push(Bid { number, version: 1, market, limit, expires_at, stands: true, units, leases });
        number
    }

    /// Amends a standing bid to other terms; `named` are leases to give up first.
    pub(crate) fn amend(
        &mut self,
        now: Instant,
        number: u64,
        (market, quantity, limit): (usize, u32, u64),
        expires_at: Option<Instant>,
        named: &[u64],
        facts: &mut Vec<Fact>,
    ) {
        let next_age = self.age + 1;
        let bid = self.bid(number);
        if (bid.market, bid.units.len(), bid.limit) != (market, quantity as usize, limit) {
            self.touch();
        }
        let bid = self.bid(number);
        bid.version += 1;
        bid.expires_at = expires_at;
        facts.push(Fact::Amended(number, bid.version));
        let mut takes_age = false;
        if bid.market == market {
            while bid.units.len() > quantity as usize {
                // The youngest queued unit goes; among incumbents only, the youngest incumbent.
                let last = |wanted: bool| bid.units.iter().rposition(|unit| unit.is_incumbent == wanted);
                let place = last(false).or_else(|| last(true)).unwrap();
                bid.units.remove(place);
            }
            if limit > bid.limit {
                for unit in bid.units.iter_mut().filter(|unit| !unit.is_incumbent) {
                    unit.age = next_age;
                    takes_age = true;
                }
                bid.units.sort_by_key(|unit| unit.age);
            }
            while bid.units.len() < quantity as usize {
                bid.units.push(Unit { age: next_age, is_incumbent: false });
                takes_age = true;
            }
        } else {
            bid.units = (0..quantity).map(|_| Unit { age: next_age, is_incumbent: false }).collect();
            takes_age = true;
        }
        let keeps = if bid.market == market { quantity as usize } else { 0 };
        (bid.limit, bid.market) = (limit, market);
        self.age += u64::from(takes_age);
        self.let_go(now, number, keeps, named, LossReason::Reduced, facts);
    }

    pub(crate) fn end(&mut self, now: Instant, number: u64, reason: LossReason, facts: &mut Vec<Fact>) {
        self.touch();
        let bid = self.bid(number);
        bid.stands = false;
        bid.units.clear();
        self.let_go(now, number, 0, &[], reason, facts);
    }

    /// Lets a bid's live leases go until `keeps` are left.
    fn let_go(
        &mut self,
        now: Instant,
        number: u64,
        keeps: usize,
        named: &[u64],
        reason: LossReason,
        facts: &mut Vec<Fact>,
    ) {
        let mut order: Vec<u64> = named.to_vec();
        let bid = self.bid(number);
        for wants_waiting in [true, false] {
            let fits = |lease: &&Lease| matches!(lease.state, State::Waiting(..)) == wants_waiting;
            order.extend(bid.leases.iter().filter(fits).map(|lease| lease.number).rev());
        }
        for lease in order {
            let live = self.live(number);
            let is_live = live.contains(&lease);
            if is_live && live.len() > keeps {
                self.lose(now, number, lease, reason, None, None, facts);
            }
        }
    }

    fn live(&self, number: u64) -> Vec<u64> {
        let bid = self.bids.iter().find(|bid| bid.number == number).unwrap();
        let is_live = |lease: &&Lease| !matches!(lease.state, State::Leaving(..));
        bid.leases.iter().filter(is_live).map(|lease| lease.number).collect()
    }

    /// A live lease is lost: over if it waits, else under notice.
    #[allow(clippy::too_many_arguments)]
    fn lose(
        &mut self,
        now: Instant,
        number: u64,
        lease: u64,
        reason: LossReason,
        deadline: Option<Instant>,
        kept_by: Option<u64>,
        facts: &mut Vec<Fact>,
    ) {
        let notices: Vec<Instant> = self.markets.iter().map(|place| place.notice).collect();
        let bid = self.bid(number);
        let place = bid.leases.iter().position(|other| other.number == lease).unwrap();
        if matches!(bid.leases[place].state, State::Waiting(..)) {
            bid.leases.remove(place);
            facts.push(Fact::Released { lease, reason: ReleaseReason::NeverServed });
            return;
        }
        let full = now + notices[bid.leases[place].market];
        let gone_at = deadline.map_or(full, |deadline| deadline.max(now));
        bid.leases[place].state = State::Leaving(gone_at, reason);
        facts.push(Fact::Notice { lease, gone_at, reason, kept_by });
    }

    /// Whether a bid has these leases, all of them leaving.
    pub(crate) fn are_leaving(&self, number: u64, leases: &[u64]) -> bool {
        let bid = self.bids.iter().find(|bid| bid.number == number).unwrap();
        let is_leaving = |lease: &Lease| matches!(lease.state, State::Leaving(..));
        leases
            .iter()
            .all(|&wanted| bid.leases.iter().any(|lease| lease.number == wanted && is_leaving(lease)))
    }

    pub(crate) fn has(&self, number: u64, lease: u64) -> bool {
        self.bids
            .iter()
            .any(|bid| bid.number == number && bid.leases.iter().any(|other| other.number == lease))
    }

    /// Every lease there is, with bid and market.
    pub(crate) fn leases(&self) -> Vec<(u64, u64, usize)> {
        let of = |bid: &Bid| {
            bid.leases.iter().map(|lease| (lease.number, bid.number, lease.market)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.bids.iter().flat_map(of).collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn next_lease(&self) -> u64 {
        self.lease + 1
    }

    pub(crate) fn release(&mut self, lease: u64, reason: ReleaseReason, facts: &mut Vec<Fact>) {
        let bid =
            self.bids.iter_mut().find(|bid| bid.leases.iter().any(|other| other.number == lease)).unwrap();
        let place = bid.leases.iter().position(|other| other.number == lease).unwrap();
        let gone = bid.leases.remove(place);
        let lost =
            [ReleaseReason::ServerLost, ReleaseReason::ProvisioningTimedOut, ReleaseReason::WorkerDead];
        if lost.contains(&reason) && !matches!(gone.state, State::Leaving(..)) {
            // The unit queues again: it is the youngest incumbent that is none any more.
            let unit = bid.units.iter_mut().rev().find(|unit| unit.is_incumbent);
            if let Some(unit) = unit {
                unit.is_incumbent = false;
            }
            self.touch();
        }
        facts.push(Fact::Released { lease, reason });
        self.serve(gone.market);
    }

    fn count(&self, market: usize, fits: impl Fn(State) -> bool) -> u32 {
        let leases = self.bids.iter().flat_map(|bid| &bid.leases);
        leases.filter(|lease| lease.market == market && fits(lease.state)).count() as u32
    }

    fn occupied(&self, market: usize) -> u32 {
        self.count(market, |state| !matches!(state, State::Waiting(..)))
    }

    /// Vacant servers go to who waits, by lease number.
    fn serve(&mut self, market: usize) {
        let now = self.now;
        while self.occupied(market) < self.markets[market].supply() {
            let waiting = self.bids.iter_mut().flat_map(|bid| &mut bid.leases);
            let fits =
                |lease: &&mut Lease| lease.market == market && matches!(lease.state, State::Waiting(..));
            match waiting.filter(fits).min_by_key(|lease| lease.number) {
                Some(first) => (first.state, first.worker) = (State::Served, Worker::Booting(now)),
                None => return,
            }
        }
    }

    pub(crate) fn offer(&mut self, market: usize, source: &str, said: (u64, u32, Option<Instant>)) -> u32 {
        let place = &mut self.markets[market];
        let before = place.sources.insert(source.to_owned(), said);
        if before != Some(said) {
            let units_before = before.map_or(0, |(_, units, _)| units);
            if let (Some(gone_at), true) = (said.2, said.1 < units_before) {
                place.departures.push((gone_at, units_before - said.1));
            }
            self.touch();
            self.serve(market);
            let is_less = said.1 < units_before;
            self.markets[market].is_shaken |= is_less && !self.line(market).is_empty();
        }
        self.markets[market].supply()
    }

    /// What is due by `now`, and what that makes due.
    pub(crate) fn wake(&mut self, now: Instant, facts: &mut Vec<Fact>) {
        let mut before = usize::MAX;
        while before != facts.len() {
            before = facts.len();
            self.wake_once(now, facts);
        }
    }

    fn wake_once(&mut self, now: Instant, facts: &mut Vec<Fact>) {
        self.now = now;
        let is_gone = |lease: &&Lease| matches!(lease.state, State::Leaving(gone_at, _) if gone_at <= now);
        let gone = self.bids.iter().flat_map(|bid| &bid.leases).filter(is_gone);
        let mut gone: Vec<u64> = gone.map(|lease| lease.number).collect();
        gone.sort_unstable();
        let overdue = self.overdue(now);
        for lease in gone {
            self.release(lease, ReleaseReason::NoticeEnded, facts);
        }
        for (lease, reason) in overdue {
            self.release(lease, reason, facts);
        }
        let is_over = |bid: &&Bid| bid.stands && bid.expires_at.is_some_and(|at| at <= now);
        let mut over: Vec<_> =
            self.bids.iter().filter(is_over).map(|bid| (bid.expires_at, bid.number)).collect();
        over.sort_unstable();
        for (_, number) in over {
            facts.push(Fact::Expired(number));
            self.end(now, number, LossReason::Expired, facts);
        }
        let is_shaken = self.markets.iter().any(|place| place.is_shaken);
        let is_due = match self.changed_at {
            Some(first) => first + self.pause <= now,
            None => is_shaken && self.is_new_stretch(now),
        };
        if is_due {
            self.close_round(now, facts);
        }
    }

    /// Served leases that have been without a worker for too long.
    fn overdue(&self, now: Instant) -> Vec<(u64, ReleaseReason)> {
        let served =
            self.bids.iter().flat_map(|bid| &bid.leases).filter(|lease| lease.state == State::Served);
        let is_over = |most: Instant, since: Instant| most > 0 && since + most <= now;
        let overdue = served.filter_map(|lease| match lease.worker {
            Worker::Booting(since) if is_over(self.booting_max, since) => {
                Some((lease.number, ReleaseReason::ProvisioningTimedOut))
            }
            Worker::Dead(since) if is_over(self.dead_max, since) => {
                Some((lease.number, ReleaseReason::WorkerDead))
            }
            _ => None,
        });
        overdue.collect()
    }

    /// What is known of a lease's worker; none where the lease waits or is over.
    pub(crate) fn worker(&self, lease: u64) -> Option<Worker> {
        let found = self.bids.iter().flat_map(|bid| &bid.leases).find(|other| other.number == lease);
        found.filter(|lease| !matches!(lease.state, State::Waiting(..))).map(|lease| lease.worker)
    }

    /// A lease whose server goes is replaced by another.
    pub(crate) fn move_lease(
        &mut self,
        pieces: &[Vec<u64>],
        gone_at: Instant,
        reason: LossReason,
        facts: &mut Vec<Fact>,
    ) {
        let now = self.now;
        for piece in pieces {
            let find = |bid: &&mut Bid| bid.leases.iter().any(|lease| lease.number == piece[0]);
            let number = self.bids.iter_mut().find(find).unwrap().number;
            for &lease in piece {
                self.lose(now, number, lease, reason, Some(gone_at), None, facts);
            }
            let market =
                self.bid(number).leases.iter().find(|lease| lease.number == piece[0]).unwrap().market;
            let vacant = self.markets[market].supply().saturating_sub(self.occupied(market)) as usize;
            let served = piece.len().min(vacant);
            let more = (piece.len() - served) as u32;
            let by = (more > 0).then(|| self.promise(market, more).unwrap_or(gone_at));
            self.awards += 1;
            for (place, &from) in piece.iter().enumerate() {
                self.lease += 1;
                let (lease, by) = (self.lease, by.filter(|_| place >= served));
                let state = by.map_or(State::Served, |by| State::Waiting(by, self.awards));
                let (worker, replaces) = (Worker::Booting(now), Some(from));
                self.bid(number).leases.push(Lease { number: lease, market, state, worker, replaces });
                facts.push(Fact::Moved { lease, from, by });
            }
        }
    }

    /// A lease is ready: the one that it replaces is over.
    pub(crate) fn ready(&mut self, lease: u64, facts: &mut Vec<Fact>) {
        self.set_worker(lease, Worker::Ready);
        let mut leases = self.bids.iter_mut().flat_map(|bid| &mut bid.leases);
        let replaced = leases.find(|other| other.number == lease).unwrap().replaces.take();
        let is_left =
            |lease: &&Lease| matches!(lease.state, State::Leaving(..)) && Some(lease.number) == replaced;
        if let Some(old) = self.bids.iter().flat_map(|bid| &bid.leases).find(is_left).map(|old| old.number) {
            self.release(old, ReleaseReason::Replaced, facts);
        }
    }

    /// Leases that hold a server and need not leave, in pieces of one bid and one state side by side, as far as the
    /// machine parts them: each alone.
    pub(crate) fn is_served(&self, lease: u64) -> bool {
        let mut leases = self.bids.iter().flat_map(|bid| &bid.leases);
        leases.any(|other| other.number == lease && other.state == State::Served)
    }

    pub(crate) fn set_worker(&mut self, lease: u64, worker: Worker) {
        let mut leases = self.bids.iter_mut().flat_map(|bid| &mut bid.leases);
        leases.find(|other| other.number == lease).unwrap().worker = worker;
    }

    /// Delays are told in the first round of every five seconds.
    fn is_new_stretch(&self, now: Instant) -> bool {
        self.round_at.is_none_or(|last| last / DELAYS_TOLD_EVERY < now / DELAYS_TOLD_EVERY)
    }

    fn ranked(&self, market: usize) -> Vec<(Rank, u64, usize)> {
        let mut units = Vec::new();
        for bid in self.bids.iter().filter(|bid| bid.stands && bid.market == market) {
            for (place, unit) in bid.units.iter().enumerate() {
                let rank = (std::cmp::Reverse(bid.limit), !unit.is_incumbent, unit.age, place as u64);
                units.push((rank, bid.number, place));
            }
        }
        units.sort_unstable();
        units
    }

    /// The units that win with a supply.
    fn winners(&self, market: usize, supply: u32) -> Vec<(u64, usize, u64)> {
        let ranked =
            self.ranked(market).into_iter().filter(|(rank, ..)| rank.0.0 >= self.markets[market].reserve);
        ranked.take(supply as usize).map(|(rank, bid, place)| (bid, place, rank.2)).collect()
    }

    fn figures(&self, market: usize) -> Fact {
        let place = &self.markets[market];
        let supply = place.supply();
        let ranked = self.ranked(market);
        let limits: Vec<u64> =
            ranked.iter().map(|(rank, ..)| rank.0.0).filter(|&limit| limit >= place.reserve).collect();
        let sold = limits.len().min(supply as usize);
        let is_sold_out = sold == supply as usize;
        let wanted = ranked.len() as u64;
        let (price, lowest) = if supply == 0 {
            (None, None)
        } else if is_sold_out {
            let accepted = limits[sold - 1];
            let rejected = limits.get(sold).copied().unwrap_or(place.reserve);
            let price = if self.is_highest_rejected { rejected } else { accepted };
            (Some(price), Some((accepted / place.step + 1) * place.step))
        } else {
            (Some(place.reserve), Some(place.reserve.max(1).div_ceil(place.step) * place.step))
        };
        Fact::Price { market, price, lowest, reserve: place.reserve, supply, sold: sold as u32, wanted }
    }

    fn close_round(&mut self, now: Instant, facts: &mut Vec<Fact>) {
        self.changed_at = None;
        for market in 0..self.markets.len() {
            self.close_in(market, now, facts);
            self.markets[market].departures.clear();
        }
        for market in 0..self.markets.len() {
            if self.markets[market].is_shaken && self.is_new_stretch(now) {
                self.delay(market, facts);
                self.markets[market].is_shaken = false;
            }
        }
        self.round += 1;
        self.round_at = Some(now);
        facts.push(Fact::Round(self.round));
    }

    fn close_in(&mut self, market: usize, now: Instant, facts: &mut Vec<Fact>) {
        let supply = self.markets[market].supply();
        let winners = self.winners(market, supply);
        let with_old_supply = self.winners(market, supply.max(self.markets[market].told_supply));
        let won = |winners: &[(u64, usize, u64)], number: u64| {
            winners.iter().filter(|unit| unit.0 == number).count()
        };
        let figures = self.figures(market);
        let Fact::Price { lowest, .. } = figures else { unreachable!() };
        let numbers: Vec<u64> =
            self.bids.iter().filter(|bid| bid.stands && bid.market == market).map(|bid| bid.number).collect();
        let held: BTreeMap<u64, usize> =
            numbers.iter().map(|&number| (number, self.live(number).len())).collect();
        // Losers, by bid.
        let mut departures = self.markets[market].departures.clone();
        departures.sort_unstable();
        for &number in &numbers {
            let (won_now, won_then) = (won(&winners, number), won(&with_old_supply, number));
            let lost = held[&number].saturating_sub(won_now);
            let mut outbid = lost.saturating_sub(won_then - won_now);
            for _ in 0..lost {
                let reserve = self.markets[market].reserve;
                let notice_ends = now + self.markets[market].notice;
                let bid = self.bid(number);
                let is_below = bid.limit < reserve;
                let waits = |lease: &&Lease| matches!(lease.state, State::Waiting(..));
                let served = |lease: &&Lease| lease.state == State::Served;
                let waiting = bid.leases.iter().rev().find(waits).map(|lease| lease.number);
                let lease = waiting
                    .or_else(|| bid.leases.iter().rev().find(served).map(|lease| lease.number))
                    .unwrap();
                let (reason, deadline) = if waiting.is_some() || outbid > 0 {
                    outbid = outbid.saturating_sub(1);
                    (LossReason::Outbid, None)
                } else {
                    (LossReason::Supply, None)
                };
                let reason = if is_below { LossReason::Reserve } else { reason };
                let deadline = if reason == LossReason::Supply && waiting.is_none() {
                    let early =
                        departures.iter_mut().find(|(gone_at, units)| *units > 0 && *gone_at < notice_ends);
                    early.map(|(gone_at, units)| {
                        *units -= 1;
                        *gone_at
                    })
                } else {
                    deadline
                };
                self.lose(now, number, lease, reason, deadline, lowest, facts);
            }
        }
        self.gain(market, now, &winners, &held, facts);
        for &number in &numbers {
            for (place, unit) in self.bid(number).units.iter_mut().enumerate() {
                unit.is_incumbent = winners.iter().any(|winner| (winner.0, winner.1) == (number, place));
            }
        }
        if self.markets[market].told.as_ref() != Some(&figures) {
            facts.push(figures.clone());
        }
        self.markets[market].told = Some(figures);
        self.markets[market].told_supply = supply;
    }

    /// Winners: notices taken back, then new leases, by limit and age.
    fn gain(
        &mut self,
        market: usize,
        now: Instant,
        winners: &[(u64, usize, u64)],
        held: &BTreeMap<u64, usize>,
        facts: &mut Vec<Fact>,
    ) {
        let mut gains = Vec::new();
        for (&number, &held) in held {
            let mine: Vec<_> = winners.iter().filter(|unit| unit.0 == number).collect();
            if mine.len() > held {
                let bid = self.bids.iter().find(|bid| bid.number == number).unwrap();
                let new = mine.iter().filter(|unit| !bid.units[unit.1].is_incumbent);
                let age = new.map(|unit| unit.2).min().unwrap();
                gains.push((std::cmp::Reverse(bid.limit), age, number, mine.len() - held));
            }
        }
        gains.sort_unstable();
        for (.., number, units) in &mut gains {
            let may_stay = |lease: &&Lease| {
                lease.market == market
                    && matches!(lease.state, State::Leaving(_, reason) if reason.is_withdrawable())
            };
            let leaving: Vec<u64> =
                self.bid(*number).leases.iter().filter(may_stay).map(|lease| lease.number).collect();
            for lease in leaving {
                if *units > 0 && self.may_stay(market, now, *number, lease) {
                    let bid = self.bid(*number);
                    let lease = bid.leases.iter_mut().find(|other| other.number == lease).unwrap();
                    lease.state = State::Served;
                    // Who stays has all the time anew.
                    lease.worker = match lease.worker {
                        Worker::Booting(_) => Worker::Booting(now),
                        Worker::Dead(_) => Worker::Dead(now),
                        Worker::Ready => Worker::Ready,
                    };
                    facts.push(Fact::Withdrawn { lease: lease.number });
                    *units -= 1;
                    let has_line = !self.line(market).is_empty();
                    self.markets[market].is_shaken |= has_line;
                }
            }
        }
        for (.., number, units) in gains {
            let vacant = self.markets[market].supply().saturating_sub(self.occupied(market)) as usize;
            let served = units.min(vacant);
            let by = (units > served).then(|| self.promise(market, (units - served) as u32).unwrap());
            self.awards += 1;
            for unit in 0..units {
                self.lease += 1;
                let lease = self.lease;
                let state = match by {
                    Some(by) if unit >= served => State::Waiting(by, self.awards),
                    _ => State::Served,
                };
                let by = by.filter(|_| unit >= served);
                self.bid(number).leases.push(Lease {
                    number: lease,
                    market,
                    state,
                    worker: Worker::Booting(now),
                    replaces: None,
                });
                facts.push(Fact::Awarded { lease, bid: number, by });
            }
        }
    }

    fn line(&self, market: usize) -> Vec<(u64, Instant, u64)> {
        let mut line = Vec::new();
        for lease in self.bids.iter().flat_map(|bid| &bid.leases).filter(|lease| lease.market == market) {
            if let State::Waiting(by, award) = lease.state {
                line.push((lease.number, by, award));
            }
        }
        line.sort_unstable();
        line
    }

    fn leaving(&self, market: usize) -> Vec<Instant> {
        let leases = self.bids.iter().flat_map(|bid| &bid.leases).filter(|lease| lease.market == market);
        let mut leaving: Vec<Instant> = leases
            .filter_map(|lease| match lease.state {
                State::Leaving(gone_at, _) => Some(gone_at),
                _ => None,
            })
            .collect();
        leaving.sort_unstable();
        leaving
    }

    /// When the `more`-th unit behind those in line gets a server.
    fn promise(&self, market: usize, more: u32) -> Option<Instant> {
        let gone_anyhow = self.occupied(market).saturating_sub(self.markets[market].supply());
        let wanted = gone_anyhow as usize + self.line(market).len() + more as usize;
        self.leaving(market).get(wanted - 1).copied()
    }

    fn may_stay(&self, market: usize, now: Instant, number: u64, lease: u64) -> bool {
        let bid = self.bids.iter().find(|bid| bid.number == number).unwrap();
        let found = bid.leases.iter().find(|other| other.number == lease).unwrap();
        let State::Leaving(gone_at, _) = found.state else { return false };
        let place = &self.markets[market];
        if gone_at > now + place.withdraw_until.unwrap_or(place.notice / 2) {
            return true;
        }
        let line = self.line(market).len();
        let gone_anyhow = self.occupied(market).saturating_sub(place.supply()) as usize;
        let promised = if line == 0 { 0 } else { line + gone_anyhow };
        self.leaving(market)[promised.min(self.leaving(market).len())..].contains(&gone_at)
    }

    fn delay(&mut self, market: usize, facts: &mut Vec<Fact>) {
        let leaving = self.leaving(market);
        let gone_anyhow = self.occupied(market).saturating_sub(self.markets[market].supply()) as usize;
        let line = self.line(market);
        let mut first = 0;
        while first < line.len() {
            // Leases of one award side by side.
            let is_next = |place: usize| {
                let (last, next) = (line[place - 1], line[place]);
                next.0 == last.0 + 1 && next.2 == last.2 && next.1 == last.1
            };
            let mut end = first + 1;
            while end < line.len() && is_next(end) {
                end += 1;
            }
            if let Some(&by) = leaving.get(gone_anyhow + end - 1)
                && by > line[first].1
            {
                // A sixteenth of the notice on top.
                let by = by + self.markets[market].notice / 16;
                for &(number, ..) in &line[first..end] {
                    let mut leases = self.bids.iter_mut().flat_map(|bid| &mut bid.leases);
                    let lease = leases.find(|lease| lease.number == number).unwrap();
                    if let State::Waiting(told, _) = &mut lease.state {
                        *told = by;
                    }
                    facts.push(Fact::Delayed { lease: number, by });
                }
            }
            first = end;
        }
    }
}
