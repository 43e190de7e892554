//! The book itself, driven as the market drives it with a round at every command: the operation, the price, the exact
//! delta, and the winners made incumbent for the events that follow.

use std::collections::BTreeMap;

use market::book::{Book, Lot, LotTerms, Place};
use proto::Price;
use proto::market::{Ladder, PriceRule};

use crate::stream::{Event, Stream};

/// Micro-dollars of a rung of the default ladder.
const RUNG: u64 = 1_000;
/// Set in a bid's entry when the bid has further lots.
const MORE: u32 = 1 << 31;

pub struct Ours {
    pub book: Book,
    /// Lot of each bid.
    lots: Vec<u32>,
    /// Further lots of the few bids that were raised while they held a part of their units.
    more: BTreeMap<u32, Vec<Lot>>,
}

impl Ours {
    pub fn new(stream: &Stream) -> Self {
        let reserve = Price::from_micros(RUNG).expect("a price");
        let book = Book::new(Ladder::default(), reserve, PriceRule::LowestAccepted).expect("a ladder");
        let mut ours = Self { book, lots: Vec::new(), more: BTreeMap::new() };
        for &event in &stream.standing {
            ours.operate(event, &mut |_| ());
        }
        ours.operate(Event::Supply { supply: stream.supply }, &mut |_| ());
        ours.book.confirm();
        ours
    }

    /// One event; `look` sees the book after each operation it takes.
    #[inline]
    pub fn operate(&mut self, event: Event, look: &mut impl FnMut(&Book)) {
        match event {
            Event::Add { bid, rung, units } => {
                let age = self.book.age_next();
                let terms =
                    LotTerms { limit: u64::from(rung) * RUNG, running_limit: None, age, units, held: 0 };
                let lot = self.book.insert(terms).expect("a newcomer").0;
                if bid as usize == self.lots.len() {
                    self.lots.push(lot);
                } else {
                    self.lots[bid as usize] = lot;
                }
            }
            Event::Cancel { bid } => {
                let lot = self.lots[bid as usize];
                self.book.remove(Lot(lot & !MORE)).expect("a standing bid");
                if lot & MORE != 0 {
                    look(&self.book);
                    self.cancel_more(bid, look);
                    return;
                }
            }
            Event::Reprice { bid, rung } => {
                let lot = self.lots[bid as usize];
                self.reprice(bid, Lot(lot & !MORE), rung);
                if lot & MORE != 0 {
                    look(&self.book);
                    self.reprice_more(bid, rung, look);
                    return;
                }
            }
            Event::Supply { supply } => self.book.set_supply(supply).expect("a supply"),
        }
        look(&self.book);
    }

    /// Raising takes a new place, lowering keeps the old one.
    #[inline]
    fn reprice(&mut self, bid: u32, lot: Lot, rung: u32) {
        let limit = u64::from(rung) * RUNG;
        let raised = limit > self.book.limit(lot).expect("a standing bid");
        let place = if raised { Place::New(self.book.age_next()) } else { Place::Keep };
        if let Some(rest) = self.book.relimit(lot, limit, None, place).expect("a standing bid") {
            self.lots[bid as usize] |= MORE;
            self.more.entry(bid).or_default().push(rest);
        }
    }

    #[cold]
    fn cancel_more(&mut self, bid: u32, look: &mut impl FnMut(&Book)) {
        for lot in self.more.remove(&bid).unwrap_or_default() {
            self.book.remove(lot).expect("a standing lot");
            look(&self.book);
        }
    }

    #[cold]
    fn reprice_more(&mut self, bid: u32, rung: u32, look: &mut impl FnMut(&Book)) {
        for lot in self.more.get(&bid).cloned().unwrap_or_default() {
            self.reprice(bid, lot, rung);
            look(&self.book);
        }
    }

    /// Units a bid wins.
    pub fn won(&self, bid: u32) -> u32 {
        let more = self.more.get(&bid).into_iter().flatten();
        self.book.won(Lot(self.lots[bid as usize] & !MORE)) + more.map(|&lot| self.book.won(lot)).sum::<u32>()
    }

    /// All events, each with its price, delta and confirmation; returns a sum that depends on all of them.
    pub fn run(&mut self, events: &[Event]) -> u64 {
        let mut sum = 0_u64;
        for &event in events {
            self.operate(event, &mut |book| {
                for change in book.delta() {
                    sum = sum.wrapping_mul(3).wrapping_add(u64::from(change.after ^ change.lot.0));
                }
                sum = sum.wrapping_add(book.price().unwrap_or(0));
            });
            self.book.confirm();
        }
        sum
    }
}
