//! Several markets cleared together: bids whose units take any one of several options.
//!
//! See `README.md` beside this crate, part 3, for the method and why it is exact. The engine is pure and always at
//! the best assignment: every operation ends there, whatever came before, to the last tie. [`Joint::clear`] is a
//! round: it tells what has changed since the last one and makes winners incumbent.
//!
//! A *lot* is a group of units of one bid that are worth the same in the same markets and took their place in the
//! queue together. Markets are numbered from 0. Money is micro-dollars per hour.

mod arcs;
mod ceiling;
mod check;
mod error;
mod gangs;
mod lots;
mod moves;
mod operate;
mod outcome;
mod price;
mod quote;
mod round;
mod search;
mod weight;

pub use check::Broken;
pub use error::JointError;
pub use gangs::{Fate, GANG_PASSES_MAX, Gang, OwnedTerms, settle};
pub use outcome::{Beside, Manner, Outcome};
pub use price::{Prices, Published};

use std::collections::BTreeMap;

use arcs::Arcs;
use ceiling::Ceiling;
use lots::Lots;
use search::Search;
use weight::Weight;

/// Most options of a lot.
pub const OPTIONS_MAX: usize = proto::market::OPTIONS_MAX;
/// Largest age.
pub const AGE_MAX: u64 = (1 << 56) - 1;
/// Largest lot number.
pub const NUMBER_MAX: u64 = (1 << 50) - 1;
/// Most units of a lot.
pub const UNITS_MAX: u32 = 1 << 30;
/// Most servers of a market.
pub const SUPPLY_MAX: u32 = 1 << 30;
/// Largest worth and reserve, in micro-dollars per hour: that of a price.
pub const WORTH_MAX: u64 = proto::Price::MAX.micros();

/// The vertex where units are that no market serves. Market `m` is vertex `m + 1`.
const OUTSIDE: u32 = 0;

/// A lot's handle. Those of removed lots are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lot(pub u32);

/// One option of a lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LotOption {
    /// Which market.
    pub market: u32,
    /// What a unit there counts for, in micro-dollars per hour: its effective limit. Below the reserve it cannot win.
    pub worth: u64,
    /// The plain limit, where that is below the worth: such units never raise the price beyond it.
    pub plain_limit: Option<u64>,
    /// How many of the lot's units are incumbent there.
    pub kept: u32,
}

/// What a lot offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LotTerms<'a> {
    /// Arrival order: smaller is older.
    pub age: u64,
    /// A number of its own, which settles the last ties: no two lots that stand share one. Not a handle, so that it
    /// does not depend on what stood here before.
    pub number: u64,
    /// Units in all.
    pub units: u32,
    /// The options, each unit to take at most one.
    pub options: &'a [LotOption],
}

/// How many units of a lot one market serves, before and after a clearing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The lot.
    pub lot: Lot,
    /// The market.
    pub market: u32,
    /// Incumbents there before.
    pub before: u32,
    /// Units that win there now.
    pub after: u32,
}

/// A market, or the outside.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    potential: Weight,
    reserve: i64,
    supply: u32,
    /// Servers nobody has won.
    free: u32,
    /// Servers set aside for the lot in hand.
    held_open: u32,
}

/// Markets that clear together, and everything that stands in them.
#[derive(Clone, Debug, Default)]
pub struct Joint {
    places: Vec<Place>,
    arcs: Arcs,
    lots: Lots,
    search: Search,
    ceiling: Ceiling,
    /// Lots with moves to be listed anew.
    pending: Vec<u32>,
    /// Lots whose units moved since the last clearing.
    touched: Vec<u32>,
    /// Plain limits of units that win at a higher worth: (vertex, limit) to how many cells of lots.
    plain_limits: BTreeMap<(u32, i64), u32>,
    /// Σ worth of all units served.
    worth: i128,
    changes: Vec<Change>,
}

impl Joint {
    /// No markets.
    pub fn new() -> Self {
        let mut joint = Self::default();
        joint.add_vertex();
        joint
    }

    fn add_vertex(&mut self) {
        self.places.push(Place::default());
        self.arcs.add_vertex();
        self.search.add_vertex();
    }

    /// Opens a market and returns its number.
    ///
    /// # Errors
    /// A reserve or supply past its bound.
    pub fn add_market(&mut self, reserve: u64, supply: u32) -> Result<u32, JointError> {
        error::check_reserve(reserve)?;
        error::check_supply(supply)?;
        self.add_vertex();
        let vertex = self.places.len() as u32 - 1;
        let place = &mut self.places[vertex as usize];
        place.reserve = reserve as i64;
        place.potential = Weight::of_free(place.reserve);
        place.supply = supply;
        place.free = supply;
        self.settle_outside(vertex);
        Ok(vertex - 1)
    }

    /// How many markets there are.
    pub fn markets(&self) -> u32 {
        self.places.len() as u32 - 1
    }

    fn place(&self, market: u32) -> Option<&Place> {
        self.places.get(market as usize + 1)
    }

    /// Servers for sale in a market.
    pub fn supply(&self, market: u32) -> u32 {
        self.place(market).map_or(0, |place| place.supply)
    }

    /// The least a unit sells for in a market.
    pub fn reserve(&self, market: u32) -> u64 {
        self.place(market).map_or(0, |place| place.reserve as u64)
    }

    /// Units that win in a market.
    pub fn sold(&self, market: u32) -> u32 {
        self.place(market).map_or(0, |place| place.supply - place.free)
    }

    /// Units of a lot that win in a market.
    pub fn won(&self, lot: Lot, market: u32) -> u32 {
        self.won_of(lot).find(|&(there, _)| there == market).map_or(0, |(_, units)| units)
    }

    /// What a lot wins: the markets of its options in their order, with the units there.
    pub fn won_of(&self, lot: Lot) -> impl Iterator<Item = (u32, u32)> + '_ {
        let cells = if self.lots.stands(lot.0) { self.lots.cells(lot.0) } else { &[] };
        cells.iter().skip(1).map(|cell| (cell.vertex - 1, cell.units))
    }

    /// Σ(worth − reserve) over the units that win, in micro-dollars per hour.
    pub fn surplus(&self) -> i128 {
        let reserved: i128 = self
            .places
            .iter()
            .map(|place| i128::from(place.reserve) * i128::from(place.supply - place.free))
            .sum();
        self.worth - reserved
    }

    /// Lots that stand.
    pub fn lots(&self) -> impl Iterator<Item = Lot> + '_ {
        self.lots.numbers().map(Lot)
    }
}
