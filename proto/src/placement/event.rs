//! What placement has decided.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::{BidStands, is_false};
use super::terms::{Amount, ClusterTerms, DataStoreTerms, Driver, HostTerms, KubernetesVersion, SiteRules};
use super::{HostNumber, MoveNumber, PlaneNumber};
use crate::envelope::Refusal;
use crate::id::{
    ClusterId, DataStoreId, HostId, PrincipalId, RegionName, SizeName, StreamName, TenantId, ZoneName,
};
use crate::market::BidNumber;
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
    /// Which bids stand.
    BidsReported {
        /// Of which exchange.
        exchange: StreamName,
        /// The last turn that is reported.
        sequence: u64,
        /// Bids that stand now.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        placed: Vec<BidStands>,
        /// Bids that ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ended: Vec<BidNumber>,
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
