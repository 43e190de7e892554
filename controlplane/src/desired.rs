//! What is to be: planes as placement ordered them, and what holds for the whole site.

use std::collections::BTreeMap;

use proto::placement::{Driver, KubernetesVersion, PlaneNumber};
use proto::{ClusterId, TenantId, Timestamp};
use serde::Serialize;

/// So much of every resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// Thousandths of a processor.
    pub cpu_milli: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
}

/// How a plane is to be: placement's last order for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Whose it is.
    pub tenant: TenantId,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// The order's number; it grows with every order for the plane.
    pub generation: u64,
    /// Whether it is to go, with everything it has.
    pub deleted: bool,
    /// How many replicas; 0: it sleeps.
    pub replicas: u32,
    /// Where they are to be, in order. Fewer than `replicas` where some have no place yet.
    pub hosts: Vec<String>,
    /// By when, where a host goes.
    pub gone_at: Option<Timestamp>,
    /// Which version.
    pub version: KubernetesVersion,
    /// What each replica takes.
    pub request: Amount,
    /// Where its data are kept.
    pub data_store: String,
    /// What keeps them.
    pub driver: Driver,
}

/// Where a value lies in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Which member of it.
    pub key_path: String,
}

/// A store of planes' data that is ours to declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataStore {
    /// What it is.
    pub driver: Driver,
    /// Where it listens, `host:port`.
    pub endpoints: Vec<String>,
    /// User and password, where the driver wants them.
    pub basic_auth: Option<(SecretKey, SecretKey)>,
    /// The authority's certificate and key.
    pub authority: Option<(SecretKey, SecretKey)>,
    /// The client's certificate and key.
    pub client: Option<(SecretKey, SecretKey)>,
}

/// How planes are reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Exposure {
    /// Within the management cluster only.
    #[default]
    ClusterIp,
    /// Each has an address of a load balancer.
    LoadBalancer,
    /// By name through an ingress of this class, under this domain.
    Ingress {
        /// The ingress class.
        class: String,
        /// Planes are `PLANE.NAMESPACE.DOMAIN`.
        domain: String,
    },
    /// By name through a gateway, under this domain.
    Gateway {
        /// Name of the gateway.
        gateway: String,
        /// Its namespace.
        namespace: String,
        /// Planes are `PLANE.NAMESPACE.DOMAIN`.
        domain: String,
    },
}

/// A taint that planes' pods bear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key; without one, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Exists` or `Equal`.
    pub operator: String,
    /// The taint's value, for `Equal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The effect; without one, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// For how many seconds it is borne, where it would end pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// What holds for all planes of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Labels of the hosts that planes may be on; none: any host.
    pub pool: BTreeMap<String, String>,
    /// Taints that planes bear, beside those of hosts that stopped answering.
    pub tolerations: Vec<Toleration>,
    /// How planes are reached.
    pub exposure: Exposure,
    /// Whether new pods are held until their host is known. Needs mutating admission policies, which a management
    /// cluster has from Kubernetes 1.36 on.
    pub gates: bool,
}

impl Default for Site {
    fn default() -> Self {
        Self { pool: BTreeMap::new(), tolerations: Vec::new(), exposure: Exposure::default(), gates: true }
    }
}

/// Everything that is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// What holds for all.
    pub site: Site,
    /// Data stores that are ours to declare; others may be used if they are there.
    pub data_stores: BTreeMap<String, DataStore>,
    planes: BTreeMap<TenantId, BTreeMap<PlaneNumber, Plane>>,
    tenants: BTreeMap<PlaneNumber, TenantId>,
}

impl Desired {
    /// No plane yet, on a site of which this holds.
    pub fn of_site(site: Site) -> Self {
        Self { site, ..Self::default() }
    }

    /// Takes an order in. An older one than is known, or one that gives a plane to another tenant, changes nothing.
    /// Whether it was taken.
    pub fn order(&mut self, number: PlaneNumber, plane: Plane) -> bool {
        let known = self.tenants.get(&number);
        if known.is_some_and(|tenant| *tenant != plane.tenant)
            || self.plane(number).is_some_and(|known| known.generation > plane.generation)
        {
            return false;
        }
        self.tenants.insert(number, plane.tenant.clone());
        self.planes.entry(plane.tenant.clone()).or_default().insert(number, plane);
        true
    }

    /// Forgets a plane that is gone. Its tenant, if it was known.
    pub fn forget(&mut self, number: PlaneNumber) -> Option<TenantId> {
        let tenant = self.tenants.remove(&number)?;
        if let Some(planes) = self.planes.get_mut(&tenant) {
            planes.remove(&number);
            if planes.is_empty() {
                self.planes.remove(&tenant);
            }
        }
        Some(tenant)
    }

    /// A plane by its number.
    pub fn plane(&self, number: PlaneNumber) -> Option<&Plane> {
        self.planes.get(self.tenants.get(&number)?)?.get(&number)
    }

    /// Who has planes.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.planes.keys()
    }

    /// The planes of a tenant, in the order of their numbers.
    pub fn planes_of(&self, tenant: &TenantId) -> impl Iterator<Item = (PlaneNumber, &Plane)> {
        self.planes.get(tenant).into_iter().flatten().map(|(number, plane)| (*number, plane))
    }
}
