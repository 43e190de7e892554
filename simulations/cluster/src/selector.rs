//! Label selectors and field selectors.

use serde_json::Value;

use crate::json::{at, items, text};
use crate::status::Refusal;

/// One condition on a text that may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Among these.
    In(Vec<String>),
    /// Not among these, or missing.
    NotIn(Vec<String>),
    /// There.
    Exists,
    /// Missing.
    Missing,
    /// A whole number above.
    Above(i64),
    /// A whole number below.
    Below(i64),
}

impl Test {
    fn of_operator(operator: &str, values: Vec<String>) -> Option<Self> {
        let number = values.first().and_then(|value| value.parse().ok());
        match operator {
            "In" => Some(Self::In(values)),
            "NotIn" => Some(Self::NotIn(values)),
            "Exists" => Some(Self::Exists),
            "DoesNotExist" => Some(Self::Missing),
            "Gt" => number.map(Self::Above),
            "Lt" => number.map(Self::Below),
            _ => None,
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
            Self::Above(bound) => number().is_some_and(|number| number > *bound),
            Self::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// Conditions that must all hold, each on a label or on a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<(String, Test)>);

impl Selector {
    /// Reads `a=b,c!=d,e in (f,g),!h`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn parse(written: &str) -> Result<Self, Refusal> {
        let mut tests = Vec::new();
        for part in split_outside_brackets(written) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            tests.push(
                one(part)
                    .ok_or_else(|| Refusal::bad_request(format!("unable to parse requirement: {part:?}")))?,
            );
        }
        Ok(Self(tests))
    }

    /// A selector object: `matchLabels` and `matchExpressions`.
    pub fn of_object(selector: &Value) -> Self {
        let labels = at(selector, "matchLabels").as_object().into_iter().flatten();
        let labels = labels.map(|(name, value)| {
            (name.clone(), Test::In(vec![value.as_str().unwrap_or_default().to_owned()]))
        });
        Self(labels.chain(expressions(items(selector, "matchExpressions"))).collect())
    }

    /// Expressions of a term: `key`, `operator`, `values`.
    pub fn of_expressions(written: &[Value]) -> Self {
        Self(expressions(written).collect())
    }

    /// Another condition: the label has this value.
    pub fn and(&mut self, label: &str, value: &str) {
        self.0.push((label.to_owned(), Test::In(vec![value.to_owned()])));
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object's labels fulfil it.
    pub fn selects(&self, object: &Value) -> bool {
        let labels = at(object, "metadata.labels");
        self.0.iter().all(|(name, test)| test.holds(labels.get(name).and_then(Value::as_str)))
    }

    /// Whether an object's fields fulfil it. A field that is not there counts as empty.
    pub fn selects_fields(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, test)| {
            let value = match at(object, path) {
                Value::String(text) => text.clone(),
                Value::Null if path == "spec.unschedulable" => "false".to_owned(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            test.holds(Some(&value))
        })
    }
}

/// Whether a host fulfils the terms of a required affinity: one of them, with all that it says.
pub fn node_matches(terms: &[Value], node: &Value) -> bool {
    terms.iter().any(|term| node_matches_term(term, node))
}

/// Whether a host fulfils one term; an empty term is fulfilled by none.
pub fn node_matches_term(term: &Value, node: &Value) -> bool {
    let labels = Selector::of_expressions(items(term, "matchExpressions"));
    let fields = Selector::of_expressions(items(term, "matchFields"));
    !(labels.is_empty() && fields.is_empty()) && labels.selects(node) && fields.selects_fields(node)
}

fn expressions(written: &[Value]) -> impl Iterator<Item = (String, Test)> + '_ {
    written.iter().filter_map(|one| {
        let values =
            items(one, "values").iter().filter_map(|value| Some(value.as_str()?.to_owned())).collect();
        Some((text(one, "key").to_owned(), Test::of_operator(text(one, "operator"), values)?))
    })
}

fn split_outside_brackets(written: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (place, letter) in written.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&written[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&written[start..]);
    parts
}

fn one(part: &str) -> Option<(String, Test)> {
    let pair = |name: &str, value: &str| (name.trim().to_owned(), vec![value.trim().to_owned()]);
    if let Some((name, value)) = part.split_once("!=") {
        let (name, values) = pair(name, value);
        return Some((name, Test::NotIn(values)));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        let (name, values) = pair(name, value);
        return Some((name, Test::In(values)));
    }
    if let Some(name) = part.strip_prefix('!') {
        return Some((name.trim().to_owned(), Test::Missing));
    }
    let Some((head, values)) = part.split_once('(') else {
        return (!part.contains(' ')).then(|| (part.to_owned(), Test::Exists));
    };
    let values = values.strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
    match head.split_whitespace().collect::<Vec<_>>()[..] {
        [name, "in"] => Some((name.to_owned(), Test::In(values))),
        [name, "notin"] => Some((name.to_owned(), Test::NotIn(values))),
        _ => None,
    }
}
