//! The round: what has changed since the last one.

use super::{Change, Joint, Lot, LotTerms};

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

    /// The lots of which the next round will have something to tell, in no particular order.
    pub fn shifted(&self) -> impl Iterator<Item = Lot> + '_ {
        let stands = self.touched.iter().filter(|&&lot| self.lots.stands(lot));
        let differs = |lot: u32| self.lots.cells(lot).iter().skip(1).any(|cell| cell.units != cell.kept);
        stands.filter(move |&&lot| differs(lot)).map(|&lot| Lot(lot))
    }

    /// Whether a lot stands with exactly these terms.
    pub fn offers(&self, lot: Lot, terms: &LotTerms<'_>) -> bool {
        if !self.lots.stands(lot.0) {
            return false;
        }
        let (record, cells) = (self.lots.record(lot.0), self.lots.cells(lot.0));
        let units: u32 = cells.iter().map(|cell| cell.units).sum();
        let is_same = (record.age, record.number, units) == (terms.age, terms.number, terms.units);
        is_same
            && cells.len() == terms.options.len() + 1
            && cells.iter().skip(1).zip(terms.options).all(|(cell, option)| {
                let plain = option.plain_limit.unwrap_or(option.worth);
                let said = (option.market + 1, option.worth as i64, plain as i64, option.kept);
                (cell.vertex, cell.worth, cell.plain, cell.kept) == said
            })
    }

    /// What the last clearing changed, as [`Joint::clear`] returned it.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}
