//! The auction's rules for one market and one-option bids, spelt out the slow way: sort all units, walk, and read the
//! price from its definition. Nothing here is shared with the book.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use proto::market::PriceRule;

/// One lot, as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// What a unit counts for.
    pub(crate) limit: u64,
    /// The plain limit, where `limit` is a running limit.
    pub(crate) plain_limit: Option<u64>,
    pub(crate) age: u64,
    pub(crate) units: u32,
    pub(crate) held: u32,
}

/// What a clearing comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Units won by each lot that wins any.
    pub(crate) won: BTreeMap<u32, u32>,
    pub(crate) sold: u32,
    pub(crate) price: Option<u64>,
    pub(crate) surplus: u128,
}

/// Clears by sorting and walking.
pub(crate) fn clear(offers: &BTreeMap<u32, Offer>, supply: u32, reserve: u64, rule: PriceRule) -> Outcome {
    // One line per unit: value, whether it waits, age, lot.
    let mut units: Vec<(Reverse<u64>, bool, u64, u32)> = Vec::new();
    for (&lot, offer) in offers {
        for unit in 0..offer.units {
            let is_held = unit < offer.held;
            units.push((Reverse(offer.limit), !is_held, offer.age, lot));
        }
    }
    units.sort_unstable();
    let mut outcome = Outcome { won: BTreeMap::new(), sold: 0, price: None, surplus: 0 };
    let mut lowest_accepted = u64::MAX;
    let mut lowest_plain = u64::MAX;
    let mut highest_rejected = reserve;
    for &(Reverse(limit), _, _, lot) in &units {
        if limit >= reserve && outcome.sold < supply {
            *outcome.won.entry(lot).or_insert(0) += 1;
            outcome.sold += 1;
            outcome.surplus += u128::from(limit - reserve);
            lowest_accepted = lowest_accepted.min(limit);
            lowest_plain = lowest_plain.min(offers[&lot].plain_limit.unwrap_or(limit));
        } else {
            highest_rejected = highest_rejected.max(limit);
        }
    }
    outcome.price = if supply == 0 {
        None
    } else if outcome.sold < supply {
        Some(reserve)
    } else {
        Some(match rule {
            PriceRule::HighestRejected => highest_rejected,
            PriceRule::LowestAccepted => lowest_accepted.min(highest_rejected.max(lowest_plain)),
        })
    };
    outcome
}

/// Whether a youngest bid for one unit at `limit` would win.
pub(crate) fn would_win(offers: &BTreeMap<u32, Offer>, supply: u32, reserve: u64, limit: u64) -> bool {
    let newcomer = Offer { limit, plain_limit: None, age: u64::MAX, units: 1, held: 0 };
    let mut offers = offers.clone();
    offers.insert(u32::MAX, newcomer);
    clear(&offers, supply, reserve, PriceRule::default()).won.contains_key(&u32::MAX)
}
