//! A round: what the books decided since the last one becomes leases, notices and prices.

use proto::Timestamp;
use proto::market::{
    BidNumber, LeaseSpan, LossReason, MarketEvent, MarketNumber, Prices, ReleaseReason, RoundNumber,
};

use super::Market;
use super::bounds::{DELAY_MARGIN_DIVISOR, DELAYS_TOLD_EVERY_MICROSECONDS};
use super::lease::Stand;
use super::record::Departure;
use crate::book::Change;

/// How many units more or fewer a bid has won in a round.
#[derive(Clone, Copy, Debug)]
struct Shift {
    number: BidNumber,
    place: u32,
    before: u32,
    after: u32,
    limit: u64,
    /// The oldest place in the queue among those that changed.
    age: u64,
}

/// Lists that are used again in every round.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    changes: Vec<Change>,
    shifts: Vec<Shift>,
    pub(super) spans: Vec<u32>,
}

/// Why units of a market are lost in a round, and when they are gone.
struct Losses {
    market: MarketNumber,
    round: RoundNumber,
    now: Timestamp,
    notice_ends: Timestamp,
    reserve: u64,
    figures: Prices,
    /// By bid number: units that it would have kept with the supply of the last round.
    kept_with_old_supply: Vec<(BidNumber, u32)>,
    /// Servers that go before a notice would be over, the first to go first.
    departures: Vec<Departure>,
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
        self.dirty.sort_unstable();
        for place in 0..self.dirty.len() {
            let market = self.dirty[place];
            self.close_in(market, round, now, events);
            if tells_delays && self.market(market).is_some_and(|record| record.is_shaken) {
                self.tell_delayed(market, round, events);
            }
        }
        events.push(MarketEvent::RoundClosed { round });
        self.round_closed(now, round);
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

    /// The round in one market.
    fn close_in(
        &mut self,
        market: MarketNumber,
        round: RoundNumber,
        now: Timestamp,
        events: &mut Vec<MarketEvent>,
    ) {
        let kept_with_old_supply = self.kept_with_old_supply(market);
        let mut shifts = std::mem::take(&mut self.scratch.shifts);
        self.collect_shifts(market, &mut shifts);
        let Some(record) = self.market(market) else { return };
        let figures = record.figures();
        if shifts.iter().any(|shift| shift.after < shift.before) {
            let mut losses = Losses {
                market,
                round,
                now,
                notice_ends: record.notice_from(now),
                reserve: record.settings.reserve.micros(),
                figures,
                kept_with_old_supply,
                departures: record.departures.clone(),
            };
            for shift in shifts.iter().filter(|shift| shift.after < shift.before) {
                self.lose(shift, &mut losses, events);
            }
        }
        // Who wins comes in order of limit, then age: so are leases numbered, and servers given out.
        shifts.retain(|shift| shift.after > shift.before);
        shifts.sort_unstable_by(|a, b| (b.limit, a.age, a.number).cmp(&(a.limit, b.age, b.number)));
        for shift in &mut shifts {
            shift.before += self.withdraw(shift, market, round, now, events);
        }
        for shift in &shifts {
            self.award(shift, market, round, events);
        }
        self.scratch.shifts = shifts;
        self.tell_figures(market, round, figures, events);
    }

    /// Where supply shrank since the last round: how many units of which bids would still win had it not. Asked of
    /// the book before winners and losers are settled, as the incumbents of the last round are.
    fn kept_with_old_supply(&mut self, market: MarketNumber) -> Vec<(BidNumber, u32)> {
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return Vec::new() };
        let before = record.told.map_or(0, |told| told.supply);
        if before <= record.supply {
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
            shifts.push(Shift { number, place, before, after, limit, age: terms.age });
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

    /// Takes leases away: those that wait first, then the youngest.
    fn lose(&mut self, shift: &Shift, losses: &mut Losses, events: &mut Vec<MarketEvent>) {
        let mut left = shift.before - shift.after;
        let kept = &losses.kept_with_old_supply;
        let kept =
            kept.binary_search_by_key(&shift.number, |&(number, _)| number).map_or(0, |place| kept[place].1);
        // The lowest units of the bid would have lost anyhow.
        let mut outbid = left.saturating_sub(kept);
        for wanted in [Stand::Waiting, Stand::Served] {
            let mut spans = std::mem::take(&mut self.scratch.spans);
            spans.clear();
            if let Some(bid) = self.bids.get(shift.place) {
                let fitting = self.leases.of(bid.leases).filter(|(_, span)| span.stand == wanted);
                spans.extend(fitting.map(|(index, _)| index));
            }
            for &index in &spans {
                let mut index = Some(index);
                while let Some(span) = index.filter(|_| left > 0) {
                    let (lost, rest) = self.lose_some(shift, span, left, &mut outbid, losses, events);
                    left -= lost;
                    index = rest;
                }
            }
            self.scratch.spans = spans;
        }
        if left > 0 {
            self.broke("I2", format!("bid {} loses {left} more units than it has", shift.number));
        }
    }

    /// Takes the youngest leases of a span that go for the same reason at the same instant; returns how many, and
    /// the rest of the span.
    fn lose_some(
        &mut self,
        shift: &Shift,
        index: u32,
        most: u32,
        outbid: &mut u32,
        losses: &mut Losses,
        events: &mut Vec<MarketEvent>,
    ) -> (u32, Option<u32>) {
        let span = *self.leases.span(index);
        let (number, market) = (shift.number, losses.market);
        let mut units = span.units.min(most);
        let is_waiting = span.stand == Stand::Waiting;
        let why = if is_waiting {
            *outbid -= units.min(*outbid);
            None
        } else {
            Some(losses.why(shift, &mut units, outbid))
        };
        let rest = (units < span.units).then(|| self.part_oldest(index, span.units - units));
        let leases = self.leases.span(index).leases();
        let Some((reason, gone_at)) = why else {
            let reason = ReleaseReason::NeverServed;
            events.push(MarketEvent::UnitsReleased { number, market, leases, reason });
            self.release(losses.now, shift.place, index, reason);
            return (units, rest);
        };
        let (round, kept_by) = (losses.round, losses.figures.lowest_winning_bid);
        events.push(MarketEvent::NoticeGiven { number, market, leases, round, gone_at, reason, kept_by });
        self.leave(shift.place, index, gone_at, reason);
        (units, rest)
    }

    /// Takes notices back where a bid wins again; returns of how many units.
    fn withdraw(
        &mut self,
        shift: &Shift,
        market: MarketNumber,
        round: RoundNumber,
        now: Timestamp,
        events: &mut Vec<MarketEvent>,
    ) -> u32 {
        let wanted = shift.after - shift.before;
        let mut left = wanted;
        let Some((bid, record)) = self.bids.get(shift.place).zip(self.market(market)) else { return 0 };
        let final_until = record.withdraw_until(now);
        let mut spans = std::mem::take(&mut self.scratch.spans);
        spans.clear();
        let may_stay = |stand: Stand| matches!(stand, Stand::Leaving(reason) if reason.is_withdrawable());
        let fitting =
            self.leases.of(bid.leases).filter(|(_, span)| span.market == market && may_stay(span.stand));
        spans.extend(fitting.map(|(index, _)| index));
        // The oldest leases were the last to be lost; they are the first to be won back.
        for &index in spans.iter().rev() {
            let span = *self.leases.span(index);
            let free = match self.market(market) {
                Some(record) if span.until <= final_until => record.servers.unpromised_at(span.until),
                _ => span.units,
            };
            let units = span.units.min(left).min(free);
            if units == 0 {
                continue;
            }
            let stays = self.part_oldest(index, units);
            let leases = self.leases.span(stays).leases();
            events.push(MarketEvent::NoticeWithdrawn { number: shift.number, market, leases, round });
            self.stay(shift.place, stays);
            left -= units;
        }
        self.scratch.spans = spans;
        wanted - left
    }

    /// Gives a bid new leases: served ones while servers are vacant, others in line.
    fn award(
        &mut self,
        shift: &Shift,
        market: MarketNumber,
        round: RoundNumber,
        events: &mut Vec<MarketEvent>,
    ) {
        let won = shift.after.saturating_sub(shift.before);
        let Some(record) = self.market(market) else { return };
        let served = won.min(record.servers.vacant());
        let in_line = won - served;
        let promised = (in_line > 0).then(|| record.servers.promise(in_line));
        let number = shift.number;
        if served > 0 {
            let leases = LeaseSpan { first: self.next.lease, units: served };
            events.push(MarketEvent::UnitsAwarded { number, market, leases, round, available_by: None });
            self.grant(shift.place, market, leases, None);
        }
        let Some(promised) = promised else { return };
        // As many servers are occupied as there are, and more is never won: so enough of them are being left.
        let Some(available_by) = promised else {
            self.broke(
                "I2",
                format!("bid {number} wins {in_line} units of market {market} that no server is left for"),
            );
            return;
        };
        let leases = LeaseSpan { first: self.next.lease, units: in_line };
        let available_by = Some(available_by);
        events.push(MarketEvent::UnitsAwarded { number, market, leases, round, available_by });
        self.grant(shift.place, market, leases, available_by);
    }

    /// Tells those in line whose server comes later than they were told.
    fn tell_delayed(&mut self, market: MarketNumber, round: RoundNumber, events: &mut Vec<MarketEvent>) {
        let Some(record) = self.market(market) else { return };
        let margin = i64::from(record.settings.notice_seconds) * 1_000_000 / DELAY_MARGIN_DIVISOR;
        for (index, promised) in record.servers.delayed(&self.leases) {
            let available_by = promised.plus_micros(margin);
            let span = *self.leases.span(index);
            let (number, leases) = (span.number, span.leases());
            events.push(MarketEvent::UnitsDelayed { number, market, leases, round, available_by });
            self.leases.delay(index, available_by);
        }
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

impl Losses {
    /// Why the next units of a bid are lost and when they are gone; lowers `units` to how many that is true of.
    fn why(&mut self, shift: &Shift, units: &mut u32, outbid: &mut u32) -> (LossReason, Timestamp) {
        if shift.limit < self.reserve {
            return (LossReason::Reserve, self.notice_ends);
        }
        if *outbid > 0 {
            *units = (*units).min(*outbid);
            *outbid -= *units;
            return (LossReason::Outbid, self.notice_ends);
        }
        while let Some(departure) = self.departures.first_mut() {
            if departure.units == 0 || departure.gone_at >= self.notice_ends {
                self.departures.remove(0);
                continue;
            }
            *units = (*units).min(departure.units);
            departure.units -= *units;
            return (LossReason::Supply, departure.gone_at.max(self.now));
        }
        (LossReason::Supply, self.notice_ends)
    }
}
