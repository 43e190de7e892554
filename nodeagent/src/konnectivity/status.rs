//! How a gRPC call ended.

use http::HeaderMap;

use super::percent::decoded;

/// Longest message kept of a status, in bytes.
const MESSAGE_BYTES: usize = 1 << 10;

/// The names of gRPC's status codes, by number.
const NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// A gRPC status: a code and what the other side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code's name, as metrics show it.
    pub code: &'static str,
    /// What was said, percent-decoded and cut to a bound.
    pub message: String,
}

impl Status {
    /// The connection broke before there was a status.
    pub(super) fn broken(message: String) -> Status {
        Status { code: "Unavailable", message }
    }

    /// The status in headers or trailers, none if there is none.
    pub(super) fn read(headers: &HeaderMap) -> Option<Status> {
        let number = headers.get("grpc-status")?.to_str().ok()?.parse::<usize>().ok();
        let code = number.and_then(|number| NAMES.get(number)).copied().unwrap_or("Unknown");
        let message = headers.get("grpc-message").map(|message| decoded(message.as_bytes(), MESSAGE_BYTES));
        let message = String::from_utf8_lossy(&message.unwrap_or_default()).into_owned();
        Some(Status { code, message })
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.is_empty() {
            formatter.write_str(self.code)
        } else {
            write!(formatter, "{}: {}", self.code, self.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::Status;

    #[test]
    fn a_status_is_read_whatever_is_in_it() {
        let read = |status: &'static str, message: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static(status));
            headers.insert("grpc-message", HeaderValue::from_static(message));
            Status::read(&headers).map(|status| status.to_string())
        };
        assert_eq!(
            read("2", "lookup failed: 100%25%0a%zz"),
            Some("Unknown: lookup failed: 100%\n%zz".to_owned())
        );
        assert_eq!(read("0", ""), Some("OK".to_owned()));
        assert_eq!(read("99", "%"), Some("Unknown: %".to_owned()));
        assert_eq!(read("x", "%4"), Some("Unknown: %4".to_owned()));
        assert_eq!(Status::read(&HeaderMap::new()), None);
    }
}
