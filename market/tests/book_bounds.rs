//! What a book refuses to hold.

use market::book::{Book, BookError, DEMAND_MAX, LotTerms, UNITS_MAX};
use proto::Price;
use proto::market::{Ladder, PriceRule};

/// The machine asks the book for its demand before it takes a bid, so this bound is one that nobody reaches by
/// sending bids; it holds all the same.
#[test]
fn units_beyond_the_most_a_book_holds_are_refused_and_change_nothing() {
    let reserve = Price::from_micros(1_000).expect("a price");
    let mut book = Book::new(Ladder::default(), reserve, PriceRule::LowestAccepted).expect("a ladder");
    let lot = |age: u32, units| LotTerms { limit: 1_000, plain_limit: None, age: age.into(), units, held: 0 };
    let whole = DEMAND_MAX / UNITS_MAX;
    for age in 0..whole {
        book.insert(lot(age, UNITS_MAX)).expect("there is room");
    }
    let left = DEMAND_MAX - whole * UNITS_MAX;
    let hash = book.content_hash();
    let units = u64::from(DEMAND_MAX) + 1;
    assert_eq!(book.insert(lot(whole, left + 1)), Err(BookError::Demand { units }));
    assert_eq!(book.content_hash(), hash);
    book.insert(lot(whole, left)).expect("exactly as much as there is room for");
    assert_eq!(book.demand(), DEMAND_MAX);
}
