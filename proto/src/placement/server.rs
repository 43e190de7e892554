//! Servers of hypervisors, the leases on them, and what is ordered for each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, CommandId, MarketId, PrincipalId, ServerId, StreamName, TenantId};
use crate::market::{BidNumber, LeaseNumber, LeaseSpan, MarketNumber};
use crate::time::Timestamp;

/// Says that servers are ready to be leased. Of those that are known already it is told again what they are to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferServers {
    /// Id of the command.
    pub id: CommandId,
    /// Who has them. A hypervisor speaks only of itself.
    pub hypervisor: PrincipalId,
    /// In which market they are sold.
    pub market: MarketId,
    /// Their names.
    #[schemars(length(min = 1, max = 1_024))]
    pub servers: Vec<ServerId>,
}

/// Announces that servers go. A sooner instant replaces a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoticeServers {
    /// Id of the command.
    pub id: CommandId,
    /// Who has them.
    pub hypervisor: PrincipalId,
    /// Which; all of the hypervisor, if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_024))]
    pub servers: Vec<ServerId>,
    /// When they are gone.
    pub gone_at: Timestamp,
}

/// Takes notices of servers back. Leases that were told to move go on moving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepServers {
    /// Id of the command.
    pub id: CommandId,
    /// Who has them.
    pub hypervisor: PrincipalId,
    /// Which; all of the hypervisor, if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_024))]
    pub servers: Vec<ServerId>,
}

/// Says that servers are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportServersGone {
    /// Id of the command.
    pub id: CommandId,
    /// Who had them.
    pub hypervisor: PrincipalId,
    /// Which; all of the hypervisor, if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_024))]
    pub servers: Vec<ServerId>,
}

/// What an exchange calls a market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MarketNamed {
    /// Its number there.
    pub market: MarketNumber,
    /// Its name.
    pub id: MarketId,
}

/// What became of leases of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum LeaseChange {
    /// They were granted. Their numbers follow the round of the award, then the limit, then the age of the bid.
    Awarded {
        /// To which bid.
        bid: BidNumber,
        /// Where.
        market: MarketNumber,
        /// Which.
        leases: LeaseSpan,
        /// The first of the leases that they replace one for one, if they replace any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<LeaseNumber>,
    },
    /// They have to leave.
    Noticed {
        /// Which.
        leases: LeaseSpan,
        /// By when.
        gone_at: Timestamp,
    },
    /// They need not leave after all.
    Withdrawn {
        /// Which.
        leases: LeaseSpan,
    },
    /// They are over.
    Released {
        /// Which.
        leases: LeaseSpan,
    },
}

impl LeaseChange {
    /// Which leases it is about.
    pub const fn leases(self) -> LeaseSpan {
        match self {
            Self::Awarded { leases, .. }
            | Self::Noticed { leases, .. }
            | Self::Withdrawn { leases }
            | Self::Released { leases } => leases,
        }
    }
}

/// The lease that a server serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ServedLease {
    /// Of which exchange.
    pub exchange: StreamName,
    /// Its number there.
    pub lease: LeaseNumber,
    /// In which market.
    pub market: MarketId,
    /// Whose it is.
    pub tenant: TenantId,
    /// For which cluster.
    pub cluster: ClusterId,
}

/// How a server is to be: all that its hypervisor needs to know. Each replaces the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ServerOrder {
    /// The lease that it is to be booted for; none: it is to be empty, and what runs there is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<ServedLease>,
    /// When it is to be taken from the lease, if the lease has notice; another order may come before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
}

/// An order for one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderedServer {
    /// Which server.
    pub server: ServerId,
    /// Grows with every order of the site. An order that is not newer than the last is not carried out.
    pub generation: u64,
    /// How it is to be.
    #[serde(flatten)]
    pub order: ServerOrder,
}

/// What a hypervisor is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerOrders {
    /// The machine that decided.
    pub machine: String,
    /// Its stream.
    pub stream: StreamName,
    /// The turn that they follow from.
    pub sequence: u64,
    /// Its instant.
    pub at: Timestamp,
    /// In order.
    #[schemars(length(min = 1, max = 1_024))]
    pub orders: Vec<OrderedServer>,
}
