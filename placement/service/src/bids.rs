//! Reports to a site which bids stand in an exchange, so that a plane that is bid for does not sleep.
//!
//! The site remembers up to which turn it was told. What is told again is refused as stale, so that nothing need be
//! kept here: after a start the exchange's events are read from the oldest that the bus still has.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use proto::envelope::EventBatch;
use proto::machine::{Role, Sender};
use proto::market::MarketEvent;
use proto::placement::{BidStands, PlacementCommand, ReportBids};
use proto::{StreamName, subject};
use runtime::batcher::Batcher;
use runtime::bus::{Bus, BusError, ReadEnd};
use runtime::shell::Stop;

use crate::PRINCIPAL;
use crate::reading::SiteAnswer;

/// What ids of reports begin with.
pub(crate) const ID_PREFIX: &str = "bids-";
/// How long the owner of the site may take to say what stands.
const STATE_WAIT: Duration = Duration::from_secs(20);
/// Pause before another attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// Messages taken from the event stream at a time.
const EVENT_MESSAGES_MAX: usize = 256;
/// Bytes taken from the event stream at a time.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Follows the bids of one exchange for one site.
pub(crate) struct Follower {
    pub(crate) bus: Bus,
    pub(crate) site: StreamName,
    pub(crate) exchange: StreamName,
}

impl Follower {
    /// Follows until the stop.
    pub(crate) async fn run(self, stop: Stop) -> Result<()> {
        let follow = async {
            loop {
                if let Err(error) = self.follow().await {
                    let error = format!("{error:#}");
                    tracing::warn!(site = %self.site, exchange = %self.exchange, error, "bids are followed anew");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = follow => Ok(()),
            () = stop.into_requested() => Ok(()),
        }
    }

    async fn follow(&self) -> Result<()> {
        let stream = subject::event_stream("market", &self.exchange);
        if let Err(BusError::NoSuchStream { .. }) = self.bus.stream_state(&stream).await {
            return Ok(()); // The market service makes it.
        }
        let question = subject::query("placement", &self.site, "site");
        let parts = self.bus.request(&question, Bytes::new(), STATE_WAIT).await?;
        let answered: SiteAnswer = serde_json::from_slice(&parts.concat())?;
        let mut told = answered.site.routed.get(&self.exchange).copied().unwrap_or(0);
        let mut events = self.bus.read(&stream, &subject::events("market", &self.exchange), None).await?;
        let sender = Sender { role: Role::Service, principal: PRINCIPAL.parse()? };
        let command_subject = subject::command("placement", &self.site, &sender);
        let unique = format!("{ID_PREFIX}{}-{}", self.exchange, self.site);
        let batcher = Batcher::start(self.bus.clone(), command_subject, unique);
        loop {
            let batches = match events.next_batch(EVENT_MESSAGES_MAX, EVENT_BYTES_MAX).await {
                Ok(batches) => batches,
                Err(end @ ReadEnd::GaveUp { .. }) => return Err(end.into()),
                // The first message is next; what was told is skipped.
                Err(ReadEnd::StreamRegressed { .. }) => continue,
            };
            for delivery in batches {
                let batch: EventBatch<MarketEvent> = serde_json::from_slice(&delivery.payload)?;
                if batch.sequence <= told {
                    continue;
                }
                if let Some(report) = report(&self.exchange, &batch)? {
                    batcher.send(Bytes::from(serde_json::to_vec(&report)?)).await?;
                }
                told = batch.sequence;
            }
        }
    }
}

/// What one turn of an exchange means for the bids that stand; nothing, if it means nothing.
fn report(exchange: &StreamName, batch: &EventBatch<MarketEvent>) -> Result<Option<PlacementCommand>> {
    let (mut placed, mut ended) = (Vec::new(), Vec::new());
    for event in batch.entries.iter().flat_map(|entry| &entry.events) {
        match event {
            MarketEvent::BidPlaced { number, bid, .. } => {
                let (tenant, cluster) = (bid.tenant.clone(), bid.cluster.clone());
                placed.push(BidStands { bid: *number, tenant, cluster });
            }
            MarketEvent::BidCancelled { number } | MarketEvent::BidExpired { number } => ended.push(*number),
            _ => {}
        }
    }
    if placed.is_empty() && ended.is_empty() {
        return Ok(None);
    }
    let id = format!("{ID_PREFIX}{exchange}-{}", batch.sequence).parse()?;
    let (exchange, sequence) = (exchange.clone(), batch.sequence);
    Ok(Some(PlacementCommand::ReportBids(ReportBids { id, exchange, sequence, placed, ended })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_told_by_the_bids_that_came_and_went() {
        let batch = |events: &str| {
            let json = format!(
                r#"{{"machine":"market","stream":"main","sequence":7,"at":"2026-01-01T00:00:00Z","rules":1,"entries":[{{"events":[{events}]}}]}}"#
            );
            serde_json::from_str::<EventBatch<MarketEvent>>(&json).unwrap()
        };
        let exchange = "main".parse().unwrap();
        assert_eq!(report(&exchange, &batch(r#"{"type":"RoundClosed","round":3}"#)).unwrap(), None);
        let bid = r#"{"type":"BidPlaced","number":4,"by":"s1","bid":{"id":"b","tenant":"t","cluster":"c","pool":"p","quantity":1,"options":[{"market":"dfw/a","limit":"0.030"}]}}"#;
        let told =
            report(&exchange, &batch(&format!(r#"{bid},{{"type":"BidCancelled","number":3}}"#))).unwrap();
        let told = serde_json::to_string(&told.unwrap()).unwrap();
        assert_eq!(
            told,
            r#"{"type":"ReportBids","id":"bids-main-7","exchange":"main","sequence":7,"placed":[{"bid":4,"tenant":"t","cluster":"c"}],"ended":[3]}"#
        );
    }
}
