//! From the book as given to numbers that can be cleared.

use std::collections::BTreeMap;

use proto::market::{LEASES_NAMED_MAX, OPTIONS_MAX, QUANTITY_MAX, SUPPLY_MAX};
use proto::{BidId, MarketId};

use super::format::{BookBid, ClearError, ClearInput};
use super::{BIDS_MAX, MARKETS_MAX};

/// One option of a bid that stands: prices in micro-dollars per hour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// The market's place in the input.
    pub(super) market: usize,
    pub(super) limit: u64,
    /// What a unit that holds a server here is worth: the limit, if nothing else was said.
    pub(super) running_limit: u64,
    /// Units that hold a server here.
    pub(super) running: u32,
}

/// A bid that stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) quantity: u32,
    pub(super) minimum: u32,
    pub(super) options: Vec<Choice>,
}

/// Reads all bids of a book.
pub(super) fn standing(input: &ClearInput) -> Result<Vec<Standing>, ClearError> {
    bound("markets", input.markets.len(), MARKETS_MAX)?;
    bound("bids", input.bids.len(), BIDS_MAX)?;
    let mut markets: BTreeMap<&MarketId, usize> = BTreeMap::new();
    for (place, market) in input.markets.iter().enumerate() {
        if markets.insert(&market.market, place).is_some() {
            return Err(ClearError::twice(format!("markets[{place}].market"), market.market.as_str()));
        }
        bound(&format!("markets[{place}].supply"), market.supply as usize, SUPPLY_MAX as usize)?;
    }
    let mut names: BTreeMap<&BidId, usize> = BTreeMap::new();
    let mut bids = Vec::with_capacity(input.bids.len());
    for (place, bid) in input.bids.iter().enumerate() {
        if names.insert(&bid.id, place).is_some() {
            return Err(ClearError::twice(format!("bids[{place}].id"), bid.id.as_str()));
        }
        bids.push(read(place, bid, &markets)?);
    }
    Ok(bids)
}

fn bound(field: &str, found: usize, most: usize) -> Result<(), ClearError> {
    if found <= most {
        return Ok(());
    }
    Err(ClearError::Value {
        field: field.to_owned(),
        value: found.to_string(),
        problem: format!("at most {most}"),
    })
}

fn wrong(place: usize, name: &str, value: &dyn ToString, problem: &str) -> ClearError {
    ClearError::Value {
        field: format!("bids[{place}].{name}"),
        value: value.to_string(),
        problem: problem.to_owned(),
    }
}

fn read(place: usize, bid: &BookBid, markets: &BTreeMap<&MarketId, usize>) -> Result<Standing, ClearError> {
    if bid.quantity == 0 || bid.quantity > QUANTITY_MAX {
        return Err(wrong(place, "quantity", &bid.quantity, &format!("must be 1 to {QUANTITY_MAX}")));
    }
    if bid.min_quantity == 0 || bid.min_quantity > bid.quantity {
        return Err(wrong(place, "min_quantity", &bid.min_quantity, "must be 1 to the quantity"));
    }
    if bid.options.is_empty() || bid.options.len() > OPTIONS_MAX {
        let problem = format!("must be 1 to {OPTIONS_MAX} of them");
        return Err(wrong(place, "options", &bid.options.len(), &problem));
    }
    let mut options: Vec<Choice> = Vec::with_capacity(bid.options.len());
    for (at, option) in bid.options.iter().enumerate() {
        let Some(&market) = markets.get(&option.market) else {
            let name = format!("options[{at}].market");
            return Err(wrong(place, &name, &option.market, "no such market is given"));
        };
        if options.iter().any(|before| before.market == market) {
            let field = format!("bids[{place}].options[{at}].market");
            return Err(ClearError::twice(field, option.market.as_str()));
        }
        if let Some(running) = option.running_limit.filter(|running| *running < option.limit) {
            let name = format!("options[{at}].running_limit");
            return Err(wrong(place, &name, &running, "must not be below the limit"));
        }
        let running_limit = option.running_limit.unwrap_or(option.limit).micros();
        options.push(Choice { market, limit: option.limit.micros(), running_limit, running: 0 });
    }
    bound(&format!("bids[{place}].running"), bid.running.len(), LEASES_NAMED_MAX)?;
    let mut held = 0_u32;
    for (at, running) in bid.running.iter().enumerate() {
        let market = markets.get(&running.market);
        let Some(option) = options.iter_mut().find(|option| Some(&option.market) == market) else {
            let name = format!("running[{at}].market");
            return Err(wrong(place, &name, &running.market, "is none of the bid's options"));
        };
        option.running = option.running.saturating_add(running.units);
        held = held.saturating_add(running.units);
    }
    if held > bid.quantity {
        let problem = format!("more units than the bid's {}", bid.quantity);
        return Err(wrong(place, "running", &held, &problem));
    }
    Ok(Standing { quantity: bid.quantity, minimum: bid.min_quantity, options })
}
