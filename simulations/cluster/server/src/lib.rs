//! The simulated management cluster behind HTTP: reads the clock, takes requests, streams watches. It decides nothing.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use cluster::request::Request;
use cluster::watch::Watch;
use cluster::{Answer, Body as Content, Cluster, Control, Settings};
use proto::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The path to which the outside posts what it does to the cluster.
pub const CONTROL_PATH: &str = "/simulation/v1/control";

/// The largest body that is read at all, in bytes; the cluster itself takes less.
const BODY_BYTES_MAX: usize = 4 << 20;

/// How long the driver sleeps at most, so that a clock that was set is noticed.
const NAP_MAX: Duration = Duration::from_secs(1);

/// The cluster, and who is to be told that it changed.
pub struct Shared {
    cluster: Mutex<Cluster>,
    version: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
}

impl Shared {
    /// A cluster that begins now.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            cluster: Mutex::new(Cluster::new(settings, now())),
            version: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        })
    }

    /// The cluster. A reader of a poisoned lock gets the state as it is: each call on it is whole or panics.
    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Does something with the cluster, and tells the watches if it changed.
    pub fn with<T>(&self, act: impl FnOnce(&mut Cluster, Timestamp) -> T) -> T {
        let mut cluster = self.lock();
        let result = act(&mut cluster, now());
        let changes = cluster.changes();
        drop(cluster);
        self.version.send_if_modified(|known| std::mem::replace(known, changes) != changes);
        result
    }

    /// Lets driver and watches end.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Serves the cluster on a socket until it is stopped.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let driver = tokio::spawn(drive(Arc::clone(&shared)));
    let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
    let mut stopping = shared.stopping.subscribe();
    let stopped = async move {
        // The sender lives as long as the cluster.
        let _stopped = stopping.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, app).with_graceful_shutdown(stopped).await;
    driver.abort();
    served
}

/// Lets the controllers act when they want to.
async fn drive(shared: Arc<Shared>) {
    let mut changed = shared.version.subscribe();
    loop {
        let wake_at = shared.with(|cluster, now| {
            cluster.advance(now);
            cluster.wake_at()
        });
        let nap = wake_at.map_or(NAP_MAX, |at| span(at).min(NAP_MAX));
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            _ = changed.changed() => {}
        }
    }
}

/// From now to an instant; a millisecond at least, so that nobody spins.
fn span(at: Timestamp) -> Duration {
    let micros = u64::try_from(at.micros_since(now())).unwrap_or_default();
    Duration::from_micros(micros).max(Duration::from_millis(1))
}

async fn answer(State(shared): State<Arc<Shared>>, request: HttpRequest) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broke off");
    };
    if head.uri.path() == CONTROL_PATH {
        return control(&shared, &body);
    }
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        content_type: text(&head.headers, header::CONTENT_TYPE),
        accept: text(&head.headers, header::ACCEPT),
        user_agent: text(&head.headers, header::USER_AGENT),
        body: body.to_vec(),
    };
    let answer = shared.with(|cluster, now| cluster.handle(now, &request));
    if answer.delay_micros > 0 {
        tokio::time::sleep(Duration::from_micros(answer.delay_micros)).await;
    }
    respond(shared, answer)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn control(shared: &Shared, body: &Bytes) -> Response {
    let control = match serde_json::from_slice::<Control>(body) {
        Ok(control) => control,
        Err(error) => return plain(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match shared.with(|cluster, now| cluster.control(now, control)) {
        Ok(()) => plain(StatusCode::OK, "done"),
        Err(refusal) => plain(StatusCode::NOT_FOUND, &refusal.message),
    }
}

fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    response
}

fn respond(shared: Arc<Shared>, answer: Answer) -> Response {
    let mut content_type = HeaderValue::from_static("application/json");
    let body = match answer.body {
        // A body that fails breaks the connection, as a crash would.
        _ if answer.lost => Body::from_stream(futures::stream::once(async {
            Err::<Bytes, _>(std::io::Error::new(
                std::io::ErrorKind::ConnectionReset,
                "the answer is lost on request",
            ))
        })),
        Content::Json(document) => Body::from(document.to_string()),
        Content::Text(text) => {
            content_type = HeaderValue::from_static("text/plain; version=0.0.4");
            Body::from(text)
        }
        Content::Watch(watch) => Body::from_stream(lines(shared, *watch)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    if let Some(seconds) = answer.retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    for warning in answer.warnings {
        if let Ok(value) = HeaderValue::try_from(format!("299 - {}", Value::from(warning))) {
            headers.append(header::WARNING, value);
        }
    }
    response
}

/// A watch as a stream of lines, each piece what came since the last.
fn lines(shared: Arc<Shared>, watch: Watch) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
    let (changed, stopping) = (shared.version.subscribe(), shared.stopping.subscribe());
    futures::stream::unfold(
        (shared, watch, changed, stopping),
        |(shared, mut watch, mut changed, mut stopping)| async {
            loop {
                if watch.ended() || *stopping.borrow() {
                    return None;
                }
                changed.mark_unchanged();
                let told = shared.with(|cluster, now| cluster.watch(now, &mut watch));
                if !told.is_empty() {
                    let mut written = Vec::new();
                    for line in told {
                        written.extend(line.to_string().into_bytes());
                        written.push(b'\n');
                    }
                    return Some((Ok(Bytes::from(written)), (shared, watch, changed, stopping)));
                }
                if watch.ended() {
                    return None;
                }
                tokio::select! {
                    () = tokio::time::sleep(span(watch.wake_at())) => {}
                    _ = changed.changed() => {}
                    _ = stopping.changed() => {}
                }
            }
        },
    )
}
