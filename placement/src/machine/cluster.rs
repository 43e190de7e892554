//! Deciding what tenants ask of clusters, and which data store a plane gets.

use proto::envelope::RefusalReason;
use proto::placement::{
    ChangeCluster, ClusterTerms, CreateCluster, DataStoreTerms, DeleteCluster, Driver, PlacementEvent,
    PlaneNumber, REGIONS_MAX, SizeClass, WakeCluster,
};
use proto::{ClusterId, DataStoreId, PrincipalId, TenantId, Timestamp};

use super::bounds::{RULE_SECONDS_MAX, SLEEP_SECONDS_MIN};
use super::record::{PlaneRecord, size_for, size_named};
use super::refuse::{Checked, refuse, within};
use super::{Events, Placement};

/// How well a data store suits a plane: the least is chosen, an earlier field counts before all later ones.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Suit<'a> {
    /// How full it would be. Stores are filled evenly, so that neighbours disturb each other little.
    used_permille: u64,
    id: &'a DataStoreId,
}

impl Placement {
    pub(super) fn create(
        &mut self,
        now: Timestamp,
        by: &PrincipalId,
        asked: &CreateCluster,
        events: &mut Events,
    ) -> Checked<()> {
        let CreateCluster { tenant, cluster, terms, .. } = asked;
        if self.plane_named(tenant, cluster).is_some() {
            return refuse(RefusalReason::Duplicate, "cluster", cluster, "there is a cluster of this name");
        }
        let most = self.rules.clusters_max;
        if self.planes.len() >= most as usize {
            return refuse(
                RefusalReason::LimitReached,
                "cluster",
                cluster,
                format!("at most {most} in a site"),
            );
        }
        let most = self.rules.clusters_per_tenant_max;
        let owned = self.plane_names.get(tenant).map_or(0, std::collections::BTreeMap::len);
        if owned >= most as usize {
            return refuse(
                RefusalReason::LimitReached,
                "tenant",
                tenant,
                format!("has {most} clusters already"),
            );
        }
        self.check_terms(terms)?;
        let oldest = self.rules.oldest_version;
        if terms.version < oldest {
            let problem = format!("new clusters start with {oldest} at least");
            return refuse(RefusalReason::OutOfRange, "terms.version", terms.version, problem);
        }
        let Some((_, size)) = size_for(&self.rules, 0) else {
            return refuse(RefusalReason::Unsupported, "cluster", cluster, "the site's rules name no size");
        };
        let data_store = self.choose_store(terms, size, None)?;
        let event = PlacementEvent::ClusterCreated {
            plane: self.next.plane,
            by: by.clone(),
            tenant: tenant.clone(),
            cluster: cluster.clone(),
            terms: terms.clone(),
            data_store,
        };
        self.emit(now, event, events);
        Ok(())
    }

    pub(super) fn change(
        &mut self,
        now: Timestamp,
        asked: &ChangeCluster,
        events: &mut Events,
    ) -> Checked<()> {
        let plane = self.living(&asked.tenant, &asked.cluster)?;
        let (number, version, stands) = (plane.number, plane.version, &plane.terms);
        if asked.version != version {
            let problem = format!("version {version} of the terms is in force");
            return refuse(RefusalReason::Stale, "version", asked.version, problem);
        }
        let terms = &asked.terms;
        self.check_terms(terms)?;
        if terms.version < stands.version {
            let problem = format!("{} is in force, and there is no way back", stands.version);
            return refuse(RefusalReason::OutOfRange, "terms.version", terms.version, problem);
        }
        // From what is served, so that two upgrades in a row are not two minor versions at once.
        let from = plane.served.map_or(stands.version, |served| served.min(stands.version));
        if terms.version.minor > from.minor + 1 {
            let problem = format!("{from} is served, and minor versions go one at a time");
            return refuse(RefusalReason::OutOfRange, "terms.version", terms.version, problem);
        }
        let data_store = self.store_for_change(plane, terms)?;
        let event = PlacementEvent::ClusterChanged {
            plane: number,
            version: version.saturating_add(1),
            terms: terms.clone(),
            data_store,
        };
        self.emit(now, event, events);
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        now: Timestamp,
        asked: &DeleteCluster,
        events: &mut Events,
    ) -> Checked<()> {
        let plane = self.living(&asked.tenant, &asked.cluster)?.number;
        self.emit(now, PlacementEvent::ClusterDeleted { plane }, events);
        Ok(())
    }

    pub(super) fn wake_cluster(
        &mut self,
        now: Timestamp,
        asked: &WakeCluster,
        events: &mut Events,
    ) -> Checked<()> {
        let plane = self.living(&asked.tenant, &asked.cluster)?.number;
        self.emit(now, PlacementEvent::PlaneWoken { plane }, events);
        Ok(())
    }

    /// A tenant's cluster that is not to go. Another tenant's is as unknown as none: the name holds the tenant.
    fn living(&self, tenant: &TenantId, cluster: &ClusterId) -> Checked<&PlaneRecord> {
        match self.plane_named(tenant, cluster) {
            Some(plane) if !plane.is_deleted => Ok(plane),
            Some(_) => refuse(RefusalReason::Ended, "cluster", cluster, "this cluster is being deleted"),
            None => refuse(RefusalReason::Unknown, "cluster", cluster, "no such cluster is known"),
        }
    }

    fn check_terms(&self, terms: &ClusterTerms) -> Checked<()> {
        let count = terms.regions.len();
        within("terms.regions", count as u64, 1, REGIONS_MAX as u64)?;
        for (place, region) in terms.regions.iter().enumerate() {
            if terms.regions[..place].contains(region) {
                let field = format!("terms.regions[{place}]");
                return refuse(RefusalReason::Duplicate, field, region, "stands twice");
            }
        }
        if let Some(seconds) = terms.sleep_after_seconds {
            let (least, most) = (SLEEP_SECONDS_MIN.into(), RULE_SECONDS_MAX.into());
            within("terms.sleep_after_seconds", seconds.into(), least, most)?;
        }
        let newest = self.rules.newest_version;
        // Patches come and go without us; the minor version is what must be known.
        if terms.version.minor > newest.minor {
            let problem = format!("the newest version here is {newest}");
            return refuse(RefusalReason::OutOfRange, "terms.version", terms.version, problem);
        }
        Ok(())
    }

    /// What planes take of a data store together, one of them left out.
    pub(super) fn store_units(&self, id: &DataStoreId, except: Option<PlaneNumber>) -> u64 {
        let planes =
            self.planes.values().filter(|plane| plane.data_store == *id && Some(plane.number) != except);
        planes
            .map(|plane| {
                size_named(&self.rules, &plane.size).map_or(0, |(_, size)| u64::from(size.store_units))
            })
            .sum()
    }

    /// The data store of a plane with such terms.
    fn choose_store(
        &self,
        terms: &ClusterTerms,
        size: &SizeClass,
        except: Option<PlaneNumber>,
    ) -> Checked<DataStoreId> {
        if let Some(id) = &terms.data_store {
            let Some(store) = self.stores.get(id) else {
                return refuse(RefusalReason::Unknown, "terms.data_store", id, "no such data store is known");
            };
            return match self.unfit(id, &store.terms, terms.driver, size, except) {
                None => Ok(id.clone()),
                Some(problem) => refuse(RefusalReason::LimitReached, "terms.data_store", id, problem),
            };
        }
        let fit = self.stores.iter().filter(|(id, store)| {
            !store.terms.dedicated && self.unfit(id, &store.terms, terms.driver, size, except).is_none()
        });
        let suits = fit.map(|(id, store)| {
            let used = self.store_units(id, except) + u64::from(size.store_units);
            Suit { used_permille: used * 1_000 / u64::from(store.terms.units_max.max(1)), id }
        });
        if let Some(suit) = suits.min() {
            return Ok(suit.id.clone());
        }
        let wanted = terms.driver.map_or("any driver", Driver::word);
        let problem = "no shared data store of this driver accepts a plane and has room";
        refuse(RefusalReason::LimitReached, "terms.driver", wanted, problem)
    }

    /// Why a data store does not do.
    fn unfit(
        &self,
        id: &DataStoreId,
        store: &DataStoreTerms,
        driver: Option<Driver>,
        size: &SizeClass,
        except: Option<PlaneNumber>,
    ) -> Option<String> {
        let used = self.store_units(id, except);
        if driver.is_some_and(|driver| driver != store.driver) {
            Some(format!("is {}", store.driver.word()))
        } else if !store.accepting {
            Some("accepts no planes".to_owned())
        } else if store.dedicated && used > 0 {
            Some("is dedicated to another plane".to_owned())
        } else if used + u64::from(size.store_units) > u64::from(store.units_max) {
            Some(format!("holds {used} of {} units", store.units_max))
        } else {
            None
        }
    }

    /// Where a plane's data are kept under other terms: they stay where they are unless another place is named.
    fn store_for_change(&self, plane: &PlaneRecord, terms: &ClusterTerms) -> Checked<DataStoreId> {
        if terms.driver.is_some_and(|driver| driver != plane.driver) {
            let problem =
                format!("is {}, and data move between stores of one driver only", plane.driver.word());
            return refuse(RefusalReason::Unsupported, "terms.driver", &plane.data_store, problem);
        }
        match &terms.data_store {
            Some(id) if *id != plane.data_store => {
                let Some((_, size)) = size_named(&self.rules, &plane.size) else {
                    return refuse(
                        RefusalReason::Unsupported,
                        "terms.data_store",
                        id,
                        "the plane has no size",
                    );
                };
                let wanted = ClusterTerms { driver: Some(plane.driver), ..terms.clone() };
                self.choose_store(&wanted, size, Some(plane.number))
            }
            _ => Ok(plane.data_store.clone()),
        }
    }
}
