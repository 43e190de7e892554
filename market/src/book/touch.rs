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

/// What is known of an operation, from one kind of line to the next.
#[derive(Clone, Copy, Default)]
struct Ahead {
    level: u32,
    place: u32,
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
        let mut aheads = [Ahead::default(); TOUCHED_MAX];
        for (ahead, next) in aheads.iter_mut().zip(upcoming) {
            let lot = next.lot.0;
            *ahead = Ahead { level: self.lots.touch(lot), place: self.bags.touch_place(lot) };
        }
        for (ahead, next) in aheads.iter_mut().zip(upcoming) {
            let level = self.grid.level(next.limit).unwrap_or(0);
            sum ^= self.bags.touch_end(level) ^ self.bags.touch_slot(ahead.place);
            ahead.place = self.bags.touch_end(ahead.level);
        }
        for ahead in &aheads[..upcoming.len().min(TOUCHED_MAX)] {
            sum ^= self.bags.touch_place(ahead.place);
        }
        u64::from(sum)
    }
}
