//! The lots: who could stand where, and how many units of each do.

use super::arcs::{Entry, Key};
use super::weight::Weight;
use super::{LotTerms, OPTIONS_MAX, OUTSIDE};

/// One place where units of a lot can be: a market, or outside of all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    /// What a unit is worth here, in micro-dollars per hour; nothing outside.
    pub(super) worth: i64,
    /// The plain limit, where it is below the worth: else the worth.
    pub(super) plain: i64,
    /// The vertex.
    pub(super) vertex: u32,
    /// What the entries of this cell's moves in the arcs' heaps are known by, if they stand there; 0: they do not.
    pub(super) version: u32,
    /// What entries of moves to this cell are known by besides: another number whenever entering it weighs otherwise.
    pub(super) enters: u32,
    /// Units here.
    pub(super) units: u32,
    /// Incumbents here.
    pub(super) kept: u32,
}

impl Cell {
    pub(super) const fn is_listed(self) -> bool {
        self.version != 0
    }

    /// Whether one unit more here is an incumbent in its place.
    pub(super) const fn keeps_one_more(self) -> bool {
        self.units < self.kept
    }

    /// Whether one unit less here takes an incumbent out of its place. There are no incumbents outside.
    pub(super) const fn loses_one(self) -> bool {
        self.units <= self.kept && self.vertex != OUTSIDE
    }
}

/// A lot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    /// Where its cells begin: first outside, then the options in order.
    pub(super) cells: u32,
    /// How many cells; 0: no lot stands under this number.
    pub(super) width: u32,
    pub(super) age: u64,
    pub(super) number: u64,
    /// How many versions this lot's number has used up. It is never set back: entries of a lot that is gone, or of
    /// terms that are, stay dead.
    pub(super) versions: u32,
    /// Cells whose moves must be listed anew before anybody looks at the arcs, a bit for each.
    pub(super) stale: u64,
    /// Cells that only entering weighs otherwise, likewise.
    pub(super) stale_enters: u64,
    /// Whether it is on the list of those whose units moved since the last clearing.
    pub(super) is_touched: bool,
}

/// All lots.
#[derive(Clone, Debug, Default)]
pub(super) struct Lots {
    records: Vec<Record>,
    cells: Vec<Cell>,
    /// Free records.
    free: Vec<u32>,
    /// Free runs of cells, by width.
    free_cells: Vec<Vec<u32>>,
}

impl Lots {
    #[inline]
    pub(super) fn record(&self, lot: u32) -> Record {
        self.records[lot as usize]
    }

    pub(super) fn record_mut(&mut self, lot: u32) -> &mut Record {
        &mut self.records[lot as usize]
    }

    /// Whether a lot stands under this number.
    pub(super) fn stands(&self, lot: u32) -> bool {
        self.records.get(lot as usize).is_some_and(|record| record.width > 0)
    }

    /// All lots that stand, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records.len() as u32).filter(|&lot| self.record(lot).width > 0)
    }

    #[inline]
    pub(super) fn cell(&self, lot: u32, at: u32) -> Cell {
        self.cells[(self.record(lot).cells + at) as usize]
    }

    #[inline]
    pub(super) fn cell_mut(&mut self, lot: u32, at: u32) -> &mut Cell {
        let first = self.record(lot).cells;
        &mut self.cells[(first + at) as usize]
    }

    /// A lot's cells: outside, then its options in order.
    #[inline]
    pub(super) fn cells(&self, lot: u32) -> &[Cell] {
        let record = self.record(lot);
        let first = record.cells as usize;
        &self.cells[first..first + record.width as usize]
    }

    /// Which of a lot's cells is at a vertex.
    #[inline]
    pub(super) fn find(&self, lot: u32, vertex: u32) -> Option<u32> {
        self.cells(lot).iter().position(|cell| cell.vertex == vertex).map(|at| at as u32)
    }

    /// Takes a number for a new lot and lays out its cells, without units.
    pub(super) fn insert(&mut self, terms: &LotTerms<'_>) -> u32 {
        let lot = self.free.pop().unwrap_or_else(|| {
            self.records.push(Record::default());
            self.records.len() as u32 - 1
        });
        self.lay_out(lot, terms);
        lot
    }

    /// Lays out the cells of a lot that has none.
    pub(super) fn lay_out(&mut self, lot: u32, terms: &LotTerms<'_>) {
        let width = terms.options.len() as u32 + 1;
        self.free_cells.resize(OPTIONS_MAX + 2, Vec::new());
        let cells = self.free_cells[width as usize].pop().unwrap_or_else(|| {
            let first = self.cells.len();
            self.cells.resize(first + width as usize, Cell::default());
            first as u32
        });
        let slots = &mut self.cells[cells as usize..(cells + width) as usize];
        for (slot, option) in slots[1..].iter_mut().zip(terms.options) {
            let worth = option.worth as i64;
            *slot = Cell {
                worth,
                plain: option.plain_limit.map_or(worth, |plain| plain as i64),
                vertex: option.market + 1,
                version: 0,
                enters: 0,
                units: 0,
                kept: option.kept,
            };
        }
        slots[0] = Cell { vertex: OUTSIDE, ..Cell::default() };
        let (age, number) = (terms.age, terms.number);
        self.records[lot as usize] = Record { cells, width, age, number, ..self.record(lot) };
    }

    /// Gives a lot's cells back; none may be listed.
    pub(super) fn clear_out(&mut self, lot: u32) {
        let record = self.record(lot);
        self.free_cells[record.width as usize].push(record.cells);
        self.records[lot as usize].width = 0;
    }

    /// Gives a lot's number back. It must be off the list of the touched.
    pub(super) fn remove(&mut self, lot: u32) {
        self.free.push(lot);
    }

    /// What a unit in a cell weighs, incumbency apart.
    pub(super) fn weight(&self, lot: u32, at: u32) -> Weight {
        if at == 0 {
            return Weight::default();
        }
        let record = self.record(lot);
        Weight::of_unit(self.cell(lot, at).worth, record.age, record.number, at - 1)
    }

    /// What the next unit to enter a cell adds.
    pub(super) fn weight_of_entering(&self, lot: u32, at: u32) -> Weight {
        let mut weight = self.weight(lot, at);
        weight.kept += i64::from(self.cell(lot, at).keeps_one_more());
        weight
    }

    /// What moving the next unit from one cell to another adds.
    pub(super) fn weight_of_move(&self, lot: u32, from: u32, to: u32) -> Weight {
        let mut weight = self.weight_of_entering(lot, to) - self.weight(lot, from);
        weight.kept -= i64::from(self.cell(lot, from).loses_one());
        weight
    }

    /// How many units can move before that weight changes.
    pub(super) fn room_for_move(&self, lot: u32, from: u32, to: u32) -> u32 {
        let cell = self.cell(lot, from);
        let leaving = if cell.units > cell.kept { cell.units - cell.kept } else { cell.units };
        leaving.min(self.room_for_entering(lot, to))
    }

    /// How many units can enter before what they weigh changes.
    pub(super) fn room_for_entering(&self, lot: u32, at: u32) -> u32 {
        let cell = self.cell(lot, at);
        if cell.keeps_one_more() { cell.kept - cell.units } else { u32::MAX }
    }

    /// The entry of a move in its arc's heap.
    pub(super) fn entry(&self, lot: u32, from: u32, to: u32) -> Entry {
        let record = self.record(lot);
        let (cell, target) = (self.cell(lot, from), self.cell(lot, to));
        let kept = i64::from(target.keeps_one_more()) - i64::from(cell.loses_one());
        // Along one arc units sold change alike for all; an age counts where a unit is served or no more.
        let age = match (from, to) {
            (0, _) => -(record.age as i64),
            (_, 0) => record.age as i64,
            _ => 0,
        };
        // Outside counts as option 0 here, the others from 1, as in the last tie.
        let step = i64::from(to) - i64::from(from);
        let index = match (from, to) {
            (0, _) => 1 - i64::from(to),
            (_, 0) => i64::from(from) - 1,
            _ => -step,
        };
        let key = Key { lot, version: cell.version, enters: target.enters };
        Entry::new(target.worth - cell.worth, kept, age, index, step * record.number as i64, key)
    }

    /// The cells between which an entry tells a move, if that is still so.
    #[inline]
    pub(super) fn find_alive(&self, key: Key, from: u32, to: u32) -> Option<(u32, u32)> {
        let from = self.find(key.lot, from)?;
        if self.cell(key.lot, from).version != key.version {
            return None;
        }
        let to = self.find(key.lot, to)?;
        (self.cell(key.lot, to).enters == key.enters).then_some((from, to))
    }
}
