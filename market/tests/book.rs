//! The book against the rules spelt out slowly, on random sequences of events.

#![allow(clippy::unwrap_used, clippy::single_match_else, reason = "helpers of tests")]

#[path = "book/oracle.rs"]
mod oracle;

use std::collections::BTreeMap;

use market::book::{Book, BookError, Change, Lot, LotTerms, Place, rung_at_or_above};
use oracle::{Offer, Outcome};
use proptest::prelude::*;
use proto::Price;
use proto::market::{Ladder, PriceRule};

fn price(micros: u64) -> Price {
    Price::from_micros(micros).unwrap()
}

/// One random event. Lots are named by their place among those that stand.
#[derive(Clone, Debug)]
enum Step {
    Insert { limit: u64, plain: u64, units: u32, held: u32, pause: u64 },
    Remove { which: usize },
    Relimit { which: usize, limit: u64, plain: u64, renew: u8 },
    Resize { which: usize, units: u32, held: u32 },
    Supply { supply: u32 },
    Reserve { reserve: u64 },
    Ladder { which: usize },
    WithSupply { supply: u32 },
    Clear,
}

/// How limits are drawn.
#[derive(Clone, Copy, Debug)]
enum Limits {
    /// A handful of rungs: nearly everything ties.
    Coarse,
    /// Micro-dollars apart, off every ladder.
    Near,
    /// Anywhere on the default ladder, the highest rung included.
    Wide,
}

fn limit(limits: Limits) -> BoxedStrategy<u64> {
    match limits {
        Limits::Coarse => (1_u64..=5).prop_map(|rung| rung * 1_000).boxed(),
        Limits::Near => (2_997_u64..3_004).boxed(),
        Limits::Wide => prop_oneof![
            8 => (1_u64..3_000).prop_map(|rung| rung * 1_000),
            1 => (1_u64..(1 << 18)).prop_map(|rung| rung * 1_000),
        ]
        .boxed(),
    }
}

fn step(limits: Limits) -> impl Strategy<Value = Step> {
    // One lot in eight stands at a running limit, this much above its plain one.
    let plain = || prop_oneof![7 => Just(0_u64), 1 => (1_u64..9).prop_map(|more| more * 500)];
    let pause = prop_oneof![9 => 0_u64..3, 1 => (0_u64..3).prop_map(|half| half << 31)];
    prop_oneof![
        12 => (limit(limits), plain(), 1_u32..6, 0_u32..12, pause)
            .prop_map(|(limit, plain, units, held, pause)| Step::Insert { limit, plain, units, held, pause }),
        6 => any::<usize>().prop_map(|which| Step::Remove { which }),
        12 => (any::<usize>(), limit(limits), plain(), 0_u8..3)
            .prop_map(|(which, limit, plain, renew)| Step::Relimit { which, limit, plain, renew }),
        3 => (any::<usize>(), 1_u32..6, 0_u32..7)
            .prop_map(|(which, units, held)| Step::Resize { which, units, held }),
        5 => (0_u32..40).prop_map(|supply| Step::Supply { supply }),
        1 => limit(limits).prop_map(|limit| Step::Reserve { reserve: limit - limit % 700 }),
        1 => (0_usize..3).prop_map(|which| Step::Ladder { which }),
        2 => (0_u32..40).prop_map(|supply| Step::WithSupply { supply }),
        14 => Just(Step::Clear),
    ]
}

fn steps(limits: Limits) -> impl Strategy<Value = (bool, Vec<Step>)> {
    (any::<bool>(), prop::collection::vec(step(limits), 1..90))
}

/// A book and what it should hold.
struct Pair {
    book: Book,
    rule: PriceRule,
    offers: BTreeMap<u32, Offer>,
}

fn ladder(which: usize) -> Ladder {
    match which {
        0 => Ladder::default(),
        1 => Ladder::Step(price(500)),
        _ => Ladder::Rungs([1_000, 2_000, 3_000, 4_500, 9_000].map(price).to_vec()),
    }
}

impl Pair {
    fn new(highest_rejected: bool) -> Self {
        let rule = if highest_rejected { PriceRule::HighestRejected } else { PriceRule::LowestAccepted };
        let book = Book::new(Ladder::default(), price(1_000), rule).unwrap();
        Self { book, rule, offers: BTreeMap::new() }
    }

    fn pick(&self, which: usize) -> Option<u32> {
        self.offers.keys().nth(which % self.offers.len().max(1)).copied()
    }

    fn offer(&mut self, lot: Lot) {
        let terms = self.book.terms(lot).unwrap();
        let LotTerms { limit, plain_limit, age, units, held } = terms;
        self.offers.insert(lot.0, Offer { limit, plain_limit, age, units, held });
    }

    /// Carries out one event on both sides; after a clearing, compares everything.
    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let below = |limit: u64, less: u64| (less > 0).then_some(limit.saturating_sub(less));
        match *step {
            Step::Insert { limit, plain, units, held, pause } => {
                let age = self.book.age_next() + pause;
                let held = held.saturating_sub(6).min(units);
                let terms = LotTerms { limit, plain_limit: below(limit, plain), age, units, held };
                let lot = self.book.insert(terms).unwrap();
                prop_assert_eq!(self.book.terms(lot), Some(terms));
                self.offer(lot);
            }
            Step::Remove { which } => {
                let Some(lot) = self.pick(which) else { return Ok(()) };
                let held = self.book.remove(Lot(lot)).unwrap();
                prop_assert_eq!(self.offers.remove(&lot).map(|offer| offer.held), Some(held));
            }
            Step::Relimit { which, limit, plain, renew } => {
                let Some(lot) = self.pick(which) else { return Ok(()) };
                let (was, new) = (self.offers[&lot], self.book.age_next());
                let place = [Place::Keep, Place::New(new), Place::NewIfRaised(new)][usize::from(renew)];
                let renews = renew == 1 || (renew == 2 && limit > was.limit);
                let rest = self.book.relimit(Lot(lot), limit, below(limit, plain), place).unwrap();
                prop_assert_eq!(rest.is_some(), renews && was.held > 0 && was.held < was.units);
                for lot in rest.into_iter().chain([Lot(lot)]) {
                    self.offer(lot);
                }
                let now = self.offers[&lot];
                prop_assert_eq!((now.limit, now.held), (limit, was.held));
                prop_assert_eq!(now.age, if renews && was.held == 0 { new } else { was.age });
            }
            Step::Resize { which, units, held } => {
                let Some(lot) = self.pick(which) else { return Ok(()) };
                self.book.resize(Lot(lot), units, held.min(units)).unwrap();
                self.offer(Lot(lot));
            }
            Step::Supply { supply } => self.book.set_supply(supply).unwrap(),
            Step::Reserve { reserve } => self.book.set_reserve(price(reserve)),
            Step::Ladder { which } => self.book.set_ladder(ladder(which)).unwrap(),
            Step::WithSupply { supply } => return self.with_supply(supply),
            Step::Clear => return self.clear(),
        }
        prop_assert_eq!(self.book.content_hash(), self.book.content_hash_from_scratch());
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        oracle::clear(&self.offers, self.book.supply(), self.book.reserve(), self.rule)
    }

    fn clear(&mut self) -> Result<(), TestCaseError> {
        let now = self.outcome();
        let mut changes = self.book.clear().to_vec();
        changes.sort_unstable_by_key(|change| change.lot);
        let mut expected = Vec::new();
        for (&lot, offer) in &mut self.offers {
            let won = now.won.get(&lot).copied().unwrap_or(0);
            prop_assert_eq!(self.book.won(Lot(lot)), won, "lot {}", lot);
            if won != offer.held {
                expected.push(Change { lot: Lot(lot), before: offer.held, after: won });
                offer.held = won;
            }
        }
        prop_assert_eq!(changes, expected);
        prop_assert_eq!(self.book.price(), now.price);
        prop_assert_eq!(self.book.sold(), now.sold);
        prop_assert_eq!(self.book.surplus(), now.surplus);
        let units = |least: u64| {
            self.offers.values().filter(|offer| offer.limit >= least).map(|offer| offer.units).sum::<u32>()
        };
        prop_assert_eq!(self.book.demand(), units(0));
        prop_assert_eq!(self.book.content_hash(), self.book.content_hash_from_scratch());
        self.check_promises(&now)?;
        // Incumbents keep what they have: clearing again gives the same units at the same price.
        prop_assert_eq!(&self.outcome(), &now);
        let hash = self.book.content_hash();
        prop_assert!(self.book.clear().is_empty(), "clearing twice changes nothing");
        prop_assert_eq!((self.book.price(), self.book.content_hash()), (now.price, hash));
        Ok(())
    }

    /// What another supply would change is what the rules say, and asking leaves no trace.
    fn with_supply(&mut self, supply: u32) -> Result<(), TestCaseError> {
        let before = self.outcome();
        let after = oracle::clear(&self.offers, supply, self.book.reserve(), self.rule);
        let was = (self.book.content_hash(), self.book.price(), self.book.changes().to_vec());
        let changes = self.book.with_supply(supply).unwrap();
        let won = |outcome: &Outcome, lot| outcome.won.get(&lot).copied().unwrap_or(0);
        let expected: Vec<Change> = self
            .offers
            .keys()
            .map(|&lot| Change { lot: Lot(lot), before: won(&before, lot), after: won(&after, lot) })
            .filter(|change| change.before != change.after)
            .collect();
        prop_assert_eq!(changes, expected);
        prop_assert_eq!((self.book.content_hash(), self.book.price(), self.book.changes().to_vec()), was);
        Ok(())
    }

    /// No envy, no winner above its limit, nothing below the reserve, and what the lowest winning bid says is so.
    fn check_promises(&self, now: &Outcome) -> Result<(), TestCaseError> {
        let (supply, reserve) = (self.book.supply(), self.book.reserve());
        let Some(paid) = now.price else {
            prop_assert_eq!(self.book.lowest_winning_bid(), None);
            return Ok(());
        };
        prop_assert!(paid >= reserve);
        for (lot, offer) in &self.offers {
            let won = now.won.get(lot).copied().unwrap_or(0);
            prop_assert!(won == 0 || offer.limit >= paid);
            prop_assert!(won == offer.units || offer.limit <= paid || offer.limit < reserve);
        }
        let wins = |limit| oracle::would_win(&self.offers, supply, reserve, limit);
        match self.book.lowest_winning_bid() {
            Some(least) => {
                prop_assert!(wins(least), "{least} does not win");
                prop_assert_eq!(rung_at_or_above(self.book.ladder(), price(least)), Some(price(least)));
                let lower = (0..least)
                    .rev()
                    .take(2_000)
                    .find(|&limit| rung_at_or_above(self.book.ladder(), price(limit)) == Some(price(limit)));
                prop_assert!(lower.is_none_or(|lower| !wins(lower)), "{lower:?} wins too");
            }
            None => {
                let highest = match self.book.ladder() {
                    Ladder::Step(step) => step.micros() * ((1 << 18) - 1),
                    Ladder::Rungs(rungs) => rungs.last().unwrap().micros(),
                };
                prop_assert!(!wins(highest));
            }
        }
        Ok(())
    }

    /// The same content put into a fresh book gives the same answers.
    fn compare_with_scratch(&self) -> Result<(), TestCaseError> {
        let standing: Vec<(Lot, LotTerms)> = self.book.lots().collect();
        let terms: Vec<LotTerms> = standing.iter().map(|&(_, terms)| terms).collect();
        let reserve = price(self.book.reserve());
        let mut scratch =
            Book::load(self.book.ladder().clone(), reserve, self.rule, self.book.supply(), &terms).unwrap();
        prop_assert_eq!(scratch.content_hash(), self.book.content_hash());
        let mut book = self.book.clone();
        if book.clear().is_empty() {
            // A settled book shows its figures again as soon as it is loaded.
            prop_assert_eq!(scratch.price(), book.price());
            prop_assert_eq!(scratch.lowest_winning_bid(), book.lowest_winning_bid());
        }
        scratch.clear();
        prop_assert_eq!(scratch.price(), book.price());
        prop_assert_eq!(scratch.lowest_winning_bid(), book.lowest_winning_bid());
        prop_assert_eq!(scratch.content_hash(), book.content_hash());
        for (number, (lot, _)) in standing.into_iter().enumerate() {
            prop_assert_eq!(scratch.won(Lot(number as u32)), book.won(lot));
        }
        Ok(())
    }
}

fn run(highest_rejected: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(highest_rejected);
    for (number, step) in steps.iter().enumerate() {
        pair.take(step)?;
        if number % 8 == 0 {
            pair.compare_with_scratch()?;
        }
    }
    pair.compare_with_scratch()
}

/// At least 700 cases; more by `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(700), ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn agrees_with_the_rules_where_nearly_everything_ties((rule, steps) in steps(Limits::Coarse)) {
        run(rule, &steps)?;
    }

    #[test]
    fn agrees_with_the_rules_at_limits_a_hair_apart((rule, steps) in steps(Limits::Near)) {
        run(rule, &steps)?;
    }

    #[test]
    fn agrees_with_the_rules_across_the_ladder((rule, steps) in steps(Limits::Wide)) {
        run(rule, &steps)?;
    }
}

/// A small generator of numbers, the same everywhere (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// Crowded levels grow trees of several storeys; what the book says it changed is added up and compared with the
/// rules from time to time.
fn crowd(seed: u64, levels: u64, lots: usize, events: usize, clear_every: usize, compare_every: usize) {
    let mut numbers = Numbers(seed);
    let mut pair = Pair::new(false);
    let mut standing: Vec<u32> = Vec::new();
    let mut won: BTreeMap<u32, u32> = BTreeMap::new();
    for event in 0..events {
        let grow = standing.len() < lots && numbers.below(4) > 0;
        let kind = if grow { 0 } else { numbers.below(100) };
        let limit = (1 + numbers.below(levels)) * 1_000;
        let which = numbers.below(standing.len().max(1) as u64) as usize;
        if grow || (kind < 24 && standing.len() < 2 * lots) {
            // Now and then an age far ahead, so that leaves of different prefixes stand side by side.
            let age = pair.book.age_next() + if numbers.below(50) == 0 { 1 << 32 } else { 0 };
            let terms =
                LotTerms { limit, plain_limit: None, age, units: 1 + numbers.below(4) as u32, held: 0 };
            standing.push(pair.book.insert(terms).unwrap().0);
        } else if kind < 48 {
            let lot = standing.swap_remove(which);
            assert_eq!(pair.book.remove(Lot(lot)), Ok(won.remove(&lot).unwrap_or(0)));
        } else if kind < 98 {
            let lot = Lot(standing[which]);
            let place = Place::NewIfRaised(pair.book.age_next());
            standing.extend(pair.book.relimit(lot, limit, None, place).unwrap().map(|rest| rest.0));
        } else {
            let most = u64::from(pair.book.demand()) + 10;
            pair.book.set_supply(numbers.below(most) as u32).unwrap();
        }
        if event % clear_every != 0 {
            continue;
        }
        let expected = (event / clear_every).is_multiple_of(compare_every).then(|| {
            pair.offers.clear();
            for &lot in &standing {
                pair.offer(Lot(lot));
            }
            pair.outcome()
        });
        for change in pair.book.clear() {
            assert_eq!(won.remove(&change.lot.0).unwrap_or(0), change.before, "event {event}");
            if change.after > 0 {
                won.insert(change.lot.0, change.after);
            }
        }
        if let Some(now) = expected {
            assert_eq!(now.won, won, "event {event}");
            assert_eq!(now.price, pair.book.price(), "event {event}");
            assert_eq!(pair.book.content_hash(), pair.book.content_hash_from_scratch());
            pair.compare_with_scratch().unwrap();
        }
    }
}

#[test]
fn a_crowd_on_two_levels() {
    crowd(1, 2, 3_000, 12_000, 1, 200);
}

#[test]
fn a_small_crowd_on_ten_levels_compared_after_every_event() {
    crowd(4, 10, 400, 4_000, 1, 1);
}

#[test]
fn a_small_crowd_on_two_levels_compared_after_every_event() {
    crowd(4, 2, 100, 6_000, 1, 1);
}

#[test]
fn a_crowd_on_ten_levels_in_rounds_of_many_events() {
    crowd(2, 10, 3_000, 12_000, 37, 200);
}

#[test]
fn a_crowd_on_a_thousand_levels() {
    crowd(3, 1_000, 3_000, 12_000, 3, 200);
}

/// Units that each of these lots wins.
fn won(book: &Book, lots: &[Lot]) -> Vec<u32> {
    lots.iter().map(|&lot| book.won(lot)).collect()
}

#[test]
fn who_strays_below_the_margin_comes_back_before_those_that_wait_there() {
    let mut book = Book::new(Ladder::default(), price(1_000), PriceRule::default()).unwrap();
    let place = |book: &mut Book, rung: u64, units: u32| {
        let terms = LotTerms { limit: rung * 1_000, plain_limit: None, age: book.age_next(), units, held: 0 };
        book.insert(terms).unwrap()
    };
    let waits = place(&mut book, 5, 3);
    let (a, b, c) = (place(&mut book, 9, 2), place(&mut book, 7, 2), place(&mut book, 7, 1));
    book.set_supply(4).unwrap();
    book.clear();
    assert_eq!(won(&book, &[a, b, c, waits]), [2, 2, 0, 0]);
    let mut without_c = book.clone();
    without_c.remove(c).unwrap();
    for (book, expected) in [(&mut book, [0, 2, 1]), (&mut without_c, [1, 2, 1])] {
        book.relimit(a, 5_000, None, Place::Keep).unwrap();
        let d = place(book, 8, 1);
        book.clear();
        assert_eq!(won(book, &[a, b, d]), expected);
        assert_eq!((book.sold(), book.won(waits)), (4, 0));
    }
}

/// A ranking of a level is made anew when it has grown too far; that may come about in the middle of a clearing.
#[test]
fn many_of_a_level_move_in_one_clearing_however_many_came_late() {
    for late in 1..150 {
        let mut book = Book::new(Ladder::default(), price(1_000), PriceRule::default()).unwrap();
        let mut lots = Vec::new();
        for _ in 0..5 {
            let terms =
                LotTerms { limit: 30_000, plain_limit: None, age: book.age_next(), units: 2, held: 0 };
            lots.push(book.insert(terms).unwrap());
        }
        book.set_supply(3).unwrap();
        book.clear();
        for _ in 0..late {
            let terms =
                LotTerms { limit: 30_000, plain_limit: None, age: book.age_next(), units: 2, held: 0 };
            lots.push(book.insert(terms).unwrap());
            book.clear();
        }
        let all = 2 * lots.len() as u32;
        for supply in [all - 1, 3, all, 1] {
            book.set_supply(supply).unwrap();
            book.clear();
            assert_eq!(book.sold(), supply, "{late} came late");
            // The oldest win.
            let expected = (0..lots.len() as u32).map(|place| supply.saturating_sub(2 * place).min(2));
            assert_eq!(won(&book, &lots), expected.collect::<Vec<_>>(), "{late} came late, supply {supply}");
        }
    }
}

#[test]
fn impossible_operations_are_refused_and_change_nothing() {
    let mut book = Book::new(Ladder::default(), price(1_000), PriceRule::default()).unwrap();
    let terms = LotTerms { limit: 2_000, plain_limit: None, age: 5, units: 2, held: 1 };
    let lot = book.insert(terms).unwrap();
    book.set_supply(1).unwrap();
    let was = (book.content_hash(), book.age_next());
    assert_eq!(book.insert(terms), Err(BookError::Age { age: 5, least: 6 }));
    let next = LotTerms { age: 6, ..terms };
    assert_eq!(book.insert(LotTerms { units: 0, ..next }), Err(BookError::Units { units: 0 }));
    assert_eq!(book.insert(LotTerms { units: 65_536, ..next }), Err(BookError::Units { units: 65_536 }));
    assert_eq!(book.insert(LotTerms { held: 3, ..next }), Err(BookError::Held { held: 3, units: 2 }));
    let plain = LotTerms { plain_limit: Some(3_000), ..next };
    assert_eq!(book.insert(plain), Err(BookError::PlainLimit { plain_limit: 3_000, limit: 2_000 }));
    assert_eq!(book.remove(Lot(7)), Err(BookError::UnknownLot { lot: 7 }));
    assert_eq!(book.relimit(lot, 3_000, None, Place::New(4)), Err(BookError::Age { age: 4, least: 6 }));
    assert_eq!(book.resize(lot, 1, 2), Err(BookError::Held { held: 2, units: 1 }));
    assert_eq!(book.set_supply(u32::MAX), Err(BookError::Demand { units: u64::from(u32::MAX) }));
    assert_eq!(book.set_ladder(Ladder::Step(Price::ZERO)), Err(BookError::Step));
    assert_eq!((book.content_hash(), book.age_next()), was);
    let twice = Book::load(Ladder::default(), price(0), PriceRule::default(), 1, &[terms, terms]);
    assert_eq!(twice.err(), Some(BookError::AgeTwice { age: 5 }));
}
