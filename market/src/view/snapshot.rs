//! A view as bytes, in parts: what a reader starts from before it tails the events.
//!
//! Every part is a postcard value of its own, so the parts one after another are a snapshot too. The last one
//! holds SHA-256 over all before it: a snapshot that was cut, mixed up or damaged is none.

use std::borrow::Cow;

use proto::market::{BidNumber, MarketNumber, MarketSettings, Prices, RoundNumber, Rules};
use proto::{MarketId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bid::Bid;
use super::history::History;
use super::market::{Market, Winners};
use super::{AsOf, View, raw, weigh};
use crate::billing::Record;

/// Version of the layout.
pub const VERSION: u32 = 4;

/// A part is closed when it is this large, in bytes.
const PART_BYTES: usize = 128 * 1024;

/// Why bytes are no snapshot of a view. The events are folded from an older one instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are not what a view writes.
    #[error("a view's snapshot cannot be read: {problem}")]
    Unreadable {
        /// What is wrong with them.
        problem: String,
    },
    /// Another layout.
    #[error("a view's snapshot has layout {found}, this build reads {VERSION}")]
    Version {
        /// The layout found.
        found: u32,
    },
    /// Something is missing, or not as it was written.
    #[error("a view's snapshot is incomplete or damaged")]
    Damaged,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    sequence: u64,
    #[serde(with = "raw::instant")]
    at: Timestamp,
    round: RoundNumber,
    #[serde(with = "raw::text")]
    rules: Rules,
}

#[derive(Serialize, Deserialize)]
struct MarketRecord {
    number: MarketNumber,
    id: MarketId,
    #[serde(with = "raw::text")]
    settings: MarketSettings,
    round: RoundNumber,
    #[serde(with = "raw::instant")]
    at: Timestamp,
    #[serde(with = "raw::text")]
    prices: Prices,
    history: History,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct End {
    digest: [u8; 32],
    markets: usize,
    bids: usize,
}

impl End {
    fn of(view: &View, digest: Sha256) -> Self {
        Self { digest: digest.finalize().into(), markets: view.markets.len(), bids: view.bids.len() }
    }
}

#[derive(Serialize, Deserialize)]
enum Part<'a> {
    Head(Head),
    Market(Box<MarketRecord>),
    Bid(BidNumber, Cow<'a, Bid>),
    Billing(Box<Record>),
    End(End),
}

/// What is still to be written.
enum Left<'a> {
    Head,
    Markets(std::collections::btree_map::Iter<'a, MarketNumber, Market>),
    Bids(Box<dyn Iterator<Item = (BidNumber, &'a Bid)> + 'a>),
    Billing(Box<dyn Iterator<Item = Record> + 'a>),
    Nothing,
}

/// The parts of a snapshot, one after another.
struct Parts<'a> {
    view: &'a View,
    left: Left<'a>,
    digest: Sha256,
}

impl<'a> Parts<'a> {
    /// The next value to write; the end is written by the caller, who knows the digest.
    fn value(&mut self) -> Option<Part<'a>> {
        loop {
            match &mut self.left {
                Left::Head => {
                    self.left = Left::Markets(self.view.markets.iter());
                    let AsOf { sequence, at } = self.view.as_of;
                    let (round, rules) = (self.view.round, self.view.rules.clone());
                    return Some(Part::Head(Head { version: VERSION, sequence, at, round, rules }));
                }
                Left::Markets(markets) => match markets.next() {
                    Some((number, market)) => return Some(Part::Market(Box::new(record(*number, market)))),
                    None => self.left = Left::Bids(Box::new(self.view.bids.iter())),
                },
                Left::Bids(bids) => match bids.next() {
                    Some((number, bid)) => return Some(Part::Bid(number, Cow::Borrowed(bid))),
                    None => self.left = Left::Billing(Box::new(self.view.billing.records())),
                },
                Left::Billing(records) => match records.next() {
                    Some(record) => return Some(Part::Billing(Box::new(record))),
                    None => self.left = Left::Nothing,
                },
                Left::Nothing => return None,
            }
        }
    }
}

impl Iterator for Parts<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if matches!(self.left, Left::Nothing) {
            return None;
        }
        let mut bytes = Vec::with_capacity(PART_BYTES + PART_BYTES / 8);
        while bytes.len() < PART_BYTES {
            let Some(value) = self.value() else {
                self.digest.update(&bytes);
                let end = End::of(self.view, self.digest.clone());
                return Some(written(&Part::End(end), bytes));
            };
            bytes = written(&value, bytes);
        }
        self.digest.update(&bytes);
        Some(bytes)
    }
}

/// `bytes` with a part behind them.
fn written(part: &Part<'_>, bytes: Vec<u8>) -> Vec<u8> {
    // Plain data always has a form; were it ever not so, the digest at the end would tell.
    postcard::to_extend(part, bytes).unwrap_or_default()
}

fn record(number: MarketNumber, market: &Market) -> MarketRecord {
    MarketRecord {
        number,
        id: market.id.clone(),
        settings: market.settings.clone(),
        round: market.round,
        at: market.at,
        prices: market.prices,
        history: market.history.clone(),
    }
}

impl View {
    /// The view as bytes in parts of about 128 KiB, each made when it is asked for. Equal views give equal parts.
    pub fn parts(&self) -> impl Iterator<Item = Vec<u8>> {
        Parts { view: self, left: Left::Head, digest: Sha256::new() }
    }

    /// The view as bytes in one piece.
    pub fn snapshot(&self) -> Vec<u8> {
        self.parts().flatten().collect()
    }

    /// The view that a snapshot holds, from its parts one after another.
    ///
    /// # Errors
    /// When the bytes are not a whole snapshot of [`VERSION`].
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut view = Self::new();
        let mut digest = Sha256::new();
        let mut left = bytes;
        let mut has_head = false;
        let mut bids = Vec::new();
        loop {
            let (part, rest) = postcard::take_from_bytes::<Part<'_>>(left)
                .map_err(|error| SnapshotError::Unreadable { problem: error.to_string() })?;
            match part {
                Part::Head(head) if head.version != VERSION => {
                    return Err(SnapshotError::Version { found: head.version });
                }
                Part::Head(head) => {
                    has_head = true;
                    view.as_of = AsOf { sequence: head.sequence, at: head.at };
                    (view.round, view.rules) = (head.round, head.rules);
                }
                Part::Market(record) => view.put_back_market(*record),
                Part::Bid(number, bid) => bids.push((number, view.share(number, bid.into_owned()))),
                Part::Billing(record) => view.billing.put_back(*record),
                Part::End(written) => {
                    view.put_back_bids(bids);
                    let is_whole = has_head && rest.is_empty() && written == End::of(&view, digest);
                    return if is_whole { Ok(view) } else { Err(SnapshotError::Damaged) };
                }
            }
            digest.update(&left[..left.len() - rest.len()]);
            left = rest;
        }
    }

    fn put_back_market(&mut self, record: MarketRecord) {
        let MarketRecord { number, id, settings, round, at, prices, history } = record;
        self.market_names.insert(id.clone(), number);
        // Winners follow from the bids and are added up again as those are put back.
        let winners = Winners::default();
        self.markets.insert(number, Market { id, settings, round, at, prices, history, winners });
    }

    /// Puts all bids back at once: their names are entered in a table that is large enough.
    fn put_back_bids(&mut self, bids: Vec<(BidNumber, Bid)>) {
        self.names.reserve(bids.len());
        for (number, bid) in &bids {
            self.names.insert(bid.name(), *number);
            weigh(&mut self.markets, bid, 1);
        }
        self.bids = bids.into_iter().collect();
    }
}
