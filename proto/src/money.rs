//! Exact money. Prices are whole micro-dollars per hour, charges whole nano-dollars; `rust_decimal` stands at
//! the edges only, and no amount is ever a floating-point number or a JSON number.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::shorten;

/// Decimals a price may have: micro-dollars.
const PRICE_DECIMALS: u32 = 6;
/// Decimals that are always written, because ladders step in $0.001.
const DECIMALS_SHOWN_MIN: usize = 3;
/// Digits before the point: a price stays below a thousand million dollars per hour, so that a price times
/// 10,000 units times a century of microseconds fits an `i128` many times over.
const WHOLE_DIGITS_MAX: usize = 9;
/// Decimals a charge may have: nano-dollars.
const CHARGE_DECIMALS: usize = 9;
/// Digits of a charge before the point; with its decimals they fit an `i128`.
const CHARGE_DIGITS_MAX: usize = 24;
const NANOS_PER_DOLLAR: u128 = 1_000_000_000;

/// Why a text is no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not digits with at most six decimals.
    #[error(
        "a price is digits with at most six decimals and nothing else, such as \"0.031\"; this is {text:?}"
    )]
    Malformed {
        /// The text, shortened.
        text: String,
    },
    /// Not digits with one to nine decimals.
    #[error("a charge is digits with one to nine decimals, such as \"1.250\"; this is {text:?}")]
    MalformedCharge {
        /// The text, shortened.
        text: String,
    },
    /// More than nine digits before the point.
    #[error("a price has at most nine digits before the point; this is {text:?}")]
    TooLarge {
        /// The text, shortened.
        text: String,
    },
}

/// A price, limit or reserve, in micro-dollars per hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Price(u64);

impl Price {
    /// The largest price: $999,999,999.999999 per hour.
    pub const MAX: Self = Self(999_999_999_999_999);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A price of so many micro-dollars per hour; `None` above [`Price::MAX`].
    pub const fn from_micros(micros: u64) -> Option<Self> {
        if micros <= Self::MAX.0 { Some(Self(micros)) } else { None }
    }

    /// A price of so many micro-dollars per hour, for constants and for sums known to be in range.
    pub const fn micros_or_max(micros: u64) -> Self {
        if micros <= Self::MAX.0 { Self(micros) } else { Self::MAX }
    }

    /// The price in micro-dollars per hour.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Writes an amount of micro-dollars as prices are written.
    pub fn text_of_micros(micros: u128) -> String {
        let mut decimals = format!("{:06}", micros % 1_000_000);
        while decimals.len() > DECIMALS_SHOWN_MIN && decimals.ends_with('0') {
            decimals.pop();
        }
        format!("{}.{decimals}", micros / 1_000_000)
    }
}

impl FromStr for Price {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let malformed = || MoneyError::Malformed { text: shorten(text) };
        let (whole, decimals) = match text.split_once('.') {
            Some((whole, decimals)) if !decimals.is_empty() => (whole, decimals),
            Some(_) => return Err(malformed()),
            None => (text, ""),
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > PRICE_DECIMALS as usize
        {
            return Err(malformed());
        }
        if whole.len() > WHOLE_DIGITS_MAX {
            return Err(MoneyError::TooLarge { text: shorten(text) });
        }
        let fold = |part: &str| part.bytes().fold(0_u64, |sum, byte| sum * 10 + u64::from(byte - b'0'));
        let scale = 10_u64.pow(PRICE_DECIMALS - decimals.len() as u32);
        Ok(Self(fold(whole) * 1_000_000 + fold(decimals) * scale))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&Self::text_of_micros(u128::from(self.0)))
    }
}

impl From<Price> for Decimal {
    fn from(price: Price) -> Self {
        Decimal::from_i128_with_scale(i128::from(price.0), PRICE_DECIMALS)
    }
}

impl TryFrom<Decimal> for Price {
    type Error = MoneyError;

    /// Exact: a value with more than six decimals is refused, not rounded.
    fn try_from(value: Decimal) -> Result<Self, MoneyError> {
        value.normalize().to_string().parse()
    }
}

/// Characters of the longest price: nine digits, a point, six digits.
const PRICE_CHARACTERS_MAX: usize = WHOLE_DIGITS_MAX + 1 + PRICE_DECIMALS as usize;

impl Serialize for Price {
    /// As it is displayed, without the detour over a text of its own: every event and answer has prices.
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut text = [b'0'; PRICE_CHARACTERS_MAX];
        let point = WHOLE_DIGITS_MAX;
        let (mut whole, mut decimals) = (self.0 / 1_000_000, self.0 % 1_000_000);
        text[point] = b'.';
        for digit in text[point + 1..].iter_mut().rev() {
            *digit = b'0' + (decimals % 10) as u8;
            decimals /= 10;
        }
        let mut first = point;
        while first > 0 && (whole > 0 || first == point) {
            first -= 1;
            text[first] = b'0' + (whole % 10) as u8;
            whole /= 10;
        }
        let mut end = text.len();
        while end > point + 1 + DECIMALS_SHOWN_MIN && text[end - 1] == b'0' {
            end -= 1;
        }
        // Digits and a point are ASCII.
        out.serialize_str(std::str::from_utf8(&text[first..end]).unwrap_or_default())
    }
}

struct PriceVisitor;

impl de::Visitor<'_> for PriceVisitor {
    type Value = Price;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a price as text, such as \"0.031\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Price, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(PriceVisitor)
    }
}

impl JsonSchema for Price {
    fn schema_name() -> Cow<'static, str> {
        "Price".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]{1,9}(\\.[0-9]{1,6})?$",
            "description": "US dollars per hour: digits with at most six decimals, never a JSON number."
        })
    }
}

/// An amount owed, in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Charge(i128);

impl Charge {
    /// An amount of so many nano-dollars.
    pub const fn from_nanos(nanos: i128) -> Self {
        Self(nanos)
    }

    /// The amount in nano-dollars.
    pub const fn nanos(self) -> i128 {
        self.0
    }
}

impl fmt::Display for Charge {
    /// Dollars, with three to nine decimals.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        let mut decimals = format!("{:09}", nanos % NANOS_PER_DOLLAR);
        while decimals.len() > DECIMALS_SHOWN_MIN && decimals.ends_with('0') {
            decimals.pop();
        }
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(out, "{sign}{}.{decimals}", nanos / NANOS_PER_DOLLAR)
    }
}

impl FromStr for Charge {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let malformed = || MoneyError::MalformedCharge { text: shorten(text) };
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, decimals) = digits.split_once('.').ok_or_else(malformed)?;
        let is_number = |part: &str, most| {
            !part.is_empty() && part.len() <= most && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(whole, CHARGE_DIGITS_MAX) || !is_number(decimals, CHARGE_DECIMALS) {
            return Err(malformed());
        }
        let number: i128 =
            format!("{whole}{decimals:0<CHARGE_DECIMALS$}").parse().map_err(|_| malformed())?;
        Ok(Self(if negative { -number } else { number }))
    }
}

impl Serialize for Charge {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Charge {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Charge {
    fn schema_name() -> Cow<'static, str> {
        "Charge".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^-?[0-9]{1,24}\\.[0-9]{1,9}$",
            "description": "US dollars: digits with at most nine decimals, never a JSON number."
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prices_are_written_with_at_least_three_decimals() {
        for (text, written) in [
            ("0.031", "0.031"),
            ("0.03", "0.030"),
            ("0", "0.000"),
            ("12", "12.000"),
            ("1.5", "1.500"),
            ("0.000001", "0.000001"),
            ("0.123450", "0.12345"),
            ("999999999.999999", "999999999.999999"),
        ] {
            assert_eq!(text.parse::<Price>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn anything_but_digits_with_six_decimals_is_refused() {
        for bad in [
            "",
            ".",
            "1.",
            ".1",
            "-1",
            "+1",
            "1e5",
            "1E5",
            "1_000",
            "1,000",
            " 1",
            "1 ",
            "0.1234567",
            "0x1",
            "NaN",
            "inf",
            "1.2.3",
            "１",
            "1000000000",
            "9223372036854775808",
            "0.-1",
        ] {
            assert!(bad.parse::<Price>().is_err(), "{bad:?}");
        }
        for bad in ["0.1", "1", "-1", "1e5", "null", "true", "[]"] {
            assert!(serde_json::from_str::<Price>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn charges_are_written_with_three_to_nine_decimals() {
        for (nanos, written) in [
            (0, "0.000"),
            (1, "0.000000001"),
            (1_250_000_000, "1.250"),
            (-31_000_001, "-0.031000001"),
            (123_456_789_000_000_000, "123456789.000"),
        ] {
            let charge = Charge::from_nanos(nanos);
            assert_eq!(charge.to_string(), written);
            assert_eq!(written.parse::<Charge>().unwrap(), charge);
        }
        for bad in ["", "1", ".1", "1.", "+1.0", "1e5.0", "1.0000000001", "--1.0", "1.0 "] {
            assert!(bad.parse::<Charge>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_price_are_one_to_one(micros in 0..=Price::MAX.micros()) {
            let price = Price::from_micros(micros).unwrap();
            prop_assert_eq!(price.to_string().parse::<Price>().unwrap(), price);
            prop_assert_eq!(Price::try_from(Decimal::from(price)).unwrap(), price);
            let json = serde_json::to_string(&price).unwrap();
            prop_assert_eq!(&json, &format!("\"{price}\""));
            prop_assert_eq!(serde_json::from_str::<Price>(&json).unwrap(), price);
        }

        #[test]
        fn no_text_makes_the_codec_panic(text in "\\PC{0,24}") {
            let _ = text.parse::<Price>();
        }

        #[test]
        fn the_codec_agrees_with_rust_decimal(text in "[0-9]{1,9}(\\.[0-9]{1,6})?") {
            let exact: Decimal = text.parse().unwrap();
            prop_assert_eq!(Decimal::from(text.parse::<Price>().unwrap()), exact);
        }
    }
}
