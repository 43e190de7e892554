//! Time: UTC microseconds inside, RFC 3339 at the edges. Nobody here can ask what time it is.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::shorten;

/// Why a text is no instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instant is RFC 3339 with a time zone, such as \"2026-11-22T08:30:00Z\"; this is {text:?}")]
pub struct TimestampError {
    text: String,
}

/// An instant in UTC, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant there is in this system: 0001-01-01.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// The latest instant there is in this system: the last microsecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// The instant so many microseconds after 1970 began, kept within [`Timestamp::MIN`] and [`Timestamp::MAX`].
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since 1970 began.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The instant so many seconds later, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn plus_seconds(self, seconds: u32) -> Self {
        self.plus_micros(seconds as i64 * 1_000_000)
    }

    /// The instant so many microseconds later, within the bounds of time here.
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this instant, negative if it is not earlier.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let refused = || TimestampError { text: shorten(text) };
        let micros = DateTime::parse_from_rfc3339(text).map_err(|_| refused())?.timestamp_micros();
        let instant = Self::from_micros(micros);
        if instant.0 == micros { Ok(instant) } else { Err(refused()) }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.to_chrono().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

struct TimestampVisitor;

impl de::Visitor<'_> for TimestampVisitor {
    type Value = Timestamp;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an RFC 3339 instant as text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TimestampVisitor)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_rfc_3339_with_a_zone_is_an_instant() {
        assert_eq!("1970-01-01T00:00:01Z".parse::<Timestamp>().unwrap().micros(), 1_000_000);
        assert_eq!("1970-01-01T01:00:00+01:00".parse::<Timestamp>().unwrap().micros(), 0);
        for bad in ["", "now", "1", "1970-01-01", "1970-01-01T00:00:00", "-99999-01-01T00:00:00Z"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_instant_are_one_to_one(micros in Timestamp::MIN.micros()..=Timestamp::MAX.micros()) {
            let instant = Timestamp::from_micros(micros);
            prop_assert_eq!(instant.to_string().parse::<Timestamp>().unwrap(), instant);
        }
    }
}
