//! What can be done to a book.

use proto::Price;
use proto::market::{Ladder, PriceRule};

use super::grid::Grid;
use super::lots::Record;
use super::rows::{Class, Entry, NO_LEAF, Rows};
use super::{AGE_MAX, Book, BookError, DEMAND_MAX, LEVELS_MAX, LOTS_MAX, Lot, LotTerms, Place, UNITS_MAX};

impl Place {
    /// Whether queued units take a new place, and which.
    #[inline(always)]
    const fn renews(self, is_raised: bool) -> (bool, u64) {
        match self {
            Self::Keep => (false, 0),
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
    pub fn insert(&mut self, terms: LotTerms) -> Result<Lot, BookError> {
        let (record, plain) = self.newcomer(terms)?;
        let lot = self.lots.insert(record, plain);
        self.link(lot, self.lots.record(lot));
        Ok(Lot(lot))
    }

    /// Takes a lot out, and says how many units it held.
    ///
    /// # Errors
    /// When it does not stand.
    pub fn remove(&mut self, lot: Lot) -> Result<u32, BookError> {
        let record = self.standing(lot)?;
        self.unlink(lot.0, record);
        self.lots.remove(lot.0);
        Ok(u32::from(record.held))
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
        plain_limit: Option<u64>,
        place: Place,
    ) -> Result<Option<Lot>, BookError> {
        let record = self.standing(lot)?;
        let found = self.grid.level(limit).filter(|&level| (level as usize) < self.rows.levels());
        let (Some(level), false) = (found, record.is_split() || record.is_running() || plain_limit.is_some())
        else {
            return self.relimit_in_general(lot, limit, plain_limit, place);
        };
        // Nearly every lot is this: all held or all queued, on the grid, with one limit. It moves from row to row.
        let (renews, new) = place.renews(level > record.level());
        // Raised or not is a toss-up that no processor predicts: so nothing here branches on it but a refusal.
        if renews & !self.is_new_age(new) {
            return Err(self.age_error(new));
        }
        let age = if renews & (record.held == 0) { new } else { record.age };
        self.age_next = self.age_next.max(age + 1);
        let class = record.class();
        self.digest = self.digest.wrapping_sub(self.digest_of(lot.0, record));
        self.rows.remove(record.level(), class, Entry { age: record.age, lot: lot.0 }, record.leaf);
        let mut moved = Record::new(age, level, record.units, record.held);
        moved.leaf = self.rows.insert(level, class, Entry { age, lot: lot.0 }, &self.lots);
        self.lots.overwrite(lot.0, moved);
        self.digest = self.digest.wrapping_add(self.digest_of(lot.0, moved));
        Ok(None)
    }

    #[cold]
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
            if record.held == 0 {
                age = new;
            }
        }
        let (level, plain) = self.level(limit, plain_limit)?;
        self.age_next = self.age_next.max(age + 1);
        self.replace(lot, Record::new(age, level, record.units, record.held), plain);
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
        Self::check_demand(u64::from(self.demand) - u64::from(record.units) + u64::from(units))?;
        let plain = self.lots.plain_limit(lot.0);
        self.replace(lot, Record::new(record.age, record.level(), units, held), plain);
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
        self.reserve_level = self.grid.level_at_or_above(self.reserve) as i32;
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
            let lot = self.lots.insert(record, plain);
            self.link(lot, self.lots.record(lot));
        }
        self.age_next = ages.last().map_or(0, |&age| age + 1);
        self.supply = supply;
        self.publish();
        Ok(())
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
        Ok((Record::new(terms.age, level, units, held), plain))
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

    /// Makes room for rows up to a level.
    #[inline(always)]
    fn reach(&mut self, level: u32) {
        if level as usize >= self.rows.levels() {
            self.widen_rows(level as usize + 1);
        }
    }

    #[cold]
    fn widen_rows(&mut self, needed: usize) {
        self.rows.reach((4 * self.rows.levels()).clamp(needed, LEVELS_MAX as usize));
    }

    /// Puts other terms in the place of a lot's.
    fn replace(&mut self, lot: Lot, record: Record, plain: Option<u64>) {
        self.unlink(lot.0, self.lots.record(lot.0));
        self.lots.replace(lot.0, record, plain);
        self.link(lot.0, self.lots.record(lot.0));
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
        self.replace(lot, Record::new(record.age, level, record.held, record.held), plain);
        let rest = self.lots.insert(Record::new(age, level, record.units - record.held, 0), plain);
        self.link(rest, self.lots.record(rest));
        Ok(Lot(rest))
    }

    /// Puts a lot's entries into their rows.
    #[inline(always)]
    fn link(&mut self, lot: u32, record: Record) {
        let entry = Entry { age: record.age, lot };
        let (level, units, held) = (record.level(), u32::from(record.units), u32::from(record.held));
        if record.is_split() {
            self.rows.insert(level, Class::Held, entry, &self.lots);
            self.rows.insert(level, Class::Queued, entry, &self.lots);
        } else {
            let leaf = self.rows.insert(level, record.class(), entry, &self.lots);
            self.lots.set_leaf(lot, leaf);
        }
        if record.is_running() && held > 0 {
            self.remember_plain(lot);
        }
        self.demand += units;
        self.sold += held;
        self.digest = self.digest.wrapping_add(self.digest_of(lot, record));
    }

    /// Takes a lot's entries out of their rows.
    #[inline(always)]
    fn unlink(&mut self, lot: u32, record: Record) {
        let entry = Entry { age: record.age, lot };
        let (level, units, held) = (record.level(), u32::from(record.units), u32::from(record.held));
        if record.is_split() {
            self.rows.remove(level, Class::Held, entry, NO_LEAF);
            self.rows.remove(level, Class::Queued, entry, NO_LEAF);
        } else {
            self.rows.remove(level, record.class(), entry, record.leaf);
        }
        if record.is_running() && held > 0 {
            self.forget_plain(lot);
        }
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
        let standing: Vec<(u32, LotTerms)> = self.lots().map(|(lot, terms)| (lot.0, terms)).collect();
        self.rows = Rows::new(self.rows.levels());
        self.grid = grid;
        self.reserve_level = self.grid.level_at_or_above(self.reserve) as i32;
        self.plain_limits.clear();
        (self.sold, self.demand, self.digest) = (0, 0, 0);
        for &(lot, terms) in &standing {
            let level = self.grid.level_at_or_above(terms.limit);
            self.reach(level);
            let record = Record::new(terms.age, level, terms.units as u16, terms.held as u16);
            self.lots.replace(lot, record, terms.plain_limit);
            self.link(lot, self.lots.record(lot));
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
