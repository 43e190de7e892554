//! A site against itself spelt out slowly: each choice is the least score over all hosts, nothing is too full, replicas
//! are apart, plans can be carried out step by step.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "shared with the tests of rollouts")]
#[path = "site/world.rs"]
mod world;

use std::collections::BTreeSet;

use placement::site::{HostTerms, PlaneTerms};
use proptest::prelude::*;
use world::{World, ops, plane, site_of};

proptest! {
    #[test]
    fn every_choice_is_the_best_of_all_and_every_sum_is_right(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
            world.check();
        }
    }

    #[test]
    fn a_consolidation_can_be_carried_out_step_by_step(ops in ops(), moves_max in 0..40_usize) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        let plan = world.site.consolidation(moves_max);
        prop_assert!(plan.moves.len() <= moves_max);
        let mut moved = BTreeSet::new();
        for step in &plan.moves {
            prop_assert!(moved.insert((step.plane, step.from)), "moved twice");
            let from = step.from.unwrap();
            prop_assert!(plan.emptied.contains(&from) && !plan.emptied.contains(&step.to));
            prop_assert!(world.hosts[&step.to].1, "to a host that leaves");
            prop_assert!(!world.site.planes_on(step.to).is_empty(), "to an empty host");
            // Room is there when the turn comes: the replica is taken out and put where the plan says.
            let terms = *world.site.terms(step.plane).unwrap();
            let room = *world.site.room(step.to).unwrap();
            prop_assert!((0..4).all(|at| terms.request[at] as i64 <= room[at]));
            let on: Vec<u32> = world.site.on(step.plane).iter().copied().filter(|host| *host != from).collect();
            let fewer = PlaneTerms { replicas: 0, ..terms };
            world.site.amend_plane(step.plane, &fewer).unwrap();
            world.site.amend_plane(step.plane, &terms).unwrap();
            for host in on.iter().chain([&step.to]) {
                world.site.found(step.plane, *host).unwrap();
            }
            world.check();
        }
        for host in &plan.emptied {
            prop_assert!(world.site.planes_on(*host).is_empty());
        }
    }
}

#[test]
fn the_fullest_host_with_room_is_chosen() {
    let (mut site, hosts) = site_of(&[(0, 1_000), (0, 500), (0, 700)]);
    let placed = site.add_plane(&plane(1, 450)).unwrap();
    site.place(placed).unwrap();
    assert_eq!(site.on(placed), [hosts[1]]);
}

#[test]
fn one_that_finds_no_room_sends_another_away() {
    let (mut site, hosts) = site_of(&[(0, 1_000), (0, 1_000), (0, 1_000)]);
    let planes: Vec<u32> = [600, 300, 800, 900].map(|cpu| site.add_plane(&plane(1, cpu)).unwrap()).into();
    for (plane, host) in [(planes[0], hosts[0]), (planes[1], hosts[0]), (planes[2], hosts[1])] {
        site.found(plane, host).unwrap();
    }
    site.found(planes[3], hosts[2]).unwrap();
    let (small, smaller) = (site.add_plane(&plane(1, 95)).unwrap(), site.add_plane(&plane(1, 10)).unwrap());
    site.found(small, hosts[1]).unwrap();
    site.found(smaller, hosts[2]).unwrap();
    // 100, 105 and 90 are free. The one of 95 can leave the second host for the first.
    let new = site.add_plane(&plane(1, 190)).unwrap();
    let resettled = site.resettle();
    assert_eq!(resettled.at_risk, []);
    assert_eq!(resettled.moves.len(), 2, "{resettled:?}");
    assert_eq!(resettled.moves[1].plane, new);
    assert_eq!(resettled.moves[1].after, Some(resettled.moves[0].plane));
}

#[test]
fn what_is_past_a_bound_is_refused() {
    let (mut site, hosts) = site_of(&[(0, 1_000)]);
    let refused = |error: String, said: &str| assert_eq!(error, said);
    refused(site.add_plane(&plane(17, 1)).unwrap_err().to_string(), "replicas: 17 is too much, at most 16");
    let other = PlaneTerms { request: [1, 1, 0, 0], ..plane(1, 1) };
    refused(site.add_plane(&other).unwrap_err().to_string(), "resources: 2 is too much, at most 1");
    refused(site.remove_plane(3).unwrap_err().to_string(), "there is no plane 3");
    let far = HostTerms { zone: 64, region: 0, taints: 0, capacity: [1, 0, 0, 0] };
    refused(site.add_host(&far).unwrap_err().to_string(), "zone: 64 is too much, at most 63");
    let placed = site.add_plane(&plane(1, 1)).unwrap();
    site.found(placed, hosts[0]).unwrap();
    refused(
        site.found(placed, hosts[0]).unwrap_err().to_string(),
        "replicas on one host: 2 is too much, at most 1",
    );
}
