//! Why a replica has no host.

use super::packing::{Packing, Zones};

/// What stands in the way of a plane's replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no host that stays.
    NoHosts,
    /// No host has so much of a resource, even if it were empty.
    TooLarge {
        /// Which resource.
        resource: usize,
        /// How much the replica takes.
        wanted: u64,
        /// The most that a host has.
        most: u64,
    },
    /// Each resource is found on some host, but not all of them together on one.
    NoSuchHost,
    /// Its replicas have to be apart, and there are not so many hosts that could hold one.
    TooFewHosts {
        /// How many could.
        hosts: u32,
    },
    /// Hosts with room have a replica of the plane, or are in a zone that has one.
    Apart,
    /// Hosts that could hold a replica are full.
    Full {
        /// The resource that is short on most of them.
        resource: usize,
        /// Hosts that could hold a replica if they were empty.
        hosts: u32,
    },
}

/// The first reason that applies.
pub(super) fn reason(packing: &Packing<'_>, plane: u32) -> Reason {
    let hosts: Vec<u32> = (0..packing.hosts()).filter(|host| packing.usable(*host)).collect();
    let template = packing.problem.template.as_ref();
    if hosts.is_empty() && template.is_none() {
        return Reason::NoHosts;
    }
    let request = &packing.problem.planes[plane as usize].request;
    for (resource, wanted) in request.iter().copied().enumerate() {
        let amounts = hosts.iter().filter_map(|host| packing.problem.hosts.get(*host as usize));
        let most = amounts.chain(template).map(|host| host.capacity[resource]).max().unwrap_or(0);
        if wanted > most {
            return Reason::TooLarge { resource, wanted, most };
        }
    }
    let able: Vec<u32> = hosts.into_iter().filter(|host| packing.could_hold(plane, *host)).collect();
    if able.is_empty() && !packing.fits_template(plane) {
        return Reason::NoSuchHost;
    }
    let terms = &packing.problem.planes[plane as usize];
    if terms.spread && (able.len() as u64) < u64::from(terms.replicas) {
        return Reason::TooFewHosts { hosts: able.len() as u32 };
    }
    if able.iter().any(|host| packing.fits(plane, *host) && !packing.allowed(plane, *host, Zones::Enough)) {
        return Reason::Apart;
    }
    let short = |resource: usize| {
        let lacks = |host: &&u32| packing.free(**host)[resource] < packing.request(plane)[resource];
        able.iter().filter(lacks).count()
    };
    // The first of equals, as `max_by_key` would give the last.
    let resource = (0..packing.resources).rev().max_by_key(|resource| short(*resource)).unwrap_or(0);
    Reason::Full { resource, hosts: able.len() as u32 }
}
