//! How placing, amending and ending change the bids and the books.
//!
//! A bid's units stand in its market's book as lots, one for each place in the queue. Invariant between rounds: the
//! units its lots hold are as many as the units it has won ([`super::bid::Bid::live`]). Where markets clear together its
//! units stand among the coupled ones instead ([`super::coupled`]).

use std::sync::Arc;

use proto::market::{BidNumber, MarketNumber, PlaceBid, Terms};
use proto::{PrincipalId, Timestamp};

use super::Market;
use super::bid::{Bid, Lots, Status};
use super::bounds::PLACES_PER_BID_MAX;
use super::lease::Head;
use crate::book::{Book, BookError, Lot, LotTerms, Place};

impl Market {
    /// A bid stands from now on.
    pub(super) fn bid_placed(
        &mut self,
        number: BidNumber,
        by: &PrincipalId,
        placed: &Arc<PlaceBid>,
        market: MarketNumber,
    ) {
        self.next.bid = self.next.bid.max(number + 1);
        let limit = placed.options.first().map_or(0, |option| option.limit.micros());
        let tenant = self.tenants.enter(&placed.tenant);
        let lots = if placed.on_demand {
            Lots::Ordered
        } else {
            self.lots_for(&placed.options, placed.min_quantity)
        };
        if let Lots::Flexible(flexible) = &lots {
            self.join_together(&flexible.options);
        }
        let place = self.bids.insert(Bid {
            key: placed.key,
            number,
            limit,
            ages: self.next.age,
            expires_at: placed.expires_at,
            version: 1,
            quantity: placed.quantity,
            live: 0,
            leases: Head::default(),
            tenant,
            market,
            status: Status::Standing,
            is_finished: false,
            lots,
            placed: Arc::clone(placed),
            by: by.clone(),
        });
        if placed.on_demand {
            self.next.age += 1;
            self.enter_order(place);
        } else if self.is_coupled(market) {
            self.next.age += 1;
            self.stand_at(place, self.next.age - 1, placed.quantity);
        } else {
            self.join_queue(place, market, limit, placed.quantity, 0);
        }
        if let Some(expires_at) = placed.expires_at {
            self.expiring.insert((expires_at, number));
        }
    }

    /// Puts units of a bid at the end of a market's queue; `held` of them are won already.
    pub(super) fn join_queue(&mut self, place: u32, market: MarketNumber, limit: u64, units: u32, held: u32) {
        let age = self.next.age;
        self.next.age += 1;
        let terms = LotTerms { limit, plain_limit: None, age, units, held };
        if let Some(lot) = self.work(market, |book| book.insert(terms)) {
            self.add_lot(place, market, lot);
        }
    }

    fn add_lot(&mut self, place: u32, market: MarketNumber, lot: Lot) {
        if let Some(record) = self.markets.get_mut(usize::from(market)) {
            record.set_holder(lot, place);
        }
        if let Some(bid) = self.bids.holder(place) {
            bid.lots.push(lot);
        }
    }

    /// Does something to a market's book. What is asked was checked before, so the book refuses nothing.
    #[inline]
    fn work<T>(
        &mut self,
        market: MarketNumber,
        op: impl FnOnce(&mut Book) -> Result<T, BookError>,
    ) -> Option<T> {
        self.soil(market);
        match op(&mut self.markets.get_mut(usize::from(market))?.book) {
            Ok(result) => Some(result),
            Err(error) => {
                self.broke("I7", error.to_string());
                None
            }
        }
    }

    /// A bid has other terms from now on.
    pub(super) fn bid_amended(&mut self, place: u32, version: u32, terms: &Terms, market: MarketNumber) {
        let Some(bid) = self.bids.get(place) else { return };
        let (number, expires_before, market_before, limit_before) =
            (bid.number, bid.expires_at, bid.market, bid.limit);
        let limit = terms.options.first().map_or(0, |option| option.limit.micros());
        if bid.is_order() {
            self.resize_order(place, terms.quantity);
        } else if self.is_amended_together(bid, terms, market) {
            self.amend_together(place, terms, market);
        } else if market_before == market {
            self.shrink(place, terms.quantity);
            if limit > limit_before {
                self.raise(place, limit, terms.quantity);
            } else {
                if limit < limit_before {
                    self.lower(place, limit);
                }
                self.grow(place, limit, terms.quantity);
            }
        } else {
            self.leave_queue(place);
            self.join_queue(place, market, limit, terms.quantity, 0);
        }
        let ages = self.ages(place, market);
        self.bids.change(place, |bid| {
            bid.version = version;
            bid.limit = limit;
            bid.quantity = terms.quantity;
            bid.expires_at = terms.expires_at;
            bid.market = market;
            bid.ages = ages;
        });
        if expires_before != terms.expires_at {
            expires_before.map(|before| self.expiring.remove(&(before, number)));
            terms.expires_at.map(|expires_at| self.expiring.insert((expires_at, number)));
        }
    }

    /// The sum of the ages of a bid's lots.
    fn ages(&self, place: u32, market: MarketNumber) -> u64 {
        let Some((bid, record)) = self.bids.get(place).zip(self.market(market)) else { return 0 };
        if bid.is_order() {
            return bid.ages;
        }
        if record.coupling.is_coupled {
            let places = self.places_at(bid, market);
            return places.iter().fold(0, |sum, &(age, _)| sum.wrapping_add(age));
        }
        let age = |&lot: &Lot| record.book.terms(lot).map_or(0, |terms| terms.age);
        bid.lots.as_slice().iter().map(age).fold(0, u64::wrapping_add)
    }

    /// A bid's lots in its market's book, youngest first, with what they offer.
    fn lots_of(&self, place: u32) -> Vec<(Lot, LotTerms)> {
        let Some(bid) = self.bids.get(place) else { return Vec::new() };
        let Some(record) = self.market(bid.market) else { return Vec::new() };
        let terms = |&lot: &Lot| Some((lot, record.book.terms(lot)?));
        bid.lots.as_slice().iter().rev().filter_map(terms).collect()
    }

    /// Takes units out until `quantity` are left: queued before held, the youngest places first.
    fn shrink(&mut self, place: u32, quantity: u32) {
        let Some(bid) = self.bids.get(place) else { return };
        let excess = bid.quantity.saturating_sub(quantity);
        if excess == 0 {
            return;
        }
        let mut queued = excess.min(bid.quantity - bid.live.min(bid.quantity));
        let mut held = excess - queued;
        for (lot, terms) in self.lots_of(place) {
            let from_queued = queued.min(terms.units - terms.held);
            let from_held = held.min(terms.held);
            queued -= from_queued;
            held -= from_held;
            self.resize(place, lot, terms.units - from_queued - from_held, terms.held - from_held);
        }
    }

    /// Gives a lot other numbers of units; none ends it.
    fn resize(&mut self, place: u32, lot: Lot, units: u32, held: u32) {
        let Some(market) = self.bids.get(place).map(|bid| bid.market) else { return };
        if units > 0 {
            self.work(market, |book| book.resize(lot, units, held));
            return;
        }
        self.work(market, |book| book.remove(lot));
        if let Some(bid) = self.bids.holder(place) {
            bid.lots.remove(lot);
        }
    }

    /// Raises a bid's limit: held units keep their places, queued ones and those added take a new one together.
    fn raise(&mut self, place: u32, limit: u64, quantity: u32) {
        let Some((market, lots, before)) =
            self.bids.get(place).map(|bid| (bid.market, bid.lots.clone(), bid.quantity))
        else {
            return;
        };
        // Nearly every bid has one lot and wants as much as before: the book does that in one step.
        if let (Lots::One(lot), true) = (&lots, quantity <= before) {
            self.raise_lot(place, market, *lot, limit);
            return;
        }
        let mut queued = 0;
        for (lot, terms) in self.lots_of(place) {
            queued += terms.units - terms.held;
            self.resize(place, lot, terms.held, terms.held);
            if terms.held > 0 {
                self.work(market, |book| book.relimit(lot, limit, None, Place::Keep));
            }
        }
        queued += quantity.saturating_sub(before);
        if queued > 0 {
            self.add_units(place, market, limit, queued);
        }
    }

    fn raise_lot(&mut self, place: u32, market: MarketNumber, lot: Lot, limit: u64) {
        let terms = self.market(market).and_then(|record| record.book.terms(lot));
        let whither = if terms.is_some_and(|terms| terms.held == terms.units) {
            Place::Keep
        } else {
            self.next.age += 1;
            Place::New(self.next.age - 1)
        };
        if let Some(Some(parted)) = self.work(market, |book| book.relimit(lot, limit, None, whither)) {
            self.add_lot(place, market, parted);
        }
    }

    /// Lowers a bid's limit; every unit keeps its place.
    fn lower(&mut self, place: u32, limit: u64) {
        let Some((market, lots)) = self.bids.get(place).map(|bid| (bid.market, bid.lots.clone())) else {
            return;
        };
        for &lot in lots.as_slice() {
            self.work(market, |book| book.relimit(lot, limit, None, Place::Keep));
        }
    }

    /// Adds units up to `quantity`.
    fn grow(&mut self, place: u32, limit: u64, quantity: u32) {
        let Some((market, before)) = self.bids.get(place).map(|bid| (bid.market, bid.quantity)) else {
            return;
        };
        if quantity > before {
            self.add_units(place, market, limit, quantity - before);
        }
    }

    /// Puts added units at the end of the queue, along with the bid's youngest place where it has too many.
    fn add_units(&mut self, place: u32, market: MarketNumber, limit: u64, units: u32) {
        let mut added = (units, 0);
        let lots = self.bids.get(place).map(|bid| bid.lots.clone()).unwrap_or_default();
        if let (Some(&youngest), true) = (lots.as_slice().last(), lots.as_slice().len() >= PLACES_PER_BID_MAX)
        {
            let terms = self.market(market).and_then(|record| record.book.terms(youngest));
            added = terms.map_or(added, |terms| (units + terms.units, terms.held));
            self.resize(place, youngest, 0, 0);
        }
        self.join_queue(place, market, limit, added.0, added.1);
    }

    /// Takes all of a bid's units out of the queue.
    pub(super) fn leave_queue(&mut self, place: u32) {
        let Some(bid) = self.bids.get(place) else { return };
        if bid.is_order() {
            return self.leave_orders(place);
        }
        if self.stands_coupled(bid) {
            return self.leave_together(place);
        }
        let Some(bid) = self.bids.holder(place) else { return };
        let (market, lots) = (bid.market, std::mem::take(&mut bid.lots));
        for &lot in lots.as_slice() {
            self.work(market, |book| book.remove(lot));
        }
    }

    /// A bid is over: it wants nothing any more. Its leases leave on their own.
    pub(super) fn bid_ended(&mut self, at: Timestamp, place: u32, status: Status) {
        self.leave_queue(place);
        let ended = self.bids.change(place, |bid| {
            bid.status = status;
            bid.ages = 0;
            (bid.tenant, bid.expires_at.map(|expires_at| (expires_at, bid.number)))
        });
        let Some((tenant, expiry)) = ended else { return };
        if let Some((number, flexible)) = self.bids.get(place).map(|bid| (bid.number, bid.flexible())) {
            let options = flexible.map(|flexible| flexible.options.clone()).unwrap_or_default();
            self.part_again(&options);
            self.passed_over.set(number, 0);
        }
        self.tenants.ended(tenant);
        expiry.map(|expiry| self.expiring.remove(&expiry));
        self.note_finished(at, place);
    }

    /// Takes away units that were won and whose servers died: they queue again at their places.
    pub(super) fn unhold(&mut self, place: u32, units: u32) {
        let Some(bid) = self.bids.get(place) else { return };
        if bid.is_order() {
            return self.soil(bid.market);
        }
        if self.stands_coupled(bid) {
            // Its leases say how many it still holds.
            let markets: Vec<MarketNumber> = bid.options().map(|option| option.market).collect();
            return markets.into_iter().for_each(|market| self.soil(market));
        }
        let mut left = units;
        for (lot, terms) in self.lots_of(place) {
            let dropped = left.min(terms.held);
            if dropped > 0 {
                left -= dropped;
                self.resize(place, lot, terms.units, terms.held - dropped);
            }
        }
    }

    /// The units of a bid that stand in the queue, for [`Market::check_all`].
    pub(super) fn units_standing(&self, bid: &Bid) -> u32 {
        self.places_of(bid).iter().map(|&(_, units)| units).sum()
    }
}
