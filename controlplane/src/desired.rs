//! What is to be: planes as placement ordered them, and what holds for the whole site.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use proto::{ClusterId, TenantId, Timestamp};
use serde::Serialize;

/// A plane's number within its site, as placement counts.
pub type PlaneNumber = u64;

/// Why a text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version is v1.MINOR.PATCH, such as \"v1.35.0\"; this is {0:?}")]
pub struct VersionError(String);

/// A version of Kubernetes, `v1.MINOR.PATCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The minor version: an upgrade passes through each.
    pub minor: u16,
    /// The patch.
    pub patch: u16,
}

impl Version {
    /// The next step on the way to another version: one minor at most. `None` if the way would lead down.
    pub(crate) fn toward(self, other: Self) -> Option<Self> {
        if other < self {
            return None;
        }
        let next = self.minor.saturating_add(1);
        Some(if other.minor > next { Self { minor: next, patch: 0 } } else { other })
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let parts = text.strip_prefix("v1.").and_then(|rest| rest.split_once('.'));
        let read = parts
            .and_then(|(minor, patch)| Some(Self { minor: minor.parse().ok()?, patch: patch.parse().ok()? }));
        // Only what is written back the same was read: no signs, no leading zeros.
        read.filter(|version| version.to_string() == text)
            .ok_or_else(|| VersionError(text.chars().take(32).collect()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "v1.{}.{}", self.minor, self.patch)
    }
}

/// What keeps planes' data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// etcd, one prefix per plane.
    Etcd,
    /// `MySQL`, one database per plane.
    MySql,
    /// `PostgreSQL`, one database per plane.
    PostgreSql,
}

impl Driver {
    /// As Kamaji spells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::MySql => "MySQL",
            Self::PostgreSql => "PostgreSQL",
        }
    }
}

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
    pub version: Version,
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

#[cfg(test)]
mod tests {
    use super::Version;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn upgrades_pass_through_each_minor() {
        let steps = |from: &str, to: &str| version(from).toward(version(to)).map(|next| next.to_string());
        assert_eq!(steps("v1.33.4", "v1.33.9").as_deref(), Some("v1.33.9"));
        assert_eq!(steps("v1.33.4", "v1.34.2").as_deref(), Some("v1.34.2"));
        assert_eq!(steps("v1.33.4", "v1.36.2").as_deref(), Some("v1.34.0"));
        assert_eq!(steps("v1.34.0", "v1.33.9"), None);
        assert_eq!(steps("v1.34.2", "v1.34.1"), None);
    }

    #[test]
    fn only_plain_versions_are_read() {
        assert_eq!(version("v1.35.2"), Version { minor: 35, patch: 2 });
        for bad in ["", "1.35.0", "v1.35", "v2.35.0", "v1.035.0", "v1.+5.0", "v1.35.0-rc1", "v1.99999.0"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }
}
