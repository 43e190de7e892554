//! What a unit costs in one market: the price integral, and the same below caps.

use std::collections::{BTreeMap, VecDeque};

use proto::{Price, Timestamp};
use serde::{Deserialize, Serialize};

use super::amount::Exact;

/// Price changes that a market keeps one by one, for what is found out later: a worker that was dead from before.
/// At a change every ten seconds this is a day and a half. What came before them is in sums only.
pub const PRICE_POINTS_KEPT: usize = 16_384;

/// From an instant on a unit cost `price`; until then it had cost `total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    at_micros: i64,
    price: u64,
    total: Exact,
}

/// What a unit costs that never pays more than a cap: since the first price, but for a constant. Where the market's
/// price is not above the cap it is the market's integral plus `offset`, else the cap times time plus `offset`; the
/// offset is set anew whenever the price crosses the cap, so a price change costs only what it crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Capped {
    users: u32,
    offset: Exact,
}

/// What a unit pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Rate {
    /// The market's price, micro-dollars per hour.
    Market,
    /// The market's price, but never more than this.
    Capped(u64),
    /// This, whatever the market's price is.
    Flat(u64),
    /// Nothing.
    Nothing,
}

/// The prices of one market since its first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tariff {
    points: VecDeque<Point>,
    capped: BTreeMap<u64, Capped>,
}

impl Tariff {
    fn last(&self) -> Point {
        self.points.back().copied().unwrap_or(Point { at_micros: i64::MIN, price: 0, total: 0 })
    }

    /// A unit costs another price from now on. Without a price the last one stays: what is still leaving a market
    /// without supply pays that.
    pub(crate) fn set_price(&mut self, at: Timestamp, price: Option<Price>) {
        let Some(price) = price.map(Price::micros) else { return };
        let last = self.last();
        if last.price == price && !self.points.is_empty() {
            return;
        }
        let at_micros = at.micros();
        let total = self.value(Rate::Market, at);
        let crossed = last.price.min(price)..last.price.max(price);
        for (&cap, capped) in self.capped.range_mut(crossed) {
            let flat = Exact::from(cap) * Exact::from(at_micros);
            // A cap within the range is below the higher of the two prices and not below the lower.
            capped.offset += if price > last.price { total - flat } else { flat - total };
        }
        if last.at_micros == at_micros {
            self.points.pop_back();
        } else if self.points.len() >= PRICE_POINTS_KEPT {
            self.points.pop_front();
        }
        self.points.push_back(Point { at_micros, price, total });
    }

    /// What a unit has cost at a rate, but for a constant: differences count. Never of an instant before the last
    /// price change.
    pub(crate) fn value(&self, rate: Rate, at: Timestamp) -> Exact {
        let last = self.last();
        let flat = |price: u64| Exact::from(price) * Exact::from(at.micros());
        let since =
            |price: u64| Exact::from(price) * (Exact::from(at.micros()) - Exact::from(last.at_micros));
        let market = || last.total + if last.price == 0 { 0 } else { since(last.price) };
        match rate {
            Rate::Market => market(),
            Rate::Capped(cap) => {
                let offset = self.capped.get(&cap).map_or(0, |capped| capped.offset);
                offset + if cap < last.price { flat(cap) } else { market() }
            }
            Rate::Flat(price) => flat(price),
            Rate::Nothing => 0,
        }
    }

    /// One unit more is at a rate.
    pub(crate) fn enter(&mut self, rate: Rate) {
        if let Rate::Capped(cap) = rate {
            self.capped.entry(cap).or_insert(Capped { users: 0, offset: 0 }).users += 1;
        }
    }

    /// One unit fewer is.
    pub(crate) fn exit(&mut self, rate: Rate) {
        if let Rate::Capped(cap) = rate
            && let Some(capped) = self.capped.get_mut(&cap)
        {
            capped.users = capped.users.saturating_sub(1);
            if capped.users == 0 {
                self.capped.remove(&cap);
            }
        }
    }

    /// From which instant on prices are kept one by one. While none has been let go this is always: before the first
    /// there was no price, and a flat rate needs none.
    pub(crate) fn kept_from(&self) -> Timestamp {
        match self.points.front() {
            Some(point) if self.points.len() >= PRICE_POINTS_KEPT => Timestamp::from_micros(point.at_micros),
            _ => Timestamp::MIN,
        }
    }

    /// The prices between two instants, as far back as they are kept: from, to, micro-dollars per hour.
    pub(crate) fn prices(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, Timestamp, u64)> + '_ {
        let first = self.points.partition_point(|point| point.at_micros <= from.micros()).saturating_sub(1);
        let within = self.points.range(first.min(self.points.len())..);
        let ends = self.points.range((first + 1).min(self.points.len())..).map(|point| point.at_micros);
        within.zip(ends.chain([i64::MAX])).filter_map(move |(point, end)| {
            let from = point.at_micros.max(from.micros());
            let to = end.min(to.micros());
            let piece = (Timestamp::from_micros(from), Timestamp::from_micros(to), point.price);
            (from < to).then_some(piece)
        })
    }

    /// What a unit cost between two instants of the past, as far back as prices are kept: a step per price.
    pub(crate) fn walk(&self, rate: Rate, from: Timestamp, to: Timestamp) -> Exact {
        let cap = match rate {
            Rate::Market => u64::MAX,
            Rate::Capped(cap) => cap,
            Rate::Flat(price) => return Exact::from(price) * Exact::from(to.micros_since(from).max(0)),
            Rate::Nothing => return 0,
        };
        let cost = |(from, to, price): (Timestamp, Timestamp, u64)| {
            Exact::from(price.min(cap)) * Exact::from(to.micros_since(from))
        };
        self.prices(from, to).map(cost).sum()
    }
}
