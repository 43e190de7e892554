//! The cut between winners and losers, and the walk that moves it.

use super::lots::Record;
use super::{Book, Change, Lot};

/// How far the winners reach: every entry of a row above `row` wins in full, and in `row` every entry older than
/// `bound`, except that the youngest of these lacks `short` units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) row: u32,
    pub(super) bound: u64,
    pub(super) short: u32,
    /// The lot that lacks them; read only if `short` is not zero.
    pub(super) lot: u32,
}

impl Cut {
    /// Nothing wins.
    pub(super) const TOP: Self = Self::whole(u32::MAX);

    /// Everything down to the end of a row wins.
    pub(super) const fn whole(row: u32) -> Self {
        Self { row, bound: u64::MAX, short: 0, lot: 0 }
    }

    /// Whether the entry at this row and age is the youngest that the cut lets in.
    #[inline]
    pub(super) const fn is_at(&self, row: u32, age: u64) -> bool {
        self.row == row && age + 1 == self.bound
    }

    /// Units that an entry wins.
    #[inline]
    pub(super) const fn won(&self, row: u32, age: u64, units: u32) -> u32 {
        if row > self.row || (row == self.row && age < self.bound) {
            if self.is_at(row, age) { units - self.short } else { units }
        } else {
            0
        }
    }
}

impl Book {
    /// Units that a lot wins under a cut.
    #[inline]
    pub(super) fn won_by(&self, cut: &Cut, lot: u32, record: Record) -> u32 {
        let (held_row, queued_row) = self.lots.rows(lot, record);
        let (held, queued) = Self::parts(record);
        cut.won(held_row, record.age, held) + cut.won(queued_row, record.age, queued)
    }

    /// Units of a lot's entry in a row: odd rows are held.
    #[inline]
    fn units_in(record: Record, row: u32) -> u32 {
        if row & 1 == 1 { u32::from(record.held) } else { record.queued() }
    }

    /// Moves the cut until exactly the supply is sold, or all that may be; notes every lot it passes, except
    /// `edited`, whose change its operation notes itself.
    #[inline]
    pub(super) fn balance(&mut self, edited: u32) {
        let was = self.cut;
        let mut met_split = false;
        if self.sold > self.supply || self.cut.row < self.reserve_row {
            self.shrink(edited, &was, &mut met_split);
        } else if self.sold < self.supply {
            self.grow(edited, &was, &mut met_split);
        }
        if self.is_loose {
            self.tighten();
        }
        if met_split {
            self.settle_splits();
        }
        if self.lots.any_running() {
            self.follow_plain();
        }
    }

    /// Takes units from the last winners. Each turn either ends the walk, passes one entry, which is in the delta, or
    /// leaves a row for the next occupied one.
    fn shrink(&mut self, edited: u32, was: &Cut, met_split: &mut bool) {
        loop {
            let is_above_reserve = self.cut.row >= self.reserve_row;
            if is_above_reserve && self.sold <= self.supply {
                return;
            }
            let row = self.cut.row;
            let Some((age, lot)) = self.rows.last_below(row, self.cut.bound, &self.lots) else {
                self.cut = self.rows.at_or_above(row + 1).map_or(Cut::TOP, Cut::whole);
                self.is_loose = false;
                continue;
            };
            let record = self.lots.record(lot);
            let units = Self::units_in(record, row);
            let won = self.cut.won(row, age, units);
            let taken = if is_above_reserve { won.min(self.sold - self.supply) } else { won };
            self.sold -= taken;
            let left = won - taken;
            self.note(edited, lot, record, row, was, (won, left), met_split);
            if left > 0 {
                self.cut = Cut { row, bound: age + 1, short: units - left, lot };
                self.is_loose = false;
            } else {
                self.cut = Cut { row, bound: age, short: 0, lot };
                self.is_loose = true;
            }
        }
    }

    /// Gives units to the first losers.
    fn grow(&mut self, edited: u32, was: &Cut, met_split: &mut bool) {
        if self.cut.short > 0 {
            let Cut { row, lot, short, .. } = self.cut;
            let record = self.lots.record(lot);
            let won = Self::units_in(record, row) - short;
            let given = short.min(self.supply - self.sold);
            self.cut.short -= given;
            self.sold += given;
            self.note(edited, lot, record, row, was, (won, won + given), met_split);
        }
        while self.sold < self.supply {
            let beside = if self.cut.bound == u64::MAX {
                None
            } else {
                self.rows
                    .first_from(self.cut.row, self.cut.bound, &self.lots)
                    .map(|next| (self.cut.row, next))
            };
            let under = || {
                let row = self.rows.under(self.cut.row).filter(|&row| row >= self.reserve_row)?;
                Some((row, self.rows.first_from(row, 0, &self.lots)?))
            };
            let Some((row, (age, lot))) = beside.or_else(under) else { return };
            let record = self.lots.record(lot);
            let units = Self::units_in(record, row);
            let given = units.min(self.supply - self.sold);
            self.sold += given;
            self.cut = Cut { row, bound: age + 1, short: units - given, lot };
            self.is_loose = false;
            self.note(edited, lot, record, row, was, (0, given), met_split);
        }
    }

    /// Notes that the walk passed a lot's entry.
    #[inline]
    #[allow(clippy::too_many_arguments)] // one caller's locals, twice
    fn note(
        &mut self,
        edited: u32,
        lot: u32,
        record: Record,
        row: u32,
        was: &Cut,
        (before, after): (u32, u32),
        met_split: &mut bool,
    ) {
        if lot == edited {
            return;
        }
        if record.is_split() {
            // The lot stands in two rows: it is noted where the walk meets it first, and what it wins after the walk
            // is filled in when the walk has ended.
            let (held_row, queued_row) = self.lots.rows(lot, record);
            let (held, queued) = Self::parts(record);
            let (won_held, won_queued) =
                (was.won(held_row, record.age, held), was.won(queued_row, record.age, queued));
            let is_second = if after > before {
                row == queued_row && won_held < held
            } else {
                row == held_row && won_queued > 0
            };
            if !is_second {
                *met_split = true;
                self.delta.push(Change { lot: Lot(lot), before: won_held + won_queued, after: u32::MAX });
            }
            return;
        }
        self.delta.push(Change { lot: Lot(lot), before, after });
    }

    fn settle_splits(&mut self) {
        for index in 0..self.delta.len() {
            if self.delta[index].after == u32::MAX {
                let lot = self.delta[index].lot.0;
                self.delta[index].after = self.won_by(&self.cut, lot, self.lots.record(lot));
            }
        }
    }

    /// Moves the cut up to the last winner, if what stood at it has gone: the price is read from its row.
    #[inline]
    fn tighten(&mut self) {
        self.is_loose = false;
        let Cut { row, bound, .. } = self.cut;
        let stands = if bound == u64::MAX {
            self.rows.is_occupied(row)
        } else {
            self.rows.last_below(row, bound, &self.lots).is_some()
        };
        if !stands && row != u32::MAX {
            self.cut = self.rows.at_or_above(row + 1).map_or(Cut::TOP, Cut::whole);
        }
    }
}
