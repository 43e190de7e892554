//! What happens, case by case.

use proto::machine::Role;
use proto::placement::PlacementEvent;
use serde_json::json;

use super::driver::*;

/// A site with three hosts in three zones, each with room for `replicas`.
fn site(replicas: u32) -> World {
    let mut world = World::new();
    for (host, zone) in [("a", "z1"), ("b", "z2"), ("c", "z3")] {
        world.host(host, zone, replicas);
    }
    world
}

#[test]
fn a_cluster_is_created_reported_and_deleted() {
    let mut world = site(4);
    assert_eq!(
        world.create("p", "high"),
        [
            "created p in sql",
            "decided p nowhere>a, p nowhere>b",
            "begun p nowhere>a, p nowhere>b",
            "ordered p x2 on [a b]"
        ]
    );
    let told = world.told[&1].clone();
    assert_eq!((told.order.version.to_string(), told.order.request.cpu_milli), ("v1.35.0".to_owned(), 250));
    let events = world.carry_out(1, 0);
    assert_eq!(world.lines(&events), ["reported p 1", "done p", "done p"]);
    let state = |world: &World| serde_json::to_value(world.cluster("p").unwrap().state).unwrap();
    assert_eq!(state(&world), "ready");
    assert_eq!(world.delete("p"), ["deleted p", "ordered p x0 on []"]);
    assert_eq!(state(&world), "deleting");
    assert_eq!(world.delete("p"), ["refused ended cluster=p"]);
    let events = world.carry_out(1, 0);
    assert_eq!(world.lines(&events), ["gone p"]);
    assert!(world.cluster("p").is_none());
    // Its name is free again, its number is not.
    world.create("p", "single");
    assert_eq!(world.plane("p"), 2);
}

#[test]
fn a_host_that_leaves_is_emptied_one_replica_of_a_plane_at_a_time() {
    let mut world = site(8);
    world.rules(json!({"moves_max": 2}));
    for name in ["p", "q", "r"] {
        world.create(name, "high");
    }
    world.carry_out_all();
    assert_eq!(world.hosts_of("p"), ["a", "b"]);
    let lines = world.notice("a", 300);
    assert_eq!(lines[0], "notice a x3 at 300");
    assert_eq!(lines[1], "decided p a>c, q a>c, r a>c");
    assert_eq!(lines[2], "begun p a>c, q a>c");
    assert_eq!(world.told[&1].gone_at, Some(START.plus_seconds(300)));
    // The third begins when one of the two is done.
    let events = world.carry_out(1, 0);
    let lines = world.lines(&events);
    assert!(lines.contains(&"begun r a>c".to_owned()), "{lines:?}");
    world.carry_out_all();
    for name in ["p", "q", "r"] {
        assert_eq!(world.hosts_of(name), ["b", "c"]);
    }
    assert_eq!(world.wait(300).due(), ["gone a notice-ended x0"]);
}

#[test]
fn a_move_is_done_when_the_new_replica_is_ready_and_the_old_one_gone() {
    let mut world = site(8);
    world.create("p", "high");
    world.carry_out_all();
    world.notice("a", 300);
    let report = |generation: u64, ready: &[&str]| json!({"type": "ReportPlane", "plane": 1, "generation": generation, "ready_on": ready, "workers": 0});
    let done = "done p".to_owned();
    assert!(!world.send(&service(), report(2, &["a", "b"])).contains(&done));
    assert!(!world.send(&service(), report(2, &["a", "b", "c"])).contains(&done));
    assert!(world.send(&service(), report(2, &["b", "c"])).contains(&done));
}

#[test]
fn a_move_that_takes_too_long_begins_again_with_another_order() {
    let mut world = site(8);
    world.rules(json!({"move_seconds_max": 60}));
    world.create("p", "single");
    world.carry_out_all();
    world.notice("a", 3_600);
    let before = world.told[&1].generation;
    assert_eq!(world.wait(60).due(), ["failed p", "begun p a>b", "ordered p x1 on [b]"]);
    assert_eq!(world.told[&1].generation, before + 1);
}

#[test]
fn what_has_no_place_is_at_risk_until_it_has_one() {
    let mut world = World::new();
    assert_eq!(world.create("p", "single")[1..], ["ordered p x1 on []", "risk p no-hosts", "advised 0"]);
    world.host("a", "z1", 1);
    assert_eq!(world.wait(10).due(), ["advised 0"]);
    assert_eq!(world.create("q", "single")[1..], ["ordered q x1 on []", "risk q full"]);
    assert_eq!(world.wait(10).due(), ["advised 1"]);
    // What was advised helps.
    world.wait(10);
    let lines = world.host("b", "z1", 1);
    assert_eq!(
        lines[1..],
        ["decided q nowhere>b", "begun q nowhere>b", "ordered q x1 on [b]", "safe q", "advised 0"]
    );
    assert_eq!(world.machine.site_view().advice, []);
}

#[test]
fn a_notice_too_short_is_said_and_what_can_be_saved_is_saved_first() {
    let mut world = site(8);
    world.rules(json!({"moves_max": 1, "move_seconds": 30}));
    for name in ["p", "q", "r"] {
        world.create(name, "single");
    }
    world.carry_out_all();
    // One after another, 30 s each: the first is done in time.
    let lines = world.notice("a", 40);
    assert!(
        lines.contains(&"risk q too-late".to_owned()) && lines.contains(&"risk r too-late".to_owned()),
        "{lines:?}"
    );
    assert!(!lines.contains(&"risk p too-late".to_owned()));
    let lines = world.wait(40).due();
    assert_eq!(lines[0], "gone a notice-ended x3");
    // They are begun elsewhere at once, without a bound: they serve nobody.
    assert!(
        lines.iter().any(|line| line.starts_with("begun")
            && line.contains("q nowhere>b")
            && line.contains("r nowhere>b")),
        "{lines:?}"
    );
    world.carry_out_all();
    for name in ["p", "q", "r"] {
        assert_eq!(world.hosts_of(name), ["b"]);
    }
}

#[test]
fn a_host_that_dies_and_notices_that_overlap() {
    let mut world = site(8);
    for name in ["p", "q"] {
        world.create(name, "high");
    }
    world.carry_out_all();
    let gone = json!({"type": "ReportHostGone", "host": "a"});
    let lines = world.send(&service(), gone);
    assert_eq!(lines[..2], ["gone a died x2", "decided p nowhere>c, q nowhere>c"]);
    world.host("d", "z1", 8);
    world.notice("b", 300);
    // Sooner than the first, and where its replicas go, too: nothing is lost.
    world.notice("c", 100);
    world.carry_out_all();
    assert!(!world.machine.site_view().risks.is_empty(), "two replicas, one host");
    world.host("e", "z2", 8);
    world.carry_out_all();
    assert!(world.machine.site_view().risks.is_empty());
    for name in ["p", "q"] {
        assert_eq!(world.hosts_of(name), ["d", "e"]);
    }
    let lines = world.wait(300).due();
    assert!(lines.iter().all(|line| !line.starts_with("gone") || line.ends_with("x0")), "{lines:?}");
}

#[test]
fn a_sooner_notice_counts_a_later_one_does_not_and_one_of_the_past_is_the_end() {
    let mut world = site(8);
    assert_eq!(world.notice("a", 300)[0], "notice a x0 at 300");
    assert_eq!(world.notice("a", 500)[0], "notice a x0 at 300");
    assert_eq!(world.notice("a", 100)[0], "notice a x0 at 100");
    assert_eq!(world.send(&service(), json!({"type": "KeepHost", "host": "a"}))[0], "kept a");
    assert_eq!(world.notice("a", -5)[..2], ["notice a x0 at -5", "gone a notice-ended x0"]);
    assert_eq!(world.notice("a", 5), ["refused unknown host=a"]);
}

#[test]
fn a_plane_grows_at_once_and_shrinks_late() {
    let mut world = site(8);
    world.rules(json!({"shrink_after_seconds": 600, "shrink_margin_permille": 300}));
    world.create("p", "single");
    world.carry_out_all();
    let events = world.carry_out(1, 11);
    assert_eq!(world.lines(&events), ["reported p 1", "sized p large", "ordered p x1 on [a]"]);
    // 8 would be few enough for the small size, but not with the margin.
    world.carry_out(1, 8);
    assert_eq!(world.wait(10_000).due(), [""; 0]);
    world.carry_out(1, 7);
    assert_eq!(world.wait(599).due(), [""; 0]);
    // More again in between: the wait begins anew.
    world.carry_out(1, 9);
    world.carry_out(1, 7);
    assert_eq!(world.wait(599).due(), [""; 0]);
    assert_eq!(world.wait(1).due(), ["sized p small", "ordered p x1 on [a]"]);
}

#[test]
fn workers_that_come_and_go_touch_no_plane() {
    let mut world = site(8);
    world.create("p", "high");
    world.carry_out_all();
    let generation = world.told[&1].generation;
    for workers in [10, 7, 0, 3, 10, 1, 0] {
        world.wait(5);
        let events = world.carry_out(1, workers);
        assert_eq!(world.lines(&events), [format!("reported p {generation}")]);
    }
    assert_eq!(world.told[&1].generation, generation);
}

#[test]
fn an_idle_plane_sleeps_until_it_is_wanted() {
    let mut world = site(8);
    let terms = json!({"regions": ["dfw"], "version": "v1.35.0", "sleep_after_seconds": 600});
    world.create_with("p", terms);
    world.carry_out(1, 1);
    assert_eq!(world.wait(10_000).due(), [""; 0]);
    world.carry_out(1, 0);
    let bids = |sequence: u64, placed: &[u64], ended: &[u64]| {
        let stands = |bid: &u64| json!({"bid": bid, "tenant": "acme", "cluster": "p"});
        let placed: Vec<_> = placed.iter().map(stands).collect();
        json!({"type": "ReportBids", "exchange": "main", "sequence": sequence, "placed": placed, "ended": ended})
    };
    world.send(&service(), bids(3, &[1, 2], &[]));
    assert_eq!(world.wait(10_000).due(), [""; 0]);
    world.send(&service(), bids(5, &[], &[1, 2, 9]));
    assert_eq!(world.wait(599).due(), [""; 0]);
    assert_eq!(world.wait(1).due(), ["slept p", "ordered p x0 on []"]);
    assert_eq!(world.send(&service(), bids(5, &[3], &[])), ["refused stale sequence=5"]);
    let lines = world.send(&service(), bids(6, &[3], &[]));
    assert_eq!(lines[..2], ["bids main 6", "woken p"]);
    assert_eq!(lines.last().unwrap(), "ordered p x2 on [a b]");
    world.carry_out_all();
    world.send(&service(), bids(7, &[], &[3]));
    assert_eq!(world.wait(600).due()[0], "slept p");
    world.carry_out_all();
    // A call wakes it, too, and gives it the whole time again.
    assert_eq!(
        world.send(&gateway(), json!({"type": "WakeCluster", "tenant": "acme", "cluster": "p"}))[0],
        "woken p"
    );
    world.carry_out_all();
    assert_eq!(world.wait(599).due(), [""; 0]);
    assert_eq!(world.wait(1).due()[0], "slept p");
}

#[test]
fn versions_go_up_one_minor_at_a_time() {
    let mut world = site(8);
    world.create("p", "single");
    let terms = |version: &str| json!({"availability": "single", "regions": ["dfw"], "version": version});
    assert_eq!(world.change("p", terms("v1.34.0")), ["refused out-of-range terms.version=v1.34.0"]);
    assert_eq!(world.change("p", terms("v1.37.0")), ["refused out-of-range terms.version=v1.37.0"]);
    assert_eq!(world.change("p", terms("v1.35.7"))[0], "changed p v2");
    world.carry_out_all();
    world.rules(json!({"newest_version": "v1.37.0"}));
    assert_eq!(world.change("p", terms("v1.36.0"))[0], "changed p v3");
    // The last one is not served yet.
    assert_eq!(world.change("p", terms("v1.37.0")), ["refused out-of-range terms.version=v1.37.0"]);
    world.carry_out_all();
    assert_eq!(world.change("p", terms("v1.37.0"))[0], "changed p v4");
}

#[test]
fn data_stores_are_filled_evenly_and_never_too_far() {
    let mut world = site(40);
    world.store("sql", 2);
    world.store("sql2", 4);
    let stores: Vec<String> = (0..7).map(|at| world.create(&format!("p{at}"), "single")[0].clone()).collect();
    let of = |store: &str| stores.iter().filter(|line| line.ends_with(&format!("in {store}"))).count();
    assert_eq!((of("sql"), of("sql2")), (2, 4), "{stores:?}");
    assert_eq!(stores[6], "refused limit-reached terms.driver=any driver");
    let named = |store: &str| json!({"regions": ["dfw"], "version": "v1.35.0", "data_store": store});
    assert_eq!(world.create_with("q", named("none")), ["refused unknown terms.data_store=none"]);
    assert_eq!(world.create_with("q", named("sql")), ["refused limit-reached terms.data_store=sql"]);
    // A dedicated one is chosen only by name, and by one.
    let terms = json!({"driver": "mysql", "units_max": 100, "accepting": true, "dedicated": true});
    let offer = json!({"type": "OfferDataStore", "data_store": "own", "generation": 9, "terms": terms});
    world.send(&service(), offer);
    assert_eq!(world.create("q", "single"), ["refused limit-reached terms.driver=any driver"]);
    assert_eq!(world.create_with("q", named("own"))[0], "created q in own");
    assert_eq!(world.create_with("r", named("own")), ["refused limit-reached terms.data_store=own"]);
    let mut other = named("sql2");
    other["driver"] = "etcd".into();
    assert_eq!(
        world.change("p0", other),
        ["refused unsupported terms.driver=sql"]
            .map(|line| { line.replace("sql", world.cluster("p0").unwrap().data_store.as_str()) })
    );
    assert_eq!(world.change("p0", named("own")), ["refused limit-reached terms.data_store=own"]);
}

#[test]
fn planes_are_near_to_their_workers_and_on_hosts_they_tolerate() {
    let mut world = site(8);
    let terms =
        |regions: &[&str]| json!({"availability": "single", "regions": regions, "version": "v1.35.0"});
    let lines = world.create_with("p", terms(&["dfw", "iad"]));
    assert!(lines.contains(&"risk p no-hosts".to_owned()), "{lines:?}");
    let near = json!([{"workers": "iad", "hosts": ["iad", "dfw"]}]);
    let lines = world.rules(json!({"near": near}));
    assert!(lines.contains(&"safe p".to_owned()), "{lines:?}");
    let capacity = json!({"cpu_milli": 4000, "memory_mib": 8000, "pods": 10});
    let spot = json!({"zone": "z1", "region": "lon", "capacity": capacity, "taints": ["spot"]});
    world.send(&service(), json!({"type": "OfferHost", "host": "s", "generation": 1, "terms": spot}));
    let lines = world.create_with("q", terms(&["lon"]));
    assert!(lines.contains(&"risk q no-hosts".to_owned()), "{lines:?}");
    let lines = world.rules(json!({"near": near, "tolerated": ["spot"]}));
    assert!(lines.contains(&"ordered q x1 on [s]".to_owned()), "{lines:?}");
}

#[test]
fn a_host_that_carries_forty_planes_is_emptied_in_time() {
    let mut world = site(100);
    for at in 0..20 {
        world.create(&format!("high{at}"), "high");
        world.create(&format!("single{at}"), "single");
    }
    world.carry_out_all();
    let carried =
        world.machine.site_view().hosts.iter().find(|host| host.host.as_str() == "a").unwrap().replicas;
    assert_eq!(carried, 40);
    let events = world.notice("a", 300);
    assert!(!events.iter().any(|line| line.starts_with("risk")), "{events:?}");
    // Five seconds a move, eight at once; no plane has two replicas on the way.
    let mut elapsed = 0;
    while world.machine.site_view().moving > 0 {
        world.wait(5);
        elapsed += 5;
        let moving: Vec<u64> = world
            .told
            .iter()
            .filter(|(_, told)| told.carried < told.generation)
            .map(|(plane, _)| *plane)
            .collect();
        assert!(moving.len() <= 8);
        for plane in moving {
            world.carry_out(plane, 0);
        }
    }
    assert!(elapsed <= 60, "{elapsed}");
    let lines = world.wait(300).due();
    assert_eq!(lines, ["gone a notice-ended x0"]);
}

#[test]
fn a_turn_of_many_commands_is_answered_whole() {
    let mut world = site(8);
    let create = |at: usize| {
        let terms = json!({"regions": ["dfw"], "version": "v1.35.0"});
        let json = json!({
            "type": "CreateCluster", "id": format!("c{at}"), "tenant": "acme", "cluster": format!("p{at}"), "terms": terms,
        });
        (sender(Role::Gateway, if at.is_multiple_of(2) { "web" } else { "web2" }), command(&json))
    };
    let events = world.turn((0..900).map(create).collect());
    assert!(
        events.iter().any(|event| matches!(event, PlacementEvent::CommandRefused(_))),
        "a tenant has a bound"
    );
    let answered: usize = world
        .answers
        .iter()
        .map(|letter| {
            assert!(letter.payload.len() < proto::envelope::MESSAGE_BYTES_MAX);
            let json: serde_json::Value = serde_json::from_slice(&letter.payload).unwrap();
            json["answers"].as_array().unwrap().len()
        })
        .sum();
    assert_eq!(answered, 900);
}

/// A replica that grew too large for its host cannot change places with one that would only fit once it is gone.
#[test]
fn replicas_do_not_wait_for_each_others_places() {
    let mut world = World::new();
    world.host("b", "z1", 3);
    world.host("c", "z1", 3);
    world.create("r", "high");
    world.host("a", "z1", 2);
    world.rules(json!({"surge_reserve_permille": 200}));
    world.create("p", "single");
    world.carry_out_all();
    let lines = {
        let events = world.carry_out(world.plane("p"), 11);
        world.lines(&events)
    };
    assert!(!lines.contains(&"withdrawn".to_owned()), "{lines:?}");
}

#[test]
fn a_plane_that_stays_slow_moves_to_where_there_is_room_and_then_not_for_long() {
    let mut world = World::new();
    world.rules(json!({"slow_seconds": 120, "calm_seconds": 600}));
    world.host("a", "z1", 8);
    for name in ["p", "q", "r"] {
        world.create(name, "single");
    }
    world.host("b", "z1", 8);
    world.carry_out_all();
    let p = world.plane("p");
    let report = |generation: u64, host: &str, slow: bool| {
        json!({
            "type": "ReportPlane", "plane": p, "generation": generation, "ready_on": [host], "version": "v1.35.0",
            "workers": 0, "slow": slow,
        })
    };
    world.send(&service(), report(1, "a", true));
    assert_eq!(world.wait(119).due(), [""; 0]);
    world.send(&service(), report(1, "a", false));
    world.send(&service(), report(1, "a", true));
    assert_eq!(world.wait(119).due(), [""; 0]);
    let lines = world.wait(1).due();
    assert_eq!(lines[..4], ["slow p", "decided p a>b", "begun p a>b", "ordered p x1 on [b]"]);
    let generation = world.told[&p].generation;
    assert!(world.send(&service(), report(generation, "b", true)).contains(&"done p".to_owned()));
    // Still slow: not before it was left in peace for a while, and then nothing has more room.
    assert_eq!(world.wait(599).due(), [""; 0]);
    assert_eq!(world.wait(1).due(), ["slow p crowded", "advised 1"]);
    world.send(&service(), report(generation, "b", false));
    assert_eq!(world.wait(10_000).due(), ["advised 0"]);
}
