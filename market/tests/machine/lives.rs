//! The life of a lease by example: granted, provisioned, ready, dead, leaving, released.

use proto::machine::Role;
use serde_json::json;

use super::driver::*;

/// A market with two servers, and a bid that has won both: leases 1 and 2.
fn with_leases() -> World {
    let mut world = World::with_market();
    world.supply(1, 2);
    world.place("a", 2, "0.010");
    world
}

#[test]
fn workers_become_ready_and_die_and_come_back() {
    let mut world = with_leases();
    let worker = sender(Role::Worker, "lease-2");
    assert_eq!(world.report(&worker, "ReportReady", &[2]), ["ready a #2"]);
    assert_eq!(world.report(&hypervisor("h1"), "ReportReady", &[1, 2]), ["ready a #1", "ready a #2"]);
    world.wait(100);
    assert_eq!(world.dead(&[1, 2], 30), ["dead a #1-2 since 70"]);
    // Said again with another instant, the first one counts.
    world.wait(10);
    assert_eq!(world.dead(&[2], 0), ["dead a #2 since 110"]);
    assert_eq!(world.report(&worker, "ReportReady", &[2]), ["ready a #2"]);
}

#[test]
fn a_report_is_refused_with_lease_and_reason() {
    let mut world = with_leases();
    world.place("w", 1, "0.010");
    let h1 = hypervisor("h1");
    assert_eq!(world.report(&h1, "ReportReady", &[1, 9]), ["refused unknown leases[1]=9"]);
    assert_eq!(world.report(&h1, "ReportReady", &[0]), ["refused unknown leases[0]=0"]);
    assert_eq!(world.report(&h1, "ReportReady", &[2, 2]), ["refused duplicate leases[1]=2"]);
    assert_eq!(world.report(&h1, "ReportReady", &[]), ["refused out-of-range leases=0"]);
    assert_eq!(world.report(&h1, "ReportReleased", &[1]), ["refused not-allowed leases[0]=1"]);
    assert_eq!(world.dead(&[1], 5), ["refused not-allowed leases[0]=1"]);
    // Whose server it is not, and who has none to speak of.
    let strangers =
        [hypervisor("h2"), sender(Role::Worker, "lease-2"), sender(Role::Worker, "lease-01"), gateway()];
    for by in strangers {
        assert_eq!(world.report(&by, "ReportReady", &[1]), ["refused not-allowed leases[0]=1"]);
    }
    let ahead = world.now.plus_micros(1);
    let early = json!({"type": "ReportDead", "leases": [1], "last_heartbeat_at": ahead});
    let lines = world.send(&h1, early);
    assert_eq!(lines, [format!("refused out-of-range last_heartbeat_at={ahead}")]);
    // A released lease is over for everybody.
    world.cancel("a");
    assert_eq!(world.report(&h1, "ReportReleased", &[1])[1], "released a #1 acknowledged");
    assert_eq!(world.report(&h1, "ReportReady", &[1]), ["refused ended leases[0]=1"]);
}

#[test]
fn who_waits_for_a_server_cannot_be_ready() {
    let mut world = with_leases();
    // Outbid: lease 3 waits for the server of lease 2.
    world.place("b", 1, "0.020");
    assert_eq!(world.report(&hypervisor("h1"), "ReportReady", &[3]), ["refused not-allowed leases[0]=3"]);
    // A leaving lease may still become ready, and is charged from then on.
    assert_eq!(world.report(&hypervisor("h1"), "ReportReady", &[2]), ["ready a #2"]);
    assert_eq!(
        world.report(&hypervisor("h1"), "ReportReleased", &[2]),
        ["acknowledged a x1", "released a #2 acknowledged"]
    );
    assert_eq!(world.report(&hypervisor("h1"), "ReportReady", &[3]), ["ready b #3"]);
}

#[test]
fn a_server_without_a_worker_is_given_up_and_the_unit_queues_again() {
    let mut world = World::with_market();
    world.rules(json!({"provisioning_seconds_max": 50, "dead_seconds_max": 20}));
    world.supply(1, 2);
    world.place("a", 2, "0.010");
    world.wait(40).report(&hypervisor("h1"), "ReportReady", &[1]);
    let due = but_prices(world.wait(10).due());
    assert_eq!(due, ["released a #2 provisioning-timed-out", "awarded a #3"]);
    world.dead(&[1], 5);
    assert_eq!(but_prices(world.wait(19).due()), [""; 0]);
    let due = but_prices(world.wait(1).due());
    assert_eq!(due, ["released a #1 worker-dead", "awarded a #4"]);
    // A worker that comes back in time stays.
    world.report(&hypervisor("h1"), "ReportReady", &[4]);
    world.dead(&[4], 0);
    world.wait(19).report(&hypervisor("h1"), "ReportReady", &[4]);
    world.report(&hypervisor("h1"), "ReportReady", &[3]);
    assert_eq!(but_prices(world.wait(1_000).due()), [""; 0]);
}

#[test]
fn other_times_hold_for_those_who_are_without_a_worker_already() {
    let mut world = with_leases();
    world.wait(100).report(&hypervisor("h1"), "ReportReady", &[1]);
    world.dead(&[1], 0);
    let lines =
        but_prices(world.wait(5).rules(json!({"provisioning_seconds_max": 90, "dead_seconds_max": 10})));
    assert_eq!(lines, ["rules", "released a #2 provisioning-timed-out", "awarded a #3"]);
    world.restart();
    assert_eq!(but_prices(world.wait(5).due()), ["released a #1 worker-dead", "awarded a #4"]);
    world.rules(json!({}));
    assert_eq!(but_prices(world.wait(10_000).due()), [""; 0]);
}

#[test]
fn a_notice_that_is_taken_back_leaves_the_worker_as_it_is() {
    let mut world = with_leases();
    world.rules(json!({"provisioning_seconds_max": 50}));
    world.report(&hypervisor("h1"), "ReportReady", &[1]);
    world.wait(30).place("b", 2, "0.020");
    // Both leave; then both come back: the ready one stays ready, the other has all its time anew.
    let lines = but_prices(world.wait(10).cancel("b"));
    assert_eq!(lines, ["cancelled b", "released b #3-4 never-served", "withdrawn a #1", "withdrawn a #2",]);
    assert_eq!(but_prices(world.wait(49).due()), [""; 0]);
    assert_eq!(but_prices(world.wait(1).due()), ["released a #2 provisioning-timed-out", "awarded a #5"]);
}

#[test]
fn a_moved_unit_keeps_its_server_until_the_new_one_is_ready() {
    let mut world = World::with_market();
    world.supply(1, 3);
    world.place("a", 2, "0.010");
    let h1 = hypervisor("h1");
    world.report(&h1, "ReportReady", &[1, 2]);
    let moves = |world: &mut World, leases: &[u64], seconds: i64| {
        let gone_at = world.now.plus_micros(seconds * 1_000_000);
        but_prices(
            world
                .send(&hypervisor("h1"), json!({"type": "MoveLeases", "leases": leases, "gone_at": gone_at})),
        )
    };
    // One server is vacant, the other comes from those that go.
    assert_eq!(
        moves(&mut world, &[1, 2], 30),
        ["notice a #1-2 host at 30", "moved a #1 to #3", "moved a #2 to #4 by 30"]
    );
    assert_eq!(moves(&mut world, &[1], 30), ["refused not-allowed leases[0]=1"]);
    assert_eq!(moves(&mut world, &[4], 30), ["refused not-allowed leases[0]=4"]);
    assert_eq!(
        moves(&mut world, &[3], -1),
        [format!("refused out-of-range gone_at={}", world.now.plus_micros(-1_000_000))]
    );
    // The new one is ready: the old one goes at once, and its server serves who waits.
    assert_eq!(
        but_prices(world.wait(10).report(&h1, "ReportReady", &[3])),
        ["ready a #3", "released a #1 replaced"]
    );
    assert_eq!(but_prices(world.report(&h1, "ReportReady", &[4])), ["ready a #4", "released a #2 replaced"]);
    assert_eq!(but_prices(world.wait(1_000).due()), [""; 0]);
}

#[test]
fn a_moved_unit_loses_its_server_at_the_end_of_the_notice() {
    let mut world = World::with_market();
    world.supply(1, 2);
    world.place("a", 1, "0.010");
    let gone_at = world.now.plus_micros(30_000_000);
    let lines = world.send(&operator(), json!({"type": "MoveLeases", "leases": [1], "gone_at": gone_at}));
    assert_eq!(lines, ["notice a #1 operator at 30", "moved a #1 to #2"]);
    // Such a notice is not taken back, whatever the bid wins.
    assert_eq!(but_prices(world.amend("a", 1, 2, "0.020")), ["amended a v2", "awarded a #3 by 30"]);
    assert_eq!(but_prices(world.wait(30).due()), ["released a #1 notice-ended"]);
    assert_eq!(but_prices(world.report(&hypervisor("h1"), "ReportReady", &[2])), ["ready a #2"]);
}
