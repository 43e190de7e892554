//! Saying what is wrong with a command that cannot be read.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::fields::{Fields, at_path};
use super::wording::plain;
use crate::envelope::{Refusal, RefusalReason, Refused};
use crate::id::shorten;

/// Stands for the value of a field that is not there.
const NOTHING: &str = "nothing";

/// Says which field is wrong and what stood there; what is no field's fault is that of `whole`.
pub(super) fn explain<C: DeserializeOwned>(raw: &RawValue, whole: &str) -> Refused {
    let fields = Fields::of(raw);
    let text = |name: &str| fields.as_ref().and_then(|fields| fields.text(name));
    let id = text("id").and_then(|id| id.parse().ok());
    let tenant = text("tenant").and_then(|tenant| tenant.parse().ok());
    // Only what is read in one pass has its path tracked, and that is what has its type in front.
    let ordered = fields.as_ref().map(|fields| fields.with_first("type"));
    let (path, problem) = read::<C>(ordered.as_deref().unwrap_or_default())
        .or_else(|| read::<C>(raw.get()))
        .unwrap_or_else(|| (String::new(), "cannot be read".to_owned()));
    let path = place(path, &problem);
    let found = match at_path(raw, &path) {
        Some(value) => value.get(),
        None if problem.starts_with(MISSING) => NOTHING,
        None => raw.get(),
    };
    let field = if path.is_empty() { whole } else { &path };
    let refusal = Refusal::new(RefusalReason::Malformed, &shorten(field), found, &plain(&problem));
    Refused { id, tenant, sequence: None, refusal }
}

/// Where reading fails and why; `None` where it does not.
fn read<C: DeserializeOwned>(text: &str) -> Option<(String, String)> {
    let error =
        serde_path_to_error::deserialize::<_, C>(&mut serde_json::Deserializer::from_str(text)).err()?;
    let path = error.path().to_string();
    Some((if path == "." { String::new() } else { path }, error.inner().to_string()))
}

const MISSING: &str = "missing field `";
const DUPLICATE: &str = "duplicate field `";
const UNKNOWN_KIND: &str = "unknown variant `";

/// The path of the field at fault: the tracked path ends at the object when a field is missing or stands twice,
/// and at the root when the type is one nobody has.
fn place(path: String, problem: &str) -> String {
    if path.is_empty() && problem.starts_with(UNKNOWN_KIND) {
        return "type".to_owned();
    }
    let named = [MISSING, DUPLICATE].into_iter().find_map(|start| problem.strip_prefix(start));
    let Some(name) = named.and_then(|rest| rest.split('`').next()) else {
        return path;
    };
    let tail = path.rsplit('.').next().unwrap_or_default();
    match path.as_str() {
        "" => name.to_owned(),
        _ if tail == name => path,
        _ => format!("{path}.{name}"),
    }
}
