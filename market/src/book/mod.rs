//! One market's standing units and what of them wins, kept exact after every change.
//!
//! The book is pure and knows one market and one-option divisible bids; see `README.md` beside this crate for the
//! rules and for why this structure obeys them. Limits are micro-dollars per hour, ages are arrival numbers
//! (smaller is older), units are servers.
//!
//! A *lot* is a group of units of one bid that took their place in the queue together. Operations change what
//! stands; [`Book::clear`] is a round: it gives the supply to whom it belongs, tells exactly which lots win another
//! number of units than before, and makes winners incumbent. Units that won in the last clearing are *held*.

// A few short steps make up every operation here, and calling them would cost more than taking them.
#![allow(clippy::inline_always)]
#![allow(clippy::needless_bitwise_bool, reason = "two tests at once, without a branch between them")]

mod bitmap;
mod digest;
mod error;
mod grid;
mod levels;
mod lots;
mod margin;
mod operate;
mod price;
mod rank;
mod round;
mod strays;
mod touch;

pub use error::BookError;
pub use grid::{is_rung, rung_above, rung_at_or_above};
pub use touch::Upcoming;

use std::collections::BTreeMap;

use proto::Price;
use proto::market::{Ladder, PriceRule};

use grid::Grid;
use levels::Levels;
use lots::{Lots, Record};
use margin::{LEVEL_TOP, Margin};
use price::Published;
use strays::Strays;

/// Rungs of a step ladder, zero included: the highest legal limit is one step less than this many steps, $262.143
/// on the default ladder. This is what a bitmap of three storeys holds.
pub const STEPS_MAX: u32 = 1 << 18;
/// Most different limits a book can hold when they are listed.
pub const LEVELS_MAX: u32 = 1 << 20;
/// Most lots in a book.
pub const LOTS_MAX: u32 = 1 << 26;
/// Most units of one lot.
pub const UNITS_MAX: u32 = u16::MAX as u32;
/// Most units in a book, and its largest supply.
pub const DEMAND_MAX: u32 = u32::MAX - 1;
/// Largest age.
pub const AGE_MAX: u64 = u64::MAX - 2;

/// Commands that [`Book::touch`] looks ahead at a time.
pub const TOUCHED_MAX: usize = 32;
/// Lots below which a book lies in the nearer caches, and looking ahead costs more than it saves.
const TOUCH_FROM: u32 = 1 << 15;

/// Levels a new book has room for; it grows fourfold when a higher limit comes.
const LEVELS_FIRST: u32 = 1 << 12;

/// A lot's number in its book. Numbers of removed lots are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lot(pub u32);

/// What a lot offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LotTerms {
    /// What a unit is worth to the bidder, in micro-dollars per hour: its limit; for units that hold a server, where
    /// the bid has one, its running limit.
    pub limit: u64,
    /// The plain limit, where `limit` is a running limit above it: such units never raise the price beyond it.
    pub plain_limit: Option<u64>,
    /// Place in the queue: smaller is older. No two lots of a book share one.
    pub age: u64,
    /// Units in all.
    pub units: u32,
    /// Of these, units that are incumbent: that won in the last clearing.
    pub held: u32,
}

/// How one lot's winnings changed in a clearing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The lot.
    pub lot: Lot,
    /// Units it held when the clearing began.
    pub before: u32,
    /// Units it has won.
    pub after: u32,
}

/// What becomes of a lot's place in the queue when its limit changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// It keeps its place, as when a limit is lowered.
    Keep,
    /// Its queued units take this new place; its incumbents keep theirs.
    New(u64),
    /// The rule: this new place for its queued units if the limit is raised, else it keeps its place.
    NewIfRaised(u64),
}

/// One market's standing units, in the order in which they win.
#[derive(Clone, Debug)]
pub struct Book {
    ladder: Ladder,
    price_rule: PriceRule,
    grid: Grid,
    lots: Lots,
    levels: Levels,
    margin: Margin,
    strays: Strays,
    supply: u32,
    reserve: u64,
    /// The lowest level that is not below the reserve.
    reserve_level: u32,
    /// Units that are held.
    sold: u32,
    demand: u32,
    /// Largest age a lot of this book ever had, plus one.
    age_next: u64,
    /// Sum of the digests of all lots.
    digest: u64,
    /// Plain limits, in micro-dollars, of winning lots at a running limit, with how many lots have each.
    plain_limits: BTreeMap<u64, u32>,
    published: Published,
    /// What the last clearing changed.
    changes: Vec<Change>,
}

impl Book {
    /// An empty book without supply.
    ///
    /// # Errors
    /// When the ladder is none: a step of zero, rungs that do not ascend, too many of them.
    pub fn new(ladder: Ladder, reserve: Price, price_rule: PriceRule) -> Result<Self, BookError> {
        let grid = Grid::new(&ladder, std::iter::empty())?;
        let mut book = Self {
            ladder,
            price_rule,
            lots: Lots::default(),
            levels: Levels::new(LEVELS_FIRST as usize),
            margin: Margin::at(LEVEL_TOP),
            strays: Strays::default(),
            grid,
            supply: 0,
            reserve: reserve.micros(),
            reserve_level: 0,
            sold: 0,
            demand: 0,
            age_next: 0,
            digest: 0,
            plain_limits: BTreeMap::new(),
            published: Published::default(),
            changes: Vec::new(),
        };
        book.reserve_level = book.grid.level_at_or_above(book.reserve);
        Ok(book)
    }

    /// A book that already holds these lots, supply and all, as after a restart: the lots get the numbers 0, 1, …
    /// in the order given. The next [`Book::clear`] tells what has become of what they hold.
    ///
    /// # Errors
    /// As for [`Book::new`] and [`Book::insert`], and when two lots share an age.
    pub fn load(
        ladder: Ladder,
        reserve: Price,
        price_rule: PriceRule,
        supply: u32,
        lots: &[LotTerms],
    ) -> Result<Self, BookError> {
        let mut book = Self::new(ladder, reserve, price_rule)?;
        book.load_lots(supply, lots)?;
        Ok(book)
    }

    /// What the last clearing changed, as [`Book::clear`] returned it.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Servers for sale.
    pub const fn supply(&self) -> u32 {
        self.supply
    }

    /// The least a unit sells for, in micro-dollars per hour.
    pub const fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Units that are held: after a clearing, units that win.
    pub const fn sold(&self) -> u32 {
        self.sold
    }

    /// Units that stand, whatever their limit.
    pub const fn demand(&self) -> u32 {
        self.demand
    }

    /// Whether the book is so large that [`Book::touch`] pays.
    pub const fn is_large(&self) -> bool {
        self.lots.live() >= TOUCH_FROM
    }

    /// Lots that stand.
    pub const fn len(&self) -> u32 {
        self.lots.live()
    }

    /// Whether no lot stands.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The legal limits.
    pub const fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// The least age a newcomer may have.
    pub const fn age_next(&self) -> u64 {
        self.age_next
    }

    /// What a lot offers, if it stands.
    pub fn terms(&self, lot: Lot) -> Option<LotTerms> {
        let record = self.lots.find(lot.0)?;
        Some(LotTerms {
            limit: self.grid.limit(record.level()),
            plain_limit: self.lots.plain_limit(lot.0),
            age: record.age,
            units: record.units(),
            held: record.held(),
        })
    }

    /// The limit of a lot, in micro-dollars per hour, if it stands.
    #[inline]
    pub fn limit(&self, lot: Lot) -> Option<u64> {
        self.lots.find(lot.0).map(|record| self.grid.limit(record.level()))
    }

    /// Units a lot won in the last clearing; none if it does not stand.
    pub fn won(&self, lot: Lot) -> u32 {
        self.lots.find(lot.0).map_or(0, Record::held)
    }

    /// All lots that stand, by number.
    pub fn lots(&self) -> impl Iterator<Item = (Lot, LotTerms)> + '_ {
        self.lots.numbers().filter_map(|lot| Some((Lot(lot), self.terms(Lot(lot))?)))
    }

    /// Bytes the book has reserved, everything included.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.lots.bytes()
            + self.levels.bytes()
            + self.margin.bytes()
            + self.strays.bytes()
            + self.grid.bytes()
            + self.changes.capacity() * size_of::<Change>()
    }
}
