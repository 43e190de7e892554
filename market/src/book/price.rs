//! What the units cost.

use proto::Price;
use proto::market::PriceRule;

use super::Book;
use super::grid::{rung_above, rung_at_or_above};

impl Book {
    /// Sets how prices are made. Who wins stays.
    pub const fn set_price_rule(&mut self, price_rule: PriceRule) {
        self.price_rule = price_rule;
    }

    /// The price every winner pays, in micro-dollars per hour; none without supply.
    #[inline]
    pub fn price(&self) -> Option<u64> {
        if self.supply == 0 {
            return None;
        }
        if self.sold < self.supply {
            return Some(self.reserve);
        }
        match self.price_rule {
            PriceRule::HighestRejected => Some(self.highest_rejected()),
            PriceRule::LowestAccepted => {
                let accepted = self.lowest_accepted();
                match self.plain_limits.first_key_value() {
                    // A winner of that limit holds its servers by its running limit, which must not raise its price.
                    Some((&plain, _)) if plain < accepted => Some(self.highest_rejected().max(plain)),
                    _ => Some(accepted),
                }
            }
        }
    }

    /// The least legal limit with which a youngest bid for one unit would win now, in micro-dollars per hour; none
    /// without supply, or where no legal limit is high enough.
    pub fn lowest_winning_bid(&self) -> Option<u64> {
        if self.supply == 0 {
            return None;
        }
        let rung = if self.sold < self.supply {
            rung_at_or_above(&self.ladder, Price::from_micros(self.reserve)?)
        } else {
            rung_above(&self.ladder, Price::from_micros(self.lowest_accepted())?)
        };
        rung.map(Price::micros)
    }

    /// The largest price at which exactly the supply is wanted, when all of it is sold.
    #[inline]
    fn lowest_accepted(&self) -> u64 {
        self.grid.limit(self.cut.row / 2)
    }

    /// The smallest such price: the highest effective limit of a unit that loses, or the reserve.
    fn highest_rejected(&self) -> u64 {
        let cut = &self.cut;
        let is_inside = cut.short > 0
            || (cut.bound != u64::MAX && self.rows.first_from(cut.row, cut.bound, &self.lots).is_some());
        let row = if is_inside { Some(cut.row) } else { self.rows.under(cut.row) };
        row.map_or(self.reserve, |row| self.grid.limit(row / 2).max(self.reserve))
    }

    /// Σ(effective limit − reserve) over the units that win, in micro-dollars per hour. Looks at every lot.
    pub fn surplus(&self) -> u128 {
        let over = |limit: u64| u128::from(limit.saturating_sub(self.reserve));
        self.lots
            .numbers()
            .map(|lot| {
                let record = self.lots.record(lot);
                let (held_row, queued_row) = self.lots.rows(lot, record);
                let (held, queued) = Self::parts(record);
                let held = self.cut.won(held_row, record.age, held);
                let queued = self.cut.won(queued_row, record.age, queued);
                u128::from(held) * over(self.grid.limit(held_row / 2))
                    + u128::from(queued) * over(self.grid.limit(queued_row / 2))
            })
            .sum()
    }

    /// Counts a winning lot that has a running limit.
    pub(super) fn remember_plain(&mut self, limit: u64) {
        *self.plain_limits.entry(limit).or_insert(0) += 1;
    }

    /// Stops counting it.
    pub(super) fn forget_plain(&mut self, limit: u64) {
        if let Some(count) = self.plain_limits.get_mut(&limit) {
            *count -= 1;
            if *count == 0 {
                self.plain_limits.remove(&limit);
            }
        }
    }

    /// Follows the walk: lots with a running limit that began or ceased to win.
    pub(super) fn follow_plain(&mut self) {
        for index in 0..self.delta.len() {
            let change = self.delta[index];
            if (change.before == 0) == (change.after == 0) {
                continue;
            }
            let record = self.lots.record(change.lot.0);
            if !record.has_running() {
                continue;
            }
            let limit = self.grid.limit(record.level());
            if change.after > 0 { self.remember_plain(limit) } else { self.forget_plain(limit) }
        }
    }
}
