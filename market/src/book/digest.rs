//! A 64-bit digest of what a book holds, kept up with every change: a sum over the lots, so that the order in which
//! they came does not matter, and linear in a lot's units, so that winning and losing units costs one product. It
//! tells whether two books are the same; it is no defence against somebody who looks for collisions.

use super::Book;
use super::lots::Record;

/// Odd constants without a pattern (the fractional parts of the square roots of 2, 3, 5 and 7).
const KEY_AGE: u64 = 0x6a09_e667_f3bc_c909;
const KEY_LIMIT: u64 = 0xbb67_ae85_84ca_a73b;
const KEY_UNITS: u64 = 0x3c6e_f372_fe94_f82b;
const KEY_RUNNING: u64 = 0xa54f_f53a_5f1d_36f1;

/// Folds the 128-bit product of two words, the step of wyhash and its kin.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
const fn digest_of_place(age: u64, limit: u64) -> u64 {
    fold(age ^ KEY_AGE, limit ^ KEY_LIMIT)
}

impl Book {
    /// What one held unit of a lot adds.
    #[inline(always)]
    pub(super) fn digest_of_held(&self, record: Record) -> u64 {
        digest_of_place(record.age, self.grid.limit(record.level()))
    }

    /// What a lot with one limit adds after a move to this age and limit, less what it added before.
    #[inline(always)]
    pub(super) fn digest_of_move(&self, before: Record, age: u64, limit: u64) -> u64 {
        let units = (u64::from(before.units()) << 32) | u64::from(before.held());
        digest_of_place(age, limit).wrapping_sub(self.digest_of_held(before)).wrapping_mul(units)
    }

    /// What a lot adds.
    #[inline(always)]
    pub(super) fn digest_of(&self, lot: u32, record: Record) -> u64 {
        let units = (u64::from(record.units()) << 32) | u64::from(record.held());
        let digest = self.digest_of_held(record).wrapping_mul(units);
        if record.is_running() { digest.wrapping_add(self.digest_of_plain(lot, record)) } else { digest }
    }

    #[cold]
    fn digest_of_plain(&self, lot: u32, record: Record) -> u64 {
        self.lots.plain_limit(lot).map_or(0, |plain| fold(record.age ^ KEY_RUNNING, plain ^ KEY_AGE))
    }

    /// A digest of the lots with what they hold, the supply and the reserve. Two books that were led to the same
    /// content in different ways have the same.
    pub fn content_hash(&self) -> u64 {
        self.hash_with(self.digest)
    }

    /// The same, computed from nothing but the lots. Looks at every lot.
    pub fn content_hash_from_scratch(&self) -> u64 {
        let sum = |sum: u64, lot| sum.wrapping_add(self.digest_of(lot, self.lots.record(lot)));
        self.hash_with(self.lots.numbers().fold(0, sum))
    }

    const fn hash_with(&self, digest: u64) -> u64 {
        let market = fold(self.supply as u64 ^ KEY_UNITS, self.reserve ^ KEY_LIMIT);
        fold(digest ^ KEY_RUNNING, market ^ KEY_AGE)
    }
}
