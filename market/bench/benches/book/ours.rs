//! The book itself, driven as the market drives it with a round at every command: the operation, the price, the exact
//! delta, and the winners made incumbent for the events that follow.

use std::collections::BTreeMap;
use std::hint::black_box;

use market::book::{Book, Lot, LotTerms, Place, Upcoming};
use proto::Price;
use proto::market::{Ladder, PriceRule};

use crate::stream::{Event, Stream};

/// Micro-dollars of a rung of the default ladder.
const RUNG: u64 = 1_000;
/// Commands known at a time.
const BATCH: usize = 16;
/// Set in a bid's entry when the bid has further lots.
const MORE: u32 = 1 << 31;

pub(crate) struct Ours {
    pub(crate) book: Book,
    /// Lot of each bid.
    lots: Vec<u32>,
    /// Further lots of the few bids that were raised while they held a part of their units.
    more: BTreeMap<u32, Vec<Lot>>,
}

impl Ours {
    pub(crate) fn new(stream: &Stream) -> Self {
        let reserve = Price::from_micros(RUNG).expect("a price");
        let book = Book::new(Ladder::default(), reserve, PriceRule::LowestAccepted).expect("a ladder");
        let mut ours = Self { book, lots: Vec::new(), more: BTreeMap::new() };
        for &event in &stream.standing {
            ours.operate(event);
        }
        ours.operate(Event::Supply { supply: stream.supply });
        ours.book.clear();
        ours
    }

    /// One event, as the book takes it.
    #[inline(always)]
    pub(crate) fn operate(&mut self, event: Event) {
        match event {
            Event::Add { bid, rung, units } => {
                let age = self.book.age_next();
                let terms =
                    LotTerms { limit: u64::from(rung) * RUNG, plain_limit: None, age, units, held: 0 };
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
                    self.cancel_more(bid);
                }
            }
            Event::Reprice { bid, rung } => {
                let lot = self.lots[bid as usize];
                self.reprice(bid, Lot(lot & !MORE), rung);
                if lot & MORE != 0 {
                    self.reprice_more(bid, rung);
                }
            }
            Event::Supply { supply } => self.book.set_supply(supply).expect("a supply"),
        }
    }

    /// Raising takes a new place, lowering keeps the old one.
    #[inline(always)]
    fn reprice(&mut self, bid: u32, lot: Lot, rung: u32) {
        let place = Place::NewIfRaised(self.book.age_next());
        let rest = self.book.relimit(lot, u64::from(rung) * RUNG, None, place).expect("a standing bid");
        if let Some(rest) = rest {
            self.lots[bid as usize] |= MORE;
            self.more.entry(bid).or_default().push(rest);
        }
    }

    #[cold]
    fn cancel_more(&mut self, bid: u32) {
        for lot in self.more.remove(&bid).unwrap_or_default() {
            self.book.remove(lot).expect("a standing lot");
        }
    }

    #[cold]
    #[inline(never)]
    fn reprice_more(&mut self, bid: u32, rung: u32) {
        for lot in self.more.get(&bid).cloned().unwrap_or_default() {
            self.reprice(bid, lot, rung);
        }
    }

    /// Units a bid wins.
    pub(crate) fn won(&self, bid: u32) -> u32 {
        let more = self.more.get(&bid).into_iter().flatten();
        self.book.won(Lot(self.lots[bid as usize] & !MORE)) + more.map(|&lot| self.book.won(lot)).sum::<u32>()
    }

    /// All events, each followed by a clearing; returns a sum that depends on every price. Commands
    /// come in batches, so that the book may look ahead.
    pub(crate) fn run(&mut self, events: &[Event]) -> u64 {
        let mut sum = 0_u64;
        for batch in events.chunks(BATCH) {
            if self.book.is_large() {
                sum ^= self.touch(batch);
            }
            for &event in batch {
                self.operate(event);
                sum = sum.wrapping_add(self.book.clear().len() as u64);
                sum = sum.wrapping_add(self.book.price().unwrap_or(0));
                // The delta and all else may be read here.
                black_box(&self.book);
            }
        }
        sum
    }

    #[inline]
    fn touch(&self, batch: &[Event]) -> u64 {
        let mut upcoming = [Upcoming::default(); BATCH];
        for (next, &event) in upcoming.iter_mut().zip(batch) {
            // A bid may be added within the batch; then it needs no looking ahead.
            let (bid, rung) = match event {
                Event::Reprice { bid, rung } | Event::Add { bid, rung, .. } => (bid, rung),
                Event::Cancel { bid } => (bid, 0),
                Event::Supply { .. } => (0, 0),
            };
            let lot = self.lots.get(bid as usize).map_or(0, |lot| lot & !MORE);
            *next = Upcoming { lot: Lot(lot), limit: u64::from(rung) * RUNG };
        }
        self.book.touch(&upcoming)
    }
}
