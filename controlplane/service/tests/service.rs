//! The service against an API server over HTTP: a plane's whole life, faults, and crashes between writes.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod site;

use std::collections::BTreeSet;

use cluster::Control;
use cluster::fault::Harm;
use controlplane::{Kind, Phase, Plane, Reason};
use controlplane_service::Order;
use serde_json::Value;
use site::{Running, harm, names, plane, start, within};

fn next(plane: &mut Plane, change: impl FnOnce(&mut Plane)) -> Order {
    plane.generation += 1;
    change(plane);
    Order::Set(1, plane.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_lives_from_its_order_to_its_end() {
    let (shared, client) = start(6).await;
    let mut running = Running::new(client.clone());
    let mut ordered = plane("acme", "prod", &[1, 2]);
    running.order(&[(1, &ordered)]).await;
    running.reached(1, 1).await;
    let state = running.states.borrow()[&1].clone();
    assert_eq!(state.ready_on, BTreeSet::from_iter(names(&[1, 2])));
    // The administrator's kubeconfig is known, and leads into the tenant's cluster.
    assert_eq!(state.kubeconfig.as_deref(), Some("prod-admin-kubeconfig"));
    assert!(
        shared.with(|cluster, _| cluster.get("secrets", "walras-acme", "prod-admin-kubeconfig").is_some())
    );
    let request = http::Request::get("/tenants/walras-acme/prod/api/v1/namespaces").body(Vec::new()).unwrap();
    let inside: Value = client.request(request).await.unwrap();
    assert_eq!(inside["kind"], "NamespaceList");

    let changes: [fn(&mut Plane); 7] = [
        |plane| (plane.replicas, plane.hosts) = (3, names(&[1, 2, 3])),
        |plane| plane.request.memory_mib = 2_400,
        |plane| plane.version = "v1.36.0".parse().unwrap(),
        |plane| plane.hosts = names(&[4, 5, 6]),
        |plane| (plane.replicas, plane.hosts) = (0, Vec::new()),
        |plane| (plane.replicas, plane.hosts) = (1, names(&[2])),
        |plane| plane.hosts = names(&[3]),
    ];
    for change in changes {
        running.tell(next(&mut ordered, change)).await;
        running.reached(1, ordered.generation).await;
    }
    running.tell(next(&mut ordered, |plane| plane.version = "v1.35.0".parse().unwrap())).await;
    running
        .until(1, "a downgrade", |state| {
            state.notes.iter().any(|note| note.reason == Reason::DowngradeRefused)
        })
        .await;
    running.tell(next(&mut ordered, |plane| plane.deleted = true)).await;
    running.until(1, "the end", |state| state.phase == Phase::Gone).await;
    assert!(shared.with(|cluster, _| cluster.get("namespaces", "", "walras-acme").is_none()));
    running.tell(Order::Forget(1)).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_before_all_orders_are_told() {
    let (shared, client) = start(3).await;
    let mut running = Running::new(client);
    running.tell(Order::Set(1, plane("acme", "prod", &[1, 2]))).await;
    let is_read = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("walras_controlplane_known_objects{"));
        // Hosts and the data store.
        line.is_some_and(|line| line.ends_with(" 4"))
    };
    within("the first look", async {
        while !is_read(&running.meter.text().unwrap()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(shared.with(|cluster, _| cluster.get("namespaces", "", "walras-acme").is_none()));
    running.tell(Order::CaughtUp).await;
    running.reached(1, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gets_there_through_an_api_server_that_fails() {
    let all = |permille, harm| vec![("", "", permille, harm)];
    for (name, faults) in [
        ("conflicts", all(250, Harm::Refuse(409))),
        ("busy", all(100, Harm::Refuse(429))),
        ("errors", all(250, Harm::Refuse(500))),
        ("slow", all(300, Harm::Delay(40_000))),
        ("lost answers", all(250, Harm::LoseAnswer)),
        ("stale", vec![("", "list", 500, Harm::Stale(30)), ("", "watch", 100, Harm::DropWatch)]),
        ("broken watches", vec![("", "watch", 300, Harm::DropWatch), ("", "watch", 200, Harm::Expire)]),
    ] {
        let (shared, client) = start(4).await;
        harm(&shared, &faults);
        let mut running = Running::new(client);
        let mut ordered = plane("acme", "prod", &[1, 2]);
        running.order(&[(1, &ordered)]).await;
        running.reached(1, 1).await;
        running.tell(next(&mut ordered, |plane| plane.hosts = names(&[1, 3]))).await;
        running.reached(1, 2).await;
        eprintln!("{name}: carried out");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_as_ordered_wherever_it_crashes() {
    let (shared, client) = start(4).await;
    let (first, second) = (plane("acme", "prod", &[1, 2]), plane("b", "prod", &[3]));
    // Each start may write a little more than the one before, then it is gone.
    for writes in 0..24_u64 {
        let begun = shared.with(|cluster, _| cluster.store().version());
        let running = Running::new(client.clone());
        running.order(&[(1, &first), (2, &second)]).await;
        within("a few changes", async {
            while shared.with(|cluster, _| cluster.store().version()) < begun + writes {
                tokio::task::yield_now().await;
                let is_idle =
                    running.states.borrow().values().filter(|state| state.reached.is_some()).count() == 2;
                if is_idle {
                    break;
                }
            }
        })
        .await;
        running.crash();
    }
    let mut running = Running::new(client);
    running.order(&[(1, &first), (2, &second)]).await;
    running.reached(1, 1).await;
    running.reached(2, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_is_mended_and_what_cannot_be_is_said() {
    let (shared, client) = start(4).await;
    let mut running = Running::new(client.clone());
    let ordered = plane("acme", "prod", &[1, 2]);
    let lost = Plane { data_store: "nowhere".to_owned(), ..plane("acme", "lost", &[3]) };
    running.order(&[(1, &ordered), (2, &lost)]).await;
    running.reached(1, 1).await;
    running
        .until(2, "an unknown data store", |state| state.notes[0].reason == Reason::DataStoreUnknown)
        .await;
    let is_said = || {
        shared.with(|cluster, _| {
            let mut events = cluster.store().list("events", Some("walras-acme"));
            events.any(|(_, event)| {
                event["reason"] == "DataStoreUnknown" && event["involvedObject"]["name"] == "lost"
            })
        })
    };
    within("the announcement", async {
        while !is_said() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let path = Kind::Plane.path("walras-acme", "prod");
    let uid = || {
        shared.with(|cluster, _| {
            Some(cluster.get("tenantcontrolplanes", "walras-acme", "prod")?["metadata"]["uid"].clone())
        })
    };
    let before = uid();
    let delete = http::Request::delete(path).body(Vec::new()).unwrap();
    let _answer: Value = client.request(delete).await.unwrap();
    running.until(1, "its loss", |state| state.reached.is_none()).await;
    running.reached(1, 1).await;
    assert_ne!(uid(), before, "it was made again");
    shared.with(|cluster, now| cluster.control(now, Control::Kill("mgmt-4".to_owned()))).unwrap();
    running.stop().await;
}

#[test]
fn the_shipped_role_names_every_kind_that_is_read() {
    let role = include_str!("../../../deploy/kubernetes/controlplane.yaml");
    for kind in Kind::ALL {
        let (group, _, _, plural) = kind.names();
        let group = if group.is_empty() { "[\"\"]".to_owned() } else { format!("[{group}]") };
        let rules: Vec<&str> = role.split("- apiGroups: ").filter(|rule| rule.starts_with(&group)).collect();
        assert!(rules.iter().any(|rule| rule.contains(plural)), "{plural} of {group}");
    }
}

/// The same against a cluster that nobody here wrote, with Kamaji in it and a data store called `default`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_cluster_does_the_same() {
    let Some(kubeconfig) = std::env::var_os("KUBECONFIG") else {
        eprintln!("skipped: KUBECONFIG names no cluster with Kamaji to try this on");
        return;
    };
    let client = controlplane_service::client(Some(std::path::Path::new(&kubeconfig))).await.unwrap();
    let request = http::Request::get(Kind::Host.path("", "")).body(Vec::new()).unwrap();
    let hosts: Value = client.request(request).await.unwrap();
    let host = hosts["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let mut running = Running::new(client);
    let mut ordered = Plane { hosts: vec![host], ..plane("walras-test", "prod", &[1]) };
    running.order(&[(1, &ordered)]).await;
    running.reached(1, 1).await;
    running.tell(next(&mut ordered, |plane| (plane.replicas, plane.hosts) = (0, Vec::new()))).await;
    running.reached(1, 2).await;
    running.tell(next(&mut ordered, |plane| plane.deleted = true)).await;
    running.until(1, "the end", |state| state.phase == Phase::Gone).await;
    running.stop().await;
}
