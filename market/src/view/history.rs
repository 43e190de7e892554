//! What a market's prices were: every change lately, then by the minute, then by the hour, so that a market whose
//! price changes a thousand times a second and one that changes once a week both have a history of bounded size.

use std::collections::VecDeque;

use proto::market::Prices;
use proto::{Price, Timestamp};
use serde::{Deserialize, Serialize};

use super::raw;

/// Latest changes kept one by one.
pub const CHANGES_KEPT: usize = 1_024;
/// Minutes with a change kept after that.
pub const MINUTES_KEPT: usize = 1_440;
/// Hours with a change kept after that: 90 days of hours, if every one of them saw a change.
pub const HOURS_KEPT: usize = 2_160;

const MINUTE_MICROS: i64 = 60_000_000;
const HOUR_MICROS: i64 = 60 * MINUTE_MICROS;

/// From `at` on this held, until the next point. Where several changes were put together, it is the last of them,
/// and `low` and `high` say what the price was in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    #[serde(with = "raw::instant")]
    pub(super) at: Timestamp,
    #[serde(with = "raw::price_option")]
    pub(super) price: Option<Price>,
    #[serde(with = "raw::price_option")]
    pub(super) lowest_winning_bid: Option<Price>,
    #[serde(with = "raw::price")]
    pub(super) reserve: Price,
    #[serde(with = "raw::price_option")]
    pub(super) low: Option<Price>,
    #[serde(with = "raw::price_option")]
    pub(super) high: Option<Price>,
}

impl Point {
    fn figures(&self) -> (Option<Price>, Option<Price>, Price) {
        (self.price, self.lowest_winning_bid, self.reserve)
    }

    /// This and a later one as one point.
    fn with(self, later: Self) -> Self {
        let low = self.low.into_iter().chain(later.low).min();
        Self { at: self.at, low, high: self.high.max(later.high), ..later }
    }
}

/// Points from the oldest on: hours, then minutes, then single changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    hours: VecDeque<Point>,
    minutes: VecDeque<Point>,
    changes: VecDeque<Point>,
}

impl History {
    /// Notes the figures as of an instant; nothing if price, lowest winning bid and reserve are what they were.
    pub(super) fn record(&mut self, at: Timestamp, prices: &Prices) {
        let Prices { price, lowest_winning_bid, reserve, .. } = *prices;
        let point = Point { at, price, lowest_winning_bid, reserve, low: price, high: price };
        match self.changes.back_mut() {
            Some(last) if last.figures() == point.figures() => return,
            // Nothing lasts no time, but what was shown was shown.
            Some(last) if last.at == at => {
                *last = last.with(point);
                return;
            }
            _ => self.changes.push_back(point),
        }
        if self.changes.len() > CHANGES_KEPT
            && let Some(oldest) = self.changes.pop_front()
        {
            self.by_the_minute(oldest);
        }
    }

    fn by_the_minute(&mut self, point: Point) {
        put_together(&mut self.minutes, point, MINUTE_MICROS);
        if self.minutes.len() > MINUTES_KEPT
            && let Some(oldest) = self.minutes.pop_front()
        {
            put_together(&mut self.hours, oldest, HOUR_MICROS);
        }
        if self.hours.len() > HOURS_KEPT {
            self.hours.pop_front();
        }
    }

    /// From the point that held at `from` on, in order.
    pub(super) fn since(&self, from: Timestamp) -> impl Iterator<Item = &Point> {
        let begun = |points: &VecDeque<Point>| points.partition_point(|point| point.at <= from);
        let before = begun(&self.hours) + begun(&self.minutes) + begun(&self.changes);
        self.hours.iter().chain(&self.minutes).chain(&self.changes).skip(before.saturating_sub(1))
    }
}

fn put_together(points: &mut VecDeque<Point>, point: Point, micros: i64) {
    let period = |point: &Point| point.at.micros().div_euclid(micros);
    match points.back_mut() {
        Some(last) if period(last) == period(&point) => *last = last.with(point),
        _ => points.push_back(point),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prices(price: Option<u64>) -> Prices {
        let price = price.map(|mills| Price::micros_or_max(mills * 1_000));
        Prices { price, lowest_winning_bid: price, ..Prices::default() }
    }

    fn all(history: &History) -> Vec<Point> {
        history.since(Timestamp::MIN).copied().collect()
    }

    #[test]
    fn what_does_not_change_leaves_no_point() {
        let mut history = History::default();
        for second in 0..10 {
            history.record(Timestamp::from_micros(second * 1_000_000), &prices(Some(second as u64 / 5)));
        }
        assert_eq!(all(&history).len(), 2);
        let from =
            |second: i64| history.since(Timestamp::from_micros(second * 1_000_000)).next().unwrap().price;
        assert_eq!(from(4), Some(Price::ZERO));
        assert_eq!(from(5), Some(Price::micros_or_max(1_000)));
        assert_eq!(from(1_000), Some(Price::micros_or_max(1_000)));
    }

    proptest! {
        /// However many changes there are, their number is bounded, their order is time's, the latest are exact,
        /// and no price ever seen is outside the range of the point that covers it.
        #[test]
        fn coarsening_keeps_bounds_order_and_range(
            steps in proptest::collection::vec((0..20_000_000_i64, proptest::option::of(0..4_u64)), 2_000..4_000),
        ) {
            let mut history = History::default();
            let mut at = Timestamp::from_micros(1_000_000_000);
            let mut told = Vec::new();
            for (micros, price) in steps {
                at = at.plus_micros(micros);
                history.record(at, &prices(price));
                told.push((at, prices(price).price));
            }
            prop_assert!(history.changes.len() <= CHANGES_KEPT);
            prop_assert!(history.minutes.len() <= MINUTES_KEPT);
            let points = all(&history);
            prop_assert!(points.windows(2).all(|pair| pair[0].at < pair[1].at));
            for (at, price) in &told {
                let point = history.since(*at).next().unwrap();
                prop_assert!(point.at <= *at);
                prop_assert!(price.is_none_or(|price| point.low <= Some(price) && Some(price) <= point.high));
            }
            let (at, price) = told[told.len() - 1];
            prop_assert_eq!(history.since(at).next().unwrap().price, price);
        }
    }

    #[test]
    fn a_busy_market_has_a_history_of_bounded_size() {
        let mut history = History::default();
        // A change every seven minutes for three years.
        for change in 0..220_000_u64 {
            let at = Timestamp::from_micros(change as i64 * 7 * MINUTE_MICROS);
            history.record(at, &prices(Some(change % 50)));
        }
        assert_eq!(
            (history.hours.len(), history.minutes.len(), history.changes.len()),
            (HOURS_KEPT, MINUTES_KEPT, CHANGES_KEPT)
        );
    }
}
