//! What placement is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::PlaneNumber;
use super::server::{KeepServers, LeaseChange, MarketNamed, NoticeServers, OfferServers, ReportServersGone};
use super::terms::{ClusterTerms, DataStoreTerms, HostTerms, KubernetesVersion, SiteRules};
use crate::decode::tagged;
use crate::id::{ClusterId, CommandId, DataStoreId, HostId, StreamName, TenantId};
use crate::machine::Command;
use crate::market::BidNumber;
use crate::time::Timestamp;

/// A tenant wants a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCluster {
    /// Id of the command.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name, unique for its tenant while it exists.
    pub cluster: ClusterId,
    /// What it is to be.
    pub terms: ClusterTerms,
}

/// A tenant wants its cluster otherwise: another version, availability, data store, sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeCluster {
    /// Id of the command.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which one.
    pub cluster: ClusterId,
    /// The version of the terms that are replaced, counted from 1. Others in force refuse the command.
    pub version: u32,
    /// The new terms, all of them.
    pub terms: ClusterTerms,
}

/// A tenant gives its cluster up, with everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteCluster {
    /// Id of the command.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which one.
    pub cluster: ClusterId,
}

/// A cluster is wanted: if it sleeps, it wakes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WakeCluster {
    /// Id of the command.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which one.
    pub cluster: ClusterId,
}

/// Says that there is a host, or that it has other terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferHost {
    /// Id of the command.
    pub id: CommandId,
    /// Which host.
    pub host: HostId,
    /// Grows with every statement about the host; an older one is refused.
    pub generation: u64,
    /// What it is.
    pub terms: HostTerms,
}

/// Announces that a host goes. A sooner instant replaces a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoticeHost {
    /// Id of the command.
    pub id: CommandId,
    /// Which host.
    pub host: HostId,
    /// When it is gone.
    pub gone_at: Timestamp,
}

/// Takes a notice back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepHost {
    /// Id of the command.
    pub id: CommandId,
    /// Which host.
    pub host: HostId,
}

/// Says that a host is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportHostGone {
    /// Id of the command.
    pub id: CommandId,
    /// Which host.
    pub host: HostId,
}

/// Says that there is a data store, or that it has other terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferDataStore {
    /// Id of the command.
    pub id: CommandId,
    /// Which one.
    pub data_store: DataStoreId,
    /// Grows with every statement about it; an older one is refused.
    pub generation: u64,
    /// What it is.
    pub terms: DataStoreTerms,
}

/// Says how a plane really is. Said when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportPlane {
    /// Id of the command.
    pub id: CommandId,
    /// Which plane.
    pub plane: PlaneNumber,
    /// The order that is carried out so far; a report on an older one than was reported is refused.
    pub generation: u64,
    /// Hosts with a ready replica, in order.
    #[schemars(length(max = 64))]
    pub ready_on: Vec<HostId>,
    /// The version that is served, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<KubernetesVersion>,
    /// Workers that have joined.
    #[schemars(range(max = 1_000_000))]
    pub workers: u32,
    /// Whether it answers, commits or reconciles more slowly than it should.
    #[serde(default, skip_serializing_if = "is_false")]
    pub slow: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
pub(super) fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as above
pub(super) fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Says that a deleted plane is gone, with everything it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportPlaneGone {
    /// Id of the command.
    pub id: CommandId,
    /// Which plane.
    pub plane: PlaneNumber,
}

/// A bid that came to stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BidStands {
    /// Its number.
    pub bid: BidNumber,
    /// Whose it is.
    pub tenant: TenantId,
    /// For which cluster.
    pub cluster: ClusterId,
}

/// Says what a turn of an exchange means for a site: which bids came to stand and which ended, which leases were granted,
/// noticed and released. What is too much for one command is said in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportBids {
    /// Id of the command.
    pub id: CommandId,
    /// Which exchange.
    pub exchange: StreamName,
    /// The turn that is reported; one that was reported already is refused.
    pub sequence: u64,
    /// Which part of the turn, counted from 0; one that was reported already is refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// Markets that were opened, with their numbers in the exchange.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4_096))]
    pub markets: Vec<MarketNamed>,
    /// Bids that stand now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4_096))]
    pub placed: Vec<BidStands>,
    /// What became of leases, in order, after the bids that stand now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4_096))]
    pub leases: Vec<LeaseChange>,
    /// Bids that ended, last of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4_096))]
    pub ended: Vec<BidNumber>,
}

/// Sets what holds for the whole site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptSiteRules {
    /// Id of the command.
    pub id: CommandId,
    /// What holds from now on.
    pub rules: SiteRules,
}

/// What placement is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum PlacementCommand {
    /// A tenant wants a cluster.
    CreateCluster(CreateCluster),
    /// A tenant wants it otherwise.
    ChangeCluster(ChangeCluster),
    /// A tenant gives it up.
    DeleteCluster(DeleteCluster),
    /// A cluster is wanted.
    WakeCluster(WakeCluster),
    /// There is a host.
    OfferHost(OfferHost),
    /// A host goes.
    NoticeHost(NoticeHost),
    /// It stays after all.
    KeepHost(KeepHost),
    /// A host is gone.
    ReportHostGone(ReportHostGone),
    /// There is a data store.
    OfferDataStore(OfferDataStore),
    /// How a plane is.
    ReportPlane(ReportPlane),
    /// A plane is gone.
    ReportPlaneGone(ReportPlaneGone),
    /// What an exchange decided.
    ReportBids(ReportBids),
    /// There are servers.
    OfferServers(OfferServers),
    /// Servers go.
    NoticeServers(NoticeServers),
    /// They stay after all.
    KeepServers(KeepServers),
    /// Servers are gone.
    ReportServersGone(ReportServersGone),
    /// An operator changes the site's rules.
    AdoptSiteRules(AdoptSiteRules),
}

impl<'de> Deserialize<'de> for PlacementCommand {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        tagged!(
            from,
            PlacementCommand {
                CreateCluster,
                ChangeCluster,
                DeleteCluster,
                WakeCluster,
                OfferHost,
                NoticeHost,
                KeepHost,
                ReportHostGone,
                OfferDataStore,
                ReportPlane,
                ReportPlaneGone,
                ReportBids,
                OfferServers,
                NoticeServers,
                KeepServers,
                ReportServersGone,
                AdoptSiteRules
            }
        )
    }
}

impl Command for PlacementCommand {
    fn id(&self) -> &CommandId {
        match self {
            Self::CreateCluster(command) => &command.id,
            Self::ChangeCluster(command) => &command.id,
            Self::DeleteCluster(command) => &command.id,
            Self::WakeCluster(command) => &command.id,
            Self::OfferHost(command) => &command.id,
            Self::NoticeHost(command) => &command.id,
            Self::KeepHost(command) => &command.id,
            Self::ReportHostGone(command) => &command.id,
            Self::OfferDataStore(command) => &command.id,
            Self::ReportPlane(command) => &command.id,
            Self::ReportPlaneGone(command) => &command.id,
            Self::ReportBids(command) => &command.id,
            Self::OfferServers(command) => &command.id,
            Self::NoticeServers(command) => &command.id,
            Self::KeepServers(command) => &command.id,
            Self::ReportServersGone(command) => &command.id,
            Self::AdoptSiteRules(command) => &command.id,
        }
    }

    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::CreateCluster(command) => Some(&command.tenant),
            Self::ChangeCluster(command) => Some(&command.tenant),
            Self::DeleteCluster(command) => Some(&command.tenant),
            Self::WakeCluster(command) => Some(&command.tenant),
            _ => None,
        }
    }
}
