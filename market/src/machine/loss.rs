//! The losing side of a round: leases that are taken away, with a reason and an end.

use std::collections::BTreeMap;

use proto::Timestamp;
use proto::market::{
    BidNumber, LeaseSpan, LossReason, MarketEvent, MarketNumber, Prices, ReleaseReason, RoundNumber,
};

use super::Market;
use super::lease::{Span, Stand};
use super::order::ORDER_LIMIT;
use super::record::Departure;
use super::round::Shift;

/// Why units of a market are lost in a round, and when they are gone.
pub(super) struct Losses {
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

/// Units that bids lose in one market and win in another in the same round.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves(BTreeMap<BidNumber, Move>);

/// One bid's.
#[derive(Clone, Debug, Default)]
struct Move {
    /// Units that it wins in markets where it loses none.
    gained: u32,
    /// Leases it loses for them, until others replace them.
    from: Vec<LeaseSpan>,
}

impl Moves {
    /// The moves among shifts of several markets. A bid that only wins or only loses moves nothing.
    pub(super) fn of(shifts: &[Shift]) -> Self {
        let mut moves: BTreeMap<BidNumber, Move> = BTreeMap::new();
        for shift in shifts.iter().filter(|shift| shift.after > shift.before) {
            moves.entry(shift.number).or_default().gained += shift.after - shift.before;
        }
        let loses: Vec<BidNumber> =
            shifts.iter().filter(|shift| shift.after < shift.before).map(|shift| shift.number).collect();
        moves.retain(|number, _| loses.contains(number));
        Self(moves)
    }

    /// Up to so many of the units a bid loses move, if it wins others.
    fn left(&self, number: BidNumber) -> u32 {
        self.0.get(&number).map_or(0, |moved| moved.gained)
    }

    fn leave(&mut self, number: BidNumber, leases: LeaseSpan) {
        if let Some(moved) = self.0.get_mut(&number) {
            moved.gained = moved.gained.saturating_sub(leases.units);
            moved.from.push(leases);
        }
    }

    /// The next leases that at most so many new ones of a bid replace, one for one.
    pub(super) fn replaced(&mut self, number: BidNumber, units_max: u32) -> Option<LeaseSpan> {
        let from = &mut self.0.get_mut(&number)?.from;
        let leases = *from.first()?;
        let replaced = LeaseSpan { first: leases.first, units: leases.units.min(units_max) };
        if replaced.units == leases.units {
            from.remove(0);
        } else if let Some(rest) = from.first_mut() {
            rest.first += u64::from(replaced.units);
            rest.units -= replaced.units;
        }
        Some(replaced)
    }
}

impl Market {
    /// Takes leases away where bids win fewer units than they hold. All shifts are of one market.
    #[allow(clippy::too_many_arguments)] // a round is what it is
    pub(super) fn lose_in(
        &mut self,
        shifts: &[Shift],
        market: MarketNumber,
        figures: Prices,
        kept_with_old_supply: Vec<(BidNumber, u32)>,
        moves: &mut Moves,
        (now, round): (Timestamp, RoundNumber),
        events: &mut Vec<MarketEvent>,
    ) {
        if shifts.iter().all(|shift| shift.after >= shift.before) {
            return;
        }
        let Some(record) = self.market(market) else { return };
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
            self.lose(shift, &mut losses, moves, events);
        }
    }

    /// Takes leases away: those that wait first, then the youngest.
    fn lose(&mut self, shift: &Shift, losses: &mut Losses, moves: &mut Moves, events: &mut Vec<MarketEvent>) {
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
                let fits = |span: &Span| span.stand == wanted && span.market == losses.market;
                let fitting = self.leases.of(bid.leases).filter(|(_, span)| fits(span));
                spans.extend(fitting.map(|(index, _)| index));
            }
            for &index in &spans {
                let mut index = Some(index);
                while let Some(span) = index.filter(|_| left > 0) {
                    let (lost, rest) = self.lose_some(shift, span, left, &mut outbid, losses, moves, events);
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
    #[allow(clippy::too_many_arguments)] // as above
    fn lose_some(
        &mut self,
        shift: &Shift,
        index: u32,
        most: u32,
        outbid: &mut u32,
        losses: &mut Losses,
        moves: &mut Moves,
        events: &mut Vec<MarketEvent>,
    ) -> (u32, Option<u32>) {
        let span = *self.leases.span(index);
        let (number, market) = (shift.number, losses.market);
        let mut units = span.units.min(most);
        let moving = moves.left(number);
        let why = if span.stand == Stand::Waiting {
            *outbid -= units.min(*outbid);
            None
        } else {
            units = if moving > 0 { units.min(moving) } else { units };
            let (reason, gone_at) = losses.why(shift, &mut units, outbid);
            Some((if moving > 0 { LossReason::Moved } else { reason }, gone_at))
        };
        let rest = (units < span.units).then(|| self.part_oldest(index, span.units - units));
        let leases = self.leases.span(index).leases();
        let Some((reason, gone_at)) = why else {
            let reason = ReleaseReason::NeverServed;
            events.push(MarketEvent::UnitsReleased { number, market, leases, reason });
            self.release(losses.now, shift.place, index, reason);
            return (units, rest);
        };
        if reason == LossReason::Moved {
            moves.leave(number, leases);
        }
        // No limit keeps an on-demand unit: it goes because servers do.
        let kept_by = losses.figures.lowest_winning_bid.filter(|_| shift.limit != ORDER_LIMIT);
        let round = losses.round;
        events.push(MarketEvent::NoticeGiven { number, market, leases, round, gone_at, reason, kept_by });
        self.leave(shift.place, index, gone_at, reason);
        (units, rest)
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
