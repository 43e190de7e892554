//! The round: what has changed since the last one.

use super::{Change, Joint, Lot};

impl Joint {
    /// Closes a round: tells, for every lot and market where another number of units wins than is incumbent, both
    /// numbers, and makes winners incumbent. In order of lots, then options.
    ///
    /// That a unit is incumbent only makes leaving its place dearer, so the assignment stays the best.
    pub fn clear(&mut self) -> &[Change] {
        self.changes.clear();
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        for lot in touched.drain(..) {
            self.lots.record_mut(lot).is_touched = false;
            if self.lots.stands(lot) {
                self.clear_lot(lot);
            } else {
                self.lots.remove(lot);
            }
        }
        self.touched = touched;
        &self.changes
    }

    fn clear_lot(&mut self, lot: u32) {
        let width = self.lots.record(lot).width;
        let (mut stale, mut stale_enters) = (0_u64, 0_u64);
        for at in 1..width {
            let cell = self.lots.cell_mut(lot, at);
            let before = *cell;
            if before.units == before.kept {
                continue;
            }
            cell.kept = before.units;
            stale |= u64::from(before.loses_one() != cell.loses_one()) << at;
            stale_enters |= u64::from(before.keeps_one_more()) << at;
            let (market, after) = (before.vertex - 1, before.units);
            self.changes.push(Change { lot: Lot(lot), market, before: before.kept, after });
        }
        self.mark(lot, stale, stale_enters);
    }

    /// What the last clearing changed, as [`Joint::clear`] returned it.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}
