//! Management clusters: where the planes of each site run.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use proto::id::{RegionName, StreamName};
use proto::placement::Amount;
use serde::{Deserialize, Serialize};

/// Hosts that a simulated management cluster may have in each region.
pub const SIMULATED_HOSTS_MAX: u32 = 1_000;

/// The control-plane service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlplaneSection {
    /// How the management cluster is reached; absent: as `KUBECONFIG` says. Without both, `walras up` simulates one,
    /// and `walras controlplane` takes the cluster that it runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Hosts of the management cluster that `walras up` simulates, in each region that has markets; 0: none is
    /// simulated.
    pub simulated_hosts: u32,
    /// What differs from site to site, by the name of the site.
    pub sites: BTreeMap<StreamName, ManagementSettings>,
}

impl Default for ControlplaneSection {
    fn default() -> Self {
        Self { kubeconfig: None, simulated_hosts: 6, sites: BTreeMap::new() }
    }
}

/// The management cluster of one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManagementSettings {
    /// How it is reached; absent: like the others.
    pub kubeconfig: Option<PathBuf>,
    /// Labels of the Nodes that planes may be on; none: all of them.
    pub pool: BTreeMap<String, String>,
    /// The region of Nodes that name none by `topology.kubernetes.io/region`.
    pub region: Option<RegionName>,
    /// What of each Node is not for planes.
    pub reserved: Amount,
    /// How planes are reached from outside.
    pub exposure: ExposureSettings,
    /// Whether new pods of planes are held until their host is known. Needs mutating admission policies, which
    /// Kubernetes has from 1.36 on.
    pub gates: bool,
    /// From one look at how quick a plane is to the next, in seconds.
    pub look_seconds: NonZeroU32,
    /// What planes are to meet.
    pub objectives: PlaneObjectives,
}

/// Within what time almost everything is to be done at a plane. One that misses this for a while is reported as slow,
/// and placement moves it to a host with more room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlaneObjectives {
    /// A request is answered, in milliseconds.
    pub api_milliseconds: NonZeroU32,
    /// A write is committed by the data store, in milliseconds.
    pub commit_milliseconds: NonZeroU32,
    /// A piece of a controller's work is done, in milliseconds.
    pub controller_milliseconds: NonZeroU32,
}

impl Default for PlaneObjectives {
    /// A second is what Kubernetes promises for requests on single objects.
    fn default() -> Self {
        Self {
            api_milliseconds: NonZeroU32::MIN.saturating_add(999),
            commit_milliseconds: NonZeroU32::MIN.saturating_add(499),
            controller_milliseconds: NonZeroU32::MIN.saturating_add(999),
        }
    }
}

impl Default for ManagementSettings {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            pool: BTreeMap::new(),
            region: None,
            reserved: Amount::default(),
            exposure: ExposureSettings::default(),
            gates: true,
            look_seconds: NonZeroU32::MIN.saturating_add(29),
            objectives: PlaneObjectives::default(),
        }
    }
}

/// How planes are reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExposureSettings {
    /// In which way.
    pub by: ExposureKind,
    /// The ingress class, or the name of the gateway.
    pub name: String,
    /// The gateway's namespace.
    pub namespace: String,
    /// Planes are `PLANE.NAMESPACE.DOMAIN`, for ingress and gateway.
    pub domain: String,
}

/// A way in which planes are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExposureKind {
    /// Within the management cluster only.
    #[default]
    ClusterIp,
    /// Each has an address of a load balancer.
    LoadBalancer,
    /// By name through an ingress.
    Ingress,
    /// By name through a gateway.
    Gateway,
}

/// The key within the section whose value cannot be, and what is wrong with it.
pub(super) fn problem(
    section: &ControlplaneSection,
    is_site: impl Fn(&StreamName) -> bool,
) -> Option<(String, String)> {
    if section.simulated_hosts > SIMULATED_HOSTS_MAX {
        let problem = format!("{} is more than {SIMULATED_HOSTS_MAX}", section.simulated_hosts);
        return Some(("simulated_hosts".to_owned(), problem));
    }
    for (name, site) in &section.sites {
        if !is_site(name) {
            return Some((format!("sites.{name}"), "placement has no site of this name".to_owned()));
        }
        let exposure = &site.exposure;
        let wants_name = matches!(exposure.by, ExposureKind::Ingress | ExposureKind::Gateway);
        for (key, value, is_wanted) in [
            ("name", &exposure.name, wants_name),
            ("domain", &exposure.domain, wants_name),
            ("namespace", &exposure.namespace, exposure.by == ExposureKind::Gateway),
        ] {
            if value.is_empty() == is_wanted {
                let problem = if is_wanted { "must be given" } else { "means nothing for this way" };
                return Some((format!("sites.{name}.exposure.{key}"), problem.to_owned()));
            }
        }
    }
    None
}
