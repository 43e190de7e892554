//! One site's hosts and planes, changed one by one: the placement that a machine keeps.
//!
//! Every choice is the least [`Score`] over all hosts that may take a replica, found through [`shelf`]s. Time comes
//! in only as the instants at which hosts are gone. What is decided here is where replicas belong; in which order they
//! get there is for [`rollout`](crate::rollout).

mod advice;
mod carry;
mod choose;
mod consolidate;
mod resettle;
mod shelf;
mod terms;

use std::collections::{BTreeMap, BTreeSet};

use proto::Timestamp;

use crate::pack::{AMOUNT_MAX, HOSTS_MAX, PERMILLE, PLANES_MAX, less_reserve};
use shelf::{Label, Scale, Shelf};

pub use advice::{ADVISED_MAX, Advice};
pub use carry::{SavedHost, SavedPlane, SavedSite};
pub use choose::{Score, Shortage};
pub use consolidate::Consolidation;
pub use resettle::{AtRisk, Move, Resettled};
use terms::most;
pub use terms::{HostTerms, PlaneTerms, SiteError};

/// Most kinds of resources of a site.
pub const RESOURCES_MAX: usize = 4;
/// Most zones and most regions of a site, as sets of them are words.
pub const PLACES_MAX: u32 = 64;
/// Most different combinations of zone, region and taints.
pub const LABELS_MAX: usize = 1_024;
/// Most replicas of a plane.
pub const PLANE_REPLICAS_MAX: u32 = 16;

/// An amount of each resource.
pub type Amounts = [u64; RESOURCES_MAX];
/// What is free of each resource; below zero on a host whose planes have grown.
pub type Room = [i64; RESOURCES_MAX];
/// A host's number, used again after it is gone.
pub type HostOrd = u32;
/// A plane's number, used again after it is gone.
pub type PlaneOrd = u32;

#[derive(Clone, Debug)]
struct Host {
    label: Label,
    shelf: u32,
    /// With the surge reserve taken off.
    capacity: Amounts,
    /// When it is gone, if it leaves.
    gone_at: Option<Timestamp>,
    /// Whether it takes newcomers.
    open: bool,
    planes: Vec<PlaneOrd>,
}

#[derive(Clone, Debug)]
struct Plane {
    terms: PlaneTerms,
    on: Vec<HostOrd>,
}

/// A site's hosts and planes.
#[derive(Clone, Debug, Default)]
pub struct Site {
    resources: usize,
    scale: Scale,
    surge_reserve_permille: u32,
    hosts: Vec<Option<Host>>,
    /// By host. Apart from the hosts, as choosing looks at little else.
    rooms: Vec<Room>,
    shelves: Vec<Shelf>,
    shelf_of: BTreeMap<Label, u32>,
    planes: Vec<Option<Plane>>,
    /// What is free on all hosts that take newcomers together.
    open_room: Room,
    /// Planes with fewer replicas placed than wanted.
    short: BTreeSet<PlaneOrd>,
    free_hosts: BTreeSet<HostOrd>,
    free_planes: BTreeSet<PlaneOrd>,
}

impl Site {
    /// An empty site with so many resources. `largest` is a usual large host: rooms beyond it are not told apart.
    /// Every host keeps `surge_reserve_permille` of each resource free.
    ///
    /// # Errors
    /// When a number is past its bound.
    pub fn new(resources: usize, largest: &Amounts, surge_reserve_permille: u32) -> Result<Self, SiteError> {
        most("resources", resources as u64, RESOURCES_MAX as u64)?;
        most("surge_reserve_permille", surge_reserve_permille.into(), PERMILLE.into())?;
        Ok(Self {
            resources,
            scale: Scale::of(largest),
            surge_reserve_permille,
            hosts: Vec::new(),
            rooms: Vec::new(),
            shelves: Vec::new(),
            shelf_of: BTreeMap::new(),
            planes: Vec::new(),
            open_room: [0; RESOURCES_MAX],
            short: BTreeSet::new(),
            free_hosts: BTreeSet::new(),
            free_planes: BTreeSet::new(),
        })
    }

    /// Takes a host in.
    ///
    /// # Errors
    /// When a number is past its bound.
    pub fn add_host(&mut self, terms: &HostTerms) -> Result<HostOrd, SiteError> {
        most("hosts", self.hosts.len() as u64 + 1, HOSTS_MAX as u64 + self.free_hosts.len() as u64)?;
        self.check_host(terms)?;
        let ord = self.free_hosts.pop_first().unwrap_or(self.hosts.len() as HostOrd);
        self.insert_host(ord, terms)?;
        Ok(ord)
    }

    fn insert_host(&mut self, ord: HostOrd, terms: &HostTerms) -> Result<(), SiteError> {
        let label = Label { zone: terms.zone, region: terms.region, taints: terms.taints };
        let shelf = self.shelf(label)?;
        let capacity = terms.capacity.map(|amount| less_reserve(amount, self.surge_reserve_permille));
        let host = Host { label, shelf, capacity, gone_at: None, open: false, planes: Vec::new() };
        if ord as usize >= self.hosts.len() {
            self.hosts.resize(ord as usize + 1, None);
            self.rooms.resize(ord as usize + 1, [0; RESOURCES_MAX]);
        }
        self.hosts[ord as usize] = Some(host);
        self.rooms[ord as usize] = capacity.map(|amount| amount as i64);
        self.open(ord);
        Ok(())
    }

    /// Whether there may be such a host.
    ///
    /// # Errors
    /// When a number is past its bound.
    pub fn check_host(&self, terms: &HostTerms) -> Result<(), SiteError> {
        most("zone", terms.zone.into(), u64::from(PLACES_MAX - 1))?;
        most("region", terms.region.into(), u64::from(PLACES_MAX - 1))?;
        self.amounts("capacity", &terms.capacity)?;
        let label = Label { zone: terms.zone, region: terms.region, taints: terms.taints };
        let labels = self.shelves.len() as u64 + u64::from(!self.shelf_of.contains_key(&label));
        most("combinations of zone, region and taints", labels, LABELS_MAX as u64)
    }

    /// Forgets a host that is gone, with whatever is on it. Planes that lose a replica by it are short of one.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn remove_host(&mut self, host: HostOrd) -> Result<(), SiteError> {
        for plane in self.host(host)?.planes.clone() {
            self.take(plane, host);
        }
        self.close(host);
        self.hosts[host as usize] = None;
        self.free_hosts.insert(host);
        Ok(())
    }

    /// Says that a host leaves: nothing comes to it any more. [`Site::resettle`] finds other places for what is on it.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn leave(&mut self, host: HostOrd, gone_at: Timestamp) -> Result<(), SiteError> {
        self.host(host)?;
        self.close(host);
        if let Some(host) = &mut self.hosts[host as usize] {
            host.gone_at = Some(gone_at);
        }
        Ok(())
    }

    /// Says that a host stays after all.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn stay(&mut self, host: HostOrd) -> Result<(), SiteError> {
        self.host(host)?;
        if let Some(host) = &mut self.hosts[host as usize] {
            host.gone_at = None;
        }
        self.open(host);
        Ok(())
    }

    /// Takes a plane in, without placing it.
    ///
    /// # Errors
    /// When a number is past its bound.
    pub fn add_plane(&mut self, terms: &PlaneTerms) -> Result<PlaneOrd, SiteError> {
        most("planes", self.planes.len() as u64 + 1, PLANES_MAX as u64 + self.free_planes.len() as u64)?;
        self.check_plane(terms)?;
        let ord = self.free_planes.pop_first().unwrap_or(self.planes.len() as PlaneOrd);
        if ord as usize == self.planes.len() {
            self.planes.push(None);
        }
        self.planes[ord as usize] =
            Some(Plane { terms: *terms, on: Vec::with_capacity(terms.replicas as usize) });
        self.note_missing(ord);
        Ok(ord)
    }

    /// Whether there may be such a plane.
    ///
    /// # Errors
    /// When a number is past its bound.
    pub fn check_plane(&self, terms: &PlaneTerms) -> Result<(), SiteError> {
        most("replicas", terms.replicas.into(), PLANE_REPLICAS_MAX.into())?;
        self.amounts("request", &terms.request)
    }

    /// Forgets a plane and frees its room.
    ///
    /// # Errors
    /// When there is no such plane.
    pub fn remove_plane(&mut self, plane: PlaneOrd) -> Result<(), SiteError> {
        self.plane(plane)?;
        while let Some(host) = self.on(plane).last().copied() {
            self.take(plane, host);
        }
        self.short.remove(&plane);
        self.planes[plane as usize] = None;
        self.free_planes.insert(plane);
        Ok(())
    }

    /// Gives a plane other terms. Its replicas stay where they are, even where there is too little room now:
    /// [`Site::resettle`] finds other places. Replicas that are too many go, from leaving hosts first.
    ///
    /// # Errors
    /// When there is no such plane, or a number is past its bound.
    pub fn amend_plane(&mut self, plane: PlaneOrd, terms: &PlaneTerms) -> Result<(), SiteError> {
        self.check_plane(terms)?;
        let mut on = self.plane(plane)?.on.clone();
        for host in &on {
            self.take(plane, *host);
        }
        // By number, not by age: what is decided is a function of where replicas are, not of how they came there.
        on.sort_unstable_by_key(|host| (!self.is_open(*host), *host));
        on.truncate(terms.replicas as usize);
        if let Some(plane) = &mut self.planes[plane as usize] {
            plane.terms = *terms;
        }
        for host in on {
            self.put(plane, host);
        }
        self.note_missing(plane);
        Ok(())
    }

    /// Says that a plane has a replica on a host, as it was found there.
    ///
    /// # Errors
    /// When there is no such plane or host, or the plane has all its replicas, or one there.
    pub fn found(&mut self, plane: PlaneOrd, host: HostOrd) -> Result<(), SiteError> {
        self.host(host)?;
        let there = self.plane(plane)?.on.iter().filter(|other| **other == host).count() as u64;
        most("replicas on one host", there + 1, 1)?;
        most("replicas", self.on(plane).len() as u64 + 1, self.plane(plane)?.terms.replicas.into())?;
        self.put(plane, host);
        Ok(())
    }

    /// Where a plane's replicas are, in the order in which they were placed; none if there is no such plane.
    pub fn on(&self, plane: PlaneOrd) -> &[HostOrd] {
        self.planes.get(plane as usize).and_then(Option::as_ref).map_or(&[], |plane| &plane.on)
    }

    /// A plane's terms.
    pub fn terms(&self, plane: PlaneOrd) -> Option<&PlaneTerms> {
        self.planes.get(plane as usize)?.as_ref().map(|plane| &plane.terms)
    }

    /// What is free on a host.
    pub fn room(&self, host: HostOrd) -> Option<&Room> {
        self.hosts.get(host as usize)?.as_ref()?;
        self.rooms.get(host as usize)
    }

    /// What a host could hold, the surge reserve taken off.
    pub fn capacity(&self, host: HostOrd) -> Option<&Amounts> {
        self.hosts.get(host as usize)?.as_ref().map(|host| &host.capacity)
    }

    /// When a host is gone, if it leaves.
    pub fn gone_at(&self, host: HostOrd) -> Option<Timestamp> {
        self.hosts.get(host as usize)?.as_ref()?.gone_at
    }

    /// Planes on a host, in no particular order.
    pub fn planes_on(&self, host: HostOrd) -> &[PlaneOrd] {
        self.hosts.get(host as usize).and_then(Option::as_ref).map_or(&[], |host| &host.planes)
    }

    /// Planes with fewer replicas placed than wanted.
    pub fn short(&self) -> impl Iterator<Item = PlaneOrd> + '_ {
        self.short.iter().copied()
    }

    /// How many of a plane's replicas have no host.
    pub fn missing(&self, plane: PlaneOrd) -> u32 {
        self.terms(plane).map_or(0, |terms| terms.replicas.saturating_sub(self.on(plane).len() as u32))
    }

    fn amounts(&self, what: &'static str, amounts: &Amounts) -> Result<(), SiteError> {
        most(what, amounts.iter().copied().max().unwrap_or(0), AMOUNT_MAX)?;
        // What is not counted must not be asked for, as choosing would not see it.
        most(
            "resources",
            amounts.iter().rposition(|amount| *amount > 0).map_or(0, |at| at as u64 + 1),
            self.resources as u64,
        )
    }

    fn host(&self, ord: HostOrd) -> Result<&Host, SiteError> {
        let host = self.hosts.get(ord as usize).and_then(Option::as_ref);
        host.ok_or(SiteError::Unknown { what: "host", ord })
    }

    fn plane(&self, ord: PlaneOrd) -> Result<&Plane, SiteError> {
        let plane = self.planes.get(ord as usize).and_then(Option::as_ref);
        plane.ok_or(SiteError::Unknown { what: "plane", ord })
    }

    /// The number of the shelf for a label, new if need be.
    fn shelf(&mut self, label: Label) -> Result<u32, SiteError> {
        if let Some(shelf) = self.shelf_of.get(&label) {
            return Ok(*shelf);
        }
        let shelf = self.shelves.len();
        most("combinations of zone, region and taints", shelf as u64 + 1, LABELS_MAX as u64)?;
        self.shelves.push(Shelf::new(label, self.resources));
        self.shelf_of.insert(label, shelf as u32);
        Ok(shelf as u32)
    }

    fn is_open(&self, host: HostOrd) -> bool {
        self.hosts.get(host as usize).and_then(Option::as_ref).is_some_and(|host| host.open)
    }

    fn open(&mut self, ord: HostOrd) {
        let room = self.rooms[ord as usize];
        if let Some(host) = self.hosts[ord as usize].as_mut().filter(|host| !host.open) {
            host.open = true;
            self.shelves[host.shelf as usize].add(&self.scale, ord, &host.capacity, &room);
            for (sum, room) in self.open_room.iter_mut().zip(&room) {
                *sum += room;
            }
        }
    }

    fn close(&mut self, ord: HostOrd) {
        let room = self.rooms[ord as usize];
        if let Some(host) = self.hosts[ord as usize].as_mut().filter(|host| host.open) {
            host.open = false;
            self.shelves[host.shelf as usize].remove(&self.scale, ord, &host.capacity, &room);
            for (sum, room) in self.open_room.iter_mut().zip(&room) {
                *sum -= room;
            }
        }
    }

    fn note_missing(&mut self, plane: PlaneOrd) {
        if self.missing(plane) > 0 {
            self.short.insert(plane);
        } else {
            self.short.remove(&plane);
        }
    }

    /// Takes back that a plane has a replica on a host.
    pub(crate) fn take_back(&mut self, plane: PlaneOrd, host: HostOrd) {
        if self.host(host).is_ok() && self.plane(plane).is_ok() {
            self.take(plane, host);
        }
    }

    /// Says that a plane's replica is on a host after all; whether it could be, as it has not all replicas, and none
    /// there.
    pub(crate) fn put_back(&mut self, plane: PlaneOrd, host: HostOrd) -> bool {
        let can = self.host(host).is_ok() && self.missing(plane) > 0 && !self.on(plane).contains(&host);
        if can {
            self.put(plane, host);
        }
        can
    }

    fn put(&mut self, plane: PlaneOrd, host: HostOrd) {
        let (Some(home), Some(placed)) = (&mut self.hosts[host as usize], &mut self.planes[plane as usize])
        else {
            return;
        };
        home.planes.push(plane);
        placed.on.push(host);
        let (whole, request) = (placed.on.len() as u32 >= placed.terms.replicas, placed.terms.request);
        self.shift(host, &request, -1);
        if whole {
            self.short.remove(&plane);
        }
    }

    fn take(&mut self, plane: PlaneOrd, host: HostOrd) {
        let (Some(home), Some(placed)) = (&mut self.hosts[host as usize], &mut self.planes[plane as usize])
        else {
            return;
        };
        let Some(at) = placed.on.iter().position(|other| *other == host) else { return };
        placed.on.remove(at);
        if let Some(at) = home.planes.iter().position(|other| *other == plane) {
            home.planes.swap_remove(at);
        }
        let request = placed.terms.request;
        self.shift(host, &request, 1);
        self.note_missing(plane);
    }

    fn shift(&mut self, ord: HostOrd, request: &Amounts, sign: i64) {
        let Some(host) = &self.hosts[ord as usize] else { return };
        let before = self.rooms[ord as usize];
        let mut after = before;
        for (after, amount) in after.iter_mut().zip(request) {
            *after += sign * *amount as i64;
        }
        self.rooms[ord as usize] = after;
        if host.open {
            self.shelves[host.shelf as usize].shift(&self.scale, ord, &before, &after);
            for (sum, amount) in self.open_room.iter_mut().zip(request) {
                *sum += sign * *amount as i64;
            }
        }
    }
}
