//! What would help: how many hosts of which size, where.

use std::collections::BTreeMap;

use super::choose::Shortage;
use super::resettle::AtRisk;
use super::{Amounts, HostTerms, PLACES_MAX, PlaneOrd, PlaneTerms, Site};

/// Most hosts that are advised at once; a site that lacks more is told so many, and the rest when they are there.
pub const ADVISED_MAX: u32 = 64;

/// Hosts that would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// How many.
    pub hosts: u32,
    /// In which zone.
    pub zone: u32,
    /// In which region.
    pub region: u32,
    /// Of which size, the surge reserve not yet taken off.
    pub capacity: Amounts,
}

impl Site {
    /// Hosts that would give everything a place that has none or only one on a leaving host: untainted, of the size that
    /// most hosts have, or larger where a replica needs it. It is tried out on copies, so that [`Site::resettle`] leaves
    /// nothing at risk once these are there, in this order, unless there are [`ADVISED_MAX`] of them. Nothing is changed.
    pub fn advice(&self) -> Vec<Advice> {
        let mut advised: BTreeMap<(u32, u32, Amounts), u32> = BTreeMap::new();
        let mut hosts = 0;
        // Hosts that come one by one are used in another way than all at once; so what was found is tried again on a
        // fresh copy, and more is added if that is not enough. Each turn but the last adds a host.
        loop {
            let mut site = self.clone();
            for ((zone, region, capacity), count) in &advised {
                let terms = HostTerms { zone: *zone, region: *region, taints: 0, capacity: *capacity };
                if (0..*count).any(|_| site.add_host(&terms).is_err()) {
                    break;
                }
            }
            let before = hosts;
            while hosts < ADVISED_MAX {
                let resettled = site.resettle();
                let Some(host) = resettled.at_risk.iter().find_map(|risk| site.helpful(risk)) else { break };
                if site.add_host(&host).is_err() {
                    break;
                }
                *advised.entry((host.zone, host.region, host.capacity)).or_insert(0) += 1;
                hosts += 1;
            }
            if hosts == before {
                break;
            }
        }
        let advice = |((zone, region, capacity), hosts)| Advice { hosts, zone, region, capacity };
        advised.into_iter().map(advice).collect()
    }

    /// A usual host near to a plane's workers, in the zone with the fewest of its replicas; none if no region is near
    /// enough.
    pub fn another(&self, plane: PlaneOrd) -> Option<Advice> {
        let risk = AtRisk { plane, on: None, gone_at: None, shortage: Shortage::Full };
        let HostTerms { zone, region, capacity, .. } = self.helpful(&risk)?;
        Some(Advice { hosts: 1, zone, region, capacity })
    }

    /// A host that would take a replica.
    fn helpful(&self, risk: &AtRisk) -> Option<HostTerms> {
        let terms = self.terms(risk.plane)?;
        let region = terms.regions.trailing_zeros();
        if region >= PLACES_MAX {
            return None; // No region is near enough.
        }
        let capacity = self.enough(terms);
        let zone = self.zone_for(risk);
        Some(HostTerms { zone, region, taints: 0, capacity })
    }

    /// The size that most hosts have, made larger where a replica needs more.
    fn enough(&self, terms: &PlaneTerms) -> Amounts {
        let mut counts: BTreeMap<Amounts, u32> = BTreeMap::new();
        for shelf in &self.shelves {
            for (capacity, count) in shelf.shapes() {
                *counts.entry(*capacity).or_insert(0) += count;
            }
        }
        let usual = counts.into_iter().max_by_key(|(capacity, count)| (*count, *capacity));
        let mut capacity = usual.map_or([0; super::RESOURCES_MAX], |(capacity, _)| capacity);
        for (amount, wanted) in capacity.iter_mut().zip(&terms.request) {
            *amount = self.with_reserve((*amount).max(*wanted));
        }
        capacity
    }

    /// The least capacity of which so much is left once the reserve is taken off; as much as there may be at all where
    /// everything is reserved.
    fn with_reserve(&self, wanted: u64) -> u64 {
        let left = u64::from(crate::pack::PERMILLE - self.surge_reserve_permille);
        let whole = u128::from(wanted) * u128::from(crate::pack::PERMILLE);
        let capacity = if left == 0 { u128::MAX } else { whole.div_ceil(u128::from(left)) };
        u64::try_from(capacity).unwrap_or(u64::MAX).min(crate::pack::AMOUNT_MAX)
    }

    /// The zone with the fewest replicas of the plane, among zones with hosts, then the lowest; zone 0 of an empty site.
    fn zone_for(&self, risk: &AtRisk) -> u32 {
        let on: Vec<u32> =
            self.on(risk.plane).iter().copied().filter(|host| Some(*host) != risk.on).collect();
        let zones =
            self.shelves.iter().filter(|shelf| !shelf.shapes().is_empty()).map(|shelf| shelf.label.zone);
        let least = zones.min_by_key(|zone| (self.shared(&on, *zone), *zone));
        least.unwrap_or(0)
    }
}
