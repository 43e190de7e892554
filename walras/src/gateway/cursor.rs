//! Where a list that runs over several exchanges goes on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use proto::StreamName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An exchange, and the number of the last thing listed there: `main:17`. The name alone is its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Where.
    pub exchange: StreamName,
    /// Behind what.
    pub after: Option<u64>,
}

/// Why a text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a place in a list is EXCHANGE or EXCHANGE:NUMBER, as the previous page's `next` says")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (exchange, after) = match text.split_once(':') {
            Some((exchange, after)) => (exchange, Some(after.parse().map_err(|_| CursorError)?)),
            None => (text, None),
        };
        Ok(Self { exchange: exchange.parse().map_err(|_| CursorError)?, after })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Some(after) => write!(out, "{}:{after}", self.exchange),
            None => write!(out, "{}", self.exchange),
        }
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Cursor {
    fn schema_name() -> Cow<'static, str> {
        "Cursor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}(:[0-9]{1,20})?$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_written() {
        for text in ["main", "main:0", "us-west_2:18446744073709551615"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", ":", ":1", "main:", "main:-1", "main:1:2", "a b:1", "main:18446744073709551616"] {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }
}
