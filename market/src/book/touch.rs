//! Looking ahead: in a large book nearly every step of an operation waits for memory. Commands come in batches, so the
//! next ones are known, and reading what they will need, one kind of line after the other, lets the waiting overlap.

use super::lots::Record;
use super::rows::{Class, Spot};
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
        let mut records = [None; TOUCHED_MAX];
        for (record, next) in records.iter_mut().zip(upcoming) {
            *record = next.lot.and_then(|lot| self.lots.find(lot.0));
        }
        let mut spots = [Spot::NONE; TOUCHED_MAX];
        for ((spot, record), next) in spots.iter_mut().zip(&records).zip(upcoming) {
            sum ^= record.map_or(0, |record| self.rows.touch_leaf(record.leaf));
            let Some(level) = next.limit.and_then(|limit| self.grid.level(limit)) else { continue };
            *spot = match record {
                Some(record) => {
                    self.rows.spot(level, record.class(), stays_old(*record, level).then_some(record.age))
                }
                None => self.rows.spot(level, Class::Queued, None),
            };
        }
        for spot in spots.iter().take(upcoming.len()) {
            sum ^= self.rows.touch_root(*spot);
        }
        for spot in spots.iter().take(upcoming.len()) {
            sum ^= self.rows.touch_below(*spot);
        }
        sum
    }
}

/// Whether a lot keeps its age at another level, by the rule.
const fn stays_old(record: Record, level: u32) -> bool {
    record.held > 0 || level <= record.level()
}
