//! Moves carried out in the order of a rollout: no host is overloaded, no plane moved twice at once, and there is an end.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "shared with the tests of a site")]
#[path = "site/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use placement::rollout::Rollout;
use placement::site::{Advice, HostTerms};
use proptest::prelude::*;
use proto::Timestamp;
use world::{Op, World, ops, plane, site_of};

/// Everything where it really is while moves are under way, on hosts that it must not overload.
struct Carried {
    world: World,
    rollout: Rollout,
    there: BTreeMap<u32, BTreeSet<u32>>,
}

impl Carried {
    fn settle(&mut self) {
        let resettled = self.world.site.resettle();
        self.rollout.decided(&resettled.moves);
    }

    fn put(&mut self, plane: u32, host: u32) {
        assert!(
            self.there.entry(plane).or_default().insert(host),
            "two replicas of plane {plane} on host {host}"
        );
        let used = |at: usize| {
            let there = self.there.iter().filter(|(_, hosts)| hosts.contains(&host));
            there.map(|(plane, _)| self.world.site.terms(*plane).unwrap().request[at]).sum::<u64>()
        };
        let capacity = self.world.hosts[&host].0.capacity;
        assert!((0..2).all(|at| used(at) <= capacity[at]), "host {host} is overloaded");
    }

    /// Begins what may begin, and ends one that has begun, or all; whether there was any.
    fn turn(&mut self, at_once_max: u32, which: usize) -> bool {
        for step in self.rollout.ready(&self.world.site, at_once_max) {
            assert!(self.rollout.begin(step.number));
            self.put(step.plane, step.to);
        }
        let begun: Vec<_> = self.rollout.steps().filter(|step| step.begun).copied().collect();
        let moves = begun.iter().filter(|step| step.from.is_some());
        let moving: Vec<u32> = moves.map(|step| step.plane).collect();
        assert_eq!(moving.iter().collect::<BTreeSet<_>>().len(), moving.len(), "two moves of one plane");
        assert!(begun.iter().filter(|step| step.from.is_some()).count() <= at_once_max as usize);
        let Some(step) = begun.get(which % begun.len().max(1)) else { return false };
        if which % 5 == 4 {
            assert!(self.rollout.failed(step.number));
            assert!(self.there.get_mut(&step.plane).unwrap().remove(&step.to));
            return true;
        }
        assert_eq!(self.rollout.done(step.number).as_ref(), Some(step));
        if let Some(from) = step.from {
            assert!(self.there.get_mut(&step.plane).unwrap().remove(&from));
        }
        true
    }

    fn remove_host(&mut self, host: u32) {
        self.rollout.remove_host(&mut self.world.site, host).unwrap();
        self.world.hosts.remove(&host);
        for hosts in self.there.values_mut() {
            hosts.remove(&host);
        }
    }

    fn check_done(&self) {
        let mut there = self.there.clone();
        there.retain(|_, hosts| !hosts.is_empty());
        let mut wanted = self.world.everything();
        wanted.retain(|_, hosts| !hosts.is_empty());
        assert_eq!(there, wanted);
    }
}

proptest! {
    #[test]
    fn a_rollout_ends_without_overloading_a_host(
        ops in ops(),
        at_once_max in 1..4_u32,
        ends in prop::collection::vec((any::<usize>(), 0..3_u8), 80),
    ) {
        let world = World::new();
        let mut carried = Carried { world, rollout: Rollout::default(), there: BTreeMap::new() };
        for (op, (which, turns)) in ops.iter().zip(&ends) {
            match op {
                Op::Amend(..) | Op::Place(_) => continue, // What is there would take another room while it moves.
                Op::RemoveHost(host) => {
                    if let Some(host) = carried.world.host(*host) {
                        carried.remove_host(host);
                    }
                }
                Op::RemovePlane(plane) => {
                    if let Some(plane) = carried.world.plane(*plane) {
                        carried.world.site.remove_plane(plane).unwrap();
                        carried.world.planes.remove(&plane);
                        carried.rollout.forget_plane(plane);
                        carried.there.remove(&plane);
                    }
                }
                Op::Resettle => carried.settle(),
                op => carried.world.apply(op),
            }
            for _ in 0..*turns {
                carried.turn(at_once_max, *which);
            }
        }
        carried.settle();
        let mut restarts = 0;
        while carried.rollout.steps().count() > 0 {
            if !carried.turn(at_once_max, 0) {
                prop_assert!(carried.rollout.restart(&mut carried.world.site), "nothing can begin");
                carried.world.check();
                carried.settle();
                // Once everything is decided from where it really is, nothing waits in a circle.
                restarts += 1;
                prop_assert!(restarts <= 1);
            }
        }
        prop_assert_eq!(carried.rollout.steps().count(), 0);
        carried.check_done();
    }

    #[test]
    fn what_is_advised_helps(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        let mut site = world.site.clone();
        let near = |plane: &u32| site.terms(*plane).unwrap().regions != 0;
        prop_assume!(world.planes.iter().all(near));
        let advice = site.advice();
        for advised in &advice {
            let Advice { zone, region, capacity, hosts } = *advised;
            for _ in 0..hosts {
                site.add_host(&HostTerms { zone, region, taints: 0, capacity }).unwrap();
            }
        }
        prop_assert_eq!(site.resettle().at_risk, []);
        prop_assert_eq!(world.site.clone().resettle().at_risk.is_empty(), advice.is_empty());
    }
}

#[test]
fn the_most_urgent_goes_first_and_what_comes_too_late_is_said() {
    let (mut site, hosts) = site_of(&[(0, 1_000), (0, 1_000), (0, 4_000)]);
    let planes: Vec<u32> = (0..4).map(|_| site.add_plane(&plane(1, 100)).unwrap()).collect();
    for (at, plane) in planes.iter().enumerate() {
        site.found(*plane, hosts[at % 2]).unwrap();
    }
    let second = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    site.leave(hosts[0], second(100)).unwrap();
    site.leave(hosts[1], second(30)).unwrap();
    let mut rollout = Rollout::default();
    rollout.decided(&site.resettle().moves);
    let ready = rollout.ready(&site, 3);
    assert_eq!(
        ready.iter().map(|step| step.from.unwrap()).collect::<Vec<_>>(),
        [hosts[1], hosts[1], hosts[0]]
    );
    // One at a time, 20 s each: the first is done at 20, the second at 40, which is 10 too late; the others are in time.
    let late = rollout.late(second(0), 20, 1);
    assert_eq!(late.len(), 1);
    assert_eq!((late[0].done_at, late[0].gone_at), (second(40), second(30)));
    assert!(rollout.late(second(0), 20, 2).is_empty());
}
