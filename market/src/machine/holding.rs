//! How leases change: left, kept, ended, awarded. Every function here is called when a decision is made and when its
//! event is read back; those that end in `_range` find the spans of an event first.

use proto::Timestamp;
use proto::market::{LeaseNumber, LeaseSpan, LossReason, MarketEvent, MarketNumber, ReleaseReason};

use super::Market;
use super::lease::{Head, Leases, Stand};

impl Market {
    /// Lets a bid's units go at its tenant's wish: the named leases first, then waiting ones, then served ones, the
    /// youngest first.
    pub(super) fn let_go(
        &mut self,
        now: Timestamp,
        place: u32,
        units: u32,
        named: &[LeaseNumber],
        reason: LossReason,
        events: &mut Vec<MarketEvent>,
    ) {
        let mut left = units;
        for &lease in named {
            let Some(bid) = self.bids.get(place).filter(|_| left > 0) else { return };
            let found = self.leases.find(bid.leases, lease);
            if found.is_some_and(|index| self.leases.span(index).stand.is_live()) {
                let range = LeaseSpan { first: lease, units: 1 };
                if let Some(index) = self.next_within(place, range, LeaseNumber::MAX) {
                    left -= self.exit(now, place, index, 1, reason, events);
                }
            }
        }
        for wanted in [Stand::Waiting, Stand::Served] {
            let mut spans = std::mem::take(&mut self.scratch.spans);
            spans.clear();
            if let Some(bid) = self.bids.get(place) {
                let fitting = self.leases.of(bid.leases).filter(|(_, span)| span.stand == wanted);
                spans.extend(fitting.map(|(index, _)| index));
            }
            for &index in &spans {
                if left == 0 {
                    break;
                }
                left -= self.exit(now, place, index, left, reason, events);
            }
            self.scratch.spans = spans;
        }
    }

    /// Lets the youngest units of a span go; returns how many went.
    fn exit(
        &mut self,
        now: Timestamp,
        place: u32,
        index: u32,
        units_max: u32,
        reason: LossReason,
        events: &mut Vec<MarketEvent>,
    ) -> u32 {
        let span = *self.leases.span(index);
        let units = span.units.min(units_max);
        self.keep_youngest(index, units);
        let leases = self.leases.span(index).leases();
        let (number, market) = (span.number, span.market);
        if span.stand == Stand::Waiting {
            let reason = ReleaseReason::NeverServed;
            events.push(MarketEvent::UnitsReleased { number, market, leases, reason });
            self.release(now, place, index, reason);
        } else {
            let gone_at = self.market(market).map_or(now, |record| record.notice_from(now));
            let round = self.next.round;
            events.push(MarketEvent::NoticeGiven {
                number,
                market,
                leases,
                round,
                gone_at,
                reason,
                kept_by: None,
            });
            self.leave(place, index, gone_at, reason);
        }
        units
    }

    /// Parts a span so that its youngest `units` keep the index.
    pub(super) fn keep_youngest(&mut self, index: u32, units: u32) {
        let market = self.leases.span(index).market;
        if let Some(record) = self.markets.get_mut(usize::from(market)) {
            self.leases.keep_youngest(&mut record.servers, index, units);
        }
    }

    /// Parts a span so that its oldest `units` are one of their own, and returns that.
    pub(super) fn part_oldest(&mut self, index: u32, units: u32) -> u32 {
        let span = self.leases.span(index);
        if units >= span.units {
            return index;
        }
        match self.markets.get_mut(usize::from(span.market)) {
            Some(record) => self.leases.part_oldest(&mut record.servers, index, units),
            None => index,
        }
    }

    fn next_within(&mut self, place: u32, range: LeaseSpan, below: LeaseNumber) -> Option<u32> {
        let head = self.bids.get(place)?.leases;
        let (index, _) = self.leases.of(head).find(|(_, span)| span.first < range.end().min(below))?;
        let market = self.leases.span(index).market;
        let record = self.markets.get_mut(usize::from(market))?;
        self.leases.next_within(&mut record.servers, head, range, below)
    }

    /// Calls `change` for every span of a bid within a range, youngest first.
    fn for_range(&mut self, place: u32, range: LeaseSpan, mut change: impl FnMut(&mut Self, u32)) {
        let mut below = LeaseNumber::MAX;
        while let Some(index) = self.next_within(place, range, below) {
            below = self.leases.span(index).first;
            change(self, index);
        }
    }

    /// A span's leases have to leave.
    pub(super) fn leave(&mut self, place: u32, index: u32, gone_at: Timestamp, reason: LossReason) {
        self.turn(place, index, Stand::Leaving(reason), gone_at);
    }

    /// A span's leases need not leave after all.
    pub(super) fn stay(&mut self, place: u32, index: u32) {
        let market = self.leases.span(index).market;
        self.turn(place, index, Stand::Served, Timestamp::default());
        self.shake(market);
    }

    fn turn(&mut self, place: u32, index: u32, stand: Stand, until: Timestamp) {
        let span = *self.leases.span(index);
        let Some(record) = self.markets.get_mut(usize::from(span.market)) else { return };
        self.leases.turn(&mut record.servers, index, stand, until);
        if let Some(bid) = self.bids.holder(place) {
            match (span.stand.is_live(), stand.is_live()) {
                (true, false) => bid.live -= span.units,
                (false, true) => bid.live += span.units,
                _ => {}
            }
        }
        self.set_timer(span.market);
    }

    /// Ends a span's leases; whoever waits for their servers gets them.
    pub(super) fn release(&mut self, at: Timestamp, place: u32, index: u32, reason: ReleaseReason) {
        let span = *self.leases.span(index);
        let Some(record) = self.markets.get_mut(usize::from(span.market)) else { return };
        let Some(bid) = self.bids.holder(place) else { return };
        self.leases.end(&mut record.servers, &mut bid.leases, index);
        record.servers.serve_line(&mut self.leases);
        if span.stand.is_live() {
            bid.live -= span.units;
            if reason == ReleaseReason::ServerLost && bid.stands() {
                self.unhold(place, span.units);
            }
        }
        self.set_timer(span.market);
        self.note_finished(at, place);
    }

    /// New leases of a bid: served at once, or in line for a server until `available_by`.
    pub(super) fn grant(
        &mut self,
        place: u32,
        market: MarketNumber,
        leases: LeaseSpan,
        available_by: Option<Timestamp>,
    ) {
        self.next.lease = self.next.lease.max(leases.end());
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        let Some(bid) = self.bids.holder(place) else { return };
        let (stand, until) = match available_by {
            None => (Stand::Served, Timestamp::default()),
            Some(until) => (Stand::Waiting, until),
        };
        let span = Leases::new_span(leases, bid.number, place, market, stand, until);
        self.leases.grant(&mut record.servers, &mut bid.leases, span);
        bid.live += leases.units;
    }

    /// Leases have to leave.
    pub(super) fn notice_given(
        &mut self,
        place: u32,
        range: LeaseSpan,
        gone_at: Timestamp,
        reason: LossReason,
    ) {
        self.for_range(place, range, |this, index| this.leave(place, index, gone_at, reason));
    }

    /// Leases stay.
    pub(super) fn notice_withdrawn(&mut self, place: u32, range: LeaseSpan) {
        self.for_range(place, range, |this, index| this.stay(place, index));
    }

    /// Leases wait longer.
    pub(super) fn units_delayed(&mut self, place: u32, range: LeaseSpan, available_by: Timestamp) {
        self.for_range(place, range, |this, index| this.leases.delay(index, available_by));
    }

    /// Leases are over.
    pub(super) fn units_released(
        &mut self,
        at: Timestamp,
        place: u32,
        range: LeaseSpan,
        reason: ReleaseReason,
    ) {
        self.for_range(place, range, |this, index| this.release(at, place, index, reason));
    }

    /// Keeps the timers in step with a market's next departure.
    pub(super) fn set_timer(&mut self, market: MarketNumber) {
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        let next = record.servers.next_gone_at();
        if record.timer != next {
            if let Some(before) = std::mem::replace(&mut record.timer, next) {
                self.departing.remove(&(before, market));
            }
            if let Some(next) = next {
                self.departing.insert((next, market));
            }
        }
    }

    /// Lets an ended bid be finished once it has nothing any more.
    pub(super) fn note_finished(&mut self, at: Timestamp, place: u32) {
        let Some(bid) = self.bids.get(place) else { return };
        if !bid.stands()
            && bid.leases == Head::default()
            && let Some(tenant) = self.bids.finish(at, place)
        {
            self.tenants.leave(tenant);
        }
    }
}
