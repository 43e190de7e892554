//! What readers are given, as JSON: the answers of `/v1/bids` and `/v1/markets`, the same on the bus and over HTTP.

use proto::market::{
    BidNumber, BidOption, BidState, LeaseNumber, LossReason, MarketSettings, Prices, RoundNumber,
};
use proto::{BidId, Charge, ClusterId, MarketId, PoolId, Price, TenantId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AsOf;
use crate::billing::{BillLine, BillSegment, LedgerEntry, PricePart};

/// Some of a tenant's bids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bids {
    /// When this was so.
    pub as_of: AsOf,
    /// The bids, in the order in which they were placed.
    pub bids: Vec<Bid>,
    /// Where to go on, if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<BidNumber>,
}

/// One bid, alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BidAlone {
    /// When this was so.
    pub as_of: AsOf,
    /// The bid.
    #[serde(flatten)]
    pub bid: Bid,
}

/// A bid as its tenant sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bid {
    /// Its id, as its tenant named it.
    pub bid: BidId,
    /// Whose it is.
    pub tenant: TenantId,
    /// For which cluster.
    pub cluster: ClusterId,
    /// For which pool.
    pub pool: PoolId,
    /// What it is.
    pub state: BidState,
    /// How often its terms were set; an amendment names it.
    pub version: u32,
    /// How many servers it wants.
    pub quantity: u32,
    /// Fewer than this are worth nothing to it.
    pub min_quantity: u32,
    /// Whether it is an on-demand order: never outbid, at the market's on-demand price.
    #[serde(default, skip_serializing_if = "is_false")]
    pub on_demand: bool,
    /// Where, at which limit.
    pub options: Vec<BidOption>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When its terms last changed, or it ended.
    pub changed_at: Timestamp,
    /// Units it misses although a limit of its beats the price (paradoxically rejected): because a gang is cleared
    /// whole or not at all, this one or another. Absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_by: Option<u32>,
    /// Its units in sums.
    pub units: Units,
    /// What it holds, by number.
    pub leases: Vec<Leases>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_false(said: &bool) -> bool {
    !*said
}

/// A bid's units in sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Units {
    /// Won and not under notice.
    pub winning: u32,
    /// Those of the winning ones that may still wait for a server: they were told when it comes at the latest.
    pub waiting: u32,
    /// Wanted and not won.
    pub queued: u32,
    /// Under notice.
    pub leaving: u32,
}

/// Consecutive leases of which the same holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Leases {
    /// The first one's number.
    pub first: LeaseNumber,
    /// How many.
    pub units: u32,
    /// Where.
    pub market: MarketId,
    /// The round that awarded them.
    pub round: RoundNumber,
    /// When a server is there at the latest; absent where one was free at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_by: Option<Timestamp>,
    /// Their notice, if they are under one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
    /// How far they are.
    pub state: LeaseState,
    /// What they have cost together so far, in dollars.
    pub charge: Charge,
}

/// How far a lease is on its way from grant to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// It may still wait for a server: it was told when one is there at the latest.
    Granted,
    /// It has a server, which has no ready worker yet.
    Provisioning,
    /// Its worker is ready.
    Ready,
    /// Its worker was ready and is dead.
    WorkerDead,
    /// It is under notice.
    Leaving,
}

/// Some of a tenant's leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeasePage {
    /// When this was so.
    pub as_of: AsOf,
    /// The leases, by bid in the order of placement, then by number.
    pub leases: Vec<LeasesOfBid>,
    /// Where to go on, if there are more: with the bids after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<BidNumber>,
}

/// Leases with the bid that holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeasesOfBid {
    /// Whose bid.
    pub bid: BidId,
    /// For which cluster.
    pub cluster: ClusterId,
    /// For which pool.
    pub pool: PoolId,
    /// The leases.
    #[serde(flatten)]
    pub leases: Leases,
}

/// One lease, alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseAlone {
    /// When this was so.
    pub as_of: AsOf,
    /// Its number.
    pub lease: LeaseNumber,
    /// Whose bid.
    pub bid: BidId,
    /// The like leases that it is one of; absent once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Leases>,
    /// What it has cost, in dollars.
    pub charge: Charge,
    /// How that came about, from its grant on, without a gap.
    pub segments: Vec<LeaseSegment>,
}

/// A piece of a lease's time, with the prices it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseSegment {
    /// The piece.
    #[serde(flatten)]
    pub segment: BillSegment,
    /// What a unit paid and when, as far back as prices are kept one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prices: Vec<PricePart>,
}

/// A tenant's bill for a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bill {
    /// Up to when what runs on is counted.
    pub as_of: AsOf,
    /// Whose it is.
    pub tenant: TenantId,
    /// For which month, such as `2026-11`.
    pub month: String,
    /// The month's first instant.
    pub from: Timestamp,
    /// The next month's first instant.
    pub to: Timestamp,
    /// Whether nothing can change it any more.
    pub is_final: bool,
    /// What all its lines cost together, in dollars.
    pub total: Charge,
    /// Debits and credits of the whole bill; their sums are equal.
    pub ledger: Vec<LedgerEntry>,
    /// One for each bid and market.
    pub lines: Vec<BillLine>,
    /// What the lines are made of, in the same order, as far as it is kept one by one.
    pub segments: Vec<BillSegment>,
    /// Where to go on, if there are more lines or segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<usize>,
}

/// Why and until when a leaving lease is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// When the server is gone.
    pub gone_at: Timestamp,
    /// Why.
    pub reason: LossReason,
    /// The round that gave it.
    pub round: RoundNumber,
    /// The least limit that would have kept the lease, if a limit could have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<Price>,
}

/// What it takes to win so many units now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quote {
    /// When this was so.
    pub as_of: AsOf,
    /// How many units.
    pub units: u32,
    /// The least single limit at which all of them would win now, in dollars per hour; null where there are not so many
    /// servers.
    pub limit: Option<Price>,
    /// The options of a bid that would: the least legal limit in each market that is no lower.
    pub options: Vec<BidOption>,
}

/// Why a bid holds what it holds, in words and numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// When this was so.
    pub as_of: AsOf,
    /// Which bid.
    pub bid: BidId,
    /// What it is.
    pub state: BidState,
    /// How many servers it wants.
    pub quantity: u32,
    /// Its units in sums.
    pub units: Units,
    /// The same in words, a sentence each.
    pub because: Vec<String>,
    /// What it meets in each of its markets.
    pub options: Vec<WhyOption>,
    /// With these limits all its units would win now, however late they came; empty where there are not so many servers at
    /// any limit, absent where it has won all or is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wins_at: Option<Vec<BidOption>>,
}

/// What a bid meets in one of its markets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyOption {
    /// Which market.
    pub market: MarketId,
    /// The bid's limit there.
    pub limit: Price,
    /// Units that it has won there.
    pub won: u32,
    /// Units of other bids that are worth more than the limit to them.
    pub above: u64,
    /// Units of other bids with just that limit that stand before the bid's next unit: incumbents, and older ones.
    pub level: u64,
    /// The market's figures.
    #[serde(flatten)]
    pub prices: Prices,
}

/// Some of an exchange's markets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Markets {
    /// When this was so.
    pub as_of: AsOf,
    /// The markets, by name.
    pub markets: Vec<Market>,
    /// Where to go on, if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<MarketId>,
}

/// One market, alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MarketAlone {
    /// When this was so.
    pub as_of: AsOf,
    /// The market.
    #[serde(flatten)]
    pub market: Market,
}

/// A market as everybody sees it. Nothing in it can be traced to one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Market {
    /// Which market.
    pub market: MarketId,
    /// What one of its servers has, in words; added by whoever knows the operator's catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<String>,
    /// What its operator decided.
    pub settings: MarketSettings,
    /// The round that last changed its figures; 0 before the first.
    pub round: RoundNumber,
    /// When that was.
    pub at: Timestamp,
    /// The figures.
    #[serde(flatten)]
    pub prices: Prices,
    /// Of winners' limits; absent with few winning tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentiles: Option<Percentiles>,
}

/// Limits that so many in a hundred of the units won do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Percentiles {
    /// 20 in a hundred.
    pub p20: Price,
    /// Half of them.
    pub p50: Price,
    /// 80 in a hundred.
    pub p80: Price,
}

/// A piece of a market's past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// When this was so.
    pub as_of: AsOf,
    /// Which market.
    pub market: MarketId,
    /// What held from each instant until the next one's.
    pub points: Vec<Point>,
    /// Where to go on, if there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
}

/// What held from an instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// From when on.
    pub at: Timestamp,
    /// What every winner paid per hour; null without supply.
    pub price: Option<Price>,
    /// The least limit that would have won then; null without supply.
    pub lowest_winning_bid: Option<Price>,
    /// No unit sold below this.
    pub reserve: Price,
    /// The lowest price until the next point, where older changes were put together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<Price>,
    /// The highest price until the next point, where older changes were put together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<Price>,
}
