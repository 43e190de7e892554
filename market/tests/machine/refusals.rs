//! Every refusal, with the field and the value it names.

use market::bounds::{MARKETS_MAX, SOURCES_MAX};
use proto::machine::Role;
use serde_json::{Value, json};

use super::driver::*;

/// Changes a JSON value at a path such as `terms/quantity`.
fn with(mut json: Value, path: &str, value: Value) -> Value {
    let mut here = &mut json;
    for part in path.split('/') {
        here = match part.parse::<usize>() {
            Ok(index) => &mut here[index],
            Err(_) => &mut here[part],
        };
    }
    *here = value;
    json
}

fn options(markets: &[&str]) -> Value {
    markets.iter().map(|market| json!({"market": market, "limit": "0.010"})).collect()
}

fn many(count: usize) -> Value {
    (0..count).map(|place| json!({"market": format!("dfw/m{place}"), "limit": "0.010"})).collect()
}

#[test]
fn what_a_bid_may_not_say() {
    let mut world = World::with_market();
    world.define("iad/a", json!({"reserve": "0.005"}));
    let good = || bid("a", 2, "0.010");
    let refused = [
        ("quantity", json!(0), "out-of-range quantity=0"),
        ("quantity", json!(10_001), "out-of-range quantity=10001"),
        ("min_quantity", json!(0), "out-of-range min_quantity=0"),
        ("min_quantity", json!(3), "out-of-range min_quantity=3"),
        ("expires_at", json!(START), "out-of-range expires_at=2026-01-01T00:00:00Z"),
        ("options", json!([]), "out-of-range options=0"),
        ("options", many(33), "out-of-range options=33"),
        ("options", many(32), "unknown options[0].market=dfw/m0"),
        ("options", options(&["dfw/a", "iad/b"]), "unknown options[1].market=iad/b"),
        ("options", options(&["dfw/a", "iad/a", "dfw/a"]), "duplicate options[2].market=dfw/a"),
        ("options/0/market", json!("iad/b"), "unknown options[0].market=iad/b"),
        ("options/0/limit", json!("0.0005"), "below-reserve options[0].limit=0.0005"),
        ("options/0/limit", json!("0.0105"), "off-ladder options[0].limit=0.0105"),
        ("options/0/limit", json!("999999999"), "off-ladder options[0].limit=999999999.000"),
        ("options/0/limit", json!("0"), "below-reserve options[0].limit=0.000"),
        ("options/0/running_limit", json!("0.009"), "out-of-range options[0].running_limit=0.009"),
    ];
    for (path, value, refusal) in refused {
        let lines = world.send(&gateway(), with(good(), path, value.clone()));
        assert_eq!(lines, [format!("refused {refusal}")], "{path} = {value}");
    }
    assert!(world.machine.bids().is_empty());
    assert_eq!(world.send(&gateway(), good())[0], "placed a");
    for (path, value, refusal) in [
        ("terms/quantity", json!(0), "out-of-range terms.quantity=0"),
        ("terms/min_quantity", json!(9), "out-of-range terms.min_quantity=9"),
        ("terms/expires_at", json!(START), "out-of-range terms.expires_at=2026-01-01T00:00:00Z"),
        ("terms/options", many(33), "out-of-range terms.options=33"),
        ("terms/options/0/market", json!("x/y"), "unknown terms.options[0].market=x/y"),
        ("terms/options/0/limit", json!("0.0105"), "off-ladder terms.options[0].limit=0.0105"),
        ("terms/options/0/limit", json!("0.0009"), "below-reserve terms.options[0].limit=0.0009"),
        ("version", json!(2), "stale version=2"),
        ("version", json!(0), "stale version=0"),
        ("give_up", json!([7]), "unknown give_up[0]=7"),
    ] {
        let lines = world.send(&gateway(), with(amendment("a", 1, 2, "0.010"), path, value.clone()));
        assert_eq!(lines, [format!("refused {refusal}")], "{path} = {value}");
    }
}

#[test]
fn a_bids_id_is_its_name_for_ever() {
    let mut world = World::with_market();
    world.place("a", 1, "0.010");
    assert_eq!(world.place("a", 1, "0.010"), ["refused id-reused id=a"]);
    world.cancel("a");
    assert_eq!(world.place("a", 1, "0.010"), ["refused id-reused id=a"]);
    // Another tenant may use it.
    let other = with(bid("a", 1, "0.010"), "tenant", json!("t-other"));
    assert_eq!(world.send(&gateway(), other)[0], "placed a");
}

#[test]
fn a_foreign_bid_is_as_unknown_as_none() {
    let mut world = World::with_market();
    world.place("a", 1, "0.010");
    for (kind, extra) in [
        ("CancelBid", json!({})),
        ("AmendBid", json!({"version": 1, "terms": {"quantity": 1, "options": options(&["dfw/a"])}})),
        ("AcknowledgeNotice", json!({"leases": [1]})),
    ] {
        for name in ["a", "b"] {
            let mut json = json!({"type": kind, "tenant": "t-b", "bid": name});
            json.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            assert_eq!(world.send(&gateway(), json), [format!("refused unknown bid={name}")], "{kind}");
        }
    }
    world.cancel("a");
    assert_eq!(world.cancel("a"), ["refused ended bid=a"]);
    assert_eq!(world.amend("a", 1, 1, "0.010"), ["refused ended bid=a"]);
}

#[test]
fn leases_must_be_the_bids_own_and_under_notice() {
    let mut world = World::with_market();
    world.supply(1, 3);
    world.place("a", 2, "0.010");
    world.place("b", 1, "0.020");
    assert_eq!(world.acknowledge("a", &[]), ["refused out-of-range leases=0"]);
    assert_eq!(world.acknowledge("a", &[1]), ["refused unknown leases[0]=1"]);
    assert_eq!(world.acknowledge("a", &[3]), ["refused unknown leases[0]=3"]);
    world.amend("a", 1, 1, "0.010");
    assert_eq!(world.acknowledge("a", &[2, 9, 2]), ["refused duplicate leases[2]=2"]);
    assert_eq!(world.acknowledge("a", &[2, 9]), ["refused unknown leases[1]=9"]);
    assert_eq!(world.acknowledge("a", &[2, 1]), ["refused unknown leases[1]=1"]);
    assert_eq!(world.acknowledge("a", &[2])[0], "acknowledged a x1");
    assert_eq!(world.acknowledge("a", &[2]), ["refused unknown leases[0]=2"]);
    let mut json = amendment("a", 2, 1, "0.010");
    json["give_up"] = json!([1, 1]);
    assert_eq!(world.send(&gateway(), json), ["refused duplicate give_up[1]=1"]);
}

#[test]
fn who_may_ask_what() {
    let mut world = World::with_market();
    let trusted = json!([{"role": "storefront", "principal": "s1", "tenants": ["t-a", "t-b"]},
                         {"role": "storefront", "principal": "s2"}]);
    assert_eq!(world.send(&operator(), json!({"type": "AdoptTrust", "trusted": trusted})), ["trust x2"]);
    let place = |id: &str| bid(id, 1, "0.010");
    let storefront = |name: &str| sender(Role::Storefront, name);
    assert_eq!(world.send(&storefront("s1"), place("a"))[0], "placed a");
    assert_eq!(world.send(&storefront("s1"), place("c")), ["refused not-allowed tenant=t-c"]);
    assert_eq!(world.send(&storefront("s2"), place("c"))[0], "placed c");
    assert_eq!(world.send(&storefront("s3"), place("b")), ["refused not-allowed tenant=t-b"]);
    assert_eq!(world.send(&operator(), place("o"))[0], "placed o");
    let cancel = |id: &str| json!({"type": "CancelBid", "tenant": format!("t-{id}"), "bid": id});
    // One that is not trusted does not learn whether the bid exists.
    assert_eq!(world.send(&storefront("s1"), cancel("c")), ["refused not-allowed tenant=t-c"]);
    assert_eq!(world.send(&storefront("s1"), cancel("zz")), ["refused not-allowed tenant=t-zz"]);
    for role in [Role::Hypervisor, Role::Worker, Role::Service] {
        assert_eq!(world.send(&sender(role, "x"), place("n")), ["refused not-allowed tenant=t-n"]);
        assert_eq!(world.send(&sender(role, "x"), cancel("a")), ["refused not-allowed tenant=t-a"]);
    }
    // Trust that is taken away counts at once, also where it was verified before.
    world.send(
        &operator(),
        json!({"type": "AdoptTrust", "trusted": [{"role": "storefront", "principal": "s2"}]}),
    );
    assert_eq!(world.send(&storefront("s1"), cancel("a")), ["refused not-allowed tenant=t-a"]);
    assert_eq!(world.send(&storefront("s2"), cancel("a"))[0], "cancelled a");

    let offer =
        json!({"type": "SupplyOffered", "source": "h1", "market": "dfw/a", "generation": 1, "units": 1});
    for (role, name) in
        [(Role::Hypervisor, "h2"), (Role::Worker, "h1"), (Role::Storefront, "h1"), (Role::Gateway, "h1")]
    {
        assert_eq!(world.send(&sender(role, name), offer.clone()), ["refused not-allowed source=h1"]);
    }
    assert_eq!(world.send(&sender(Role::Service, "x"), offer.clone())[0], "supply h1 1 of 1");
    let settings = json!({"reserve": "0.001"});
    for role in [Role::Storefront, Role::Gateway, Role::Hypervisor, Role::Worker] {
        for (kind, json) in [
            ("DefineMarket", json!({"type": "DefineMarket", "market": "x/y", "settings": settings})),
            ("AdoptRules", json!({"type": "AdoptRules", "rules": {}})),
            ("AdoptTrust", json!({"type": "AdoptTrust", "trusted": []})),
        ] {
            assert_eq!(world.send(&sender(role, "x"), json), [format!("refused not-allowed type={kind}")]);
        }
    }
}

#[test]
fn what_a_source_may_not_say() {
    let mut world = World::with_market();
    world.define("iad/a", json!({"reserve": "0.001"}));
    world.offer(json!({"source": "h9", "market": "iad/a", "generation": 1, "units": 1}));
    let mut there = bid("i", 1, "0.010");
    there["options"][0]["market"] = "iad/a".into();
    world.send(&gateway(), there);
    world.supply(5, 2);
    world.place("a", 1, "0.010");
    for (json, refusal) in [
        (json!({"market": "x/y", "generation": 1, "units": 1}), "unknown market=x/y"),
        (json!({"generation": 6, "units": 10_000_001}), "out-of-range units=10000001"),
        (json!({"generation": 4, "units": 2}), "stale generation=4"),
        (json!({"generation": 5, "units": 3}), "stale generation=5"),
        (json!({"generation": 5, "units": 2, "cause": "ready"}), "stale generation=5"),
        (json!({"generation": 5, "units": 2, "gone_at": START}), "stale generation=5"),
        (json!({"generation": 5, "units": 2, "lost": [2]}), "stale generation=5"),
        (json!({"generation": 6, "units": 1, "lost": [3]}), "unknown lost[0]=3"),
        (json!({"generation": 6, "units": 1, "lost": [0]}), "unknown lost[0]=0"),
        (json!({"generation": 6, "units": 1, "lost": [2, 1]}), "unknown lost[1]=1"),
        (json!({"generation": 6, "units": 1, "lost": [2, 2]}), "duplicate lost[1]=2"),
    ] {
        assert_eq!(world.offer(json.clone()), [format!("refused {refusal}")], "{json}");
    }
    let lost: Vec<u64> = (0..10_001).collect();
    assert_eq!(
        world.offer(json!({"generation": 6, "units": 1, "lost": lost})),
        ["refused out-of-range lost=10001"]
    );
}

#[test]
fn what_an_operator_may_not_say() {
    let mut world = World::new();
    let rungs = |rungs: &[&str]| json!({"reserve": "0.001", "ladder": {"rungs": rungs}});
    for (settings, refusal) in [
        (json!({"reserve": "0.001", "notice_seconds": 0}), "out-of-range settings.notice_seconds=0"),
        (
            json!({"reserve": "0.001", "notice_seconds": 2_592_001}),
            "out-of-range settings.notice_seconds=2592001",
        ),
        (
            json!({"reserve": "0.001", "withdraw_until_seconds": 361}),
            "out-of-range settings.withdraw_until_seconds=361",
        ),
        (json!({"reserve": "0.001", "ladder": {"step": "0"}}), "out-of-range settings.ladder.step=0.000"),
        (rungs(&[]), "out-of-range settings.ladder.rungs=0"),
        (rungs(&["0", "0.001"]), "out-of-range settings.ladder.rungs[0]=0.000"),
        (rungs(&["0.002", "0.003", "0.003"]), "out-of-range settings.ladder.rungs[2]=0.003"),
        (json!({"reserve": "0.004", "ladder": {"rungs": ["0.003"]}}), "out-of-range settings.reserve=0.004"),
        (json!({"reserve": "999999999"}), "out-of-range settings.reserve=999999999.000"),
    ] {
        assert_eq!(world.define("dfw/a", settings.clone()), [format!("refused {refusal}")], "{settings}");
    }
    for (rules, refusal) in [
        (json!({"coalesce_milliseconds": 60_001}), "out-of-range rules.coalesce_milliseconds=60001"),
        (json!({"standing_bids_max": 0}), "out-of-range rules.standing_bids_max=0"),
        (json!({"standing_bids_max": 16_000_001}), "out-of-range rules.standing_bids_max=16000001"),
        (json!({"standing_bids_per_tenant_max": 0}), "out-of-range rules.standing_bids_per_tenant_max=0"),
        (
            json!({"finished_bids_kept_seconds": 4_000_000_000_u32}),
            "out-of-range rules.finished_bids_kept_seconds=4000000000",
        ),
    ] {
        assert_eq!(world.rules(rules.clone()), [format!("refused {refusal}")], "{rules}");
    }
    let trust = |role: &str, tenants: Value| json!({"role": role, "principal": "p", "tenants": tenants});
    let mut no_tenants = trust("storefront", json!([]));
    no_tenants.as_object_mut().unwrap().remove("tenants");
    for (trusted, refusal) in [
        (json!([trust("worker", json!([]))]), "out-of-range trusted[0].role=worker"),
        (json!([trust("gateway", json!(["t"]))]), "out-of-range trusted[0].tenants=1"),
        (json!([no_tenants, no_tenants]), "duplicate trusted[0].principal=p"),
        (json!([trust("storefront", json!(["t", "u", "t"]))]), "duplicate trusted[0].tenants=t"),
    ] {
        let json = json!({"type": "AdoptTrust", "trusted": trusted});
        assert_eq!(world.send(&operator(), json), [format!("refused {refusal}")], "{trusted}");
    }
}

#[test]
fn what_stands_is_bounded() {
    let mut world = World::with_market();
    world.rules(json!({"standing_bids_max": 3, "standing_bids_per_tenant_max": 2}));
    let of = |tenant: &str, id: &str| with(bid(id, 1, "0.010"), "tenant", json!(tenant));
    world.send(&gateway(), of("t", "a"));
    world.send(&gateway(), of("t", "b"));
    assert_eq!(world.send(&gateway(), of("t", "c")), ["refused limit-reached tenant=t"]);
    assert_eq!(world.send(&gateway(), of("u", "c"))[0], "placed c");
    assert_eq!(world.send(&gateway(), of("u", "d")), ["refused limit-reached id=d"]);
    world.send(&gateway(), json!({"type": "CancelBid", "tenant": "t", "bid": "a"}));
    assert_eq!(world.send(&gateway(), of("t", "d"))[0], "placed d");
}

#[test]
fn markets_and_sources_are_bounded() {
    let mut world = World::new();
    let define = |place: usize| {
        let json = json!({"type": "DefineMarket", "id": format!("d{place}"), "market": format!("dfw/m{place}"),
                          "settings": {"reserve": "0.001"}});
        (operator(), command(json))
    };
    let inputs = world.turn((0..=MARKETS_MAX).map(define).collect());
    let last = world.lines(&inputs[MARKETS_MAX + 1]);
    assert_eq!(last, [format!("refused limit-reached market=dfw/m{MARKETS_MAX}")]);
    // One that is open can still be changed.
    assert_eq!(world.define("dfw/m0", json!({"reserve": "0.002"}))[0], "defined dfw/m0");
    let offer = |place: usize| {
        let json = json!({"type": "SupplyOffered", "id": format!("s{place}"), "source": format!("h{place}"),
                          "market": "dfw/m0", "generation": 1, "units": 1});
        (sender(Role::Service, "placement"), command(json))
    };
    let inputs = world.turn((0..=SOURCES_MAX).map(offer).collect());
    let last = world.lines(&inputs[SOURCES_MAX + 1]);
    assert_eq!(last, [format!("refused limit-reached source=h{SOURCES_MAX}")]);
}

#[test]
fn the_sum_of_all_sources_is_bounded() {
    let mut world = World::with_market();
    let most = proto::market::SUPPLY_MAX;
    for place in 0..100 {
        world.offer(json!({"source": format!("h{place}"), "generation": 1, "units": most}));
    }
    let lines = world.offer(json!({"source": "one-more", "generation": 1, "units": 1}));
    assert_eq!(lines, ["refused limit-reached units=1"]);
}
