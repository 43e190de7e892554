//! What the units cost.

use proto::Price;
use proto::market::PriceRule;

use super::Book;
use super::grid::{rung_above, rung_at_or_above};
use super::lots::Record;

/// What a clearing published, in micro-dollars per hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    price: u64,
    /// Whether there is a price.
    is_priced: bool,
    /// The largest price at which exactly the supply is wanted, if all of it is sold.
    lowest_accepted: u64,
    is_sold_out: bool,
}

impl Published {
    const fn price(self) -> Option<u64> {
        if self.is_priced { Some(self.price) } else { None }
    }

    fn lowest_accepted(self) -> Option<u64> {
        self.is_sold_out.then_some(self.lowest_accepted)
    }
}

impl Book {
    /// Works out the price of what is held.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        let is_sold_out = self.supply > 0 && self.sold == self.supply;
        if is_sold_out & self.margin.is_thin {
            self.thicken();
        }
        let (mut price, mut lowest_accepted) = (self.reserve, 0);
        if is_sold_out {
            lowest_accepted = self.grid.limit(self.margin.level);
            price = self.price_sold_out(lowest_accepted);
        }
        self.published = Published { price, is_priced: self.supply > 0, lowest_accepted, is_sold_out };
    }

    /// The price every winner of the last clearing pays, in micro-dollars per hour; none without supply.
    #[inline]
    pub const fn price(&self) -> Option<u64> {
        self.published.price()
    }

    /// The least legal limit with which a youngest bid for one unit would win now, in micro-dollars per hour; none
    /// without supply, or where no legal limit is high enough.
    pub fn lowest_winning_bid(&self) -> Option<u64> {
        self.price()?;
        let rung = match self.published.lowest_accepted() {
            Some(lowest_accepted) => rung_above(&self.ladder, Price::from_micros(lowest_accepted)?),
            None => rung_at_or_above(&self.ladder, Price::from_micros(self.reserve)?),
        };
        rung.map(Price::micros)
    }

    /// The price of the clearing just made, when all is sold.
    #[inline(always)]
    fn price_sold_out(&mut self, accepted: u64) -> u64 {
        match self.price_rule {
            PriceRule::LowestAccepted if self.plain_limits.is_empty() => accepted,
            PriceRule::LowestAccepted => self.price_beside_running(accepted),
            PriceRule::HighestRejected => self.highest_rejected(),
        }
    }

    /// The lowest accepted limit, except that winners who keep their servers by a running limit must not raise their
    /// own price with it.
    #[cold]
    fn price_beside_running(&mut self, accepted: u64) -> u64 {
        match self.plain_limits.first_key_value() {
            Some((&plain, _)) if plain < accepted => self.highest_rejected().max(plain),
            _ => accepted,
        }
    }

    /// The smallest price at which no more than the supply is wanted: the highest limit of a unit that loses, or the
    /// reserve. After a clearing all units that lose are queued.
    fn highest_rejected(&mut self) -> u64 {
        self.highest_queued().map_or(self.reserve, |level| self.grid.limit(level).max(self.reserve))
    }

    /// Σ(effective limit − reserve) over the units that win, in micro-dollars per hour. Looks at every lot.
    pub fn surplus(&self) -> u128 {
        let worth = |lot: u32| {
            let record = self.lots.record(lot);
            let limit = self.grid.limit(record.level());
            u128::from(record.held()) * u128::from(limit.saturating_sub(self.reserve))
        };
        self.lots.numbers().map(worth).sum()
    }

    /// Keeps count of winning lots at a running limit, when one holds another number of units.
    #[inline(always)]
    pub(super) fn recount_plain(&mut self, lot: u32, record: Record, before: u32, after: u32) {
        if record.is_running() {
            match (before, after) {
                (0, 1..) => self.remember_plain(lot),
                (1.., 0) => self.forget_plain(lot),
                _ => (),
            }
        }
    }

    /// Counts a winning lot that stands at a running limit.
    #[cold]
    fn remember_plain(&mut self, lot: u32) {
        if let Some(limit) = self.lots.plain_limit(lot) {
            *self.plain_limits.entry(limit).or_insert(0) += 1;
        }
    }

    /// Stops counting it.
    #[cold]
    fn forget_plain(&mut self, lot: u32) {
        let Some(limit) = self.lots.plain_limit(lot) else { return };
        if let Some(count) = self.plain_limits.get_mut(&limit) {
            *count -= 1;
            if *count == 0 {
                self.plain_limits.remove(&limit);
            }
        }
    }
}
