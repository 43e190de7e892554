//! Problem details (RFC 9457): every refusal of the HTTP API has this one shape.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proto::envelope::{Refusal, RefusalReason, Refused};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What kind of problem it is, as a relative reference such as `/problems/off-ladder`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time, in one line that names field and value.
    pub detail: String,
    /// The field of the request that is wrong, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The value that stood there, shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Seconds after which another try makes sense, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl Problem {
    /// A problem that is no field's fault.
    pub fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            value: None,
            retry_after_seconds: None,
        }
    }

    /// No token, or one that is nobody's.
    pub fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "Who are you?",
            "send a tenant's token as `Authorization: Bearer …`",
        )
    }

    /// Something that is not there, or is somebody else's.
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown", "Not found", format!("{what}: there is no {name}"))
            .about(what, name)
    }

    /// A request that cannot be read.
    pub fn malformed(field: &str, value: &str, problem: &str) -> Self {
        Refusal::new(RefusalReason::Malformed, field, value, problem).into()
    }

    /// More requests than the tenant may make.
    pub fn too_many(retry_after_seconds: u64) -> Self {
        let detail = format!("too many requests: try again in {retry_after_seconds} s");
        let mut problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail);
        problem.retry_after_seconds = Some(retry_after_seconds);
        problem
    }

    /// The command may or may not have arrived: the same id asked again tells.
    pub fn outcome_unknown(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "outcome-unknown",
            "Outcome unknown: repeat with the same id",
            detail,
        );
        problem.retry_after_seconds = Some(1);
        problem
    }

    /// A read that was to wait for more than the exchange has got to in time.
    pub fn behind(sequence: u64) -> Self {
        let detail = format!("wait_for: the exchange has not got to {sequence} yet: read again");
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "behind", "Not that far yet", detail)
            .about("wait_for", &sequence.to_string());
        problem.retry_after_seconds = Some(1);
        problem
    }

    /// A read that nobody answered in time.
    pub fn unanswered(detail: &str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut problem = Self::new(status, "unanswered", "No answer in time", detail);
        problem.retry_after_seconds = Some(1);
        problem
    }

    /// A number that may not be.
    pub fn out_of_range(field: &str, value: impl std::fmt::Display, problem: &str) -> Self {
        Refusal::new(RefusalReason::OutOfRange, field, value, problem).into()
    }

    /// A body that is no JSON.
    pub fn unsupported_media_type(content_type: &str) -> Self {
        let detail = format!(
            "content-type: {} is not read here, send application/json",
            proto::id::shorten(content_type)
        );
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, "media-type", "Unsupported media type", detail).about("content-type", content_type)
    }

    /// Names the field and value that the problem is about.
    #[must_use]
    pub fn about(mut self, field: &str, value: &str) -> Self {
        self.field = Some(field.to_owned());
        self.value = Some(proto::id::shorten(value));
        self
    }
}

/// Status and title of a refusal.
const fn status_of(reason: RefusalReason) -> (StatusCode, &'static str, &'static str) {
    match reason {
        RefusalReason::Malformed => (StatusCode::BAD_REQUEST, "malformed", "Cannot be read"),
        RefusalReason::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large"),
        RefusalReason::IdReused => (StatusCode::CONFLICT, "id-reused", "The id was used for something else"),
        RefusalReason::NotAllowed => (StatusCode::FORBIDDEN, "not-allowed", "Not allowed"),
        RefusalReason::Unknown => (StatusCode::NOT_FOUND, "unknown", "Not found"),
        RefusalReason::Ended => (StatusCode::CONFLICT, "ended", "Has ended"),
        RefusalReason::Stale => (StatusCode::CONFLICT, "stale", "Older than what is known"),
        RefusalReason::OutOfRange => (StatusCode::UNPROCESSABLE_ENTITY, "out-of-range", "Out of range"),
        RefusalReason::OffLadder => (StatusCode::UNPROCESSABLE_ENTITY, "off-ladder", "Not on the ladder"),
        RefusalReason::BelowReserve => {
            (StatusCode::UNPROCESSABLE_ENTITY, "below-reserve", "Below the reserve")
        }
        RefusalReason::Duplicate => (StatusCode::UNPROCESSABLE_ENTITY, "duplicate", "Stands twice"),
        RefusalReason::LimitReached => (StatusCode::TOO_MANY_REQUESTS, "limit-reached", "Limit reached"),
        RefusalReason::Unsupported => (StatusCode::NOT_IMPLEMENTED, "unsupported", "Not supported yet"),
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, kind, title) = status_of(refusal.reason);
        Self::new(status, kind, title, refusal.message).about(&refusal.field, &refusal.value)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        refused.refusal.into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after_seconds.map(HeaderValue::from);
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
