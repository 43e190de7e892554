//! Markets that clear together: those that a flexible bid names, one with several options, a minimum or a running limit.
//!
//! What counts is kept here and in the bids: the places in the queue, by age and units. Who of a bid's units is an
//! incumbent, and where, its leases say; the oldest are. Everything that the joint clearing works with
//! ([`lots`]) is worked out from that before a round ([`clearing`]), so reading events back needs none of it.

mod amend;
mod clearing;
mod lots;
mod passed;

use std::collections::{BTreeMap, BTreeSet};

use proto::market::{BidNumber, MarketNumber, RoundNumber};

use super::Market;
use super::bid::{Bid, Choice, Lots};
use super::digest::{Kind, Sum, digest};
use crate::book::{Book, Lot, LotTerms};
use clearing::Clearing;
pub(super) use passed::PassedOver;

/// A market that no flexible bid names any more goes back to a book of its own when it has waited for a round for each
/// so many coupled places: so bids that come and go make nobody move a large market twice.
const PLACES_PER_IDLE_ROUND: usize = 64;

/// How a market clears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Coupling {
    /// Whether it clears together with others.
    pub(super) is_coupled: bool,
    /// Flexible bids that stand and name it.
    pub(super) flexible: u32,
    /// The last round when the last flexible bid went.
    pub(super) idle_since: Option<RoundNumber>,
    /// Units of all bids that name it, and their places, while it is coupled.
    pub(super) wanted: u64,
    pub(super) places: u32,
}

/// Units of a bid that took their place in the queue together.
#[derive(Clone, Copy, Debug)]
struct Place {
    bid: u32,
    number: BidNumber,
    age: u64,
    /// None: the record is free.
    units: u32,
}

impl Place {
    const fn digest(&self) -> u128 {
        digest(Kind::Place, [self.number, self.age, self.units as u64, 0])
    }
}

/// What stands in coupled markets.
#[derive(Clone, Debug, Default)]
pub(super) struct Coupled {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Bids with a minimum, with their places among the bids.
    gangs: BTreeMap<BidNumber, u32>,
    pub(super) sum: Sum,
    clearing: Clearing,
}

impl Coupled {
    fn place(&self, lot: Lot) -> Option<&Place> {
        self.places.get(lot.0 as usize).filter(|place| place.units > 0)
    }

    fn insert(&mut self, place: Place) -> Lot {
        self.sum.add(place.digest());
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(place);
            self.places.len() as u32 - 1
        });
        self.places[index as usize] = place;
        Lot(index)
    }

    fn remove(&mut self, lot: Lot) {
        let Some(place) = self.places.get_mut(lot.0 as usize).filter(|place| place.units > 0) else { return };
        self.sum.remove(place.digest());
        place.units = 0;
        self.free.push(lot.0);
        self.clearing.let_go(lot);
    }

    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn sum_from_scratch(&self) -> Sum {
        let mut sum = Sum::default();
        self.places.iter().filter(|place| place.units > 0).for_each(|place| sum.add(place.digest()));
        sum
    }
}

impl Market {
    pub(super) fn is_coupled(&self, market: MarketNumber) -> bool {
        self.market(market).is_some_and(|record| record.coupling.is_coupled)
    }

    /// Whether a bid's units stand among the coupled ones.
    #[inline]
    pub(super) fn stands_coupled(&self, bid: &Bid) -> bool {
        !bid.is_order() && self.is_coupled(bid.market)
    }

    /// A bid's places in the queue, oldest first: age and units.
    pub(super) fn places_of(&self, bid: &Bid) -> Vec<(u64, u32)> {
        self.places_at(bid, bid.market)
    }

    /// As [`Market::places_of`], of a bid whose units stand in a market that it is not said to name first yet.
    pub(super) fn places_at(&self, bid: &Bid, market: MarketNumber) -> Vec<(u64, u32)> {
        if bid.is_order() {
            return if bid.stands() { vec![(bid.ages, bid.quantity)] } else { Vec::new() };
        }
        let lots = bid.lots.as_slice().iter();
        if self.is_coupled(market) {
            return lots.filter_map(|&lot| self.coupled.place(lot)).map(|at| (at.age, at.units)).collect();
        }
        let Some(record) = self.market(market) else { return Vec::new() };
        lots.filter_map(|&lot| record.book.terms(lot)).map(|terms| (terms.age, terms.units)).collect()
    }

    /// Flexible bids with these options stand from now on: their markets clear together.
    pub(super) fn join_together(&mut self, options: &[Choice]) {
        for option in options {
            self.couple(option.market);
            if let Some(record) = self.markets.get_mut(usize::from(option.market)) {
                record.coupling.flexible += 1;
                record.coupling.idle_since = None;
            }
            self.soil(option.market);
        }
    }

    /// A flexible bid with these options stands no more.
    pub(super) fn part_again(&mut self, options: &[Choice]) {
        let round = self.next.round;
        for option in options {
            if let Some(record) = self.markets.get_mut(usize::from(option.market)) {
                record.coupling.flexible -= 1;
                if record.coupling.flexible == 0 {
                    record.coupling.idle_since = Some(round);
                }
            }
            self.soil(option.market);
        }
    }

    /// Puts units of a bid at a place in the queues of its coupled markets.
    pub(super) fn stand_at(&mut self, place: u32, age: u64, units: u32) {
        let Some(bid) = self.bids.get(place) else { return };
        let (number, is_gang) = (bid.number, bid.minimum() > 1);
        let markets: Vec<MarketNumber> = bid.options().map(|option| option.market).collect();
        let lot = self.coupled.insert(Place { bid: place, number, age, units });
        if is_gang {
            self.coupled.gangs.insert(number, place);
        }
        if let Some(bid) = self.bids.holder(place) {
            bid.lots.push(lot);
        }
        self.count_units(&markets, i64::from(units), 1);
        self.leases.touch(place);
    }

    /// Takes all of a bid's units out of the queues of its coupled markets.
    pub(super) fn leave_together(&mut self, place: u32) {
        let Some(bid) = self.bids.get(place) else { return };
        let (number, units) = (bid.number, self.places_of(bid).iter().map(|&(_, units)| units).sum::<u32>());
        let markets: Vec<MarketNumber> = bid.options().map(|option| option.market).collect();
        let lots = self.bids.holder(place).map(|bid| bid.lots.take()).unwrap_or_default();
        self.coupled.gangs.remove(&number);
        for &lot in &lots {
            self.coupled.remove(lot);
        }
        self.count_units(&markets, -i64::from(units), -(lots.len() as i32));
        self.leases.touch(place);
    }

    fn count_units(&mut self, markets: &[MarketNumber], units: i64, places: i32) {
        for &market in markets {
            if let Some(record) = self.markets.get_mut(usize::from(market)) {
                let coupling = &mut record.coupling;
                coupling.wanted = coupling.wanted.saturating_add_signed(units);
                coupling.places = coupling.places.saturating_add_signed(places);
            }
            self.soil(market);
        }
    }

    /// Lets a market clear together with others: its book's lots become coupled places.
    pub(super) fn couple(&mut self, market: MarketNumber) {
        self.leases.touched.get_or_insert_default();
        let rule = self.rules.price_rule;
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        if record.coupling.is_coupled {
            return;
        }
        let (ladder, reserve) = (record.settings.ladder.clone(), record.settings.reserve);
        let empty = match Book::load(ladder, reserve, rule, record.auctioned(), &[]) {
            Ok(empty) => empty,
            Err(error) => return self.broke("I7", error.to_string()),
        };
        let book = std::mem::replace(&mut record.book, empty);
        record.coupling = Coupling {
            is_coupled: true,
            wanted: u64::from(book.demand()),
            places: book.len(),
            ..Coupling::default()
        };
        let mut numbers: Vec<Lot> = Vec::new();
        let mut holders = BTreeSet::new();
        for (lot, LotTerms { age, units, .. }) in book.lots() {
            let place = self.markets.get(usize::from(market)).map_or(u32::MAX, |record| record.holder(lot));
            let Some(bid) = self.bids.get(place) else { continue };
            let coupled = self.coupled.insert(Place { bid: place, number: bid.number, age, units });
            if numbers.len() <= lot.0 as usize {
                numbers.resize(lot.0 as usize + 1, Lot(u32::MAX));
            }
            numbers[lot.0 as usize] = coupled;
            holders.insert(place);
        }
        for place in holders {
            if let Some(bid) = self.bids.holder(place) {
                bid.lots.renumber(|lot| numbers.get(lot.0 as usize).copied().unwrap_or(Lot(u32::MAX)));
            }
            self.leases.touch(place);
        }
    }

    /// Lets markets go back to books of their own that no flexible bid has named for long enough. Done when a round is
    /// over: then who holds and who wins are the same.
    pub(super) fn decouple_idle(&mut self) {
        let patience = (self.coupled.len() / PLACES_PER_IDLE_ROUND) as u64;
        let round = self.next.round;
        let is_idle = |coupling: &Coupling| coupling.idle_since.is_some_and(|since| round - since > patience);
        let idle: Vec<MarketNumber> = self
            .markets
            .iter()
            .filter(|record| is_idle(&record.coupling))
            .map(|record| record.number)
            .collect();
        for market in idle {
            self.decouple(market);
        }
        if self.leases.touched.is_some() && !self.markets.iter().any(|record| record.coupling.is_coupled) {
            self.leases.touched = None;
            self.coupled = Coupled::default();
        }
    }

    fn decouple(&mut self, market: MarketNumber) {
        let mut lots: Vec<(Lot, LotTerms, u32)> = Vec::new();
        let mut bids = BTreeSet::new();
        for (index, at) in self.coupled.places.iter().enumerate().filter(|(_, at)| at.units > 0) {
            let Some(bid) = self.bids.get(at.bid).filter(|bid| bid.market == market) else { continue };
            let terms =
                LotTerms { limit: bid.limit, plain_limit: None, age: at.age, units: at.units, held: 0 };
            lots.push((Lot(index as u32), terms, at.bid));
            bids.insert(at.bid);
        }
        lots.sort_unstable_by_key(|(_, terms, _)| terms.age);
        let mut live: BTreeMap<u32, u32> = BTreeMap::new();
        for (_, terms, place) in &mut lots {
            let bid = self.bids.get(*place);
            let left = live.entry(*place).or_insert_with(|| bid.map_or(0, |bid| bid.live));
            terms.held = terms.units.min(*left);
            *left -= terms.held;
        }
        let terms: Vec<LotTerms> = lots.iter().map(|&(_, terms, _)| terms).collect();
        let rule = self.rules.price_rule;
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        let (ladder, reserve) = (record.settings.ladder.clone(), record.settings.reserve);
        match Book::load(ladder, reserve, rule, record.auctioned(), &terms) {
            Ok(book) => record.book = book,
            Err(error) => return self.broke("I7", error.to_string()),
        }
        record.coupling = Coupling::default();
        let mut numbers: BTreeMap<Lot, Lot> = BTreeMap::new();
        for (number, &(coupled, _, place)) in lots.iter().enumerate() {
            let lot = Lot(number as u32);
            record.set_holder(lot, place);
            numbers.insert(coupled, lot);
        }
        for place in bids {
            if let Some(bid) = self.bids.holder(place) {
                bid.lots.renumber(|lot| numbers.get(&lot).copied().unwrap_or(lot));
            }
        }
        for (coupled, ..) in lots {
            self.coupled.remove(coupled);
        }
        self.soil(market);
    }

    /// In a round, coupled markets are all looked at if one of them is.
    pub(super) fn soil_coupled(&mut self) {
        if self.leases.touched.is_none() {
            return;
        }
        if !self.dirty.iter().any(|&market| self.is_coupled(market)) {
            return;
        }
        for number in 0..self.markets.len() as MarketNumber {
            if self.is_coupled(number) {
                self.soil(number);
            }
        }
    }

    /// Lets the next joint clearing look at every bid in coupled markets, and makes that round come.
    pub(super) fn touch_coupled(&mut self) {
        if self.leases.touched.is_none() {
            return;
        }
        let bids: BTreeSet<u32> =
            self.coupled.places.iter().filter(|at| at.units > 0).map(|at| at.bid).collect();
        for bid in bids {
            self.leases.touch(bid);
        }
        for number in 0..self.markets.len() as MarketNumber {
            if self.is_coupled(number) {
                self.soil(number);
            }
        }
    }

    /// Sets what a bid says besides its first option, or that it says nothing. Its units stand nowhere meanwhile.
    pub(super) fn set_flexible(&mut self, place: u32, lots: Lots) {
        if let Some(flexible) =
            self.bids.get(place).and_then(Bid::flexible).map(|known| known.options.clone())
        {
            self.part_again(&flexible);
        }
        self.bids.change(place, |bid| bid.lots = lots);
        if let Some(flexible) =
            self.bids.get(place).and_then(Bid::flexible).map(|known| known.options.clone())
        {
            self.join_together(&flexible);
        }
    }
}
