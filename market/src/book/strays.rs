//! Lots that came or were changed since the last clearing, so that nothing may be concluded from where they stand.

use std::ops::Range;

use super::levels::LOT_NONE;
use super::lots::Lots;

/// No level.
pub(super) const LEVEL_NONE: u32 = u32::MAX;
/// Entries beyond twice as many as lots stand, before the list is cleared of those that are gone.
const SPARE_ENTRIES: usize = 64;

/// Entries there is always room for.
const ENTRIES_KEPT: usize = 1 << 12;

/// One of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stray {
    pub(super) age: u64,
    pub(super) lot: u32,
    pub(super) level: u32,
    /// Units it held when the clearing began.
    pub(super) before: u32,
}

/// All of them. Usually there is one, and no list.
#[derive(Clone, Debug)]
pub(super) struct Strays {
    only: u32,
    /// In order of level, then age, once sorted. Until then a lot that is gone may still be here, and one that came
    /// again be here twice.
    list: Vec<Stray>,
}

impl Default for Strays {
    fn default() -> Self {
        Self { only: LOT_NONE, list: Vec::new() }
    }
}

impl Strays {
    /// Adds a lot that has become a stray.
    #[inline(always)]
    pub(super) fn push(&mut self, lot: u32, lots: &Lots) {
        if (self.only == LOT_NONE) & self.list.is_empty() {
            self.only = lot;
        } else {
            self.push_beside(lot, lots);
        }
    }

    #[inline(never)]
    fn push_beside(&mut self, lot: u32, lots: &Lots) {
        if self.only != LOT_NONE {
            let first = std::mem::replace(&mut self.only, LOT_NONE);
            self.list.push(Stray { lot: first, ..Stray::default() });
        }
        // What was placed and cancelled before it was cleared leaves an entry: this bounds them.
        if self.list.len() >= 2 * lots.live() as usize + SPARE_ENTRIES {
            self.sort(lots);
        }
        self.list.push(Stray { lot, ..Stray::default() });
    }

    /// The stray, if there is one and it is not on the list.
    #[inline(always)]
    pub(super) const fn only(&self) -> Option<u32> {
        if self.only == LOT_NONE { None } else { Some(self.only) }
    }

    /// Puts the only stray on the list.
    pub(super) fn list(&mut self, stray: Stray) {
        self.only = LOT_NONE;
        self.list.push(stray);
    }

    /// A stray is taken out. It may stay on the list until that is sorted.
    #[inline(always)]
    pub(super) fn forget(&mut self, lot: u32) {
        if self.only == lot {
            self.only = LOT_NONE;
        }
    }

    /// Puts the list in order, each stray once.
    pub(super) fn sort(&mut self, lots: &Lots) {
        self.list.retain_mut(|stray| {
            let record = lots.record(stray.lot);
            (stray.level, stray.age) = (record.level(), record.age);
            record.is_stray()
        });
        self.list.sort_unstable_by_key(|stray| (stray.level, stray.age));
        self.list.dedup_by_key(|stray| stray.lot);
    }

    /// How many are on the list.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&self, place: usize) -> Stray {
        self.list[place]
    }

    pub(super) fn get_mut(&mut self, place: usize) -> &mut Stray {
        &mut self.list[place]
    }

    /// Where in the list those at a level are.
    pub(super) fn at(&self, level: u32) -> Range<usize> {
        self.count_below(level)..self.count_below(level + 1)
    }

    /// The next level above this one that has any.
    pub(super) fn level_above(&self, level: u32) -> u32 {
        self.list.get(self.count_below(level + 1)).map_or(LEVEL_NONE, |stray| stray.level)
    }

    /// The next level below this one that has any.
    pub(super) fn level_below(&self, level: u32) -> u32 {
        self.list[..self.count_below(level)].last().map_or(LEVEL_NONE, |stray| stray.level)
    }

    fn count_below(&self, level: u32) -> usize {
        self.list.partition_point(|stray| stray.level < level)
    }

    /// All lots, when the list is sorted.
    pub(super) fn lots(&self) -> Vec<u32> {
        self.only().into_iter().chain(self.list.iter().map(|stray| stray.lot)).collect()
    }

    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.only = LOT_NONE;
        self.list.clear();
    }

    /// Gives back memory beyond what rounds usually need.
    pub(super) fn shrink(&mut self) {
        self.list.shrink_to(ENTRIES_KEPT);
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Stray>()
    }
}
