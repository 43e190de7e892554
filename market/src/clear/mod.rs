//! Clearing a book that is given whole: the pure function behind `walras clear` (DESIGN §10), by the same structures
//! that the machine keeps. A market that only one-option bids without a minimum name clears by itself in a
//! [`Book`](crate::book::Book); the others clear together, in a [`Joint`](crate::joint::Joint).

mod format;
mod several;
mod single;
mod validate;

use proto::Price;

pub use format::{
    BidOutcome, ClearError, ClearInput, ClearOutput, MarketOutcome, Rejected, UnitsIn, clear_json,
};

/// Most bids of a book.
pub const BIDS_MAX: usize = 16_000_000;
/// Most markets of a book.
pub const MARKETS_MAX: usize = 65_536;

/// What a market came to.
#[derive(Clone, Copy, Debug, Default)]
struct MarketFigures {
    price: Option<Price>,
    sold: u32,
    lowest_winning_bid: Option<Price>,
}

/// What everything came to, by place in the input.
#[derive(Clone, Debug, Default)]
struct Results {
    markets: Vec<MarketFigures>,
    /// What each bid won: places of markets and units.
    won: Vec<Vec<(usize, u32)>>,
    surplus: i128,
    /// Bids left out although their limit beats the price, and the units they missed.
    rejected: Vec<(usize, u32)>,
}

impl Results {
    /// Notes that a bid won units.
    fn win(&mut self, bid: usize, market: usize, units: u32) {
        let Some(won) = self.won.get_mut(bid).filter(|_| units > 0) else { return };
        match won.iter_mut().find(|(there, _)| *there == market) {
            Some((_, before)) => *before += units,
            None => won.push((market, units)),
        }
    }
}

/// Clears a book. Bids are listed oldest first.
///
/// # Errors
/// The first value that cannot be, named by its field.
pub fn clear(input: &ClearInput) -> Result<ClearOutput, ClearError> {
    let standing = validate::standing(input)?;
    let mut is_joint = vec![false; input.markets.len()];
    for bid in standing.iter().filter(|bid| bid.options.len() > 1 || bid.minimum > 1) {
        for option in &bid.options {
            is_joint[option.market] = true;
        }
    }
    // Bids with one option in a market that clears by itself, by market; all others.
    let mut alone: Vec<Vec<usize>> = vec![Vec::new(); input.markets.len()];
    let mut together = Vec::new();
    for (place, bid) in standing.iter().enumerate() {
        match bid.options.as_slice() {
            [option] if !is_joint[option.market] => alone[option.market].push(place),
            _ => together.push(place),
        }
    }
    let mut results = Results {
        markets: vec![MarketFigures::default(); input.markets.len()],
        won: vec![Vec::new(); input.bids.len()],
        ..Results::default()
    };
    for (place, bids) in alone.iter().enumerate().filter(|&(place, _)| !is_joint[place]) {
        single::clear(input, place, bids, &standing, &mut results)?;
    }
    let coupled: Vec<usize> = (0..is_joint.len()).filter(|&place| is_joint[place]).collect();
    if !coupled.is_empty() {
        several::clear(input, &coupled, &together, &standing, &mut results)?;
    }
    Ok(output(input, &standing, results))
}

fn output(input: &ClearInput, standing: &[validate::Standing], results: Results) -> ClearOutput {
    let markets = input.markets.iter().zip(&results.markets).map(|(market, figures)| MarketOutcome {
        market: market.market.clone(),
        price: figures.price,
        sold: figures.sold,
        lowest_winning_bid: figures.lowest_winning_bid,
    });
    let bids = input.bids.iter().zip(standing).zip(results.won).map(|((bid, standing), won)| {
        // In the order of the bid's options.
        let units = standing.options.iter().filter_map(|option| {
            let &(place, units) = won.iter().find(|&&(place, _)| place == option.market)?;
            Some(UnitsIn { market: input.markets.get(place)?.market.clone(), units })
        });
        BidOutcome { id: bid.id.clone(), units: units.collect() }
    });
    let (markets, bids) = (markets.collect(), bids.collect());
    let surplus = Price::text_of_micros(results.surplus.max(0).unsigned_abs());
    ClearOutput { markets, bids, surplus, paradoxically_rejected: several::rejected(input, results.rejected) }
}
