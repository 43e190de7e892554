//! What a request asks for: its path, query and headers, read.

use std::collections::BTreeMap;

use proto::Timestamp;
use serde_json::Value;

use crate::kind::{self, Kind, Part};
use crate::selector::Selector;
use crate::status::Refusal;
use crate::store::Key;

/// An HTTP request, as the shell took it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Method in capitals.
    pub method: String,
    /// Path, percent-encoded as it came.
    pub path: String,
    /// Query without the question mark, as it came.
    pub query: String,
    /// Header of that name, empty if missing.
    pub content_type: String,
    /// Header of that name, empty if missing.
    pub accept: String,
    /// Header of that name, empty if missing.
    pub user_agent: String,
    /// Body.
    pub body: Vec<u8>,
}

/// Which objects, or which part of one.
#[derive(Clone, Debug)]
pub struct Target {
    /// Their kind.
    pub kind: &'static Kind,
    /// Their namespace; none is all of them, or that the kind has none.
    pub namespace: Option<String>,
    /// The name, empty for a collection.
    pub name: String,
    /// The subresource.
    pub part: Option<Part>,
}

impl Target {
    /// Where the object stands.
    pub fn key(&self) -> Key {
        Key::new(self.kind.plural, self.namespace.as_deref().unwrap_or_default(), &self.name)
    }
}

/// How an answer is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The objects.
    Objects,
    /// A table, with whole objects beside the cells or only their metadata.
    Table {
        /// Whole objects.
        whole: bool,
    },
    /// Only metadata.
    Metadata,
}

/// A request's query.
#[derive(Clone, Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query.
    pub fn parse(written: &str) -> Self {
        let pairs = written.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decoded(name, true), decoded(value, true))).collect())
    }

    /// The value of a name, empty if missing.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether a name has the value true.
    pub fn truth(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    /// The number of a name, none if missing.
    ///
    /// # Errors
    /// When it is no whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.text(name) {
            "" => Ok(None),
            written => match written.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => {
                    Err(Refusal::bad_request(format!("invalid {name} {written:?}: not a whole number")))
                }
            },
        }
    }

    /// The label selector and the field selector.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn selectors(&self) -> Result<(Selector, Selector), Refusal> {
        Ok((Selector::parse(self.text("labelSelector"))?, Selector::parse(self.text("fieldSelector"))?))
    }
}

impl Request {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value, Refusal> {
        if let Some(read) = crate::protobuf::read(&self.body) {
            return Ok(read);
        }
        if self.content_type.contains("protobuf") || self.content_type.contains("cbor") {
            let why = format!("only JSON is read here, this is {}", self.content_type);
            return Err(Refusal::new(415, "UnsupportedMediaType", why));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            Refusal::bad_request(format!("the body must be JSON ({}): {error}", self.content_type))
        })
    }

    /// The steps of the path.
    pub fn steps(&self) -> Vec<String> {
        self.path.split('/').filter(|step| !step.is_empty()).map(|step| decoded(step, false)).collect()
    }

    /// How the answer is to look: the first of the accepted forms that there is here.
    pub fn format(&self, query: &Query) -> Format {
        for accepted in self.accept.split(',') {
            if accepted.contains("as=Table") {
                return Format::Table { whole: query.text("includeObject") == "Object" };
            }
            if accepted.contains("as=PartialObjectMetadata") {
                return Format::Metadata;
            }
            if accepted.trim() == "application/json" {
                break;
            }
        }
        Format::Objects
    }

    /// The field manager: the one named, else the program that asks.
    pub fn manager<'a>(&'a self, query: &'a Query) -> &'a str {
        match query.text("fieldManager") {
            "" => match self.user_agent.split('/').next() {
                Some("") | None => "unknown",
                Some(program) => program,
            },
            named => named,
        }
    }
}

/// The target that the steps after the version name.
///
/// # Errors
/// When there is no such resource.
pub fn target(group: &str, version: &str, steps: &[String]) -> Result<Target, Refusal> {
    let nothing = || Refusal::new(404, "NotFound", "the server could not find the requested resource");
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let (namespace, steps) = match steps[..] {
        ["namespaces", name, part @ ("status" | "finalize")] => (None, vec!["namespaces", name, part]),
        ["namespaces", namespace, _, ..] => (Some(namespace.to_owned()), steps[2..].to_vec()),
        _ => (None, steps),
    };
    let plural = steps.first().copied().ok_or_else(nothing)?;
    let kind = kind::find(plural).filter(|kind| kind.group == group && kind.version == version);
    let kind = kind.filter(|kind| kind.namespaced || namespace.is_none()).ok_or_else(nothing)?;
    let name = steps.get(1).copied().unwrap_or_default().to_owned();
    let part = match steps.get(2) {
        Some(part) => Some(kind.part(part).ok_or_else(nothing)?),
        None => None,
    };
    if steps.len() > 3 || (kind.namespaced && namespace.is_none() && !name.is_empty()) {
        return Err(nothing());
    }
    Ok(Target { kind, namespace, name, part })
}

/// Percent-decoded text; what cannot be decoded stays as it is.
fn decoded(written: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                bytes.push((hex(*high).unwrap_or_default() * 16 + hex(*low).unwrap_or_default()) as u8);
                rest = tail;
                continue;
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// When a watch ends that says no time, in seconds.
const WATCH_SECONDS_DEFAULT: u64 = 1_800;
/// The longest that a watch may ask for, in seconds.
const WATCH_SECONDS_MAX: u64 = 86_400;

/// When a watch that begins now is to end.
///
/// # Errors
/// When the time asked for is no number.
pub fn watch_until(query: &Query, now: Timestamp) -> Result<Timestamp, Refusal> {
    let seconds = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    Ok(now.plus_seconds(seconds.unwrap_or(WATCH_SECONDS_DEFAULT).min(WATCH_SECONDS_MAX) as u32))
}
