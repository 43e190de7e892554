//! How leases change: left, kept, ended, awarded. Every function here is called when a decision is made and when its
//! event is read back; those that end in `_range` find the spans of an event first.

use proto::Timestamp;
use proto::market::{LeaseNumber, LeaseSpan, LossReason, MarketEvent, MarketNumber, ReleaseReason};

use super::Market;
use super::lease::{Head, Leases, Span, Stand, Watched, Worker};
use super::servers::Servers;

impl Market {
    /// Lets a bid's units go at its tenant's wish, in the markets that `may_go`: the named leases first, then waiting
    /// ones, then served ones, the youngest first.
    #[allow(clippy::too_many_arguments)] // each is another word of that sentence
    pub(super) fn let_go(
        &mut self,
        now: Timestamp,
        place: u32,
        units: u32,
        named: &[LeaseNumber],
        reason: LossReason,
        may_go: impl Fn(MarketNumber) -> bool,
        events: &mut Vec<MarketEvent>,
    ) {
        let mut left = units;
        for &lease in named {
            let Some(bid) = self.bids.get(place).filter(|_| left > 0) else { return };
            let found = self.leases.find(bid.leases, lease);
            let fits = |span: &Span| span.stand.is_live() && may_go(span.market);
            if found.is_some_and(|index| fits(self.leases.span(index))) {
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
                let fits = |span: &Span| span.stand == wanted && may_go(span.market);
                let fitting = self.leases.of(bid.leases).filter(|(_, span)| fits(span));
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
        self.unreplace(place, self.leases.span(index).leases());
        self.turn(place, index, Stand::Served, self.now);
        self.shake(market);
    }

    /// Leases that stay are replaced by none, whoever was to.
    fn unreplace(&mut self, place: u32, stays: LeaseSpan) {
        let Some(bid) = self.bids.get(place) else { return };
        let replaces = |span: &Span| {
            let first = span.replaces;
            first != 0 && first < stays.end() && stays.first < first + u64::from(span.units)
        };
        let spans: Vec<u32> =
            self.leases.of(bid.leases).filter(|(_, span)| replaces(span)).map(|(index, _)| index).collect();
        for index in spans {
            self.leases.set_replaces(index, 0);
        }
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
        record.servers.serve_line(&mut self.leases, at);
        if span.stand.is_live() {
            bid.live -= span.units;
            if queues_again(reason) && bid.stands() {
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
            None => (Stand::Served, self.now),
            Some(until) => (Stand::Waiting, until),
        };
        let span = Leases::new_span(leases, bid.number, place, market, stand, until);
        self.leases.grant(&mut record.servers, &mut bid.leases, span);
        bid.live += leases.units;
        if self.leases.watched.booting {
            self.set_timer(market);
        }
    }

    /// Units that a bid keeps get other leases.
    pub(super) fn units_moved(
        &mut self,
        place: u32,
        market: MarketNumber,
        leases: LeaseSpan,
        replaces: LeaseNumber,
        available_by: Option<Timestamp>,
    ) {
        self.grant(place, market, leases, available_by);
        self.for_range(place, leases, |this, index| {
            let first = this.leases.span(index).first;
            this.leases.set_replaces(index, replaces + (first - leases.first));
        });
    }

    /// Workers of leases are ready. What the leases replace is told to go by events of its own.
    pub(super) fn workers_ready(&mut self, place: u32, range: LeaseSpan) {
        self.for_range(place, range, |this, index| {
            this.leases.set_replaces(index, 0);
            this.set_worker(index, Worker::Ready);
        });
    }

    /// Workers of leases are dead. Who was dead already has been since that was said first.
    pub(super) fn workers_dead(&mut self, place: u32, range: LeaseSpan) {
        self.for_range(place, range, |this, index| {
            if this.leases.span(index).worker == Worker::Ready {
                this.set_worker(index, Worker::Dead);
            }
        });
    }

    fn set_worker(&mut self, index: u32, worker: Worker) {
        let market = self.leases.span(index).market;
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        self.leases.set_worker(&mut record.servers, index, worker, self.now);
        self.set_timer(market);
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
        self.for_range(place, range, |this, index| {
            let market = this.leases.span(index).market;
            if let Some(record) = this.markets.get_mut(usize::from(market)) {
                this.leases.delay(&mut record.servers, index, available_by);
            }
        });
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

    /// When something is due next with a market's leases: some are gone, or have been without a worker for too long.
    pub(super) fn lease_due(&self, servers: &Servers) -> Option<Timestamp> {
        let (booting, dead) = servers.longest_without(&self.leases);
        let booting = booting.map(|since| since.plus_seconds(self.rules.provisioning_seconds_max));
        let dead = dead.map(|since| since.plus_seconds(self.rules.dead_seconds_max));
        [servers.next_gone_at(), booting, dead].into_iter().flatten().min()
    }

    /// Keeps the timers in step with what is due next with a market's leases.
    pub(super) fn set_timer(&mut self, market: MarketNumber) {
        let Some(record) = self.markets.get(usize::from(market)) else { return };
        let next = self.lease_due(&record.servers);
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        if record.timer != next {
            if let Some(before) = std::mem::replace(&mut record.timer, next) {
                self.departing.remove(&(before, market));
            }
            if let Some(next) = next {
                self.departing.insert((next, market));
            }
        }
    }

    /// Watches leases without a ready worker as the rules have it: lists them anew, which looks at every lease.
    pub(super) fn watch_leases(&mut self) {
        let rules = &self.rules;
        self.leases.watched =
            Watched { booting: rules.provisioning_seconds_max > 0, dead: rules.dead_seconds_max > 0 };
        let mut without: Vec<Vec<u32>> = vec![Vec::new(); self.markets.len()];
        for (index, span) in self.leases.indexed() {
            if let (Stand::Served, Some(spans)) = (span.stand, without.get_mut(usize::from(span.market))) {
                spans.push(index);
            }
        }
        for (market, mut spans) in without.into_iter().enumerate() {
            spans.sort_unstable_by_key(|&index| {
                let span = self.leases.span(index);
                (span.until, span.first)
            });
            if let Some(record) = self.markets.get_mut(market) {
                record.servers.list_anew(&mut self.leases, &spans);
            }
            self.set_timer(market as MarketNumber);
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

/// Whether units that were won go back to their places in the queue when their leases end so.
const fn queues_again(reason: ReleaseReason) -> bool {
    use ReleaseReason::{
        Acknowledged, NeverServed, NoticeEnded, ProvisioningTimedOut, Replaced, ServerLost, WorkerDead,
    };
    match reason {
        ServerLost | ProvisioningTimedOut | WorkerDead => true,
        NoticeEnded | Acknowledged | NeverServed | Replaced => false,
    }
}
