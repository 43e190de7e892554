//! What the market has decided.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::{AmendBid, PlaceBid, Trust};
use super::terms::{MarketSettings, Rules};
use super::{BidNumber, LeaseNumber, MarketNumber, RoundNumber};
use crate::envelope::Refusal;
use crate::id::{MarketId, PrincipalId, SourceId};
use crate::money::Price;
use crate::time::Timestamp;

/// Why a unit got a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossReason {
    /// Others offer more.
    Outbid,
    /// There are fewer servers.
    Supply,
    /// The reserve rose above the limit.
    Reserve,
    /// The server's host leaves.
    Host,
    /// The unit moves to another market.
    Moved,
    /// An operator took it.
    Operator,
    /// The tenant cancelled the bid.
    Cancelled,
    /// The bid's time is over.
    Expired,
    /// The tenant asked for fewer units, or gave this one up.
    Reduced,
}

impl LossReason {
    /// Whether such a notice is taken back when the bid wins again: not where the server goes whatever the bid does, nor
    /// where the tenant let go.
    pub const fn is_withdrawable(self) -> bool {
        matches!(self, Self::Outbid | Self::Supply | Self::Reserve | Self::Moved)
    }

    /// Whether the tenant itself let go (DESIGN §5, rule 7): such a notice is never withdrawn.
    pub const fn is_own_exit(self) -> bool {
        matches!(self, Self::Cancelled | Self::Expired | Self::Reduced)
    }
}

/// Why a lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseReason {
    /// Its notice ran out.
    NoticeEnded,
    /// The worker was drained before its notice ran out.
    Acknowledged,
    /// It never got a server before its bid lost it again.
    NeverServed,
    /// Its server died.
    ServerLost,
    /// Its server had no ready worker in the time that the rules allow.
    ProvisioningTimedOut,
    /// Its worker stayed dead for longer than the rules allow.
    WorkerDead,
    /// The lease that replaces it has a ready worker.
    Replaced,
}

/// Why a source's supply is what it is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SupplyCause {
    /// Its inventory, as it is.
    #[default]
    Inventory,
    /// Servers became ready.
    Ready,
    /// Servers failed.
    Failed,
    /// A host announced that it leaves.
    Host,
    /// An operator withdrew or added servers.
    Operator,
}

/// Consecutive leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct LeaseSpan {
    /// The first one's number.
    pub first: LeaseNumber,
    /// How many.
    pub units: u32,
}

impl LeaseSpan {
    /// The number after the last one's.
    pub const fn end(self) -> LeaseNumber {
        self.first + self.units as u64
    }

    /// Whether a lease is among these.
    pub const fn contains(self, lease: LeaseNumber) -> bool {
        self.first <= lease && lease < self.end()
    }
}

/// What stands beside each other wherever a price is shown (DESIGN §5, rule 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Prices {
    /// What every spot winner pays per hour; `None` without supply.
    pub price: Option<Price>,
    /// The least legal limit with which a youngest one-unit bid would win now; `None` without supply.
    pub lowest_winning_bid: Option<Price>,
    /// No unit sells below this.
    pub reserve: Price,
    /// Servers that the auction has: usable ones, without those held back and those of on-demand orders.
    pub supply: u32,
    /// Units won.
    pub sold: u32,
    /// Units wanted, winning or not.
    pub wanted: u64,
    /// Servers that on-demand orders have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub on_demand: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(units: &u32) -> bool {
    *units == 0
}

/// What the market has decided. Bids, leases and markets are named by number; the events that introduce them
/// (`BidPlaced`, `UnitsAwarded`, `MarketDefined`) carry their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum MarketEvent {
    /// A command was not carried out.
    CommandRefused(Refusal),
    /// A bid stands.
    BidPlaced {
        /// Its number from now on.
        number: BidNumber,
        /// Who placed it and is told of it.
        by: PrincipalId,
        /// The bid.
        bid: Arc<PlaceBid>,
    },
    /// A bid has other terms.
    BidAmended {
        /// Which bid.
        number: BidNumber,
        /// Its version now.
        version: u32,
        /// The amendment.
        amendment: Arc<AmendBid>,
    },
    /// A bid was cancelled.
    BidCancelled {
        /// Which bid.
        number: BidNumber,
    },
    /// A bid's time is over.
    BidExpired {
        /// Which bid.
        number: BidNumber,
    },
    /// Leaving units were drained early.
    NoticeAcknowledged {
        /// Which bid.
        number: BidNumber,
        /// How many leases.
        units: u32,
    },
    /// A source's supply in a market was stated.
    SupplyChanged {
        /// Which market.
        market: MarketNumber,
        /// Who has the servers.
        source: SourceId,
        /// The source's count of statements.
        generation: u64,
        /// How many servers it has.
        units: u32,
        /// How many all sources have together.
        supply: u32,
        /// Why.
        cause: SupplyCause,
        /// When the servers no longer counted are gone, if sooner than the market's notice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gone_at: Option<Timestamp>,
    },
    /// A market was opened or changed.
    MarketDefined {
        /// Its number.
        market: MarketNumber,
        /// Its name.
        id: MarketId,
        /// What holds there from now on.
        settings: MarketSettings,
    },
    /// The exchange has other rules.
    RulesAdopted {
        /// What holds from now on.
        rules: Rules,
    },
    /// Other principals are trusted.
    TrustAdopted {
        /// Everybody who is trusted from now on.
        trusted: Vec<Trust>,
    },
    /// A bid won units; each is a lease.
    UnitsAwarded {
        /// Which bid.
        number: BidNumber,
        /// Where.
        market: MarketNumber,
        /// The new leases.
        leases: LeaseSpan,
        /// In which round.
        round: RoundNumber,
        /// When a server will be there at the latest, if all are still occupied by leaving units.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        available_by: Option<Timestamp>,
    },
    /// Units that a bid keeps get other leases in place of those that have to leave.
    UnitsMoved {
        /// Which bid.
        number: BidNumber,
        /// Where.
        market: MarketNumber,
        /// The new leases.
        leases: LeaseSpan,
        /// The first of the leases that they replace, one for one.
        replaces: LeaseNumber,
        /// After which round.
        round: RoundNumber,
        /// When a server will be there at the latest, if all are still occupied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        available_by: Option<Timestamp>,
    },
    /// Units have to leave.
    NoticeGiven {
        /// Which bid.
        number: BidNumber,
        /// Where.
        market: MarketNumber,
        /// The leases that leave.
        leases: LeaseSpan,
        /// In which round; for the tenant's own exit, after which.
        round: RoundNumber,
        /// When their servers are gone.
        gone_at: Timestamp,
        /// Why.
        reason: LossReason,
        /// The least limit that would have kept them, if a limit could have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept_by: Option<Price>,
    },
    /// Units need not leave after all.
    NoticeWithdrawn {
        /// Which bid.
        number: BidNumber,
        /// Where.
        market: MarketNumber,
        /// The leases that stay.
        leases: LeaseSpan,
        /// In which round.
        round: RoundNumber,
    },
    /// Units that wait for a server get it later than they were told: a unit whose server they were promised stays
    /// after all, or servers went away.
    UnitsDelayed {
        /// Which bid.
        number: BidNumber,
        /// Where.
        market: MarketNumber,
        /// The leases that wait.
        leases: LeaseSpan,
        /// In which round.
        round: RoundNumber,
        /// When a server will be there at the latest.
        available_by: Timestamp,
    },
    /// Leases have ready workers: they are charged from now on.
    WorkersReady {
        /// Which bid.
        number: BidNumber,
        /// Where.
        market: MarketNumber,
        /// The leases.
        leases: LeaseSpan,
    },
    /// Workers of leases are dead: nothing is charged until they are ready again.
    WorkersDead {
        /// Which bid.
        number: BidNumber,
        /// Where.
        market: MarketNumber,
        /// The leases.
        leases: LeaseSpan,
        /// Since when.
        since: Timestamp,
    },
    /// Leases are over, their servers free.
    UnitsReleased {
        /// Which bid.
        number: BidNumber,
        /// Where.
        market: MarketNumber,
        /// The leases.
        leases: LeaseSpan,
        /// Why.
        reason: ReleaseReason,
    },
    /// A bid wins less than its limits would suggest at the round's prices: a gang that is left out, or a bid that a
    /// gang keeps out (paradoxically rejected, DESIGN §5, rule 4).
    BidPassedOver {
        /// Which bid.
        number: BidNumber,
        /// In which round that began or changed.
        round: RoundNumber,
        /// Units that it misses; none any more: it is no longer passed over.
        short_by: u32,
    },
    /// A market's public figures changed with a round.
    PriceChanged {
        /// Which market.
        market: MarketNumber,
        /// In which round.
        round: RoundNumber,
        /// The figures.
        #[serde(flatten)]
        prices: Prices,
    },
    /// A round is over.
    RoundClosed {
        /// Which round.
        round: RoundNumber,
    },
    /// A bid that ended long ago is no longer known by name.
    BidForgotten {
        /// Which bid.
        number: BidNumber,
    },
}
