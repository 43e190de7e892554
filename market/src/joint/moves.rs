//! Moving units, and keeping the arcs true while they move.

use super::arcs::Mover;
use super::lots::Cell;
use super::{Joint, OUTSIDE};

impl Joint {
    /// Finds out anew who moves first between a market and the outside, where free servers count too.
    pub(super) fn settle_outside(&mut self, vertex: u32) {
        for (from, to) in [(OUTSIDE, vertex), (vertex, OUTSIDE)] {
            let arc = self.arcs.find(from, to);
            self.arcs.settle(arc, &self.lots, &self.places);
        }
    }

    /// Makes the arcs' entries for a cell say what its units can do now.
    pub(super) fn list(&mut self, lot: u32, at: u32) {
        let cell = self.lots.cell(lot, at);
        let (was_listed, is_listed) = (cell.is_listed(), cell.units > 0);
        if !was_listed && !is_listed {
            return;
        }
        let record = self.lots.record_mut(lot);
        record.versions += 1;
        let (width, version) = (record.width, if is_listed { record.versions } else { 0 });
        self.lots.cell_mut(lot, at).version = version;
        for to in (0..width).filter(|&to| to != at) {
            let arc = self.arcs.find(cell.vertex, self.lots.cell(lot, to).vertex);
            if was_listed {
                self.arcs.bury(arc, &self.lots);
            }
            if is_listed {
                self.arcs.push(arc, self.lots.entry(lot, at, to));
            }
            self.arcs.settle(arc, &self.lots, &self.places);
        }
    }

    /// Puts a lot on the list of those to be told about.
    pub(super) fn touch(&mut self, lot: u32) {
        let record = self.lots.record_mut(lot);
        if !record.is_touched {
            record.is_touched = true;
            self.touched.push(lot);
        }
    }

    /// Changes how many units of a lot are in a cell, sums included, entries not.
    fn count(&mut self, lot: u32, at: u32, units: u32) {
        let cell = self.lots.cell_mut(lot, at);
        let before = *cell;
        cell.units = units;
        self.worth += i128::from(before.worth) * (i128::from(units) - i128::from(before.units));
        if before.plain < before.worth && (before.units == 0) != (units == 0) {
            let key = (before.vertex, before.plain);
            let cells = self.plain_limits.entry(key).or_insert(0);
            if units > 0 {
                *cells += 1;
            } else {
                *cells -= 1;
                if *cells == 0 {
                    self.plain_limits.remove(&key);
                }
            }
        }
    }

    /// Sets how many units of a lot are in some of its cells, and lists anew what that changes.
    pub(super) fn set_units(&mut self, lot: u32, changes: &[(u32, u32)]) {
        let mut enters_otherwise = false;
        let mut stale = 0_u64;
        for &(at, units) in changes {
            let before = self.lots.cell(lot, at);
            self.count(lot, at, units);
            let after = self.lots.cell(lot, at);
            enters_otherwise |= before.keeps_one_more() != after.keeps_one_more();
            if lists_otherwise(before, after) {
                stale |= 1 << at;
            }
        }
        for at in 0..self.lots.record(lot).width {
            // Where entering some cell weighs otherwise now, so do the moves of all the others.
            if stale & (1 << at) != 0 || (enters_otherwise && self.lots.cell(lot, at).is_listed()) {
                self.list(lot, at);
            }
        }
        self.touch(lot);
    }

    /// How many units can move along the path found before a weight on it changes.
    pub(super) fn room_on_path(&self) -> u32 {
        let mut room = u32::MAX;
        for &arc in &self.search.path {
            let arc = &self.arcs.arcs[arc as usize];
            room = room.min(match arc.mover {
                Mover::Nobody => 0,
                Mover::Free if arc.from == OUTSIDE => u32::MAX,
                Mover::Free => self.places[arc.from as usize].free,
                Mover::Unit(lot) => match (self.lots.find(lot, arc.from), self.lots.find(lot, arc.to)) {
                    (Some(from), Some(to)) => self.lots.room_for_move(lot, from, to),
                    _ => 0,
                },
            });
        }
        room
    }

    /// Moves units along the path found.
    pub(super) fn move_on_path(&mut self, units: u32) {
        let mut path = std::mem::take(&mut self.search.path);
        // All movers are read before any of them moves, for their moves change who is first.
        let movers = path.drain(..).map(|arc| {
            let arc = &self.arcs.arcs[arc as usize];
            (arc.mover, arc.from, arc.to)
        });
        let movers: Vec<_> = movers.collect();
        for (mover, from, to) in movers {
            match mover {
                Mover::Nobody => {}
                Mover::Free if from == OUTSIDE => {
                    self.places[to as usize].free += units;
                    self.settle_outside(to);
                }
                Mover::Free => {
                    self.places[from as usize].free -= units;
                    self.settle_outside(from);
                }
                Mover::Unit(lot) => {
                    if let (Some(from), Some(to)) = (self.lots.find(lot, from), self.lots.find(lot, to)) {
                        let leaves = self.lots.cell(lot, from).units - units;
                        let enters = self.lots.cell(lot, to).units + units;
                        self.set_units(lot, &[(from, leaves), (to, enters)]);
                    }
                }
            }
        }
        self.search.path = path;
    }
}

/// Whether the entries of a cell are no longer what they should be.
fn lists_otherwise(before: Cell, after: Cell) -> bool {
    before.is_listed() != (after.units > 0) || before.loses_one() != after.loses_one()
}
