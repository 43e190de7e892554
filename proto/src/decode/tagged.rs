//! Enums that say in their `type` field which variant they are.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
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

/// Reads an object whose `type` says which variant of an enum its other fields are, for an enum that is derived as if
/// the variant's name stood outside. Where `type` comes first nothing is buffered.
pub(crate) struct ByType<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ByType<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(ByTypeVisitor(visitor))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct ByTypeVisitor<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for ByTypeVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object with a type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<V::Value, A::Error> {
        let Some(first) = map.next_key::<std::borrow::Cow<'de, str>>()? else {
            return Err(A::Error::missing_field("type"));
        };
        if first == "type" {
            return self.0.visit_enum(Kind(map));
        }
        let (kind, fields) = Strict::object(first.into_owned(), map)?;
        let Value::Object(fields) = fields else { return Err(A::Error::missing_field("type")) };
        let kind = ("type".to_owned(), Value::String(kind));
        let mut map = MapDeserializer::new([kind].into_iter().chain(fields));
        let read = match map.next_key::<String>() {
            Ok(_) => self.0.visit_enum(Kind(map)),
            Err(error) => Err(error),
        };
        read.map_err(|error: serde_json::Error| A::Error::custom(error))
    }
}

/// An object of which the name of the field `type` was just read.
struct Kind<A>(A);

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Kind<A> {
    type Error = A::Error;
    type Variant = Fields<A>;

    fn variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<(S::Value, Fields<A>), A::Error> {
        let kind = self.0.next_value_seed(seed)?;
        Ok((kind, Fields(self.0)))
    }
}

/// The other fields.
struct Fields<A>(A);

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn unit_variant(mut self) -> Result<(), A::Error> {
        while self.0.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        seed.deserialize(MapAccessDeserializer::new(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, A::Error> {
        Err(A::Error::custom("an object is no list"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        visitor.visit_map(self.0)
    }
}

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
