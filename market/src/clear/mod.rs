//! Clearing a book that is given whole: the pure function behind `walras clear` (DESIGN §10), by the same [`Book`]
//! that the machine keeps.

mod format;

use std::collections::BTreeMap;

use proto::market::{LEASES_NAMED_MAX, OPTIONS_MAX, QUANTITY_MAX, SUPPLY_MAX};
use proto::{BidId, MarketId, Price};

use crate::book::{Book, BookError, Lot, LotTerms};

pub use format::{
    BidOutcome, ClearError, ClearInput, ClearOutput, MarketOutcome, Rejected, UnitsIn, clear_json,
};
use format::{BookBid, BookMarket};

/// Most bids of a book.
pub const BIDS_MAX: usize = 16_000_000;
/// Most markets of a book.
pub const MARKETS_MAX: usize = 65_536;

/// A bid's lots in its market, with the bid's place in the input.
struct Part {
    market: usize,
    lots: Vec<LotTerms>,
}

/// Clears a book. Bids are listed oldest first.
///
/// # Errors
/// The first value that cannot be, named by its field; and "not cleared yet" for bids that this version does not
/// clear: those with several options or a minimum.
pub fn clear(input: &ClearInput) -> Result<ClearOutput, ClearError> {
    bound("markets", input.markets.len(), MARKETS_MAX)?;
    bound("bids", input.bids.len(), BIDS_MAX)?;
    let mut markets: BTreeMap<&MarketId, usize> = BTreeMap::new();
    for (place, market) in input.markets.iter().enumerate() {
        if markets.insert(&market.market, place).is_some() {
            return Err(ClearError::twice(format!("markets[{place}].market"), market.market.as_str()));
        }
        bound(&format!("markets[{place}].supply"), market.supply as usize, SUPPLY_MAX as usize)?;
    }
    let mut parts = Vec::with_capacity(input.bids.len());
    let mut names: BTreeMap<&BidId, usize> = BTreeMap::new();
    for (place, bid) in input.bids.iter().enumerate() {
        if names.insert(&bid.id, place).is_some() {
            return Err(ClearError::twice(format!("bids[{place}].id"), bid.id.as_str()));
        }
        parts.push(part(place, bid, &markets)?);
    }
    // Lots of a market get the numbers 0, 1, … in the order given.
    let mut lots: Vec<Vec<LotTerms>> = vec![Vec::new(); input.markets.len()];
    for part in &parts {
        if let Some(lots) = lots.get_mut(part.market) {
            lots.extend_from_slice(&part.lots);
        }
    }
    let mut books = Vec::with_capacity(input.markets.len());
    for (place, (market, lots)) in input.markets.iter().zip(&lots).enumerate() {
        books.push(book(place, market, input, lots)?);
    }
    Ok(output(input, &books, &parts))
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

/// What a bid puts into its market's book.
fn part(place: usize, bid: &BookBid, markets: &BTreeMap<&MarketId, usize>) -> Result<Part, ClearError> {
    let field = |name: &str| format!("bids[{place}].{name}");
    let wrong = |name: &str, value: &dyn ToString, problem: &str| ClearError::Value {
        field: field(name),
        value: value.to_string(),
        problem: problem.to_owned(),
    };
    if bid.quantity == 0 || bid.quantity > QUANTITY_MAX {
        return Err(wrong("quantity", &bid.quantity, &format!("must be 1 to {QUANTITY_MAX}")));
    }
    if bid.min_quantity == 0 || bid.min_quantity > bid.quantity {
        return Err(wrong("min_quantity", &bid.min_quantity, "must be 1 to the quantity"));
    }
    if bid.options.is_empty() || bid.options.len() > OPTIONS_MAX {
        return Err(wrong("options", &bid.options.len(), &format!("must be 1 to {OPTIONS_MAX} of them")));
    }
    for (at, option) in bid.options.iter().enumerate() {
        if !markets.contains_key(&option.market) {
            return Err(wrong(&format!("options[{at}].market"), &option.market, "no such market is given"));
        }
        if bid.options.iter().take(at).any(|before| before.market == option.market) {
            return Err(ClearError::twice(field(&format!("options[{at}].market")), option.market.as_str()));
        }
        if let Some(running) = option.running_limit.filter(|running| *running < option.limit) {
            let name = format!("options[{at}].running_limit");
            return Err(wrong(&name, &running, "must not be below the limit"));
        }
    }
    if bid.options.len() > 1 {
        let problem = "not cleared yet: bids with several options";
        return Err(wrong("options", &bid.options.len(), problem));
    }
    if bid.min_quantity > 1 {
        return Err(wrong("min_quantity", &bid.min_quantity, "not cleared yet: bids with a minimum above 1"));
    }
    let [option] = bid.options.as_slice() else { return Err(wrong("options", &0, "is empty")) };
    bound(&field("running"), bid.running.len(), LEASES_NAMED_MAX)?;
    let mut held = 0_u32;
    for (at, running) in bid.running.iter().enumerate() {
        if running.market != option.market {
            let name = format!("running[{at}].market");
            return Err(wrong(&name, &running.market, "is none of the bid's options"));
        }
        held = held.saturating_add(running.units);
    }
    if held > bid.quantity {
        return Err(wrong("running", &held, &format!("more units than the bid's {}", bid.quantity)));
    }
    let market = markets.get(&option.market).copied().unwrap_or_default();
    let running = option.running_limit.unwrap_or(option.limit);
    Ok(Part { market, lots: lots(place, bid.quantity, held, option.limit, running) })
}

/// One lot; two where running units are worth more than queued ones. Ages follow the order of the bids.
fn lots(place: usize, quantity: u32, held: u32, limit: Price, running: Price) -> Vec<LotTerms> {
    let age = place as u64 * 2;
    let lot = |limit: Price, plain_limit, age, units, held| LotTerms {
        limit: limit.micros(),
        plain_limit,
        age,
        units,
        held,
    };
    if running == limit || held == 0 {
        return vec![lot(limit, None, age, quantity, held)];
    }
    let mut lots = vec![lot(running, Some(limit.micros()), age, held, held)];
    if quantity > held {
        lots.push(lot(limit, None, age + 1, quantity - held, 0));
    }
    lots
}

fn book(
    place: usize,
    market: &BookMarket,
    input: &ClearInput,
    lots: &[LotTerms],
) -> Result<Book, ClearError> {
    let refused = |error: BookError| ClearError::Value {
        field: format!("markets[{place}]"),
        value: market.market.to_string(),
        problem: error.to_string(),
    };
    let mut book = Book::load(market.ladder(), market.reserve, input.price_rule, market.supply, lots)
        .map_err(refused)?;
    book.clear();
    Ok(book)
}

fn output(input: &ClearInput, books: &[Book], parts: &[Part]) -> ClearOutput {
    let price = |micros: Option<u64>| micros.map(Price::micros_or_max);
    let markets = input.markets.iter().zip(books).map(|(market, book)| MarketOutcome {
        market: market.market.clone(),
        price: price(book.price()),
        sold: book.sold(),
        lowest_winning_bid: price(book.lowest_winning_bid()),
    });
    let mut next_lot = vec![0_u32; books.len()];
    let mut bids = Vec::with_capacity(input.bids.len());
    for (bid, part) in input.bids.iter().zip(parts) {
        let mut units = 0;
        if let (Some(book), Some(next)) = (books.get(part.market), next_lot.get_mut(part.market)) {
            for _ in &part.lots {
                units += book.won(Lot(*next));
                *next += 1;
            }
        }
        let market = input.markets.get(part.market).filter(|_| units > 0);
        let won = market.map(|market| UnitsIn { market: market.market.clone(), units });
        bids.push(BidOutcome { id: bid.id.clone(), units: won.into_iter().collect() });
    }
    let surplus: u128 = books.iter().map(Book::surplus).sum();
    ClearOutput {
        markets: markets.collect(),
        bids,
        surplus: Price::text_of_micros(surplus),
        paradoxically_rejected: Vec::new(),
    }
}
