//! `/v1/events`: server-sent events: every market's reports, and what happens to the tenant's own bids.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream;
use market::view::Told;
use proto::TenantId;
use proto::market::Answer;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Gateway;
use super::problem::Problem;

/// Events that may wait for a slow reader; past that its connection is closed, and it starts anew.
const EVENTS_WAITING_MAX: usize = 1_024;
/// A comment is sent this often, so that proxies keep a quiet connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /v1/events`: without a token, what is public.
pub(super) async fn events(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let tenant = if headers.contains_key(header::AUTHORIZATION) {
        Some(gateway.identity.admit(&headers)?)
    } else {
        None
    };
    let open = Open::new(&gateway)?;
    let (out, waiting) = mpsc::channel(EVENTS_WAITING_MAX);
    for exchange in gateway.desk.exchanges() {
        let Some(mut told) = gateway.desk.follow(exchange) else { continue };
        let (out, tenant) = (out.clone(), tenant.clone());
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    one = told.recv() => match one {
                        Ok(one) => shown(&one, tenant.as_ref()),
                        // A gap would go unseen: let the reader start anew.
                        Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                    },
                    () = out.closed() => return,
                };
                if let Some(event) = event
                    && out.try_send(event).is_err()
                {
                    return;
                }
            }
        });
    }
    let events = stream::unfold((waiting, open), |(mut waiting, open)| async move {
        waiting.recv().await.map(|event| (Ok(event), (waiting, open)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// A place among the streams open at once, given back when the reader goes.
struct Open {
    gauge: prometheus::IntGauge,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(gateway: &Gateway) -> Result<Self, Problem> {
        let place = Arc::clone(&gateway.streams).try_acquire_owned().map_err(|_| Problem::too_many(5))?;
        let gauge = gateway.metrics.streams_open.clone();
        gauge.inc();
        Ok(Self { gauge, _place: place })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

fn shown(told: &Told, tenant: Option<&TenantId>) -> Option<Event> {
    let (kind, json) = match told {
        Told::Everybody(report) => ("MarketReport", serde_json::to_string(report)),
        Told::Tenant(owner, answer) if Some(owner) == tenant => (kind(answer), serde_json::to_string(answer)),
        Told::Tenant(..) => return None,
    };
    Some(Event::default().event(kind).data(json.ok()?))
}

const fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Accepted(_) => "Accepted",
        Answer::Refused(_) => "Refused",
        Answer::Awarded(_) => "Awarded",
        Answer::NoticeGiven(_) => "NoticeGiven",
        Answer::Delayed(_) => "Delayed",
        Answer::NoticeWithdrawn(_) => "NoticeWithdrawn",
        Answer::Released(_) => "Released",
        Answer::Expired(_) => "Expired",
    }
}
