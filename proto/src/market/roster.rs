//! Leases with those who hold them: what the owner of an exchange tells whoever serves workers, who then goes on with
//! the events.

use serde::{Deserialize, Serialize};

use super::event::{LeaseSpan, LossReason};
use super::{BidNumber, LeaseNumber, MarketNumber};
use crate::id::{ClusterId, MarketId, PoolId, SourceId, TenantId};
use crate::time::Timestamp;

/// Under which question an exchange's owner tells its [`RosterState`].
pub const ROSTER_QUESTION: &str = "roster";

/// What an exchange knows of a lease's worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerStand {
    /// None was ready yet.
    #[default]
    Booting,
    /// It is ready, and charged.
    Ready,
    /// It was ready and is dead, and not charged.
    Dead,
}

/// The notice that a lease is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseNotice {
    /// When its server is gone.
    pub gone_at: Timestamp,
    /// Why.
    pub reason: LossReason,
}

/// Leases of a bid of which the same holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterLeases {
    /// Which.
    pub leases: LeaseSpan,
    /// Where.
    pub market: MarketNumber,
    /// What is known of their workers.
    pub worker: WorkerStand,
    /// The notice that they are under, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<LeaseNotice>,
}

/// A bid that holds leases, or may come to hold some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterBid {
    /// Its number.
    pub number: BidNumber,
    /// Whose it is.
    pub tenant: TenantId,
    /// For which cluster.
    pub cluster: ClusterId,
    /// For which pool.
    pub pool: PoolId,
    /// Its leases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<RosterLeases>,
}

/// A market and who has servers there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterMarket {
    /// Its number.
    pub number: MarketNumber,
    /// Its name.
    pub id: MarketId,
    /// Who ever said to have servers there.
    pub sources: Vec<SourceId>,
}

/// All leases of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterState {
    /// As of which place in the exchange's stream.
    pub sequence: u64,
    /// The number that the next lease will have.
    pub next_lease: LeaseNumber,
    /// The markets.
    pub markets: Vec<RosterMarket>,
    /// The bids.
    pub bids: Vec<RosterBid>,
}
