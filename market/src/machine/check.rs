//! What must hold in every state (DESIGN §11), and in what is kept beside the state to be fast.

use std::collections::{BTreeMap, BTreeSet};

use proto::machine::Broken;
use proto::market::{MarketNumber, PriceRule};
use proto::{Price, Timestamp};

use super::Market;
use super::bid::Bid;
use super::digest::Sum;
use super::lease::{Stand, Worker};
use super::record::{MarketRecord, digest_of_source};
use super::rules::digest_of;

/// Fails unless something holds.
pub(super) fn hold(
    holds: bool,
    invariant: &'static str,
    details: impl FnOnce() -> String,
) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { invariant, details: details() }) }
}

#[allow(clippy::needless_pass_by_value)] // what is compared is nearly always a number
pub(super) fn same<T: PartialEq + std::fmt::Debug>(
    invariant: &'static str,
    what: &str,
    kept: T,
    anew: T,
) -> Result<(), Broken> {
    hold(kept == anew, invariant, || format!("{what} is kept as {kept:?} and is {anew:?}"))
}

/// One unit in a book, in the order in which units win: highest limit, held before queued, older before younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Unit {
    limit: std::cmp::Reverse<u64>,
    is_queued: bool,
    age: u64,
    lot: u32,
}

impl Market {
    /// What is cheap: a look at every market, none at bids.
    pub(super) fn check_markets(&self) -> Result<(), Broken> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        for record in &self.markets {
            let is_coupled = record.coupling.is_coupled;
            let (servers, name) = (&record.servers, &record.id);
            let (usable, on_demand) = (record.usable(), record.on_demand());
            // What is won in coupled markets only leases say.
            let sold = if is_coupled { servers.live().saturating_sub(on_demand) } else { record.book.sold() };
            // Between rounds the book still holds what the last one gave.
            hold(record.is_dirty || sold + on_demand <= usable, "I2", || {
                format!("{name} sells {sold} of {usable} servers beside {on_demand} on demand")
            })?;
            let occupied = servers.occupied();
            hold(servers.waiting() == 0 || occupied >= usable, "I2", || {
                let waiting = servers.waiting();
                format!("{waiting} units wait in {name} while {occupied} of {usable} servers are occupied")
            })?;
            if !record.is_dirty {
                same("I2", &format!("units won in {name}"), servers.live(), sold + on_demand)?;
                let told = record.told.unwrap_or_default();
                if is_coupled {
                    let kept = (told.sold, told.supply, told.wanted, told.reserve, told.on_demand);
                    let (wanted, reserve) = (record.coupling.wanted, record.settings.reserve);
                    let anew = (sold, record.auctioned(), wanted, reserve, on_demand);
                    same("I3", &format!("figures of {name}"), kept, anew)?;
                } else {
                    same("I3", &format!("figures of {name}"), record.told, Some(record.figures()))?;
                }
            }
            let price = record.told.and_then(|told| told.price).map(Price::micros);
            let reserve = record.settings.reserve.micros();
            hold(record.is_dirty || price.is_none_or(|price| price >= reserve), "I4", || {
                format!("{name} sells at {price:?}, reserve {reserve}")
            })?;
        }
        Ok(())
    }

    /// Everything, worked out anew.
    pub(super) fn check_all(&self) -> Result<(), Broken> {
        self.check_markets()?;
        self.check_digests()?;
        self.check_bids()?;
        self.check_leases()?;
        self.check_timers()?;
        self.check_coupled().map_err(|details| Broken { invariant: "I3", details })?;
        for record in &self.markets {
            self.check_market(record)?;
        }
        Ok(())
    }

    fn check_digests(&self) -> Result<(), Broken> {
        same("I7", "the digest of bids", self.bids.sum, self.bids.sum_from_scratch())?;
        same("I7", "the digest of leases", self.leases.sum, self.leases.sum_from_scratch())?;
        same("I7", "the digest of rules", self.rules_digest, digest_of(&self.rules))?;
        same("I7", "the digest of trust", self.trusted.digest(), self.trusted.digest_from_scratch())?;
        let coupled = self.coupled.sum_from_scratch();
        same("I7", "the digest of coupled places", self.coupled.sum, coupled)?;
        let (mut entries, mut sealed) = (Sum::default(), Sum::default());
        for record in &self.markets {
            for (id, source) in &record.sources {
                entries.add(digest_of_source(record.number, id, source));
            }
            sealed.add(record.sealed);
            let digest = if record.is_dirty { record.sealed } else { record.digest() };
            same("I7", "the digest of a market", record.sealed, digest)?;
            same(
                "I7",
                "the digest of a book",
                record.book.content_hash(),
                record.book.content_hash_from_scratch(),
            )?;
            let is_listed = self.dirty.contains(&record.number);
            same("I3", "whether a market changed since the last round", record.is_dirty, is_listed)?;
        }
        let is_soiled = self.next.soiled_at.is_some();
        same("I3", "whether a round is to come", is_soiled, !self.dirty.is_empty())?;
        same("I7", "the digest of sources", self.entries, entries)?;
        same("I7", "the digest of markets", self.sealed, sealed)
    }

    fn check_bids(&self) -> Result<(), Broken> {
        let mut by_tenant: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        let (mut standing, mut known) = (0, 0);
        for (place, bid) in self.bids.all() {
            known += 1;
            standing += u32::from(bid.stands());
            let tenant = by_tenant.entry(bid.tenant).or_default();
            *tenant = (tenant.0 + u32::from(bid.stands()), tenant.1 + 1);
            same("I1", "a bid's place by number", Some(place), self.bids.numbered(bid.number))?;
            same(
                "I1",
                "a bid's place by name",
                Some(place),
                self.bids.named(bid.key).and_then(|known| known.place),
            )?;
            hold(bid.number < self.next.bid, "I6", || format!("bid {} is not numbered yet", bid.number))?;
            self.check_bid(place, bid)?;
        }
        same("I1", "bids that stand", self.bids.standing(), standing)?;
        same("I1", "bids that are known", self.bids.known(), known + self.bids.finished().len())?;
        for (place, counts) in by_tenant {
            let tenant = self.tenants.get(place);
            same(
                "I1",
                "a tenant's bids",
                tenant.map(|tenant| (tenant.standing, tenant.known)),
                Some(counts),
            )?;
            let named = tenant.and_then(|tenant| self.tenants.named(&tenant.id));
            same("I1", "a tenant's place by name", named, Some(place))?;
        }
        Ok(())
    }

    fn check_bid(&self, place: u32, bid: &Bid) -> Result<(), Broken> {
        let number = bid.number;
        let live: u32 = self
            .leases
            .of(bid.leases)
            .filter(|(_, span)| span.stand.is_live())
            .map(|(_, span)| span.units)
            .sum();
        same("I2", &format!("units won by bid {number}"), bid.live, live)?;
        let places = self.places_of(bid);
        if !bid.is_order() {
            same("I7", "a bid's lots", places.len(), bid.lots.as_slice().len())?;
        }
        let units = if bid.stands() { bid.quantity } else { 0 };
        same("I2", &format!("units that stand of bid {number}"), self.units_standing(bid), units)?;
        let ages = places.iter().fold(0_u64, |sum, &(age, _)| sum.wrapping_add(age));
        same("I7", "a bid's ages", bid.ages, ages)?;
        let is_sorted = places.is_sorted_by_key(|&(age, _)| age);
        hold(is_sorted, "I7", || format!("lots of bid {number} are out of order"))?;
        let is_given = places.iter().all(|&(age, _)| age < self.next.age);
        hold(is_given, "I6", || format!("bid {number} has a place that is not given yet"))?;
        if bid.is_order() {
            self.check_standing_order(place, bid)?;
        } else if self.stands_coupled(bid) {
            self.check_coupled_bid(bid)?;
        } else {
            self.check_lots(place, bid, live)?;
        }
        let mut younger = self.next.lease;
        for (_, span) in self.leases.of(bid.leases) {
            same("I7", "a lease's bid", (span.number, span.bid), (number, place))?;
            hold(span.leases().end() <= younger, "I2", || format!("leases of bid {number} overlap"))?;
            younger = span.first;
            let is_here = bid.limit_in(span.market).is_some() || !span.stand.is_live();
            hold(is_here, "I2", || format!("bid {number} holds leases outside its markets"))?;
            let holder = self.leases.holder(span.first);
            same("I7", "a lease's holder", holder, Some(place))?;
        }
        Ok(())
    }

    /// What a bid's lots in its market's book say is what its leases say: the oldest units are held.
    fn check_lots(&self, place: u32, bid: &Bid, live: u32) -> Result<(), Broken> {
        let number = bid.number;
        let Some(record) = self.market(bid.market) else {
            return hold(false, "I2", || format!("bid {number} is in no market"));
        };
        let mut left = live;
        for &lot in bid.lots.as_slice() {
            let Some(terms) = record.book.terms(lot) else { continue };
            same("I7", "a lot's bid", record.holder(lot), place)?;
            same("I7", &format!("limit of bid {number}"), terms.limit, bid.limit)?;
            let held = terms.units.min(left);
            left -= held;
            same("I2", &format!("units held in a lot of bid {number}"), terms.held, held)?;
        }
        same("I2", &format!("units held in the book by bid {number} besides"), left, 0)
    }

    /// Who wins in coupled markets pays no more than what a unit is worth to it, and a gang has its minimum or nothing.
    fn check_coupled_bid(&self, bid: &Bid) -> Result<(), Broken> {
        let number = bid.number;
        let is_settled = |market| self.market(market).is_some_and(|record| !record.is_dirty);
        if !bid.options().all(|option| is_settled(option.market)) {
            return Ok(());
        }
        if bid.minimum() > 1 {
            let is_whole = bid.live == 0 || bid.live >= bid.minimum();
            return hold(is_whole, "I2", || format!("gang {number} has {} of {}", bid.live, bid.minimum()));
        }
        for (_, span) in self.leases.of(bid.leases).filter(|(_, span)| span.stand.is_live()) {
            let worth = bid.options().find(|option| option.market == span.market);
            let worth = worth.map_or(0, |option| option.running_limit);
            let told = self.market(span.market).and_then(|record| record.told);
            let price = told.and_then(|told| told.price).map_or(0, Price::micros);
            hold(price <= worth, "I4", || {
                format!("bid {number} pays {price} for what is worth {worth} to it")
            })?;
        }
        Ok(())
    }

    fn check_leases(&self) -> Result<(), Broken> {
        let mut spans: Vec<_> = self.leases.all().collect();
        spans.sort_unstable_by_key(|span| span.first);
        let overlap = spans.windows(2).find(|pair| pair[0].leases().end() > pair[1].first);
        hold(overlap.is_none(), "I2", || format!("two bids have the same lease: {overlap:?}"))?;
        for record in &self.markets {
            let (mut served, mut waiting, mut leaving) = (0, 0, 0);
            let mut line = Vec::new();
            for span in spans.iter().filter(|span| span.market == record.number) {
                match span.stand {
                    Stand::Served => served += span.units,
                    Stand::Waiting => {
                        waiting += span.units;
                        line.push(span.first);
                    }
                    Stand::Leaving(_) => leaving += span.units,
                }
            }
            let servers = &record.servers;
            let kept = (servers.occupied(), servers.waiting(), servers.leaving());
            same("I2", &format!("servers of {}", record.id), kept, (served + leaving, waiting, leaving))?;
            let mut in_line = Vec::new();
            let mut index = servers.first_in_line();
            while index != super::lease::NONE {
                in_line.push(self.leases.span(index).first);
                index = self.leases.span(index).behind;
            }
            same("I2", &format!("the line in {}", record.id), in_line, line)?;
            let fault = servers.fault(&self.leases);
            hold(fault.is_none(), "I2", || {
                format!("beside the line in {}: {}", record.id, fault.unwrap_or_default())
            })?;
        }
        Ok(())
    }

    fn check_timers(&self) -> Result<(), Broken> {
        let mut departing: BTreeMap<MarketNumber, Timestamp> = BTreeMap::new();
        let rules = &self.rules;
        let allowed = |seconds: u32, since: Timestamp| (seconds > 0).then(|| since.plus_seconds(seconds));
        for span in self.leases.all() {
            let due = match (span.stand, span.worker) {
                (Stand::Leaving(_), _) => Some(span.until),
                (Stand::Served, Worker::Booting) => allowed(rules.provisioning_seconds_max, span.until),
                (Stand::Served, Worker::Dead) => allowed(rules.dead_seconds_max, span.until),
                (Stand::Served | Stand::Waiting, _) => None,
            };
            if let Some(due) = due {
                let first = departing.entry(span.market).or_insert(due);
                *first = due.min(*first);
            }
        }
        let departing: BTreeSet<_> = departing.into_iter().map(|(market, at)| (at, market)).collect();
        same("I8", "timers of notices", &self.departing, &departing)?;
        let shaken = self.markets.iter().filter(|record| record.is_shaken).map(|record| record.number);
        same("I8", "markets with delays to tell", &self.shaken, &shaken.collect())?;
        let standing = self.bids.all().filter(|(_, bid)| bid.stands());
        let expiring: BTreeSet<_> =
            standing.filter_map(|(_, bid)| Some((bid.expires_at?, bid.number))).collect();
        same("I1", "timers of bids", &self.expiring, &expiring)?;
        let over = |bid: &Bid| !bid.stands() && self.leases.of(bid.leases).next().is_none();
        let over = self.bids.all().find(|(_, bid)| over(bid)).map(|(_, bid)| bid.number);
        hold(over.is_none(), "I1", || format!("bid {over:?} is over and not finished"))?;
        let finished = self.bids.finished();
        for tomb in finished {
            let known = self.bids.named(tomb.key).map(|known| (known.status, known.tenant));
            same("I1", "a finished bid's place by name", known, Some((tomb.status, None)))?;
        }
        let is_sorted = finished.iter().is_sorted_by_key(|tomb| tomb.finished_at);
        hold(is_sorted, "I6", || "finished bids are out of order".to_owned())
    }

    /// What is counted of a market that clears together with others.
    fn check_coupling(&self, record: &MarketRecord) -> Result<(), Broken> {
        let name = &record.id;
        hold(record.book.is_empty(), "I7", || format!("{name} clears together and by itself"))?;
        let (mut flexible, mut wanted, mut places) = (0, 0, 0);
        for (_, bid) in self.bids.all().filter(|(_, bid)| bid.stands() && !bid.is_order()) {
            if bid.limit_in(record.number).is_none() {
                continue;
            }
            flexible += u32::from(bid.flexible().is_some());
            wanted += u64::from(bid.quantity);
            places += bid.lots.as_slice().len() as u32;
        }
        let coupling = &record.coupling;
        let kept = (coupling.flexible, coupling.wanted, coupling.places);
        same("I7", &format!("what stands in {name}"), kept, (flexible, wanted, places))?;
        same("I7", &format!("whether {name} is idle"), coupling.idle_since.is_some(), flexible == 0)
    }

    /// Winners and price by the rule's own words: sort all units, walk, look.
    fn check_market(&self, record: &MarketRecord) -> Result<(), Broken> {
        let name = &record.id;
        let (reserve, supply) = (record.settings.reserve.micros(), record.auctioned());
        same(
            "I2",
            &format!("supply of {name}"),
            record.supply,
            record.sources.values().map(|source| source.units).sum(),
        )?;
        same("I2", &format!("supply in the book of {name}"), record.book.supply(), supply)?;
        self.check_orders(record)?;
        if record.coupling.is_coupled {
            return self.check_coupling(record);
        }
        if record.is_dirty {
            return Ok(());
        }
        let mut units = Vec::new();
        for (lot, terms) in record.book.lots() {
            for unit in 0..terms.units {
                let limit = std::cmp::Reverse(terms.limit);
                units.push(Unit { limit, is_queued: unit >= terms.held, age: terms.age, lot: lot.0 });
            }
        }
        units.sort_unstable();
        let wanted = units.iter().take_while(|unit| unit.limit.0 >= reserve).count();
        let sold = wanted.min(supply as usize);
        same("I2", &format!("units sold in {name}"), record.book.sold() as usize, sold)?;
        let mut won: BTreeMap<u32, u32> = BTreeMap::new();
        for unit in &units[..sold] {
            *won.entry(unit.lot).or_default() += 1;
        }
        for (lot, _) in record.book.lots() {
            let won = won.get(&lot.0).copied().unwrap_or(0);
            same("I2", &format!("units that lot {} wins in {name}", lot.0), record.book.won(lot), won)?;
        }
        let price = match (supply, sold == supply as usize) {
            (0, _) => None,
            (_, false) => Some(reserve),
            (_, true) => Some(match self.rules.price_rule {
                PriceRule::LowestAccepted => units[sold - 1].limit.0,
                PriceRule::HighestRejected => {
                    units.get(sold).map_or(reserve, |unit| unit.limit.0.max(reserve))
                }
            }),
        };
        same("I4", &format!("price of {name}"), record.book.price(), price)?;
        if let Some(price) = price {
            let is_fair = units[..sold].iter().all(|unit| unit.limit.0 >= price);
            hold(is_fair, "I4", || format!("a winner of {name} pays more than its limit"))?;
            let is_envious = |unit: &&Unit| unit.limit.0 >= reserve && unit.limit.0 > price;
            let envious = units[sold..].iter().find(is_envious);
            hold(envious.is_none(), "I4", || format!("{envious:?} loses in {name} above the price {price}"))?;
        }
        let told = record.figures();
        same("I4", &format!("price told of {name}"), told.price.map(Price::micros), price)
    }
}
