//! What the market tells those whom it concerns: answers to the principal that placed a bid, public reports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RoundNumber;
use super::event::{LeaseSpan, LossReason, Prices, ReleaseReason};
use crate::envelope::Refused;
use crate::id::{BidId, ClusterId, CommandId, MarketId, PoolId, TenantId};
use crate::money::Price;
use crate::time::Timestamp;

/// What a bid is. Units that are leaving are told apart from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BidState {
    /// It stands and holds nothing.
    Queued,
    /// It holds fewer units than it wants.
    PartlyWon,
    /// It holds all it wants.
    Won,
    /// It stands, holds nothing any more, and units of it are leaving.
    Losing,
    /// Its tenant ended it.
    Cancelled,
    /// Its time is over.
    Expired,
    /// It never stood.
    Refused,
}

/// A command was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// The command's id.
    pub id: CommandId,
    /// Its tenant, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The bid it concerns, if it concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bid: Option<BidId>,
    /// The bid's version now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Where in the machine's stream it was decided: a read can wait for it.
    pub sequence: u64,
}

/// A bid won units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Awarded {
    /// Whose bid.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// For which cluster.
    pub cluster: ClusterId,
    /// For which pool.
    pub pool: PoolId,
    /// Where.
    pub market: MarketId,
    /// The leases, one a unit.
    pub leases: LeaseSpan,
    /// In which round.
    pub round: RoundNumber,
    /// The bid's limit there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Price>,
    /// The price per hour as of this round.
    pub price: Option<Price>,
    /// When a server will be there at the latest, if all are still occupied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_by: Option<Timestamp>,
}

/// Units have to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Noticed {
    /// Whose bid.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// For which cluster.
    pub cluster: ClusterId,
    /// For which pool.
    pub pool: PoolId,
    /// Where.
    pub market: MarketId,
    /// The leases that leave.
    pub leases: LeaseSpan,
    /// In which round; for the tenant's own exit, after which.
    pub round: RoundNumber,
    /// When their servers are gone.
    pub gone_at: Timestamp,
    /// Why.
    pub reason: LossReason,
    /// The bid's limit there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Price>,
    /// The price per hour as of this round.
    pub price: Option<Price>,
    /// The least limit that would have kept them, if a limit could have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<Price>,
}

/// Units that wait for a server get it later than they were told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delayed {
    /// Whose bid.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// Where.
    pub market: MarketId,
    /// The leases that wait.
    pub leases: LeaseSpan,
    /// In which round.
    pub round: RoundNumber,
    /// When a server will be there at the latest.
    pub available_by: Timestamp,
}

/// Units need not leave after all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Withdrawn {
    /// Whose bid.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// Where.
    pub market: MarketId,
    /// The leases that stay.
    pub leases: LeaseSpan,
    /// In which round.
    pub round: RoundNumber,
}

/// Leases have ready workers: they are charged from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Readied {
    /// Whose bid.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// Where.
    pub market: MarketId,
    /// The leases.
    pub leases: LeaseSpan,
}

/// Workers of leases are dead: nothing is charged until they are ready again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Died {
    /// Whose bid.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// Where.
    pub market: MarketId,
    /// The leases.
    pub leases: LeaseSpan,
    /// Since when: nothing is charged from then on.
    pub since: Timestamp,
}

/// Leases are over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// Whose bid.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// Where.
    pub market: MarketId,
    /// The leases.
    pub leases: LeaseSpan,
    /// Why.
    pub reason: ReleaseReason,
}

/// A bid's time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expired {
    /// Whose bid.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
}

/// What the principal that placed a bid is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum Answer {
    /// A command was carried out.
    Accepted(Accepted),
    /// A command was not carried out.
    Refused(Refused),
    /// A bid won units.
    Awarded(Awarded),
    /// Units have to leave.
    NoticeGiven(Noticed),
    /// Units need not leave after all.
    NoticeWithdrawn(Withdrawn),
    /// Units that wait for a server get it later than they were told.
    Delayed(Delayed),
    /// Leases have ready workers.
    Ready(Readied),
    /// Workers of leases are dead.
    Dead(Died),
    /// Leases are over.
    Released(Released),
    /// A bid's time is over.
    Expired(Expired),
}

/// A market's public figures. Nothing in it can be traced to one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MarketReport {
    /// Which market.
    pub market: MarketId,
    /// As of which round.
    pub round: RoundNumber,
    /// Of when.
    pub at: Timestamp,
    /// The figures.
    #[serde(flatten)]
    pub prices: Prices,
}
