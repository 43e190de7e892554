//! Markets whose bids all have this one option: each clears by itself, in a book.

use proto::Price;

use super::format::{BookMarket, ClearError, ClearInput};
use super::validate::{Choice, Standing};
use super::{MarketFigures, Results};
use crate::book::{Book, BookError, Lot, LotTerms};

/// Clears a market by itself, with the bids at these places in the input, and notes what comes of it.
pub(super) fn clear(
    input: &ClearInput,
    place: usize,
    bids: &[usize],
    standing: &[Standing],
    results: &mut Results,
) -> Result<(), ClearError> {
    let Some(market) = input.markets.get(place) else { return Ok(()) };
    let mut terms = Vec::with_capacity(bids.len());
    let mut owners = Vec::with_capacity(bids.len());
    for &bid in bids {
        let Some((bid_terms, option)) =
            standing.get(bid).and_then(|terms| Some((terms, terms.options.first()?)))
        else {
            continue;
        };
        for lot in lots(bid, bid_terms.quantity, option) {
            terms.push(lot);
            owners.push(bid);
        }
    }
    let refused = |error: BookError| refused(place, market, &error);
    let mut book = Book::load(market.ladder(), market.reserve, input.price_rule, market.supply, &terms)
        .map_err(refused)?;
    book.clear();
    for (lot, &bid) in owners.iter().enumerate() {
        results.win(bid, place, book.won(Lot(lot as u32)));
    }
    results.surplus += book.surplus() as i128;
    let price = |micros: Option<u64>| micros.map(Price::micros_or_max);
    results.markets[place] = MarketFigures {
        price: price(book.price()),
        sold: book.sold(),
        lowest_winning_bid: price(book.lowest_winning_bid()),
    };
    Ok(())
}

/// One lot; two where running units are worth more than queued ones. Ages follow the order of the bids.
fn lots(place: usize, quantity: u32, option: &Choice) -> Vec<LotTerms> {
    let age = place as u64 * 2;
    let &Choice { limit, running_limit, running: held, .. } = option;
    if running_limit == limit || held == 0 {
        return vec![LotTerms { limit, plain_limit: None, age, units: quantity, held }];
    }
    let mut lots = vec![LotTerms { limit: running_limit, plain_limit: Some(limit), age, units: held, held }];
    if quantity > held {
        lots.push(LotTerms { limit, plain_limit: None, age: age + 1, units: quantity - held, held: 0 });
    }
    lots
}

/// A book's refusal as a line that names the market.
pub(super) fn refused(place: usize, market: &BookMarket, error: &dyn ToString) -> ClearError {
    ClearError::Value {
        field: format!("markets[{place}]"),
        value: market.market.to_string(),
        problem: error.to_string(),
    }
}
