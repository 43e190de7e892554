//! The rules by example (DESIGN §5): what is asked, and the events that follow, as lines.

use proto::Machine;
use serde_json::json;

use super::driver::*;

#[test]
fn a_bid_wins_and_pays_the_reserve_while_servers_are_left() {
    let mut world = World::new();
    assert_eq!(
        world.define("dfw/a", json!({"reserve": "0.0015"})),
        ["defined dfw/a", "price dfw/a none lowest none sold 0/0 wanted 0", "round 1"]
    );
    assert_eq!(
        world.supply(1, 3),
        ["supply h1 3 of 3", "price dfw/a 0.0015 lowest 0.002 sold 0/3 wanted 0", "round 2"]
    );
    assert_eq!(
        world.place("a", 2, "0.030"),
        ["placed a", "awarded a #1-2", "price dfw/a 0.0015 lowest 0.002 sold 2/3 wanted 2", "round 3"]
    );
}

#[test]
fn the_lowest_accepted_limit_is_the_price_or_the_highest_rejected() {
    let mut world = World::with_market();
    world.supply(1, 2);
    world.place("a", 1, "0.030");
    world.place("b", 1, "0.020");
    assert_eq!(
        world.place("c", 1, "0.010"),
        ["placed c", "price dfw/a 0.020 lowest 0.021 sold 2/2 wanted 3", "round 5"]
    );
    assert_eq!(
        world.rules(json!({"price_rule": "highest-rejected"})),
        ["rules", "price dfw/a 0.010 lowest 0.021 sold 2/2 wanted 3", "round 6"]
    );
}

#[test]
fn the_older_of_equals_goes_first_and_an_incumbent_before_both() {
    let mut world = World::with_market();
    world.supply(1, 1);
    assert!(world.place("a", 1, "0.010").contains(&"awarded a #1".to_owned()));
    // The same limit, younger: the incumbent stays.
    assert_eq!(but_prices(world.place("b", 1, "0.010")), ["placed b"]);
    assert_eq!(but_prices(world.place("c", 1, "0.010")), ["placed c"]);
    world.cancel("a");
    world.wait(60);
    // Of the two that wait the older one is next, and was promised the server.
    assert_eq!(but_prices(world.due()), ["released a #1 notice-ended"]);
    assert_eq!(world.machine.bid(2).unwrap().won, 1);
    assert_eq!(world.machine.bid(3).unwrap().won, 0);
}

#[test]
fn a_unit_that_is_outbid_gets_notice_and_what_would_have_kept_it() {
    let mut world = World::with_market();
    world.supply(1, 2);
    world.place("a", 2, "0.010");
    assert_eq!(
        world.place("b", 1, "0.020"),
        [
            "placed b",
            "notice a #2 outbid at 60 kept by 0.011",
            "awarded b #3 by 60",
            "price dfw/a 0.010 lowest 0.011 sold 2/2 wanted 3",
            "round 4",
        ]
    );
    assert_eq!(but_prices(world.wait(60).due()), ["released a #2 notice-ended"]);
}

#[test]
fn a_notice_is_withdrawn_if_the_bid_wins_again() {
    let mut world = World::with_market();
    world.supply(1, 2);
    world.place("a", 2, "0.010");
    world.place("b", 1, "0.020");
    // 20 seconds later half of the notice is still to come.
    assert_eq!(but_prices(world.wait(20).supply(2, 3)), ["supply h1 3 of 3", "withdrawn a #2"]);
    assert_eq!(but_prices(world.wait(60).due()), Vec::<String>::new());
}

#[test]
fn a_notice_is_final_once_its_server_is_promised_and_due_soon() {
    let mut world = World::with_market();
    world.supply(1, 1);
    world.place("a", 1, "0.010");
    assert_eq!(
        but_prices(world.place("b", 1, "0.020")),
        ["placed b", "notice a #1 outbid at 60 kept by 0.021", "awarded b #2 by 60"]
    );
    // A second server comes, and b has it at once: nobody is promised the one that a leaves.
    assert_eq!(but_prices(world.wait(35).supply(2, 2)), ["supply h1 2 of 2", "withdrawn a #1"]);

    let mut world = World::with_market();
    world.supply(1, 2);
    world.place("a", 1, "0.010");
    world.place("c", 1, "0.030");
    assert_eq!(
        but_prices(world.place("b", 1, "0.020")),
        ["placed b", "notice a #1 outbid at 60 kept by 0.021", "awarded b #3 by 60"]
    );
    // c goes at 35 and its server is free at 95; b is promised that of a, at 60: a wins a new unit.
    assert_eq!(
        but_prices(world.wait(35).cancel("c")),
        ["cancelled c", "notice c #2 cancelled at 95", "awarded a #4 by 95"]
    );
    // With half of the notice to come it would have stayed, and b would wait longer.
    let mut world = World::with_market();
    world.supply(1, 2);
    world.place("a", 1, "0.010");
    world.place("c", 1, "0.030");
    world.place("b", 1, "0.020");
    assert_eq!(
        but_prices(world.wait(25).cancel("c")),
        ["cancelled c", "notice c #2 cancelled at 85", "withdrawn a #1", "delayed b #3 by 88"]
    );
}

#[test]
fn how_long_a_notice_can_be_withdrawn_is_a_setting() {
    let mut world = World::with_market();
    world.define("dfw/a", json!({"reserve": "0.001", "notice_seconds": 60, "withdraw_until_seconds": 0}));
    world.supply(1, 2);
    world.place("a", 1, "0.010");
    world.place("c", 1, "0.030");
    world.place("b", 1, "0.020");
    let lines = but_prices(world.wait(59).cancel("c"));
    assert_eq!(
        lines,
        ["cancelled c", "notice c #2 cancelled at 119", "withdrawn a #1", "delayed b #3 by 122"]
    );
}

#[test]
fn an_acknowledged_unit_is_gone_at_once_and_its_server_given_on() {
    let mut world = World::with_market();
    world.supply(1, 1);
    world.place("a", 1, "0.010");
    world.place("b", 1, "0.020");
    assert_eq!(
        but_prices(world.wait(5).acknowledge("a", &[1])),
        ["acknowledged a x1", "released a #1 acknowledged"]
    );
    let bid = world.machine.bid(2).unwrap();
    assert_eq!(bid.leases[0].available_by, None);
    // Winning again, it gets a new unit.
    assert_eq!(but_prices(world.wait(5).supply(2, 2)), ["supply h1 2 of 2", "awarded a #3"]);
}

#[test]
fn a_unit_that_never_had_a_server_is_over_at_once() {
    let mut world = World::with_market();
    world.supply(1, 1);
    world.place("a", 1, "0.010");
    world.place("b", 1, "0.020");
    assert_eq!(
        but_prices(world.place("c", 1, "0.030")),
        ["placed c", "released b #2 never-served", "awarded c #3 by 60"]
    );
}

#[test]
fn shrinking_supply_takes_the_lowest_units_with_the_hosts_deadline() {
    let mut world = World::with_market();
    world.supply(1, 4);
    world.place("a", 2, "0.010");
    world.place("b", 2, "0.020");
    let at_20 = START.plus_seconds(20);
    assert_eq!(
        but_prices(world.offer(json!({"generation": 2, "units": 3, "cause": "host", "gone_at": at_20}))),
        ["supply h1 3 of 3", "notice a #2 supply at 20 kept by 0.011"]
    );
    // A deadline later than the notice changes nothing.
    let at_200 = START.plus_seconds(200);
    assert_eq!(
        but_prices(world.offer(json!({"generation": 3, "units": 2, "gone_at": at_200}))),
        ["supply h1 2 of 2", "notice a #1 supply at 60 kept by 0.021"]
    );
    // One that has passed is now.
    assert_eq!(
        but_prices(world.wait(5).offer(json!({"generation": 4, "units": 1, "gone_at": START}))),
        ["supply h1 1 of 1", "notice b #4 supply at 5 kept by 0.021", "released b #4 notice-ended"]
    );
}

#[test]
fn who_is_outbid_and_who_lost_to_supply_in_the_same_round_is_told_apart() {
    let mut world = World::with_market();
    world.supply(1, 3);
    world.place("a", 1, "0.010");
    world.place("b", 1, "0.020");
    world.place("c", 1, "0.030");
    let d = command(bid("d", 1, "0.040"));
    let less = json!({"type": "SupplyOffered", "id": "s", "source": "h1", "market": "dfw/a", "generation": 2, "units": 2});
    let inputs = world.turn(vec![(gateway(), d), (hypervisor("h1"), command(less))]);
    // With three servers d would still have pushed out a, and b would have stayed.
    assert_eq!(
        but_prices(world.lines(&inputs.concat())),
        [
            "placed d",
            "supply h1 2 of 2",
            "notice a #1 outbid at 60 kept by 0.031",
            "notice b #2 supply at 60 kept by 0.031",
            "awarded d #4 by 60",
        ]
    );
}

#[test]
fn servers_that_go_early_give_short_notice_to_as_many_units_and_no_more() {
    let mut world = World::with_market();
    world.supply(1, 2);
    world.offer(json!({"source": "h2", "generation": 1, "units": 2}));
    world.place("a", 3, "0.010");
    let offer = |source: &str, json: serde_json::Value| {
        let mut json = json;
        json["type"] = "SupplyOffered".into();
        json["id"] = format!("{source}-2").into();
        json["source"] = source.into();
        json["market"] = "dfw/a".into();
        (hypervisor(source), command(json))
    };
    let at_30 = START.plus_seconds(30);
    let inputs = world.turn(vec![
        offer("h1", json!({"generation": 2, "units": 0})),
        offer("h2", json!({"generation": 2, "units": 1, "gone_at": at_30})),
    ]);
    assert_eq!(
        but_prices(world.lines(&inputs.concat())),
        [
            "supply h1 0 of 2",
            "supply h2 1 of 1",
            "notice a #3 supply at 30 kept by 0.011",
            "notice a #2 supply at 60 kept by 0.011",
        ]
    );
}

#[test]
fn a_dead_server_ends_its_lease_and_the_unit_competes_anew() {
    let mut world = World::with_market();
    world.supply(1, 3);
    world.place("a", 2, "0.020");
    world.place("b", 1, "0.010");
    assert_eq!(
        but_prices(world.offer(json!({"generation": 2, "units": 2, "cause": "failed", "lost": [1]}))),
        [
            "supply h1 2 of 2",
            "released a #1 server-lost",
            "notice b #3 supply at 60 kept by 0.021",
            "awarded a #4 by 60",
        ]
    );
    // Said again it changes nothing, also though the lease is over.
    assert_eq!(
        but_prices(world.offer(json!({"generation": 2, "units": 2, "cause": "failed", "lost": [1]}))),
        ["supply h1 2 of 2"]
    );
    // The lowest bid's own server: nobody else loses anything.
    assert_eq!(
        but_prices(world.offer(json!({"generation": 3, "units": 1, "cause": "failed", "lost": [2]}))),
        ["supply h1 1 of 1", "released a #2 server-lost"]
    );
}

#[test]
fn a_reserve_that_rises_gives_notice_and_one_that_falls_takes_it_back() {
    let mut world = World::with_market();
    world.supply(1, 2);
    world.place("a", 1, "0.010");
    world.place("b", 1, "0.020");
    let settings = |reserve: &str| json!({"reserve": reserve, "notice_seconds": 60});
    assert_eq!(
        world.define("dfw/a", settings("0.015")),
        [
            "defined dfw/a",
            "notice a #1 reserve at 60 kept by 0.015",
            "price dfw/a 0.015 lowest 0.015 sold 1/2 wanted 2",
            "round 5",
        ]
    );
    assert_eq!(
        world.wait(10).define("dfw/a", settings("0.010")),
        ["defined dfw/a", "withdrawn a #1", "price dfw/a 0.010 lowest 0.011 sold 2/2 wanted 2", "round 6"]
    );
}

#[test]
fn standing_limits_outlive_a_ladder() {
    let mut world = World::with_market();
    world.supply(1, 1);
    world.place("a", 1, "0.007");
    let settings = json!({"reserve": "0.001", "notice_seconds": 60, "ladder": {"step": "0.005"}});
    assert_eq!(world.define("dfw/a", settings)[1], "price dfw/a 0.007 lowest 0.010 sold 1/1 wanted 1");
    // The limit it has is legal for it, another one off the ladder is not.
    assert_eq!(but_prices(world.amend("a", 1, 2, "0.007")), ["amended a v2"]);
    assert_eq!(
        but_prices(world.amend("a", 2, 2, "0.008")),
        ["refused off-ladder terms.options[0].limit=0.008"]
    );
    assert_eq!(but_prices(world.place("b", 1, "0.007")), ["refused off-ladder options[0].limit=0.007"]);
    assert_eq!(
        but_prices(world.place("c", 1, "0.010")),
        ["placed c", "notice a #1 outbid at 60 kept by 0.015", "awarded c #2 by 60"]
    );
}

#[test]
fn own_exits_leave_within_the_notice_and_are_final() {
    let mut world = World::with_market();
    world.supply(1, 4);
    world.place("a", 4, "0.010");
    assert_eq!(but_prices(world.amend("a", 1, 3, "0.010")), ["amended a v2", "notice a #4 reduced at 60"]);
    // One named lease.
    let mut named = amendment("a", 2, 2, "0.010");
    named["give_up"] = json!([2]);
    assert_eq!(but_prices(world.send(&gateway(), named)), ["amended a v3", "notice a #2 reduced at 60"]);
    // Wanting more again does not take an own exit back.
    assert_eq!(but_prices(world.amend("a", 3, 4, "0.010")), ["amended a v4", "awarded a #5-6 by 60"]);
    assert_eq!(
        but_prices(world.wait(10).cancel("a")),
        [
            "cancelled a",
            "released a #5-6 never-served",
            "notice a #3 cancelled at 70",
            "notice a #1 cancelled at 70",
        ]
    );
    assert_eq!(
        but_prices(world.acknowledge("a", &[3, 1])),
        ["acknowledged a x2", "released a #1 acknowledged", "released a #3 acknowledged"]
    );
    assert_eq!(
        but_prices(world.wait(50).due()),
        ["released a #2 notice-ended", "released a #4 notice-ended"]
    );
}

#[test]
fn a_bid_expires_by_itself() {
    let mut world = World::with_market();
    world.supply(1, 1);
    let mut short = bid("a", 1, "0.010");
    short["expires_at"] = json!(START.plus_seconds(30));
    world.send(&gateway(), short);
    assert_eq!(world.machine.wake_at(), Some(START.plus_seconds(30)));
    assert_eq!(
        world.wait(30).due(),
        [
            "expired a",
            "notice a #1 expired at 90",
            "price dfw/a 0.001 lowest 0.001 sold 0/1 wanted 0",
            "round 4",
        ]
    );
    assert_eq!(but_prices(world.cancel("a")), ["refused ended bid=a"]);
}

#[test]
fn raising_a_limit_makes_queued_units_younger_and_lowering_keeps_their_place() {
    let mut world = World::with_market();
    world.place("a", 1, "0.010");
    world.place("b", 1, "0.011");
    // a goes up to the level of b, and stands behind it there.
    world.amend("a", 1, 1, "0.011");
    assert_eq!(but_prices(world.supply(1, 1)), ["supply h1 1 of 1", "awarded b #1"]);

    let mut world = World::with_market();
    world.place("a", 1, "0.012");
    world.place("b", 1, "0.011");
    // a goes down to the level of b, and is still the older one.
    world.amend("a", 1, 1, "0.011");
    assert_eq!(but_prices(world.supply(1, 1)), ["supply h1 1 of 1", "awarded a #1"]);
}

#[test]
fn added_units_take_a_new_place_and_the_others_keep_theirs() {
    let mut world = World::with_market();
    world.place("a", 1, "0.010");
    world.place("b", 1, "0.010");
    world.amend("a", 1, 2, "0.010");
    assert_eq!(but_prices(world.supply(1, 2)), ["supply h1 2 of 2", "awarded a #1", "awarded b #2"]);
    assert_eq!(but_prices(world.supply(2, 3)), ["supply h1 3 of 3", "awarded a #3"]);
}

#[test]
fn incumbents_keep_their_place_when_the_limit_rises() {
    let mut world = World::with_market();
    world.supply(1, 1);
    world.place("a", 2, "0.010");
    world.place("b", 1, "0.011");
    // b is in and waits for the server that a's unit leaves. The raise puts a first again: b never had a server, and
    // a keeps the one it has.
    assert_eq!(
        but_prices(world.amend("a", 1, 2, "0.012")),
        ["amended a v2", "released b #2 never-served", "withdrawn a #1"]
    );
}

#[test]
fn moving_to_another_market_leaves_the_one_and_joins_the_other() {
    let mut world = World::with_market();
    world.define("iad/a", json!({"reserve": "0.002", "notice_seconds": 30}));
    world.supply(1, 1);
    world.offer(json!({"source": "h2", "market": "iad/a", "generation": 1, "units": 1}));
    world.place("a", 1, "0.010");
    let mut moved = amendment("a", 1, 1, "0.010");
    moved["terms"]["options"][0]["market"] = "iad/a".into();
    assert_eq!(
        world.send(&gateway(), moved),
        [
            "amended a v2",
            "notice a #1 reduced at 60",
            "price dfw/a 0.001 lowest 0.001 sold 0/1 wanted 0",
            "awarded a #2",
            "price iad/a 0.010 lowest 0.011 sold 1/1 wanted 1",
            "round 6",
        ]
    );
}

#[test]
fn a_round_closes_a_while_after_its_first_command_and_only_what_is_left_by_then_counts() {
    let mut world = World::with_market();
    world.supply(1, 1);
    world.rules(json!({"coalesce_milliseconds": 2000}));
    assert_eq!(world.wait(10).place("a", 1, "0.010"), ["placed a"]);
    assert_eq!(world.machine.wake_at(), Some(START.plus_seconds(12)));
    assert_eq!(world.wait(1).place("b", 1, "0.020"), ["placed b"]);
    assert_eq!(world.cancel("b"), ["cancelled b"]);
    world.restart();
    assert_eq!(
        world.wait(1).due(),
        ["awarded a #1", "price dfw/a 0.010 lowest 0.011 sold 1/1 wanted 1", "round 3"]
    );
    // Of a bid that came and went only the round is left.
    world.place("c", 1, "0.020");
    world.cancel("c");
    assert_eq!(world.wait(5).due(), ["round 4"]);
    // Supply is given out in the round, too.
    assert_eq!(world.supply(2, 0), ["supply h1 0 of 0"]);
    assert_eq!(but_prices(world.wait(2).due()), ["notice a #1 supply at 79"]);
}

#[test]
fn a_finished_bid_is_forgotten_after_a_while_and_not_before_it_has_let_go() {
    let mut world = World::with_market();
    world.rules(json!({"finished_bids_kept_seconds": 100}));
    world.supply(1, 1);
    world.place("a", 1, "0.010");
    world.place("b", 1, "0.009");
    assert_eq!(but_prices(world.cancel("b")), ["cancelled b"]);
    assert_eq!(but_prices(world.cancel("a")), ["cancelled a", "notice a #1 cancelled at 60"]);
    assert_eq!(but_prices(world.wait(60).due()), ["released a #1 notice-ended"]);
    assert_eq!(but_prices(world.wait(40).due()), Vec::<String>::new());
    assert_eq!(but_prices(world.wait(1).due()), ["forgotten b"]);
    assert_eq!(but_prices(world.cancel("b")), ["refused unknown bid=b"]);
    assert_eq!(but_prices(world.cancel("a")), ["refused ended bid=a"]);
    assert_eq!(but_prices(world.wait(60).due()), ["forgotten a"]);
    assert_eq!(world.machine.bids(), []);
}

#[test]
fn supply_is_the_sum_of_what_sources_say() {
    let mut world = World::with_market();
    world.supply(1, 2);
    assert_eq!(
        but_prices(world.offer(json!({"source": "h2", "generation": 7, "units": 3}))),
        ["supply h2 3 of 5"]
    );
    assert_eq!(but_prices(world.supply(2, 0)), ["supply h1 0 of 3"]);
    // The same statement again is accepted and is nothing new.
    assert_eq!(world.supply(2, 0), ["supply h1 0 of 3"]);
}

#[test]
fn no_supply_has_no_price() {
    let mut world = World::with_market();
    world.place("a", 1, "0.010");
    world.supply(1, 1);
    assert_eq!(
        world.supply(2, 0),
        [
            "supply h1 0 of 0",
            "notice a #1 supply at 60",
            "price dfw/a none lowest none sold 0/0 wanted 1",
            "round 4",
        ]
    );
}

#[test]
fn many_places_of_one_bid_stay_bounded() {
    let mut world = World::with_market();
    world.place("a", 1, "0.010");
    world.place("z", 1, "0.010");
    let places = market::bounds::PLACES_PER_BID_MAX as u32;
    for version in 1..places + 20 {
        world.amend("a", version, version + 1, "0.010");
    }
    // Its first place is still ahead of z, all but that of the first unit are behind.
    assert_eq!(but_prices(world.supply(1, 2)), ["supply h1 2 of 2", "awarded a #1", "awarded z #2"]);
    let lines = but_prices(world.supply(2, 200));
    assert_eq!(lines, ["supply h1 200 of 200", &format!("awarded a #3-{}", places + 21)]);
}
