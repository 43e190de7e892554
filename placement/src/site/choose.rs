//! Which host a replica goes to.

use super::{Amounts, HostOrd, PlaneOrd, PlaneTerms, Room, Site};

/// How bad a host is for a replica: the least is chosen, and an earlier field counts before all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Replicas of the plane in the host's zone. Where there are as many zones as replicas, none may be.
    pub zone_shared: u32,
    /// How much is free there of the resource that the replica finds scarcest, in steps of the site: fuller hosts
    /// are filled first, so that others stay empty.
    pub room_step: u32,
    /// The lower number, so that there is one answer.
    pub host: HostOrd,
}

/// Why there is no host for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    /// No host of a region and with taints that suit the plane takes newcomers.
    NoHosts,
    /// None of them is large enough.
    TooLarge,
    /// Hosts in as many zones, or as many hosts, as the plane has replicas could hold one, but those where it has none
    /// yet are full.
    Full,
}

/// What counts for every replica of a plane.
struct Wanted {
    /// The resource of which it takes the largest part of what is free on the site.
    resource: usize,
    /// The step of its request there: hosts before it have too little.
    from_step: u32,
    /// A bit for each zone with a host that could hold a replica.
    able: u64,
    /// Whether there are as many zones as replicas, so that none may be shared.
    zones_enough: bool,
}

impl Site {
    /// Places what is missing of a plane. What could be placed stays placed, even if it is not all.
    ///
    /// # Errors
    /// Why a replica has no host; none is looked for if there is no such plane.
    pub fn place(&mut self, plane: PlaneOrd) -> Result<(), Shortage> {
        let Some(terms) = self.terms(plane).copied() else { return Ok(()) };
        let wanted = self.wanted(&terms);
        // Each turn places a replica.
        while self.missing(plane) > 0 {
            let host = self.least(plane, &terms, &wanted, None)?.host;
            self.put(plane, host);
        }
        Ok(())
    }

    /// The best host for another replica of a plane, other than `except`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&self, plane: PlaneOrd, except: Option<HostOrd>) -> Result<Score, Shortage> {
        let Some(terms) = self.terms(plane) else { return Err(Shortage::NoHosts) };
        self.least(plane, terms, &self.wanted(terms), except)
    }

    /// The least score.
    fn least(
        &self,
        plane: PlaneOrd,
        terms: &PlaneTerms,
        wanted: &Wanted,
        except: Option<HostOrd>,
    ) -> Result<Score, Shortage> {
        let on = self.on(plane);
        let mut best: Option<Score> = None;
        for shelf in &self.shelves {
            if !suits(terms, &shelf.label) {
                continue;
            }
            let zone_shared = if terms.spread { self.shared(on, shelf.label.zone) } else { 0 };
            if zone_shared > 0 && wanted.zones_enough
                || best.is_some_and(|best| best.zone_shared < zone_shared)
            {
                continue;
            }
            let will_do = |host: HostOrd| {
                fits(&terms.request, &self.rooms[host as usize])
                    && !on.contains(&host)
                    && except != Some(host)
            };
            if let Some((room_step, host)) = shelf.first(wanted.resource, wanted.from_step, will_do) {
                let score = Score { zone_shared, room_step, host };
                if best.is_none_or(|best| score < best) {
                    best = Some(score);
                }
            }
        }
        best.ok_or_else(|| self.shortage(terms, wanted))
    }

    /// Whether a replica could come to a host if there were room: the host suits, takes newcomers, and none of the
    /// plane is there or, where that counts, in its zone.
    pub(super) fn allowed(&self, plane: PlaneOrd, host: HostOrd) -> bool {
        let (Some(terms), Ok(home)) = (self.terms(plane), self.host(host)) else { return false };
        let on = self.on(plane);
        home.open
            && suits(terms, &home.label)
            && !on.contains(&host)
            && (!terms.spread || self.shared(on, home.label.zone) == 0 || !self.wanted(terms).zones_enough)
    }

    /// The resource of which the request takes the largest part of what is free on the site.
    pub(super) fn scarcest(&self, request: &Amounts) -> usize {
        let part = |resource: usize| {
            let room = self.open_room[resource].max(1).unsigned_abs();
            (request[resource] << 20) / room
        };
        // The first of equals.
        let mut scarcest = (0, part(0));
        for resource in 1..self.resources {
            let part = part(resource);
            if part > scarcest.1 {
                scarcest = (resource, part);
            }
        }
        scarcest.0
    }

    fn wanted(&self, terms: &PlaneTerms) -> Wanted {
        let resource = self.scarcest(&terms.request);
        let from_step = self.scale.step(resource, terms.request[resource] as i64);
        let able = self
            .shelves
            .iter()
            .filter(|shelf| suits(terms, &shelf.label) && shelf.could_hold(&terms.request));
        let able = able.fold(0_u64, |zones, shelf| zones | 1 << shelf.label.zone);
        Wanted { resource, from_step, able, zones_enough: able.count_ones() >= terms.replicas }
    }

    pub(super) fn shared(&self, on: &[HostOrd], zone: u32) -> u32 {
        let zone_of = |host: &HostOrd| self.hosts[*host as usize].as_ref().map(|host| host.label.zone);
        on.iter().filter(|host| zone_of(host) == Some(zone)).count() as u32
    }

    fn shortage(&self, terms: &PlaneTerms, wanted: &Wanted) -> Shortage {
        let suitable = |shelf: &&super::Shelf| suits(terms, &shelf.label) && !shelf.shapes().is_empty();
        if !self.shelves.iter().any(|shelf| suitable(&shelf)) {
            Shortage::NoHosts
        } else if wanted.able == 0 {
            Shortage::TooLarge
        } else {
            Shortage::Full
        }
    }
}

/// Whether hosts with a label are near enough and tolerated.
pub(super) fn suits(terms: &PlaneTerms, label: &super::Label) -> bool {
    label.taints & !terms.tolerates == 0 && terms.regions >> label.region & 1 == 1
}

#[inline]
pub(super) fn fits(request: &Amounts, room: &Room) -> bool {
    request.iter().zip(room).all(|(wanted, free)| *wanted as i64 <= *free)
}
