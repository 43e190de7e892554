//! Sites: management clusters, with what an operator says of their hosts and data stores.

use proto::id::{DataStoreId, HostId, PrincipalId, RegionName, TaintName, ZoneName};
use proto::placement::{Amount, DataStoreTerms, Driver, HostTerms, SiteRules, TAINTS_MAX};
use serde::{Deserialize, Serialize};

/// Sites of one installation.
pub const SITES_MAX: usize = 64;
/// Hosts of a site that a configuration lists; more come over the bus.
pub const HOSTS_MAX: usize = 4_096;
/// Data stores of a site that a configuration lists.
pub const DATA_STORES_MAX: usize = 1_024;
/// Room of the data store that a site has which lists none, in the units that sizes of planes count.
const STORE_UNITS_DEFAULT: u32 = 10_000;

/// One site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteSettings {
    /// What holds for the whole site.
    pub rules: SiteRules,
    /// Data stores that planes may use.
    pub data_stores: Vec<DataStoreSettings>,
    /// Hosts that no hypervisor and no management cluster offers.
    pub hosts: Vec<HostSettings>,
}

impl Default for SiteSettings {
    /// Kamaji comes with a data store `default`, which is etcd.
    fn default() -> Self {
        let store = |id| DataStoreSettings {
            id,
            driver: Driver::Etcd,
            units_max: STORE_UNITS_DEFAULT,
            dedicated: false,
            accepting: true,
        };
        let data_stores = "default".parse().map(store).into_iter().collect();
        Self { rules: SiteRules::default(), data_stores, hosts: Vec::new() }
    }
}

/// One data store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataStoreSettings {
    /// Its name.
    pub id: DataStoreId,
    /// What it is.
    pub driver: Driver,
    /// How much it holds, in the units that sizes of planes count.
    pub units_max: u32,
    /// Whether it is for one plane, and only where it is asked for by name.
    #[serde(default)]
    pub dedicated: bool,
    /// Whether new planes may come.
    #[serde(default = "yes")]
    pub accepting: bool,
}

fn yes() -> bool {
    true
}

impl DataStoreSettings {
    /// What is offered.
    pub fn terms(&self) -> DataStoreTerms {
        let Self { driver, units_max, dedicated, accepting, .. } = *self;
        DataStoreTerms { driver, units_max, dedicated, accepting }
    }
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSettings {
    /// Its name, as its Node is called.
    pub id: HostId,
    /// Hosts of a zone may fail together.
    pub zone: ZoneName,
    /// Where it is.
    pub region: RegionName,
    /// Thousandths of a processor that planes may use.
    pub cpu_milli: u32,
    /// Memory that planes may use, in MiB.
    pub memory_mib: u32,
    /// Pods that it takes.
    pub pods: u32,
    /// What a plane must tolerate to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<TaintName>,
    /// Whose notices count for it, beside those of operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<PrincipalId>,
}

impl HostSettings {
    /// What is offered.
    pub fn terms(&self) -> HostTerms {
        let Self { cpu_milli, memory_mib, pods, .. } = *self;
        HostTerms {
            zone: self.zone.clone(),
            region: self.region.clone(),
            capacity: Amount { cpu_milli, memory_mib, pods },
            taints: self.taints.clone(),
            hypervisor: self.hypervisor.clone(),
        }
    }
}

/// The key within a site whose value cannot be, and what is wrong with it.
pub(super) fn problem(site: &SiteSettings) -> Option<(String, String)> {
    let counts =
        [("hosts", site.hosts.len(), HOSTS_MAX), ("data_stores", site.data_stores.len(), DATA_STORES_MAX)];
    if let Some((key, count, most)) = counts.into_iter().find(|(_, count, most)| count > most) {
        return Some((key.to_owned(), format!("{count} entries, at most {most}")));
    }
    for (place, host) in site.hosts.iter().enumerate() {
        if site.hosts[..place].iter().any(|other| other.id == host.id) {
            return Some((format!("hosts[{place}].id"), format!("{} is there twice", host.id)));
        }
        if host.taints.len() > TAINTS_MAX {
            return Some((format!("hosts[{place}].taints"), format!("at most {TAINTS_MAX} taints")));
        }
    }
    for (place, store) in site.data_stores.iter().enumerate() {
        if site.data_stores[..place].iter().any(|other| other.id == store.id) {
            return Some((format!("data_stores[{place}].id"), format!("{} is there twice", store.id)));
        }
    }
    None
}
