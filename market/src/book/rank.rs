//! The lots of one level by age: who wins a unit first, and who loses one first.

use std::collections::BinaryHeap;

use super::levels::Levels;
use super::lots::{Lots, Record};

/// Marks a ranking of no level.
pub(super) const LEVEL_NONE: u32 = u32::MAX;
/// A ranking is made anew when so many more lots came late as it was made with: it would soon be a heap with an idle
/// row beside it.
const SPARE_ENTRIES: usize = 64;

/// A lot with what it is ranked by. It may have ceased to be right, which looking at the lot tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    /// In a row the age; in a heap what comes first if it is largest.
    key: u64,
    lot: u32,
}

/// The lot that moves first.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) lot: u32,
    pub(super) record: Record,
    /// Its place in the row; none if it came late.
    place: Option<i64>,
}

/// What a lot is ranked by, the largest first: when the margin rises the youngest, when it falls the oldest.
#[inline(always)]
pub(super) const fn key(record: Record, rises: bool) -> u64 {
    if rises { record.age } else { !record.age }
}

/// The lots of one level. Every lot that can lose or win a unit has an entry for that.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    pub(super) level: u32,
    /// Those that were here when the ranking was made, the oldest first.
    row: Vec<Ranked>,
    /// When the margin falls and when it rises: where in the row the search for the first to move begins. None before
    /// the one has queued units, none behind the other holds any.
    ends: [i64; 2],
    /// Those that came, or were made able to move, later.
    late: [BinaryHeap<Ranked>; 2],
}

impl Default for Ranks {
    fn default() -> Self {
        Self {
            level: LEVEL_NONE,
            row: Vec::new(),
            ends: [0; 2],
            late: [BinaryHeap::new(), BinaryHeap::new()],
        }
    }
}

impl Ranks {
    /// Entries, right or not.
    pub(super) fn len(&self) -> usize {
        self.row.len() + self.late_len()
    }

    fn late_len(&self) -> usize {
        self.late[0].len() + self.late[1].len()
    }

    /// Ranks the lots of a level.
    pub(super) fn fill(&mut self, level: u32, levels: &Levels, lots: &Lots) {
        self.level = level;
        self.row.clear();
        self.late.iter_mut().for_each(BinaryHeap::clear);
        for lot in levels.at(level) {
            let record = lots.record(lot);
            if record.is_settled_at(level) {
                self.row.push(Ranked { key: record.age, lot });
            }
        }
        self.row.sort_unstable();
        self.ends = [0, self.row.len() as i64 - 1];
    }

    /// Enters a lot of this level that can move one way.
    pub(super) fn offer(&mut self, lot: u32, key: u64, rises: bool) {
        self.late[usize::from(rises)].push(Ranked { key, lot });
        if self.late_len() > self.row.len() + SPARE_ENTRIES {
            self.level = LEVEL_NONE;
        }
    }

    /// The lot that moves first.
    #[inline(always)]
    pub(super) fn first(&mut self, rises: bool, lots: &Lots) -> Option<First> {
        let end = &mut self.ends[usize::from(rises)];
        let found = loop {
            let Some(&Ranked { key, lot }) = self.row.get(*end as usize) else { break None };
            let record = lots.record(lot);
            if record.is_settled_at(self.level) & (record.age == key) & (record.movable(rises) > 0) {
                break Some(First { lot, record, place: Some(*end) });
            }
            *end += step(rises);
        };
        if self.late[usize::from(rises)].is_empty() {
            found
        } else {
            self.first_beside_late(found, rises, lots)
        }
    }

    #[inline(never)]
    fn first_beside_late(&mut self, found: Option<First>, rises: bool, lots: &Lots) -> Option<First> {
        let late = &mut self.late[usize::from(rises)];
        while let Some(&Ranked { key: right, lot }) = late.peek() {
            if found.is_some_and(|found| key(found.record, rises) >= right) {
                break;
            }
            let record = lots.record(lot);
            let can_move = record.movable(rises) > 0;
            if record.is_settled_at(self.level) & (key(record, rises) == right) & can_move {
                return Some(First { lot, record, place: None });
            }
            late.pop();
        }
        found
    }

    /// The lot that moved first can now move the other way, too.
    #[inline(always)]
    pub(super) fn turned(&mut self, first: First, rises: bool) {
        match first.place {
            Some(place) if rises => self.ends[0] = self.ends[0].min(place),
            Some(place) => self.ends[1] = self.ends[1].max(place),
            None => self.turned_late(first, rises),
        }
    }

    #[inline(never)]
    fn turned_late(&mut self, first: First, rises: bool) {
        if first.record.movable(!rises) == 0 {
            self.offer(first.lot, key(first.record, !rises), !rises);
        }
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        let late = self.late[0].capacity() + self.late[1].capacity();
        (self.row.capacity() + late) * size_of::<Ranked>()
    }
}

/// Where in the row the next to move is.
const fn step(rises: bool) -> i64 {
    if rises { -1 } else { 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Lots that move to and fro, become able to move by themselves, and go: the first is always the right one.
        #[test]
        fn gives_who_comes_first(
            units in prop::collection::vec((0_u16..4, 0_u16..4), 1..30),
            steps in prop::collection::vec((any::<bool>(), 1_u32..5, any::<Option<prop::sample::Index>>()), 0..100),
        ) {
            let (mut lots, mut levels) = (Lots::default(), Levels::new(64));
            for (age, &(held, queued)) in (0..).zip(&units) {
                // Ages and numbers in another order.
                let age = (age * 7) % 31;
                let lot = lots.insert(Record::stray(age, 5, held + queued + 1, held).cleared(), None);
                levels.reach_lots(lot as usize + 1);
                levels.link(5, lot);
            }
            let mut ranks = Ranks::default();
            ranks.fill(5, &levels, &lots);
            for (rises, most, other) in steps {
                if let Some(other) = other {
                    let lot = other.index(units.len()) as u32;
                    let record = lots.record(lot);
                    let now = record.holding(most.min(record.units()));
                    lots.set(lot, now);
                    ranks.offer(lot, key(now, false), false);
                    ranks.offer(lot, key(now, true), true);
                }
                if ranks.level == LEVEL_NONE {
                    ranks.fill(5, &levels, &lots);
                }
                let movable = |lot: &u32| lots.record(*lot).movable(rises) > 0;
                let expected = (0..units.len() as u32).filter(movable).max_by_key(|&lot| key(lots.record(lot), rises));
                let first = ranks.first(rises, &lots);
                prop_assert_eq!(first.map(|first| first.lot), expected);
                if let Some(first) = first {
                    ranks.turned(first, rises);
                    lots.set(first.lot, first.record.turned(rises, most.min(first.record.movable(rises))));
                }
            }
        }
    }
}
