//! One request to an API server.

use std::time::Duration;

use kube::Client;
use serde_json::Value;

/// How long an API server may take for one answer.
const ASK_SECONDS_MAX: u64 = 15;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// It cannot be made.
    #[error("{method} {path} makes no request")]
    Unsendable { method: &'static str, path: String, source: http::Error },
    /// The server refuses it.
    #[error("{method} {path} was refused with {code}: {message}")]
    Refused { method: &'static str, path: String, code: u16, message: String },
    /// There was no answer; it may have been done.
    #[error("{method} {path} was not answered")]
    Unanswered { method: &'static str, path: String, source: Option<Box<kube::Error>> },
}

impl AskError {
    /// The HTTP status, if the server answered.
    pub(crate) const fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Asks once. What is not there is none.
///
/// # Errors
/// [`AskError`].
pub(crate) async fn ask(
    client: &Client,
    method: &'static str,
    path: &str,
    body: Option<&Value>,
) -> Result<Option<Value>, AskError> {
    let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(bytes)
        .map_err(|source| AskError::Unsendable { method, path: path.to_owned(), source })?;
    let answered =
        tokio::time::timeout(Duration::from_secs(ASK_SECONDS_MAX), client.request::<Value>(request)).await;
    match answered {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Ok(Err(kube::Error::Api(status))) => Err(AskError::Refused {
            method,
            path: path.to_owned(),
            code: status.code,
            message: status.message.clone(),
        }),
        Ok(Err(error)) => {
            Err(AskError::Unanswered { method, path: path.to_owned(), source: Some(Box::new(error)) })
        }
        Err(_) => Err(AskError::Unanswered { method, path: path.to_owned(), source: None }),
    }
}

/// A text at a place in a document; empty where there is none.
pub(crate) fn text<'a>(document: &'a Value, pointer: &str) -> &'a str {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
