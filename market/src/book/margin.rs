//! Where winning ends: the one level at which it matters who is older.

use super::bags::Bags;
use super::lots::{Lots, Record};
use super::rank::{Rank, Ranked};
use super::LEVELS_MAX;

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

/// The lots of one level, ranked for losing and for winning units. Every lot that can lose or win a unit has an entry;
/// an entry may have ceased to be right, which looking at its lot tells.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    level: u32,
    /// Most entries before the rankings are made anew.
    entries_max: usize,
    /// Lots that hold units, the youngest first.
    losers: Rank,
    /// Lots with queued units, the oldest first.
    winners: Rank,
}

impl Ranks {
    fn len(&self) -> usize {
        self.losers.len() + self.winners.len()
    }

    /// Ranks the lots of a level.
    fn fill(&mut self, level: u32, bags: &Bags, lots: &Lots) {
        let settled = || {
            let lots = bags.at(level).map(|lot| (lot, lots.record(lot)));
            lots.filter(|(_, record)| record.is_settled_at(level))
        };
        let held = settled().filter(|(_, record)| record.held > 0);
        self.losers.fill(held.map(|(lot, record)| Ranked { key: record.age, lot }));
        let queued = settled().filter(|(_, record)| record.queued() > 0);
        self.winners.fill(queued.map(|(lot, record)| Ranked { key: !record.age, lot }));
        self.level = level;
        self.entries_max = 2 * self.len() + SPARE_ENTRIES;
    }

    /// Enters a lot of this level that can lose units.
    #[inline]
    fn offer_loser(&mut self, lot: u32, age: u64) {
        self.losers.push(Ranked { key: age, lot });
        self.check();
    }

    /// Enters a lot of this level that can win units.
    #[inline]
    fn offer_winner(&mut self, lot: u32, age: u64) {
        self.winners.push(Ranked { key: !age, lot });
        self.check();
    }

    /// Gives the rankings up when they have grown too long.
    fn check(&mut self) {
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
        let (losers, winners) = (Rank::default(), Rank::default());
        let ranks = Ranks { level: LEVEL_NONE, entries_max: 0, losers, winners };
        Self { level, is_thin: true, ranks, kept: Vec::new() }
    }

    /// Whether a lot of this level may have to be ranked.
    #[inline(always)]
    pub(super) fn ranks(&self, level: u32) -> bool {
        (self.ranks.level == level) | !self.kept.is_empty()
    }

    /// The rankings of a level, if there are any.
    #[inline]
    fn ranks_of(&mut self, level: u32) -> Option<&mut Ranks> {
        if self.ranks.level == level {
            return Some(&mut self.ranks);
        }
        self.kept.iter_mut().find(|ranks| ranks.level == level)
    }

    /// Ranks a lot that now counts at its level, for all it can do.
    pub(super) fn offer(&mut self, lot: u32, record: Record) {
        if record.held > 0 {
            self.offer_loser(lot, record);
        }
        if record.queued() > 0 {
            self.offer_winner(lot, record);
        }
    }

    /// Ranks a lot that can now lose units.
    pub(super) fn offer_loser(&mut self, lot: u32, record: Record) {
        if let Some(ranks) = self.ranks_of(record.level()) {
            ranks.offer_loser(lot, record.age);
        }
    }

    /// Ranks a lot that can now win units.
    pub(super) fn offer_winner(&mut self, lot: u32, record: Record) {
        if let Some(ranks) = self.ranks_of(record.level()) {
            ranks.offer_winner(lot, record.age);
        }
    }

    /// The lot at this level that loses first: the youngest that holds anything.
    pub(super) fn first_loser(&mut self, bags: &Bags, lots: &Lots) -> Option<(u32, Record)> {
        self.rank(bags, lots);
        while let Some(Ranked { key, lot }) = self.ranks.losers.first() {
            let record = lots.record(lot);
            if record.is_settled_at(self.level) & (record.age == key) & (record.held > 0) {
                return Some((lot, record));
            }
            self.ranks.losers.pop();
        }
        None
    }

    /// The lot at this level that wins first: the oldest with queued units.
    pub(super) fn first_winner(&mut self, bags: &Bags, lots: &Lots) -> Option<(u32, Record)> {
        self.rank(bags, lots);
        while let Some(Ranked { key, lot }) = self.ranks.winners.first() {
            let record = lots.record(lot);
            if record.is_settled_at(self.level) & (record.age == !key) & (record.queued() > 0) {
                return Some((lot, record));
            }
            self.ranks.winners.pop();
        }
        None
    }

    /// Makes sure that the rankings are those of the level.
    #[inline(always)]
    fn rank(&mut self, bags: &Bags, lots: &Lots) {
        if self.ranks.level != self.level {
            self.rank_anew(bags, lots);
        }
    }

    #[inline(never)]
    fn rank_anew(&mut self, bags: &Bags, lots: &Lots) {
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
            self.ranks.fill(self.level, bags, lots);
        }
        if self.kept.len() > KEPT_MAX {
            let smallest = (0..self.kept.len()).min_by_key(|&place| self.kept[place].len());
            self.kept.swap_remove(smallest.unwrap_or(0));
        }
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        let ranks = |ranks: &Ranks| ranks.losers.bytes() + ranks.winners.bytes();
        ranks(&self.ranks) + self.kept.iter().map(|kept| size_of::<Ranks>() + ranks(kept)).sum::<usize>()
    }
}
