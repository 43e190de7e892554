//! Lots that came or were changed since the last clearing, so that nothing may be concluded from where they stand.

use super::lots::Lots;

/// One of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stray {
    pub(super) age: u64,
    pub(super) lot: u32,
    pub(super) level: u32,
    /// Units it held when the clearing began.
    pub(super) before: u32,
}

/// All of them. A lot that is gone may still be listed, and one that came again listed twice, until they are
/// sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Strays {
    list: Vec<Stray>,
    /// Whether the list is not simply one lot that is a stray.
    is_unsorted: bool,
}

impl Strays {
    /// Lists a lot that has become a stray.
    #[inline(always)]
    pub(super) fn push(&mut self, lot: u32, lots: &Lots) {
        if !self.list.is_empty() {
            self.is_unsorted = true;
            // What was placed and cancelled before it was cleared leaves an entry: this bounds them.
            if self.list.len() > 2 * lots.live() as usize + 64 {
                self.sort(lots);
            }
        }
        self.list.push(Stray { lot, ..Stray::default() });
    }

    /// Takes a stray from the list, if it is the last; else it stays listed until they are sorted.
    #[inline(always)]
    pub(super) fn forget(&mut self, lot: u32) {
        if self.list.last().is_some_and(|stray| stray.lot == lot) {
            self.list.pop();
        }
    }

    /// Puts them in order of level, then age, each once.
    #[inline(always)]
    pub(super) fn sort_if_many(&mut self, lots: &Lots) {
        if self.is_unsorted {
            self.sort(lots);
        }
    }

    #[cold]
    fn sort(&mut self, lots: &Lots) {
        self.list.retain_mut(|stray| {
            let record = lots.record(stray.lot);
            (stray.level, stray.age) = (record.level(), record.age);
            record.is_stray()
        });
        self.list.sort_unstable_by_key(|stray| (stray.level, stray.age));
        self.list.dedup_by_key(|stray| stray.lot);
        self.is_unsorted = self.list.len() > 1;
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    #[inline(always)]
    pub(super) fn get(&self, place: usize) -> Stray {
        self.list[place]
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, place: usize) -> &mut Stray {
        &mut self.list[place]
    }

    /// How many stand below a level, when they are sorted.
    #[inline(always)]
    pub(super) fn count_below(&self, level: u32) -> usize {
        match self.list.as_slice() {
            [] => 0,
            [stray] => usize::from(stray.level < level),
            many => many.partition_point(|stray| stray.level < level),
        }
    }

    /// Their lots.
    pub(super) fn lots(&self) -> Vec<u32> {
        self.list.iter().map(|stray| stray.lot).collect()
    }

    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.is_unsorted = false;
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Stray>()
    }
}
