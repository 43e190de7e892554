//! One clearing: what changed since the last one is carried into who wins, and winners become incumbents.

use std::collections::BTreeMap;

use super::lots::Record;
use super::rows::{Class, Entry};
use super::{Book, BookError, Change, Lot};

/// No place in the list of changes.
const NOWHERE: usize = usize::MAX;

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
        let kept = std::mem::take(&mut self.changes);
        let present = std::mem::replace(&mut self.supply, supply);
        self.settle();
        let changes = std::mem::take(&mut self.changes);
        for &Change { lot, before, after } in &changes {
            let record = self.lots.record(lot.0);
            let mut noted = NOWHERE;
            if after > before {
                self.lose(lot.0, record, after - before, &mut noted);
            } else {
                self.win(lot.0, record, before - after, &mut noted);
            }
        }
        self.supply = present;
        self.changes = kept;
        changes
    }

    /// Moves the units that must move. Each turn of a loop here moves units of one lot, or of two, into the other
    /// class, and what moves ends where it belongs; so the cost is what there is to tell, times the height of a row.
    fn settle(&mut self) {
        let (mut lost, mut won) = (NOWHERE, NOWHERE);
        while self.sold > self.supply || self.rows.worst_held() < self.reserve_level {
            let is_below_reserve = self.rows.worst_held() < self.reserve_level;
            let excess = if is_below_reserve { u32::MAX } else { self.sold - self.supply };
            let (lot, record) = self.last_winner();
            self.lose(lot, record, excess.min(u32::from(record.held)), &mut lost);
        }
        while self.sold < self.supply && self.rows.best_queued() >= self.reserve_level {
            let (lot, record) = self.first_loser();
            self.win(lot, record, record.queued().min(self.supply - self.sold), &mut won);
        }
        // All that may be is sold. What still moves are units that stand above a lower winner, against its units.
        while self.rows.best_queued() > self.rows.worst_held() {
            self.exchange(&mut lost, &mut won);
        }
    }

    /// Moves all units of the first loser, or of the last winner, whichever has more, and as many units the other way.
    /// Only units on the far side of the first lot's level are met with; what is left goes back to the lot itself.
    fn exchange(&mut self, lost: &mut usize, won: &mut usize) {
        let (above, under) = (self.rows.best_queued(), self.rows.worst_held());
        let (last, losing) = self.last_winner();
        let (first, winning) = self.first_loser();
        if winning.queued() >= u32::from(losing.held) {
            self.win(first, winning, winning.queued(), won);
            while self.sold > self.supply && self.rows.worst_held() < above {
                let (lot, record) = self.last_winner();
                self.lose(lot, record, (self.sold - self.supply).min(u32::from(record.held)), lost);
            }
            if self.sold > self.supply {
                self.lose(first, self.lots.record(first), self.sold - self.supply, won);
            }
        } else {
            self.lose(last, losing, u32::from(losing.held), lost);
            while self.sold < self.supply && self.rows.best_queued() > under {
                let (lot, record) = self.first_loser();
                self.win(lot, record, (self.supply - self.sold).min(record.queued()), won);
            }
            if self.sold < self.supply {
                self.win(last, self.lots.record(last), self.supply - self.sold, lost);
            }
        }
    }

    #[inline(always)]
    fn last_winner(&self) -> (u32, Record) {
        let lot = self.rows.youngest_held(self.rows.worst_held() as u32);
        (lot, self.lots.record(lot))
    }

    #[inline(always)]
    fn first_loser(&self) -> (u32, Record) {
        let lot = self.rows.oldest_queued(self.rows.best_queued() as u32);
        (lot, self.lots.record(lot))
    }

    /// Takes held units of a lot away; `noted` is where the last losing lot was noted.
    #[inline(never)]
    fn lose(&mut self, lot: u32, record: Record, units: u32, noted: &mut usize) {
        let held = u32::from(record.held);
        let level = record.level();
        let entry = Entry { age: record.age, lot };
        if units == held {
            self.rows.remove(level, Class::Held, entry, record.leaf_if_whole());
            if record.is_running() {
                self.forget_plain(lot);
            }
        }
        if record.queued() == 0 {
            let leaf = self.rows.insert(level, Class::Queued, entry, &self.lots);
            self.lots.set_leaf(lot, leaf);
        }
        self.lots.set_held(lot, (held - units) as u16);
        self.sold -= units;
        self.digest = self.digest.wrapping_sub(self.digest_of_held(record).wrapping_mul(u64::from(units)));
        self.note(lot, held, held - units, noted);
    }

    /// Gives queued units of a lot servers; `noted` is where the last winning lot was noted.
    #[inline(never)]
    fn win(&mut self, lot: u32, record: Record, units: u32, noted: &mut usize) {
        let held = u32::from(record.held);
        let level = record.level();
        let entry = Entry { age: record.age, lot };
        if units == record.queued() {
            self.rows.remove(level, Class::Queued, entry, record.leaf_if_whole());
        }
        if held == 0 {
            let leaf = self.rows.insert(level, Class::Held, entry, &self.lots);
            self.lots.set_leaf(lot, leaf);
            if record.is_running() {
                self.remember_plain(lot);
            }
        }
        self.lots.set_held(lot, (held + units) as u16);
        self.sold += units;
        self.digest = self.digest.wrapping_add(self.digest_of_held(record).wrapping_mul(u64::from(units)));
        self.note(lot, held, held + units, noted);
    }

    /// A lot whose units move in several steps is the last of its kind that was noted: one entry serves them all.
    #[inline(always)]
    fn note(&mut self, lot: u32, before: u32, after: u32, noted: &mut usize) {
        match self.changes.get_mut(*noted) {
            Some(change) if change.lot.0 == lot => change.after = after,
            _ => {
                *noted = self.changes.len();
                self.changes.push(Change { lot: Lot(lot), before, after });
            }
        }
    }

    /// Works out the price of what is held.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        let is_sold_out = self.supply > 0 && self.sold == self.supply;
        let lowest_accepted = is_sold_out.then(|| self.grid.limit(self.rows.worst_held() as u32));
        self.published = Published { price: self.price_now(lowest_accepted), lowest_accepted };
    }
}
