//! The HTTP server of health and metrics.

use std::future::Future;
use std::io;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use super::bounded::BoundedListener;
use super::health::Health;
use crate::telemetry::Meter;

/// Connections open at once: some probes, a few Prometheus servers, a person.
pub const CONNECTIONS_MAX: usize = 64;
/// The text format that every Prometheus reads.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Shown {
    health: Health,
    meter: Meter,
}

/// The routes, for a server that has others beside them.
pub fn router(health: Health, meter: Meter) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics))
        .with_state(Shown { health, meter })
}

/// Serves the routes until `stop` is done and open requests are answered.
///
/// # Errors
/// What the operating system says of the listener.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    meter: Meter,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = BoundedListener::new(listener, CONNECTIONS_MAX);
    axum::serve(listener, router(health, meter)).with_graceful_shutdown(stop).await
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn livez(State(shown): State<Shown>) -> Response {
    let pulses = shown.health.pulses();
    let live = pulses.iter().all(|pulse| pulse.alive);
    (status(live), Json(json!({ "live": live, "loops": pulses }))).into_response()
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let ready = shown.health.is_ready();
    let body = json!({
        "ready": ready,
        "stopping": shown.health.is_stopping(),
        "conditions": shown.health.conditions(),
    });
    (status(ready), Json(body)).into_response()
}

async fn startupz(State(shown): State<Shown>) -> Response {
    let started = shown.health.has_started();
    let body = json!({ "started": started, "conditions": shown.health.conditions() });
    (status(started), Json(body)).into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match shown.meter.text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written; see the log\n").into_response()
        }
    }
}
