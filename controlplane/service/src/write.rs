//! One change, written.

use std::time::Duration;

use controlplane::{Change, Kind, Request};
use kube::Client;
use serde_json::Value;

use crate::figures::Figures;
use crate::reconciler::Work;

/// How long an API server may take for one write.
const WRITE_SECONDS_MAX: u64 = 30;

/// Why a change was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It cannot be made into a request.
    #[error("{verb} of {subject} makes no request")]
    Unsendable {
        /// What was to be done.
        verb: &'static str,
        /// To what.
        subject: String,
        /// Why.
        source: http::Error,
    },
    /// The API server refused it.
    #[error("{verb} of {subject} was refused with {code}: {message}")]
    Refused {
        /// What was to be done.
        verb: &'static str,
        /// To what.
        subject: String,
        /// The HTTP status.
        code: u16,
        /// What the server says.
        message: String,
        /// When to come again, if it says that.
        retry_after: Option<Duration>,
    },
    /// There was no answer; it may have been done.
    #[error("{verb} of {subject} was not answered")]
    Unanswered {
        /// What was to be done.
        verb: &'static str,
        /// To what.
        subject: String,
        /// Why, unless it was time.
        source: Option<Box<kube::Error>>,
    },
}

impl WriteError {
    /// The word for it in metrics.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Refused { code: 409, .. } => "conflict",
            Self::Refused { code: 429, .. } => "later",
            Self::Refused { code: 500.., .. } | Self::Unanswered { .. } => "failed",
            _ => "refused",
        }
    }

    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What became of the writes of one plan.
pub(crate) struct Written {
    pub(crate) work: Work,
    pub(crate) signatures: Vec<String>,
    pub(crate) objects: Vec<(Kind, Value)>,
    pub(crate) error: Option<WriteError>,
}

/// Writes changes one after the other, up to the first that fails.
pub(crate) async fn carry_out(
    client: Client,
    work: Work,
    changes: Vec<Change>,
    said: Vec<Request>,
    figures: Figures,
) -> Written {
    let signatures = changes.iter().map(Change::signature).collect();
    let mut written = Written { work, signatures, objects: Vec::new(), error: None };
    for change in changes {
        match write(&client, &change).await {
            Ok(object) => {
                figures.wrote(&change, Ok(()));
                written.objects.extend(object.map(|object| (change.subject().0, object)));
            }
            Err(error) => {
                figures.wrote(&change, Err(&error));
                written.error = Some(error);
                break;
            }
        }
    }
    for said in said {
        say(&client, said).await;
    }
    written
}

/// Writes a change. What the server says the object is now, if it is still there.
async fn write(client: &Client, change: &Change) -> Result<Option<Value>, WriteError> {
    let (kind, namespace, name) = change.subject();
    let verb = change.verb();
    let subject = || format!("{} {namespace}/{name}", kind.names().3);
    let request = request(change.request()).map_err(|source| WriteError::Unsendable {
        verb,
        subject: subject(),
        source,
    })?;
    let answered =
        tokio::time::timeout(Duration::from_secs(WRITE_SECONDS_MAX), client.request::<Value>(request)).await;
    match answered {
        Err(_) => Err(WriteError::Unanswered { verb, subject: subject(), source: None }),
        Ok(Ok(answer)) => Ok(Some(answer).filter(|answer| is_of(kind, answer))),
        Ok(Err(kube::Error::Api(status))) => {
            // What was to go, or to be sent on, is gone.
            if status.code == 404 && !matches!(change, Change::Apply { .. }) {
                return Ok(None);
            }
            let seconds = status.details.as_ref().map(|details| details.retry_after_seconds);
            Err(WriteError::Refused {
                verb,
                subject: subject(),
                code: status.code,
                message: status.message.clone(),
                retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into())),
            })
        }
        Ok(Err(error)) => {
            Err(WriteError::Unanswered { verb, subject: subject(), source: Some(Box::new(error)) })
        }
    }
}

/// Says something to people. If it is not heard, nothing is lost but that.
async fn say(client: &Client, said: Request) {
    let subject = said.path.clone();
    let Ok(request) = request(said) else { return };
    let answered =
        tokio::time::timeout(Duration::from_secs(WRITE_SECONDS_MAX), client.request::<Value>(request));
    if !matches!(answered.await, Ok(Ok(_))) {
        tracing::debug!(subject, "an announcement was not heard");
    }
}

fn request(request: Request) -> Result<http::Request<Vec<u8>>, http::Error> {
    http::Request::builder()
        .method(request.method)
        .uri(request.path)
        .header(http::header::CONTENT_TYPE, request.content_type)
        .body(request.body.to_string().into_bytes())
}

fn is_of(kind: Kind, answer: &Value) -> bool {
    answer["kind"] == kind.names().2
}
