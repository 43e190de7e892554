//! What can be asked of an exchange.

use bytes::Bytes;
use market::Market;
use market::billing::{Month, MonthError};
use market::view::json::{Quote, Why};
use market::view::{SnapshotError, View};
use proto::machine::RestoreError;
use proto::market::{BidNumber, BidOption, LeaseNumber, MarketEvent, MarketNumber, ROSTER_QUESTION};
use proto::{BidId, MarketId, Price, StreamName, TenantId, Timestamp};
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

/// Which leases are asked for.
#[derive(Debug, Deserialize)]
struct LeasesQuestion {
    tenant: TenantId,
    #[serde(default)]
    lease: Option<LeaseNumber>,
    #[serde(default)]
    after: Option<BidNumber>,
    #[serde(default)]
    limit: Option<usize>,
}

/// Which bill is asked for, and which lines and segments of it.
#[derive(Debug, Deserialize)]
struct BillQuestion {
    tenant: TenantId,
    month: String,
    #[serde(default)]
    after: usize,
    #[serde(default)]
    limit: Option<usize>,
}

/// For which units a quote is asked.
#[derive(Debug, Deserialize)]
struct QuoteQuestion {
    units: u32,
    markets: Vec<MarketId>,
}

/// Of which bid it is asked why it holds what it holds.
#[derive(Debug, Deserialize)]
struct WhyQuestion {
    tenant: TenantId,
    bid: BidId,
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

    /// Questions: `state` (the whole view, for a reader that goes on with the events), `roster` (leases with those who
    /// hold them, for whoever serves workers and goes on with the events), `bids`, `leases`, `bill`, `markets`,
    /// `history`, `quote`, `why`.
    fn answer(&self, machine: &Market, question: &str, payload: &[u8]) -> Result<Bytes, String> {
        match question {
            "state" => Ok(Bytes::from(self.0.snapshot())),
            ROSTER_QUESTION => json(&machine.roster(self.0.as_of().sequence)),
            "bids" => {
                let asked: BidsQuestion = read(payload)?;
                match &asked.bid {
                    Some(bid) => json(&self.0.bid(&asked.tenant, bid)),
                    None => {
                        json(&self.0.bids(&asked.tenant, asked.after, asked.limit.unwrap_or(PAGE_DEFAULT)))
                    }
                }
            }
            "leases" => {
                let asked: LeasesQuestion = read(payload)?;
                match asked.lease {
                    Some(lease) => json(&self.0.lease(&asked.tenant, lease)),
                    None => {
                        json(&self.0.leases(&asked.tenant, asked.after, asked.limit.unwrap_or(PAGE_DEFAULT)))
                    }
                }
            }
            "bill" => {
                let asked: BillQuestion = read(payload)?;
                let month: Month = asked.month.parse().map_err(|error: MonthError| error.to_string())?;
                json(&self.0.bill(&asked.tenant, month, asked.after, asked.limit.unwrap_or(PAGE_DEFAULT)))
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
            "quote" => json(&self.quote(machine, read(payload)?)?),
            "why" => json(&self.why(machine, &read(payload)?)?),
            other => {
                let known = "state, roster, bids, leases, bill, markets, history, quote and why";
                Err(format!("question {other} is unknown: {known} are answered"))
            }
        }
    }
}

impl Reading {
    /// Why a bid holds what it holds; none where the tenant has no such bid.
    fn why(&self, machine: &Market, asked: &WhyQuestion) -> Result<Option<Why>, String> {
        let Some(bid) = self.0.bid(&asked.tenant, &asked.bid) else { return Ok(None) };
        let why = machine.why(&asked.tenant, &asked.bid).map_err(|error| error.to_string())?;
        // Of a bid that is over nothing is left in the machine.
        let nothing = || market::Why { won: 0, options: Vec::new(), wins_at: None };
        Ok(self.0.explain(&bid, &why.unwrap_or_else(nothing)))
    }

    /// What it takes to win units now: the machine's own figures, as of what this view has read.
    fn quote(&self, machine: &Market, asked: QuoteQuestion) -> Result<Quote, String> {
        let QuoteQuestion { units, markets } = asked;
        let number = |id: &MarketId| {
            let known = machine.markets().find(|(_, known, _)| *known == id);
            known.map(|(number, ..)| number).ok_or_else(|| format!("market {id} is not open here"))
        };
        let numbers: Vec<MarketNumber> = markets.iter().map(number).collect::<Result<_, _>>()?;
        let quote = machine.quote(&numbers, units).map_err(|error| error.to_string())?;
        let named = |&(number, limit): &(MarketNumber, Price)| {
            let at = numbers.iter().position(|known| *known == number)?;
            Some(BidOption { market: markets.get(at)?.clone(), limit, running_limit: None })
        };
        let options = quote.iter().flat_map(|quote| &quote.options).filter_map(named).collect();
        Ok(Quote { as_of: self.0.as_of(), units, limit: quote.map(|quote| quote.limit), options })
    }
}

fn read<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, String> {
    let payload = if payload.is_empty() { b"{}" } else { payload };
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

fn json(value: &impl Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string())
}
