//! Publishing to the broker: what its answer, or the lack of one, means for the message.

use std::sync::PoisonError;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

use super::broker::{Link, SUBSCRIPTION_MESSAGES_MAX};
use super::error::{BusError, PublishError, Refusal};
use super::{Position, filter};

/// How long a publish waits for its acknowledgement before nobody knows its outcome.
const ACKNOWLEDGEMENT_WAIT_MAX: Duration = Duration::from_secs(5);

/// The broker's answer to a publish.
#[derive(Deserialize)]
struct Acknowledgement {
    error: Option<ApiError>,
    stream: Option<String>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Link {
    pub(super) async fn publish(
        &self,
        subject: &str,
        id: &str,
        headers: &[(&str, &str)],
        payload: Bytes,
    ) -> Result<Position, PublishError> {
        let refused = |reason| PublishError::Refused { subject: subject.to_owned(), reason };
        let ambiguous = |why: String| PublishError::Ambiguous { subject: subject.to_owned(), why };
        if !filter::is_subject(subject) {
            return Err(refused(Refusal::Subject));
        }
        let headers = header_map(id, headers).map_err(refused)?;
        let bytes = payload.len();
        let answer = self.acknowledgement(subject, headers, payload).await?;
        let answer: Acknowledgement = serde_json::from_slice(&answer.payload)
            .map_err(|error| ambiguous(format!("unreadable acknowledgement: {error}")))?;
        match (answer.error, answer.stream, answer.seq) {
            (Some(error), ..) => Err(judge(subject, bytes, error)),
            (None, Some(_), Some(sequence)) if !self.may_see_streams => Ok(Position { created: 0, sequence }),
            (None, Some(stream), Some(sequence)) => {
                // The message is stored; that the stream's creation time could not be read afterwards makes
                // only its position unknown, and a repeat gets it.
                let created = self.created_of(&stream, sequence, answer.duplicate).await;
                created
                    .map(|created| Position { created, sequence })
                    .map_err(|error| ambiguous(error.to_string()))
            }
            _ => Err(ambiguous("the acknowledgement names no stream and sequence".to_owned())),
        }
    }

    /// Sends a publish and waits for what the broker says to it.
    async fn acknowledgement(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<async_nats::Message, PublishError> {
        let refused = |reason| PublishError::Refused { subject: subject.to_owned(), reason };
        let ambiguous = |why: String| PublishError::Ambiguous { subject: subject.to_owned(), why };
        let bytes = payload.len();
        let mut connections = self.connections.clone();
        connections.borrow_and_update();
        // The client's own time-out starts when the request is queued for the connection; the one here also
        // covers a queue that is full because the connection is down.
        let request = self.client.request_with_headers(subject.to_owned(), headers, payload);
        let answer = tokio::select! {
            biased;
            answer = timeout(ACKNOWLEDGEMENT_WAIT_MAX, request) => answer,
            // An acknowledgement that was on its way over the old connection will never come.
            Ok(()) = connections.changed() => return Err(ambiguous("the connection was made anew".to_owned())),
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::MaxPayloadExceeded => refused(Refusal::TooLarge { bytes }),
                RequestErrorKind::InvalidSubject => refused(Refusal::Subject),
                _ => ambiguous(error.to_string()),
            }),
            Err(_) => Err(ambiguous(format!("no acknowledgement within {ACKNOWLEDGEMENT_WAIT_MAX:?}"))),
        }
    }

    /// When `stream` was created, as last seen; looked up again after a reconnect, and when its sequences
    /// went backwards.
    async fn created_of(&self, stream: &str, sequence: u64, duplicate: bool) -> Result<i64, BusError> {
        let connection = *self.connections.borrow();
        let known = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match seen.get_mut(stream) {
                // Acknowledgements of concurrent publishes overtake each other, so only a fall below the
                // span of what can be in flight is a stream that began again.
                Some(entry)
                    if entry.connection == connection
                        && (duplicate
                            || sequence + SUBSCRIPTION_MESSAGES_MAX as u64 > entry.last && sequence > 1) =>
                {
                    entry.last = entry.last.max(sequence);
                    Some(entry.created)
                }
                _ => None,
            }
        };
        match known {
            Some(created) => Ok(created),
            None => Ok(self.stream_state(stream).await?.created),
        }
    }
}

fn header_map(id: &str, headers: &[(&str, &str)]) -> Result<HeaderMap, Refusal> {
    let mut map = HeaderMap::new();
    let id = [("Nats-Msg-Id", id)];
    for (name, value) in headers.iter().chain(id.iter().filter(|(_, id)| !id.is_empty())) {
        let bad = || Refusal::Header { name: (*name).to_owned() };
        let key: async_nats::HeaderName = name.parse().map_err(|_| bad())?;
        let value: HeaderValue = value.parse().map_err(|_| bad())?;
        map.insert(key, value);
    }
    Ok(map)
}

/// Codes of the broker's API that this module tells apart.
mod code {
    /// The message is over the stream's size limit.
    pub(super) const MESSAGE_TOO_LARGE: u64 = 10_054;
    /// The store refused; the words say why.
    pub(super) const STORE_FAILED: u64 = 10_077;
}

/// Whether an error means that the message is not stored (the broker is sure and would say the same again),
/// or that nobody knows.
fn judge(subject: &str, bytes: usize, error: ApiError) -> PublishError {
    let refused = |reason| PublishError::Refused { subject: subject.to_owned(), reason };
    match error.err_code {
        code::MESSAGE_TOO_LARGE => refused(Refusal::TooLarge { bytes }),
        code::STORE_FAILED if error.description.starts_with("maximum ") => {
            refused(Refusal::Full { description: error.description })
        }
        code if error.code == 400 && code != code::STORE_FAILED => {
            refused(Refusal::Broker { code, description: error.description })
        }
        code => PublishError::Ambiguous {
            subject: subject.to_owned(),
            why: format!("{} (code {code})", error.description),
        },
    }
}
