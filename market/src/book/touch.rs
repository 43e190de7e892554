//! Looking ahead: in a large book nearly every step of an operation waits for memory. Commands come in batches, so the
//! next ones are known, and reading what they will need, one kind of line after the other, lets the waiting overlap.

use super::{Book, Lot, TOUCHED_MAX};

impl Book {
    /// Reads what operations on these lots, and to these limits, are about to need; at most [`TOUCHED_MAX`] of each.
    /// Changes nothing; the sum it returns means nothing, and is there to be used, so that the reads are made.
    pub fn touch(&self, lots: &[Lot], limits: &[u64]) -> u64 {
        if !self.is_large() {
            return 0;
        }
        let mut sum = 0;
        // No step of one loop waits for another step of it.
        let mut rows = [(0, 0); TOUCHED_MAX];
        for (row, &limit) in rows.iter_mut().zip(limits) {
            *row = self.grid.level(limit).map_or((0, 0), |level| self.rows.touch_row(level));
        }
        let mut leaves = [0; TOUCHED_MAX];
        for (leaf, lot) in leaves.iter_mut().zip(lots) {
            *leaf = self.lots.find(lot.0).map_or(0, |record| record.leaf);
        }
        for &(root, tail) in rows.iter().take(limits.len()) {
            sum ^= self.rows.touch_root(root) ^ self.rows.touch_leaf(tail);
        }
        for &leaf in leaves.iter().take(lots.len()) {
            sum ^= self.rows.touch_leaf(leaf);
        }
        sum
    }
}
