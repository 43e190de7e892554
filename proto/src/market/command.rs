//! What the market is asked.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::LeaseNumber;
use super::event::SupplyCause;
use super::terms::{BidOption, MarketSettings, Rules, Terms};
use crate::decode::tagged;
use crate::id::{BidId, ClusterId, CommandId, MarketId, PoolId, PrincipalId, SourceId, TenantId};
use crate::machine::{Command, CommandKey, Role};
use crate::time::Timestamp;

/// Places a bid. Its command id is the bid's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceBid {
    /// Id of the command and of the bid.
    pub id: CommandId,
    /// Whose bid it is.
    pub tenant: TenantId,
    /// The cluster that the servers are for.
    pub cluster: ClusterId,
    /// The pool within the cluster.
    pub pool: PoolId,
    /// How many servers.
    #[schemars(range(min = 1, max = 10_000))]
    pub quantity: u32,
    /// Fewer than this are worth nothing; equal to `quantity`: all or nothing.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub min_quantity: u32,
    /// Where, at which limit; each unit takes at most one.
    #[schemars(length(min = 1, max = 32))]
    pub options: Vec<BidOption>,
    /// Whether this is an on-demand order: it takes servers before the auction at the market's on-demand price, which is at
    /// most its limit, and never loses one to a bid. It has one option and stays in that market.
    #[serde(default, skip_serializing_if = "is_false")]
    pub on_demand: bool,
    /// When the bid ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The bid's name hashed, worked out while decoding.
    #[serde(skip)]
    pub key: CommandKey,
}

impl PlaceBid {
    /// Works out the bid's hashed name.
    pub fn seal(&mut self) {
        self.key = CommandKey::of_tenant(&self.tenant, self.id.as_str());
    }

    /// What the bid asks for.
    pub fn terms(&self) -> Terms {
        Terms {
            quantity: self.quantity,
            min_quantity: self.min_quantity,
            options: self.options.clone(),
            expires_at: self.expires_at,
        }
    }
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_one(quantity: &u32) -> bool {
    *quantity == 1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_false(said: &bool) -> bool {
    !*said
}

/// Replaces a bid's terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AmendBid {
    /// Id of the command.
    pub id: CommandId,
    /// Whose bid it is.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// The version that is amended: 1 for a bid that never was. Another version standing refuses the command.
    pub version: u32,
    /// The new terms, all of them.
    pub terms: Terms,
    /// Leases to give up first if the bid shrinks below what it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub give_up: Vec<LeaseNumber>,
    /// The bid's name hashed, worked out while decoding.
    #[serde(skip)]
    pub key: CommandKey,
}

impl AmendBid {
    /// Works out the bid's hashed name.
    pub fn seal(&mut self) {
        self.key = CommandKey::of_tenant(&self.tenant, self.bid.as_str());
    }
}

/// Ends a bid; what it holds is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelBid {
    /// Id of the command.
    pub id: CommandId,
    /// Whose bid it is.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// The bid's name hashed, worked out while decoding.
    #[serde(skip)]
    pub key: CommandKey,
}

/// Says that leaving units have been drained: they are released now instead of at `gone_at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeNotice {
    /// Id of the command.
    pub id: CommandId,
    /// Whose bid it is.
    pub tenant: TenantId,
    /// Which bid.
    pub bid: BidId,
    /// The leases that are drained.
    #[schemars(length(min = 1, max = 10_000))]
    pub leases: Vec<LeaseNumber>,
    /// The bid's name hashed, worked out while decoding.
    #[serde(skip)]
    pub key: CommandKey,
}

/// Says how many usable servers a source has in a market: all of them, leased or free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SupplyOffered {
    /// Id of the command.
    pub id: CommandId,
    /// Who has them. A hypervisor speaks only of itself.
    pub source: SourceId,
    /// Grows with every statement of the source about the market; an older one is refused.
    pub generation: u64,
    /// Where.
    pub market: MarketId,
    /// How many, absolute.
    #[schemars(range(max = 10_000_000))]
    pub units: u32,
    /// Why the number is what it is.
    #[serde(default)]
    pub cause: SupplyCause,
    /// When servers that are no longer counted will be gone, if sooner than the market's notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// Leases whose server died: they end at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LeaseNumber>,
}

/// Says that leases have ready workers: they are charged from now on. A worker speaks of its own lease; a source of
/// the market, for which nobody else watches workers, of any there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportReady {
    /// Id of the command.
    pub id: CommandId,
    /// Which leases.
    #[schemars(length(min = 1, max = 10_000))]
    pub leases: Vec<LeaseNumber>,
}

/// Says that ready workers of leases are dead: nothing is charged from their last heartbeat on, until they are ready
/// again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportDead {
    /// Id of the command.
    pub id: CommandId,
    /// Which leases.
    #[schemars(length(min = 1, max = 10_000))]
    pub leases: Vec<LeaseNumber>,
    /// When they were last heard of; charges older than a day stay.
    pub last_heartbeat_at: Timestamp,
}

/// Says that leaving workers of leases are drained and gone: the leases are released now instead of at `gone_at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportReleased {
    /// Id of the command.
    pub id: CommandId,
    /// Which leases.
    #[schemars(length(min = 1, max = 10_000))]
    pub leases: Vec<LeaseNumber>,
}

/// Says that the servers of leases go although their bids keep the units: each lease has to leave, and another one
/// replaces it. The old server stays until the new one is ready, or until `gone_at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveLeases {
    /// Id of the command.
    pub id: CommandId,
    /// Which leases.
    #[schemars(length(min = 1, max = 10_000))]
    pub leases: Vec<LeaseNumber>,
    /// When their servers are gone.
    pub gone_at: Timestamp,
}

/// Opens a market, or changes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefineMarket {
    /// Id of the command.
    pub id: CommandId,
    /// Which market.
    pub market: MarketId,
    /// What holds there from now on.
    pub settings: MarketSettings,
}

/// Sets what holds for the whole exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptRules {
    /// Id of the command.
    pub id: CommandId,
    /// What holds from now on.
    pub rules: Rules,
}

/// Which tenants a principal may speak for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Its role.
    pub role: Role,
    /// The principal.
    pub principal: PrincipalId,
    /// The tenants; `None`: every tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<TenantId>>,
}

/// Sets which principals are trusted for which tenants; who is not listed is trusted for none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptTrust {
    /// Id of the command.
    pub id: CommandId,
    /// Everybody who is trusted.
    pub trusted: Vec<Trust>,
}

/// What the market is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum MarketCommand {
    /// A tenant wants servers.
    PlaceBid(Arc<PlaceBid>),
    /// A tenant wants other terms.
    AmendBid(Arc<AmendBid>),
    /// A tenant wants out.
    CancelBid(CancelBid),
    /// A leaving unit is drained.
    AcknowledgeNotice(AcknowledgeNotice),
    /// A source says what it has.
    SupplyOffered(SupplyOffered),
    /// Workers of leases are ready.
    ReportReady(ReportReady),
    /// Workers of leases are dead.
    ReportDead(ReportDead),
    /// Leaving workers are gone.
    ReportReleased(ReportReleased),
    /// Servers go, units stay.
    MoveLeases(MoveLeases),
    /// An operator opens or changes a market.
    DefineMarket(DefineMarket),
    /// An operator changes the exchange's rules.
    AdoptRules(AdoptRules),
    /// An operator says who speaks for whom.
    AdoptTrust(AdoptTrust),
}

impl<'de> Deserialize<'de> for MarketCommand {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        tagged!(
            from,
            MarketCommand {
                PlaceBid,
                AmendBid,
                CancelBid,
                AcknowledgeNotice,
                SupplyOffered,
                ReportReady,
                ReportDead,
                ReportReleased,
                MoveLeases,
                DefineMarket,
                AdoptRules,
                AdoptTrust
            }
        )
    }
}

impl Command for MarketCommand {
    fn id(&self) -> &CommandId {
        match self {
            Self::PlaceBid(command) => &command.id,
            Self::AmendBid(command) => &command.id,
            Self::CancelBid(command) => &command.id,
            Self::AcknowledgeNotice(command) => &command.id,
            Self::SupplyOffered(command) => &command.id,
            Self::ReportReady(command) => &command.id,
            Self::ReportDead(command) => &command.id,
            Self::ReportReleased(command) => &command.id,
            Self::MoveLeases(command) => &command.id,
            Self::DefineMarket(command) => &command.id,
            Self::AdoptRules(command) => &command.id,
            Self::AdoptTrust(command) => &command.id,
        }
    }

    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::PlaceBid(command) => Some(&command.tenant),
            Self::AmendBid(command) => Some(&command.tenant),
            Self::CancelBid(command) => Some(&command.tenant),
            Self::AcknowledgeNotice(command) => Some(&command.tenant),
            _ => None,
        }
    }

    fn seal(&mut self, key: CommandKey) {
        let name = |tenant: &TenantId, bid: &BidId| CommandKey::of_tenant(tenant, bid.as_str());
        match self {
            // A bid goes by the name of its placement.
            Self::PlaceBid(command) => {
                let bid = Arc::make_mut(command);
                bid.key = key;
                // It is kept as long as the bid stands, and was read with room for more options.
                bid.options.shrink_to_fit();
            }
            Self::AmendBid(command) => Arc::make_mut(command).seal(),
            Self::CancelBid(command) => command.key = name(&command.tenant, &command.bid),
            Self::AcknowledgeNotice(command) => command.key = name(&command.tenant, &command.bid),
            _ => {}
        }
    }
}
