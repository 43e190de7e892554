//! What is known of clusters, hosts and data stores.

use proto::placement::{
    Amount, Availability, ClusterTerms, DataStoreTerms, Driver, HostNumber, HostTerms, KubernetesVersion,
    PlaneNumber, PlaneOrder, Risk, SiteRules, SizeClass,
};
use proto::{ClusterId, DataStoreId, HostId, PrincipalId, SizeName, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::site::{Amounts, HostOrd, PlaneOrd};

/// A cluster's plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlaneRecord {
    pub(super) number: PlaneNumber,
    pub(super) ord: PlaneOrd,
    pub(super) by: PrincipalId,
    pub(super) tenant: TenantId,
    pub(super) cluster: ClusterId,
    pub(super) terms: ClusterTerms,
    pub(super) version: u32,
    pub(super) data_store: DataStoreId,
    pub(super) driver: Driver,
    pub(super) size: SizeName,
    pub(super) is_asleep: bool,
    pub(super) is_deleted: bool,
    /// Of the last order.
    pub(super) generation: u64,
    pub(super) order: Option<PlaneOrder>,
    /// By when the order is to be carried out, if a host goes.
    pub(super) gone_at: Option<Timestamp>,
    /// Of the order that was carried out when it was last reported.
    pub(super) reported: u64,
    pub(super) ready_on: Vec<HostNumber>,
    pub(super) served: Option<KubernetesVersion>,
    pub(super) workers: u32,
    /// How many bids stand for it.
    pub(super) bids: u32,
    /// Since when it has neither workers nor bids.
    pub(super) idle_since: Option<Timestamp>,
    /// Since when it is slower than it should be.
    pub(super) slow_since: Option<Timestamp>,
    /// When something was last done about that.
    pub(super) calmed_at: Option<Timestamp>,
    /// Whether that was nothing, as no host has more room.
    pub(super) is_crowded: bool,
    /// Since when a smaller size would do.
    pub(super) shrink_since: Option<Timestamp>,
    pub(super) risk: Option<Risk>,
    /// As it is in the sum of digests.
    #[serde(skip)]
    pub(super) sealed: u128,
}

impl PlaneRecord {
    /// How many replicas it is to have.
    pub(super) fn replicas(&self, rules: &SiteRules) -> u32 {
        match self.terms.availability {
            _ if self.is_deleted || self.is_asleep => 0,
            Availability::Single => 1,
            Availability::High => rules.high_replicas,
        }
    }

    /// When it falls asleep if nothing happens.
    pub(super) fn sleep_at(&self) -> Option<Timestamp> {
        let since = self.idle_since.filter(|_| !self.is_asleep && !self.is_deleted)?;
        Some(since.plus_seconds(self.terms.sleep_after_seconds?))
    }

    /// When something is to be done about its being slow.
    pub(super) fn slow_at(&self, rules: &SiteRules) -> Option<Timestamp> {
        let since = self.slow_since.filter(|_| !self.is_asleep && !self.is_deleted)?;
        let calm = self.calmed_at.map(|at| at.plus_seconds(rules.calm_seconds));
        Some(since.plus_seconds(rules.slow_seconds).max(calm.unwrap_or(Timestamp::MIN)))
    }

    /// Whether nobody needs it.
    pub(super) fn is_idle(&self) -> bool {
        self.workers == 0 && self.bids == 0
    }
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostRecord {
    pub(super) number: HostNumber,
    pub(super) ord: HostOrd,
    pub(super) id: HostId,
    pub(super) generation: u64,
    pub(super) terms: HostTerms,
    pub(super) gone_at: Option<Timestamp>,
    #[serde(skip)]
    pub(super) sealed: u128,
}

/// A data store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreRecord {
    pub(super) generation: u64,
    pub(super) terms: DataStoreTerms,
}

/// A move that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) at: Timestamp,
    /// The order that says so.
    pub(super) generation: u64,
}

/// Amounts as a site reckons.
pub(super) fn amounts(amount: &Amount) -> Amounts {
    [amount.cpu_milli.into(), amount.memory_mib.into(), amount.pods.into(), 0]
}

/// A site's amounts as they are told; what is too much for the wire is told as the most.
pub(super) fn amount(amounts: &Amounts) -> Amount {
    let told = |at: usize| u32::try_from(amounts[at]).unwrap_or(u32::MAX);
    Amount { cpu_milli: told(0), memory_mib: told(1), pods: told(2) }
}

/// The smallest size for so many workers, and its place.
pub(super) fn size_for(rules: &SiteRules, workers: u32) -> Option<(usize, &SizeClass)> {
    let mut all = rules.sizes.iter().enumerate();
    all.clone().find(|(_, size)| workers <= size.workers_max).or_else(|| all.next_back())
}

/// The smallest size that does for so many workers with room to spare, and its place.
pub(super) fn spare_size_for(rules: &SiteRules, workers: u32) -> Option<(usize, &SizeClass)> {
    let spare = u64::from(1_000_u32.saturating_sub(rules.shrink_margin_permille));
    let with_spare = |size: &SizeClass| u64::from(size.workers_max) * spare / 1_000;
    let mut all = rules.sizes.iter().enumerate();
    all.clone().find(|(_, size)| u64::from(workers) <= with_spare(size)).or_else(|| all.next_back())
}

/// A size by its name, and its place.
pub(super) fn size_named<'a>(rules: &'a SiteRules, name: &SizeName) -> Option<(usize, &'a SizeClass)> {
    rules.sizes.iter().enumerate().find(|(_, size)| size.name == *name)
}
