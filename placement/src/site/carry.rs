//! Decisions carried out and taken back, and a site as it was saved.

use proto::Timestamp;

use super::resettle::Move;
use super::{Amounts, HostOrd, HostTerms, PlaneOrd, PlaneTerms, RESOURCES_MAX, Site, SiteError};
use super::{Label, less_reserve};

/// A host as it was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedHost {
    /// Its number.
    pub ord: HostOrd,
    /// What it is, the surge reserve not taken off.
    pub terms: HostTerms,
    /// When it is gone, if it leaves.
    pub gone_at: Option<Timestamp>,
}

/// A plane as it was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPlane {
    /// Its number.
    pub ord: PlaneOrd,
    /// What it is.
    pub terms: PlaneTerms,
    /// Where its replicas belong.
    pub on: Vec<HostOrd>,
}

/// A site as it was saved. Two sites with equal ones decide alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedSite {
    /// Its hosts.
    pub hosts: Vec<SavedHost>,
    /// Its planes.
    pub planes: Vec<SavedPlane>,
    /// Numbers of hosts that were used, and of planes: those in between without a host or plane are used again.
    pub used: (u32, u32),
    /// Zone, region and taints of hosts there ever were.
    pub labels: Vec<(u32, u32, u64)>,
}

impl Site {
    /// A site as it was saved.
    ///
    /// # Errors
    /// When a number is past its bound, or leads nowhere.
    pub fn restored(
        resources: usize,
        largest: &Amounts,
        surge_reserve_permille: u32,
        saved: &SavedSite,
    ) -> Result<Self, SiteError> {
        let mut site = Self::new(resources, largest, surge_reserve_permille)?;
        super::most("hosts", saved.used.0.into(), super::HOSTS_MAX as u64)?;
        super::most("planes", saved.used.1.into(), super::PLANES_MAX as u64)?;
        for (zone, region, taints) in &saved.labels {
            site.shelf(Label { zone: *zone, region: *region, taints: *taints })?;
        }
        site.hosts.resize(saved.used.0 as usize, None);
        site.rooms.resize(saved.used.0 as usize, [0; RESOURCES_MAX]);
        site.planes.resize(saved.used.1 as usize, None);
        site.free_hosts = (0..saved.used.0).collect();
        site.free_planes = (0..saved.used.1).collect();
        for host in &saved.hosts {
            site.check_host(&host.terms)?;
            if !site.free_hosts.remove(&host.ord) {
                return Err(SiteError::Unknown { what: "host", ord: host.ord });
            }
            site.insert_host(host.ord, &host.terms)?;
            if let Some(gone_at) = host.gone_at {
                site.leave(host.ord, gone_at)?;
            }
        }
        for plane in &saved.planes {
            site.check_plane(&plane.terms)?;
            if !site.free_planes.remove(&plane.ord) {
                return Err(SiteError::Unknown { what: "plane", ord: plane.ord });
            }
            let on = Vec::with_capacity(plane.terms.replicas as usize);
            site.planes[plane.ord as usize] = Some(super::Plane { terms: plane.terms, on });
            site.note_missing(plane.ord);
            for host in &plane.on {
                site.found(plane.ord, *host)?;
            }
        }
        Ok(site)
    }

    /// How many numbers of hosts and of planes were used.
    pub fn used(&self) -> (u32, u32) {
        (self.hosts.len() as u32, self.planes.len() as u32)
    }

    /// Zone, region and taints of hosts there ever were, in the order in which they came.
    pub fn labels(&self) -> Vec<(u32, u32, u64)> {
        self.shelves.iter().map(|shelf| (shelf.label.zone, shelf.label.region, shelf.label.taints)).collect()
    }

    /// Gives a host other terms. What is on it stays, even where there is too little room now:
    /// [`Site::resettle`] finds other places.
    ///
    /// # Errors
    /// When there is no such host, or a number is past its bound.
    pub fn amend_host(&mut self, ord: HostOrd, terms: &HostTerms) -> Result<(), SiteError> {
        self.check_host(terms)?;
        let before = self.host(ord)?.capacity;
        let is_open = self.is_open(ord);
        self.close(ord);
        let label = Label { zone: terms.zone, region: terms.region, taints: terms.taints };
        let shelf = self.shelf(label)?;
        let capacity = terms.capacity.map(|amount| less_reserve(amount, self.surge_reserve_permille));
        if let Some(host) = &mut self.hosts[ord as usize] {
            (host.label, host.shelf, host.capacity) = (label, shelf, capacity);
        }
        let room = &mut self.rooms[ord as usize];
        for (room, (after, before)) in room.iter_mut().zip(capacity.iter().zip(&before)) {
            *room += *after as i64 - *before as i64;
        }
        if is_open {
            self.open(ord);
        }
        Ok(())
    }

    /// The move of a plane's replica that leaves it most room for itself: off the fullest of its hosts that stay, onto the
    /// emptiest that may take it, if more is free there even then. Nothing is changed.
    pub fn roomier(&mut self, plane: PlaneOrd) -> Option<Move> {
        let request = self.terms(plane)?.request;
        let resource = self.scarcest(&request);
        let free = |site: &Self, host: HostOrd| site.rooms[host as usize][resource];
        let stays = self.on(plane).iter().copied().filter(|host| self.is_open(*host));
        let from = stays.min_by_key(|host| (free(self, *host), *host))?;
        let room = free(self, from);
        self.take_back(plane, from);
        let others = (0..self.hosts.len() as HostOrd).filter(|host| *host != from);
        let fit = others.filter(|host| {
            super::choose::fits(&request, &self.rooms[*host as usize]) && self.allowed(plane, *host)
        });
        let to = fit.max_by_key(|host| (free(self, *host), std::cmp::Reverse(*host)));
        let to = to.filter(|to| free(self, *to) - request[resource] as i64 > room);
        self.put_back(plane, from);
        Some(Move { plane, from: Some(from), to: to?, gone_at: None, after: None })
    }

    /// Carries decided moves out, in their order: what [`Site::resettle`] did when it decided them.
    pub fn carry(&mut self, moves: &[Move]) {
        for decided in moves {
            if let Some(from) = decided.from {
                self.take_back(decided.plane, from);
            }
            self.put_back(decided.plane, decided.to);
        }
    }

    /// Takes moves back that were just decided, so that everything is where it was before.
    pub fn undo(&mut self, moves: &[Move]) {
        for decided in moves.iter().rev() {
            self.take_back(decided.plane, decided.to);
            if let Some(from) = decided.from {
                self.put_back(decided.plane, from);
            }
        }
    }
}
