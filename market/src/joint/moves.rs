//! Moving units, and keeping the arcs true while they move.

use super::arcs::{Key, Mover};
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

    /// Notes that moves of a lot must be listed anew: all of some cells', and those to some others.
    pub(super) fn mark(&mut self, lot: u32, stale: u64, stale_enters: u64) {
        if stale | stale_enters == 0 {
            return;
        }
        let record = self.lots.record_mut(lot);
        if record.stale | record.stale_enters == 0 {
            self.pending.push(lot);
        }
        record.stale |= stale;
        record.stale_enters |= stale_enters;
    }

    /// Makes the arcs true: lists anew whatever was marked. Whoever looks at them asks for this first, so that what
    /// changes several times before is listed once.
    pub(super) fn flush(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        for lot in pending.drain(..) {
            let record = self.lots.record_mut(lot);
            let (stale, stale_enters) =
                (std::mem::take(&mut record.stale), std::mem::take(&mut record.stale_enters));
            let width = record.width;
            let mut before = Vec::new();
            if stale_enters != 0 {
                before.extend(self.lots.cells(lot).iter().map(|cell| cell.enters));
            }
            for at in (0..width).filter(|at| stale_enters & (1 << at) != 0) {
                let version = self.next_version(lot);
                self.lots.cell_mut(lot, at).enters = version;
            }
            for at in 0..width {
                let is_stale = stale & (1 << at) != 0;
                let gone = self.lots.cell(lot, at).version;
                if is_stale {
                    let is_listed = self.lots.cell(lot, at).units > 0;
                    let version = if is_listed { self.next_version(lot) } else { 0 };
                    self.lots.cell_mut(lot, at).version = version;
                }
                let cell = self.lots.cell(lot, at);
                if gone == 0 && !cell.is_listed() {
                    continue;
                }
                for to in (0..width).filter(|&to| to != at) {
                    if !is_stale && stale_enters & (1 << to) == 0 {
                        continue;
                    }
                    let target = self.lots.cell(lot, to);
                    let enters = before.get(to as usize).copied().unwrap_or(target.enters);
                    let gone = (gone != 0).then_some(Key { lot, version: gone, enters });
                    let entry = cell.is_listed().then(|| self.lots.entry(lot, at, to));
                    let arc = self.arcs.find(cell.vertex, target.vertex);
                    self.arcs.relist(arc, gone, entry, &self.lots, &self.places);
                }
            }
        }
        self.pending = pending;
    }

    fn next_version(&mut self, lot: u32) -> u32 {
        let record = self.lots.record_mut(lot);
        record.versions += 1;
        record.versions
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

    /// Sets how many units of a lot are in some of its cells, and marks what is to be listed anew for it.
    pub(super) fn set_units(&mut self, lot: u32, changes: &[(u32, u32)]) {
        let (mut stale, mut stale_enters) = (0_u64, 0_u64);
        for &(at, units) in changes {
            let before = self.lots.cell(lot, at);
            self.count(lot, at, units);
            let after = self.lots.cell(lot, at);
            stale |= u64::from(lists_otherwise(before, after)) << at;
            stale_enters |= u64::from(before.keeps_one_more() != after.keeps_one_more()) << at;
        }
        self.mark(lot, stale, stale_enters);
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
