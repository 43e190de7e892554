//! A packing in the making: which plane has a replica on which host, and what is free there.

use super::problem::{HostOrd, PERMILLE, Problem};

/// Amounts are compared across resources in this many parts of the largest host.
const PARTS: u64 = 4_096;

/// How strictly zones bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zones {
    /// As even as the number of zones allows.
    Even,
    /// One replica to a zone where there are as many zones as replicas, else as it comes.
    Enough,
}

/// Which plane has a replica on which host. Replicas of a plane are alike, so none is told from another.
#[derive(Clone, Debug)]
pub(super) struct Packing<'p> {
    pub(super) problem: &'p Problem,
    pub(super) resources: usize,
    /// By plane and resource.
    requests: Vec<i64>,
    /// By plane and resource, in parts of the largest host.
    parts: Vec<u32>,
    /// The largest host's amount by resource, at least 1.
    largest: Vec<u64>,
    /// By host and resource; below zero on a host that holds too much.
    free: Vec<i64>,
    zones: Vec<u32>,
    usable: Vec<bool>,
    /// By host, the planes that have a replica there, as often as they have one.
    holds: Vec<Vec<u32>>,
    /// By plane, the hosts of its replicas.
    on: Vec<Vec<HostOrd>>,
    /// By plane, in how many zones there is a host that could hold a replica at all.
    zones_for: Vec<u32>,
}

impl<'p> Packing<'p> {
    /// With nothing placed.
    pub(super) fn empty(problem: &'p Problem) -> Self {
        let resources = problem.resources;
        let all = || problem.hosts.iter().chain(&problem.template);
        let largest: Vec<u64> = (0..resources)
            .map(|resource| all().map(|host| host.capacity[resource]).max().unwrap_or(0).max(1))
            .collect();
        let mut packing = Self {
            problem,
            resources,
            requests: Vec::with_capacity(problem.planes.len() * resources),
            parts: Vec::with_capacity(problem.planes.len() * resources),
            largest,
            free: Vec::with_capacity(problem.hosts.len() * resources),
            zones: problem.hosts.iter().map(|host| host.zone).collect(),
            usable: problem.hosts.iter().map(|host| !host.leaving).collect(),
            holds: vec![Vec::new(); problem.hosts.len()],
            on: vec![Vec::new(); problem.planes.len()],
            zones_for: zones_for(problem),
        };
        for host in &problem.hosts {
            packing.free.extend(host.capacity.iter().map(|amount| *amount as i64));
        }
        for plane in &problem.planes {
            packing.requests.extend(plane.request.iter().map(|amount| *amount as i64));
            let parts = plane.request.iter().zip(&packing.largest);
            packing
                .parts
                .extend(parts.map(|(amount, largest)| (amount * PARTS / largest).min(PARTS * 2) as u32));
        }
        packing
    }

    /// With everything placed as given.
    pub(super) fn placed(problem: &'p Problem, on: &[Vec<HostOrd>]) -> Self {
        let mut packing = Self::empty(problem);
        for (plane, hosts) in (0..packing.planes()).zip(on) {
            let there = packing.hosts();
            for host in hosts.iter().filter(|host| **host < there) {
                packing.put(plane, *host);
            }
        }
        packing
    }

    pub(super) fn hosts(&self) -> u32 {
        self.holds.len() as u32
    }

    pub(super) fn planes(&self) -> u32 {
        self.on.len() as u32
    }

    pub(super) fn on(&self, plane: u32) -> &[HostOrd] {
        &self.on[plane as usize]
    }

    pub(super) fn holds(&self, host: HostOrd) -> &[u32] {
        &self.holds[host as usize]
    }

    pub(super) fn usable(&self, host: HostOrd) -> bool {
        self.usable[host as usize]
    }

    pub(super) fn request(&self, plane: u32) -> &[i64] {
        &self.requests[plane as usize * self.resources..][..self.resources]
    }

    /// A replica's amounts in parts of the largest host.
    pub(super) fn parts(&self, plane: u32) -> &[u32] {
        &self.parts[plane as usize * self.resources..][..self.resources]
    }

    pub(super) fn free(&self, host: HostOrd) -> &[i64] {
        &self.free[host as usize * self.resources..][..self.resources]
    }

    /// What is free on a host, in parts of the largest host.
    pub(super) fn free_parts(&self, host: HostOrd, parts: &mut Vec<u64>) {
        parts.clear();
        let free = self.free(host).iter().zip(&self.largest);
        parts.extend(free.map(|(free, largest)| free.max(&0).unsigned_abs() * PARTS / largest));
    }

    /// How many replicas of a plane are not placed.
    pub(super) fn missing(&self, plane: u32) -> u32 {
        self.problem.planes[plane as usize].replicas.saturating_sub(self.on(plane).len() as u32)
    }

    pub(super) fn fits(&self, plane: u32, host: HostOrd) -> bool {
        self.request(plane).iter().zip(self.free(host)).all(|(request, free)| request <= free)
    }

    /// Whether a host could hold a replica if it were empty.
    pub(super) fn could_hold(&self, plane: u32, host: HostOrd) -> bool {
        let problem = self.problem;
        let host = problem.hosts.get(host as usize).or(problem.template.as_ref());
        let request = &problem.planes[plane as usize].request;
        host.is_some_and(|host| request.iter().zip(&host.capacity).all(|(request, has)| request <= has))
    }

    /// Whether a host of the template could hold a replica.
    pub(super) fn fits_template(&self, plane: u32) -> bool {
        let request = &self.problem.planes[plane as usize].request;
        let fits = |capacity: &[u64]| request.iter().zip(capacity).all(|(request, free)| request <= free);
        self.problem.template.as_ref().is_some_and(|host| fits(&host.capacity))
    }

    /// Whether a plane's replicas may share a zone at most so often.
    fn zone_bound(&self, plane: u32, zones: Zones) -> u32 {
        let replicas = self.problem.planes[plane as usize].replicas;
        let zones_for = self.zones_for[plane as usize].max(1);
        match zones {
            Zones::Even => replicas.div_ceil(zones_for),
            Zones::Enough if zones_for >= replicas => 1,
            Zones::Enough => replicas,
        }
    }

    /// Whether another replica may come to a host, its room aside: the host stays, none of the plane is there yet,
    /// and its zone has not too many.
    pub(super) fn allowed(&self, plane: u32, host: HostOrd, zones: Zones) -> bool {
        self.usable(host) && self.apart(plane, host, zones)
    }

    /// Whether a replica on a host would be apart from the plane's others.
    pub(super) fn apart(&self, plane: u32, host: HostOrd, zones: Zones) -> bool {
        let on = self.on(plane);
        if on.is_empty() || !self.problem.planes[plane as usize].spread {
            return true;
        }
        let zone = self.zones[host as usize];
        let mut shared = 0;
        for other in on {
            if *other == host {
                return false;
            }
            shared += u32::from(self.zones[*other as usize] == zone);
        }
        shared == 0 || shared < self.zone_bound(plane, zones)
    }

    pub(super) fn put(&mut self, plane: u32, host: HostOrd) {
        self.on[plane as usize].push(host);
        self.holds[host as usize].push(plane);
        self.shift(plane, host, -1);
    }

    /// Takes a replica of a plane off a host; nothing where it has none there.
    pub(super) fn take(&mut self, plane: u32, host: HostOrd) {
        let Some(at) = self.on[plane as usize].iter().position(|other| *other == host) else { return };
        self.on[plane as usize].swap_remove(at);
        let holds = &mut self.holds[host as usize];
        if let Some(at) = holds.iter().position(|other| *other == plane) {
            holds.swap_remove(at);
        }
        self.shift(plane, host, 1);
    }

    fn shift(&mut self, plane: u32, host: HostOrd, sign: i64) {
        let free = &mut self.free[host as usize * self.resources..][..self.resources];
        let request = &self.requests[plane as usize * self.resources..][..self.resources];
        for (free, request) in free.iter_mut().zip(request) {
            *free += sign * request;
        }
    }

    /// Makes another host from the template, if there is one.
    pub(super) fn open(&mut self) -> Option<HostOrd> {
        let template = self.problem.template.as_ref()?;
        let host = self.hosts();
        self.free.extend(template.capacity.iter().map(|amount| *amount as i64));
        self.zones.push(template.zone);
        self.usable.push(true);
        self.holds.push(Vec::new());
        Some(host)
    }

    /// Closes a host to newcomers, or opens it again.
    pub(super) fn set_usable(&mut self, host: HostOrd, usable: bool) {
        self.usable[host as usize] = usable;
    }

    pub(super) fn hosts_used(&self) -> u32 {
        self.holds.iter().filter(|holds| !holds.is_empty()).count() as u32
    }

    /// Fewest hosts that could hold everything that stands on the hosts given, if the largest could be cut at will.
    pub(super) fn hosts_at_least(&self, hosts: impl Iterator<Item = HostOrd>) -> u32 {
        let mut sums = vec![0_i64; self.resources];
        for host in hosts {
            for plane in self.holds(host) {
                for (sum, request) in sums.iter_mut().zip(self.request(*plane)) {
                    *sum += request;
                }
            }
        }
        let hosts =
            sums.iter().zip(&self.largest).map(|(sum, largest)| sum.unsigned_abs().div_ceil(*largest));
        hosts.max().unwrap_or(0) as u32
    }

    pub(super) fn into_on(self) -> Vec<Vec<HostOrd>> {
        self.on
    }
}

/// By plane, in how many zones there is a host that stays and could hold a replica if it were empty.
fn zones_for(problem: &Problem) -> Vec<u32> {
    // Hosts come in few shapes, so that planes are compared with shapes and not with hosts.
    let mut shapes: Vec<(u32, &[u64])> = problem
        .hosts
        .iter()
        .chain(&problem.template)
        .filter(|host| !host.leaving)
        .map(|host| (host.zone, host.capacity.as_slice()))
        .collect();
    shapes.sort_unstable();
    shapes.dedup();
    let zones_of = |request: &[u64]| {
        let (mut zones, mut last) = (0, None);
        for (zone, capacity) in &shapes {
            if last != Some(*zone) && request.iter().zip(*capacity).all(|(request, free)| request <= free) {
                (zones, last) = (zones + 1, Some(*zone));
            }
        }
        zones
    };
    problem.planes.iter().map(|plane| if plane.spread { zones_of(&plane.request) } else { 1 }).collect()
}

/// What remains of a capacity once the surge reserve is taken off, rounded down.
pub fn less_reserve(capacity: u64, surge_reserve_permille: u32) -> u64 {
    let left = u128::from(PERMILLE.saturating_sub(surge_reserve_permille));
    (u128::from(capacity) * left / u128::from(PERMILLE)) as u64
}
