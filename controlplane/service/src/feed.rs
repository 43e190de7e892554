//! Placement's events as orders: begun from every order that stands, gone on with what happens, and asked for anew
//! whenever an event is missing.
//!
//! What stands is asked for as of the last event that the bus holds, so that nothing is written on orders that were
//! replaced already.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use controlplane::Plane;
use placement::machine::OrdersView;
use proto::envelope::EventBatch;
use proto::placement::{PlacementEvent, PlaneNumber};
use proto::{HostId, StreamName, subject};
use runtime::bus::{Bus, Position, ReadEnd, Reader};
use runtime::shell::Stop;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::figures::Traffic;
use crate::reconciler::Order;

/// How long placement may take to say what stands.
const STATE_WAIT: Duration = Duration::from_secs(20);
/// Pause before everything is asked for again.
const PAUSE: Duration = Duration::from_millis(500);
/// Messages taken from the event stream at a time.
const EVENT_MESSAGES_MAX: usize = 256;
/// Bytes taken from the event stream at a time.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// What placement knows of a plane, for who reports on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Which order it was told to be carried out, how many workers there are, and whether it is slow.
    Known(PlaneNumber, u64, u32, bool),
    /// It is gone.
    Forgotten(PlaneNumber),
    /// A host is known from now on.
    Taken(HostId),
}

/// Follows the events of one site.
pub(crate) struct Feed {
    pub(crate) bus: Bus,
    pub(crate) site: StreamName,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) heard: mpsc::Sender<Heard>,
    /// The last turn in which something happened to hosts.
    pub(crate) hosts_changed: watch::Sender<u64>,
    pub(crate) traffic: Traffic,
}

/// Nobody listens any more.
#[derive(Debug, thiserror::Error)]
#[error("nobody takes orders any more")]
struct Deaf;

impl Feed {
    /// Follows until the stop.
    pub(crate) async fn run(self, stop: Stop) -> Result<()> {
        let follow = async {
            let mut known = BTreeSet::new();
            loop {
                if let Err(error) = self.keep_up(&mut known).await {
                    if error.is::<Deaf>() {
                        return;
                    }
                    self.traffic.anew.inc();
                    let error = format!("{error:#}");
                    tracing::warn!(site = %self.site, error, "orders are asked for again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = follow => stop.into_requested().await,
            () = stop.clone().into_requested() => {}
        }
        Ok(())
    }

    async fn keep_up(&self, known: &mut BTreeSet<PlaneNumber>) -> Result<()> {
        let (mut events, sequence) = self.open().await?;
        let question = subject::query("placement", &self.site, "orders");
        let payload = Bytes::from(json!({ "wait_for_sequence": sequence }).to_string());
        let parts = self.bus.request(&question, payload, STATE_WAIT).await?;
        let view: OrdersView = serde_json::from_slice(&parts.concat())?;
        let mut reached = view.sequence;
        self.begin(view, known).await?;
        loop {
            let deliveries = match events.next_batch(EVENT_MESSAGES_MAX, EVENT_BYTES_MAX).await {
                Ok(deliveries) => deliveries,
                Err(end @ ReadEnd::GaveUp { .. }) => return Err(end.into()),
                // The first message is next; what is known is skipped, what is missing is asked for.
                Err(ReadEnd::StreamRegressed { .. }) => continue,
            };
            for delivery in deliveries {
                let batch: EventBatch<PlacementEvent> = serde_json::from_slice(&delivery.payload)?;
                if batch.sequence <= reached {
                    continue;
                }
                if batch.sequence > reached + 1 {
                    bail!("turn {} follows {reached}: something is missing", batch.sequence);
                }
                for event in batch.entries.into_iter().flat_map(|entry| entry.events) {
                    self.carry_on(batch.sequence, event, known).await?;
                }
                reached = batch.sequence;
                self.traffic.followed.set(i64::try_from(reached).unwrap_or(i64::MAX));
            }
        }
    }

    /// A reader behind the last event that the bus holds, and the turn that it was.
    async fn open(&self) -> Result<(Reader, u64)> {
        let stream = subject::event_stream("placement", &self.site);
        let state = self.bus.stream_state(&stream).await?;
        let is_empty = state.messages == 0;
        let last = if is_empty { state.last } else { state.last.saturating_sub(1) };
        let after = (last > 0).then_some(Position { created: state.created, sequence: last });
        let mut events = self.bus.read(&stream, &subject::events("placement", &self.site), after).await?;
        if is_empty {
            return Ok((events, 0));
        }
        let newest = events.next_batch(1, EVENT_BYTES_MAX).await?;
        let newest = newest.last().map(|newest| {
            serde_json::from_slice::<EventBatch<PlacementEvent>>(&newest.payload).map(|batch| batch.sequence)
        });
        Ok((events, newest.transpose()?.unwrap_or_default()))
    }

    /// Gives every order that stands, and forgets planes that went while nobody listened.
    async fn begin(&self, view: OrdersView, known: &mut BTreeSet<PlaneNumber>) -> Result<()> {
        let gone = std::mem::take(known);
        let count = view.orders.len();
        for standing in view.orders {
            known.insert(standing.plane);
            let heard = Heard::Known(standing.plane, standing.reported, standing.workers, standing.slow);
            self.tell(heard).await?;
            let plane = Plane::ordered(standing.generation, &standing.order, standing.gone_at);
            self.order(Order::Set(standing.plane, plane)).await?;
        }
        for number in gone.difference(known) {
            self.forget(*number).await?;
        }
        self.order(Order::CaughtUp).await?;
        self.hosts_changed.send_replace(view.sequence);
        self.traffic.followed.set(i64::try_from(view.sequence).unwrap_or(i64::MAX));
        tracing::info!(site = %self.site, orders = count, sequence = view.sequence, "all orders are known");
        Ok(())
    }

    async fn carry_on(
        &self,
        sequence: u64,
        event: PlacementEvent,
        known: &mut BTreeSet<PlaneNumber>,
    ) -> Result<()> {
        use PlacementEvent as Event;
        match event {
            Event::PlaneOrdered { plane, generation, order, gone_at } => {
                known.insert(plane);
                self.order(Order::Set(plane, Plane::ordered(generation, &order, gone_at))).await
            }
            Event::PlaneGone { plane } => {
                known.remove(&plane);
                self.forget(plane).await
            }
            Event::HostOffered { id, .. } => {
                self.hosts_changed.send_replace(sequence);
                self.tell(Heard::Taken(id)).await
            }
            Event::HostNoticed { .. } | Event::HostKept { .. } | Event::HostGone { .. } => {
                self.hosts_changed.send_replace(sequence);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn forget(&self, number: PlaneNumber) -> Result<()> {
        self.order(Order::Forget(number)).await?;
        self.tell(Heard::Forgotten(number)).await
    }

    async fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).await.map_err(|_| Deaf.into())
    }

    async fn tell(&self, heard: Heard) -> Result<()> {
        self.heard.send(heard).await.map_err(|_| Deaf.into())
    }
}
