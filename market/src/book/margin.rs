//! Where winning ends: the one level at which it matters who is older.

use super::LEVELS_MAX;
use super::levels::Levels;
use super::lots::{Lots, Record};
use super::rank::{First, LEVEL_NONE, Ranks, key};

/// Above every level.
pub(super) const LEVEL_TOP: u32 = LEVELS_MAX;
/// Entries from which on the ranking of a level is kept when the margin leaves it…
const KEPT_FROM: usize = 512;
/// …and how many levels' are. Making one anew looks at all lots of the level, and the margin may soon be back.
const KEPT_MAX: usize = 8;

/// The margin. When nothing strays, all units above its level are held, and none below.
#[derive(Clone, Debug)]
pub(super) struct Margin {
    pub(super) level: u32,
    /// Whether no unit may be held at the level.
    pub(super) is_thin: bool,
    ranks: Ranks,
    /// Those of other levels.
    kept: Vec<Ranks>,
}

impl Margin {
    pub(super) fn at(level: u32) -> Self {
        Self { level, is_thin: true, ranks: Ranks::default(), kept: Vec::new() }
    }

    /// Whether the lots at the margin are ranked.
    #[inline(always)]
    pub(super) fn is_ranked(&self) -> bool {
        self.ranks.level == self.level
    }

    /// Whether a lot of this level may have to be ranked.
    #[inline(always)]
    pub(super) fn ranks(&self, level: u32) -> bool {
        (self.ranks.level == level) | !self.kept.is_empty()
    }

    /// Ranks a lot that now counts at its level, for both ways.
    pub(super) fn offer(&mut self, lot: u32, record: Record) {
        if record.queued() > 0 {
            self.offer_for(lot, record, false);
        }
        if record.held() > 0 {
            self.offer_for(lot, record, true);
        }
    }

    /// Ranks a lot that can now move when the margin rises, or when it falls.
    pub(super) fn offer_for(&mut self, lot: u32, record: Record, rises: bool) {
        let ranks = if self.ranks.level == record.level() {
            Some(&mut self.ranks)
        } else {
            self.kept.iter_mut().find(|ranks| ranks.level == record.level())
        };
        if let Some(ranks) = ranks {
            ranks.offer(lot, key(record, rises), rises);
        }
    }

    /// Where the margin is ranked: the lot that moves first, the youngest that holds anything when the margin rises, the
    /// oldest with queued units when it falls.
    #[inline(always)]
    pub(super) fn first(&mut self, rises: bool, lots: &Lots) -> Option<First> {
        self.ranks.first(rises, lots)
    }

    /// The lot that moved first can now move the other way, too.
    #[inline(always)]
    pub(super) fn turned(&mut self, first: First, rises: bool) {
        self.ranks.turned(first, rises);
    }

    /// Finds or makes the ranking of the level.
    #[inline(never)]
    pub(super) fn rank(&mut self, levels: &Levels, lots: &Lots) {
        self.kept.retain(|ranks| ranks.level != LEVEL_NONE);
        if self.ranks.level != LEVEL_NONE && self.ranks.len() >= KEPT_FROM {
            let left = std::mem::replace(self, Self::at(self.level));
            self.is_thin = left.is_thin;
            self.kept = left.kept;
            self.kept.push(left.ranks);
        }
        if let Some(place) = self.kept.iter().position(|ranks| ranks.level == self.level) {
            self.ranks = self.kept.swap_remove(place);
        } else {
            self.ranks.fill(self.level, levels, lots);
        }
        if self.kept.len() > KEPT_MAX {
            let smallest = (0..self.kept.len()).min_by_key(|&place| self.kept[place].len());
            self.kept.swap_remove(smallest.unwrap_or(0));
        }
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        let kept = |kept: &Ranks| size_of::<Ranks>() + kept.bytes();
        self.ranks.bytes() + self.kept.iter().map(kept).sum::<usize>()
    }
}
