//! A map in order of keys that are given out one after another, such as bids by number.
//!
//! A B-tree that grows at its end leaves its nodes half full, and each of a million entries costs a way down the whole
//! tree. Here neighbouring keys stand together in a sorted block, and the tree holds blocks: a 64th of the entries.

use std::collections::BTreeMap;

/// Keys of one block, counted by the number that a key begins with.
const NUMBERS_PER_BLOCK: u64 = 64;

/// What entries are kept by: keys in order are numbers in order.
pub(crate) trait Key: Copy + Ord {
    /// The number that the key begins with.
    fn number(self) -> u64;
}

impl Key for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl Key for (u64, u64) {
    fn number(self) -> u64 {
        self.0
    }
}

/// Entries in order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocks<K, T> {
    /// No block is empty, so that equal maps are equal whatever became of them on the way.
    blocks: BTreeMap<u64, Vec<(K, T)>>,
    len: usize,
}

impl<K, T> Default for Blocks<K, T> {
    fn default() -> Self {
        Self { blocks: BTreeMap::new(), len: 0 }
    }
}

impl<K: Key, T> Blocks<K, T> {
    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&T> {
        let block = self.blocks.get(&block_of(*key))?;
        let place = place_in(block, *key).ok()?;
        block.get(place).map(|(_, value)| value)
    }

    /// The entry of a key, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        let block = self.blocks.get_mut(&block_of(*key))?;
        let place = place_in(block, *key).ok()?;
        block.get_mut(place).map(|(_, value)| value)
    }

    /// Puts an entry in the place of what the key had.
    pub(crate) fn insert(&mut self, key: K, value: T) {
        let block = self.blocks.entry(block_of(key)).or_default();
        if block.last().is_none_or(|(last, _)| *last < key) {
            block.push((key, value));
            self.len += 1;
            return;
        }
        match place_in(block, key) {
            Ok(place) => block[place].1 = value,
            Err(place) => {
                block.insert(place, (key, value));
                self.len += 1;
            }
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<T> {
        let number = block_of(*key);
        let block = self.blocks.get_mut(&number)?;
        let place = place_in(block, *key).ok()?;
        let (_, value) = block.remove(place);
        self.len -= 1;
        if block.is_empty() {
            self.blocks.remove(&number);
        } else if block.len() * 4 <= block.capacity() {
            // Most of a block's bids are over; the few that stand for ever need not hold its room.
            block.shrink_to(block.len() * 2);
        }
        Some(value)
    }

    /// The entries from a key on up to another, which is not among them, where both begin with the same number.
    pub(crate) fn range(&self, from: K, to: K) -> &[(K, T)] {
        let Some(block) = self.blocks.get(&block_of(from)) else { return &[] };
        let (first, end) = (before(block, from), before(block, to));
        block.get(first..end).unwrap_or_default()
    }

    /// The last entry of such a range.
    pub(crate) fn last_mut(&mut self, from: K, to: K) -> Option<(K, &mut T)> {
        let block = self.blocks.get_mut(&block_of(from))?;
        let (first, end) = (before(block, from), before(block, to));
        block.get_mut(first..end)?.last_mut().map(|(key, value)| (*key, value))
    }

    /// All entries, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.blocks.values().flatten().map(|(key, value)| (*key, value))
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in order of their keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    /// All values, in order of their keys, to be changed.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.blocks.values_mut().flatten().map(|(_, value)| value)
    }
}

impl<K: Key, T> FromIterator<(K, T)> for Blocks<K, T> {
    fn from_iter<I: IntoIterator<Item = (K, T)>>(entries: I) -> Self {
        let mut blocks = Self::default();
        entries.into_iter().for_each(|(key, value)| blocks.insert(key, value));
        blocks
    }
}

fn block_of(key: impl Key) -> u64 {
    key.number() / NUMBERS_PER_BLOCK
}

fn place_in<K: Key, T>(block: &[(K, T)], key: K) -> Result<usize, usize> {
    block.binary_search_by(|(other, _)| other.cmp(&key))
}

/// How many entries of a block stand before a key.
fn before<K: Key, T>(block: &[(K, T)], key: K) -> usize {
    block.partition_point(|(other, _)| *other < key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_an_ordered_map(
            steps in prop::collection::vec(((0_u64..200, 0_u64..4), any::<bool>(), 0_u32..9), 0..500),
        ) {
            let mut blocks = Blocks::default();
            let mut model = BTreeMap::new();
            for (key, is_inserted, value) in steps {
                if is_inserted {
                    blocks.insert(key, value);
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(blocks.remove(&key), model.remove(&key));
                }
                if let Some(value) = blocks.get_mut(&key) {
                    *value += 1;
                    model.entry(key).and_modify(|value| *value += 1);
                }
                prop_assert_eq!(blocks.get(&key), model.get(&key));
                let (from, to) = ((key.0, 1), (key.0, 3));
                let range: Vec<_> = model.range(from..to).map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(blocks.range(from, to), &range[..]);
                let last = blocks.last_mut(from, to).map(|(key, value)| (key, *value));
                prop_assert_eq!(last, range.last().copied());
            }
            prop_assert_eq!(blocks.len(), model.len());
            prop_assert_eq!(blocks.is_empty(), model.is_empty());
            prop_assert!(blocks.iter().eq(model.iter().map(|(key, value)| (*key, value))));
            prop_assert!(blocks.keys().eq(model.keys().copied()));
            prop_assert!(blocks.values().eq(model.values()));
            prop_assert!(blocks.values_mut().map(|value| *value).eq(model.values().copied()));
            // The way does not matter.
            prop_assert_eq!(model.into_iter().rev().collect::<Blocks<_, _>>(), blocks);
        }
    }
}
