//! Whatever was ordered, written by halves, seen late, refused or undone by somebody: it ends as ordered, and planes
//! that serve go on serving. Source of the three patterns (half-done, stale, missed): Sieve, OSDI 2022.

#![allow(clippy::unwrap_used, clippy::semicolon_if_nothing_returned, reason = "tests")]

mod world;

use cluster::Control;
use cluster::fault::{Fault, Harm};
use controlplane::Kind;
use proptest::prelude::*;
use serde_json::json;
use world::{World, names, plane};

const HOSTS: u32 = 6;
/// Long enough for a rollout that hangs until it is overtaken, and for the changes behind it.
const PATIENCE_SECONDS: u32 = 7_200;

/// Each case is hours of a cluster.
const CASES: u32 = 16;
/// A case may run for minutes when it hangs.
const SHRINK_MILLIS_MAX: u32 = 20_000;

#[derive(Clone, Debug)]
enum Step {
    Hosts(u64, Vec<u32>),
    Memory(u64, u32),
    Upgrade(u64, u16),
    Store(u64, bool),
    Sleep(u64),
    Delete(u64),
    Foreign(u64, u8),
    Refuse(u16, u16),
    LoseAnswers(u16),
    Late(u64),
    Crash(usize),
    Kill(u32),
    Revive,
    Run(u32),
}

fn hosts() -> impl Strategy<Value = Vec<u32>> {
    prop::sample::subsequence((1..=HOSTS).collect::<Vec<_>>(), 1..=3).prop_shuffle()
}

fn step() -> impl Strategy<Value = Step> {
    let number = 1..=4_u64;
    prop_oneof![
        4 => (number.clone(), hosts()).prop_map(|(number, hosts)| Step::Hosts(number, hosts)),
        2 => (number.clone(), 1..4_u32).prop_map(|(number, times)| Step::Memory(number, 1_000 * times)),
        2 => (number.clone(), 33..=36_u16).prop_map(|(number, minor)| Step::Upgrade(number, minor)),
        1 => (number.clone(), any::<bool>()).prop_map(|(number, second)| Step::Store(number, second)),
        1 => number.clone().prop_map(Step::Sleep),
        1 => number.clone().prop_map(Step::Delete),
        3 => (number, 0..7_u8).prop_map(|(number, what)| Step::Foreign(number, what)),
        1 => (prop::sample::select(vec![409, 429, 500]), 0..600_u16).prop_map(|(code, permille)| Step::Refuse(code, permille)),
        1 => (0..400_u16).prop_map(Step::LoseAnswers),
        2 => (0..200_u64).prop_map(Step::Late),
        2 => (0..6_usize).prop_map(Step::Crash),
        1 => (1..=HOSTS).prop_map(Step::Kill),
        1 => Just(Step::Revive),
        6 => (0..40_u32).prop_map(Step::Run),
    ]
}

/// A change by somebody else of what is ours.
fn edit(world: &mut World, number: u64, what: u8) {
    let ordered = world.desired.plane(number).unwrap();
    let (namespace, name) =
        (controlplane::namespace_name(&ordered.tenant), controlplane::plane_name(&ordered.cluster));
    let deployment = |deployment| json!({ "spec": { "controlPlane": { "deployment": deployment } } });
    let plane = Kind::Plane.path(&namespace, &name);
    match what {
        0 if ordered.replicas > 0 => drop(world.merge(&plane, deployment(json!({ "replicas": 3 })))),
        1 => drop(world.merge(&plane, deployment(json!({ "tolerations": [] })))),
        // Nothing has so much: the rollout hangs until it is overtaken.
        2 => drop(world.merge(
            &plane,
            deployment(json!({ "resources": { "apiServer": { "requests": { "cpu": "900" } } } })),
        )),
        3 => drop(world.merge(&plane, json!({ "metadata": { "labels": null } }))),
        4 => drop(world.send("DELETE", &Kind::Budget.path(&namespace, &name), "", &json!({}))),
        5 => drop(world.send("DELETE", &Kind::NetworkPolicy.path(&namespace, "planes"), "", &json!({}))),
        6 => {
            drop(world.merge(
                &Kind::Quota.path(&namespace, "planes"),
                json!({ "spec": { "hard": { "pods": "1" } } }),
            ))
        }
        _ => {}
    }
}

fn take(world: &mut World, step: &Step, dead: &mut Option<u32>) {
    let faults = |permille: u16, harm: Harm| {
        Control::Faults(vec![Fault { kind: String::new(), verb: String::new(), permille, times: 0, harm }])
    };
    match step {
        Step::Hosts(number, hosts) => world.reorder(*number, |plane| {
            (plane.hosts, plane.replicas) = (names(hosts), hosts.len() as u32);
        }),
        Step::Memory(number, mib) => world.reorder(*number, |plane| plane.request.memory_mib = *mib),
        Step::Upgrade(number, minor) => {
            let version = format!("v1.{minor}.1").parse().unwrap();
            // What is older than what was ordered is refused, and would never be reached.
            world.reorder(*number, |plane| plane.version = plane.version.max(version));
        }
        Step::Store(number, second) => world.reorder(*number, |plane| {
            plane.data_store = String::from(if *second { "second" } else { "default" });
        }),
        Step::Sleep(number) => {
            world.reorder(*number, |plane| (plane.replicas, plane.hosts) = (0, Vec::new()))
        }
        Step::Delete(number) => world.reorder(*number, |plane| plane.deleted = true),
        Step::Foreign(number, what) => edit(world, *number, *what),
        Step::Refuse(code, permille) => {
            world.cluster.control(world.now, faults(*permille, Harm::Refuse(*code))).unwrap();
        }
        Step::LoseAnswers(permille) => {
            world.cluster.control(world.now, faults(*permille, Harm::LoseAnswer)).unwrap();
        }
        Step::Late(changes) => world.late = *changes,
        Step::Crash(writes) => world.writes_max = *writes,
        Step::Kill(host) if dead.is_none() => {
            *dead = Some(*host);
            world.cluster.control(world.now, Control::Kill(format!("mgmt-{host}"))).unwrap();
        }
        Step::Revive => revive(world, dead),
        Step::Run(seconds) => world.run(*seconds),
        Step::Kill(_) => {}
    }
}

fn revive(world: &mut World, dead: &mut Option<u32>) {
    if let Some(host) = dead.take() {
        world.cluster.control(world.now, Control::Revive(format!("mgmt-{host}"))).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, max_shrink_iters: 200, max_shrink_time: SHRINK_MILLIS_MAX, ..ProptestConfig::default() })]

    #[test]
    fn it_ends_as_ordered(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..25)) {
        let mut world = World::new(seed, HOSTS);
        world.guard_single = false;
        for (number, (tenant, cluster, hosts)) in
            (1..).zip([("acme", "prod", vec![1, 2]), ("acme", "Test_1", vec![3]), ("b", "prod", vec![2, 4]), ("b", "x-y", vec![5, 6, 1])])
        {
            world.order(number, plane(tenant, cluster, &hosts));
        }
        let mut dead = None;
        for step in &steps {
            take(&mut world, step, &mut dead);
        }
        revive(&mut world, &mut dead);
        world.cluster.control(world.now, Control::Faults(Vec::new())).unwrap();
        world.recover();
        prop_assert!(world.settle(PATIENCE_SECONDS), "not as ordered: {}", world.explain());
        for (number, state) in &world.states {
            let ordered = world.desired.plane(*number).unwrap();
            if !ordered.deleted {
                let mut on = world.ready(ordered);
                on.sort();
                let mut wanted = ordered.hosts.clone();
                wanted.sort();
                prop_assert_eq!(on, wanted, "plane {}: {:?}", number, state);
            }
        }
        let before = world.writes();
        world.run(600);
        prop_assert_eq!(world.writes(), before, "the second difference is empty");
    }
}
