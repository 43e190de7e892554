//! Markets that bids with several options couple, and markets with gangs: they clear jointly.

use std::cmp::Reverse;

use proto::Price;

use super::format::{BookMarket, ClearError, ClearInput, Rejected};
use super::single::refused;
use super::validate::Standing;
use super::{MarketFigures, Results};
use crate::joint::{
    Fate, GANG_PASSES_MAX, Gang, Joint, JointError, Lot, LotOption, Manner, Outcome, OwnedTerms, settle,
};

/// Lots of one bid are numbered within this many: one for what is queued, and one for each option's running units.
const LOTS_OF_BID: u64 = 64;

/// The joint clearing of some of a book's markets.
struct Several<'a> {
    input: &'a ClearInput,
    standing: &'a [Standing],
    /// The markets' places in the input, in the order of their numbers.
    places: Vec<usize>,
    /// The numbers, by place.
    numbers: Vec<Option<u32>>,
    joint: Joint,
    /// Bids without a minimum, with their lots.
    singles: Vec<(usize, Vec<Lot>)>,
    /// Bids with one, in the order of `fates`.
    gangs: Vec<(usize, Gang)>,
    fates: Vec<Fate>,
}

/// Clears these markets jointly, with the bids at these places in the input, and notes what comes of it.
pub(super) fn clear(
    input: &ClearInput,
    places: &[usize],
    bids: &[usize],
    standing: &[Standing],
    results: &mut Results,
) -> Result<(), ClearError> {
    let mut cleared = clear_with(input, places, bids, standing)?;
    cleared.tell(results)
}

fn clear_with<'a>(
    input: &'a ClearInput,
    places: &[usize],
    bids: &[usize],
    standing: &'a [Standing],
) -> Result<Several<'a>, ClearError> {
    let mut numbers = vec![None; input.markets.len()];
    let mut joint = Joint::new();
    for &place in places {
        let Some(market) = input.markets.get(place) else { continue };
        let number = joint.add_market(market.reserve.micros(), market.supply);
        numbers[place] = Some(number.map_err(|error| refused(place, market, &error))?);
    }
    let mut several = Several {
        input,
        standing,
        places: places.to_vec(),
        numbers,
        joint,
        singles: Vec::new(),
        gangs: Vec::new(),
        fates: Vec::new(),
    };
    several.bring_in(bids).map_err(|error| refused_all(&error))?;
    Ok(several)
}

fn refused_all(error: &JointError) -> ClearError {
    ClearError::Value { field: "bids".to_owned(), value: "all".to_owned(), problem: error.to_string() }
}

impl Several<'_> {
    fn bring_in(&mut self, bids: &[usize]) -> Result<(), JointError> {
        let mut lots = Vec::new();
        for &bid in bids {
            let Some(standing) = self.standing.get(bid) else { continue };
            let terms = self.lots(bid, standing);
            if standing.minimum > 1 {
                let limits = standing.options.iter().filter_map(|option| {
                    Some((self.numbers.get(option.market).copied().flatten()?, option.limit))
                });
                let (age, minimum, limits) = (bid as u64, standing.minimum, limits.collect());
                self.gangs.push((bid, Gang { age, minimum, limits, lots: terms }));
            } else {
                self.singles.push((bid, Vec::with_capacity(terms.len())));
                lots.extend(terms.into_iter().map(|terms| (self.singles.len() - 1, terms)));
            }
        }
        // Whoever wins in the end comes first, so that few are moved twice. The outcome is the same in any order.
        let best = |terms: &OwnedTerms| terms.options.iter().map(|option| option.worth).max();
        lots.sort_by_key(|(_, terms)| Reverse(best(terms)));
        for (single, terms) in lots {
            let lot = self.joint.insert(&terms.terms())?;
            self.singles[single].1.push(lot);
        }
        let gangs: Vec<Gang> = self.gangs.iter().map(|(_, gang)| gang.clone()).collect();
        (self.fates, _) = settle(&mut self.joint, &gangs, GANG_PASSES_MAX)?;
        Ok(())
    }

    /// A bid's lots: its running units by market, as far as it has any, then its queued ones.
    fn lots(&self, bid: usize, standing: &Standing) -> Vec<OwnedTerms> {
        let move_cost = self.input.move_cost.map_or(0, Price::micros);
        let reserve =
            |place: usize| self.input.markets.get(place).map_or(0, |market| market.reserve.micros());
        let number = |market: usize| self.numbers.get(market).copied().flatten().unwrap_or_default();
        let mut lots = Vec::new();
        let mut queued = standing.quantity;
        let mut lot = |units: u32, options: Vec<LotOption>| {
            let number = bid as u64 * LOTS_OF_BID + lots.len() as u64;
            lots.push(OwnedTerms { age: bid as u64, number, units, options });
        };
        for (home, held) in standing.options.iter().enumerate().filter(|(_, held)| held.running > 0) {
            queued -= held.running;
            let options = standing.options.iter().enumerate().map(|(at, option)| {
                let market = number(option.market);
                if at == home {
                    let (worth, limit) = (option.running_limit, option.limit);
                    let plain_limit = (limit < worth).then_some(limit);
                    return LotOption { market, worth, plain_limit, kept: held.running };
                }
                // A limit below the reserve cannot win, moved or not.
                let floor = reserve(option.market).min(option.limit);
                let worth = option.limit.saturating_sub(move_cost).max(floor);
                LotOption { market, worth, plain_limit: None, kept: 0 }
            });
            lot(held.running, options.collect());
        }
        if queued > 0 {
            let option = |option: &super::validate::Choice| LotOption {
                market: number(option.market),
                worth: option.limit,
                plain_limit: None,
                kept: 0,
            };
            lot(queued, standing.options.iter().map(option).collect());
        }
        lots
    }

    /// Notes what came of everything.
    fn tell(&mut self, results: &mut Results) -> Result<(), ClearError> {
        results.surplus += self.joint.surplus();
        for (bid, lots) in &self.singles {
            self.tell_lots(*bid, lots, results);
        }
        for ((bid, gang), fate) in self.gangs.iter().zip(&self.fates) {
            match fate {
                Fate::Cleared(lots) => self.tell_lots(*bid, lots, results),
                Fate::Kept => {
                    for option in
                        gang.lots.iter().flat_map(|lot| &lot.options).filter(|option| option.kept > 0)
                    {
                        let market = option.market as usize;
                        results.win(*bid, self.places[market], option.kept);
                        let reserve = self.joint.reserve(option.market);
                        results.surplus +=
                            i128::from(option.kept) * i128::from(option.worth.saturating_sub(reserve));
                    }
                }
                Fate::LeftOut { .. } => {}
            }
        }
        self.tell_markets(results)?;
        self.tell_rejected(results);
        Ok(())
    }

    fn tell_lots(&self, bid: usize, lots: &[Lot], results: &mut Results) {
        for (market, units) in lots.iter().flat_map(|&lot| self.joint.won_of(lot)) {
            results.win(bid, self.places[market as usize], units);
        }
    }

    fn tell_markets(&mut self, results: &mut Results) -> Result<(), ClearError> {
        let ladders: Vec<_> = self
            .places
            .iter()
            .map(|&place| self.input.markets.get(place).map(BookMarket::ladder).unwrap_or_default())
            .collect();
        let ladders: Vec<_> = ladders.iter().collect();
        let rule = self.input.price_rule;
        let manner = Manner { rule, passes_max: GANG_PASSES_MAX, ladders: &ladders };
        let gangs: Vec<Gang> = self.gangs.iter().map(|(_, gang)| gang.clone()).collect();
        let outcomes =
            self.joint.outcomes(manner, &gangs, &mut self.fates).map_err(|error| refused_all(&error))?;
        for (&place, outcome) in self.places.iter().zip(outcomes) {
            let Outcome { price, sold, lowest_winning_bid } = outcome;
            results.markets[place] =
                MarketFigures { price: price.map(Price::micros_or_max), sold, lowest_winning_bid };
        }
        Ok(())
    }

    /// Reports gangs left out, and bids that gangs keep out, although their limit beats the price.
    fn tell_rejected(&self, results: &mut Results) {
        let beats = |market: usize, limit: u64, results: &Results| {
            let price = self.places.get(market).and_then(|&place| results.markets[place].price);
            price.is_some_and(|price| limit > price.micros())
        };
        for ((bid, gang), fate) in self.gangs.iter().zip(&self.fates) {
            if let &Fate::LeftOut { short_by } = fate
                && gang.limits.iter().any(|&(market, limit)| beats(market as usize, limit, results))
            {
                results.rejected.push((*bid, short_by));
            }
        }
        if !self.fates.contains(&Fate::Kept) {
            return;
        }
        for (bid, _) in &self.singles {
            let Some(standing) = self.standing.get(*bid) else { continue };
            let won: u32 = results.won.get(*bid).map_or(0, |won| won.iter().map(|&(_, units)| units).sum());
            let is_beaten = standing.options.iter().any(|option| {
                let market = self.numbers.get(option.market).copied().flatten();
                market.is_some_and(|market| beats(market as usize, option.limit, results))
            });
            if won < standing.quantity && is_beaten {
                results.rejected.push((*bid, standing.quantity - won));
            }
        }
    }
}

/// The report of bids rejected, in the order of the book.
pub(super) fn rejected(input: &ClearInput, mut rejected: Vec<(usize, u32)>) -> Vec<Rejected> {
    rejected.sort_unstable();
    let report = |(bid, short_by): (usize, u32)| {
        input.bids.get(bid).map(|bid| Rejected { id: bid.id.clone(), short_by })
    };
    rejected.into_iter().filter_map(report).collect()
}
