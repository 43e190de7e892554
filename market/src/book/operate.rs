//! What can be done to a book.

use std::collections::BTreeMap;

use proto::Price;
use proto::market::Ladder;

use super::grid::Grid;
use super::lots::Record;
use super::walk::Cut;
use super::{
    AGE_MAX, Book, BookError, Change, DEMAND_MAX, LEVELS_MAX, LOTS_MAX, Lot, LotTerms, Place, STEPS_MAX,
    UNITS_MAX,
};

/// No lot: what [`Book::balance`] is told when an operation concerns none.
const NOBODY: u32 = u32::MAX;
/// The list of lots to confirm is weeded when it is longer than twice the book and this.
const PENDING_SLACK: usize = 1024;

impl Book {
    /// Adds a lot of newcomers.
    ///
    /// # Errors
    /// When the terms are impossible, the age is not a new one, or the book is full.
    pub fn insert(&mut self, terms: LotTerms) -> Result<Lot, BookError> {
        let (record, running) = self.newcomer(terms)?;
        self.delta.clear();
        let lot = self.lots.insert(record, running);
        self.link(lot);
        self.finish(lot, 0);
        Ok(Lot(lot))
    }

    /// Takes a lot out.
    ///
    /// # Errors
    /// When it does not stand.
    pub fn remove(&mut self, lot: Lot) -> Result<(), BookError> {
        let record = self.standing(lot)?;
        self.delta.clear();
        let before = self.unlink(lot.0, record);
        self.lots.remove(lot.0);
        self.balance(NOBODY);
        if before > 0 {
            self.delta.push(Change { lot, before, after: 0 });
        }
        self.follow_up();
        Ok(())
    }

    /// Gives a lot other limits. Where only a part of it is held and the rest takes a new place, the rest becomes a
    /// lot of its own, whose number is returned.
    ///
    /// # Errors
    /// When the lot does not stand, the limits are impossible, or a new age is not a new one.
    pub fn relimit(
        &mut self,
        lot: Lot,
        limit: u64,
        running_limit: Option<u64>,
        place: Place,
    ) -> Result<Option<Lot>, BookError> {
        let record = self.standing(lot)?;
        let mut age = record.age;
        if let Place::New(new) = place {
            self.check_age(new)?;
            if record.is_split() {
                return self.split_and_relimit(lot, record, limit, running_limit, new).map(Some);
            }
            if record.held == 0 {
                age = new;
            }
        }
        let (level, running) = self.levels(limit, running_limit)?;
        self.age_next = self.age_next.max(age + 1);
        self.replace(lot, Record::new(age, level, record.units, record.held), running);
        Ok(None)
    }

    /// Gives a lot another number of units, of which `held` are incumbent. Units that are added share its place in
    /// the queue; where they must take a new one, [`Book::insert`] them.
    ///
    /// # Errors
    /// When the lot does not stand, the numbers are impossible, or the book is full.
    pub fn resize(&mut self, lot: Lot, units: u32, held: u32) -> Result<(), BookError> {
        let record = self.standing(lot)?;
        let (units, held) = check_units(units, held)?;
        self.check_demand(u64::from(self.demand) - u64::from(record.units) + u64::from(units))?;
        let running = record.has_running().then(|| self.lots.running_level(lot.0, record));
        self.replace(lot, Record::new(record.age, record.level(), units, held), running);
        Ok(())
    }

    /// Sets how many servers are for sale.
    ///
    /// # Errors
    /// When they are more than [`DEMAND_MAX`].
    pub fn set_supply(&mut self, supply: u32) -> Result<(), BookError> {
        self.check_demand(u64::from(supply))?;
        self.delta.clear();
        self.supply = supply;
        self.balance(NOBODY);
        self.follow_up();
        Ok(())
    }

    /// Sets the least a unit sells for. Lots below it stay and cannot win.
    pub fn set_reserve(&mut self, reserve: Price) {
        self.delta.clear();
        self.reserve = reserve.micros();
        self.reserve_row = 2 * self.grid.level_at_or_above(self.reserve);
        self.count_eligible();
        self.balance(NOBODY);
        self.follow_up();
    }

    /// Sets the legal limits. Standing lots keep theirs and win what they won.
    ///
    /// # Errors
    /// When the ladder is none, or too many limits come together.
    pub fn set_ladder(&mut self, ladder: Ladder) -> Result<(), BookError> {
        let grid = Grid::new(&ladder, self.standing_limits().into_iter())?;
        self.delta.clear();
        self.ladder = ladder;
        self.regrid(grid);
        Ok(())
    }

    /// Loads lots into an empty book.
    pub(super) fn load_lots(&mut self, supply: u32, lots: &[LotTerms]) -> Result<(), BookError> {
        self.check_demand(u64::from(supply))?;
        let mut ages: Vec<u64> = lots.iter().map(|terms| terms.age).collect();
        ages.sort_unstable();
        if let Some(pair) = ages.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BookError::AgeTwice { age: pair[0] });
        }
        let limits = lots.iter().flat_map(|terms| [Some(terms.limit), terms.running_limit]).flatten();
        self.regrid(Grid::new(&self.ladder, limits)?);
        for terms in lots {
            self.age_next = terms.age;
            let (record, running) = self.newcomer(*terms)?;
            let lot = self.lots.insert(record, running);
            self.link(lot);
            if record.held > 0 {
                self.pending.push(lot);
            }
        }
        self.age_next = ages.last().map_or(0, |&age| age + 1);
        self.supply = supply;
        self.balance(NOBODY);
        self.follow_up();
        Ok(())
    }

    fn standing(&self, lot: Lot) -> Result<Record, BookError> {
        self.lots.find(lot.0).ok_or(BookError::UnknownLot { lot: lot.0 })
    }

    /// Checks a newcomer and gives it its place on the grid.
    fn newcomer(&mut self, terms: LotTerms) -> Result<(Record, Option<u32>), BookError> {
        let (units, held) = check_units(terms.units, terms.held)?;
        self.check_age(terms.age)?;
        self.check_demand(u64::from(self.demand) + u64::from(terms.units))?;
        if self.lots.live() >= LOTS_MAX {
            return Err(BookError::Lots);
        }
        let (level, running) = self.levels(terms.limit, terms.running_limit)?;
        self.age_next = terms.age + 1;
        Ok((Record::new(terms.age, level, units, held), running))
    }

    fn check_age(&self, age: u64) -> Result<(), BookError> {
        if age < self.age_next || age > AGE_MAX {
            return Err(BookError::Age { age, least: self.age_next });
        }
        Ok(())
    }

    fn check_demand(&self, units: u64) -> Result<(), BookError> {
        if units > u64::from(DEMAND_MAX) { Err(BookError::Demand { units }) } else { Ok(()) }
    }

    /// The levels of a limit and of a running limit that differs from it; a limit off the grid changes the grid.
    #[inline]
    fn levels(&mut self, limit: u64, running: Option<u64>) -> Result<(u32, Option<u32>), BookError> {
        if let Some(running_limit) = running.filter(|&running| running < limit) {
            return Err(BookError::RunningLimit { running_limit, limit });
        }
        let running = running.filter(|&running| running != limit);
        let found = self.grid.level(limit).zip(running.map_or(Some(0), |running| self.grid.level(running)));
        let (level, running_level) = if let Some(found) = found {
            found
        } else {
            let mut limits = self.standing_limits();
            limits.push(limit);
            limits.extend(running);
            let grid = Grid::new(&self.ladder, limits.into_iter())?;
            self.regrid(grid);
            // Both are on the new grid, which was made for them.
            (
                self.grid.level_at_or_above(limit),
                running.map_or(0, |running| self.grid.level_at_or_above(running)),
            )
        };
        self.reach(level.max(running_level));
        Ok((level, running.map(|_| running_level)))
    }

    /// Makes room for rows up to a level.
    #[inline]
    fn reach(&mut self, level: u32) {
        let needed = 2 * level as usize + 2;
        if needed > self.rows.len() {
            let most = 2 * STEPS_MAX.max(LEVELS_MAX) as usize;
            self.rows.reach((4 * self.rows.len()).clamp(needed, most));
        }
    }

    /// Puts other terms in the place of a lot's.
    #[inline]
    fn replace(&mut self, lot: Lot, record: Record, running: Option<u32>) {
        self.delta.clear();
        let before = self.unlink(lot.0, self.lots.record(lot.0));
        self.lots.replace(lot.0, record, running);
        self.link(lot.0);
        self.finish(lot.0, before);
    }

    /// Leaves a lot its held units and makes its queued ones a lot of their own, both at the new limits.
    fn split_and_relimit(
        &mut self,
        lot: Lot,
        record: Record,
        limit: u64,
        running_limit: Option<u64>,
        age: u64,
    ) -> Result<Lot, BookError> {
        if self.lots.live() >= LOTS_MAX {
            return Err(BookError::Lots);
        }
        let (level, running) = self.levels(limit, running_limit)?;
        self.age_next = age + 1;
        self.replace(lot, Record::new(record.age, level, record.held, record.held), running);
        let first = std::mem::take(&mut self.delta);
        let rest = self.lots.insert(Record::new(age, level, record.units - record.held, 0), running);
        self.link(rest);
        self.finish(rest, 0);
        // Two steps made one: what they did to a lot adds up.
        let mut net: BTreeMap<Lot, Change> = first.into_iter().map(|change| (change.lot, change)).collect();
        for change in self.delta.drain(..) {
            net.entry(change.lot).or_insert(Change { after: change.before, ..change }).after = change.after;
        }
        self.delta.extend(net.into_values().filter(|change| change.before != change.after));
        Ok(Lot(rest))
    }

    /// Puts a lot's entries into their rows. Where these are above the cut, its units win at once.
    #[inline]
    fn link(&mut self, lot: u32) {
        let record = self.lots.record(lot);
        let (held_row, queued_row) = self.lots.rows(lot, record);
        let (held, queued) = Self::parts(record);
        if held > 0 {
            self.put(held_row, record.age, lot, held);
        }
        if queued > 0 {
            self.put(queued_row, record.age, lot, queued);
        }
        self.demand += held + queued;
        self.digest = self.digest.wrapping_add(self.digest_of(lot, record));
    }

    #[inline]
    fn put(&mut self, row: u32, age: u64, lot: u32, units: u32) {
        self.rows.insert(row, age, lot, units, &self.lots);
        if row >= self.reserve_row {
            self.eligible += units;
        }
        self.sold += self.cut.won(row, age, units);
    }

    /// Takes a lot's entries out of their rows; returns what it won.
    #[inline]
    fn unlink(&mut self, lot: u32, record: Record) -> u32 {
        let (held_row, queued_row) = self.lots.rows(lot, record);
        let (held, queued) = Self::parts(record);
        let mut won = 0;
        if held > 0 {
            won += self.pull(held_row, record.age, lot, held);
        }
        if queued > 0 {
            won += self.pull(queued_row, record.age, lot, queued);
        }
        self.demand -= held + queued;
        self.digest = self.digest.wrapping_sub(self.digest_of(lot, record));
        if won > 0 && record.has_running() {
            self.forget_plain(self.grid.limit(record.level()));
        }
        won
    }

    #[inline]
    fn pull(&mut self, row: u32, age: u64, lot: u32, units: u32) -> u32 {
        let won = self.cut.won(row, age, units);
        self.rows.remove(row, age, lot, units);
        if row >= self.reserve_row {
            self.eligible -= units;
        }
        if row == self.cut.row {
            self.is_loose = true;
            if self.cut.is_at(row, age) {
                self.cut.short = 0;
            }
        }
        self.sold -= won;
        won
    }

    #[inline]
    fn finish(&mut self, lot: u32, before: u32) {
        self.balance(lot);
        self.note_edited(lot, before);
        self.follow_up();
    }

    /// Notes what an operation did to the lot it was about.
    #[inline]
    fn note_edited(&mut self, lot: u32, before: u32) {
        let record = self.lots.record(lot);
        let after = self.won_by(&self.cut, lot, record);
        if after != before {
            self.delta.push(Change { lot: Lot(lot), before, after });
        } else if after != u32::from(record.held) {
            self.pending.push(lot);
        }
        if after > 0 && record.has_running() {
            self.remember_plain(self.grid.limit(record.level()));
        }
    }

    /// Remembers what [`Book::confirm`] must look at.
    #[inline]
    fn follow_up(&mut self) {
        for change in &self.delta {
            self.pending.push(change.lot.0);
        }
        if self.pending.len() > 2 * self.lots.live() as usize + PENDING_SLACK {
            let mut pending = std::mem::take(&mut self.pending);
            pending.sort_unstable();
            pending.dedup();
            pending.retain(|&lot| {
                self.lots
                    .find(lot)
                    .is_some_and(|record| self.won_by(&self.cut, lot, record) != u32::from(record.held))
            });
            self.pending = pending;
        }
    }

    /// All limits that lots stand at.
    fn standing_limits(&self) -> Vec<u64> {
        let mut limits: Vec<u64> =
            self.lots().flat_map(|(_, terms)| [Some(terms.limit), terms.running_limit]).flatten().collect();
        limits.sort_unstable();
        limits.dedup();
        limits
    }

    /// Moves everything to another grid. The order stays, and with it who wins.
    fn regrid(&mut self, grid: Grid) {
        let standing: Vec<(u32, LotTerms)> = self.lots().map(|(lot, terms)| (lot.0, terms)).collect();
        self.rows = super::Rows::new(self.rows.len());
        self.grid = grid;
        self.reserve_row = 2 * self.grid.level_at_or_above(self.reserve);
        self.cut = Cut::TOP;
        self.is_loose = false;
        (self.sold, self.demand, self.eligible, self.digest) = (0, 0, 0, 0);
        for &(lot, terms) in &standing {
            let level = self.grid.level_at_or_above(terms.limit);
            let running = terms.running_limit.map(|running| self.grid.level_at_or_above(running));
            self.reach(running.unwrap_or(level));
            let record = Record::new(terms.age, level, terms.units as u16, terms.held as u16);
            self.lots.replace(lot, record, running);
            self.link(lot);
        }
        // The walk from nothing finds the winners again, and counts those with a running limit.
        self.plain_limits.clear();
        let noted = std::mem::take(&mut self.delta);
        self.balance(NOBODY);
        self.delta = noted;
    }

    /// Counts the units at or above the reserve anew: one step per occupied row.
    fn count_eligible(&mut self) {
        self.eligible = 0;
        let mut from = self.reserve_row;
        while let Some(row) = self.rows.at_or_above(from) {
            self.eligible += self.rows.units(row);
            from = row + 1;
        }
    }
}

fn check_units(units: u32, held: u32) -> Result<(u16, u16), BookError> {
    if units == 0 || units > UNITS_MAX {
        return Err(BookError::Units { units });
    }
    if held > units {
        return Err(BookError::Held { held, units });
    }
    Ok((units as u16, held as u16))
}
