//! Which levels hold anything: a bitmap of three storeys, 64-ary, so that the next or previous occupied level is found
//! in at most six word reads, however far away it is.

/// Bits of one word, as a shift.
const WORD_SHIFT: u32 = 6;

/// A set of level numbers with successor and predecessor search.
#[derive(Clone, Debug)]
pub(super) struct Bitmap {
    /// One bit per level.
    words: Vec<u64>,
    /// One bit per word that is not zero.
    blocks: Vec<u64>,
    /// One bit per block that is not zero. At most `LEVELS_MAX / 2^18` words, searched from end to end.
    tops: Vec<u64>,
}

const fn bit(index: u32) -> u64 {
    1 << (index & 63)
}

/// All bits below `index` within its word.
const fn below(index: u32) -> u64 {
    bit(index) - 1
}

/// The highest bit of a word that is not zero.
const fn highest(word: u64) -> u32 {
    word.ilog2()
}

fn word(words: &[u64], index: u32) -> u64 {
    words.get(index as usize).copied().unwrap_or(0)
}

impl Bitmap {
    /// An empty set that can hold numbers below `levels`.
    pub(super) fn new(levels: usize) -> Self {
        let words = levels.div_ceil(64);
        let blocks = words.div_ceil(64);
        Self { words: vec![0; words], blocks: vec![0; blocks], tops: vec![0; blocks.div_ceil(64)] }
    }

    /// Makes room for numbers below `levels`; what is in the set stays.
    pub(super) fn reach(&mut self, levels: usize) {
        let words = levels.div_ceil(64).max(self.words.len());
        let blocks = words.div_ceil(64);
        self.words.resize(words, 0);
        self.blocks.resize(blocks, 0);
        self.tops.resize(blocks.div_ceil(64), 0);
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        (self.words.capacity() + self.blocks.capacity() + self.tops.capacity()) * size_of::<u64>()
    }

    #[inline(always)]
    pub(super) fn set(&mut self, level: u32) {
        let at = level >> WORD_SHIFT;
        let old = self.words[at as usize];
        self.words[at as usize] = old | bit(level);
        if old == 0 {
            self.set_word(at);
        }
    }

    #[cold]
    fn set_word(&mut self, at: u32) {
        self.blocks[(at >> WORD_SHIFT) as usize] |= bit(at);
        self.tops[(at >> (2 * WORD_SHIFT)) as usize] |= bit(at >> WORD_SHIFT);
    }

    /// Takes a number out, if `is_out`.
    #[inline(always)]
    pub(super) fn clear_if(&mut self, level: u32, is_out: bool) {
        let at = level >> WORD_SHIFT;
        let left = self.words[at as usize] & !(u64::from(is_out) << (level & 63));
        self.words[at as usize] = left;
        if left == 0 {
            self.clear_word(at);
        }
    }

    #[cold]
    fn clear_word(&mut self, at: u32) {
        let block = at >> WORD_SHIFT;
        self.blocks[block as usize] &= !bit(at);
        if self.blocks[block as usize] == 0 {
            self.tops[(block >> WORD_SHIFT) as usize] &= !bit(block);
        }
    }

    /// The nearest member above or below `level`.
    #[inline(always)]
    pub(super) fn beside(&self, level: u32, is_above: bool) -> Option<u32> {
        let at = level >> WORD_SHIFT;
        let here = word(&self.words, at);
        let (above, under) = (here & !below(level) & !bit(level), here & below(level));
        // Up or down is a toss-up: both are found, and one is taken without a branch.
        let mask = u64::from(is_above).wrapping_neg();
        let beside = (above & mask) | (under & !mask);
        if beside == 0 {
            return self.beside_word(level, is_above);
        }
        let nearest = beside & (beside.wrapping_neg() | !mask);
        Some((at << WORD_SHIFT) | highest(nearest))
    }

    #[cold]
    fn beside_word(&self, level: u32, is_above: bool) -> Option<u32> {
        if is_above { self.next(level + 1) } else { self.previous(level) }
    }

    /// The smallest member that is at least `from`.
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        let at = from >> WORD_SHIFT;
        let here = word(&self.words, at) & !below(from);
        if here != 0 {
            return Some((at << WORD_SHIFT) | here.trailing_zeros());
        }
        let block = at >> WORD_SHIFT;
        // The word itself is exhausted, so only later words of its block count.
        let beside = word(&self.blocks, block) & !below(at) & !bit(at);
        if beside != 0 {
            return self.lowest_of_word((block << WORD_SHIFT) | beside.trailing_zeros());
        }
        let top = block >> WORD_SHIFT;
        let mut above = word(&self.tops, top) & !below(block) & !bit(block);
        let mut index = top;
        while above == 0 {
            index += 1;
            above = *self.tops.get(index as usize)?;
        }
        let block = (index << WORD_SHIFT) | above.trailing_zeros();
        let at = (block << WORD_SHIFT) | word(&self.blocks, block).trailing_zeros();
        self.lowest_of_word(at)
    }

    /// The largest member that is below `end`.
    pub(super) fn previous(&self, end: u32) -> Option<u32> {
        let at = end >> WORD_SHIFT;
        let here = word(&self.words, at) & below(end);
        if here != 0 {
            return Some((at << WORD_SHIFT) | highest(here));
        }
        let block = at >> WORD_SHIFT;
        let beside = word(&self.blocks, block) & below(at);
        if beside != 0 {
            return self.highest_of_word((block << WORD_SHIFT) | highest(beside));
        }
        let mut index = (block >> WORD_SHIFT).min(self.tops.len() as u32);
        let mut under = word(&self.tops, index) & below(block);
        while under == 0 {
            index = index.checked_sub(1)?;
            under = word(&self.tops, index);
        }
        let block = (index << WORD_SHIFT) | highest(under);
        self.highest_of_word((block << WORD_SHIFT) | highest(word(&self.blocks, block)))
    }

    fn lowest_of_word(&self, at: u32) -> Option<u32> {
        let found = word(&self.words, at);
        (found != 0).then(|| (at << WORD_SHIFT) | found.trailing_zeros())
    }

    fn highest_of_word(&self, at: u32) -> Option<u32> {
        let found = word(&self.words, at);
        (found != 0).then(|| (at << WORD_SHIFT) | highest(found))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_an_ordered_set(
            steps in prop::collection::vec((0_u32..700_000, any::<bool>()), 1..400),
            probes in prop::collection::vec(0_u32..=700_000, 1..50),
        ) {
            let mut map = Bitmap::new(64);
            map.reach(700_000);
            let mut set = BTreeSet::new();
            let agree = |map: &Bitmap, set: &BTreeSet<u32>, level: u32| {
                let (next, previous) = (set.range(level..).next(), set.range(..level).next_back());
                prop_assert_eq!(map.next(level), next.copied());
                prop_assert_eq!(map.previous(level), previous.copied());
                prop_assert_eq!(map.beside(level, true), set.range(level + 1..).next().copied());
                prop_assert_eq!(map.beside(level, false), previous.copied());
                Ok(())
            };
            for (level, add) in steps {
                // Near numbers too, so that words fill and empty.
                for level in [level, level / 1000, level % 130] {
                    if add { map.set(level); set.insert(level); } else { set.remove(&level); }
                    map.clear_if(level, !add);
                    agree(&map, &set, level)?;
                }
            }
            for level in probes {
                agree(&map, &set, level)?;
            }
            prop_assert_eq!(map.previous(u32::MAX), set.last().copied());
        }
    }
}
