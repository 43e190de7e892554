//! What can be done to a book.

use proto::Price;
use proto::market::{Ladder, PriceRule};

use super::grid::Grid;
use super::levels::Levels;
use super::lots::Record;
use super::margin::{LEVEL_TOP, Margin};
use super::{AGE_MAX, Book, BookError, DEMAND_MAX, LEVELS_MAX, LOTS_MAX, Lot, LotTerms, Place, UNITS_MAX};

impl Place {
    /// Whether queued units take a new place, and which.
    #[inline(always)]
    const fn renews(self, is_raised: bool) -> (bool, u64) {
        match self {
            Self::Keep => (false, AGE_MAX),
            Self::New(age) => (true, age),
            Self::NewIfRaised(age) => (is_raised, age),
        }
    }
}

impl Book {
    /// Adds a lot of newcomers.
    ///
    /// # Errors
    /// When the terms are impossible, the age is not a new one, or the book is full.
    #[inline(always)]
    pub fn insert(&mut self, terms: LotTerms) -> Result<Lot, BookError> {
        let (record, plain) = self.newcomer(terms)?;
        Ok(Lot(self.add(record, plain)))
    }

    /// Takes a lot out, and says how many units it held.
    ///
    /// # Errors
    /// When it does not stand.
    #[inline(always)]
    pub fn remove(&mut self, lot: Lot) -> Result<u32, BookError> {
        let record = self.standing(lot)?;
        self.unlink(lot.0, record);
        if record.is_stray() {
            self.strays.forget(lot.0);
        }
        self.lots.remove(lot.0);
        Ok(record.held())
    }

    /// Gives a lot other limits. Where only a part of it is held and the rest takes a new place, the rest becomes a
    /// lot of its own, whose number is returned.
    ///
    /// # Errors
    /// When the lot does not stand, the limits are impossible, or a new age is not a new one.
    #[inline(always)]
    pub fn relimit(
        &mut self,
        lot: Lot,
        limit: u64,
        plain_limit: Option<u64>,
        place: Place,
    ) -> Result<Option<Lot>, BookError> {
        if plain_limit.is_none() && self.move_plain(lot.0, limit, place) {
            return Ok(None);
        }
        self.relimit_in_general(lot, limit, plain_limit, place)
    }

    /// Moves a lot from list to list, if it is what nearly every lot is: all held or all queued, with one limit, to go
    /// to a limit on the grid. Returns whether it is.
    #[inline(always)]
    fn move_plain(&mut self, lot: u32, limit: u64, place: Place) -> bool {
        let Some(record) = self.lots.find(lot) else { return false };
        let Some(level) = self.grid.level(limit) else { return false };
        // Raised or not, held or not: toss-ups that no processor predicts, so nothing here branches on them.
        let from = record.level();
        let (renews, new) = place.renews(level > from);
        let is_plain = record.is_plain() && level < self.levels.len() as u32;
        if !(is_plain && new >= self.age_next && new <= AGE_MAX) {
            return false;
        }
        let mask = u64::from(renews & (record.held() == 0)).wrapping_neg();
        let age = (new & mask) | (record.age & !mask);
        self.age_next = self.age_next.max(age + 1);
        self.margin.is_thin |= (from == self.margin.level) & (record.held() > 0);
        self.digest = self.digest.wrapping_add(self.digest_of_move(record, age, limit));
        self.levels.unlink(from, lot);
        self.levels.link(level, lot);
        self.lots.put(lot, record.moved(age, level));
        if !record.is_stray() {
            self.strays.push(lot, &self.lots);
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn relimit_in_general(
        &mut self,
        lot: Lot,
        limit: u64,
        plain_limit: Option<u64>,
        place: Place,
    ) -> Result<Option<Lot>, BookError> {
        let record = self.standing(lot)?;
        let (renews, new) = place.renews(limit > self.grid.limit(record.level()));
        let mut age = record.age;
        if renews {
            self.check_age(new)?;
            if record.is_split() {
                return self.split_and_relimit(lot, record, limit, plain_limit, new).map(Some);
            }
            if record.held() == 0 {
                age = new;
            }
        }
        let (level, plain) = self.level(limit, plain_limit)?;
        self.age_next = self.age_next.max(age + 1);
        self.replace(lot, Record::stray(age, level, record.units() as u16, record.held() as u16), plain);
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
        Self::check_demand(u64::from(self.demand) - u64::from(record.units()) + u64::from(units))?;
        let plain = self.lots.plain_limit(lot.0);
        self.replace(lot, Record::stray(record.age, record.level(), units, held), plain);
        Ok(())
    }

    /// Sets how many servers are for sale.
    ///
    /// # Errors
    /// When they are more than [`DEMAND_MAX`].
    pub fn set_supply(&mut self, supply: u32) -> Result<(), BookError> {
        Self::check_demand(u64::from(supply))?;
        self.supply = supply;
        Ok(())
    }

    /// Sets the least a unit sells for. Lots below it stay and cannot win.
    pub fn set_reserve(&mut self, reserve: Price) {
        self.reserve = reserve.micros();
        self.reserve_level = self.grid.level_at_or_above(self.reserve);
    }

    /// Sets how the price is made from the next clearing on.
    pub const fn set_price_rule(&mut self, price_rule: PriceRule) {
        self.price_rule = price_rule;
    }

    /// Sets the legal limits. Standing lots keep theirs and win what they won.
    ///
    /// # Errors
    /// When the ladder is none, or too many limits come together.
    pub fn set_ladder(&mut self, ladder: Ladder) -> Result<(), BookError> {
        let grid = Grid::new(&ladder, self.standing_limits().into_iter())?;
        self.ladder = ladder;
        self.regrid(grid);
        Ok(())
    }

    /// Loads lots into an empty book.
    pub(super) fn load_lots(&mut self, supply: u32, lots: &[LotTerms]) -> Result<(), BookError> {
        Self::check_demand(u64::from(supply))?;
        let mut ages: Vec<u64> = lots.iter().map(|terms| terms.age).collect();
        ages.sort_unstable();
        if let Some(pair) = ages.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BookError::AgeTwice { age: pair[0] });
        }
        self.regrid(Grid::new(&self.ladder, lots.iter().map(|terms| terms.limit))?);
        for terms in lots {
            self.age_next = terms.age;
            let (record, plain) = self.newcomer(*terms)?;
            self.add(record, plain);
        }
        self.age_next = ages.last().map_or(0, |&age| age + 1);
        self.supply = supply;
        self.find_margin();
        self.publish();
        Ok(())
    }

    /// Puts the margin of a book just loaded where the lowest unit is held. Whoever is on the wrong side of it strays.
    fn find_margin(&mut self) {
        let holding = self.lots.numbers().map(|lot| self.lots.record(lot)).filter(|record| record.held() > 0);
        let margin = holding.map(Record::level).min().unwrap_or(LEVEL_TOP);
        self.margin.level = margin;
        self.strays.clear();
        for lot in 0..self.lots.live() {
            let record = self.lots.record(lot);
            let level = record.level();
            if level == margin || if level > margin { record.queued() == 0 } else { record.held() == 0 } {
                self.lots.set(lot, record.cleared());
            } else {
                self.strays.push(lot, &self.lots);
            }
        }
    }

    #[inline(always)]
    fn standing(&self, lot: Lot) -> Result<Record, BookError> {
        self.lots.find(lot.0).ok_or(BookError::UnknownLot { lot: lot.0 })
    }

    /// Checks a newcomer and gives it its place on the grid.
    #[inline(always)]
    fn newcomer(&mut self, terms: LotTerms) -> Result<(Record, Option<u64>), BookError> {
        let (units, held) = check_units(terms.units, terms.held)?;
        self.check_age(terms.age)?;
        Self::check_demand(u64::from(self.demand) + u64::from(terms.units))?;
        if self.lots.live() >= LOTS_MAX {
            return Err(BookError::Lots);
        }
        let (level, plain) = self.level(terms.limit, terms.plain_limit)?;
        self.age_next = terms.age + 1;
        Ok((Record::stray(terms.age, level, units, held), plain))
    }

    #[inline(always)]
    const fn is_new_age(&self, age: u64) -> bool {
        (age >= self.age_next) & (age <= AGE_MAX)
    }

    #[cold]
    const fn age_error(&self, age: u64) -> BookError {
        BookError::Age { age, least: self.age_next }
    }

    #[inline(always)]
    const fn check_age(&self, age: u64) -> Result<(), BookError> {
        if self.is_new_age(age) { Ok(()) } else { Err(self.age_error(age)) }
    }

    pub(super) fn check_demand(units: u64) -> Result<(), BookError> {
        if units > u64::from(DEMAND_MAX) { Err(BookError::Demand { units }) } else { Ok(()) }
    }

    /// The level of a limit, and the plain limit if it differs; a limit off the grid changes the grid.
    #[inline(always)]
    fn level(&mut self, limit: u64, plain: Option<u64>) -> Result<(u32, Option<u64>), BookError> {
        if let Some(plain_limit) = plain.filter(|&plain| plain > limit) {
            return Err(BookError::PlainLimit { plain_limit, limit });
        }
        let level = if let Some(level) = self.grid.level(limit) { level } else { self.widen(limit)? };
        self.reach(level);
        Ok((level, plain.filter(|&plain| plain != limit)))
    }

    /// Takes a limit into the grid.
    #[cold]
    fn widen(&mut self, limit: u64) -> Result<u32, BookError> {
        let mut limits = self.standing_limits();
        limits.push(limit);
        let grid = Grid::new(&self.ladder, limits.into_iter())?;
        self.regrid(grid);
        Ok(self.grid.level_at_or_above(limit))
    }

    /// Makes room for lots up to a level.
    #[inline(always)]
    fn reach(&mut self, level: u32) {
        if level as usize >= self.levels.len() {
            self.widen_levels(level as usize + 1);
        }
    }

    #[cold]
    fn widen_levels(&mut self, needed: usize) {
        self.levels.reach((4 * self.levels.len()).clamp(needed, LEVELS_MAX as usize));
    }

    /// Puts other terms in the place of a lot's.
    fn replace(&mut self, lot: Lot, record: Record, plain: Option<u64>) {
        let was = self.lots.record(lot.0);
        self.unlink(lot.0, was);
        self.lots.replace(lot.0, record, plain);
        self.link(lot.0, self.lots.record(lot.0));
        if !was.is_stray() {
            self.strays.push(lot.0, &self.lots);
        }
    }

    /// Gives a stray a number and puts it where it belongs.
    #[inline(always)]
    fn add(&mut self, record: Record, plain: Option<u64>) -> u32 {
        let lot = self.lots.insert(record, plain);
        if lot as usize >= self.levels.lots() {
            self.levels.reach_lots(self.lots.capacity());
        }
        self.link(lot, self.lots.record(lot));
        self.strays.push(lot, &self.lots);
        lot
    }

    /// Leaves a lot its held units and makes its queued ones a lot of their own, both at the new limits.
    #[cold]
    fn split_and_relimit(
        &mut self,
        lot: Lot,
        record: Record,
        limit: u64,
        plain_limit: Option<u64>,
        age: u64,
    ) -> Result<Lot, BookError> {
        if self.lots.live() >= LOTS_MAX {
            return Err(BookError::Lots);
        }
        let (level, plain) = self.level(limit, plain_limit)?;
        self.age_next = age + 1;
        self.replace(
            lot,
            Record::stray(record.age, level, record.held() as u16, record.held() as u16),
            plain,
        );
        Ok(Lot(self.add(Record::stray(age, level, record.queued() as u16, 0), plain)))
    }

    /// Puts a lot into its level, and counts it.
    #[inline(always)]
    fn link(&mut self, lot: u32, record: Record) {
        let (units, held) = (record.units(), record.held());
        self.levels.link(record.level(), lot);
        self.recount_plain(lot, record, 0, held);
        self.demand += units;
        self.sold += held;
        self.digest = self.digest.wrapping_add(self.digest_of(lot, record));
    }

    /// Takes a lot out of its level, and counts it no longer.
    #[inline(always)]
    fn unlink(&mut self, lot: u32, record: Record) {
        let (units, held) = (record.units(), record.held());
        self.margin.is_thin |= (record.level() == self.margin.level) & (held > 0);
        self.levels.unlink(record.level(), lot);
        self.recount_plain(lot, record, held, 0);
        self.demand -= units;
        self.sold -= held;
        self.digest = self.digest.wrapping_sub(self.digest_of(lot, record));
    }

    /// All limits that lots stand at.
    fn standing_limits(&self) -> Vec<u64> {
        let mut limits: Vec<u64> = self.lots().map(|(_, terms)| terms.limit).collect();
        limits.sort_unstable();
        limits.dedup();
        limits
    }

    /// Moves everything to another grid. The order stays, and with it who wins.
    fn regrid(&mut self, grid: Grid) {
        let was = std::mem::replace(&mut self.grid, grid);
        self.reserve_level = self.grid.level_at_or_above(self.reserve);
        let margin = was.find_limit(self.margin.level).filter(|_| self.margin.level < LEVEL_TOP);
        let margin = margin.map_or(LEVEL_TOP, |limit| self.grid.level_at_or_above(limit));
        self.margin = Margin::at(margin);
        self.levels = Levels::new(self.levels.len());
        self.levels.reach_lots(self.lots.capacity());
        let standing: Vec<u32> = self.lots.numbers().collect();
        for lot in standing {
            let level = self.grid.level_at_or_above(was.limit(self.lots.record(lot).level()));
            self.reach(level);
            self.levels.link(level, lot);
            self.lots.set(lot, self.lots.record(lot).leveled(level));
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
