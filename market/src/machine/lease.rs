//! Leases: spans of consecutive numbers, each in one state, linked per bid and per queue.
//!
//! A bid holds few spans; they are linked youngest first, because the youngest leases are the first to go. A span
//! that waits for a server stands in its market's line, one that leaves stands with all others that leave at the
//! same instant ([`super::servers`]).

use std::collections::BTreeSet;

use proto::Timestamp;
use proto::market::{BidNumber, LeaseNumber, LeaseSpan, LossReason, MarketNumber};

use super::digest::{Kind, Sum, digest};
use super::servers::Servers;

/// No span.
pub(super) const NONE: u32 = u32::MAX;
/// The list of grants is made anew when it is longer than twice the spans and this.
const GRANTS_SLACK: usize = 1_024;

/// What a span's leases are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// They hold a server each.
    Served,
    /// They wait for one.
    Waiting,
    /// They hold one and have to leave it.
    Leaving(LossReason),
}

impl Stand {
    /// Whether the units count as won.
    pub(super) const fn is_live(self) -> bool {
        matches!(self, Self::Served | Self::Waiting)
    }

    const fn code(self) -> u64 {
        match self {
            Self::Served => 0,
            Self::Waiting => 1,
            Self::Leaving(reason) => 2 + reason as u64,
        }
    }
}

/// What is known of the workers of leases that hold servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Worker {
    /// None is ready yet.
    #[default]
    Booting,
    Ready,
    /// It was ready and is dead.
    Dead,
}

/// Consecutive leases of one bid, all in the same state. One cache line each.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Span {
    pub(super) first: LeaseNumber,
    /// When leaving leases are gone; by when waiting ones were told that a server is there; since when served ones have
    /// been without a ready worker.
    pub(super) until: Timestamp,
    pub(super) number: BidNumber,
    /// The first of the leases that these replace, one for one, until they have ready workers; 0 replaces none.
    pub(super) replaces: LeaseNumber,
    /// The bid's place.
    pub(super) bid: u32,
    /// 0 marks a free record.
    pub(super) units: u32,
    /// The bid's next younger and next older span.
    younger: u32,
    pub(super) older: u32,
    /// Neighbours in a market's line or among those that leave at the same instant.
    pub(super) ahead: u32,
    pub(super) behind: u32,
    pub(super) market: MarketNumber,
    pub(super) stand: Stand,
    pub(super) worker: Worker,
}

impl Span {
    pub(super) const fn leases(&self) -> LeaseSpan {
        LeaseSpan { first: self.first, units: self.units }
    }

    fn digest(&self) -> u128 {
        let place = u64::from(self.units)
            | (u64::from(self.market) << 32)
            | ((self.stand.code() | ((self.worker as u64) << 8)) << 48);
        // Numbers stay far below 2^40: what is replaced has the upper bits to itself, nearly always.
        let first = self.first ^ self.replaces.rotate_left(40);
        digest(Kind::Lease, [first, place, self.number, self.until.micros() as u64])
    }
}

const _: () = assert!(size_of::<Span>() == 64);

/// Where a span of a bid begins: what a bid keeps of its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head(pub(super) u32);

impl Default for Head {
    fn default() -> Self {
        Self(NONE)
    }
}

/// All spans of an exchange.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    spans: Vec<Span>,
    free: Vec<u32>,
    live: usize,
    /// First lease and bid of every span as it was granted, ascending; some are over.
    grants: Vec<(LeaseNumber, u32)>,
    pub(super) sum: Sum,
    /// Which leases without a ready worker are watched: booting ones, and those whose worker is dead.
    pub(super) watched: Watched,
    /// Places of bids whose leases or units changed since the last joint clearing, while markets are coupled.
    pub(super) touched: Option<BTreeSet<u32>>,
}

/// Which leases without a ready worker stand in lists, so that the one that has been without longest is at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) booting: bool,
    pub(super) dead: bool,
}

impl Leases {
    #[inline]
    pub(super) fn span(&self, index: u32) -> &Span {
        &self.spans[index as usize]
    }

    #[inline]
    pub(super) fn span_mut(&mut self, index: u32) -> &mut Span {
        &mut self.spans[index as usize]
    }

    /// The spans of a bid, youngest first.
    pub(super) fn of(&self, head: Head) -> impl Iterator<Item = (u32, &Span)> + '_ {
        let mut next = head.0;
        std::iter::from_fn(move || {
            let index = next;
            let span = self.spans.get(index as usize)?;
            next = span.older;
            Some((index, span))
        })
    }

    /// Every span with its index, in no particular order.
    pub(super) fn indexed(&self) -> impl Iterator<Item = (u32, &Span)> + '_ {
        let spans = self.spans.iter().enumerate().filter(|(_, span)| span.units != 0);
        spans.map(|(index, span)| (index as u32, span))
    }

    /// Every span, in no particular order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Span> + '_ {
        self.spans.iter().filter(|span| span.units != 0)
    }

    /// The place of the bid that a lease may belong to; the bid's own spans tell whether it does.
    pub(super) fn holder(&self, lease: LeaseNumber) -> Option<u32> {
        let place = self.grants.partition_point(|&(first, _)| first <= lease);
        self.grants.get(place.checked_sub(1)?).map(|&(_, bid)| bid)
    }

    /// A bid's span that holds a lease.
    pub(super) fn find(&self, head: Head, lease: LeaseNumber) -> Option<u32> {
        self.of(head).find(|(_, span)| span.leases().contains(lease)).map(|(index, _)| index)
    }

    /// Notes that the joint clearing must look at a bid.
    #[inline]
    pub(super) fn touch(&mut self, bid: u32) {
        if let Some(touched) = &mut self.touched {
            touched.insert(bid);
        }
    }

    /// Adds the youngest span of a bid.
    pub(super) fn grant(&mut self, servers: &mut Servers, head: &mut Head, span: Span) -> u32 {
        self.touch(span.bid);
        let index = self.store(span);
        self.spans[index as usize].older = head.0;
        if let Some(older) = self.spans.get_mut(head.0 as usize) {
            older.younger = index;
        }
        *head = Head(index);
        self.sum.add(span.digest());
        if self.grants.len() > 2 * self.live + GRANTS_SLACK {
            self.weed_grants();
        } else {
            self.grants.push((span.first, span.bid));
        }
        servers.enter(self, index);
        index
    }

    /// A span to grant.
    pub(super) const fn new_span(
        leases: LeaseSpan,
        number: BidNumber,
        bid: u32,
        market: MarketNumber,
        stand: Stand,
        until: Timestamp,
    ) -> Span {
        Span {
            first: leases.first,
            until,
            number,
            bid,
            units: leases.units,
            younger: NONE,
            older: NONE,
            ahead: NONE,
            behind: NONE,
            market,
            stand,
            replaces: 0,
            worker: Worker::Booting,
        }
    }

    fn store(&mut self, span: Span) -> u32 {
        self.live += 1;
        if let Some(index) = self.free.pop() {
            self.spans[index as usize] = span;
            return index;
        }
        self.spans.push(span);
        self.spans.len() as u32 - 1
    }

    fn weed_grants(&mut self) {
        self.grants.clear();
        self.grants
            .extend(self.spans.iter().filter(|span| span.units != 0).map(|span| (span.first, span.bid)));
        self.grants.sort_unstable();
    }

    /// Parts a span: its oldest `units` leases become a span of their own, which is returned; the rest keeps the
    /// index.
    pub(super) fn part_oldest(&mut self, servers: &mut Servers, index: u32, units: u32) -> u32 {
        let span = *self.span(index);
        self.sum.remove(span.digest());
        let oldest = self.store(Span { units, younger: index, ..span });
        if let Some(older) = self.spans.get_mut(span.older as usize) {
            older.younger = oldest;
        }
        let rest = self.span_mut(index);
        rest.first += u64::from(units);
        rest.replaces += if rest.replaces == 0 { 0 } else { u64::from(units) };
        rest.units -= units;
        rest.older = oldest;
        let parts = [*self.span(index), *self.span(oldest)];
        self.sum.add(parts[0].digest());
        self.sum.add(parts[1].digest());
        servers.joined_ahead(self, oldest, index);
        oldest
    }

    /// Parts a span so that its youngest `units` leases keep the index.
    pub(super) fn keep_youngest(&mut self, servers: &mut Servers, index: u32, units: u32) {
        let rest = self.span(index).units.saturating_sub(units);
        if rest > 0 {
            self.part_oldest(servers, index, rest);
        }
    }

    /// Puts a span into another state. A served one's instant is that from which on it is without a ready worker, if it
    /// is.
    pub(super) fn turn(&mut self, servers: &mut Servers, index: u32, stand: Stand, until: Timestamp) {
        self.become_one(servers, index, stand, self.span(index).worker, until);
    }

    /// Says what became of the workers of a span that holds servers.
    pub(super) fn set_worker(&mut self, servers: &mut Servers, index: u32, worker: Worker, now: Timestamp) {
        let Span { stand, until, .. } = *self.span(index);
        let until = if stand == Stand::Served { now } else { until };
        self.become_one(servers, index, stand, worker, until);
    }

    fn become_one(
        &mut self,
        servers: &mut Servers,
        index: u32,
        stand: Stand,
        worker: Worker,
        until: Timestamp,
    ) {
        servers.exit(self, index);
        self.touch(self.span(index).bid);
        self.sum.remove(self.span(index).digest());
        let span = self.span_mut(index);
        span.stand = stand;
        span.worker = worker;
        let has_no_instant = stand == Stand::Served && worker == Worker::Ready;
        span.until = if has_no_instant { Timestamp::default() } else { until };
        let turned = span.digest();
        self.sum.add(turned);
        servers.enter(self, index);
        // Served leases side by side are one span: fewer to look at, fewer events when they go.
        if stand == Stand::Served {
            let (younger, older) = (self.span(index).younger, self.span(index).older);
            self.join(servers, index, older);
            self.join(servers, younger, index);
        }
    }

    /// Makes two served spans of a bid one if the older ends where the younger begins. It keeps the index of the
    /// younger one, which the head of a bid's list may be.
    fn join(&mut self, servers: &mut Servers, younger: u32, older: u32) {
        let (Some(&above), Some(&below)) = (self.spans.get(younger as usize), self.spans.get(older as usize))
        else {
            return;
        };
        let is_served = above.stand == Stand::Served && below.stand == Stand::Served;
        let is_alike = (above.worker, above.until) == (below.worker, below.until)
            && (above.replaces, below.replaces) == (0, 0);
        if !is_served || !is_alike || above.market != below.market || below.leases().end() != above.first {
            return;
        }
        servers.unlink(self, older);
        self.sum.remove(above.digest());
        self.sum.remove(below.digest());
        let joined = self.span_mut(younger);
        joined.first = below.first;
        joined.units += below.units;
        joined.older = below.older;
        let joined = joined.digest();
        self.sum.add(joined);
        if let Some(next) = self.spans.get_mut(below.older as usize) {
            next.younger = younger;
        }
        self.span_mut(older).units = 0;
        self.free.push(older);
        self.live -= 1;
    }

    /// Says which leases a span replaces, one for one.
    pub(super) fn set_replaces(&mut self, index: u32, replaces: LeaseNumber) {
        if self.span(index).replaces != replaces {
            self.sum.remove(self.span(index).digest());
            self.span_mut(index).replaces = replaces;
            let changed = self.span(index).digest();
            self.sum.add(changed);
        }
    }

    /// Tells a waiting span another instant.
    pub(super) fn delay(&mut self, servers: &mut Servers, index: u32, until: Timestamp) {
        self.sum.remove(self.span(index).digest());
        self.span_mut(index).until = until;
        let delayed = self.span(index).digest();
        self.sum.add(delayed);
        if self.span(index).stand == Stand::Waiting {
            servers.told(self, index);
        }
    }

    /// Ends a span.
    pub(super) fn end(&mut self, servers: &mut Servers, head: &mut Head, index: u32) {
        servers.exit(self, index);
        let span = *self.span(index);
        self.touch(span.bid);
        self.sum.remove(span.digest());
        match self.spans.get_mut(span.younger as usize) {
            Some(younger) => younger.older = span.older,
            None => *head = Head(span.older),
        }
        if let Some(older) = self.spans.get_mut(span.older as usize) {
            older.younger = span.younger;
        }
        self.span_mut(index).units = 0;
        self.free.push(index);
        self.live -= 1;
    }

    /// A bid's youngest span within a range and below a lease, parted from what lies outside. Spans of one event
    /// are in one state, so where the range begins and ends is where they were parted when it was decided.
    pub(super) fn next_within(
        &mut self,
        servers: &mut Servers,
        head: Head,
        range: LeaseSpan,
        below: LeaseNumber,
    ) -> Option<u32> {
        let end = range.end().min(below);
        if end <= range.first {
            return None;
        }
        let found = self.of(head).find(|(_, span)| span.first < end && span.leases().end() > range.first);
        let (index, span) = found.map(|(index, span)| (index, span.leases()))?;
        let mut index = index;
        if span.end() > end {
            index = self.part_oldest(servers, index, (end - span.first) as u32);
        }
        if span.first < range.first {
            self.keep_youngest(servers, index, (end.min(span.end()) - range.first) as u32);
        }
        Some(index)
    }

    /// The sum of all digests, worked out anew.
    pub(super) fn sum_from_scratch(&self) -> Sum {
        let mut sum = Sum::default();
        self.all().for_each(|span| sum.add(span.digest()));
        sum
    }
}
