//! What stands in a request's query and path, read strictly, with a problem that names the part that is wrong.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The query of a request.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let error = match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(read)) => return Ok(Self(read)),
            Err(error) => error.body_text(),
        };
        let query = parts.uri.query().unwrap_or_default();
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let pairs = pairs.map(|Query(pairs)| pairs).unwrap_or_default();
        let (field, value, problem) = blame(&error, &pairs).unwrap_or(("query", query, &error));
        Err(Problem::malformed(field, value, problem))
    }
}

/// The pair that an error is about, and what is wrong with it. The extractor's errors end in `name: problem`, or
/// quote the name where the problem is the name itself.
fn blame<'a>(error: &'a str, pairs: &'a [(String, String)]) -> Option<(&'a str, &'a str, &'a str)> {
    pairs.iter().find_map(|(name, value)| {
        let start = error.find(&format!(": {name}: ")).map(|start| start + name.len() + 4);
        let quoted =
            error.find(&format!(" field `{name}`")).and_then(|at| Some(error[..at].rfind(": ")? + 2));
        let problem = start.or(quoted).and_then(|start| error.get(start..))?;
        Some((name.as_str(), value.as_str(), problem))
    })
}

/// The parts of a request's path.
pub(super) struct Parted<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Parted<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = parts.uri.path().to_owned();
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(read)) => Ok(Self(read)),
            Err(rejection) => Err(Problem::malformed("path", &path, &rejection.body_text())),
        }
    }
}

/// How many of something a page holds: what was asked for, within what is allowed.
///
/// # Errors
/// When none or too many are asked for.
pub(super) fn page(asked: Option<usize>, default: usize) -> Result<usize, Problem> {
    let most = market::view::PAGE_MAX;
    match asked {
        None => Ok(default),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => Err(Problem::out_of_range("limit", limit, &format!("a page holds 1 to {most}"))),
    }
}
