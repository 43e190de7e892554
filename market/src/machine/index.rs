//! A deterministic table from hashed names to numbers of records: open addressing, one word a slot.
//!
//! The table knows neither names nor records; whoever asks compares the record a candidate points at. Half of the
//! hash is kept in the slot, so that growing and removing never look at a record, and a candidate that is none
//! costs a look only once in four thousand million.

/// Slots of a table that was never filled.
const SLOTS_FIRST: usize = 16;

/// Open addressing with linear probing; a removal shifts its successors back, so there are no graves.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Upper half: the tag. Lower half: the value + 1; 0 marks a vacant slot.
    slots: Vec<u64>,
    len: usize,
}

/// Spreads a hash or a plain number over all bits.
#[inline]
pub(super) const fn spread(word: u64) -> u64 {
    let word = (word ^ (word >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^ (word >> 29)
}

impl Default for Index {
    fn default() -> Self {
        Self { slots: vec![0; SLOTS_FIRST], len: 0 }
    }
}

impl Index {
    /// How many entries there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Where the search for a tag begins: its upper bits, so that the table may have any power of two of slots.
    #[inline]
    const fn home(&self, tag: u32) -> usize {
        ((tag as u64 * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    const fn after(&self, place: usize) -> usize {
        (place + 1) & (self.slots.len() - 1)
    }

    /// The slot where the search for a hash begins, to have it in the cache.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u64 {
        self.slots[self.home((hash >> 32) as u32)]
    }

    /// The value under `hash` that `is_it` confirms.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = (hash >> 32) as u32;
        let mut place = self.home(tag);
        // A vacant slot ends every search: the table is never full.
        loop {
            let slot = self.slots[place];
            if slot == 0 {
                return None;
            }
            let value = (slot as u32) - 1;
            if (slot >> 32) as u32 == tag && is_it(value) {
                return Some(value);
            }
            place = self.after(place);
        }
    }

    /// Adds a value under a hash under which it is not yet.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, value: u32) {
        // At three quarters searches are still short.
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.put((hash >> 32 << 32) | u64::from(value + 1));
        self.len += 1;
    }

    fn put(&mut self, slot: u64) {
        let mut place = self.home((slot >> 32) as u32);
        while self.slots[place] != 0 {
            place = self.after(place);
        }
        self.slots[place] = slot;
    }

    fn grow(&mut self) {
        let doubled = vec![0; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, doubled) {
            if slot != 0 {
                self.put(slot);
            }
        }
    }

    /// Puts another value in the place of one.
    pub(super) fn replace(&mut self, hash: u64, before: u32, after: u32) {
        let tag = hash >> 32 << 32;
        let mut place = self.home((hash >> 32) as u32);
        while self.slots[place] != 0 {
            if self.slots[place] == tag | u64::from(before + 1) {
                self.slots[place] = tag | u64::from(after + 1);
                return;
            }
            place = self.after(place);
        }
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, hash: u64, value: u32) {
        let wanted = (hash >> 32 << 32) | u64::from(value + 1);
        let mut hole = self.home((hash >> 32) as u32);
        while self.slots[hole] != wanted {
            if self.slots[hole] == 0 {
                return;
            }
            hole = self.after(hole);
        }
        self.len -= 1;
        let mut place = self.after(hole);
        while self.slots[place] != 0 {
            let home = self.home((self.slots[place] >> 32) as u32);
            // A slot may move back into the hole unless its home lies between the hole and itself.
            let distance = place.wrapping_sub(home) & (self.slots.len() - 1);
            let gap = place.wrapping_sub(hole) & (self.slots.len() - 1);
            if distance >= gap {
                self.slots[hole] = self.slots[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.slots[hole] = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u32..200, any::<bool>()), 0..400), narrow: bool) {
            // Narrow hashes make long runs of neighbours.
            let hash = |key: u32| if narrow { u64::from(key % 7) << 61 } else { spread(u64::from(key)) };
            let mut index = Index::default();
            let mut model = BTreeSet::new();
            for (key, is_there) in steps {
                let found = index.find(hash(key), |value| value == key);
                prop_assert_eq!(found.is_some(), model.contains(&key));
                if is_there && found.is_none() {
                    index.insert(hash(key), key);
                    model.insert(key);
                } else if !is_there && found.is_some() {
                    // By way of another value.
                    index.replace(hash(key), key, 1_000 + key);
                    prop_assert!(index.find(hash(key), |value| value == key).is_none());
                    index.remove(hash(key), 1_000 + key);
                    model.remove(&key);
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for key in 0..200 {
                prop_assert_eq!(index.find(hash(key), |value| value == key).is_some(), model.contains(&key));
            }
        }
    }
}
