//! The lots at one level that can still lose units, youngest first, or win some, oldest first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A lot in a ranking: the largest key comes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    /// The age, or its complement where the oldest comes first.
    pub(super) key: u64,
    /// The lot.
    pub(super) lot: u32,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

/// A queue by key. Whoever comes first is taken from it, and what is put back usually comes first again: such entries
/// lie on a stack, and only the others in a heap.
///
/// Entries are not taken out when they cease to be right; whoever looks at the first one judges it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rank {
    /// Ascending.
    stack: Vec<Ranked>,
    heap: BinaryHeap<Ranked>,
}

impl Rank {
    /// Entries, right or not.
    pub(super) fn len(&self) -> usize {
        self.stack.len() + self.heap.len()
    }

    /// Drops all entries, and gives memory for others.
    pub(super) fn emptied(&mut self) -> Vec<Ranked> {
        self.stack.clear();
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.clear();
        entries
    }

    /// Takes these entries for its own.
    pub(super) fn fill(&mut self, entries: Vec<Ranked>) {
        self.stack.clear();
        self.heap = BinaryHeap::from(entries);
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Ranked) {
        if self.stack.last().is_none_or(|last| entry.key >= last.key) {
            self.stack.push(entry);
        } else {
            self.heap.push(entry);
        }
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Ranked> {
        match (self.stack.last(), self.heap.peek()) {
            (Some(&last), Some(&top)) => Some(if top.key > last.key { top } else { last }),
            (Some(&last), None) => Some(last),
            (None, top) => top.copied(),
        }
    }

    /// Takes the first entry out.
    #[inline]
    pub(super) fn pop(&mut self) {
        match (self.stack.last(), self.heap.peek()) {
            (Some(last), Some(top)) if top.key > last.key => drop(self.heap.pop()),
            (None, _) => drop(self.heap.pop()),
            _ => drop(self.stack.pop()),
        }
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        (self.stack.capacity() + self.heap.capacity()) * size_of::<Ranked>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gives_the_largest_key_first(
            first in prop::collection::vec(0_u64..50, 0..20),
            steps in prop::collection::vec(prop::option::of(0_u64..50), 0..100),
        ) {
            let mut rank = Rank::default();
            rank.fill(first.iter().map(|&key| Ranked { key, lot: 0 }).collect());
            let mut keys = first;
            for step in steps {
                if let Some(key) = step {
                    rank.push(Ranked { key, lot: 0 });
                    keys.push(key);
                } else {
                    rank.pop();
                    keys.sort_unstable();
                    keys.pop();
                }
                prop_assert_eq!(rank.first().map(|entry| entry.key), keys.iter().max().copied());
                prop_assert_eq!(rank.len(), keys.len());
            }
        }
    }
}
