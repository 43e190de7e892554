//! Request bodies: JSON, read strictly, and a problem that names the field when they are not right.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;

/// A JSON body. An empty one is read as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let status = rejection.status();
            let (kind, title) = if status == StatusCode::PAYLOAD_TOO_LARGE {
                ("too-large", "Too large")
            } else {
                ("malformed", "Cannot be read")
            };
            Problem::new(status, kind, title, format!("body: {}", rejection.body_text())).into_response()
        })?;
        read(&bytes).map(Self).map_err(IntoResponse::into_response)
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize::<_, T>(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.inner().to_string();
        let value = serde_json::from_slice::<Value>(bytes).ok().and_then(|value| at(&value, &path));
        let field = if path == "." { "body".to_owned() } else { path };
        let value = value.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned());
        Problem::malformed(&field, &value, problem.split(" at line ").next().unwrap_or_default())
    })
}

fn at(value: &Value, path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split(['.', '[', ']']).filter(|part| !part.is_empty()).collect();
    value.pointer(&format!("/{}", parts.join("/"))).map(Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::super::bids::PlaceRequest;
    use super::*;

    const BID: &str =
        r#"{"cluster":"c","pool":"p","quantity":2,"options":[{"market":"dfw/gp.large","limit":"0.030"}]}"#;

    #[test]
    fn a_wrong_body_names_the_field_and_the_value() {
        assert!(read::<PlaceRequest>(BID.as_bytes()).is_ok());
        for (from, to, field, value) in [
            ("\"0.030\"", "0.03", "options[0].limit", "0.03"),
            ("\"quantity\":2", "\"quantity\":-2", "quantity", "-2"),
            ("\"cluster\":\"c\"", "\"cluster\":\"c d\"", "cluster", "\"c d\""),
        ] {
            let problem = read::<PlaceRequest>(BID.replace(from, to).as_bytes()).unwrap_err();
            let named = problem.field.as_deref() == Some(field) && problem.value.as_deref() == Some(value);
            assert!(named, "{problem:?}");
        }
        for bad in ["[", "[]", "7", "{}", "\u{0}"] {
            assert_eq!(read::<PlaceRequest>(bad.as_bytes()).unwrap_err().status, 400, "{bad:?}");
        }
        let tenant_in_body = BID.replace("\"pool\"", "\"tenant\":\"other\",\"pool\"");
        assert!(read::<PlaceRequest>(tenant_in_body.as_bytes()).is_err());
    }
}
