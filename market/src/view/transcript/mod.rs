//! What each round leaves for those who want to check it (DESIGN §5, rule 10): a record of its public figures and
//! of commitments to the bids it dealt with, chained by hash.
//!
//! - *Everybody* can check that records follow one another unchanged ([`check_chain`]), and that the prices they
//!   were shown are the prices that were recorded.
//! - *A tenant* gets the [`Opening`] of what it did, and can check that it is in the record of its round: the
//!   exchange cannot later pretend that a bid was never placed or said something else. Nobody without the
//!   opening learns anything from a commitment: it is salted with a secret, so that guessing the bid does not help.
//! - *An auditor* who has the journal and the secret folds the same events and gets the same records, byte for byte.
//!
//! A record tells how many bids were placed, amended and ended in all, in no order that says whose they were.

mod commitment;

use std::collections::BTreeMap;

use proto::market::{MarketEvent, MarketNumber, Prices, RoundNumber};
use proto::{MarketId, StreamName, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::commitment::{
    Act, ActKind, Acts, Commitment, Hash, Opening, SALTS_MAX, Salt, Salted, Salts, Secret,
};
use super::raw;

/// Version of the records' form; hashed with each.
pub const VERSION: u32 = 1;

/// What one round leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Version of this form.
    pub version: u32,
    /// The exchange.
    pub exchange: StreamName,
    /// Which round.
    pub round: RoundNumber,
    /// When it was.
    pub at: Timestamp,
    /// The batches of input that were decided since the round before: first and last sequence. A round that
    /// closes within a batch shares it with the next.
    pub sequences: (u64, u64),
    /// The figures of every market that they changed of, by name.
    pub markets: Vec<MarketFigures>,
    /// Commitments to what tenants did with their bids since the round before, ascending.
    pub commitments: Vec<Commitment>,
    /// The hash of the record before.
    pub previous: Hash,
}

/// A market's public figures as of a round; units won are told in total.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MarketFigures {
    /// Which market.
    pub market: MarketId,
    /// The figures.
    #[serde(flatten)]
    pub prices: Prices,
}

impl Record {
    /// SHA-256 over the record's JSON, which is what the next record points at.
    pub fn hash(&self) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(b"walras transcript record\n");
        // Plain data always has a text.
        hasher.update(serde_json::to_vec(self).unwrap_or_default());
        Hash(hasher.finalize().into())
    }

    /// Whether the record holds what an opening opens.
    pub fn holds(&self, opening: &Opening) -> bool {
        self.commitments.binary_search(&opening.commitment()).is_ok()
    }
}

/// What the first record of an exchange points at.
pub fn origin(exchange: &StreamName) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"walras transcript of ");
    hasher.update(exchange.as_str().as_bytes());
    Hash(hasher.finalize().into())
}

/// Records do not follow one another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of round {round} does not follow the one before it: {problem}")]
pub struct BrokenChain {
    /// The first round that does not.
    pub round: RoundNumber,
    /// In what.
    pub problem: &'static str,
}

/// Checks that records follow one another from `previous` on (of an exchange's first record: [`origin`]); gives
/// the last one's hash, to go on from.
///
/// # Errors
/// The first record that does not follow the one before it.
pub fn check_chain(previous: Hash, records: &[Record]) -> Result<Hash, BrokenChain> {
    let mut expected = previous;
    let mut before: Option<&Record> = None;
    for record in records {
        let broken = |problem| Err(BrokenChain { round: record.round, problem });
        if record.version != VERSION {
            return broken("its version is another");
        }
        if record.previous != expected {
            return broken("it points at another record");
        }
        if !record.commitments.is_sorted() {
            return broken("its commitments are out of order");
        }
        if let Some(before) = before {
            if record.exchange != before.exchange || record.round != before.round.wrapping_add(1) {
                return broken("it is not the next round of the exchange");
            }
            if record.at < before.at || record.sequences.0 < before.sequences.1 {
                return broken("time or input runs backwards");
            }
        }
        expected = record.hash();
        before = Some(record);
    }
    Ok(expected)
}

/// The fold that writes the records: what is known between two rounds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    exchange: StreamName,
    markets: BTreeMap<MarketNumber, MarketId>,
    previous: Hash,
    /// First sequence since the last round.
    first: Option<u64>,
    #[serde(with = "raw::text")]
    changed: BTreeMap<MarketId, Prices>,
    commitments: Vec<Commitment>,
}

impl Transcript {
    /// A transcript before an exchange's first event.
    pub fn new(exchange: &StreamName) -> Self {
        Self {
            exchange: exchange.clone(),
            markets: BTreeMap::new(),
            previous: origin(exchange),
            first: None,
            changed: BTreeMap::new(),
            commitments: Vec::new(),
        }
    }

    /// Folds one event; gives a record when it closed a round. The same secret must be given with every event of
    /// an exchange, or openings do not open.
    pub fn apply(
        &mut self,
        secret: &Secret,
        at: Timestamp,
        sequence: u64,
        event: &MarketEvent,
    ) -> Option<Record> {
        let first = *self.first.get_or_insert(sequence);
        match event {
            MarketEvent::MarketDefined { market, id, .. } => {
                self.markets.insert(*market, id.clone());
            }
            MarketEvent::PriceChanged { market, prices, .. } => {
                if let Some(id) = self.markets.get(market) {
                    self.changed.insert(id.clone(), *prices);
                }
            }
            MarketEvent::RoundClosed { round } => return Some(self.close(at, (first, sequence), *round)),
            other => self.commitments.extend(Opening::of(secret, other).map(|opening| opening.commitment())),
        }
        None
    }

    fn close(&mut self, at: Timestamp, sequences: (u64, u64), round: RoundNumber) -> Record {
        let mut commitments = std::mem::take(&mut self.commitments);
        commitments.sort_unstable();
        let changed = std::mem::take(&mut self.changed).into_iter();
        let record = Record {
            version: VERSION,
            exchange: self.exchange.clone(),
            round,
            at,
            sequences,
            markets: changed.map(|(market, prices)| MarketFigures { market, prices }).collect(),
            commitments,
            previous: self.previous,
        };
        self.previous = record.hash();
        self.first = None;
        record
    }

    /// The hash of the last record.
    pub const fn head(&self) -> Hash {
        self.previous
    }

    /// The fold's state as bytes, to go on from after a restart. Holds commitments and public figures only.
    pub fn snapshot(&self) -> Vec<u8> {
        // Plain data always has a form.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// The state that a snapshot holds; `None` if the bytes are none.
    pub fn restore(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}
