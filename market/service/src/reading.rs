//! What can be asked of an exchange.

use bytes::Bytes;
use market::Market;
use market::view::{SnapshotError, View};
use proto::machine::RestoreError;
use proto::market::{BidNumber, MarketEvent};
use proto::{BidId, MarketId, StreamName, TenantId, Timestamp};
use runtime::telemetry::{Meter, MeterError};
use serde::{Deserialize, Serialize};

use crate::figures::{Figures, leaving_of};

/// Bids of a page where nothing is said.
const PAGE_DEFAULT: usize = 100;

/// A view of an exchange that answers questions.
#[derive(Debug)]
pub struct Reading(View, Option<Figures>);

/// Which bids are asked for.
#[derive(Debug, Deserialize)]
struct BidsQuestion {
    tenant: TenantId,
    #[serde(default)]
    bid: Option<BidId>,
    #[serde(default)]
    after: Option<BidNumber>,
    #[serde(default)]
    limit: Option<usize>,
}

/// Which markets are asked for.
#[derive(Debug, Default, Deserialize)]
struct MarketsQuestion {
    #[serde(default)]
    market: Option<MarketId>,
    #[serde(default)]
    after: Option<MarketId>,
    #[serde(default)]
    from: Option<Timestamp>,
    #[serde(default)]
    limit: Option<usize>,
}

impl runtime::runner::View<Market> for Reading {
    const SNAPSHOT: u16 = market::view::VERSION as u16;

    fn new(_: &StreamName) -> Self {
        Self(View::new(), None)
    }

    fn apply(&mut self, at: Timestamp, sequence: u64, event: &MarketEvent) {
        let left = self.1.as_ref().and_then(|_| leaving_of(&self.0, event));
        self.0.apply(at, sequence, event);
        if let Some(figures) = &mut self.1 {
            figures.tell(at, event, &self.0, left);
        }
    }

    fn settle(&mut self, at: Timestamp, sequence: u64) {
        self.0.settle(at, sequence);
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.snapshot()
    }

    fn restore(_: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        View::restore(bytes)
            .map(|view| Self(view, None))
            .map_err(|error: SnapshotError| RestoreError::Unreadable { problem: error.to_string() })
    }

    fn measure(&mut self, meter: &Meter, stream: &StreamName) -> Result<(), MeterError> {
        self.1 = Some(Figures::new(meter, stream, &self.0)?);
        Ok(())
    }

    /// Questions: `state` (the whole view, for a reader that goes on with the events), `bids`, `markets`,
    /// `history`.
    fn answer(&self, _: &Market, question: &str, payload: &[u8]) -> Result<Bytes, String> {
        match question {
            "state" => Ok(Bytes::from(self.0.snapshot())),
            "bids" => {
                let asked: BidsQuestion = read(payload)?;
                match &asked.bid {
                    Some(bid) => json(&self.0.bid(&asked.tenant, bid)),
                    None => {
                        json(&self.0.bids(&asked.tenant, asked.after, asked.limit.unwrap_or(PAGE_DEFAULT)))
                    }
                }
            }
            "markets" => {
                let asked: MarketsQuestion = read(payload)?;
                match &asked.market {
                    Some(market) => json(&self.0.market(market)),
                    None => json(&self.0.markets(asked.after.as_ref(), asked.limit.unwrap_or(PAGE_DEFAULT))),
                }
            }
            "history" => {
                let asked: MarketsQuestion = read(payload)?;
                let market = asked.market.ok_or("market: is missing")?;
                json(&self.0.history(&market, asked.from, asked.limit.unwrap_or(PAGE_DEFAULT)))
            }
            other => {
                Err(format!("question {other} is unknown: state, bids, markets and history are answered"))
            }
        }
    }
}

fn read<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, String> {
    let payload = if payload.is_empty() { b"{}" } else { payload };
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

fn json(value: &impl Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string())
}
