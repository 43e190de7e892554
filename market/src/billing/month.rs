//! Months of the UTC calendar: what bills are for.

use std::fmt;
use std::str::FromStr;

use proto::Timestamp;
use serde::{Deserialize, Serialize};

const MICROSECONDS_PER_DAY: i64 = 24 * 3_600 * 1_000_000;
const MONTHS_PER_YEAR: i32 = 12;

/// Why a text names no month.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a month is a year and a month, such as \"2026-11\"; this is {text:?}")]
pub struct MonthError {
    text: String,
}

/// A month of the UTC calendar, from its first instant to just before the next month's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Month(i32);

impl Month {
    /// The month that an instant is in.
    pub const fn of(at: Timestamp) -> Self {
        let (year, month) = civil(at.micros().div_euclid(MICROSECONDS_PER_DAY));
        Self(year as i32 * MONTHS_PER_YEAR + month as i32 - 1)
    }

    /// Its first instant.
    pub const fn start(self) -> Timestamp {
        let (year, month) = (self.0.div_euclid(MONTHS_PER_YEAR), self.0.rem_euclid(MONTHS_PER_YEAR) + 1);
        Timestamp::from_micros(days_before(year as i64, month as i64) * MICROSECONDS_PER_DAY)
    }

    /// The first instant that is no longer in it.
    pub const fn end(self) -> Timestamp {
        self.plus(1).start()
    }

    /// The month so many months later.
    #[must_use]
    pub const fn plus(self, months: i32) -> Self {
        Self(self.0.saturating_add(months))
    }
}

/// Year and month (1 to 12) of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: years begin in March, so that the leap day is
/// the last.
const fn civil(days: i64) -> (i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + (month <= 2) as i64, month)
}

/// Days from 1970-01-01 to the first of a month: the inverse of [`civil`], `days_from_civil` there.
const fn days_before(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl fmt::Display for Month {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month) = (self.0.div_euclid(MONTHS_PER_YEAR), self.0.rem_euclid(MONTHS_PER_YEAR) + 1);
        write!(out, "{year:04}-{month:02}")
    }
}

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let refused = || MonthError { text: text.chars().take(40).collect() };
        let (year, month) = text.split_once('-').ok_or_else(refused)?;
        let is_number = |part: &str, digits| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(year, 4) || !is_number(month, 2) {
            return Err(refused());
        }
        let year: i32 = year.parse().map_err(|_| refused())?;
        let month: i32 = month.parse().map_err(|_| refused())?;
        if year < 1 || !(1..=MONTHS_PER_YEAR).contains(&month) {
            return Err(refused());
        }
        Ok(Self(year * MONTHS_PER_YEAR + month - 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        for (month, start) in [
            ("1970-01", "1970-01-01T00:00:00Z"),
            ("2024-03", "2024-03-01T00:00:00Z"),
            ("2100-03", "2100-03-01T00:00:00Z"),
            ("2026-12", "2026-12-01T00:00:00Z"),
            ("0001-01", "0001-01-01T00:00:00Z"),
            ("9999-12", "9999-12-01T00:00:00Z"),
        ] {
            let parsed: Month = month.parse().unwrap();
            assert_eq!(parsed.start(), start.parse().unwrap());
            assert_eq!(parsed.to_string(), month);
        }
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for bad in ["", "2026", "2026-13", "2026-00", "2026-1", "26-01", "2026-011", "-026-01", "0000-01"] {
            assert!(bad.parse::<Month>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Timestamps write their own date, by another library: the month is what stands in it.
        #[test]
        fn an_instant_is_in_the_month_its_text_begins_with(
            micros in Timestamp::MIN.micros()..=Timestamp::MAX.micros(),
        ) {
            let at = Timestamp::from_micros(micros);
            let month = Month::of(at);
            prop_assert_eq!(&month.to_string()[..], &at.to_string()[..7]);
            prop_assert!(month.start() <= at && (at < month.end() || month.end() == Timestamp::MAX));
        }
    }
}
