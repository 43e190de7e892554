//! Where winning ends: the one level at which it matters who is older.

use super::LEVELS_MAX;
use super::levels::Levels;
use super::lots::{Lots, Record};
use super::rank::{Rank, Ranked};

/// Above every level.
pub(super) const LEVEL_TOP: u32 = LEVELS_MAX;
/// Marks rankings of no level.
const LEVEL_NONE: u32 = u32::MAX;
/// Entries from which on the rankings of a level are kept when the margin leaves it…
const KEPT_FROM: usize = 512;
/// …and how many levels' are. Making them anew looks at all lots of the level, and the margin may soon be back.
const KEPT_MAX: usize = 8;
/// Rankings are made anew when they have twice as many entries as when they were made, and so many more: most are
/// then no longer right.
const SPARE_ENTRIES: usize = 64;

/// The lots of one level, ranked for both ways the margin can move. Every lot that can lose or win a unit has an entry;
/// an entry may have ceased to be right, which looking at its lot tells.
#[derive(Clone, Debug)]
struct Ranks {
    level: u32,
    /// Most entries before the rankings are made anew.
    entries_max: usize,
    /// When the margin falls: lots with queued units, the oldest first; when it rises: lots that hold units, the
    /// youngest first.
    movers: [Rank; 2],
}

/// What a lot is ranked by, the largest first.
#[inline(always)]
pub(super) const fn key(record: Record, rises: bool) -> u64 {
    if rises { record.age } else { !record.age }
}

impl Ranks {
    fn len(&self) -> usize {
        let [winners, losers] = &self.movers;
        winners.len() + losers.len()
    }

    /// Ranks the lots of a level.
    fn fill(&mut self, level: u32, levels: &Levels, lots: &Lots) {
        let [mut winners, mut losers] = self.movers.each_mut().map(Rank::emptied);
        for lot in levels.at(level) {
            let record = lots.record(lot);
            if record.is_settled_at(level) {
                if record.queued() > 0 {
                    winners.push(Ranked { key: key(record, false), lot });
                }
                if record.held() > 0 {
                    losers.push(Ranked { key: key(record, true), lot });
                }
            }
        }
        self.movers[0].fill(winners);
        self.movers[1].fill(losers);
        self.level = level;
        self.entries_max = 2 * self.len() + SPARE_ENTRIES;
    }

    /// Enters a lot of this level that can move one way.
    #[inline]
    fn offer(&mut self, lot: u32, key: u64, rises: bool) {
        self.movers[usize::from(rises)].push(Ranked { key, lot });
        if self.len() > self.entries_max {
            self.level = LEVEL_NONE;
        }
    }
}

/// The margin. When nothing strays, all units above its level are held, and none below.
#[derive(Clone, Debug)]
pub(super) struct Margin {
    pub(super) level: u32,
    /// Whether no unit may be held at the level.
    pub(super) is_thin: bool,
    ranks: Ranks,
    /// Rankings of other levels.
    kept: Vec<Ranks>,
}

impl Margin {
    pub(super) fn at(level: u32) -> Self {
        let ranks = Ranks { level: LEVEL_NONE, entries_max: 0, movers: [Rank::default(), Rank::default()] };
        Self { level, is_thin: true, ranks, kept: Vec::new() }
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

    /// The lot at this level that moves first: when the margin rises the youngest that holds anything, when it falls
    /// the oldest with queued units.
    #[inline]
    pub(super) fn first(&mut self, rises: bool, levels: &Levels, lots: &Lots) -> Option<(u32, Record)> {
        if self.ranks.level != self.level {
            self.rank_anew(levels, lots);
        }
        let movers = &mut self.ranks.movers[usize::from(rises)];
        while let Some(Ranked { key: right, lot }) = movers.first() {
            let record = lots.record(lot);
            let can_move = record.movable(rises) > 0;
            if record.is_settled_at(self.level) & (key(record, rises) == right) & can_move {
                return Some((lot, record));
            }
            movers.pop();
        }
        None
    }

    /// Finds or makes the rankings of the level.
    #[inline(never)]
    fn rank_anew(&mut self, levels: &Levels, lots: &Lots) {
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
        let ranks = |ranks: &Ranks| ranks.movers.iter().map(Rank::bytes).sum::<usize>();
        ranks(&self.ranks) + self.kept.iter().map(|kept| size_of::<Ranks>() + ranks(kept)).sum::<usize>()
    }
}
