//! The winning side of a round: notices that are taken back, leases that are granted, delays that are told.

use proto::Timestamp;
use proto::market::{LeaseSpan, MarketEvent, MarketNumber, RoundNumber};

use super::Market;
use super::bounds::DELAY_MARGIN_DIVISOR;
use super::lease::Stand;
use super::loss::Moves;
use super::round::Shift;

impl Market {
    /// Gives leases where bids win more units than they hold, and first takes back the notices of leases that they may
    /// keep. All shifts are of one market.
    pub(super) fn win_in(
        &mut self,
        shifts: &mut Vec<Shift>,
        market: MarketNumber,
        moves: &mut Moves,
        (now, round): (Timestamp, RoundNumber),
        events: &mut Vec<MarketEvent>,
    ) {
        // Who wins comes in order of limit, then age: so are leases numbered, and servers given out.
        shifts.retain(|shift| shift.after > shift.before);
        shifts.sort_unstable_by(|a, b| (b.limit, a.age, a.number).cmp(&(a.limit, b.age, b.number)));
        for shift in shifts.iter_mut() {
            shift.before += self.withdraw(shift, market, round, now, events);
        }
        for shift in shifts.iter() {
            self.award(shift, round, moves, events);
        }
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
    fn award(&mut self, shift: &Shift, round: RoundNumber, moves: &mut Moves, events: &mut Vec<MarketEvent>) {
        let won = shift.after.saturating_sub(shift.before);
        let (number, market) = (shift.number, shift.market);
        let Some(record) = self.market(market) else { return };
        let served = won.min(record.servers.vacant());
        let in_line = won - served;
        let promised = (in_line > 0).then(|| record.servers.promise(in_line));
        if served > 0 {
            self.award_some(shift, served, round, None, moves, events);
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
        self.award_some(shift, in_line, round, Some(available_by), moves, events);
    }

    /// Gives a bid so many new leases; as far as it leaves others for them, they replace those.
    fn award_some(
        &mut self,
        shift: &Shift,
        units: u32,
        round: RoundNumber,
        available_by: Option<Timestamp>,
        moves: &mut Moves,
        events: &mut Vec<MarketEvent>,
    ) {
        let (number, market) = (shift.number, shift.market);
        let mut left = units;
        while let Some(replaced) = moves.replaced(number, left).filter(|replaced| replaced.units > 0) {
            let leases = LeaseSpan { first: self.next.lease, units: replaced.units };
            let replaces = replaced.first;
            events.push(MarketEvent::UnitsMoved { number, market, leases, replaces, round, available_by });
            self.units_moved(shift.place, market, leases, replaces, available_by);
            left -= replaced.units;
            if left == 0 {
                return;
            }
        }
        let leases = LeaseSpan { first: self.next.lease, units: left };
        events.push(MarketEvent::UnitsAwarded { number, market, leases, round, available_by });
        self.grant(shift.place, market, leases, available_by);
    }

    /// Tells those in line whose server comes later than they were told.
    pub(super) fn tell_delayed(
        &mut self,
        market: MarketNumber,
        round: RoundNumber,
        events: &mut Vec<MarketEvent>,
    ) {
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        let margin = i64::from(record.settings.notice_seconds) * 1_000_000 / DELAY_MARGIN_DIVISOR;
        for (index, promised) in record.servers.delayed(&self.leases) {
            let available_by = promised.plus_micros(margin);
            let span = *self.leases.span(index);
            let (number, leases) = (span.number, span.leases());
            events.push(MarketEvent::UnitsDelayed { number, market, leases, round, available_by });
            self.leases.delay(&mut record.servers, index, available_by);
        }
    }
}
