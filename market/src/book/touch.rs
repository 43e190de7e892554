//! Looking ahead: in a large book nearly every step of an operation waits for memory. Commands come in batches, so the
//! next ones are known, and reading what they will need, one kind of line after the other, lets the waiting overlap.

use super::{Book, Lot, TOUCHED_MAX};

/// An operation that is about to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upcoming {
    /// The lot that will be taken out or get another limit; any lot, if there is none.
    pub lot: Lot,
    /// The limit that a lot will get, in micro-dollars per hour; any limit, if none will.
    pub limit: u64,
}

impl Default for Upcoming {
    fn default() -> Self {
        Self { lot: Lot(0), limit: 0 }
    }
}

impl Book {
    /// Reads what these operations are about to need; at most [`TOUCHED_MAX`] of them. Changes nothing; the sum it
    /// returns means nothing, and is there to be used, so that the reads are made.
    pub fn touch(&self, upcoming: &[Upcoming]) -> u64 {
        if !self.is_large() {
            return 0;
        }
        // No turn of one loop waits for another turn of it, and none depends on what kind of operation comes; each
        // loop waits once for all.
        let mut sum = 0;
        let mut neighbours = [[0; 3]; TOUCHED_MAX];
        for (ahead, next) in neighbours.iter_mut().zip(upcoming) {
            let first = self.levels.touch_first(self.grid.level(next.limit).unwrap_or(0));
            let [before, behind] = self.levels.touch(next.lot.0);
            sum ^= self.lots.touch(next.lot.0);
            *ahead = [before, behind, first];
        }
        for &lot in neighbours.iter().take(upcoming.len()).flatten() {
            sum ^= self.levels.touch(lot)[0];
        }
        u64::from(sum)
    }
}
