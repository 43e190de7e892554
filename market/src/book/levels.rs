//! Who stands at which level. Away from the margin nobody asks in which order, so a level is a list without one: lots
//! are put in at its front and taken out wherever they are, both in constant time, whatever else stands there.

use super::bitmap::Bitmap;

/// No lot.
pub(super) const LOT_NONE: u32 = u32::MAX;

/// A lot's neighbours in the list of those at its level, each a lot or [`LOT_NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    const NONE: Self = Self { previous: LOT_NONE, next: LOT_NONE };
}

/// All levels with the first lot of each, from which one leads to the next.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    firsts: Vec<u32>,
    /// By lot.
    links: Vec<Links>,
    /// Levels that are not empty.
    occupied: Bitmap,
}

impl Levels {
    /// So many levels, empty.
    pub(super) fn new(levels: usize) -> Self {
        Self { firsts: vec![LOT_NONE; levels], links: Vec::new(), occupied: Bitmap::new(levels) }
    }

    /// Levels there is room for.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Lots there is room for.
    #[inline(always)]
    pub(super) fn lots(&self) -> usize {
        self.links.len()
    }

    /// Makes room for so many levels.
    pub(super) fn reach(&mut self, levels: usize) {
        self.firsts.resize(levels.max(self.firsts.len()), LOT_NONE);
        self.occupied.reach(self.firsts.len());
    }

    /// Makes room for lots with numbers below `capacity`.
    #[cold]
    pub(super) fn reach_lots(&mut self, capacity: usize) {
        let more = capacity.saturating_sub(self.links.len());
        self.links.reserve_exact(more);
        self.links.resize(self.links.len() + more, Links::NONE);
    }

    /// Puts a lot at the front of a level.
    #[inline(always)]
    pub(super) fn link(&mut self, level: u32, lot: u32) {
        let next = std::mem::replace(&mut self.firsts[level as usize], lot);
        // Whether others stand here is hard to predict where levels are sparse, so this does not depend on it.
        self.occupied.set(level);
        let links = self.links.as_mut_slice();
        links[lot as usize] = Links { previous: LOT_NONE, next };
        if let Some(next) = links.get_mut(next as usize) {
            next.previous = lot;
        }
    }

    /// Takes a lot out of the level it stands at.
    #[inline(always)]
    pub(super) fn unlink(&mut self, level: u32, lot: u32) {
        let links = self.links.as_mut_slice();
        let Links { previous, next } = links[lot as usize];
        match links.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.firsts[level as usize] = next,
        }
        if let Some(next) = links.get_mut(next as usize) {
            next.previous = previous;
        }
        self.occupied.clear_if(level, previous & next == LOT_NONE);
    }

    /// The first lot of a level, or [`LOT_NONE`].
    #[inline(always)]
    pub(super) fn first(&self, level: u32) -> u32 {
        self.firsts.get(level as usize).copied().unwrap_or(LOT_NONE)
    }

    /// The lot behind this one at its level, or [`LOT_NONE`].
    #[inline(always)]
    pub(super) fn behind(&self, lot: u32) -> u32 {
        self.links.get(lot as usize).map_or(LOT_NONE, |links| links.next)
    }

    /// The lots beside this one at its level, to look ahead: without a branch, of another lot if there is none such.
    #[inline(always)]
    pub(super) fn touch(&self, lot: u32) -> [u32; 2] {
        let last = self.links.len().saturating_sub(1);
        let Links { previous, next } = self.links.get(last.min(lot as usize)).copied().unwrap_or(Links::NONE);
        [previous, next]
    }

    /// The same for the first lot of a level.
    #[inline(always)]
    pub(super) fn touch_first(&self, level: u32) -> u32 {
        let last = self.firsts.len().saturating_sub(1);
        self.firsts.get(last.min(level as usize)).copied().unwrap_or(LOT_NONE)
    }

    /// Lots at a level, in no order.
    #[inline]
    pub(super) fn at(&self, level: u32) -> impl Iterator<Item = u32> + '_ {
        let some = |lot: u32| (lot != LOT_NONE).then_some(lot);
        std::iter::successors(some(self.first(level)), move |&lot| some(self.behind(lot)))
    }

    /// The lowest level from `from` on at which anybody stands.
    #[inline(always)]
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        self.occupied.next(from)
    }

    /// The highest level below `end` at which anybody stands.
    #[inline(always)]
    pub(super) fn previous(&self, end: u32) -> Option<u32> {
        self.occupied.previous(end)
    }

    /// The next level above or below this one at which anybody stands.
    #[inline(always)]
    pub(super) fn beside(&self, level: u32, is_above: bool) -> Option<u32> {
        self.occupied.beside(level, is_above)
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.firsts.capacity() * size_of::<u32>()
            + self.links.capacity() * size_of::<Links>()
            + self.occupied.bytes()
    }
}
