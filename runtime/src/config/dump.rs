//! Prints the configuration in force as TOML, each value with where it came from.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::layers::{Node, Origin};
use super::{Config, ConfigError};

/// The configuration as TOML. Secrets are masked because that is how they serialise.
pub(super) fn dump(config: &Config, layers: &Node) -> Result<String, ConfigError> {
    let refused = |source| ConfigError::Dump { source };
    let Value::Object(root) = serde_json::to_value(config).map_err(refused)? else {
        return Ok(String::new());
    };
    let mut out = String::new();
    table(&mut out, &mut Vec::new(), &root, layers);
    Ok(out)
}

fn table<'a>(out: &mut String, path: &mut Vec<&'a str>, map: &'a Map<String, Value>, layers: &Node) {
    // What TOML wants first: a table's own values, then the tables within it.
    for (key, value) in map {
        path.push(key);
        let origin = layers.origin_of(path);
        match value {
            Value::Object(_) => {}
            Value::Null => line(out, &format!("# {} =", quoted_key(key)), "not set"),
            Value::Array(items) if items.iter().any(Value::is_object) => {}
            plain => line(out, &format!("{} = {}", quoted_key(key), inline(plain)), &origin.to_string()),
        }
        path.pop();
    }
    for (key, value) in map {
        path.push(key);
        let name = path.iter().map(|part| quoted_key(part)).collect::<Vec<_>>().join(".");
        match value {
            Value::Object(inner) => {
                // A table that only holds tables needs no line of its own.
                if inner.is_empty() || inner.values().any(|value| !value.is_object()) {
                    let _ = write!(out, "\n[{name}]\n");
                }
                table(out, path, inner, layers);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let origin = layers.origin_of(path);
                for item in items {
                    entry(out, &name, item, &origin);
                }
            }
            _ => {}
        }
        path.pop();
    }
}

/// One entry of a list of tables; what is within it is written inline.
fn entry(out: &mut String, name: &str, item: &Value, origin: &Origin) {
    let _ = write!(out, "\n[[{name}]]  # {origin}\n");
    if let Value::Object(fields) = item {
        for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let _ = writeln!(out, "{} = {}", quoted_key(key), inline(value));
        }
    }
}

fn line(out: &mut String, text: &str, origin: &str) {
    let _ = writeln!(out, "{text}  # {origin}");
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(key, value)| format!("{} = {}", quoted_key(key), inline(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_key(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { quoted(key) }
}
