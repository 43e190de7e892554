//! The leases of one bid, as few spans of like ones.

use std::collections::BTreeMap;
use std::ops::Range;

use proto::market::{LeaseNumber, LeaseSpan, LossReason, MarketNumber, RoundNumber};
use proto::{Price, Timestamp};
use serde::{Deserialize, Serialize};

use super::json::LeaseState;
use super::raw;

/// Why and until when a lease is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaving {
    #[serde(with = "raw::instant")]
    pub(super) gone_at: Timestamp,
    pub(super) reason: LossReason,
    pub(super) round: RoundNumber,
    #[serde(with = "raw::price_option")]
    pub(super) kept_by: Option<Price>,
}

/// What is known of leases' workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Worker {
    Booting,
    Ready,
    Dead,
}

/// Consecutive leases of which the same holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    first: LeaseNumber,
    units: u32,
    pub(super) market: MarketNumber,
    /// The round that awarded them.
    pub(super) round: RoundNumber,
    /// When a server is there at the latest; none where one was free at the award.
    #[serde(with = "raw::instant_option")]
    pub(super) available_by: Option<Timestamp>,
    pub(super) leaving: Option<Leaving>,
    worker: Worker,
}

impl Span {
    /// How far the leases are at an instant.
    pub(super) fn state(&self, at: Timestamp) -> LeaseState {
        let waits = self.available_by.is_some_and(|available_by| available_by > at);
        match (self.leaving, self.worker) {
            (Some(_), _) => LeaseState::Leaving,
            (None, Worker::Ready) => LeaseState::Ready,
            (None, Worker::Dead) => LeaseState::WorkerDead,
            (None, Worker::Booting) if waits => LeaseState::Granted,
            (None, Worker::Booting) => LeaseState::Provisioning,
        }
    }

    pub(super) const fn leases(&self) -> LeaseSpan {
        LeaseSpan { first: self.first, units: self.units }
    }

    /// Whether `next` follows without a gap and the same holds of it.
    fn goes_on_in(&self, next: &Self) -> bool {
        let joined = Self { first: next.first, units: next.units, ..*self };
        self.leases().end() == next.first && joined == *next && self.units.checked_add(next.units).is_some()
    }
}

/// Spans by number, with the sums that everybody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leases {
    spans: Vec<Span>,
    winning: u32,
    leaving: u32,
}

impl Leases {
    /// Units awarded and not under notice.
    pub(super) const fn winning(&self) -> u32 {
        self.winning
    }

    /// Units under notice.
    pub(super) const fn leaving(&self) -> u32 {
        self.leaving
    }

    /// All of them, by number.
    pub(super) fn spans(&self) -> impl ExactSizeIterator<Item = &Span> {
        self.spans.iter()
    }

    /// Winning units of each market that has some.
    pub(super) fn winning_by_market(&self) -> BTreeMap<MarketNumber, u32> {
        let mut sums = BTreeMap::new();
        for span in self.spans.iter().filter(|span| span.leaving.is_none()) {
            *sums.entry(span.market).or_default() += span.units;
        }
        sums
    }

    /// Adds new leases; says by how many units the winning ones grew.
    pub(super) fn award(
        &mut self,
        leases: LeaseSpan,
        market: MarketNumber,
        round: RoundNumber,
        available_by: Option<Timestamp>,
    ) -> i64 {
        let LeaseSpan { first, units } = leases;
        if units == 0 {
            return 0;
        }
        let place = self.spans.partition_point(|span| span.first < first);
        // Nearly every bid has one span for ever; left to itself the list would begin with room for four.
        if self.spans.is_empty() {
            self.spans.reserve_exact(1);
        }
        let worker = Worker::Booting;
        self.spans.insert(place, Span { first, units, market, round, available_by, leaving: None, worker });
        self.join(place..place + 1);
        self.winning += units;
        i64::from(units)
    }

    /// Puts leases under notice, or under another one; says by how many units the winning ones grew.
    pub(super) fn leave(&mut self, leases: LeaseSpan, leaving: Leaving) -> i64 {
        self.change(leases, |span| span.leaving = Some(leaving))
    }

    /// Takes leases back from under their notice; says by how many units the winning ones grew.
    pub(super) fn stay(&mut self, leases: LeaseSpan) -> i64 {
        self.change(leases, |span| span.leaving = None)
    }

    /// Moves the instant by which leases have a server.
    pub(super) fn delay(&mut self, leases: LeaseSpan, available_by: Timestamp) {
        self.change(leases, |span| span.available_by = Some(available_by));
    }

    /// Says of leases what became of their workers.
    pub(super) fn set_worker(&mut self, leases: LeaseSpan, worker: Worker) {
        self.change(leases, |span| {
            span.worker = worker;
            // Who has a worker does not wait for a server.
            span.available_by = None;
        });
    }

    /// Removes leases; says by how many units the winning ones grew.
    pub(super) fn release(&mut self, leases: LeaseSpan) -> i64 {
        let places = self.split(leases);
        let before = self.winning;
        for span in self.spans.drain(places) {
            if span.leaving.is_some() {
                self.leaving -= span.units;
            } else {
                self.winning -= span.units;
            }
        }
        i64::from(self.winning) - i64::from(before)
    }

    fn change(&mut self, leases: LeaseSpan, mut change: impl FnMut(&mut Span)) -> i64 {
        let places = self.split(leases);
        let before = self.winning;
        for span in &mut self.spans[places.clone()] {
            let was_leaving = span.leaving.is_some();
            change(span);
            match (was_leaving, span.leaving.is_some()) {
                (false, true) => {
                    self.winning -= span.units;
                    self.leaving += span.units;
                }
                (true, false) => {
                    self.leaving -= span.units;
                    self.winning += span.units;
                }
                _ => {}
            }
        }
        self.join(places);
        i64::from(self.winning) - i64::from(before)
    }

    /// Cuts spans so that `leases` begins and ends at cuts; gives the places of those within it.
    fn split(&mut self, leases: LeaseSpan) -> Range<usize> {
        let start = self.cut(leases.first);
        let end = self.cut(leases.end());
        start..end.max(start)
    }

    /// Cuts the span that `lease` is within; gives the place of the first span that does not begin before it.
    fn cut(&mut self, lease: LeaseNumber) -> usize {
        let place = self.spans.partition_point(|span| span.first < lease);
        let Some(span) = place.checked_sub(1).and_then(|before| self.spans.get_mut(before)) else {
            return place;
        };
        if lease < span.leases().end() {
            let units = (lease - span.first) as u32;
            let rest = Span { first: lease, units: span.units - units, ..*span };
            span.units = units;
            self.spans.insert(place, rest);
        }
        place
    }

    /// Joins spans at and around the places where they are alike, so that notices given and withdrawn leave no
    /// trace and the number of spans stays small.
    fn join(&mut self, places: Range<usize>) {
        let first = places.start.saturating_sub(1);
        let last = (places.end + 1).min(self.spans.len());
        let mut place = first;
        for _ in first + 1..last {
            let (here, next) = (self.spans[place], self.spans[place + 1]);
            if here.goes_on_in(&next) {
                self.spans[place].units += next.units;
                self.spans.remove(place + 1);
            } else {
                place += 1;
            }
        }
    }
}
