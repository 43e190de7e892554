//! Enums that say in their `type` field which variant they are.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Deserializes an enum by its `type` field. Where `type` comes first, as every writer of ours puts it, nothing
/// is buffered; elsewhere the object is read whole first.
macro_rules! tagged {
    ($from:expr, $name:ident { $($variant:ident),* $(,)? }) => {{
        struct Tagged;
        impl<'de> serde::de::Visitor<'de> for Tagged {
            type Value = $name;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object with a type")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                use serde::de::{Error, IntoDeserializer};
                const KINDS: &[&str] = &[$(stringify!($variant)),*];
                let Some(first) = map.next_key::<std::borrow::Cow<'de, str>>()? else {
                    return Err(A::Error::missing_field("type"));
                };
                if first == "type" {
                    let kind = map.next_value::<std::borrow::Cow<'de, str>>()?;
                    let rest = serde::de::value::MapAccessDeserializer::new(map);
                    return match &*kind {
                        $(stringify!($variant) => serde::Deserialize::deserialize(rest).map($name::$variant),)*
                        other => Err(A::Error::unknown_variant(other, KINDS)),
                    };
                }
                let (kind, fields) = $crate::decode::Strict::object(first.into_owned(), map)?;
                let rest = fields.into_deserializer();
                match kind.as_str() {
                    $(stringify!($variant) => serde::Deserialize::deserialize(rest)
                        .map($name::$variant)
                        .map_err(|error: serde_json::Error| A::Error::custom(error)),)*
                    other => Err(A::Error::unknown_variant(other, KINDS)),
                }
            }
        }
        $from.deserialize_map(Tagged)
    }};
}
pub(crate) use tagged;

/// Any JSON in which no field stands twice, so that an object read whole first says one thing only.
pub(crate) struct Strict(Value);

impl Strict {
    /// An object whose first field's name was read already, taken apart into its `type` and the rest.
    pub(crate) fn object<'de, A: MapAccess<'de>>(
        first: String,
        mut map: A,
    ) -> Result<(String, Value), A::Error> {
        let mut fields = Map::new();
        let mut next = Some(first);
        while let Some(name) = next {
            let Self(value) = map.next_value()?;
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            fields.insert(name, value);
            next = map.next_key()?;
        }
        match fields.remove("type") {
            Some(Value::String(kind)) => Ok((kind, Value::Object(fields))),
            Some(other) => Err(A::Error::custom(format_args!("invalid type: {other}, expected a text"))),
            None => Err(A::Error::missing_field("type")),
        }
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON without duplicate fields")
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        let mut read = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            read.push(item);
        }
        Ok(Strict(Value::Array(read)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            fields.insert(name, value);
        }
        Ok(Strict(Value::Object(fields)))
    }
}
