//! The gateway: the HTTP API for tenants, its OpenAPI document, live events, and the web console.
//!
//! It decides nothing: commands go to the market and to placement under the tenant that the token names, reads come
//! from a view that follows the market's events, and from who runs a site.

#![allow(clippy::result_large_err, reason = "a problem is the answer itself, made once for a request")]

mod asked;
pub mod bids;
mod body;
pub mod clusters;
pub mod cursor;
mod desk;
pub mod familiar;
mod identity;
pub mod kubeconfigs;
mod leases;
pub mod live;
pub mod markets;
mod mirror;
pub mod openapi;
pub mod problem;
mod quotes;
mod recent;
mod sites;
mod strangers;
mod tellers;
mod transcripts;
mod waiting;
pub mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use axum::{Json, Router};
use proto::{CommandId, MarketId};
use runtime::telemetry::{Meter, MeterError, metrics};
use tokio::sync::Semaphore;

pub use desk::Desk;
pub use identity::{Identity, TokenHash, hash_token};
pub(crate) use mirror::open_at_end;
use problem::Problem;
pub use strangers::{Peer, Strangers};

/// What every request can use.
pub struct Gateway {
    /// Who asks.
    pub identity: Identity,
    /// What addresses may ask that are no tenant's.
    pub strangers: Strangers,
    /// The market.
    pub desk: Desk,
    /// What one server of a market has, in words, where the catalogue says so.
    pub resources: BTreeMap<MarketId, String>,
    /// Differs from start to start, so that made-up ids never meet again.
    pub unique: String,
    /// How many ids were made up.
    pub made_up: AtomicU64,
    /// Counts requests.
    pub metrics: Metrics,
    /// Requests worked on at once.
    pub in_flight: Arc<Semaphore>,
    /// Whether webhooks may point into private networks: for development.
    pub may_point_private: bool,
    /// Event streams open at once.
    pub streams: Arc<Semaphore>,
}

impl Gateway {
    /// Limits requests without a tenant's token by their address; a tenant's are limited where its token is read.
    fn admit_stranger(&self, request: &Request) -> Result<(), Problem> {
        match request.extensions().get::<ConnectInfo<Peer>>() {
            Some(&ConnectInfo(peer)) if self.identity.tenant(request.headers()).is_none() => {
                self.strangers.admit(peer)
            }
            _ => Ok(()),
        }
    }

    /// An id for a command whose sender named none.
    fn made_up_id(&self) -> CommandId {
        let number = self.made_up.fetch_add(1, Ordering::Relaxed);
        let text = format!("g-{}-{number}", self.unique);
        // `unique` is made of letters, digits and dashes, and is short.
        text.parse().unwrap_or_else(|error| unreachable!("{text}: {error}"))
    }
}

/// The gateway's own figures.
pub struct Metrics {
    requests: prometheus::IntCounterVec,
    seconds: prometheus::HistogramVec,
    rate_limited: prometheus::IntCounter,
    streams_open: prometheus::IntGauge,
    bodies_refused: prometheus::IntCounter,
}

impl Metrics {
    /// The figures, as the meter of the service `gateway` hands them out.
    ///
    /// # Errors
    /// When one is declared otherwise.
    pub fn new(meter: &Meter) -> Result<Self, MeterError> {
        Ok(Self {
            requests: meter.counters(&metrics::REQUESTS)?,
            seconds: meter.histograms(&metrics::REQUEST_DURATION)?,
            rate_limited: meter.counter(&metrics::RATE_LIMITED)?,
            streams_open: meter.gauge(&metrics::STREAMS_OPEN)?,
            bodies_refused: meter.counter(&metrics::BODY_REFUSED)?,
        })
    }
}

/// The routes of the gateway.
pub fn router(gateway: Arc<Gateway>, body_bytes_max: usize) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("console.html")) }))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
        .route("/v1/bids", post(bids::place).get(bids::list))
        .route("/v1/bids/{id}", patch(bids::amend).delete(bids::cancel).get(bids::show))
        .route("/v1/bids/{id}/acknowledge", post(bids::acknowledge))
        .route("/v1/bids/{id}/why", get(bids::why))
        .route("/v1/bids/{id}/salts", get(transcripts::salts))
        .route("/v1/clusters", post(clusters::create).get(clusters::list))
        .route("/v1/clusters/{cluster}", patch(clusters::change).delete(clusters::delete).get(clusters::show))
        .route("/v1/clusters/{cluster}/kubeconfig", get(kubeconfigs::show))
        .route("/v1/clusters/{cluster}/wake", post(clusters::wake))
        .route("/v1/transcripts/{exchange}", get(transcripts::records))
        .route("/v1/leases", get(leases::list))
        .route("/v1/leases/{lease}", get(leases::show))
        .route("/v1/bills/{month}", get(leases::bill))
        .route("/v1/quotes", get(quotes::show))
        .route("/v1/webhooks", get(webhooks::list))
        .route("/v1/webhooks/{webhook}", put(webhooks::set).delete(webhooks::remove))
        .route("/v1/webhooks/{webhook}/secret", get(webhooks::secret))
        .route("/v1/deliveries", get(webhooks::deliveries))
        .route("/v1/deliveries/{delivery}/again", post(webhooks::again))
        .route("/v1/markets", get(markets::list))
        .route("/v1/markets/{region}/{class}", get(markets::show))
        .route("/v1/markets/{region}/{class}/history", get(markets::history))
        .route("/v1/events", get(live::events))
        .route("/history/{class}", get(familiar::history))
        .route("/percentiles.json", get(familiar::percentiles))
        .fallback(|request: Request| async move { Problem::not_found("path", request.uri().path()) })
        .method_not_allowed_fallback(|request: Request| async move {
            let method = request.method().as_str();
            let detail = format!("method: {method} is not answered here");
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "Method not allowed", detail)
                .about("method", method)
        })
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), observe))
        .with_state(gateway)
}

/// Counts the request, and says that nothing here is to be framed, sniffed or cached.
async fn observe(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let started = std::time::Instant::now();
    let path = request.extensions().get::<axum::extract::MatchedPath>().cloned();
    let route = format!("{} {}", request.method(), path.as_ref().map_or("other", |path| path.as_str()));
    let mut response = match (gateway.in_flight.try_acquire(), gateway.admit_stranger(&request)) {
        (Ok(_one), Ok(())) => next.run(request).await.into_response(),
        (Err(_), _) => Problem::too_many(1).into_response(),
        (_, Err(problem)) => problem.into_response(),
    };
    let status = response.status();
    match status {
        StatusCode::TOO_MANY_REQUESTS => gateway.metrics.rate_limited.inc(),
        StatusCode::PAYLOAD_TOO_LARGE => gateway.metrics.bodies_refused.inc(),
        _ => {}
    }
    gateway.metrics.requests.with_label_values(&[&*route, status.as_str()]).inc();
    gateway.metrics.seconds.with_label_values(&[&*route]).observe(started.elapsed().as_secs_f64());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"),
    );
    response
}
