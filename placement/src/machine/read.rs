//! A site as others read it: clusters for their tenants, orders for who carries them out, all of it for operators.

use proto::placement::{
    ClusterTerms, DataStoreTerms, Driver, HostTerms, HostsAdvised, KubernetesVersion, PlaneNumber,
    PlaneOrder, RiskReason, SiteRules,
};
use proto::{ClusterId, DataStoreId, HostId, SizeName, StreamName, TenantId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placement;
use super::record::{PlaneRecord, amount};
use crate::servers::ServersView;

/// How a plane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlaneState {
    /// It was not ready yet.
    Creating,
    /// Every replica is ready, as ordered.
    Ready,
    /// It serves, and is being changed or moved.
    Changing,
    /// It has no ready replica.
    Unavailable,
    /// It sleeps until somebody wants it.
    Asleep,
    /// It is being deleted.
    Deleting,
}

/// A tenant's cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterView {
    /// Its name.
    pub cluster: ClusterId,
    /// The number of its plane.
    pub plane: PlaneNumber,
    /// How it is.
    pub state: PlaneState,
    /// Version of its terms.
    pub version: u32,
    /// What its tenant asked for.
    pub terms: ClusterTerms,
    /// The Kubernetes version that is served, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<KubernetesVersion>,
    /// Replicas that it is to have.
    pub replicas: u32,
    /// Replicas that are ready.
    pub ready: u32,
    /// Workers that have joined.
    pub workers: u32,
    /// Bids that stand for it.
    pub bids: u32,
    /// Its size.
    pub size: SizeName,
    /// Where its data are kept.
    pub data_store: DataStoreId,
    /// What keeps them.
    pub driver: Driver,
    /// Why a replica may be lost or is missing, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_risk: Option<RiskReason>,
}

/// Clusters of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClustersView {
    /// By name.
    pub clusters: Vec<ClusterView>,
}

/// An order, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// Which plane.
    pub plane: PlaneNumber,
    /// Grows with every order for the plane.
    pub generation: u64,
    /// The order.
    pub order: PlaneOrder,
    /// By when, where a host goes that a replica is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// The newest order that was reported to be carried out.
    pub reported: u64,
    /// Workers that have joined, as was reported.
    pub workers: u32,
    /// Whether it was reported to be slow.
    pub slow: bool,
}

/// Every order in force, as of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersView {
    /// The last turn that is in them.
    pub sequence: u64,
    /// By plane.
    pub orders: Vec<OrderView>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostView {
    /// Its name.
    pub host: HostId,
    /// The newest statement about it.
    pub generation: u64,
    /// What it is.
    pub terms: HostTerms,
    /// When it is gone, if it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// What is free for planes, the surge reserve taken off.
    pub free: proto::placement::Amount,
    /// Replicas that belong there.
    pub replicas: u32,
}

/// A data store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataStoreView {
    /// Its name.
    pub data_store: DataStoreId,
    /// The newest statement about it.
    pub generation: u64,
    /// What it is.
    pub terms: DataStoreTerms,
    /// What its planes take of it together.
    pub units: u64,
}

/// A whole site but for its clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SiteView {
    /// What holds.
    pub rules: SiteRules,
    /// By name.
    pub hosts: Vec<HostView>,
    /// By name.
    pub data_stores: Vec<DataStoreView>,
    /// Planes there are.
    pub planes: u32,
    /// Planes that sleep.
    pub asleep: u32,
    /// Planes that are slower than they should be.
    pub slow: u32,
    /// Planes with a replica at risk, by why.
    pub risks: std::collections::BTreeMap<RiskReason, u32>,
    /// Moves that have begun and are not done.
    pub moving: u32,
    /// Moves that wait.
    pub waiting: u32,
    /// What would help.
    pub advice: Vec<HostsAdvised>,
    /// The last turn of each exchange whose bids were reported.
    pub routed: std::collections::BTreeMap<StreamName, u64>,
    /// Servers of hypervisors, and the leases on them.
    pub servers: ServersView,
}

impl Placement {
    /// Clusters of a tenant; with a name, that one only.
    pub fn clusters(&self, tenant: &TenantId, cluster: Option<&ClusterId>) -> ClustersView {
        let numbers = self.plane_names.get(tenant).into_iter().flatten();
        let asked = numbers.filter(|(name, _)| cluster.is_none_or(|cluster| cluster == *name));
        let clusters = asked.filter_map(|(_, number)| Some(self.cluster_view(self.planes.get(number)?)));
        ClustersView { clusters: clusters.collect() }
    }

    fn cluster_view(&self, plane: &PlaneRecord) -> ClusterView {
        let replicas = plane.replicas(&self.rules);
        let ready = plane.ready_on.len() as u32;
        let state = match () {
            () if plane.is_deleted => PlaneState::Deleting,
            () if plane.is_asleep => PlaneState::Asleep,
            () if ready == 0 && plane.served.is_none() => PlaneState::Creating,
            () if ready == 0 => PlaneState::Unavailable,
            () if ready >= replicas
                && plane.reported == plane.generation
                && plane.served == Some(plane.terms.version) =>
            {
                PlaneState::Ready
            }
            () => PlaneState::Changing,
        };
        ClusterView {
            cluster: plane.cluster.clone(),
            plane: plane.number,
            state,
            version: plane.version,
            terms: plane.terms.clone(),
            served: plane.served,
            replicas,
            ready,
            workers: plane.workers,
            bids: plane.bids,
            size: plane.size.clone(),
            data_store: plane.data_store.clone(),
            driver: plane.driver,
            at_risk: plane.risk.map(|risk| risk.why),
        }
    }

    /// Every order in force; `sequence` is the last turn that this state has seen.
    pub fn orders(&self, sequence: u64) -> OrdersView {
        let order = |plane: &PlaneRecord| {
            Some(OrderView {
                plane: plane.number,
                generation: plane.generation,
                order: plane.order.clone()?,
                gone_at: plane.gone_at,
                reported: plane.reported,
                workers: plane.workers,
                slow: plane.slow_since.is_some(),
            })
        };
        OrdersView { sequence, orders: self.planes.values().filter_map(order).collect() }
    }

    /// The site but for its clusters.
    pub fn site_view(&self) -> SiteView {
        let host = |number: &u64| {
            let host = self.hosts.get(number)?;
            let room = self.site.room(host.ord)?;
            Some(HostView {
                host: host.id.clone(),
                generation: host.generation,
                terms: host.terms.clone(),
                gone_at: host.gone_at,
                free: amount(&room.map(|room| room.max(0).unsigned_abs())),
                replicas: self.site.planes_on(host.ord).len() as u32,
            })
        };
        let store = |(id, store): (&DataStoreId, &super::record::StoreRecord)| DataStoreView {
            data_store: id.clone(),
            generation: store.generation,
            terms: store.terms.clone(),
            units: self.store_units(id, None),
        };
        let count = |which: fn(&PlaneRecord) -> bool| {
            self.planes.values().filter(|plane| which(plane)).count() as u32
        };
        let begun = self.begun.len() as u32;
        let mut risks = std::collections::BTreeMap::new();
        for risk in self.planes.values().filter_map(|plane| plane.risk) {
            *risks.entry(risk.why).or_insert(0) += 1;
        }
        SiteView {
            rules: self.rules.clone(),
            hosts: self.host_names.values().filter_map(host).collect(),
            data_stores: self.stores.iter().map(store).collect(),
            planes: self.planes.len() as u32,
            asleep: count(|plane| plane.is_asleep),
            slow: count(|plane| plane.slow_since.is_some()),
            risks,
            moving: begun,
            waiting: (self.rollout.steps().count() as u32).saturating_sub(begun),
            advice: self.advice.clone(),
            routed: self.routed.iter().map(|(exchange, (turn, _))| (exchange.clone(), *turn)).collect(),
            servers: self.servers.view(),
        }
    }
}
