//! A view of one exchange, kept in step with its events: started from what the exchange's owner says, followed
//! on the event stream, and asked for anew whenever an event is missing.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use market::view::View;
use proto::envelope::EventBatch;
use proto::market::{Answer, MarketEvent, MarketReport};
use proto::{StreamName, TenantId};
use runtime::bus::{Bus, BusError, Position, ReadEnd, Reader};
use tokio::sync::{broadcast, watch};

use super::tidings::tidings;

/// How long the owner may take to say what stands.
const STATE_WAIT: Duration = Duration::from_secs(30);
/// Pause before the owner is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Tidings kept for a follower that reads slowly; it is told when it has missed some.
const TIDINGS_KEPT: usize = 4_096;
/// Messages taken from the event stream at a time.
const EVENT_MESSAGES_MAX: usize = 256;
/// Bytes taken from the event stream at a time.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Something that happened, told to those whom it concerns.
#[derive(Clone, Debug)]
pub enum Tiding {
    /// Public.
    Report(Arc<MarketReport>),
    /// One tenant's own.
    Own(TenantId, Arc<Answer>),
}

/// A view that follows its exchange.
pub struct Mirror {
    view: RwLock<View>,
    reached: watch::Sender<Option<u64>>,
    told: broadcast::Sender<Tiding>,
}

impl Mirror {
    /// Starts following an exchange, for as long as anybody holds the mirror.
    pub fn start(bus: Bus, exchange: StreamName) -> Arc<Self> {
        let mirror = Arc::new(Self {
            view: RwLock::new(View::new()),
            reached: watch::Sender::new(None),
            told: broadcast::Sender::new(TIDINGS_KEPT),
        });
        let weak = Arc::downgrade(&mirror);
        tokio::spawn(async move {
            while let Some(mirror) = weak.upgrade() {
                if let Err(error) = mirror.keep_up(&bus, &exchange).await {
                    tracing::warn!(%exchange, %error, "the view is asked for again");
                }
                drop(mirror);
                tokio::time::sleep(PAUSE).await;
            }
        });
        mirror
    }

    /// Whether the view has ever caught up.
    pub fn is_ready(&self) -> bool {
        self.reached.borrow().is_some()
    }

    /// Reads from the view as it stands.
    pub fn read<A>(&self, read: impl FnOnce(&View) -> A) -> A {
        read(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the view has got as far as `sequence`.
    pub async fn reach(&self, sequence: u64) {
        let mut reached = self.reached.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = reached.wait_for(|reached| reached.is_some_and(|reached| reached >= sequence)).await;
    }

    /// What happens from now on.
    pub fn follow(&self) -> broadcast::Receiver<Tiding> {
        self.told.subscribe()
    }

    async fn keep_up(&self, bus: &Bus, exchange: &StreamName) -> anyhow::Result<()> {
        let mut events = open_at_end(bus, exchange).await?;
        let question = proto::subject::query("market", exchange, "state");
        let parts = bus.request(&question, Bytes::new(), STATE_WAIT).await?;
        let view = View::from_parts(parts.iter().map(|part| &part[..]))?;
        self.replace(view);
        loop {
            let batch = match events.next_batch(EVENT_MESSAGES_MAX, EVENT_BYTES_MAX).await {
                Ok(batch) => batch,
                Err(end @ ReadEnd::GaveUp { .. }) => return Err(end.into()),
                // The first message is next; what is known is skipped, what is missing is asked for.
                Err(ReadEnd::StreamRegressed { .. }) => continue,
            };
            for delivery in batch {
                let batch: EventBatch<MarketEvent> = serde_json::from_slice(&delivery.payload)?;
                let known = self.reached.borrow().unwrap_or_default();
                if batch.sequence <= known {
                    continue;
                }
                anyhow::ensure!(
                    batch.sequence == known + 1,
                    "events {} to {} are missing",
                    known + 1,
                    batch.sequence - 1
                );
                self.apply(&batch);
            }
        }
    }

    fn replace(&self, view: View) {
        let sequence = view.as_of().sequence;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        self.reached.send_replace(Some(sequence));
    }

    fn apply(&self, batch: &EventBatch<MarketEvent>) {
        let mut told = Vec::new();
        {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            for event in batch.entries.iter().flat_map(|entry| &entry.events) {
                view.apply(batch.at, batch.sequence, event);
                told.extend(tidings(&view, batch.at, event));
            }
            view.reached(batch.at, batch.sequence);
        }
        self.reached.send_replace(Some(batch.sequence));
        for tiding in told {
            // Nobody may be listening.
            let _ = self.told.send(tiding);
        }
    }
}

async fn open_at_end(bus: &Bus, exchange: &StreamName) -> Result<Reader, BusError> {
    let stream = proto::subject::event_stream("market", exchange);
    let end = bus.stream_state(&stream).await?;
    let after = (end.last > 0).then_some(Position { created: end.created, sequence: end.last });
    bus.read(&stream, &proto::subject::events("market", exchange), after).await
}
