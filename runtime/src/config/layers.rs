//! The layers of a configuration as one tree, every value with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Variables start with this.
pub(super) const PREFIX: &str = "WALRAS_";
/// What joins the parts of a key in a variable's name: keys have single underscores themselves.
const JOINT: &str = "__";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: Arc<str>,
    },
    /// A flag on the command line.
    Flag {
        /// The flag, with its dashes.
        flag: Arc<str>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line } => write!(out, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(out, "environment {variable}"),
            Self::Flag { flag } => write!(out, "flag {flag}"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Table(BTreeMap<String, Node>),
    List(Vec<Node>),
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// The text of a variable or flag: what it means depends on the type of the key.
    Raw(String),
}

impl Node {
    pub(super) fn empty() -> Self {
        Self { origin: Origin::Default, value: Value::Table(BTreeMap::new()) }
    }

    /// The layer that a TOML text is.
    pub(super) fn from_toml(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let path: Arc<Path> = Arc::from(path);
        let starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let line_of = |at: usize| starts.partition_point(|start| *start <= at);
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: Arc::clone(&path),
            line: error.span().map_or(1, |span| line_of(span.start)),
            // Only the message: the error's own display quotes the line, which may hold a secret.
            problem: error.message().trim().replace('\n', " "),
        })?;
        let origin = |at: usize| Origin::File { path: Arc::clone(&path), line: line_of(at) };
        let value = convert_table(table.into_inner(), "", &origin)?;
        Ok(Self { origin: origin(0), value })
    }

    /// The node of a value that stands in a variable or flag as TOML, such as a list.
    pub(super) fn from_inline(origin: &Origin, text: &str) -> Result<Self, &'static str> {
        const PROBLEM: &str = "a list or table is written as TOML, such as [\"a\", \"b\"] or { a = 1 }";
        // A line break could end the value and begin another key.
        if text.contains(['\n', '\r']) {
            return Err(PROBLEM);
        }
        let document = format!("value = {text}");
        let table = DeTable::parse(&document).map_err(|_| PROBLEM)?;
        let value = convert_table(table.into_inner(), "", &|_| origin.clone()).map_err(|_| PROBLEM)?;
        match value {
            Value::Table(mut table) => table.remove("value").ok_or(PROBLEM),
            _ => Err(PROBLEM),
        }
    }

    /// Sets the value at a dotted key.
    pub(super) fn set(&mut self, key: &str, origin: &Origin, text: &str) -> Result<(), ConfigError> {
        let refused = |problem: &str| ConfigError::value(origin, key, problem);
        let mut parts: Vec<&str> = key.split('.').collect();
        let Some(last) = parts.pop().filter(|last| !last.is_empty()) else {
            return Err(refused("no key"));
        };
        let mut node = self;
        for part in parts {
            let Value::Table(table) = &mut node.value else {
                return Err(refused("a part of this key is set as a whole too; set one of the two"));
            };
            let empty = || Self { origin: origin.clone(), value: Value::Table(BTreeMap::new()) };
            node = table.entry(part.to_owned()).or_insert_with(empty);
        }
        let Value::Table(table) = &mut node.value else {
            return Err(refused("a part of this key is set as a whole too; set one of the two"));
        };
        let leaf = Self { origin: origin.clone(), value: Value::Raw(text.to_owned()) };
        if table.insert(last.to_owned(), leaf).is_some() {
            return Err(refused("set twice"));
        }
        Ok(())
    }

    /// Lays `upper` over this: tables key by key, everything else as a whole.
    pub(super) fn overlay(&mut self, upper: Self) {
        match (&mut self.value, upper.value) {
            (Value::Table(below), Value::Table(above)) => {
                for (key, node) in above {
                    match below.get_mut(&key) {
                        Some(beneath) => beneath.overlay(node),
                        None => {
                            below.insert(key, node);
                        }
                    }
                }
            }
            (below, above) => {
                *below = above;
                self.origin = upper.origin;
            }
        }
    }

    /// Where the value at a path came from.
    pub(super) fn origin_of(&self, path: &[&str]) -> Origin {
        let (origin, found) = self.walk(path);
        if found { origin } else { Origin::Default }
    }

    /// Where the value at a path came from or, where nobody set it, the table around it.
    pub(super) fn nearest_origin(&self, path: &[&str]) -> Origin {
        self.walk(path).0
    }

    fn walk(&self, path: &[&str]) -> (Origin, bool) {
        let mut node = self;
        for part in path {
            match &node.value {
                Value::Table(table) => match table.get(*part) {
                    Some(found) => node = found,
                    None => return (node.origin.clone(), false),
                },
                // Set as a whole from outside: its parts came from there too.
                _ => return (node.origin.clone(), true),
            }
        }
        (node.origin.clone(), true)
    }
}

/// The dotted key a variable sets.
pub(super) fn key_of_variable(name: &str) -> Option<String> {
    name.strip_prefix(PREFIX).map(|rest| rest.to_ascii_lowercase().replace(JOINT, "."))
}

fn convert_table(
    table: DeTable<'_>,
    path: &str,
    origin: &impl Fn(usize) -> Origin,
) -> Result<Value, ConfigError> {
    let mut converted = BTreeMap::new();
    for (key, value) in table {
        let at = key.span().start;
        let name = key.into_inner().into_owned();
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let value = convert(value.into_inner(), &path, &origin(at), origin)?;
        converted.insert(name, Node { origin: origin(at), value });
    }
    Ok(Value::Table(converted))
}

fn convert(
    value: DeValue<'_>,
    path: &str,
    here: &Origin,
    origin: &impl Fn(usize) -> Origin,
) -> Result<Value, ConfigError> {
    Ok(match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => return Err(ConfigError::value(here, path, "a whole number beyond 64 bits")),
        },
        DeValue::Float(number) => {
            let problem = format!(
                "numbers with decimals are written as text, such as \"0.031\", not {}",
                number.as_str()
            );
            return Err(ConfigError::value(here, path, &problem));
        }
        DeValue::Datetime(_) => {
            return Err(ConfigError::value(here, path, "instants are written as text"));
        }
        DeValue::Array(items) => {
            let mut list = Vec::new();
            for (index, item) in items.into_iter().enumerate() {
                let at = origin(item.span().start);
                let value = convert(item.into_inner(), &format!("{path}[{index}]"), &at, origin)?;
                list.push(Node { origin: at, value });
            }
            Value::List(list)
        }
        DeValue::Table(table) => convert_table(table, path, origin)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_names_a_key() {
        assert_eq!(key_of_variable("WALRAS_DATA_DIR").as_deref(), Some("data_dir"));
        assert_eq!(key_of_variable("WALRAS_BUS__NATS_URL").as_deref(), Some("bus.nats_url"));
        assert_eq!(
            key_of_variable("WALRAS_MARKET__EXCHANGES__MAIN__RULES__PRICE_RULE").as_deref(),
            Some("market.exchanges.main.rules.price_rule")
        );
        assert_eq!(key_of_variable("HOME"), None);
    }

    #[test]
    fn lines_are_counted_from_one() {
        let node = Node::from_toml(Path::new("w.toml"), "a = 1\n\n[b]\nc = 'x'\n  d = [1,\n 2]\n").unwrap();
        let line = |path: &[&str]| node.origin_of(path).to_string();
        assert_eq!(line(&["a"]), "w.toml:1");
        assert_eq!(line(&["b", "c"]), "w.toml:4");
        assert_eq!(line(&["b", "d"]), "w.toml:5");
        assert_eq!(line(&["b", "missing"]), "default");
    }

    #[test]
    fn an_inline_value_cannot_smuggle_in_a_key() {
        let origin = Origin::Flag { flag: "--set".into() };
        assert!(Node::from_inline(&origin, "[1, 2]").is_ok());
        for bad in ["", "1\nother = 2", "[", "1.5", "[1] other = 2"] {
            assert!(Node::from_inline(&origin, bad).is_err(), "{bad:?}");
        }
    }
}
