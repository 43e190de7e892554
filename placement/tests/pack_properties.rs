//! Properties of packing: nothing too full, replicas apart, solving again changes nothing, nothing moves without need.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use placement::pack::{Host, Plane, Problem, Solution, solve};
use proptest::prelude::*;

const EFFORT: u64 = 20_000;

fn problems() -> impl Strategy<Value = Problem> {
    let host = |resources| {
        (0..3_u32, prop::collection::vec(20..100_u64, resources), prop::bool::weighted(0.15))
            .prop_map(|(zone, capacity, leaving)| Host { zone, capacity, leaving })
    };
    let plane = |resources, hosts: u32| {
        (
            0..4_u32,
            prop::collection::vec(0..60_u64, resources),
            prop::bool::weighted(0.8),
            prop::collection::vec(0..hosts + 2, 0..4),
        )
            .prop_map(|(replicas, request, spread, on)| Plane { replicas, request, spread, on })
    };
    (1..4_usize, 0..9_usize).prop_flat_map(move |(resources, hosts)| {
        (
            Just(resources),
            prop::collection::vec(host(resources), hosts),
            prop::option::weighted(0.3, host(resources)),
            prop::collection::vec(plane(resources, hosts as u32), 0..14),
        )
            .prop_map(|(resources, hosts, template, planes)| {
                let template = template.map(|host| Host { leaving: false, ..host });
                Problem { resources, hosts, template, planes }
            })
    })
}

fn host(problem: &Problem, ord: u32) -> &Host {
    problem.hosts.get(ord as usize).or(problem.template.as_ref()).unwrap()
}

/// The problem with everything where the solution put it, hosts made from the template among the hosts.
fn solved(problem: &Problem, solution: &Solution) -> Problem {
    let mut next = problem.clone();
    let last = solution.on.iter().flatten().max().map_or(0, |ord| *ord as usize + 1);
    while next.hosts.len() < last {
        next.hosts.push(next.template.clone().unwrap());
    }
    for (plane, on) in next.planes.iter_mut().zip(&solution.on) {
        plane.on.clone_from(on);
    }
    next
}

fn check(problem: &Problem, solution: &Solution) {
    let hosts = solution.on.iter().flatten().max().map_or(0, |ord| *ord + 1).max(problem.hosts.len() as u32);
    for ord in 0..hosts {
        let host = host(problem, ord);
        for resource in 0..problem.resources {
            let used: u64 = problem
                .planes
                .iter()
                .zip(&solution.on)
                .map(|(plane, on)| {
                    plane.request[resource] * on.iter().filter(|on| **on == ord).count() as u64
                })
                .sum();
            assert!(used <= host.capacity[resource], "host {ord} holds {used} of resource {resource}");
        }
    }
    for (at, (plane, on)) in problem.planes.iter().zip(&solution.on).enumerate() {
        assert!(on.len() <= plane.replicas as usize);
        let leaving = on.iter().filter(|on| host(problem, **on).leaving).count();
        for on in on.iter().filter(|on| host(problem, **on).leaving) {
            assert!(plane.on.contains(on), "plane {at} came to a host that leaves");
        }
        let unplaced = solution.unplaced.iter().find(|unplaced| unplaced.plane == at as u32);
        let (missing, stranded) = unplaced.map_or((0, 0), |unplaced| (unplaced.missing, unplaced.stranded));
        assert_eq!(on.len() as u32 + missing, plane.replicas);
        assert_eq!(leaving as u32, stranded);
        if plane.spread {
            apart(problem, plane, on);
        }
    }
}

fn apart(problem: &Problem, plane: &Plane, on: &[u32]) {
    let distinct = |mut ords: Vec<u32>| {
        ords.sort_unstable();
        ords.dedup();
        ords.len()
    };
    assert_eq!(distinct(on.to_vec()), on.len(), "two replicas on one host");
    let able = |host: &&Host| {
        !host.leaving && plane.request.iter().zip(&host.capacity).all(|(want, has)| want <= has)
    };
    let zones = problem.hosts.iter().chain(&problem.template).filter(able).map(|host| host.zone).collect();
    if distinct(zones) >= plane.replicas as usize {
        let zones = on.iter().map(|on| host(problem, *on).zone).collect();
        assert_eq!(distinct(zones), on.len(), "two replicas in one zone");
    }
}

/// Whether a replica that has no host could simply be put somewhere.
fn room(problem: &Problem, solution: &Solution, plane: usize) -> bool {
    let terms = &problem.planes[plane];
    (0..problem.hosts.len() as u32).any(|ord| {
        let mut tried = solution.clone();
        tried.on[plane].push(ord);
        if host(problem, ord).leaving || (terms.spread && solution.on[plane].contains(&ord)) {
            return false;
        }
        let fits = (0..problem.resources).all(|resource| {
            let used: u64 = problem
                .planes
                .iter()
                .zip(&tried.on)
                .map(|(plane, on)| {
                    plane.request[resource] * on.iter().filter(|on| **on == ord).count() as u64
                })
                .sum();
            used <= host(problem, ord).capacity[resource]
        });
        fits && (!terms.spread
            || std::panic::catch_unwind(|| apart(problem, terms, &tried.on[plane])).is_ok())
    })
}

proptest! {
    #[test]
    fn a_solution_keeps_every_bound(problem in problems()) {
        let solution = solve(&problem, EFFORT).unwrap();
        check(&problem, &solution);
    }

    #[test]
    fn the_same_problem_has_the_same_solution(problem in problems()) {
        prop_assert_eq!(solve(&problem, EFFORT).unwrap(), solve(&problem, EFFORT).unwrap());
    }

    #[test]
    fn solving_a_solution_changes_nothing(problem in problems(), effort in 0..EFFORT) {
        let solution = solve(&problem, effort).unwrap();
        let again = solve(&solved(&problem, &solution), effort).unwrap();
        prop_assert_eq!(&again.on, &solution.on);
        prop_assert_eq!(again.moves, 0);
        prop_assert_eq!(again.unplaced.len(), solution.unplaced.len());
    }

    #[test]
    fn nothing_that_has_room_is_left_out(problem in problems()) {
        let solution = solve(&problem, EFFORT).unwrap();
        for unplaced in solution.unplaced.iter().filter(|unplaced| unplaced.missing > 0) {
            prop_assert!(!room(&problem, &solution, unplaced.plane as usize), "{:?}", unplaced);
        }
    }

    #[test]
    fn a_host_that_leaves_moves_only_what_is_on_it_where_there_is_room(problem in problems(), which in 0..9_usize) {
        let mut problem = problem;
        let host = Host { zone: 7, capacity: vec![100_000; problem.resources], leaving: false };
        problem.template = Some(Host { zone: 0, ..host.clone() });
        problem.hosts.extend([0, 1, 2, 3].map(|zone| Host { zone, ..host.clone() }));
        let solution = solve(&problem, EFFORT).unwrap();
        let mut next = solved(&problem, &solution);
        let which = which % next.hosts.len();
        next.hosts[which].leaving = true;
        let moved = solve(&next, EFFORT).unwrap();
        check(&next, &moved);
        for (before, after) in next.planes.iter().zip(&moved.on) {
            for host in before.on.iter().filter(|host| !next.hosts[**host as usize].leaving) {
                prop_assert!(after.contains(host), "a replica left host {host}, which stays");
            }
        }
    }
}
