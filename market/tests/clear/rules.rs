//! Rule 4, and what `walras clear` makes of a book, spelt out the slow way: every clearing from nothing.

#[path = "../joint/oracle.rs"]
mod oracle;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use oracle::{Assignment, Offer, Place};
use proto::market::PriceRule;

const PASSES_MAX: u32 = 64;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Market {
    pub(crate) supply: u32,
    pub(crate) reserve: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BidOption {
    pub(crate) market: usize,
    pub(crate) limit: u64,
    pub(crate) running_limit: u64,
    pub(crate) running: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Bid {
    pub(crate) quantity: u32,
    pub(crate) minimum: u32,
    pub(crate) options: Vec<BidOption>,
}

impl Bid {
    /// From random numbers: options (market, limit, more if running, running).
    pub(crate) fn new(
        markets: usize,
        quantity: u32,
        minimum: u32,
        options: &[(usize, u64, u64, u32)],
    ) -> Self {
        let mut bid = Self { quantity, minimum: minimum.min(quantity), options: Vec::new() };
        let mut left = quantity;
        for &(market, limit, more, running) in options {
            let market = market % markets;
            if bid.options.iter().all(|option| option.market != market) {
                let running = running.min(left);
                left -= running;
                bid.options.push(BidOption { market, limit, running_limit: limit + more, running });
            }
        }
        bid
    }

    fn running(&self) -> u32 {
        self.options.iter().map(|option| option.running).sum()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub(crate) markets: Vec<Market>,
    pub(crate) bids: Vec<Bid>,
    pub(crate) move_cost: Option<u64>,
    pub(crate) price_rule: PriceRule,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) prices: Vec<Option<u64>>,
    pub(crate) sold: Vec<u32>,
    /// By bid: market and units, in the order of its options.
    pub(crate) won: Vec<Vec<(usize, u32)>>,
    pub(crate) surplus: i128,
    pub(crate) rejected: Vec<(usize, u32)>,
}

/// One clearing of some bids.
struct Clearing {
    won: BTreeMap<usize, Vec<u32>>,
    surplus: i128,
    sold: Vec<u32>,
    low: Vec<i128>,
    accepted: Vec<i128>,
}

impl Book {
    /// Who is left out first: the least.
    fn rank(&self, gang: usize) -> (i64, bool, Reverse<usize>) {
        let bid = &self.bids[gang];
        let gain = |option: &BidOption| option.limit as i64 - self.markets[option.market].reserve as i64;
        (bid.options.iter().map(gain).max().unwrap(), bid.running() > 0, Reverse(gang))
    }

    fn offers(&self, number: usize) -> Vec<Offer> {
        let bid = &self.bids[number];
        let mut offers = Vec::new();
        let lot = |units, options: Vec<oracle::Choice>, offers: &mut Vec<Offer>| {
            let lot = number as u64 * 64 + offers.len() as u64;
            offers.push(Offer { age: number as u64, number: lot, units, options });
        };
        for home in bid.options.iter().filter(|home| home.running > 0) {
            let option = |option: &BidOption| {
                if option.market == home.market {
                    return (option.market, option.running_limit, option.limit, option.running);
                }
                let reserve = self.markets[option.market].reserve;
                let moved = option.limit.saturating_sub(self.move_cost.unwrap_or(0)).max(reserve);
                let worth = if option.limit < reserve { option.limit } else { moved };
                (option.market, worth, option.limit, 0)
            };
            lot(home.running, bid.options.iter().map(option).collect(), &mut offers);
        }
        if bid.running() < bid.quantity {
            let option = |option: &BidOption| (option.market, option.limit, option.limit, 0);
            lot(bid.quantity - bid.running(), bid.options.iter().map(option).collect(), &mut offers);
        }
        offers
    }

    fn clearing(&self, supply: &[u32], takes_part: impl Fn(usize) -> bool) -> Clearing {
        let places: Vec<Place> = self
            .markets
            .iter()
            .zip(supply)
            .map(|(market, &supply)| Place { supply, reserve: market.reserve })
            .collect();
        let (mut offers, mut owners) = (Vec::new(), Vec::new());
        for bid in (0..self.bids.len()).filter(|&bid| takes_part(bid)) {
            for offer in self.offers(bid) {
                offers.push(offer);
                owners.push(bid);
            }
        }
        let best = Assignment::best(&places, &offers);
        let mut won: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        let mut sold = vec![0; places.len()];
        for (offer, &owner) in owners.iter().enumerate() {
            let units = won.entry(owner).or_insert_with(|| vec![0; places.len()]);
            for market in 0..places.len() {
                units[market] += best.won(offer, market);
                sold[market] += best.won(offer, market);
            }
        }
        let (low, _) = best.prices(&vec![i128::MAX / 2; places.len()]);
        Clearing { won, surplus: best.total().0[0], sold, low, accepted: best.accepted() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    In,
    Kept,
    Out(u32),
}

/// Clears a book.
pub(crate) fn clear(book: &Book) -> Outcome {
    let mut supply: Vec<u32> = book.markets.iter().map(|market| market.supply).collect();
    let is_gang = |bid: usize| book.bids[bid].minimum > 1;
    let gangs: Vec<usize> = (0..book.bids.len()).filter(|&bid| is_gang(bid)).collect();
    let mut fates: BTreeMap<usize, Fate> = BTreeMap::new();
    for &gang in &gangs {
        let all: u32 = book.bids[gang].options.iter().map(|option| supply[option.market]).sum();
        let short = book.bids[gang].minimum.saturating_sub(all);
        fates.insert(gang, if short > 0 { Fate::Out(short) } else { Fate::In });
    }
    let hopeless: Vec<usize> = gangs.iter().copied().filter(|gang| fates[gang] != Fate::In).collect();
    let run = |fates: &BTreeMap<usize, Fate>, supply: &[u32]| {
        book.clearing(supply, |bid| fates.get(&bid).is_none_or(|&fate| fate == Fate::In))
    };
    let rank = |gang: usize| book.rank(gang);
    let units =
        |clearing: &Clearing, gang: usize| clearing.won.get(&gang).map_or(0, |won| won.iter().sum::<u32>());
    let mut clearing = run(&fates, &supply);
    let mut passes = 1;
    loop {
        let mut short = gangs.clone();
        short.retain(|&gang| {
            let won = units(&clearing, gang);
            fates[&gang] == Fate::In && won > 0 && won < book.bids[gang].minimum
        });
        short.sort_by_key(|&gang| rank(gang));
        let Some(&gang) = short.first() else { break };
        let missing = |gang: usize| Fate::Out(book.bids[gang].minimum - units(&clearing, gang));
        if passes >= PASSES_MAX {
            for gang in short {
                fates.insert(gang, missing(gang));
            }
            clearing = run(&fates, &supply);
            continue;
        }
        fates.insert(gang, missing(gang));
        clearing = run(&fates, &supply);
        passes += 1;
        let bid = &book.bids[gang];
        let fits = bid.options.iter().filter(|option| option.running > 0).all(|option| {
            option.running <= supply[option.market]
                && option.running_limit >= book.markets[option.market].reserve
        });
        if bid.running() >= bid.minimum && fits {
            let mut smaller = supply.clone();
            let mut worth = 0;
            for option in &bid.options {
                smaller[option.market] -= option.running;
                let gain = i128::from(option.running_limit) - i128::from(book.markets[option.market].reserve);
                worth += i128::from(option.running) * gain;
            }
            let beside = run(&fates, &smaller);
            passes += 1;
            if beside.surplus + worth >= clearing.surplus {
                fates.insert(gang, Fate::Kept);
                supply = smaller;
                clearing = beside;
            }
        }
    }
    let mut out = gangs.clone();
    out.retain(|gang| matches!(fates[gang], Fate::Out(_)) && !hopeless.contains(gang));
    out.sort_by_key(|&gang| Reverse(rank(gang)));
    for gang in out {
        if passes >= PASSES_MAX {
            break;
        }
        let mut with = fates.clone();
        with.insert(gang, Fate::In);
        let tried = run(&with, &supply);
        passes += 1;
        let mut whole = gangs
            .iter()
            .filter(|&&other| other == gang || (fates[&other] == Fate::In && units(&clearing, other) > 0));
        if whole.all(|&other| units(&tried, other) >= book.bids[other].minimum) {
            fates = with;
            clearing = tried;
        }
    }
    outcome(book, &fates, &supply, &clearing)
}

fn outcome(book: &Book, fates: &BTreeMap<usize, Fate>, supply: &[u32], clearing: &Clearing) -> Outcome {
    let mut outcome =
        Outcome { surplus: clearing.surplus, sold: clearing.sold.clone(), ..Outcome::default() };
    let mut lowest: Vec<Option<u64>> = vec![None; book.markets.len()];
    for (number, bid) in book.bids.iter().enumerate() {
        let kept = fates.get(&number) == Some(&Fate::Kept);
        let mut won = Vec::new();
        for option in &bid.options {
            let units = if kept {
                option.running
            } else {
                clearing.won.get(&number).map_or(0, |won| won[option.market])
            };
            if units > 0 {
                won.push((option.market, units));
            }
            if kept && units > 0 {
                outcome.sold[option.market] += units;
                let gain = i128::from(option.running_limit) - i128::from(book.markets[option.market].reserve);
                outcome.surplus += i128::from(units) * gain;
                let least = lowest[option.market].map_or(option.limit, |least: u64| least.min(option.limit));
                lowest[option.market] = Some(least);
            }
        }
        outcome.won.push(won);
    }
    for market in 0..book.markets.len() {
        let ruled = match book.price_rule {
            PriceRule::HighestRejected => clearing.low[market],
            PriceRule::LowestAccepted => clearing.accepted[market],
        };
        let price = if supply[market] > 0 {
            Some(ruled as u64)
        } else {
            lowest[market].map(|lowest| lowest.max(book.markets[market].reserve))
        };
        outcome.prices.push(price);
    }
    let any_kept = fates.values().any(|&fate| fate == Fate::Kept);
    for (number, bid) in book.bids.iter().enumerate() {
        let beats = bid
            .options
            .iter()
            .any(|option| outcome.prices[option.market].is_some_and(|price| option.limit > price));
        let won: u32 = outcome.won[number].iter().map(|&(_, units)| units).sum();
        match fates.get(&number) {
            Some(&Fate::Out(short)) if beats => outcome.rejected.push((number, short)),
            None if any_kept && beats && won < bid.quantity => {
                outcome.rejected.push((number, bid.quantity - won));
            }
            _ => {}
        }
    }
    outcome
}
