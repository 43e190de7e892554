//! Tells the demo's hypervisors which leases were granted, where no placement gives leases their servers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use proto::envelope::EventBatch;
use proto::market::{LeaseSpan, MarketEvent};
use proto::{StreamName, Timestamp};
use runtime::bus::{Bus, ReadEnd};
use tokio::sync::broadcast;

/// Grants that a hypervisor of the demo may be behind; of those it misses it has no workers.
const GRANTS_KEPT: usize = 4_096;
/// Messages, and bytes, taken from the event stream at a time.
const EVENT_MESSAGES_MAX: usize = 256;
const EVENT_BYTES_MAX: usize = 16 << 20;
/// Pause before a stream that ended is read again.
const PAUSE: Duration = Duration::from_secs(1);

/// Leases that were granted; where all servers were still occupied, with when one is there at the latest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) leases: LeaseSpan,
    pub(super) available_by: Option<Timestamp>,
}

/// Who is told of grants from now on.
pub(super) type Grants = Arc<broadcast::Sender<Grant>>;

/// A list of nobody yet.
pub(super) fn nobody() -> Grants {
    Arc::new(broadcast::Sender::new(GRANTS_KEPT))
}

/// Follows an exchange's events for as long as the task lives.
pub(super) async fn follow(bus: Bus, exchange: StreamName, grants: Grants) -> Result<()> {
    loop {
        if let Err(error) = read(&bus, &exchange, &grants).await {
            tracing::debug!(%exchange, %error, "the demo reads the events again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read(bus: &Bus, exchange: &StreamName, grants: &Grants) -> Result<()> {
    let mut events = crate::gateway::open_at_end(bus, exchange).await?;
    loop {
        let batch = match events.next_batch(EVENT_MESSAGES_MAX, EVENT_BYTES_MAX).await {
            Ok(batch) => batch,
            Err(end @ ReadEnd::GaveUp { .. }) => return Err(end.into()),
            Err(ReadEnd::StreamRegressed { .. }) => continue,
        };
        for delivery in batch {
            let batch: EventBatch<MarketEvent> = serde_json::from_slice(&delivery.payload)?;
            for event in batch.entries.iter().flat_map(|entry| &entry.events) {
                if let MarketEvent::UnitsAwarded { leases, available_by, .. }
                | MarketEvent::UnitsMoved { leases, available_by, .. } = *event
                {
                    // Nobody listens where there is no hypervisor.
                    let _ = grants.send(Grant { leases, available_by });
                }
            }
        }
    }
}
