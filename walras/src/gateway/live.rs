//! `/v1/events`: server-sent events: every market's reports, and what happens to the tenant's own bids.
//!
//! Every event carries an id: how far each exchange had got, such as `main:1234.2`. A reader whose connection broke
//! sends the last one it saw as `Last-Event-ID`, as browsers do by themselves, and goes on behind it. Where what
//! happened in between is not kept any more it is told so by a `Gap`, and reads what stands.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream::{self, StreamExt};
use market::view::Told;
use proto::market::Answer;
use proto::{StreamName, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::Gateway;
use super::problem::Problem;
use super::recent::{Happened, Place};

/// A comment is sent this often, so that proxies keep a quiet connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The header by which a reader says what it saw last.
const LAST_EVENT_ID: &str = "last-event-id";

/// The first event of every connection: from where it follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Following {
    /// Every exchange.
    pub exchanges: Vec<FollowedExchange>,
}

/// One exchange, and from where it is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FollowedExchange {
    /// Which exchange.
    pub exchange: StreamName,
    /// What happens behind this place of it follows.
    pub sequence: u64,
}

/// Something was missed: what stands must be read anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// In which exchange.
    pub exchange: StreamName,
    /// What happened up to this place of it was not told; what comes next did not happen before it.
    pub sequence: u64,
}

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
    let seen = match headers.get(LAST_EVENT_ID) {
        None => BTreeMap::new(),
        Some(id) => places(id.to_str().unwrap_or_default()).ok_or_else(|| {
            let problem = "give the id of an event as it came";
            Problem::malformed(LAST_EVENT_ID, &String::from_utf8_lossy(id.as_bytes()), problem)
        })?,
    };
    let open = Open::new(&gateway)?;
    let (mut cursor, mut past, mut live) = (Cursor(Vec::new()), Vec::new(), Vec::new());
    for (number, (name, followed)) in gateway.desk.follow(&seen).into_iter().enumerate() {
        cursor.0.push((name, followed.place));
        past.extend(followed.past.into_iter().map(|one| (number, one)));
        live.push(stream::unfold(followed.live, next).map(move |one| (number, one)).boxed());
    }
    let first = cursor.event("Following", &cursor.following());
    // Who falls too far behind is disconnected and comes back with the last id it saw: a gap would go unseen.
    let live = stream::select_all(live).take_while(|(_, one)| ready(one.is_some()));
    let live = live.filter_map(|(number, one)| ready(one.map(|one| (number, one))));
    let told = stream::iter(past).chain(live).scan((cursor, open), move |(cursor, _open), (number, one)| {
        ready(Some(cursor.show(number, &one, tenant.as_ref())))
    });
    let events = stream::iter(first).chain(told.filter_map(ready)).map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The next thing that happens; `None` when this reader has fallen too far behind, or the gateway ends.
async fn next(
    mut live: broadcast::Receiver<Arc<Happened>>,
) -> Option<(Option<Arc<Happened>>, broadcast::Receiver<Arc<Happened>>)> {
    let one = live.recv().await.ok();
    Some((one, live))
}

/// How far each exchange has got for one reader.
struct Cursor(Vec<(StreamName, Place)>);

impl Cursor {
    fn following(&self) -> Following {
        let follow = |(exchange, place): &(StreamName, Place)| FollowedExchange {
            exchange: exchange.clone(),
            sequence: place.sequence,
        };
        Following { exchanges: self.0.iter().map(follow).collect() }
    }

    fn id(&self) -> String {
        let show = |(name, place): &(StreamName, Place)| format!("{name}:{place}");
        self.0.iter().map(show).collect::<Vec<_>>().join(",")
    }

    fn event(&self, kind: &str, fact: &impl Serialize) -> Option<Event> {
        Some(Event::default().event(kind).id(self.id()).data(serde_json::to_string(fact).ok()?))
    }

    /// The event for something that happened, if this reader may see it and has not seen it.
    fn show(&mut self, number: usize, one: &Happened, tenant: Option<&TenantId>) -> Option<Event> {
        let (exchange, place) = self.0.get_mut(number)?;
        if one.place <= *place {
            return None;
        }
        *place = one.place;
        match &one.told {
            None => {
                let gap = Gap { exchange: exchange.clone(), sequence: one.place.sequence };
                self.event("Gap", &gap)
            }
            Some(Told::Everybody(report)) => self.event("MarketReport", report),
            Some(Told::Tenant(owner, answer)) if Some(owner) == tenant => self.event(kind(answer), answer),
            Some(Told::Tenant(..)) => None,
        }
    }
}

/// The places that an id names.
fn places(id: &str) -> Option<BTreeMap<StreamName, Place>> {
    let place = |part: &str| {
        let (name, place) = part.split_once(':')?;
        Some((name.parse().ok()?, place.parse().ok()?))
    };
    id.split(',').map(place).collect()
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

const fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Accepted(_) => "Accepted",
        Answer::Refused(_) => "Refused",
        Answer::Awarded(_) => "Awarded",
        Answer::NoticeGiven(_) => "NoticeGiven",
        Answer::Delayed(_) => "Delayed",
        Answer::NoticeWithdrawn(_) => "NoticeWithdrawn",
        Answer::Ready(_) => "Ready",
        Answer::Dead(_) => "Dead",
        Answer::Released(_) => "Released",
        Answer::Expired(_) => "Expired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        let cursor = Cursor(vec![
            ("main".parse().unwrap(), "12.3".parse().unwrap()),
            ("west".parse().unwrap(), Place::behind(7)),
        ]);
        let id = cursor.id();
        assert_eq!(id, "main:12.3,west:7");
        assert_eq!(places(&id).unwrap(), cursor.0.into_iter().collect());
        for bad in ["", "main", "main:", "main:x", "main:1,", "a b:1", ":1"] {
            assert!(places(bad).is_none(), "{bad:?}");
        }
    }
}
