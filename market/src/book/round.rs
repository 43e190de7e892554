//! One clearing: what changed since the last one is carried into who wins, and winners become incumbents.

use std::collections::BTreeMap;

use super::lots::Record;
use super::margin::LEVEL_TOP;
use super::{Book, BookError, Change, Lot};

/// What a clearing published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) price: Option<u64>,
    /// The largest price at which exactly the supply is wanted; none unless all of it is sold.
    pub(super) lowest_accepted: Option<u64>,
}

impl Book {
    /// Clears: gives the supply to the units that come first, and makes winners incumbent and losers queued. Returns
    /// what that changed: each standing lot that holds another number of units than before, once. What lots gave up
    /// of their own accord ([`Book::remove`], [`Book::resize`]) is not in the list.
    ///
    /// Between two clearings the incumbents are the winners of the earlier one, so this may follow every operation
    /// or a thousand of them.
    #[inline]
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
        self.strays.sort_if_many(&self.lots);
        let strays = self.strays.lots();
        let kept = std::mem::take(&mut self.changes);
        let was = (self.supply, self.sold, self.digest, self.margin.level, self.margin.is_thin);
        self.supply = supply;
        self.settle();
        let changes = std::mem::replace(&mut self.changes, kept);
        for &Change { lot, before, after } in &changes {
            let record = self.lots.record_mut(lot.0);
            record.held = before as u16;
            let record = *record;
            self.recount_plain(lot.0, record, after, before);
            self.margin.offer(lot.0, record);
        }
        for lot in strays {
            let record = self.lots.record_mut(lot);
            *record = record.strayed();
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
        self.strays.sort_if_many(&self.lots);
        for place in 0..self.strays.len() {
            self.count(place);
        }
        if self.sold > self.supply {
            self.trim();
        } else if self.sold < self.supply {
            self.fill();
        }
        for place in 0..self.strays.len() {
            self.tell_stray(place);
        }
        self.strays.clear();
    }

    /// Counts a stray by its level alone. At the margin it keeps what it has, and is one of those that stand there.
    #[inline(always)]
    fn count(&mut self, place: usize) {
        let stray = self.strays.get_mut(place);
        let record = self.lots.record_mut(stray.lot);
        let (level, margin) = (record.level(), self.margin.level);
        stray.level = level;
        stray.before = u32::from(record.held);
        if level == margin {
            return self.settle_stray(place);
        }
        // Above or below is a toss-up that no processor predicts.
        let held = if level > margin { record.units } else { 0 };
        record.held = held;
        self.sold = self.sold - stray.before + u32::from(held);
    }

    /// From now on a stray is one of those that stand at its level, which the margin has reached.
    #[cold]
    fn settle_stray(&mut self, place: usize) {
        let lot = self.strays.get(place).lot;
        let record = self.lots.record_mut(lot);
        *record = record.settled();
        self.margin.offer(lot, *record);
    }

    /// What became of a stray.
    #[inline(always)]
    fn tell_stray(&mut self, place: usize) {
        let stray = self.strays.get(place);
        let record = self.lots.record_mut(stray.lot);
        let was_stray = record.is_stray();
        *record = record.cleared();
        let record = *record;
        if was_stray & self.margin.ranks(stray.level) {
            self.margin.offer(stray.lot, record);
        }
        let after = u32::from(record.held);
        if stray.before != after {
            self.tell(stray.lot, record, stray.before, after);
        }
    }

    /// The reserve has risen above the margin: what stands between loses all it holds.
    #[cold]
    fn lift(&mut self) {
        while self.margin.level < self.reserve_level {
            let lost = u32::MAX - self.take(u32::MAX);
            self.sold -= lost;
            let next = self.bags.next(self.margin.level + 1).unwrap_or(LEVEL_TOP);
            self.margin.level = next.min(self.reserve_level);
        }
        self.margin.is_thin = true;
    }

    /// Too much is sold: units that come last in the order lose, and the margin rises.
    fn trim(&mut self) {
        let mut excess = self.sold - self.supply;
        self.sold = self.supply;
        let mut place = self.strays.count_below(self.margin.level + 1);
        loop {
            excess = self.take(excess);
            if excess == 0 {
                return;
            }
            let Some(level) = self.bags.next(self.margin.level + 1) else { break };
            self.margin.level = level;
            if place < self.strays.len() && self.strays.get(place).level == level {
                let end = self.strays.count_below(level + 1);
                excess = self.take_from_strays(place, end, excess);
                place = end;
                if excess == 0 {
                    break;
                }
            }
        }
        self.margin.is_thin = true;
    }

    /// Supply is left: units that come first among those that wait win, and the margin falls.
    fn fill(&mut self) {
        let mut left = self.supply - self.sold;
        let mut place = self.strays.count_below(self.margin.level);
        loop {
            left = self.give(left);
            if left == 0 {
                break;
            }
            let next = self.bags.previous(self.margin.level);
            let Some(level) = next.filter(|&level| level >= self.reserve_level) else { break };
            self.margin.level = level;
            if place > 0 && self.strays.get(place - 1).level == level {
                let first = self.strays.count_below(level);
                left = self.give_back_to_strays(first, place, left);
                place = first;
                if left == 0 {
                    break;
                }
            }
        }
        self.sold = self.supply - left;
        self.margin.is_thin = left > 0;
        if left > 0 {
            // Everything that may win does.
            self.margin.level = self.reserve_level;
        }
    }

    /// Takes units away at the margin, the youngest held first; returns how many could not be taken.
    #[inline(always)]
    fn take(&mut self, excess: u32) -> u32 {
        let level = self.margin.level;
        let (len, lot) = self.bags.look(level);
        if len > 1 {
            return self.take_among_many(excess);
        }
        if len == 0 {
            return excess;
        }
        let record = self.lots.record(lot);
        if !record.is_settled_at(level) | (record.held == 0) {
            return excess;
        }
        let taken = excess.min(u32::from(record.held));
        self.lose(lot, record, taken);
        excess - taken
    }

    #[inline(never)]
    fn take_among_many(&mut self, mut excess: u32) -> u32 {
        while excess > 0 {
            let Some((lot, record)) = self.margin.first_loser(&self.bags, &self.lots) else { break };
            let taken = excess.min(u32::from(record.held));
            self.lose(lot, record, taken);
            excess -= taken;
        }
        excess
    }

    /// Gives units away at the margin, to the oldest queued first; returns how many are left.
    #[inline(always)]
    fn give(&mut self, left: u32) -> u32 {
        let level = self.margin.level;
        let (len, lot) = self.bags.look(level);
        if len > 1 {
            return self.give_among_many(left);
        }
        if len == 0 {
            return left;
        }
        let record = self.lots.record(lot);
        if !record.is_settled_at(level) | (record.queued() == 0) {
            return left;
        }
        let given = left.min(record.queued());
        self.win(lot, record, given);
        left - given
    }

    #[inline(never)]
    fn give_among_many(&mut self, mut left: u32) -> u32 {
        while left > 0 {
            let Some((lot, record)) = self.margin.first_winner(&self.bags, &self.lots) else { break };
            let given = left.min(record.queued());
            self.win(lot, record, given);
            left -= given;
        }
        left
    }

    /// The margin has risen to these strays, which were counted with all their units. What they did not hold before
    /// comes last, the youngest last of all.
    #[cold]
    fn take_from_strays(&mut self, first: usize, end: usize, mut excess: u32) -> u32 {
        for place in (first..end).rev() {
            let stray = self.strays.get(place);
            let record = self.lots.record_mut(stray.lot);
            let taken = excess.min(u32::from(record.units) - stray.before);
            record.held -= taken as u16;
            excess -= taken;
        }
        (first..end).for_each(|place| self.settle_stray(place));
        excess
    }

    /// The margin has fallen to these strays, which were counted with none of their units. What they held before
    /// comes first, the oldest first of all.
    #[cold]
    fn give_back_to_strays(&mut self, first: usize, end: usize, mut left: u32) -> u32 {
        for place in first..end {
            let stray = self.strays.get(place);
            let given = left.min(stray.before);
            self.lots.record_mut(stray.lot).held += given as u16;
            left -= given;
        }
        (first..end).for_each(|place| self.settle_stray(place));
        left
    }

    /// Takes held units of a lot at the margin away.
    #[inline(always)]
    fn lose(&mut self, lot: u32, record: Record, units: u32) {
        let before = u32::from(record.held);
        self.margin.is_thin = before == units;
        self.lots.record_mut(lot).held = (before - units) as u16;
        if (record.queued() == 0) & self.margin.ranks(record.level()) {
            self.margin.offer_winner(lot, record);
        }
        self.tell_native(lot, record, before - units);
    }

    /// Gives queued units of a lot at the margin servers.
    #[inline(always)]
    fn win(&mut self, lot: u32, record: Record, units: u32) {
        let before = u32::from(record.held);
        self.lots.record_mut(lot).held = (before + units) as u16;
        if (before == 0) & self.margin.ranks(record.level()) {
            self.margin.offer_loser(lot, record);
        }
        self.tell_native(lot, record, before + units);
    }

    /// Notes what a lot at the margin holds now, unless it is told with the strays.
    #[inline(always)]
    fn tell_native(&mut self, lot: u32, record: Record, after: u32) {
        if !record.is_told_later() {
            self.tell(lot, record, u32::from(record.held), after);
        }
    }

    /// Notes that a lot holds another number of units.
    #[inline(always)]
    fn tell(&mut self, lot: u32, record: Record, before: u32, after: u32) {
        let more = u64::from(after).wrapping_sub(u64::from(before));
        self.digest = self.digest.wrapping_add(self.digest_of_held(record).wrapping_mul(more));
        self.changes.push(Change { lot: Lot(lot), before, after });
        self.recount_plain(lot, record, before, after);
    }

    /// Works out the price of what is held.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        let is_sold_out = self.supply > 0 && self.sold == self.supply;
        if is_sold_out & self.margin.is_thin {
            self.thicken();
        }
        let lowest_accepted = is_sold_out.then(|| self.grid.limit(self.margin.level));
        self.published = Published { price: self.price_now(lowest_accepted), lowest_accepted };
    }

    /// Moves the margin up to where units are held, if none is where it stands. At most one step, once nothing strays.
    fn thicken(&mut self) {
        while self.margin.level < LEVEL_TOP && !self.holds_at_margin() {
            self.margin.level = self.bags.next(self.margin.level + 1).unwrap_or(LEVEL_TOP);
        }
        self.margin.is_thin = false;
    }

    fn holds_at_margin(&mut self) -> bool {
        match self.bags.look(self.margin.level) {
            (0, _) => false,
            (1, lot) => self.lots.record(lot).held > 0,
            _ => self.margin.first_loser(&self.bags, &self.lots).is_some(),
        }
    }

    /// The highest level at which a unit waits, when nothing strays.
    pub(super) fn highest_queued(&mut self) -> Option<u32> {
        let waits = match self.bags.look(self.margin.level) {
            (0, _) => false,
            (1, lot) => self.lots.record(lot).queued() > 0,
            _ => self.margin.first_winner(&self.bags, &self.lots).is_some(),
        };
        if waits { Some(self.margin.level) } else { self.bags.previous(self.margin.level) }
    }
}
