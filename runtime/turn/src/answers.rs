//! Which commands were decided, and where: the newest ones, in memory.
//!
//! A ring holds what was recorded, oldest first, 32 bytes each. An index of 8-byte cells points into it: open
//! addressing with linear probing and backward-shift deletion (Knuth, The Art of Computer Programming, vol. 3,
//! section 6.4, algorithm R). A cell carries 32 bits of the key, so that a new command, by far the most frequent case, costs one
//! cache miss in the index and none in the ring. Keys are parts of a cryptographic hash: they need no hashing
//! again, and their order in the table is the same on every machine.

use std::collections::VecDeque;

use proto::machine::CommandKey;

/// How many commands are remembered in memory unless configured otherwise.
pub const ANSWERS_KEPT: usize = 1 << 20;
/// Most answers past the kept ones that wait to be written to the journal's index, 48 bytes each: more than come while
/// whoever writes them makes a snapshot of a large state. A driver that has so many waits for the index before it goes
/// on.
pub const ANSWERS_UNINDEXED_MAX: usize = 1 << 20;
/// Smallest size of the index, in cells.
const CELLS_MIN: usize = 64;
/// Bits of an index within a row: a row holds fewer entries than this can count.
const INDEX_BITS: u32 = 21;

/// Where a command was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locator(u64);

impl Locator {
    /// The entry `index`, counted from 0, of the row `sequence`.
    pub const fn new(sequence: u64, index: u32) -> Self {
        Self(sequence << INDEX_BITS | index as u64 & ((1 << INDEX_BITS) - 1))
    }

    /// The row.
    pub const fn sequence(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    /// The entry in it, counted from 0; wakes count.
    pub const fn index(self) -> u32 {
        (self.0 & ((1 << INDEX_BITS) - 1)) as u32
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// What is known of a decided command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Its key.
    pub key: CommandKey,
    /// What it said: the same key with another digest is another command.
    pub digest: u64,
    /// Where it was decided.
    pub locator: Locator,
}

/// The newest decided commands.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    ring: VecDeque<Answered>,
    /// How many were ever recorded in the stream: the ring's last one has this number, counted from 1.
    recorded: u64,
    kept: usize,
    cells: Vec<u64>,
    /// The index has 2^bits cells.
    bits: u32,
}

const EMPTY: u64 = 0;

impl Answers {
    pub(crate) fn new(kept: usize) -> Self {
        let bits = CELLS_MIN.trailing_zeros();
        Self { ring: VecDeque::new(), recorded: 0, kept: kept.max(1), cells: vec![EMPTY; CELLS_MIN], bits }
    }

    /// As it was when `recorded` answers had been given, of which `newest` are the last, oldest first.
    pub(crate) fn restore(kept: usize, recorded: u64, newest: Vec<Answered>) -> Self {
        let mut answers = Self::new(kept);
        for answered in newest {
            answers.record(answered);
        }
        answers.recorded = recorded;
        answers.reindex();
        answers
    }

    pub(crate) const fn recorded(&self) -> u64 {
        self.recorded
    }

    pub(crate) const fn kept(&self) -> usize {
        self.kept
    }

    /// How many are past the kept ones and wait for the index.
    pub(crate) fn unindexed(&self) -> usize {
        self.ring.len().saturating_sub(self.kept)
    }

    /// Those past the kept ones, oldest first.
    pub(crate) fn past_kept(&self) -> impl Iterator<Item = &Answered> {
        self.ring.iter().take(self.unindexed())
    }

    /// The kept ones, oldest first: the same whatever was indexed when.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Answered> {
        self.ring.iter().skip(self.unindexed())
    }

    /// The number of the oldest one in memory.
    fn first(&self) -> u64 {
        self.recorded + 1 - self.ring.len() as u64
    }

    /// The number of the last one past the kept ones, 0 if there never was one.
    pub(crate) fn past_kept_through(&self) -> u64 {
        self.recorded.saturating_sub(self.kept as u64)
    }

    pub(crate) fn find(&self, key: CommandKey) -> Option<&Answered> {
        let mask = self.cells.len() - 1;
        let mark = mark(key);
        let mut at = self.home(mark);
        loop {
            let cell = self.cells[at];
            if cell == EMPTY {
                return None;
            }
            if (cell >> 32) as u32 == mark {
                let answered = self.ring.get(self.slot(cell))?;
                if answered.key == key {
                    return Some(answered);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Loads the cell that a lookup of `key` begins with.
    pub(crate) fn touch(&self, key: CommandKey) -> u64 {
        self.cells[self.home(mark(key))]
    }

    /// Records a key that is not there yet.
    pub(crate) fn record(&mut self, answered: Answered) {
        self.ring.push_back(answered);
        self.recorded += 1;
        if self.ring.len() * 2 > self.cells.len() {
            self.bits += 1;
            self.reindex();
        } else {
            self.place(mark(answered.key), self.recorded as u32);
        }
    }

    /// Forgets the oldest one past the kept ones up to the number `through`.
    pub(crate) fn forget(&mut self, through: u64) -> Option<Answered> {
        if self.unindexed() == 0 || self.first() > through {
            return None;
        }
        let cell = {
            let oldest = self.ring.front()?;
            u64::from(mark(oldest.key)) << 32 | u64::from(self.first() as u32)
        };
        self.unplace(cell);
        self.ring.pop_front()
    }

    fn home(&self, mark: u32) -> usize {
        (mark >> (32 - self.bits)) as usize
    }

    fn slot(&self, cell: u64) -> usize {
        (cell as u32).wrapping_sub(self.first() as u32) as usize
    }

    fn place(&mut self, mark: u32, number: u32) {
        let mask = self.cells.len() - 1;
        let mut at = self.home(mark);
        while self.cells[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.cells[at] = u64::from(mark) << 32 | u64::from(number);
    }

    fn unplace(&mut self, cell: u64) {
        let mask = self.cells.len() - 1;
        let mut hole = self.home((cell >> 32) as u32);
        while self.cells[hole] != cell {
            if self.cells[hole] == EMPTY {
                return;
            }
            hole = (hole + 1) & mask;
        }
        let mut next = (hole + 1) & mask;
        while self.cells[next] != EMPTY {
            let home = self.home((self.cells[next] >> 32) as u32);
            // A cell may fill the hole if the hole is not before the place where its search begins.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.cells[hole] = self.cells[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.cells[hole] = EMPTY;
    }

    fn reindex(&mut self) {
        self.cells = vec![EMPTY; 1 << self.bits];
        let first = self.first();
        for offset in 0..self.ring.len() {
            let mark = mark(self.ring[offset].key);
            self.place(mark, (first + offset as u64) as u32);
        }
    }
}

/// 32 bits of a key, never zero, so that no cell in use looks empty.
fn mark(key: CommandKey) -> u32 {
    (key.0 >> 96) as u32 | 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn answered(key: u128, number: u64) -> Answered {
        Answered { key: CommandKey(key), digest: number, locator: Locator::new(number, 0) }
    }

    #[test]
    fn a_locator_holds_row_and_entry() {
        let locator = Locator::new(8_000_000_000_000, (1 << INDEX_BITS) - 1);
        assert_eq!((locator.sequence(), locator.index()), (8_000_000_000_000, (1 << INDEX_BITS) - 1));
        assert_eq!(size_of::<Answered>(), 32);
    }

    proptest! {
        /// Against a map: keys crowd in few places, so that probing, wrapping and shifting all happen.
        #[test]
        fn what_is_recorded_is_found_and_what_is_forgotten_is_not(
            kept in 1_usize..40,
            steps in prop::collection::vec((0_u128..6, 0_u128..300, prop::bool::weighted(0.3)), 0..400),
        ) {
            let mut answers = Answers::new(kept);
            let mut known = BTreeMap::new();
            let mut order = Vec::new();
            for (crowd, low, forget) in steps {
                let key = (crowd * 0x3333_0000 + 0xffff_0000) << 96 | low;
                if let std::collections::btree_map::Entry::Vacant(place) = known.entry(key) {
                    let one = answered(key, answers.recorded() + 1);
                    place.insert(one);
                    order.push(key);
                    answers.record(one);
                }
                if forget && let Some(gone) = answers.forget(u64::MAX) {
                    prop_assert_eq!(gone.key.0, order.remove(0));
                    known.remove(&gone.key.0);
                }
                for (key, one) in &known {
                    prop_assert_eq!(answers.find(CommandKey(*key)), Some(one));
                }
                prop_assert_eq!(answers.find(CommandKey(key ^ 1 << 90)), None);
                prop_assert_eq!(answers.ring.len(), known.len());
            }
            let again = Answers::restore(kept, answers.recorded(), answers.newest().copied().collect());
            for one in answers.newest() {
                prop_assert_eq!(again.find(one.key), Some(one));
            }
        }
    }
}
