//! What an assignment, or a change of one, is worth: rule 1's lexicographic order as a number that adds up.

use std::ops::{Add, Sub};

use super::AGE_MAX;

/// What one served unit counts in [`Weight::served`], before its age is taken off: more than any age.
const SERVED: i64 = 1 << 58;
/// Bits of a lot's digest in [`Weight::last`], with room for the sum over a path.
const DIGEST_BITS: u32 = 40;
const DIGEST_SHIFT: u32 = DIGEST_BITS + 13;
/// What an arc without anybody to move weighs: below any sum of weights that occurs, and far from overflow.
pub(super) const NOTHING: i64 = i64::MIN / 4;

const _: () = assert!((AGE_MAX as i64) < SERVED);

/// Compared field by field, added field by field. Sums over the units of an assignment, and over the arcs of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    /// Σ effective limits of the units served and reserves of the servers left over, in micro-dollars per hour. A
    /// market is always full if its free servers are counted as units worth the reserve, so this differs from the
    /// surplus by a constant.
    pub(super) surplus: i64,
    /// Incumbents in their place.
    pub(super) kept: i64,
    /// Units sold, and after these −Σ arrival order, in one number: a path serves and unserves at most a few units,
    /// so the second never reaches the first.
    pub(super) served: i64,
    /// −Σ option index.
    pub(super) index: i64,
    /// The last tie: Σ number × option index, so that of two units that could change places the smaller lot number
    /// has the earlier option; then a digest.
    pub(super) last: i128,
}

impl Weight {
    /// What an arc without anybody to move weighs.
    pub(super) const NOTHING: Self = Self { surplus: NOTHING, kept: 0, served: 0, index: 0, last: 0 };
    /// Below every path, and above what holds an arc without anybody to move.
    pub(super) const LEAST: Self = Self { surplus: NOTHING / 2, kept: 0, served: 0, index: 0, last: 0 };

    /// A free server in a market with this reserve.
    pub(super) const fn of_free(reserve: i64) -> Self {
        Self { surplus: reserve, kept: 0, served: 0, index: 0, last: 0 }
    }

    /// A unit served by the option at `index` (from 0).
    pub(super) fn of_unit(worth: i64, age: u64, number: u64, index: u32) -> Self {
        Self {
            surplus: worth,
            kept: 0,
            served: SERVED - age as i64,
            index: -i64::from(index),
            last: (cross(number, index) << DIGEST_SHIFT) + i128::from(digest(number, index)),
        }
    }
}

/// The first part of the last tie. Counted from one, so that no two lots compare alike on any arc.
fn cross(number: u64, index: u32) -> i128 {
    i128::from(number) * i128::from(index + 1)
}

/// A few bits that have nothing to do with those of other lots and options (the finalizer of splitmix64).
fn digest(number: u64, index: u32) -> u64 {
    let mut word = number.wrapping_mul(64).wrapping_add(u64::from(index)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)) >> (64 - DIGEST_BITS)
}

impl Add for Weight {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self {
            surplus: self.surplus + other.surplus,
            kept: self.kept + other.kept,
            served: self.served + other.served,
            index: self.index + other.index,
            last: self.last + other.last,
        }
    }
}

impl Sub for Weight {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        Self {
            surplus: self.surplus - other.surplus,
            kept: self.kept - other.kept,
            served: self.served - other.served,
            index: self.index - other.index,
            last: self.last - other.last,
        }
    }
}
