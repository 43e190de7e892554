//! Reads typed settings from the tree of layers, and says of every error which key and which layer it is in.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::ConfigError;
use super::layers::{Node, Origin, Value};

/// Reads `T` from a tree.
pub(super) fn read<T: de::DeserializeOwned>(node: Node) -> Result<T, ConfigError> {
    let origin = node.origin.clone();
    T::deserialize(Reading { node }).map_err(|problem| {
        let mut key = String::new();
        for part in problem.path.iter().rev() {
            if !key.is_empty() && !part.starts_with('[') {
                key.push('.');
            }
            key.push_str(part);
        }
        ConfigError::value(&problem.origin.unwrap_or(origin), &key, &problem.text)
    })
}

/// What is wrong, and as much as is known yet about where.
#[derive(Debug)]
struct Problem {
    text: String,
    /// Parts of the key, innermost first.
    path: Vec<String>,
    origin: Option<Origin>,
}

impl Problem {
    fn under(mut self, part: &str, origin: &Origin) -> Self {
        self.path.push(part.to_owned());
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for Problem {}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(text: T) -> Self {
        // One line, whatever a type's own message looks like.
        Self { text: text.to_string().replace('\n', " "), path: Vec::new(), origin: None }
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("no such key; there are {}", list(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("key `{field}` is missing"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("`{variant}` is none of {}", list(expected)))
    }
}

struct Reading {
    node: Node,
}

impl Reading {
    /// A variable's text as what it stands for where a list or table is wanted.
    fn expanded(self) -> Result<Self, Problem> {
        match &self.node.value {
            Value::Raw(text) => Node::from_inline(&self.node.origin, text)
                .map(|node| Self { node })
                .map_err(<Problem as de::Error>::custom),
            _ => Ok(self),
        }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Raw(text) => match (text.parse::<i64>(), text.parse::<u64>()) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_u64(number),
                _ => Err(de::Error::custom(format!("{text:?} is no whole number"))),
            },
            _ => de::Deserializer::deserialize_any(self, visitor),
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            self.number(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reading {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.node.value {
            Value::Text(text) | Value::Raw(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Boolean(value) => visitor.visit_bool(value),
            Value::Table(table) => visitor.visit_map(Fields { rest: table.into_iter(), value: None }),
            Value::List(list) => visitor.visit_seq(Items { rest: list.into_iter(), index: 0 }),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Raw(text) => match text.parse() {
                Ok(value) => visitor.visit_bool(value),
                Err(_) => Err(de::Error::custom(format!("{text:?} is neither true nor false"))),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    /// An empty variable unsets what a file says.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Raw(text) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.expanded()?.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.expanded()?.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let reading = match &self.node.value {
            Value::Raw(text) if text.starts_with('{') => self.expanded()?,
            _ => self,
        };
        match reading.node.value {
            Value::Text(text) | Value::Raw(text) => visitor.visit_enum(text.into_deserializer()),
            Value::Table(table) if table.len() == 1 => {
                let fields = Fields { rest: table.into_iter(), value: None };
                visitor.visit_enum(MapAccessDeserializer::new(fields))
            }
            _ => Err(de::Error::custom("a word or a table with one key is wanted")),
        }
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The fields of a table, in the order of their names.
struct Fields {
    rest: std::collections::btree_map::IntoIter<String, Node>,
    value: Option<(String, Node)>,
}

impl<'de> de::MapAccess<'de> for Fields {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        let text: de::value::StrDeserializer<'_, Problem> = key.as_str().into_deserializer();
        let found = seed.deserialize(text).map_err(|problem| problem.under(&key, &node.origin))?;
        self.value = Some((key, node));
        Ok(Some(found))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let origin = node.origin.clone();
        seed.deserialize(Reading { node }).map_err(|problem| problem.under(&key, &origin))
    }
}

struct Items {
    rest: std::vec::IntoIter<Node>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Items {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some(node) = self.rest.next() else { return Ok(None) };
        let part = format!("[{}]", self.index);
        self.index += 1;
        let origin = node.origin.clone();
        seed.deserialize(Reading { node }).map(Some).map_err(|problem| problem.under(&part, &origin))
    }
}
