//! Reports to a site what an exchange decided: which bids stand, so that a plane that is bid for does not sleep, and what
//! became of leases, so that they get servers. What a turn means is a pure function of it ([`placement::machine::reports`]).
//!
//! The site remembers up to where it was told. What is told again is refused as stale, so that nothing need be kept here:
//! after a start the exchange's events are read from the oldest that the bus still has.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use placement::machine::{REPORT_PREFIX, reports};
use proto::envelope::EventBatch;
use proto::machine::{Role, Sender};
use proto::market::MarketEvent;
use proto::{StreamName, subject};
use runtime::batcher::Batcher;
use runtime::bus::{Bus, BusError, ReadEnd};
use runtime::shell::Stop;

use crate::PRINCIPAL;
use crate::reading::SiteAnswer;

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
        let unique = format!("{REPORT_PREFIX}{}-{}", self.exchange, self.site);
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
                // Of the last turn some parts may be missing.
                if batch.sequence < told {
                    continue;
                }
                for report in reports(&self.exchange, &batch) {
                    batcher.send(Bytes::from(serde_json::to_vec(&report)?)).await?;
                }
                told = batch.sequence;
            }
        }
    }
}
