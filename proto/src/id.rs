//! Typed ids: short texts that are safe in subjects, file names, SQL and logs.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or longer than [`ID_BYTES_MAX`].
    #[error("{kind} must have 1 to {ID_BYTES_MAX} characters, this has {length}")]
    Length {
        /// What the text should have been.
        kind: &'static str,
        /// Its length, in bytes.
        length: usize,
    },
    /// The text has a character that ids may not have.
    #[error("{kind} may hold only {allowed}, this is {text:?}")]
    Character {
        /// What the text should have been.
        kind: &'static str,
        /// The characters it may hold, in words.
        allowed: &'static str,
        /// The text, shortened.
        text: String,
    },
    /// A market is a region, a slash and a class.
    #[error("market must be REGION/CLASS, this is {text:?}")]
    Market {
        /// The text, shortened.
        text: String,
    },
}

/// Shortens a text from outside, so that it can stand in a one-line message.
pub fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(ID_BYTES_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn check(
    kind: &'static str,
    allowed: &'static str,
    text: &str,
    legal: impl Fn(u8) -> bool,
) -> Result<(), IdError> {
    if text.is_empty() || text.len() > ID_BYTES_MAX {
        return Err(IdError::Length { kind, length: text.len() });
    }
    if !text.bytes().all(legal) {
        return Err(IdError::Character { kind, allowed, text: shorten(text) });
    }
    Ok(())
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn is_dotted(byte: u8) -> bool {
    is_token(byte) || byte == b'.'
}

fn is_label(byte: u8) -> bool {
    is_dotted(byte) || byte == b'/'
}

/// A text that parses itself from a JSON string without an intermediate allocation.
struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = IdError>> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $legal:ident, $allowed:literal, $pattern:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check($kind, $allowed, text, $legal)?;
                Ok(Self(Arc::from(text)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, out)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(TextVisitor(std::marker::PhantomData))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "maxLength": ID_BYTES_MAX })
            }
        }
    )*};
}

// Alphabetical; append-only, because ids are on the wire.
ids! {
    /// A bid's id, chosen by whoever places it, unique for its tenant for ever.
    BidId, "bid", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// A server class, such as `gp.large`.
    ClassName, "class", is_dotted, "letters, digits, -, _ and .", "^[A-Za-z0-9_.-]{1,64}$";
    /// A tenant's cluster.
    ClusterId, "cluster", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// A command's id, chosen by its sender; a command sent again under the same id is the same command.
    CommandId, "id", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// A store of planes' data.
    DataStoreId, "data store", is_dotted, "letters, digits, -, _ and .", "^[A-Za-z0-9_.-]{1,64}$";
    /// A host of a site, by the name of its Node.
    HostId, "host", is_dotted, "letters, digits, -, _ and .", "^[A-Za-z0-9_.-]{1,64}$";
    /// A pool of like workers within a cluster.
    PoolId, "pool", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// Who speaks on the bus: one storefront, one hypervisor, one service.
    PrincipalId, "principal", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// A region, such as `us-central-dfw-1`.
    RegionName, "region", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// A size of planes, such as `small`.
    SizeName, "size", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// Where servers come from: a hypervisor, as its principal calls it.
    SourceId, "source", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// The name of one stream of a machine, such as the exchange `main`.
    StreamName, "stream", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// A taint of hosts, such as `walras.dev/spot`.
    TaintName, "taint", is_label, "letters, digits, -, _, . and /", "^[A-Za-z0-9_./-]{1,64}$";
    /// A tenant.
    TenantId, "tenant", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// A tenant's webhook.
    WebhookId, "webhook", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
    /// A zone: hosts that may fail together.
    ZoneName, "zone", is_token, "letters, digits, - and _", "^[A-Za-z0-9_-]{1,64}$";
}

/// A bid is known by the id of the command that placed it.
impl From<CommandId> for BidId {
    fn from(id: CommandId) -> Self {
        Self(id.0)
    }
}

/// A bid is named by the id of the command that placed it; both may hold the same characters.
impl From<&CommandId> for BidId {
    fn from(id: &CommandId) -> Self {
        Self(Arc::clone(&id.0))
    }
}

/// One region × one server class, written `region/class`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarketId(Arc<str>);

impl MarketId {
    /// The market of a class in a region.
    pub fn new(region: &RegionName, class: &ClassName) -> Self {
        Self(Arc::from(format!("{region}/{class}")))
    }

    /// The market as text, `region/class`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash.
    pub fn region(&self) -> &str {
        self.0.split_once('/').map_or("", |(region, _)| region)
    }

    /// The part after the slash.
    pub fn class(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, class)| class)
    }
}

impl FromStr for MarketId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let Some((region, class)) = text.split_once('/') else {
            return Err(IdError::Market { text: shorten(text) });
        };
        check("region", "letters, digits, - and _", region, is_token)?;
        check("class", "letters, digits, -, _ and .", class, is_dotted)?;
        // An empty token would make the class unspeakable as part of a subject.
        if class.split('.').any(str::is_empty) {
            return Err(IdError::Market { text: shorten(text) });
        }
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for MarketId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for MarketId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, out)
    }
}

impl Serialize for MarketId {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MarketId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TextVisitor(std::marker::PhantomData))
    }
}

impl JsonSchema for MarketId {
    fn schema_name() -> Cow<'static, str> {
        "MarketId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_.-]{1,64}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_only_what_is_safe_everywhere() {
        for good in ["a", "b-1", "A_9", &"x".repeat(64)] {
            assert_eq!(good.parse::<BidId>().unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "a b", "a*", ">", "ü", "a/b", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<BidId>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<BidId>(bad.into()).is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<BidId>("7").is_err());
    }

    #[test]
    fn a_market_is_a_region_and_a_class() {
        let market: MarketId = "us-central-dfw-1/gp.vs1.large-dfw".parse().unwrap();
        assert_eq!((market.region(), market.class()), ("us-central-dfw-1", "gp.vs1.large-dfw"));
        for bad in ["", "dfw", "/x", "dfw/", "dfw/a/b", "d.w/x", "dfw/.", "dfw/a..b", "dfw/a b", "dfw/>"] {
            assert!(bad.parse::<MarketId>().is_err(), "{bad:?}");
        }
    }
}
