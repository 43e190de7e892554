//! A 64-bit digest of what a book holds, kept up with every change: the sum of one digest per lot, so that the order
//! in which lots came does not matter. It tells whether two books are the same; it is no defence against somebody
//! who looks for collisions.

use super::Book;
use super::lots::Record;

/// Odd constants without a pattern (the fractional parts of the square roots of 2, 3 and 5).
const KEY_AGE: u64 = 0x6a09_e667_f3bc_c909;
const KEY_TERMS: u64 = 0xbb67_ae85_84ca_a73b;
const KEY_LIMIT: u64 = 0x3c6e_f372_fe94_f82b;

/// Folds the 128-bit product of two words, the step of wyhash and its kin.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a ^ KEY_AGE) as u128 * (b ^ KEY_TERMS) as u128;
    product as u64 ^ (product >> 64) as u64
}

impl Book {
    /// The digest of one lot: its age, limits and units.
    #[inline]
    pub(super) fn digest_of(&self, lot: u32, record: Record) -> u64 {
        let limit = self.grid.limit(record.level()).wrapping_mul(KEY_LIMIT);
        let units = (u64::from(record.units) << 16) | u64::from(record.held);
        let mut terms = limit ^ units;
        if record.has_running() {
            let running = self.grid.limit(self.lots.running_level(lot, record));
            terms ^= fold(running, KEY_LIMIT);
        }
        fold(record.age, terms)
    }

    /// A digest of the lots with what they hold, the supply and the reserve. Two books that were led to the same
    /// content in different ways have the same.
    pub fn content_hash(&self) -> u64 {
        fold(self.digest, fold(u64::from(self.supply), self.reserve))
    }

    /// The same, computed from nothing but the lots.
    pub fn content_hash_from_scratch(&self) -> u64 {
        let digest = self
            .lots
            .numbers()
            .fold(0_u64, |sum, lot| sum.wrapping_add(self.digest_of(lot, self.lots.record(lot))));
        fold(digest, fold(u64::from(self.supply), self.reserve))
    }
}
