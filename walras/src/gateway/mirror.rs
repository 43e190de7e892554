//! A view of one exchange, kept in step with its events: started from what the exchange's owner says, followed
//! on the event stream, and asked for anew whenever an event is missing.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use market::view::{Gap, View};
use proto::StreamName;
use proto::envelope::EventBatch;
use proto::market::MarketEvent;
use runtime::bus::{Bus, BusError, Position, ReadEnd, Reader};
use tokio::sync::watch;

use super::recent::{Followed, Place, Recent};

/// How long the owner may take to say what stands.
const STATE_WAIT: Duration = Duration::from_secs(30);
/// Pause before the owner is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Messages taken from the event stream at a time.
const EVENT_MESSAGES_MAX: usize = 256;
/// Bytes taken from the event stream at a time.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// A view that follows its exchange.
pub(crate) struct Mirror {
    view: RwLock<View>,
    reached: watch::Sender<Option<u64>>,
    recent: Recent,
}

impl Mirror {
    /// Starts following an exchange, for as long as anybody holds the mirror.
    pub(crate) fn start(bus: Bus, exchange: StreamName) -> Arc<Self> {
        let mirror = Arc::new(Self {
            view: RwLock::new(View::new()),
            reached: watch::Sender::new(None),
            recent: Recent::new(),
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
    pub(crate) fn is_ready(&self) -> bool {
        self.reached.borrow().is_some()
    }

    /// Reads from the view as it stands.
    pub(crate) fn read<A>(&self, read: impl FnOnce(&View) -> A) -> A {
        read(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the view has got as far as `sequence`.
    pub(crate) async fn reach(&self, sequence: u64) {
        let mut reached = self.reached.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = reached.wait_for(|reached| reached.is_some_and(|reached| reached >= sequence)).await;
    }

    /// What happens behind a place, or from now on.
    pub(super) fn follow(&self, after: Option<Place>) -> Followed {
        self.recent.follow(after)
    }

    async fn keep_up(&self, bus: &Bus, exchange: &StreamName) -> anyhow::Result<()> {
        let mut events = open_at_end(bus, exchange).await?;
        let question = proto::subject::query("market", exchange, "state");
        let parts = bus.request(&question, Bytes::new(), STATE_WAIT).await?;
        let view = View::restore(&parts.concat())?;
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
                self.apply(&batch)?;
            }
        }
    }

    fn replace(&self, view: View) {
        let sequence = view.as_of().sequence;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        self.reached.send_replace(Some(sequence));
        self.recent.restart(sequence);
    }

    fn apply(&self, batch: &EventBatch<MarketEvent>) -> Result<(), Gap> {
        let mut told = Vec::new();
        {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            let is_new = batch.sequence > view.as_of().sequence;
            view.apply_batch(batch)?;
            if !is_new {
                return Ok(());
            }
            let events = batch.entries.iter().flat_map(|entry| &entry.events);
            told.extend(events.filter_map(|event| view.told(batch.at, event)));
        }
        self.reached.send_replace(Some(batch.sequence));
        self.recent.tell(batch.sequence, told);
        Ok(())
    }
}

pub(crate) async fn open_at_end(bus: &Bus, exchange: &StreamName) -> Result<Reader, BusError> {
    let stream = proto::subject::event_stream("market", exchange);
    let end = bus.stream_state(&stream).await?;
    let after = (end.last > 0).then_some(Position { created: end.created, sequence: end.last });
    bus.read(&stream, &proto::subject::events("market", exchange), after).await
}
