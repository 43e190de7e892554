//! A round in the coupled markets: the joint clearing is brought up to date, gangs are settled in it, and what came of
//! it is compared with what bids hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use proto::Price;
use proto::market::{BidNumber, Ladder, MarketNumber, Prices};

use super::super::Market;
use super::super::bid::Bid;
use super::super::bounds::PASSED_OVER_TOLD_MAX;
use super::super::round::Shift;
use super::lots::Wanted;
use crate::book::Lot;
use crate::joint::{
    self, AGE_MAX, Fate, Gang, Joint, JointError, LotOption, LotTerms, Manner, NUMBER_MAX, Outcome,
    OwnedTerms, settle,
};

/// No place.
const NONE: u32 = u32::MAX;

/// The joint clearing, and whose lots it holds. Everything in it follows from what the machine knows, and is brought up
/// to date before a round.
#[derive(Clone, Debug)]
pub(super) struct Clearing {
    joint: Joint,
    /// The lots of each coupled place, with their kinds.
    lots: Vec<Vec<(u8, joint::Lot)>>,
    /// The coupled place that a lot is of.
    owners: Vec<u32>,
    /// Lots of places that are gone.
    gone: Vec<joint::Lot>,
}

impl Default for Clearing {
    fn default() -> Self {
        Self { joint: Joint::new(), lots: Vec::new(), owners: Vec::new(), gone: Vec::new() }
    }
}

impl Clearing {
    /// A coupled place is gone.
    pub(super) fn let_go(&mut self, place: Lot) {
        if let Some(lots) = self.lots.get_mut(place.0 as usize) {
            self.gone.extend(lots.drain(..).map(|(_, lot)| lot));
        }
    }

    fn remove(&mut self, lot: joint::Lot) -> Result<(), JointError> {
        if let Some(owner) = self.owners.get_mut(lot.0 as usize) {
            *owner = NONE;
        }
        self.joint.remove(lot)
    }

    /// Makes the lots of a bid's places what they should be.
    fn seat(&mut self, places: &[Lot], wanted: &[Wanted]) -> Result<(), JointError> {
        for &place in places {
            let index = place.0 as usize;
            if self.lots.len() <= index {
                self.lots.resize(index + 1, Vec::new());
            }
            let mut had = std::mem::take(&mut self.lots[index]);
            let mut has = Vec::with_capacity(had.len().max(1));
            for Wanted { class, terms, .. } in wanted.iter().filter(|wanted| wanted.place == place) {
                let known = had.iter().position(|(known, _)| known == class);
                let lot = match known {
                    Some(at) => {
                        let (_, lot) = had.swap_remove(at);
                        if !self.joint.offers(lot, &terms.terms()) {
                            self.joint.amend(lot, &terms.terms())?;
                        }
                        lot
                    }
                    None => self.joint.insert(&terms.terms())?,
                };
                if self.owners.len() <= lot.0 as usize {
                    self.owners.resize(lot.0 as usize + 1, NONE);
                }
                self.owners[lot.0 as usize] = place.0;
                has.push((*class, lot));
            }
            for (_, lot) in had {
                self.remove(lot)?;
            }
            self.lots[index] = has;
        }
        Ok(())
    }
}

/// A gang in a round: which bid, what it offers, what becomes of it.
struct Gangs {
    bids: Vec<u32>,
    gangs: Vec<Gang>,
    fates: Vec<Fate>,
}

impl Gangs {
    fn settle(&mut self, joint: &mut Joint, passes_max: u32) -> Result<(), JointError> {
        (self.fates, _) = settle(joint, &self.gangs, passes_max)?;
        Ok(())
    }

    fn of(&self, place: u32) -> Option<(&Gang, &Fate)> {
        let at = self.bids.iter().position(|&bid| bid == place)?;
        Some((self.gangs.get(at)?, self.fates.get(at)?))
    }
}

/// What a round came to in the coupled markets.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Cleared {
    /// The public figures of every coupled market.
    pub(in super::super) figures: Vec<(MarketNumber, Prices)>,
    /// Units of which bids would still win in markets whose supply shrank, had it not.
    pub(in super::super) kept_with_old_supply: BTreeMap<MarketNumber, Vec<(BidNumber, u32)>>,
    /// Bids passed over, with the units they miss.
    pub(in super::super) passed_over: Vec<(BidNumber, u32)>,
}

/// What a bid wins, by market.
fn won_by(clearing: &Clearing, gangs: &Gangs, place: u32, bid: &Bid) -> BTreeMap<MarketNumber, u32> {
    let mut won: BTreeMap<MarketNumber, u32> = BTreeMap::new();
    let mut count = |(market, units): (u32, u32)| {
        if units > 0 {
            *won.entry(market as MarketNumber).or_default() += units;
        }
    };
    match gangs.of(place) {
        Some((_, Fate::Cleared(lots))) => {
            lots.iter().flat_map(|&lot| clearing.joint.won_of(lot)).for_each(&mut count);
        }
        Some((gang, Fate::Kept)) => {
            let options = gang.lots.iter().flat_map(|lot| &lot.options);
            options.map(|option| (option.market, option.kept)).for_each(&mut count);
        }
        Some((_, Fate::LeftOut { .. })) => {}
        None => {
            let places = bid.lots.as_slice().iter();
            let lots = places.filter_map(|place| clearing.lots.get(place.0 as usize)).flatten();
            lots.flat_map(|&(_, lot)| clearing.joint.won_of(lot)).for_each(&mut count);
        }
    }
    won
}

impl Market {
    /// Clears the coupled markets together and adds to `shifts` by bid and market who wins more or fewer units than it
    /// holds. Says nothing where no coupled market is to be looked at.
    pub(in super::super) fn clear_coupled(&mut self, shifts: &mut Vec<Shift>) -> Option<Cleared> {
        if !self.dirty.iter().any(|&market| self.is_coupled(market)) {
            return None;
        }
        let mut clearing = std::mem::take(&mut self.coupled.clearing);
        let cleared = self.clear_jointly(&mut clearing, shifts);
        self.coupled.clearing = clearing;
        match cleared {
            Ok(cleared) => Some(cleared),
            Err(error) => {
                self.broke("I7", error.to_string());
                None
            }
        }
    }

    fn clear_jointly(
        &mut self,
        clearing: &mut Clearing,
        shifts: &mut Vec<Shift>,
    ) -> Result<Cleared, JointError> {
        self.refresh(clearing)?;
        let mut gangs = self.gangs();
        let passes_max = self.rules.gang_passes_max;
        gangs.settle(&mut clearing.joint, passes_max)?;
        let ladders: Vec<&Ladder> = self.markets.iter().map(|record| &record.settings.ladder).collect();
        let manner = Manner { rule: self.rules.price_rule, passes_max, ladders: &ladders };
        let outcomes = clearing.joint.outcomes(manner, &gangs.gangs, &mut gangs.fates)?;
        let from = shifts.len();
        let shifted = self.shifted(clearing);
        self.compare(clearing, &gangs, &shifted, shifts);
        let mut cleared = Cleared {
            figures: self.figures_of(&outcomes),
            passed_over: self.find_passed_over(clearing, &gangs, &outcomes),
            ..Cleared::default()
        };
        if shifts[from..].iter().any(|shift| shift.after < shift.before) {
            cleared.kept_with_old_supply = self.kept_with_old(clearing, &mut gangs, &shifts[from..])?;
        }
        clearing.joint.clear();
        // Who is incumbent where is told anew next time: within a bid units may have changed places.
        for bid in shifted {
            self.leases.touch(bid);
        }
        clearing.joint.unsettle(&gangs.gangs, &gangs.fates)?;
        Ok(cleared)
    }

    /// Brings the joint clearing up to date.
    fn refresh(&mut self, clearing: &mut Clearing) -> Result<(), JointError> {
        for record in &self.markets {
            let market = u32::from(record.number);
            let supply = if record.coupling.is_coupled { record.auctioned() } else { 0 };
            let reserve = record.settings.reserve.micros();
            if clearing.joint.markets() <= market {
                clearing.joint.add_market(reserve, supply)?;
            }
            if clearing.joint.reserve(market) != reserve {
                clearing.joint.set_reserve(market, reserve)?;
            }
            if clearing.joint.supply(market) != supply {
                clearing.joint.set_supply(market, supply)?;
            }
        }
        for lot in std::mem::take(&mut clearing.gone) {
            clearing.remove(lot)?;
        }
        let touched = self.leases.touched.as_mut().map(std::mem::take).unwrap_or_default();
        let stands = |&place: &u32| {
            self.bids
                .get(place)
                .is_some_and(|bid| bid.stands() && self.stands_coupled(bid) && bid.minimum() == 1)
        };
        let mut stale: Vec<u32> = touched.into_iter().filter(stands).collect();
        // Whoever wins in the end comes first, so that few are moved twice. The outcome is the same in any order.
        let best = |&place: &u32| {
            self.bids.get(place).and_then(|bid| bid.options().map(|option| option.limit).max())
        };
        stale.sort_by_cached_key(|place| Reverse(best(place)));
        for place in stale {
            if let Some(bid) = self.bids.get(place) {
                clearing.seat(bid.lots.as_slice(), &self.lots_wanted(bid))?;
            }
        }
        Ok(())
    }

    fn gangs(&self) -> Gangs {
        let bids: Vec<u32> = self.coupled.gangs.values().copied().collect();
        let gang = |&place: &u32| {
            let bid = self.bids.get(place)?;
            let lots: Vec<OwnedTerms> =
                self.lots_wanted(bid).into_iter().map(|wanted| wanted.terms).collect();
            let limits = bid.options().map(|option| (u32::from(option.market), option.limit)).collect();
            let age = self.places_of(bid).first().map_or(0, |&(age, _)| age);
            Some(Gang { age, minimum: bid.minimum(), limits, lots })
        };
        let gangs: Vec<Gang> = bids.iter().filter_map(gang).collect();
        Gangs { bids, gangs, fates: Vec::new() }
    }

    /// What a bid holds, by market.
    fn live_in(&self, bid: &Bid) -> BTreeMap<MarketNumber, u32> {
        let mut live: BTreeMap<MarketNumber, u32> = BTreeMap::new();
        for (_, span) in self.leases.of(bid.leases).filter(|(_, span)| span.stand.is_live()) {
            *live.entry(span.market).or_default() += span.units;
        }
        live
    }

    /// Bids of which a lot wins something else than its incumbents have; gangs apart.
    fn shifted(&self, clearing: &Clearing) -> BTreeSet<u32> {
        let owners = clearing.joint.shifted().filter_map(|lot| clearing.owners.get(lot.0 as usize));
        owners.filter_map(|&place| self.coupled.place(Lot(place))).map(|place| place.bid).collect()
    }

    /// Adds who wins more or fewer units than it holds.
    fn compare(&self, clearing: &Clearing, gangs: &Gangs, shifted: &BTreeSet<u32>, shifts: &mut Vec<Shift>) {
        for place in shifted.iter().chain(&gangs.bids).copied() {
            let Some(bid) = self.bids.get(place) else { continue };
            let (won, live) = (won_by(clearing, gangs, place, bid), self.live_in(bid));
            let age = self.age_of_next(bid);
            let markets: BTreeSet<MarketNumber> = won.keys().chain(live.keys()).copied().collect();
            for market in markets {
                let units = |by: &BTreeMap<MarketNumber, u32>| by.get(&market).copied().unwrap_or(0);
                let (before, after) = (units(&live), units(&won));
                if before != after {
                    let limit = bid.limit_in(market).unwrap_or(0);
                    shifts.push(Shift { number: bid.number, place, market, before, after, limit, age });
                }
            }
        }
    }

    /// The place in the queue of the first unit of a bid that it holds nothing for.
    fn age_of_next(&self, bid: &Bid) -> u64 {
        let mut below = 0;
        let mut last = 0;
        for (age, units) in self.places_of(bid) {
            last = age;
            below += units;
            if below > bid.live {
                break;
            }
        }
        last
    }

    fn figures_of(&self, outcomes: &[Outcome]) -> Vec<(MarketNumber, Prices)> {
        let coupled = self.markets.iter().filter(|record| record.coupling.is_coupled);
        let figures = |record: &super::super::record::MarketRecord| {
            let outcome = outcomes.get(usize::from(record.number)).copied().unwrap_or_default();
            let prices = Prices {
                price: outcome.price.and_then(Price::from_micros),
                lowest_winning_bid: outcome.lowest_winning_bid,
                reserve: record.settings.reserve,
                supply: record.auctioned(),
                sold: outcome.sold,
                wanted: record.coupling.wanted,
                on_demand: record.on_demand(),
            };
            (record.number, prices)
        };
        coupled.map(figures).collect()
    }

    /// Clears once more with the supply of the last round where it shrank, to tell who is outbid and who loses to that;
    /// afterwards everything is as it was.
    fn kept_with_old(
        &self,
        clearing: &mut Clearing,
        gangs: &mut Gangs,
        shifts: &[Shift],
    ) -> Result<BTreeMap<MarketNumber, Vec<(BidNumber, u32)>>, JointError> {
        let mut kept: BTreeMap<MarketNumber, Vec<(BidNumber, u32)>> = BTreeMap::new();
        let shrunk: Vec<(u32, u32, u32)> = self
            .markets
            .iter()
            .filter(|record| record.coupling.is_coupled)
            .map(|record| {
                (u32::from(record.number), record.told.map_or(0, |told| told.supply), record.auctioned())
            })
            .filter(|(_, before, now)| before > now)
            .collect();
        if shrunk.is_empty() {
            return Ok(kept);
        }
        let passes_max = self.rules.gang_passes_max;
        clearing.joint.unsettle(&gangs.gangs, &gangs.fates)?;
        for &(market, before, _) in &shrunk {
            clearing.joint.set_supply(market, before)?;
        }
        gangs.settle(&mut clearing.joint, passes_max)?;
        for shift in shifts.iter().filter(|shift| shift.after < shift.before) {
            let Some(bid) = self.bids.get(shift.place) else { continue };
            let won = won_by(clearing, gangs, shift.place, bid).get(&shift.market).copied().unwrap_or(0);
            let kept = kept.entry(shift.market).or_default();
            kept.push((shift.number, won.saturating_sub(shift.after)));
        }
        clearing.joint.unsettle(&gangs.gangs, &gangs.fates)?;
        for &(market, _, now) in &shrunk {
            clearing.joint.set_supply(market, now)?;
        }
        gangs.settle(&mut clearing.joint, passes_max)?;
        for kept in kept.values_mut() {
            kept.sort_unstable();
        }
        Ok(kept)
    }

    /// Gangs left out, and bids that kept gangs keep out, although a limit of theirs beats the price.
    fn find_passed_over(
        &self,
        clearing: &Clearing,
        gangs: &Gangs,
        outcomes: &[Outcome],
    ) -> Vec<(BidNumber, u32)> {
        let beats = |bid: &Bid| {
            bid.options().any(|option| {
                let outcome = outcomes.get(usize::from(option.market));
                outcome.and_then(|outcome| outcome.price).is_some_and(|price| option.limit > price)
            })
        };
        let mut passed: Vec<(BidNumber, u32)> = Vec::new();
        for (&place, fate) in gangs.bids.iter().zip(&gangs.fates) {
            if let (Some(bid), &Fate::LeftOut { short_by }) =
                (self.bids.get(place).filter(|bid| beats(bid)), fate)
            {
                passed.push((bid.number, short_by));
            }
        }
        if gangs.fates.contains(&Fate::Kept) {
            let bids: BTreeSet<u32> =
                self.coupled.places.iter().filter(|place| place.units > 0).map(|place| place.bid).collect();
            for place in bids {
                let Some(bid) = self.bids.get(place).filter(|bid| bid.minimum() == 1 && beats(bid)) else {
                    continue;
                };
                let won: u32 = won_by(clearing, gangs, place, bid).values().sum();
                if won < bid.quantity {
                    passed.push((bid.number, bid.quantity - won));
                }
            }
        }
        passed.sort_unstable();
        passed.truncate(PASSED_OVER_TOLD_MAX);
        passed
    }

    /// The least limit at which so many units of a youngest bid for any of these markets would all win; none where they
    /// never would. For a copy of an exchange: markets that clear by themselves are coupled for it.
    pub(in super::super) fn quote_on_copy(
        &mut self,
        markets: &[MarketNumber],
        units: u32,
    ) -> Result<Option<u64>, JointError> {
        for &market in markets {
            self.couple(market);
        }
        let mut clearing = std::mem::take(&mut self.coupled.clearing);
        self.refresh(&mut clearing)?;
        let gangs = self.gangs().gangs;
        let numbers: Vec<u32> = markets.iter().copied().map(u32::from).collect();
        if gangs.is_empty() {
            return clearing.joint.quote(&numbers, units);
        }
        // With gangs nothing but clearing tells. Halves what is left each time: as many turns as a price has bits.
        let passes_max = self.rules.gang_passes_max;
        let (mut losing, mut winning) = (0, Price::MAX.micros());
        let mut least = None;
        while losing < winning {
            let middle = losing + (winning - losing) / 2;
            if wins_all(&mut clearing.joint, &numbers, middle, units, &gangs, passes_max)? {
                least = Some(middle);
                winning = middle;
            } else {
                losing = middle + 1;
            }
        }
        Ok(least)
    }

    /// Compares the joint clearing with one made anew from what stands: for [`Market::check_all`].
    pub(in super::super) fn check_coupled(&self) -> Result<(), String> {
        if self.leases.touched.is_none() {
            return Ok(());
        }
        let (mut kept, mut anew) = (self.clone(), self.clone());
        anew.coupled.clearing = Clearing::default();
        let all = self.bids.all().filter(|(_, bid)| bid.stands() && self.stands_coupled(bid));
        anew.leases.touched = Some(all.map(|(place, _)| place).collect());
        let mut outcomes = Vec::new();
        for market in [&mut kept, &mut anew] {
            let mut clearing = std::mem::take(&mut market.coupled.clearing);
            let mut shifts = Vec::new();
            let cleared =
                market.clear_jointly(&mut clearing, &mut shifts).map_err(|error| error.to_string())?;
            clearing.joint.check().map_err(|error| error.to_string())?;
            shifts.sort_unstable_by_key(|shift| (shift.number, shift.market));
            outcomes.push((format!("{shifts:?}"), format!("{cleared:?}")));
        }
        match outcomes.as_slice() {
            [kept, anew] if kept != anew => {
                Err(format!("kept up it comes to {kept:?}, made anew to {anew:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether so many units of a youngest bid would all win at a limit in any of these markets, beside gangs that are not
/// brought in yet.
fn wins_all(
    joint: &mut Joint,
    markets: &[u32],
    limit: u64,
    units: u32,
    gangs: &[Gang],
    passes_max: u32,
) -> Result<bool, JointError> {
    let option = |&market: &u32| LotOption { market, worth: limit, plain_limit: None, kept: 0 };
    let options: Vec<LotOption> = markets.iter().map(option).collect();
    let newcomer = joint.insert(&LotTerms { age: AGE_MAX, number: NUMBER_MAX, units, options: &options })?;
    let (fates, _) = settle(joint, gangs, passes_max)?;
    let won: u32 = joint.won_of(newcomer).map(|(_, units)| units).sum();
    joint.unsettle(gangs, &fates)?;
    joint.remove(newcomer)?;
    Ok(won >= units)
}
