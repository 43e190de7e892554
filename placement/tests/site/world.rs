//! A site and what it was told, with the slow ways to check it.

use std::collections::{BTreeMap, BTreeSet};

use placement::site::{Amounts, HostTerms, Move, PlaneTerms, Room, Score, Site};
use proptest::prelude::*;
use proto::Timestamp;

const LARGEST: Amounts = [2_000, 5_000, 0, 0];

#[derive(Clone, Debug)]
pub(crate) enum Op {
    AddHost(HostTerms),
    RemoveHost(usize),
    Leave(usize, i64),
    Stay(usize),
    AddPlane(PlaneTerms),
    RemovePlane(usize),
    Amend(usize, PlaneTerms),
    Place(usize),
    Resettle,
}

fn hosts() -> impl Strategy<Value = HostTerms> {
    (
        0..3_u32,
        prop::sample::select(vec![0, 0, 0, 1_u32]),
        prop::sample::select(vec![0, 0, 0, 1_u64]),
        50..200_u64,
        50..200_u64,
    )
        .prop_map(|(zone, region, taints, cpu, memory)| HostTerms {
            zone,
            region,
            taints,
            capacity: [cpu * 10, memory * 25, 0, 0],
        })
}

fn planes() -> impl Strategy<Value = PlaneTerms> {
    (0..5_u32, 0..90_u64, 0..90_u64, prop::bool::weighted(0.8), 0..2_u64, 1..4_u64).prop_map(
        |(replicas, cpu, memory, spread, tolerates, regions)| PlaneTerms {
            replicas,
            request: [cpu * 10, memory * 25, 0, 0],
            spread,
            tolerates,
            regions,
        },
    )
}

pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => hosts().prop_map(Op::AddHost),
        1 => any::<usize>().prop_map(Op::RemoveHost),
        2 => (any::<usize>(), 0..1_000_i64).prop_map(|(host, at)| Op::Leave(host, at)),
        1 => any::<usize>().prop_map(Op::Stay),
        6 => planes().prop_map(Op::AddPlane),
        2 => any::<usize>().prop_map(Op::RemovePlane),
        2 => (any::<usize>(), planes()).prop_map(|(plane, terms)| Op::Amend(plane, terms)),
        6 => any::<usize>().prop_map(Op::Place),
        3 => Just(Op::Resettle),
    ];
    prop::collection::vec(op, 1..80)
}

/// A site, and what it was told.
pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) hosts: BTreeMap<u32, (HostTerms, bool)>,
    pub(crate) planes: BTreeSet<u32>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { site: Site::new(2, &LARGEST, 0).unwrap(), hosts: BTreeMap::new(), planes: BTreeSet::new() }
    }

    pub(crate) fn host(&self, which: usize) -> Option<u32> {
        self.hosts.keys().nth(which % self.hosts.len().max(1)).copied()
    }

    pub(crate) fn plane(&self, which: usize) -> Option<u32> {
        self.planes.iter().nth(which % self.planes.len().max(1)).copied()
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::AddHost(terms) => {
                self.hosts.insert(self.site.add_host(terms).unwrap(), (*terms, true));
            }
            Op::RemoveHost(which) => {
                if let Some(host) = self.host(*which) {
                    self.site.remove_host(host).unwrap();
                    self.hosts.remove(&host);
                }
            }
            Op::Leave(which, at) => {
                if let Some(host) = self.host(*which) {
                    self.site.leave(host, Timestamp::from_micros(*at)).unwrap();
                    self.hosts.get_mut(&host).unwrap().1 = false;
                }
            }
            Op::Stay(which) => {
                if let Some(host) = self.host(*which) {
                    self.site.stay(host).unwrap();
                    self.hosts.get_mut(&host).unwrap().1 = true;
                }
            }
            Op::AddPlane(terms) => {
                self.planes.insert(self.site.add_plane(terms).unwrap());
            }
            Op::RemovePlane(which) => {
                if let Some(plane) = self.plane(*which) {
                    self.site.remove_plane(plane).unwrap();
                    self.planes.remove(&plane);
                }
            }
            Op::Amend(which, terms) => {
                if let Some(plane) = self.plane(*which) {
                    self.site.amend_plane(plane, terms).unwrap();
                }
            }
            Op::Place(which) => {
                if let Some(plane) = self.plane(*which) {
                    self.place(plane);
                }
            }
            Op::Resettle => self.resettle(),
        }
    }

    fn place(&mut self, plane: u32) {
        let before = self.site.on(plane).to_vec();
        let chosen = self.site.choose(plane, None).ok();
        assert_eq!(chosen, self.scan(plane), "the index and a scan of all hosts differ");
        let missing = self.site.missing(plane);
        let placed = self.site.place(plane);
        assert_eq!(placed.is_ok(), self.site.missing(plane) == 0);
        assert_eq!(&self.site.on(plane)[..before.len()], &before[..]);
        if let Some(chosen) = chosen.filter(|_| missing > 0) {
            assert_eq!(self.site.on(plane)[before.len()], chosen.host);
        }
    }

    /// The least score over all hosts, without an index.
    fn scan(&self, plane: u32) -> Option<Score> {
        let terms = *self.site.terms(plane).unwrap();
        let suits =
            |host: &HostTerms| host.taints & !terms.tolerates == 0 && terms.regions >> host.region & 1 == 1;
        let open = || self.hosts.iter().filter(|(_, (_, open))| *open).map(|(ord, (host, _))| (*ord, host));
        let able: BTreeSet<u32> = open()
            .filter(|(_, host)| suits(host) && (0..4).all(|at| terms.request[at] <= host.capacity[at]))
            .map(|(_, host)| host.zone)
            .collect();
        let free =
            |at: usize| open().map(|(ord, _)| self.site.room(ord).unwrap()[at]).sum::<i64>().max(1) as u64;
        let part = |at: usize| (terms.request[at] << 20) / free(at);
        let resource = usize::from(part(1) > part(0));
        let step = |room: i64| {
            let width = (LARGEST[resource] / 1_024 + 1).next_power_of_two();
            (room as u64 / width).min(1_023) as u32
        };
        let on = self.site.on(plane);
        let scores = open().filter_map(|(ord, host)| {
            let room = self.site.room(ord).unwrap();
            let shared = on.iter().filter(|other| self.hosts[other].0.zone == host.zone).count() as u32;
            let fits = (0..4).all(|at| terms.request[at] as i64 <= room[at]);
            let zone = !terms.spread || shared == 0 || able.len() < terms.replicas as usize;
            let zone_shared = if terms.spread { shared } else { 0 };
            (suits(host) && fits && zone && !on.contains(&ord)).then(|| Score {
                zone_shared,
                room_step: step(room[resource]),
                host: ord,
            })
        });
        scores.min()
    }

    fn resettle(&mut self) {
        let before = self.everything();
        let resettled = self.site.resettle();
        // Carried out one by one, the moves lead to where everything is now.
        let mut carried = before.clone();
        for step in &resettled.moves {
            carry(&mut carried, step);
        }
        assert_eq!(carried, self.everything());
        // What has to go is gone, or said to be at risk.
        for plane in &self.planes {
            let risks = resettled.at_risk.iter().filter(|risk| risk.plane == *plane);
            let nowhere = risks.clone().filter(|risk| risk.on.is_none()).count() as u32;
            assert_eq!(nowhere, self.site.missing(*plane));
            for host in self.site.on(*plane).iter().filter(|host| !self.hosts[host].1) {
                assert!(risks.clone().any(|risk| risk.on == Some(*host)));
            }
        }
        // Replicas on hosts that stay and have room for them are not moved, but to make room.
        for step in &resettled.moves {
            let made_room = resettled.moves.iter().any(|other| other.after == Some(step.plane));
            let must = step
                .from
                .is_none_or(|from| !self.hosts[&from].1 || overfull(&self.hosts, &before, &self.site, from));
            assert!(must || made_room, "{step:?}");
        }
        let again = self.site.clone().resettle();
        assert!(again.moves.is_empty(), "settling again moved {:?}", again.moves);
    }

    pub(crate) fn everything(&self) -> BTreeMap<u32, BTreeSet<u32>> {
        self.planes.iter().map(|plane| (*plane, self.site.on(*plane).iter().copied().collect())).collect()
    }

    pub(crate) fn check(&self) {
        for (ord, (terms, _)) in &self.hosts {
            let mut room: Room = terms.capacity.map(|amount| amount as i64);
            for plane in &self.planes {
                if self.site.on(*plane).contains(ord) {
                    assert!(self.site.planes_on(*ord).contains(plane));
                    let request = self.site.terms(*plane).unwrap().request;
                    for (room, amount) in room.iter_mut().zip(request) {
                        *room -= amount as i64;
                    }
                }
            }
            assert_eq!(&room, self.site.room(*ord).unwrap());
        }
        let short: Vec<u32> =
            self.planes.iter().copied().filter(|plane| self.site.missing(*plane) > 0).collect();
        assert_eq!(short, self.site.short().collect::<Vec<u32>>());
        for plane in &self.planes {
            let on = self.site.on(*plane);
            assert_eq!(on.iter().collect::<BTreeSet<_>>().len(), on.len());
            assert!(on.iter().all(|host| self.hosts.contains_key(host)));
        }
    }
}

fn overfull(
    hosts: &BTreeMap<u32, (HostTerms, bool)>,
    on: &BTreeMap<u32, BTreeSet<u32>>,
    site: &Site,
    host: u32,
) -> bool {
    (0..2).any(|at| {
        let there = on.iter().filter(|(_, on)| on.contains(&host));
        there.map(|(plane, _)| site.terms(*plane).unwrap().request[at]).sum::<u64>()
            > hosts[&host].0.capacity[at]
    })
}

fn carry(everything: &mut BTreeMap<u32, BTreeSet<u32>>, step: &Move) {
    let on = everything.get_mut(&step.plane).unwrap();
    if let Some(from) = step.from {
        assert!(on.remove(&from), "{step:?} comes from where it is not");
    }
    assert!(on.insert(step.to), "{step:?} goes to where it is");
}

pub(crate) fn site_of(hosts: &[(u32, u64)]) -> (Site, Vec<u32>) {
    let mut site = Site::new(1, &[1_000, 0, 0, 0], 0).unwrap();
    let terms =
        |(zone, cpu): &(u32, u64)| HostTerms { zone: *zone, region: 0, taints: 0, capacity: [*cpu, 0, 0, 0] };
    let hosts = hosts.iter().map(|host| site.add_host(&terms(host)).unwrap()).collect();
    (site, hosts)
}

pub(crate) fn plane(replicas: u32, cpu: u64) -> PlaneTerms {
    PlaneTerms { replicas, request: [cpu, 0, 0, 0], spread: true, tolerates: 0, regions: 1 }
}
