//! Planes and hosts as the site reckons with them.

use proto::RegionName;
use proto::placement::{HostTerms, PlaneNumber};

use super::Placement;
use super::record::{PlaneRecord, amounts, size_named};
use crate::site;

/// Where a name stands, or would stand if it came next.
fn place<T: PartialEq>(names: &[T], name: &T) -> u32 {
    names.iter().position(|known| known == name).unwrap_or(names.len()) as u32
}

impl Placement {
    /// A host in numbers. Names that are new have the numbers that come next.
    pub(super) fn host_terms(&self, terms: &HostTerms) -> site::HostTerms {
        let mut taints = 0;
        let mut new = Vec::new();
        for taint in &terms.taints {
            let mut bit = place(&self.taints, taint);
            if bit as usize == self.taints.len() {
                bit += place(&new, &taint);
                if !new.contains(&taint) {
                    new.push(taint);
                }
            }
            taints |= 1_u64.checked_shl(bit).unwrap_or(0);
        }
        site::HostTerms {
            zone: place(&self.zones, &terms.zone),
            region: place(&self.regions, &terms.region),
            taints,
            capacity: amounts(&terms.capacity),
        }
    }

    /// Takes names in that are new; whether regions or taints are.
    pub(super) fn name_host(&mut self, terms: &HostTerms) -> bool {
        let before = (self.regions.len(), self.taints.len());
        if !self.zones.contains(&terms.zone) {
            self.zones.push(terms.zone.clone());
        }
        if !self.regions.contains(&terms.region) {
            self.regions.push(terms.region.clone());
        }
        for taint in &terms.taints {
            if !self.taints.contains(taint) {
                self.taints.push(taint.clone());
            }
        }
        before != (self.regions.len(), self.taints.len())
    }

    /// A plane in numbers.
    pub(super) fn plane_terms(&self, plane: &PlaneRecord) -> site::PlaneTerms {
        let request = size_named(&self.rules, &plane.size)
            .map_or([0; site::RESOURCES_MAX], |(_, size)| amounts(&size.request));
        let tolerates = self.rules.tolerated.iter().map(|taint| bit_of(&self.taints, taint));
        // Near to workers in every one of its regions.
        let regions = plane.terms.regions.iter().map(|region| self.near(region));
        site::PlaneTerms {
            replicas: plane.replicas(&self.rules),
            request,
            spread: true,
            tolerates: tolerates.fold(0, |all, bit| all | bit),
            regions: regions.fold(u64::MAX, |all, near| all & near),
        }
    }

    /// A bit for each region of hosts that is near enough to workers of a region.
    fn near(&self, workers: &RegionName) -> u64 {
        match self.rules.near.iter().find(|near| near.workers == *workers) {
            Some(near) => near.hosts.iter().fold(0, |all, region| all | bit_of(&self.regions, region)),
            None => bit_of(&self.regions, workers),
        }
    }

    /// Lets the site reckon with a plane as it is to be now.
    pub(super) fn refit(&mut self, number: PlaneNumber) {
        let Some(plane) = self.planes.get(&number) else { return };
        let (ord, terms) = (plane.ord, self.plane_terms(plane));
        if self.site.terms(ord) == Some(&terms) {
            return;
        }
        if let Err(error) = self.site.amend_plane(ord, &terms) {
            self.broke("I2", format!("plane {number}: {error}"));
        }
        self.rollout.prune(&self.site, ord);
        self.prune_begun();
        self.is_unsettled = true;
        self.touch(number);
    }

    /// Lets the site reckon with all planes as they are to be now.
    pub(super) fn refit_all(&mut self) {
        let numbers: Vec<PlaneNumber> = self.planes.keys().copied().collect();
        for number in numbers {
            self.refit(number);
        }
    }
}

/// A name's bit; none where it is not known, as then nothing has it.
fn bit_of<T: PartialEq>(names: &[T], name: &T) -> u64 {
    let place = names.iter().position(|known| known == name);
    place.and_then(|place| 1_u64.checked_shl(place as u32)).unwrap_or(0)
}
