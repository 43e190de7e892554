//! Bids by name: a table from hashed names to numbers, so that a new name costs one cache miss and not a way down a
//! tree of all names.
//!
//! Open addressing with linear probing and backward-shift deletion (Knuth, The Art of Computer Programming, vol. 3,
//! section 6.4, algorithm R). Half of a name's hash is kept; whoever asks compares the bid that a candidate is.

use proto::machine::CommandKey;
use proto::market::BidNumber;

/// Slots of a table that was never filled.
const SLOTS_FIRST: usize = 16;
/// A slot without a name.
const VACANT: (u64, BidNumber) = (0, 0);

/// The numbers of bids by the hashes of their names.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Half of the hash, never zero, and the number.
    slots: Vec<(u64, BidNumber)>,
    len: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self { slots: vec![VACANT; SLOTS_FIRST], len: 0 }
    }
}

/// Names are hashes already: half of one is spread well enough.
const fn half(name: CommandKey) -> u64 {
    (name.0 >> 64) as u64 | 1
}

impl Names {
    const fn home(&self, half: u64) -> usize {
        ((half as u128 * self.slots.len() as u128) >> 64) as usize
    }

    const fn after(&self, place: usize) -> usize {
        (place + 1) & (self.slots.len() - 1)
    }

    /// The number under a name that `is_it` confirms.
    pub(super) fn find(
        &self,
        name: CommandKey,
        mut is_it: impl FnMut(BidNumber) -> bool,
    ) -> Option<BidNumber> {
        let wanted = half(name);
        let mut place = self.home(wanted);
        // A vacant slot ends every search: the table is never full.
        loop {
            let (half, number) = self.slots[place];
            if half == 0 {
                return None;
            }
            if half == wanted && is_it(number) {
                return Some(number);
            }
            place = self.after(place);
        }
    }

    /// Adds a bid under its name.
    pub(super) fn insert(&mut self, name: CommandKey, number: BidNumber) {
        self.reserve(1);
        self.put((half(name), number));
        self.len += 1;
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        // At three quarters searches are still short.
        let mut slots = self.slots.len();
        while (self.len + more) * 4 > slots * 3 {
            slots *= 2;
        }
        if slots > self.slots.len() {
            for slot in std::mem::replace(&mut self.slots, vec![VACANT; slots]) {
                if slot.0 != 0 {
                    self.put(slot);
                }
            }
        }
    }

    fn put(&mut self, slot: (u64, BidNumber)) {
        let mut place = self.home(slot.0);
        while self.slots[place].0 != 0 {
            place = self.after(place);
        }
        self.slots[place] = slot;
    }

    /// Takes a bid out.
    pub(super) fn remove(&mut self, name: CommandKey, number: BidNumber) {
        let wanted = (half(name), number);
        let mut hole = self.home(wanted.0);
        while self.slots[hole] != wanted {
            if self.slots[hole].0 == 0 {
                return;
            }
            hole = self.after(hole);
        }
        self.len -= 1;
        let mut place = self.after(hole);
        while self.slots[place].0 != 0 {
            let home = self.home(self.slots[place].0);
            // A slot may move back into the hole unless its home lies between the hole and itself.
            let distance = place.wrapping_sub(home) & (self.slots.len() - 1);
            let gap = place.wrapping_sub(hole) & (self.slots.len() - 1);
            if distance >= gap {
                self.slots[hole] = self.slots[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.slots[hole] = VACANT;
    }

    fn sorted(&self) -> Vec<(u64, BidNumber)> {
        let mut entries: Vec<_> = self.slots.iter().copied().filter(|slot| slot.0 != 0).collect();
        entries.sort_unstable();
        entries
    }
}

/// Equal if the same names lead to the same bids, wherever they stand.
impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.sorted() == other.sorted()
    }
}

impl Eq for Names {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map: names crowd in few places, so that probing, wrapping and shifting all happen.
        #[test]
        fn what_is_there_is_found_and_nothing_else(
            steps in prop::collection::vec((0_u128..5, 0_u64..60, any::<bool>()), 0..400),
        ) {
            let mut names = Names::default();
            let mut model = BTreeMap::new();
            for (crowd, number, is_inserted) in steps {
                let name = CommandKey((crowd * 0x3333_0000 + 0xffff_0000) << 96);
                let is_known = model.contains_key(&(crowd, number));
                if is_inserted && !is_known {
                    names.insert(name, number);
                    model.insert((crowd, number), name);
                } else if !is_inserted {
                    names.remove(name, number);
                    model.remove(&(crowd, number));
                }
                for (&(crowd, number), name) in &model {
                    prop_assert_eq!(names.find(*name, |found| found == number), Some(number), "{}", crowd);
                }
                if !model.contains_key(&(crowd, number)) {
                    prop_assert_eq!(names.find(name, |found| found == number), None);
                }
            }
            let mut again = Names::default();
            again.reserve(model.len());
            for (&(_, number), name) in model.iter().rev() {
                again.insert(*name, number);
            }
            prop_assert_eq!(again, names);
        }
    }
}
