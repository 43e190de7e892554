//! A round: what was decided since the last one becomes leases, notices and prices.

use proto::Timestamp;
use proto::market::{BidNumber, MarketEvent, MarketNumber, Prices, RoundNumber};

use super::Market;
use super::bounds::DELAYS_TOLD_EVERY_MICROSECONDS;
use super::loss::Moves;
use crate::book::Change;

/// How many units more or fewer a bid has won in a market in a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shift {
    pub(super) number: BidNumber,
    pub(super) place: u32,
    pub(super) market: MarketNumber,
    pub(super) before: u32,
    pub(super) after: u32,
    /// The bid's limit there.
    pub(super) limit: u64,
    /// The oldest place in the queue among those that changed.
    pub(super) age: u64,
}

/// Lists that are used again in every round.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    changes: Vec<Change>,
    shifts: Vec<Shift>,
    pub(super) spans: Vec<u32>,
}

impl Market {
    /// Closes a round. It may turn out that what happened in it came to nothing; it is a round all the same, because
    /// what closes when must be told by events alone.
    pub(super) fn close_round(&mut self, now: Timestamp, events: &mut Vec<MarketEvent>) {
        let round = self.next.round + 1;
        let tells_delays = self.is_new_stretch(now);
        if tells_delays {
            self.soil_shaken();
        }
        self.soil_coupled();
        self.dirty.sort_unstable();
        for place in 0..self.dirty.len() {
            let market = self.dirty[place];
            if self.is_coupled(market) {
                continue;
            }
            self.close_in(market, round, now, events);
            self.tell_delays(market, round, tells_delays, events);
        }
        self.close_coupled(round, now, tells_delays, events);
        events.push(MarketEvent::RoundClosed { round });
        self.round_closed(now, round);
    }

    fn tell_delays(
        &mut self,
        market: MarketNumber,
        round: RoundNumber,
        tells_delays: bool,
        events: &mut Vec<MarketEvent>,
    ) {
        if tells_delays && self.market(market).is_some_and(|record| record.is_shaken) {
            self.tell_delayed(market, round, events);
        }
    }

    /// The round in the markets that clear together: first all losses, because what is lost in one market may be won in
    /// another.
    fn close_coupled(
        &mut self,
        round: RoundNumber,
        now: Timestamp,
        tells_delays: bool,
        events: &mut Vec<MarketEvent>,
    ) {
        let mut shifts = Vec::new();
        let Some(mut cleared) = self.clear_coupled(&mut shifts) else { return };
        for &(market, _) in &cleared.figures {
            let kept = cleared.kept_with_old_supply.entry(market).or_default();
            self.shift_orders(market, &mut shifts, kept);
        }
        shifts.sort_unstable_by_key(|shift| (shift.market, shift.number));
        let mut moves = Moves::of(&shifts);
        let of = |market: MarketNumber| {
            let from = shifts.partition_point(|shift| shift.market < market);
            let to = shifts.partition_point(|shift| shift.market <= market);
            from..to
        };
        for &(market, figures) in &cleared.figures {
            let kept = cleared.kept_with_old_supply.remove(&market).unwrap_or_default();
            self.lose_in(&shifts[of(market)], market, figures, kept, &mut moves, (now, round), events);
        }
        for &(market, _) in &cleared.figures {
            let mut won = shifts[of(market)].to_vec();
            self.win_in(&mut won, market, &mut moves, (now, round), events);
        }
        self.tell_passed_over(&cleared.passed_over, round, events);
        for (market, figures) in cleared.figures {
            self.tell_figures(market, round, figures, events);
            self.tell_delays(market, round, tells_delays, events);
        }
    }

    /// A round is over: winners are incumbents.
    pub(super) fn round_closed(&mut self, at: Timestamp, round: RoundNumber) {
        if self.is_new_stretch(at) {
            self.soil_shaken();
            for market in std::mem::take(&mut self.shaken) {
                self.markets[usize::from(market)].is_shaken = false;
            }
        }
        self.next.round = round;
        self.next.round_at = Some(at);
        self.soil_coupled();
        self.decouple_idle();
        self.next.soiled_at = None;
        for place in 0..self.dirty.len() {
            if let Some(record) = self.markets.get_mut(usize::from(self.dirty[place])) {
                // When the round is decided this was done already, and does nothing.
                record.book.clear();
                record.departures.clear();
            }
        }
        self.seal();
    }

    /// When those in line are told of delays, if there are any: with the first round of every five seconds.
    pub(super) fn delays_due(&self) -> Option<Timestamp> {
        (!self.shaken.is_empty()).then(|| self.next_stretch())
    }

    /// Where the stretch of time after that of the last round begins.
    fn next_stretch(&self) -> Timestamp {
        let Some(last) = self.next.round_at else { return Timestamp::MIN };
        let stretch = last.micros().div_euclid(DELAYS_TOLD_EVERY_MICROSECONDS);
        Timestamp::from_micros((stretch + 1) * DELAYS_TOLD_EVERY_MICROSECONDS)
    }

    fn is_new_stretch(&self, now: Timestamp) -> bool {
        self.next_stretch() <= now
    }

    fn soil_shaken(&mut self) {
        for market in self.shaken.clone() {
            self.soil(market);
        }
    }

    /// The round in one market that clears by itself.
    fn close_in(
        &mut self,
        market: MarketNumber,
        round: RoundNumber,
        now: Timestamp,
        events: &mut Vec<MarketEvent>,
    ) {
        let mut kept_with_old_supply = self.kept_with_old_supply(market);
        let mut shifts = std::mem::take(&mut self.scratch.shifts);
        self.collect_shifts(market, &mut shifts);
        if self.market(market).is_some_and(|record| !record.orders.is_empty()) {
            self.shift_orders(market, &mut shifts, &mut kept_with_old_supply);
            shifts.sort_unstable_by_key(|shift| shift.number);
        }
        let Some(record) = self.market(market) else { return };
        let figures = record.figures();
        let mut moves = Moves::default();
        let at = (now, round);
        self.lose_in(&shifts, market, figures, kept_with_old_supply, &mut moves, at, events);
        self.win_in(&mut shifts, market, &mut moves, at, events);
        self.scratch.shifts = shifts;
        self.tell_figures(market, round, figures, events);
    }

    /// Where supply shrank since the last round: how many units of which bids would still win had it not. Asked of
    /// the book before winners and losers are settled, as the incumbents of the last round are.
    fn kept_with_old_supply(&mut self, market: MarketNumber) -> Vec<(BidNumber, u32)> {
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return Vec::new() };
        let before = record.told.map_or(0, |told| told.supply);
        if before <= record.auctioned() {
            return Vec::new();
        }
        let bids = &self.bids;
        let mut kept = Vec::new();
        // It was a supply before, which the book then took.
        for change in record.book.with_supply(before).unwrap_or_default() {
            let holder = bids.get(record.holder(change.lot));
            kept.extend(holder.map(|bid| (bid.number, change.after.saturating_sub(change.before))));
        }
        kept.sort_unstable();
        kept.dedup_by(|next, first| {
            let is_same = next.0 == first.0;
            first.1 += if is_same { next.1 } else { 0 };
            is_same
        });
        kept
    }

    /// Settles winners and losers in a market's book, and lists by bid number whose units became more or fewer.
    fn collect_shifts(&mut self, market: MarketNumber, shifts: &mut Vec<Shift>) {
        shifts.clear();
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        let mut changes = std::mem::take(&mut self.scratch.changes);
        changes.clear();
        changes.extend_from_slice(record.book.clear());
        for &Change { lot, before, after } in &changes {
            let place = record.holder(lot);
            let Some((bid, terms)) = self.bids.get(place).zip(record.book.terms(lot)) else { continue };
            let (number, limit) = (bid.number, bid.limit);
            shifts.push(Shift { number, place, market, before, after, limit, age: terms.age });
        }
        self.scratch.changes = changes;
        shifts.sort_unstable_by_key(|shift| (shift.number, shift.age));
        shifts.dedup_by(|next, first| {
            let is_same = next.number == first.number;
            if is_same {
                first.before += next.before;
                first.after += next.after;
            }
            is_same
        });
    }

    /// Tells a market's public figures where they are other ones.
    fn tell_figures(
        &mut self,
        market: MarketNumber,
        round: RoundNumber,
        prices: Prices,
        events: &mut Vec<MarketEvent>,
    ) {
        if self.market(market).is_some_and(|record| record.told != Some(prices)) {
            events.push(MarketEvent::PriceChanged { market, round, prices });
            self.price_changed(market, prices);
        }
    }

    /// A market has other public figures.
    pub(super) fn price_changed(&mut self, market: MarketNumber, prices: Prices) {
        if let Some(record) = self.markets.get_mut(usize::from(market)) {
            record.told = Some(prices);
        }
        self.soil(market);
    }
}
