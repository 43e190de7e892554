//! Who may say what, and what is refused.

use proto::machine::{Role, Sender};
use serde_json::{Value, json};

use super::driver::*;

fn world() -> World {
    let mut world = World::new();
    world.host("a", "z1", 4);
    world.create("p", "single");
    world
}

#[test]
fn only_those_who_may_are_heard() {
    let terms = json!({"regions": ["dfw"], "version": "v1.35.0"});
    let capacity = json!({"cpu_milli": 1, "memory_mib": 1, "pods": 1});
    let host = json!({"zone": "z1", "region": "dfw", "capacity": capacity});
    let store = json!({"driver": "etcd", "units_max": 1, "accepting": true});
    let all: [(Value, &[Role]); 7] = [
        (
            json!({"type": "CreateCluster", "tenant": "t", "cluster": "c", "terms": terms}),
            &[Role::Gateway, Role::Operator, Role::Service],
        ),
        (
            json!({"type": "OfferHost", "host": "n", "generation": 1, "terms": host}),
            &[Role::Operator, Role::Service, Role::Hypervisor],
        ),
        (
            json!({"type": "OfferDataStore", "data_store": "d", "generation": 1, "terms": store}),
            &[Role::Operator, Role::Service],
        ),
        (
            json!({"type": "ReportPlane", "plane": 1, "generation": 0, "ready_on": [], "workers": 0}),
            &[Role::Service],
        ),
        (json!({"type": "ReportPlaneGone", "plane": 7}), &[Role::Service]),
        (json!({"type": "ReportBids", "exchange": "main", "sequence": 1}), &[Role::Service]),
        (json!({"type": "AdoptSiteRules", "rules": {}}), &[Role::Operator, Role::Service]),
    ];
    for (asked, allowed) in all {
        for role in Role::ALL {
            let mut world = world();
            let first = world.send(&sender(role, "somebody"), asked.clone())[0].clone();
            let is_refused = first.starts_with("refused not-allowed type=");
            assert_eq!(is_refused, !allowed.contains(&role), "{role:?}: {first}");
        }
    }
}

#[test]
fn a_hypervisor_speaks_of_its_own_hosts() {
    let mut world = world();
    let h = |name: &str| sender(Role::Hypervisor, name);
    let notice = |host: &str| json!({"type": "NoticeHost", "host": host, "gone_at": "2026-01-01T00:10:00Z"});
    // Host `a` is h1's, whoever offered it.
    assert_eq!(world.send(&h("h2"), notice("a")), ["refused unknown host=a"]);
    assert_eq!(world.send(&h("h1"), notice("a"))[0], "notice a x1 at 600");
    let offer = |host: &str, generation: u64, named: Option<&str>| {
        let capacity = json!({"cpu_milli": 1, "memory_mib": 1, "pods": 1});
        let mut terms = json!({"zone": "z1", "region": "dfw", "capacity": capacity});
        if let Some(named) = named {
            terms["hypervisor"] = named.into();
        }
        json!({"type": "OfferHost", "host": host, "generation": generation, "terms": terms})
    };
    assert_eq!(world.send(&h("h2"), offer("b", 1, Some("h1"))), ["refused not-allowed terms.hypervisor=h1"]);
    assert_eq!(world.send(&h("h2"), offer("a", 99, None)), ["refused not-allowed host=a"]);
    assert_eq!(world.send(&h("h2"), offer("b", 1, None))[0], "host b");
    assert_eq!(world.send(&h("h2"), offer("b", 1, None)), ["refused stale generation=1"]);
    assert_eq!(world.send(&h("h1"), notice("b")), ["refused unknown host=b"]);
    assert_eq!(world.send(&h("h2"), notice("b"))[0], "notice b x0 at 600");
}

#[test]
fn what_is_wrong_is_named() {
    let mut world = world();
    let web = gateway();
    let mut refused = |sender: &Sender, json: Value, expected: &str| {
        assert_eq!(world.send(sender, json.clone()), [format!("refused {expected}")], "{json}");
    };
    let create = |cluster: &str, terms: Value| json!({"type": "CreateCluster", "tenant": "acme", "cluster": cluster, "terms": terms});
    let terms = |field: &str, value: Value| {
        let mut terms = json!({"regions": ["dfw"], "version": "v1.35.0"});
        terms[field] = value;
        terms
    };
    refused(&web, create("p", terms("version", "v1.35.0".into())), "duplicate cluster=p");
    refused(&web, create("q", terms("regions", json!([]))), "out-of-range terms.regions=0");
    refused(&web, create("q", terms("regions", json!(["a", "b", "a"]))), "duplicate terms.regions[2]=a");
    refused(&web, create("q", terms("version", "v1.20.0".into())), "out-of-range terms.version=v1.20.0");
    refused(
        &web,
        create("q", terms("sleep_after_seconds", 1.into())),
        "out-of-range terms.sleep_after_seconds=1",
    );
    refused(&web, create("q", terms("driver", "etcd".into())), "limit-reached terms.driver=etcd");
    let change = |version: u32| json!({"type": "ChangeCluster", "tenant": "acme", "cluster": "p", "version": version, "terms": {"regions": ["dfw"], "version": "v1.35.0"}});
    refused(&web, change(2), "stale version=2");
    // Another tenant's cluster is as unknown as none.
    refused(&web, json!({"type": "DeleteCluster", "tenant": "bolt", "cluster": "p"}), "unknown cluster=p");
    let report = |generation: u64| json!({"type": "ReportPlane", "plane": 1, "generation": generation, "ready_on": [], "workers": 0});
    refused(&service(), report(99), "out-of-range generation=99");
    refused(&service(), json!({"type": "ReportPlaneGone", "plane": 1}), "not-allowed plane=1");
    let rules = |field: &str, value: Value| {
        let mut rules = json!({});
        rules[field] = value;
        json!({"type": "AdoptSiteRules", "rules": rules})
    };
    refused(&service(), rules("moves_max", 0.into()), "out-of-range rules.moves_max=0");
    refused(&service(), rules("sizes", json!([])), "out-of-range rules.sizes=0");
    refused(
        &service(),
        rules("surge_reserve_permille", 1_001.into()),
        "out-of-range rules.surge_reserve_permille=1001",
    );
    let capacity = json!({"cpu_milli": u32::MAX, "memory_mib": u32::MAX, "pods": u32::MAX});
    let host = json!({"zone": "z1", "region": "dfw", "capacity": capacity});
    // Absurd, but it is what a host may say; it is used as far as anybody asks for it.
    let lines =
        world.send(&service(), json!({"type": "OfferHost", "host": "n", "generation": 1, "terms": host}));
    assert_eq!(lines[0], "host n");
    world.carry_out_all();
    world.send(&service(), report(1));
    assert_eq!(world.send(&service(), report(0)), ["refused stale generation=0"]);
}
