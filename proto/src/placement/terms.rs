//! What a cluster, a host, a data store and a site's rules say.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::{DataStoreId, PrincipalId, RegionName, SizeName, TaintName, ZoneName, shorten};

/// Why a text is no version of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version is v1.MINOR.PATCH, such as \"v1.35.0\"; this is {text:?}")]
pub struct VersionError {
    text: String,
}

/// A version of Kubernetes, `v1.MINOR.PATCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KubernetesVersion {
    /// The minor version: one at a time is an upgrade.
    pub minor: u16,
    /// The patch.
    pub patch: u16,
}

/// Digits of a minor version or patch at most.
const VERSION_DIGITS_MAX: usize = 4;

impl FromStr for KubernetesVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let number = |digits: &str| {
            let plain = (1..=VERSION_DIGITS_MAX).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_digit())
                && (digits == "0" || !digits.starts_with('0'));
            plain.then(|| digits.parse::<u16>().ok()).flatten()
        };
        let parts = text.strip_prefix("v1.").and_then(|rest| rest.split_once('.'));
        let version = parts.and_then(|(minor, patch)| Some((number(minor)?, number(patch)?)));
        let Some((minor, patch)) = version else { return Err(VersionError { text: shorten(text) }) };
        Ok(Self { minor, patch })
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "v1.{}.{}", self.minor, self.patch)
    }
}

impl Serialize for KubernetesVersion {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KubernetesVersion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for KubernetesVersion {
    fn schema_name() -> Cow<'static, str> {
        "KubernetesVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^v1\\.(0|[1-9][0-9]{0,3})\\.(0|[1-9][0-9]{0,3})$" })
    }
}

/// So much of every resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// Thousandths of a processor.
    pub cpu_milli: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Pods.
    pub pods: u32,
}

/// How a plane bears the loss of a host.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// One replica.
    Single,
    /// Several replicas on different hosts, in different zones where there are enough.
    #[default]
    High,
}

/// What keeps a plane's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// etcd, one prefix per plane.
    Etcd,
    /// `MySQL`, one database per plane.
    MySql,
    /// `PostgreSQL`, one database per plane.
    PostgreSql,
}

impl Driver {
    /// Its word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::MySql => "mysql",
            Self::PostgreSql => "postgresql",
        }
    }
}

/// What a tenant asks for a cluster. A change replaces all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterTerms {
    /// How its plane bears the loss of a host.
    #[serde(default)]
    pub availability: Availability,
    /// Where its workers are.
    #[schemars(length(min = 1, max = 16))]
    pub regions: Vec<RegionName>,
    /// The version that its plane runs.
    pub version: KubernetesVersion,
    /// What keeps its data; absent: whatever placement chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// Where its data are kept; absent: placement chooses, and what was chosen stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_store: Option<DataStoreId>,
    /// After so many seconds without workers and bids its plane sleeps; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 31_622_400))]
    pub sleep_after_seconds: Option<u32>,
}

/// A host as it is offered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostTerms {
    /// Hosts of a zone may fail together.
    pub zone: ZoneName,
    /// Where it is.
    pub region: RegionName,
    /// What it has for planes.
    pub capacity: Amount,
    /// What a plane must tolerate to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub taints: Vec<TaintName>,
    /// Whose notices count for it, beside those of operators and of our own services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<PrincipalId>,
}

/// A store of planes' data as it is offered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataStoreTerms {
    /// What it is.
    pub driver: Driver,
    /// How much it holds, in the units that sizes of planes count.
    #[schemars(range(max = 10_000_000))]
    pub units_max: u32,
    /// Whether it is for one plane, and only where it is asked for by name.
    #[serde(default)]
    pub dedicated: bool,
    /// Whether new planes may come.
    pub accepting: bool,
}

/// A size of planes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizeClass {
    /// What it is called.
    pub name: SizeName,
    /// A plane with more workers needs a larger size.
    pub workers_max: u32,
    /// What each replica takes.
    pub request: Amount,
    /// What it takes of a data store.
    pub store_units: u32,
}

/// Which hosts are near enough to workers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Near {
    /// Workers of this region
    pub workers: RegionName,
    /// can do with hosts of these.
    pub hosts: Vec<RegionName>,
}

/// What an operator decides about a site.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SiteRules {
    /// Of every host so much stays free, as a rolling change starts new pods before it ends old ones.
    pub surge_reserve_permille: u32,
    /// Most replicas that are moved at once.
    pub moves_max: u32,
    /// How long a move is expected to take, in seconds.
    pub move_seconds: u32,
    /// A move that is not done after so many seconds is begun again.
    pub move_seconds_max: u32,
    /// Replicas of a plane with high availability.
    pub high_replicas: u32,
    /// Sizes of planes, ascending; the last is for any number of workers.
    pub sizes: Vec<SizeClass>,
    /// A plane gets a smaller size only after it could do with it for so many seconds,
    pub shrink_after_seconds: u32,
    /// and with so many thousandths fewer workers than the smaller size allows.
    pub shrink_margin_permille: u32,
    /// A plane that is slow for so many seconds is moved to a host with more room,
    pub slow_seconds: u32,
    /// and then not again for so many.
    pub calm_seconds: u32,
    /// Which hosts are near enough to workers; a region that is not listed is near to itself only.
    pub near: Vec<Near>,
    /// Taints that planes tolerate.
    pub tolerated: Vec<TaintName>,
    /// The oldest version that a new cluster may have.
    pub oldest_version: KubernetesVersion,
    /// The newest version there is.
    pub newest_version: KubernetesVersion,
    /// Most clusters of the site.
    pub clusters_max: u32,
    /// Most clusters of one tenant.
    pub clusters_per_tenant_max: u32,
}

impl Default for SiteRules {
    fn default() -> Self {
        Self {
            surge_reserve_permille: 200,
            moves_max: 8,
            move_seconds: 30,
            move_seconds_max: 300,
            high_replicas: 2,
            sizes: sizes(),
            shrink_after_seconds: 1_200,
            shrink_margin_permille: 300,
            slow_seconds: 120,
            calm_seconds: 1_800,
            near: Vec::new(),
            tolerated: Vec::new(),
            oldest_version: KubernetesVersion { minor: 33, patch: 0 },
            newest_version: KubernetesVersion { minor: 36, patch: 0 },
            clusters_max: 10_000,
            clusters_per_tenant_max: 100,
        }
    }
}

/// Sizes after what planes were seen to take with so many workers, all containers of a replica together.
fn sizes() -> Vec<SizeClass> {
    let size = |name: &str, workers_max, cpu_milli, memory_mib, store_units| {
        let request = Amount { cpu_milli, memory_mib, pods: 1 };
        Some(SizeClass { name: name.parse().ok()?, workers_max, request, store_units })
    };
    let all = [
        size("small", 10, 250, 768, 1),
        size("medium", 100, 700, 1_280, 4),
        size("large", 500, 2_500, 4_096, 16),
        size("huge", u32::MAX, 6_000, 12_288, 64),
    ];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_versions_are_read() {
        let version: KubernetesVersion = "v1.35.2".parse().unwrap();
        assert_eq!((version.minor, version.patch, version.to_string().as_str()), (35, 2, "v1.35.2"));
        for bad in
            ["", "1.35.0", "v1.35", "v2.35.0", "v1.035.0", "v1.35.00", "v1.+5.0", "v1.35.0-rc1", "v1.99999.0"]
        {
            assert!(bad.parse::<KubernetesVersion>().is_err(), "{bad:?}");
        }
        assert!("v1.9.0".parse::<KubernetesVersion>().unwrap() < "v1.10.0".parse().unwrap());
    }

    #[test]
    fn usual_rules_have_all_sizes() {
        assert_eq!(SiteRules::default().sizes.len(), 4);
    }
}
