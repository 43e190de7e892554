//! Request bodies: JSON, read strictly, and a problem that names the field when they are not right.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use proto::envelope::{Refusal, RefusalReason};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::problem::Problem;

/// A JSON body. An empty one is read as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if let Some(kind) = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes)
            && !is_json(kind)
        {
            return Err(Problem::unsupported_media_type(&String::from_utf8_lossy(kind)));
        }
        let announced = request.headers().get(header::CONTENT_LENGTH).cloned();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let (status, text) = (rejection.status(), rejection.body_text());
            if status == StatusCode::PAYLOAD_TOO_LARGE {
                let bytes = announced.as_ref().and_then(|bytes| bytes.to_str().ok()).unwrap_or("more");
                return Refusal::new(RefusalReason::TooLarge, "body", bytes, "has too many bytes").into();
            }
            Problem::malformed("body", "", &text)
        })?;
        read(&bytes).map(Self)
    }
}

/// Whether a content type is JSON, whatever its parameters. Who names none is taken to send JSON.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/json")
        || (essence.starts_with(b"application/") && essence.ends_with(b"+json"))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(raw) => proto::decode::fault::<T>(raw, "body").into(),
        Err(_) => Problem::malformed("body", &String::from_utf8_lossy(bytes), &error.to_string()),
    })
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
            ("\"cluster\":\"c\",", "", "cluster", "nothing"),
            ("\"pool\"", "\"tenant\":\"other\",\"pool\"", "tenant", "\"other\""),
        ] {
            let problem = read::<PlaceRequest>(BID.replace(from, to).as_bytes()).unwrap_err();
            let named = problem.field.as_deref() == Some(field) && problem.value.as_deref() == Some(value);
            assert!(named, "{problem:?}");
        }
        for bad in ["[", "[]", "7", "{}", "\u{0}"] {
            assert_eq!(read::<PlaceRequest>(bad.as_bytes()).unwrap_err().status, 400, "{bad:?}");
        }
    }

    #[test]
    fn only_json_is_json() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in ["", "text/json", "application/x-www-form-urlencoded", "application/jsonp", "json"] {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
    }
}
