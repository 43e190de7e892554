//! Looking ahead: in a large book nearly every step of an operation waits for memory. Commands come in batches, so the
//! next ones are known, and reading what they will need, one kind of line after the other, lets the waiting overlap.

use super::{Book, Lot, TOUCHED_MAX};

/// An operation that is about to come: on a standing lot, or to a limit, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upcoming {
    /// The lot that will be taken out or get another limit.
    pub lot: Option<Lot>,
    /// The limit that a lot will get.
    pub limit: Option<u64>,
}

impl Book {
    /// Reads what these operations are about to need; at most [`TOUCHED_MAX`] of them. Changes nothing; the sum it
    /// returns means nothing, and is there to be used, so that the reads are made.
    pub fn touch(&self, upcoming: &[Upcoming]) -> u64 {
        if !self.is_large() {
            return 0;
        }
        let mut sum = 0;
        // No turn of one loop waits for another turn of it; each loop waits once for all.
        let mut lasts = [0; TOUCHED_MAX];
        for (last, next) in lasts.iter_mut().zip(upcoming) {
            if let Some(record) = next.lot.and_then(|lot| self.lots.find(lot.0)) {
                *last = self.bags.touch_end(record.level());
            }
        }
        for next in upcoming {
            let level = next.limit.and_then(|limit| self.grid.level(limit)).unwrap_or(0);
            sum ^= self.bags.touch_end(level) ^ next.lot.map_or(0, |lot| self.bags.touch_slot(lot.0));
        }
        for last in lasts {
            sum ^= self.bags.touch_place(last);
        }
        u64::from(sum)
    }
}
