//! A site's rules: what they may say, and how they come into force.

use proto::Timestamp;
use proto::envelope::RefusalReason;
use proto::placement::{Amount, PlacementEvent, SIZES_MAX, SiteRules};

use super::bounds::{CLUSTERS_MAX, LARGEST, MOVES_AT_ONCE_MAX, NAMES_MAX, RESOURCES, RULE_SECONDS_MAX};
use super::record::{size_for, size_named};
use super::refuse::{Checked, refuse, within};
use super::{Events, Placement};
use crate::pack::PERMILLE;
use crate::site::{PLANE_REPLICAS_MAX, Site};

/// Most of any resource that a replica may take.
const REQUEST_MAX: u32 = 1_000_000_000;
/// Most units of a data store that a plane may take.
const STORE_UNITS_MAX: u32 = 1_000_000;

impl Placement {
    pub(super) fn adopt(&mut self, now: Timestamp, rules: &SiteRules, events: &mut Events) -> Checked<()> {
        let permille = u64::from(PERMILLE);
        let seconds = u64::from(RULE_SECONDS_MAX);
        within("rules.surge_reserve_permille", rules.surge_reserve_permille.into(), 0, permille)?;
        within("rules.shrink_margin_permille", rules.shrink_margin_permille.into(), 0, permille)?;
        within("rules.moves_max", rules.moves_max.into(), 1, MOVES_AT_ONCE_MAX.into())?;
        within("rules.move_seconds", rules.move_seconds.into(), 1, seconds)?;
        within("rules.move_seconds_max", rules.move_seconds_max.into(), rules.move_seconds.into(), seconds)?;
        within("rules.shrink_after_seconds", rules.shrink_after_seconds.into(), 0, seconds)?;
        within("rules.slow_seconds", rules.slow_seconds.into(), 1, seconds)?;
        within("rules.calm_seconds", rules.calm_seconds.into(), 1, seconds)?;
        within("rules.high_replicas", rules.high_replicas.into(), 2, PLANE_REPLICAS_MAX.into())?;
        within("rules.clusters_max", rules.clusters_max.into(), 0, CLUSTERS_MAX.into())?;
        within("rules.sizes", rules.sizes.len() as u64, 1, SIZES_MAX as u64)?;
        within("rules.near", rules.near.len() as u64, 0, NAMES_MAX as u64)?;
        within("rules.tolerated", rules.tolerated.len() as u64, 0, NAMES_MAX as u64)?;
        if rules.oldest_version > rules.newest_version {
            let problem = format!("is newer than the newest version {}", rules.newest_version);
            return refuse(RefusalReason::OutOfRange, "rules.oldest_version", rules.oldest_version, problem);
        }
        for (place, size) in rules.sizes.iter().enumerate() {
            let before = &rules.sizes[..place];
            let field = |name: &str| format!("rules.sizes[{place}].{name}");
            if before.iter().any(|other| other.name == size.name) {
                return refuse(RefusalReason::Duplicate, field("name"), &size.name, "stands twice");
            }
            if before.last().is_some_and(|last| last.workers_max >= size.workers_max) {
                let problem = "sizes ascend by their workers";
                return refuse(RefusalReason::OutOfRange, field("workers_max"), size.workers_max, problem);
            }
            let Amount { cpu_milli, memory_mib, pods } = size.request;
            within(field("request.cpu_milli"), cpu_milli.into(), 0, REQUEST_MAX.into())?;
            within(field("request.memory_mib"), memory_mib.into(), 0, REQUEST_MAX.into())?;
            within(field("request.pods"), pods.into(), 0, REQUEST_MAX.into())?;
            within(field("store_units"), size.store_units.into(), 0, STORE_UNITS_MAX.into())?;
        }
        for (place, near) in rules.near.iter().enumerate() {
            let field = |name: &str| format!("rules.near[{place}].{name}");
            within(field("hosts"), near.hosts.len() as u64, 0, NAMES_MAX as u64)?;
            if rules.near[..place].iter().any(|other| other.workers == near.workers) {
                return refuse(RefusalReason::Duplicate, field("workers"), &near.workers, "stands twice");
            }
        }
        self.emit(now, PlacementEvent::SiteRulesAdopted { rules: rules.clone() }, events);
        Ok(())
    }

    /// Puts other rules in force.
    pub(super) fn rules_adopted(&mut self, rules: &SiteRules) {
        let reserve_before = self.rules.surge_reserve_permille;
        self.rules = rules.clone();
        if reserve_before != rules.surge_reserve_permille {
            // Every host has other room.
            match Site::restored(RESOURCES, &LARGEST, rules.surge_reserve_permille, &self.saved_site()) {
                Ok(site) => self.site = site,
                Err(error) => self.broke("I2", format!("surge reserve: {error}")),
            }
        }
        for number in self.planes.keys().copied().collect::<Vec<_>>() {
            let Some(plane) = self.planes.get_mut(&number) else { continue };
            if size_named(&self.rules, &plane.size).is_none()
                && let Some((_, size)) = size_for(&self.rules, plane.workers)
            {
                plane.size = size.name.clone();
            }
            plane.shrink_since = None;
            self.refit(number);
            self.touch(number);
            self.time_plane(number);
        }
        for number in self.begun.keys().copied().collect::<Vec<_>>() {
            self.time_move(number);
        }
        self.is_unsettled = true;
    }
}
