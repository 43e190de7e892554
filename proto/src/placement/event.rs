//! What placement has decided.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::{BidStands, is_false, is_zero};
use super::server::{LeaseChange, MarketNamed, ServerOrder};
use super::terms::{Amount, ClusterTerms, DataStoreTerms, Driver, HostTerms, KubernetesVersion, SiteRules};
use super::{HostNumber, MoveNumber, PlaneNumber, ServerNumber};
use crate::envelope::Refusal;
use crate::id::{
    ClusterId, DataStoreId, HostId, MarketId, PrincipalId, RegionName, ServerId, SizeName, StreamName,
    TenantId, ZoneName,
};
use crate::market::{BidNumber, LeaseNumber, SupplyCause};
use crate::time::Timestamp;

/// Why a host is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GoneCause {
    /// Its notice ran out.
    NoticeEnded,
    /// It left before its notice ran out.
    Left,
    /// It had given no notice.
    Died,
}

/// Why a replica may be lost, or is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RiskReason {
    /// No host near enough, with taints that are tolerated, takes newcomers.
    NoHosts,
    /// None of them is large enough.
    TooLarge,
    /// Those that could hold it are full.
    Full,
    /// There is a place, but it will not be there in time.
    TooLate,
}

/// A replica that may be lost, or is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Risk {
    /// Where it still is, if anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostNumber>,
    /// When that host is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// What stands in the way.
    pub why: RiskReason,
}

/// Hosts that would help.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct HostsAdvised {
    /// How many.
    pub hosts: u32,
    /// Where.
    pub region: RegionName,
    /// In which zone; absent where there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneName>,
    /// Of which size.
    pub capacity: Amount,
}

/// A replica that belongs on another host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaMove {
    /// Whose replica.
    pub plane: PlaneNumber,
    /// Where it is, if anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<HostNumber>,
    /// Where it belongs.
    pub to: HostNumber,
    /// When its host is gone, or that of a replica for which it makes room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
}

/// A move that is to be carried out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct PlaneMove {
    /// Its number.
    pub number: MoveNumber,
    /// Whose replica.
    pub plane: PlaneNumber,
    /// Where it is, if anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<HostNumber>,
    /// Where it goes.
    pub to: HostNumber,
    /// The order that says so.
    pub generation: u64,
}

/// How a plane is to be: all that somebody needs to know who makes it so. Each replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct PlaneOrder {
    /// Whose plane.
    pub tenant: TenantId,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Whether it is to go, with everything it has.
    pub deleted: bool,
    /// How many replicas; 0: it sleeps.
    pub replicas: u32,
    /// Where they are to be, in order. Fewer than `replicas` where some have no place yet.
    pub hosts: Vec<HostId>,
    /// Which version.
    pub version: KubernetesVersion,
    /// Which size.
    pub size: SizeName,
    /// What each replica takes.
    pub request: Amount,
    /// Where its data are kept.
    pub data_store: DataStoreId,
    /// What keeps them.
    pub driver: Driver,
}

/// What placement has decided. Planes and hosts are named by number; the events that introduce them
/// (`ClusterCreated`, `HostOffered`) carry their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum PlacementEvent {
    /// A command was not carried out.
    CommandRefused(Refusal),
    /// A cluster is to be.
    ClusterCreated {
        /// Its plane's number from now on.
        plane: PlaneNumber,
        /// Who asked.
        by: PrincipalId,
        /// Whose it is.
        tenant: TenantId,
        /// Its name.
        cluster: ClusterId,
        /// What it is to be.
        terms: ClusterTerms,
        /// Where its data are kept.
        data_store: DataStoreId,
    },
    /// A cluster is to be otherwise.
    ClusterChanged {
        /// Its plane.
        plane: PlaneNumber,
        /// Version of the terms now.
        version: u32,
        /// The terms.
        terms: ClusterTerms,
        /// Where its data are kept from now on.
        data_store: DataStoreId,
    },
    /// A cluster is to go.
    ClusterDeleted {
        /// Its plane.
        plane: PlaneNumber,
    },
    /// A deleted plane is gone.
    PlaneGone {
        /// Which one.
        plane: PlaneNumber,
    },
    /// A plane sleeps.
    PlaneSlept {
        /// Which one.
        plane: PlaneNumber,
    },
    /// A plane wakes, or is wanted again before it slept.
    PlaneWoken {
        /// Which one.
        plane: PlaneNumber,
    },
    /// A plane has another size.
    PlaneSized {
        /// Which one.
        plane: PlaneNumber,
        /// The size.
        size: SizeName,
    },
    /// How a plane really is.
    PlaneReported {
        /// Which one.
        plane: PlaneNumber,
        /// The order that is carried out so far.
        generation: u64,
        /// Hosts with a ready replica.
        ready_on: Vec<HostNumber>,
        /// The version that is served.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<KubernetesVersion>,
        /// Workers that have joined.
        workers: u32,
        /// Whether it is slower than it should be.
        #[serde(default, skip_serializing_if = "is_false")]
        slow: bool,
    },
    /// A plane was slower than it should be for as long as the rules allow.
    PlaneSlow {
        /// Which one.
        plane: PlaneNumber,
        /// Whether a replica moves to a host with more room; if not, there is none, and another host would help.
        moves: bool,
    },
    /// There is a host, or it has other terms.
    HostOffered {
        /// Its number.
        host: HostNumber,
        /// Its name.
        id: HostId,
        /// Its count of statements.
        generation: u64,
        /// What it is.
        terms: HostTerms,
    },
    /// A host goes.
    HostNoticed {
        /// Which one.
        host: HostNumber,
        /// When it is gone.
        gone_at: Timestamp,
        /// Replicas on it.
        replicas: u32,
    },
    /// A host stays.
    HostKept {
        /// Which one.
        host: HostNumber,
    },
    /// A host is gone.
    HostGone {
        /// Which one.
        host: HostNumber,
        /// Why.
        cause: GoneCause,
        /// Replicas that were lost with it.
        lost: u32,
    },
    /// There is a data store, or it has other terms.
    DataStoreOffered {
        /// Which one.
        data_store: DataStoreId,
        /// Its count of statements.
        generation: u64,
        /// What it is.
        terms: DataStoreTerms,
    },
    /// What an exchange decided.
    BidsReported {
        /// Which exchange.
        exchange: StreamName,
        /// The turn that is reported.
        sequence: u64,
        /// Which part of it.
        #[serde(default, skip_serializing_if = "is_zero")]
        part: u32,
        /// Markets that were opened.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        markets: Vec<MarketNamed>,
        /// Bids that stand now.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        placed: Vec<BidStands>,
        /// What became of leases, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        leases: Vec<LeaseChange>,
        /// Bids that ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ended: Vec<BidNumber>,
    },
    /// There are servers.
    ServersOffered {
        /// Whose.
        hypervisor: PrincipalId,
        /// In which market.
        market: MarketId,
        /// The number of the first that is new; the others follow.
        first: ServerNumber,
        /// Names of those that are new.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        servers: Vec<ServerId>,
        /// Those that were known, and are told again what they are to serve.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        again: Vec<ServerNumber>,
    },
    /// Servers go: none counts as supply any more, every lease on them has to move.
    ServersNoticed {
        /// Which.
        servers: Vec<ServerNumber>,
        /// When they are gone.
        gone_at: Timestamp,
        /// How many of them have a lease.
        leased: u32,
    },
    /// Servers stay.
    ServersKept {
        /// Which.
        servers: Vec<ServerNumber>,
    },
    /// Servers are gone.
    ServersGone {
        /// Which.
        servers: Vec<ServerNumber>,
        /// Why.
        cause: GoneCause,
        /// How many leases were lost with them, without a notice that was over.
        lost: u32,
    },
    /// A lease has to leave its server, because the server goes: the exchange is asked to give notice and another lease.
    LeaseDisplaced {
        /// Of which exchange.
        exchange: StreamName,
        /// Which lease.
        lease: LeaseNumber,
        /// When its server is gone.
        gone_at: Timestamp,
    },
    /// A lease has notice and no server: the exchange is told that it is over.
    LeaseUnserved {
        /// Of which exchange.
        exchange: StreamName,
        /// Which lease.
        lease: LeaseNumber,
    },
    /// What a hypervisor has in a market: the exchange is told.
    SupplyStated {
        /// Which exchange.
        exchange: StreamName,
        /// Which market.
        market: MarketId,
        /// Whose servers.
        hypervisor: PrincipalId,
        /// Grows with every statement about this hypervisor and market.
        generation: u64,
        /// Usable servers, leased or free, leaving ones left out.
        units: u32,
        /// Why the number is what it is.
        cause: SupplyCause,
        /// When servers that are no longer counted are gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gone_at: Option<Timestamp>,
        /// Leases whose server died.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lost: Vec<LeaseNumber>,
    },
    /// What a server is to serve from now on.
    ServerOrdered {
        /// Which one.
        server: ServerNumber,
        /// Grows with every order of the site.
        generation: u64,
        /// The order.
        order: ServerOrder,
    },
    /// The site has other rules.
    SiteRulesAdopted {
        /// What holds from now on.
        rules: SiteRules,
    },
    /// Replicas belong elsewhere. They are moved one after another, the most urgent first.
    MovesDecided {
        /// In the order in which there is room for them.
        moves: Vec<ReplicaMove>,
    },
    /// Moves that waited for one another are decided anew.
    MovesWithdrawn,
    /// Replicas are moved now.
    MovesBegun {
        /// Which.
        moves: Vec<PlaneMove>,
    },
    /// A replica is where it was to go, and no longer where it was.
    MoveDone {
        /// Which move.
        number: MoveNumber,
        /// Whose replica.
        plane: PlaneNumber,
    },
    /// A replica was not there in time; its move may begin again.
    MoveFailed {
        /// Which move.
        number: MoveNumber,
        /// Whose replica.
        plane: PlaneNumber,
    },
    /// How a plane is to be from now on.
    PlaneOrdered {
        /// Which one.
        plane: PlaneNumber,
        /// Grows with every order for the plane.
        generation: u64,
        /// The order.
        order: PlaneOrder,
        /// By when, where a host goes that a replica is on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gone_at: Option<Timestamp>,
    },
    /// A replica of a plane may be lost, or is missing.
    PlaneAtRisk {
        /// Which plane.
        plane: PlaneNumber,
        /// Of its replicas the one in most danger.
        risk: Risk,
    },
    /// No replica of a plane is at risk any more.
    PlaneSafe {
        /// Which plane.
        plane: PlaneNumber,
    },
    /// What would help; nothing, if nothing is needed any more.
    HostsAdvised {
        /// Hosts.
        advice: Vec<HostsAdvised>,
    },
}
