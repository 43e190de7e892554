//! One clearing: what changed since the last one is carried into who wins, and winners become incumbents.

use std::collections::BTreeMap;
use std::ops::Range;

use super::levels::LOT_NONE;
use super::lots::Record;
use super::margin::LEVEL_TOP;
use super::rank::key;
use super::strays::{LEVEL_NONE, Stray};
use super::{Book, BookError, Change, Lot};

/// Most lots of a level that are looked at one by one for who moves first; more are ranked.
const FEW: usize = 3;

impl Book {
    /// Clears: gives the supply to the units that come first, and makes winners incumbent and losers queued. Returns
    /// what that changed: each standing lot that holds another number of units than before, once. What lots gave up
    /// of their own accord ([`Book::remove`], [`Book::resize`]) is not in the list.
    ///
    /// Between two clearings the incumbents are the winners of the earlier one, so this may follow every operation
    /// or a thousand of them.
    #[inline(always)]
    pub fn clear(&mut self) -> &[Change] {
        self.changes.clear();
        self.settle();
        self.publish();
        &self.changes
    }

    /// Whom another supply would serve, were the book cleared now: each lot that would then win another number of
    /// units (`after`) than with the present supply (`before`). Leaves the book as it is.
    ///
    /// # Errors
    /// When the supply is more than [`super::DEMAND_MAX`].
    pub fn with_supply(&mut self, supply: u32) -> Result<Vec<Change>, BookError> {
        Self::check_demand(u64::from(supply))?;
        let mut outcomes: BTreeMap<Lot, Change> = self
            .attempt(self.supply)
            .into_iter()
            .map(|now| (now.lot, Change { before: now.after, after: now.before, ..now }))
            .collect();
        for other in self.attempt(supply) {
            outcomes.entry(other.lot).or_insert(other).after = other.after;
        }
        Ok(outcomes.into_values().filter(|change| change.before != change.after).collect())
    }

    /// What a clearing with this supply would change; takes every step back afterwards.
    fn attempt(&mut self, supply: u32) -> Vec<Change> {
        self.strays.sort(&self.lots);
        let strays = self.strays.lots();
        let kept = std::mem::take(&mut self.changes);
        let was = (self.supply, self.sold, self.digest, self.margin.level, self.margin.is_thin);
        self.supply = supply;
        self.settle();
        let changes = std::mem::replace(&mut self.changes, kept);
        for &Change { lot, before, after } in &changes {
            let record = self.lots.record(lot.0).holding(before);
            self.lots.set(lot.0, record);
            self.recount_plain(lot.0, record, after, before);
            self.margin.offer(lot.0, record);
        }
        for lot in strays {
            self.lots.set(lot, self.lots.record(lot).strayed());
            self.strays.push(lot, &self.lots);
        }
        (self.supply, self.sold, self.digest, self.margin.level, self.margin.is_thin) = was;
        changes
    }

    /// Moves the units that must move. First every stray is counted as if the margin stayed: above it all its units
    /// win, below it none. Then the margin moves until the supply is met, one way only; so no unit moves twice.
    #[inline(always)]
    fn settle(&mut self) {
        if self.margin.level < self.reserve_level {
            self.lift();
        }
        let Some(lot) = self.strays.only() else { return self.settle_none_or_many() };
        let record = self.lots.record(lot);
        let (level, before) = (record.level(), record.held());
        if level == self.margin.level {
            self.strays.list(Stray { age: record.age, lot, level, before });
            return self.settle_many();
        }
        // Above or below is a toss-up that no processor predicts, so this is a choice without a branch.
        let after = record.units() & u32::from(level > self.margin.level).wrapping_neg();
        self.sold = self.sold - before + after;
        self.move_margin(level);
        if self.strays.only().is_none() {
            // The margin came to its level.
            return self.tell_strays();
        }
        self.strays.clear();
        self.finish_stray(lot, record.holding(after), before);
    }

    #[inline(always)]
    fn settle_none_or_many(&mut self) {
        if self.strays.len() == 0 { self.move_margin(LEVEL_NONE) } else { self.settle_many() }
    }

    /// The same for strays on a list.
    #[inline(never)]
    fn settle_many(&mut self) {
        self.strays.sort(&self.lots);
        for place in 0..self.strays.len() {
            self.count(place);
        }
        let level = self.margin.level;
        let rises = self.sold > self.supply;
        let watch = if rises { self.strays.level_above(level) } else { self.strays.level_below(level) };
        self.move_margin(watch);
        self.tell_strays();
    }

    /// Counts a stray by its level alone. At the margin it keeps what it has, and is one of those that stand there.
    fn count(&mut self, place: usize) {
        let stray = self.strays.get_mut(place);
        let record = self.lots.record(stray.lot);
        stray.before = record.held();
        let (lot, level, before) = (stray.lot, stray.level, stray.before);
        if level == self.margin.level {
            return self.settle_stray(lot);
        }
        let after = if level > self.margin.level { record.units() } else { 0 };
        self.lots.set(lot, record.holding(after));
        self.sold = self.sold - before + after;
    }

    /// From now on a stray is one of those that stand at its level, which the margin has reached.
    fn settle_stray(&mut self, lot: u32) {
        let record = self.lots.record(lot).settled();
        self.lots.set(lot, record);
        self.margin.offer(lot, record);
    }

    /// Tells what became of all strays; there are none now.
    fn tell_strays(&mut self) {
        for place in 0..self.strays.len() {
            let Stray { lot, before, .. } = self.strays.get(place);
            self.finish_stray(lot, self.lots.record(lot), before);
        }
        self.strays.clear();
        // The first round of a book, or one after a long pause, needs room that no other will.
        self.strays.shrink();
    }

    /// Makes a stray, whose record is this now, one of those that stand, and tells what became of it.
    #[inline(always)]
    fn finish_stray(&mut self, lot: u32, record: Record, before: u32) {
        let now = record.cleared();
        if self.margin.ranks(now.level()) & record.is_stray() {
            self.margin.offer(lot, now);
        }
        if before == now.held() {
            self.lots.set(lot, now);
        } else {
            self.tell(lot, now.holding(before), now);
            self.recount_plain(lot, now, before, now.held());
        }
    }

    /// Moves the margin until the supply is met. The next stray on the way, if any, stands at level `watch`.
    #[inline(always)]
    fn move_margin(&mut self, watch: u32) {
        if self.sold != self.supply {
            self.move_margin_by(self.sold > self.supply, self.sold.abs_diff(self.supply), watch);
        }
    }

    /// Moves the margin by so many units. It rises where too much is sold, and units that come last in the order lose;
    /// it falls where supply is left, and units that come first among those that wait win. Which way is a toss-up, so
    /// both go the same way through the code.
    fn move_margin_by(&mut self, rises: bool, mut units: u32, mut watch: u32) {
        loop {
            units = self.move_at_margin(rises, units);
            if units == 0 {
                break;
            }
            let next = self.levels.beside(self.margin.level, rises);
            let Some(level) = next.filter(|&level| rises | (level >= self.reserve_level)) else { break };
            self.margin.level = level;
            if level == watch {
                (units, watch) = self.meet_strays(rises, units);
                if units == 0 {
                    break;
                }
            }
        }
        self.sold = if rises { self.supply + units } else { self.supply - units };
        if units > 0 {
            // Everything that may win does.
            self.margin.level = self.reserve_level;
            self.margin.is_thin = true;
        }
    }

    /// Takes units away at the margin, the youngest held first, or gives units to the oldest queued first; returns how
    /// many could not be moved.
    #[inline(always)]
    fn move_at_margin(&mut self, rises: bool, units: u32) -> u32 {
        let level = self.margin.level;
        let lot = self.levels.first(level);
        if lot == LOT_NONE {
            return units;
        }
        let record = self.lots.record(lot);
        if self.levels.behind(lot) != LOT_NONE || !record.is_plainly_at(level) || self.margin.ranks(level) {
            return self.move_among_many(rises, units);
        }
        // Where levels are sparse nearly every lot is this: alone, and with one limit.
        let moved = units.min(record.movable(rises));
        if moved > 0 {
            self.margin.is_thin = rises & (moved == record.held());
            self.tell(lot, record, record.turned(rises, moved));
        }
        units - moved
    }

    #[inline(never)]
    fn move_among_many(&mut self, rises: bool, mut units: u32) -> u32 {
        while units > 0 {
            // What is offered to a ranking on the way may be the end of it.
            if !self.rank_many() {
                return self.move_few(rises, units);
            }
            let Some(first) = self.margin.first(rises, &self.lots) else { break };
            let moved = units.min(first.record.movable(rises));
            self.margin.turned(first, rises);
            self.turn(first.lot, first.record, rises, moved);
            units -= moved;
        }
        units
    }

    /// Ranks the lots at the margin, unless they are so few that looking at each is quicker. Returns whether it did.
    #[inline(always)]
    fn rank_many(&mut self) -> bool {
        if !self.margin.is_ranked() {
            if self.levels.at(self.margin.level).nth(FEW).is_none() {
                return false;
            }
            self.margin.rank(&self.levels, &self.lots);
        }
        true
    }

    fn move_few(&mut self, rises: bool, mut units: u32) -> u32 {
        while units > 0 {
            let Some((lot, record)) = self.first_of_few(rises) else { break };
            let moved = units.min(record.movable(rises));
            // The level may have been ranked when more stood there, and be so again.
            if (record.movable(!rises) == 0) & self.margin.ranks(record.level()) {
                self.margin.offer_for(lot, record, !rises);
            }
            self.turn(lot, record, rises, moved);
            units -= moved;
        }
        units
    }

    fn first_of_few(&self, rises: bool) -> Option<(u32, Record)> {
        let level = self.margin.level;
        let lots = self.levels.at(level).map(|lot| (lot, self.lots.record(lot)));
        let movable = lots.filter(|(_, record)| record.is_settled_at(level) & (record.movable(rises) > 0));
        movable.max_by_key(|(_, record)| key(*record, rises))
    }

    /// Whether any lot at the margin can move.
    fn can_move(&mut self, rises: bool) -> bool {
        if self.rank_many() {
            self.margin.first(rises, &self.lots).is_some()
        } else {
            self.first_of_few(rises).is_some()
        }
    }

    /// The reserve has risen above the margin: what stands between loses all it holds.
    #[cold]
    fn lift(&mut self) {
        while self.margin.level < self.reserve_level {
            self.sold -= u32::MAX - self.move_at_margin(true, u32::MAX);
            let next = self.levels.next(self.margin.level + 1).unwrap_or(LEVEL_TOP);
            self.margin.level = next.min(self.reserve_level);
        }
        self.margin.is_thin = true;
    }

    /// The margin has come to strays. Returns how many units are still to be moved, and where the next strays are.
    #[cold]
    fn meet_strays(&mut self, rises: bool, units: u32) -> (u32, u32) {
        if let Some(lot) = self.strays.only() {
            let record = self.lots.record(lot);
            let (level, before) = (record.level(), record.held());
            self.lots.set(lot, record.holding(if rises { record.units() } else { 0 }));
            self.strays.list(Stray { age: record.age, lot, level, before });
        }
        let level = self.margin.level;
        let strays = self.strays.at(level);
        let (left, watch) = if rises {
            (self.take_from_strays(strays.clone(), units), self.strays.level_above(level))
        } else {
            (self.give_back_to_strays(strays.clone(), units), self.strays.level_below(level))
        };
        self.margin.is_thin = rises;
        strays.for_each(|place| self.settle_stray(self.strays.get(place).lot));
        (left, watch)
    }

    /// The margin has risen to these strays, which were counted with all their units. What they did not hold before
    /// comes last, the youngest last of all. Returns how much is still to be taken.
    fn take_from_strays(&mut self, strays: Range<usize>, mut excess: u32) -> u32 {
        for place in strays.rev() {
            let Stray { lot, before, .. } = self.strays.get(place);
            let record = self.lots.record(lot);
            let taken = excess.min(record.units() - before);
            self.lots.set(lot, record.holding(record.units() - taken));
            excess -= taken;
        }
        excess
    }

    /// The margin has fallen to these strays, which were counted with none of their units. What they held before
    /// comes first, the oldest first of all. Returns how much is still left.
    fn give_back_to_strays(&mut self, strays: Range<usize>, mut left: u32) -> u32 {
        for place in strays {
            let Stray { lot, before, .. } = self.strays.get(place);
            let given = left.min(before);
            self.lots.set(lot, self.lots.record(lot).holding(given));
            left -= given;
        }
        left
    }

    /// Takes held units of a lot at the margin away, where that rises, or gives it more.
    #[inline(always)]
    fn turn(&mut self, lot: u32, record: Record, rises: bool, units: u32) {
        let now = record.turned(rises, units);
        self.margin.is_thin = rises & (now.held() == 0);
        if record.is_told_later() {
            self.lots.set(lot, now);
        } else {
            self.tell(lot, record, now);
            self.recount_plain(lot, record, record.held(), now.held());
        }
    }

    /// Makes a lot hold another number of units, and notes it.
    #[inline(always)]
    fn tell(&mut self, lot: u32, before: Record, now: Record) {
        self.lots.set(lot, now);
        let (before, after) = (before.held(), now.held());
        let more = u64::from(after).wrapping_sub(u64::from(before));
        self.digest = self.digest.wrapping_add(self.digest_of_held(now).wrapping_mul(more));
        self.changes.push(Change { lot: Lot(lot), before, after });
    }

    /// Moves the margin up to where units are held, if none is where it stands. At most one step, once nothing strays.
    pub(super) fn thicken(&mut self) {
        while self.margin.level < LEVEL_TOP && !self.can_move(true) {
            self.margin.level = self.levels.next(self.margin.level + 1).unwrap_or(LEVEL_TOP);
        }
        self.margin.is_thin = false;
    }

    /// The highest level at which a unit waits, when nothing strays.
    pub(super) fn highest_queued(&mut self) -> Option<u32> {
        if self.can_move(false) {
            return Some(self.margin.level);
        }
        self.levels.previous(self.margin.level)
    }
}
