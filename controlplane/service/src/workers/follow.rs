//! An exchange, followed: asked for all leases once, then read event by event, and asked again whenever one is missing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use proto::StreamName;
use proto::envelope::EventBatch;
use proto::market::{MarketEvent, ROSTER_QUESTION, RosterState};
use runtime::bus::{Position, ReadEnd};
use runtime::shell::Stop;

use super::Office;

/// How long the exchange's owner may take to say what there is.
const ROSTER_WAIT: Duration = Duration::from_secs(30);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Messages, and bytes, taken from the event stream at a time.
const EVENT_MESSAGES_MAX: usize = 256;
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Follows an exchange until it is told to stop.
pub(super) async fn follow(office: Arc<Office>, exchange: StreamName, mut stop: Stop) -> Result<()> {
    loop {
        let read = async {
            if let Err(error) = read(&office, &exchange).await {
                tracing::warn!(%exchange, error = %format!("{error:#}"), "the leases are asked for again");
            }
            tokio::time::sleep(PAUSE).await;
        };
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = read => {}
        }
    }
}

async fn read(office: &Office, exchange: &StreamName) -> Result<()> {
    let bus = &office.bus;
    let stream = proto::subject::event_stream("market", exchange);
    let end = bus.stream_state(&stream).await?;
    // Read from the end as it is now, so that nothing lies between the answer and the events.
    let after = (end.last > 0).then_some(Position { created: end.created, sequence: end.last });
    let mut events = bus.read(&stream, &proto::subject::events("market", exchange), after).await?;
    let question = proto::subject::query("market", exchange, ROSTER_QUESTION);
    let parts = bus.request(&question, Bytes::new(), ROSTER_WAIT).await?;
    let state: RosterState = serde_json::from_slice(&parts.concat())?;
    office.desk().restore(exchange, state);
    office.news.notify_one();
    loop {
        let batch = match events.next_batch(EVENT_MESSAGES_MAX, EVENT_BYTES_MAX).await {
            Ok(batch) => batch,
            Err(end @ ReadEnd::GaveUp { .. }) => return Err(end.into()),
            // The first message is next; what is known is skipped, what is missing is asked for.
            Err(ReadEnd::StreamRegressed { .. }) => continue,
        };
        for delivery in batch {
            let batch: EventBatch<MarketEvent> = serde_json::from_slice(&delivery.payload)?;
            office.desk().follow(exchange, &batch)?;
        }
        office.news.notify_one();
    }
}
