//! The end of a round: winners become incumbents.

use super::walk::Cut;
use super::{Book, Change, Lot};

impl Book {
    /// Makes every winning unit incumbent and every losing one queued, and returns what that changed: each lot whose
    /// number of held units became another, `before` and `after` being the units held. This is the round's own
    /// delta, however many operations came before. Who wins stays, and with it the price; except that a unit which
    /// lost in spite of its running limit stands at its plain limit from now on, and no longer holds the price up.
    ///
    /// Costs as much as there are lots that changed since the last time.
    pub fn confirm(&mut self) -> &[Change] {
        self.confirmed.clear();
        let mut pending = std::mem::take(&mut self.pending);
        for &lot in &pending {
            self.confirm_lot(lot);
        }
        pending.clear();
        self.pending = pending;
        self.settle_cut();
        &self.confirmed
    }

    #[inline]
    fn confirm_lot(&mut self, lot: u32) {
        // The lot may have been removed since, or be in the list twice.
        let Some(record) = self.lots.find(lot) else { return };
        let (held_row, queued_row) = self.lots.rows(lot, record);
        let (held, queued) = Self::parts(record);
        let won = self.cut.won(held_row, record.age, held) + self.cut.won(queued_row, record.age, queued);
        if won == held {
            return;
        }
        self.digest = self.digest.wrapping_sub(self.digest_of(lot, record));
        // What the lot wins moves to its held row, in full; the cut must not count what stays behind.
        if self.cut.is_at(queued_row, record.age) {
            self.cut = Cut { row: queued_row, bound: record.age, short: 0, lot };
        } else if self.cut.is_at(held_row, record.age) {
            self.cut.short = 0;
        }
        let left = held + queued - won;
        self.change_entry(held_row, record.age, lot, held, won);
        self.change_entry(queued_row, record.age, lot, queued, left);
        self.lots.set_held(lot, won as u16);
        self.digest = self.digest.wrapping_add(self.digest_of(lot, self.lots.record(lot)));
        self.confirmed.push(Change { lot: Lot(lot), before: held, after: won });
    }

    #[inline]
    fn change_entry(&mut self, row: u32, age: u64, lot: u32, before: u32, after: u32) {
        if before == 0 {
            self.rows.insert(row, age, lot, after, &self.lots);
        } else if after == 0 {
            self.rows.remove(row, age, lot, before);
        } else {
            self.rows.adjust(row, before, after);
        }
        if row >= self.reserve_row {
            self.eligible = self.eligible - before + after;
        }
    }

    /// Once all winners are held and all held units win, the cut is the end of the lowest row of winners.
    #[inline]
    fn settle_cut(&mut self) {
        self.is_loose = false;
        if self.sold == 0 {
            self.cut = Cut::TOP;
            return;
        }
        // In a queued row nobody wins any more; held rows are odd.
        let from = self.cut.row + u32::from(self.cut.row & 1 == 0);
        self.cut = self.rows.at_or_above(from).map_or(Cut::TOP, Cut::whole);
    }
}
