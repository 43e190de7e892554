//! What happens to planes, one story after the other, against a cluster in virtual time.

#![allow(clippy::unwrap_used, clippy::semicolon_if_nothing_returned, reason = "tests")]

mod world;

use std::collections::BTreeSet;

use cluster::Control;
use controlplane::{Kind, Phase, Reason};
use serde_json::json;
use world::{World, names, plane};

/// Long enough for anything that is not stuck.
const PATIENCE_SECONDS: u32 = 600;

fn on(world: &World, number: u64) -> BTreeSet<String> {
    world.ready(world.desired.plane(number).unwrap()).into_iter().collect()
}

fn hosts(numbers: &[u32]) -> BTreeSet<String> {
    names(numbers).into_iter().collect()
}

fn reasons(world: &World, number: u64) -> Vec<Reason> {
    world.states[&number].notes.iter().map(|note| note.reason).collect()
}

#[test]
fn a_plane_is_made_where_it_is_to_be_and_its_kubeconfig_is_known() {
    let mut world = World::new(1, 6);
    world.order(1, plane("acme", "prod", &[2, 5]));
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(on(&world, 1), hosts(&[2, 5]));
    let state = &world.states[&1];
    assert_eq!((state.phase, state.reached), (Phase::Ready, Some(1)));
    assert_eq!(state.kubeconfig.as_deref(), Some("prod-admin-kubeconfig"));
    assert!(state.endpoint.is_some());
    for (kind, name) in [
        (Kind::ServiceAccount, "plane"),
        (Kind::Role, "kubeconfig-reader"),
        (Kind::RoleBinding, "kubeconfig-reader"),
        (Kind::Quota, "planes"),
        (Kind::NetworkPolicy, "planes"),
        (Kind::Budget, "prod"),
    ] {
        assert!(world.object(kind, "walras-acme", name).is_some(), "{kind:?}");
    }
    let before = world.writes();
    world.run(3_600);
    assert_eq!(world.writes(), before, "nothing is written where nothing changes");
}

#[test]
fn a_plane_is_scaled_resized_upgraded_and_never_stops_serving() {
    let mut world = World::new(2, 6);
    world.order(1, plane("acme", "prod", &[1, 2]));
    assert!(world.settle(PATIENCE_SECONDS));
    world.reorder(1, |plane| {
        plane.replicas = 3;
        plane.hosts = names(&[1, 2, 3]);
    });
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(on(&world, 1), hosts(&[1, 2, 3]));
    world.reorder(1, |plane| plane.request.memory_mib = 3_000);
    assert!(world.settle(PATIENCE_SECONDS));
    world.reorder(1, |plane| plane.version = "v1.36.1".parse().unwrap());
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(world.states[&1].version.map(|version| version.to_string()).as_deref(), Some("v1.36.1"));
    let upgrades = world.requests.iter().filter(|((_, kind, code), _)| *kind == Kind::Plane && *code == 422);
    assert_eq!(upgrades.count(), 0, "no step was refused");
    world.reorder(1, |plane| plane.version = "v1.35.0".parse().unwrap());
    world.run(600);
    assert_eq!(reasons(&world, 1), [Reason::DowngradeRefused]);
    assert_eq!(world.states[&1].phase, Phase::Blocked);
    assert_eq!(on(&world, 1).len(), 3, "it goes on serving");
}

#[test]
fn replicas_move_one_after_the_other_and_a_single_one_by_a_rollout() {
    let mut world = World::new(3, 6);
    world.order(1, plane("acme", "two", &[1, 2]));
    world.order(2, plane("acme", "one", &[3]));
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    world.reorder(1, |plane| plane.hosts = names(&[4, 5]));
    world.reorder(2, |plane| plane.hosts = names(&[6]));
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(on(&world, 1), hosts(&[4, 5]));
    assert_eq!(on(&world, 2), hosts(&[6]));
    assert_eq!(world.requests[&("evict", Kind::Pod, 201)], 2);
}

#[test]
fn a_plane_sleeps_and_wakes() {
    let mut world = World::new(4, 4);
    world.order(1, plane("acme", "prod", &[1, 2]));
    assert!(world.settle(PATIENCE_SECONDS));
    world.reorder(1, |plane| (plane.replicas, plane.hosts) = (0, Vec::new()));
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(world.states[&1].phase, Phase::Asleep);
    assert!(on(&world, 1).is_empty());
    world.reorder(1, |plane| {
        (plane.replicas, plane.hosts) = (2, names(&[3, 4]));
        plane.version = "v1.35.0".parse().unwrap();
    });
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(on(&world, 1), hosts(&[3, 4]));
}

#[test]
fn data_move_within_a_driver_only() {
    let mut world = World::new(5, 4);
    world.order(1, plane("acme", "prod", &[1, 2]));
    assert!(world.settle(PATIENCE_SECONDS));
    world.reorder(1, |plane| plane.data_store = "second".to_owned());
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    world.reorder(1, |plane| plane.data_store = "mysql".to_owned());
    world.run(60);
    assert_eq!(reasons(&world, 1), [Reason::DriverDiffers]);
    world.reorder(1, |plane| plane.data_store = "nowhere".to_owned());
    world.run(60);
    assert_eq!(reasons(&world, 1), [Reason::DataStoreUnknown]);
    world.order(2, controlplane::Plane { data_store: "nowhere".to_owned(), ..plane("acme", "new", &[3]) });
    world.run(60);
    assert_eq!(reasons(&world, 2), [Reason::DataStoreUnknown]);
    assert!(world.object(Kind::Plane, "walras-acme", "new").is_none(), "it waits for its data store");
}

#[test]
fn what_is_deleted_leaves_nothing_and_its_name_can_be_used_again() {
    let mut world = World::new(6, 4);
    world.order(1, plane("acme", "prod", &[1, 2]));
    world.order(2, plane("acme", "test", &[3]));
    assert!(world.settle(PATIENCE_SECONDS));
    world.reorder(2, |plane| plane.deleted = true);
    assert!(world.settle(PATIENCE_SECONDS));
    assert_eq!(world.states[&2].phase, Phase::Gone);
    world.run(60);
    assert!(
        !world.inside("walras-acme").iter().any(|one| one.contains("test")),
        "{:?}",
        world.inside("walras-acme")
    );
    // Its successor is ordered before it is gone.
    world.reorder(1, |plane| plane.deleted = true);
    world.order(3, plane("acme", "prod", &[3, 4]));
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(on(&world, 3), hosts(&[3, 4]));
    world.reorder(3, |plane| plane.deleted = true);
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(world.inside("walras-acme"), Vec::<String>::new());
    assert!(world.object(Kind::Namespace, "", "walras-acme").is_none());
    for number in [1, 2, 3] {
        assert!(world.desired.forget(number).is_some());
    }
    world.order(4, plane("acme", "prod", &[1]));
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
}

#[test]
fn what_others_change_or_delete_comes_back() {
    let mut world = World::new(7, 4);
    world.order(1, plane("acme", "prod", &[1, 2]));
    assert!(world.settle(PATIENCE_SECONDS));
    let path = Kind::Plane.path("walras-acme", "prod");
    for edit in [
        json!({ "spec": { "controlPlane": { "deployment": { "replicas": 3 } } } }),
        json!({ "spec": { "controlPlane": { "deployment": { "extraArgs": { "apiServer": ["--v=9"] } } } } }),
        json!({ "metadata": { "labels": { "walras.dev/plane": null } } }),
    ] {
        assert_eq!(world.merge(&path, edit.clone()).0, 200);
        assert!(world.settle(PATIENCE_SECONDS), "{edit}: {:?}", world.states);
    }
    let budget = Kind::Budget.path("walras-acme", "prod");
    assert_eq!(world.merge(&budget, json!({ "metadata": { "labels": null } })).0, 200);
    assert!(world.settle(PATIENCE_SECONDS));
    world.guard = false;
    for path in [path.as_str(), budget.as_str(), &Kind::Namespace.path("", "walras-acme")] {
        assert_eq!(world.send("DELETE", path, "application/json", &json!({})).0, 200);
        assert!(world.settle(PATIENCE_SECONDS), "{path}: {:?}", world.states);
        assert_eq!(on(&world, 1), hosts(&[1, 2]));
    }
}

#[test]
fn a_dead_host_costs_one_replica_until_placement_says_where_it_goes() {
    let mut world = World::new(8, 4);
    world.order(1, plane("acme", "prod", &[1, 2]));
    assert!(world.settle(PATIENCE_SECONDS));
    world.cluster.control(world.now, Control::Kill("mgmt-1".to_owned())).unwrap();
    world.run(60);
    assert_eq!(on(&world, 1), hosts(&[2]));
    world.reorder(1, |plane| plane.hosts = names(&[2, 3]));
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(on(&world, 1), hosts(&[2, 3]));
}

#[test]
fn held_pods_start_somewhere_if_nobody_says_where() {
    let mut world = World::new(9, 4);
    world.order(1, controlplane::Plane { hosts: names(&[1]), replicas: 2, ..plane("acme", "prod", &[1]) });
    world.run(20);
    assert_eq!(on(&world, 1).len(), 1);
    world.run(200);
    assert_eq!(on(&world, 1).len(), 2, "{:?}", world.states);
    assert!(on(&world, 1).contains("mgmt-1"));
    // A host that is not there: both start elsewhere, and the plane serves.
    world.order(2, plane("acme", "lost", &[77, 78]));
    world.run(300);
    assert_eq!(on(&world, 2).len(), 2, "{:?}", world.states);
    assert_eq!(world.states[&2].phase, Phase::Displaced);
    let before = world.writes();
    world.run(3_600);
    assert_eq!(world.writes(), before, "nothing loops");
    world.reorder(2, |plane| plane.hosts = names(&[1, 2]));
    assert!(world.settle(PATIENCE_SECONDS) || world.states[&2].reached.is_some(), "{:?}", world.states);
    assert_eq!(on(&world, 2), hosts(&[1, 2]));
}

#[test]
fn where_pods_are_not_held_none_is_moved_for_nothing() {
    let mut world = World::new(11, 6);
    world.desired.site.gates = false;
    world.order(1, plane("acme", "prod", &[1, 2]));
    world.run(600);
    // Wherever the scheduler took them, they are to be elsewhere.
    let first = on(&world, 1);
    let others: Vec<u32> =
        (1..=6).filter(|number| !first.contains(&format!("mgmt-{number}"))).take(2).collect();
    world.reorder(1, |plane| plane.hosts = names(&others));
    world.run(600);
    assert_eq!(on(&world, 1), first);
    assert_eq!(world.states[&1].phase, Phase::Displaced);
    let before = world.writes();
    world.run(3_600);
    assert_eq!(world.writes(), before);
    // Held from now on, they go where they belong.
    world.desired.site.gates = true;
    world.reorder(1, |plane| plane.request.cpu_milli = 600);
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(on(&world, 1), hosts(&others));
}

#[test]
fn where_cluster_api_owns_a_plane_that_is_steered() {
    let mut world = World::new(10, 4);
    world.order(1, plane("acme", "other", &[3]));
    assert!(world.settle(PATIENCE_SECONDS));
    let owner = json!({ "metadata": { "name": "prod" }, "spec": { "version": "v1.34.0", "dataStoreName": "default",
        "replicas": 2, "addons": { "konnectivity": {} }, "network": { "serviceType": "ClusterIP" } } });
    let path = Kind::ClusterApiPlane.path("walras-acme", "");
    assert_eq!(world.send("POST", &path, "application/json", &owner).0, 201);
    world.order(2, plane("acme", "prod", &[1, 2]));
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    world.reorder(2, |plane| {
        plane.hosts = names(&[3, 4]);
        plane.version = "v1.35.0".parse().unwrap();
    });
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert_eq!(on(&world, 2), hosts(&[3, 4]));
    assert!(!world.requests.keys().any(|(verb, kind, _)| *verb == "apply"
        && *kind == Kind::Plane
        && world.requests[&("apply", Kind::Plane, 201)] > 1));
    world.reorder(2, |plane| plane.deleted = true);
    assert!(world.settle(PATIENCE_SECONDS), "{:?}", world.states);
    assert!(world.object(Kind::ClusterApiPlane, "walras-acme", "prod").is_none());
}
