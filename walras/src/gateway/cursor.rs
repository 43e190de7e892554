//! Lists that run over several exchanges, one after the other, and where they go on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use market::view::View;
use market::view::json::{Bids, Bill, LeasePage};
use proto::StreamName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Gateway;
use super::asked::page;
use super::problem::Problem;

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

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// What comes after this, as the previous page's `next` says.
    #[serde(default)]
    after: Option<Cursor>,
    #[serde(default)]
    limit: Option<usize>,
    /// In this exchange only; in one after the other where it is missing.
    #[serde(default)]
    exchange: Option<StreamName>,
    /// Wait until the page's exchange has got this far: the `sequence` of an answer, to read one's own write.
    #[serde(default)]
    wait_for: Option<u64>,
}

/// A page of a list: what one exchange has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}InExchange")]
pub struct InExchange<T> {
    /// Which exchange.
    pub exchange: StreamName,
    /// What to ask for as `after` to go on, in the next exchange too where none was named; nothing at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
    /// What it has.
    #[serde(flatten)]
    pub page: T,
}

/// A part of what one exchange has.
pub trait Part {
    /// Takes out where the exchange's own list goes on.
    fn take_next(&mut self) -> Option<u64>;
}

impl Part for Bids {
    fn take_next(&mut self) -> Option<u64> {
        self.next.take()
    }
}

impl Part for LeasePage {
    fn take_next(&mut self) -> Option<u64> {
        self.next.take()
    }
}

impl Part for Bill {
    fn take_next(&mut self) -> Option<u64> {
        self.next.take().map(|next| next as u64)
    }
}

impl Gateway {
    /// The page that is asked for, read from the view of its exchange with where to begin and how much to read.
    pub(super) async fn page<T: Part>(
        &self,
        query: ListQuery,
        default: usize,
        read: impl FnOnce(&View, Option<u64>, usize) -> T,
    ) -> Result<InExchange<T>, Problem> {
        let limit = page(query.limit, default)?;
        let Cursor { exchange, after } = self.begin(&query)?;
        let sequence = query.wait_for.unwrap_or(0);
        let mut page = self.desk.read(&exchange, sequence, |view| read(view, after, limit)).await?;
        let next = match (page.take_next(), query.exchange) {
            (Some(last), _) => Some(Cursor { exchange: exchange.clone(), after: Some(last) }),
            (None, Some(_)) => None,
            (None, None) => {
                let behind = self.desk.exchanges().find(|other| **other > exchange);
                behind.map(|exchange| Cursor { exchange: exchange.clone(), after: None })
            }
        };
        Ok(InExchange { exchange, next, page })
    }

    fn begin(&self, query: &ListQuery) -> Result<Cursor, Problem> {
        match (&query.after, &query.exchange) {
            (Some(after), Some(exchange)) if after.exchange != *exchange => {
                let problem = format!("this place is in exchange {}, not in {exchange}", after.exchange);
                Err(Problem::malformed("after", &after.to_string(), &problem))
            }
            (Some(after), _) => Ok(after.clone()),
            (None, exchange) => {
                let exchange = exchange.as_ref().or_else(|| self.desk.exchanges().next());
                let exchange = exchange.ok_or_else(|| Problem::not_found("exchange", "none"))?.clone();
                Ok(Cursor { exchange, after: None })
            }
        }
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
