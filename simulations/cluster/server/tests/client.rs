//! A client of Kubernetes that others wrote (kube) against the cluster over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers of tests"
)]

use std::sync::Arc;
use std::time::Duration;

use cluster::fault::{Fault, Harm};
use cluster::{Control, Settings};
use cluster_server::{CONTROL_PATH, Shared, serve};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, Error};
use serde_json::{Value, json};

/// How long something may take that ends by itself.
const PATIENCE: Duration = Duration::from_mins(1);

async fn start() -> (Arc<Shared>, Client) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let settings = Settings {
        base_url: url.clone(),
        pod_start_micros: 50_000,
        pod_stop_micros: 50_000,
        ..Settings::default()
    };
    let shared = Shared::new(settings);
    shared.with(|cluster, now| cluster.furnish(now, 3));
    tokio::spawn(serve(listener, Arc::clone(&shared)));
    // Otherwise the client itself asks again for a minute when it is refused with 429.
    let mut config = Config::new(url.parse().unwrap());
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let namespace: Namespace = from(json!({ "metadata": { "name": "t" } }));
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    (shared, client)
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn map(name: &str, value: &str) -> ConfigMap {
    from(
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "x": value } }),
    )
}

fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reflector_follows_through_broken_watches_and_gone_versions() {
    let (shared, client) = start().await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "t");
    for strategy in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let (reader, writer) = reflector::store();
        let stream =
            reflector::reflector(writer, watcher(maps.clone(), strategy)).default_backoff().touched_objects();
        let follower = tokio::spawn(stream.for_each(|_| std::future::ready(())));
        within("the first list", reader.wait_until_ready()).await.unwrap();
        let control = |control| shared.with(|cluster, now| cluster.control(now, control)).unwrap();
        for (round, fault) in [None, Some(Harm::DropWatch), Some(Harm::Expire), None].into_iter().enumerate()
        {
            let faults = fault.into_iter().map(|harm| Fault {
                kind: "configmaps".into(),
                verb: "watch".into(),
                permille: 1_000,
                times: 1,
                harm,
            });
            control(Control::Faults(faults.collect()));
            if round == 3 {
                // Nobody who breaks off now can go on where it was.
                control(Control::DropWatches);
                maps.create(&PostParams::default(), &map("late", "0")).await.unwrap();
                control(Control::Compact);
            }
            let name = format!("a{round}");
            maps.create(&PostParams::default(), &map(&name, "1")).await.unwrap();
            maps.patch(&name, &PatchParams::default(), &Patch::Merge(json!({ "data": { "x": "2" } })))
                .await
                .unwrap();
            let there = || {
                let found = reader.state().into_iter().find(|one| one.metadata.name.as_ref() == Some(&name));
                found.is_some_and(|one| one.data.as_ref().is_some_and(|data| data["x"] == "2"))
            };
            within("the change", async {
                while !there() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        control(Control::Faults(Vec::new()));
        maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        within("the end of all", async {
            while !reader.state().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        follower.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appliers_conflict_and_writers_meet() {
    let (_shared, client) = start().await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "t");
    let apply = |manager: &str, value: &str, force: bool| {
        let mut parameters = PatchParams::apply(manager);
        parameters.force = force;
        let (maps, object) = (maps.clone(), map("a", value));
        async move { maps.patch("a", &parameters, &Patch::Apply(&object)).await }
    };
    let first = apply("one", "1", false).await.unwrap();
    assert_eq!(apply("one", "1", false).await.unwrap(), first);
    assert_eq!(code(&apply("two", "2", false).await.unwrap_err()), 409);
    let forced = apply("two", "2", true).await.unwrap();
    assert_eq!(forced.data.as_ref().unwrap()["x"], "2");
    assert_eq!(
        code(&maps.replace("a", &PostParams::default(), &first).await.unwrap_err()),
        409,
        "its version is old"
    );
    assert_eq!(code(&maps.create(&PostParams::default(), &map("a", "1")).await.unwrap_err()), 409);
    let chunks = ListParams::default().limit(1);
    maps.create(&PostParams::default(), &map("b", "1")).await.unwrap();
    let piece = maps.list(&chunks).await.unwrap();
    assert_eq!((piece.items.len(), piece.metadata.remaining_item_count), (1, Some(1)));
    let next = maps.list(&chunks.continue_token(&piece.metadata.continue_.unwrap())).await.unwrap();
    assert_eq!(next.items[0].metadata.name.as_deref(), Some("b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evictions_are_refused_while_the_budget_is_spent() {
    let (_shared, client) = start().await;
    let template = json!({ "metadata": { "labels": { "a": "1" } }, "spec": { "containers": [{ "name": "c", "image": "i:1" }] } });
    let deployment: Deployment = from(json!({ "metadata": { "name": "d" },
        "spec": { "replicas": 2, "selector": { "matchLabels": { "a": "1" } }, "template": template } }));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "t");
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let budget: PodDisruptionBudget = from(
        json!({ "metadata": { "name": "d" }, "spec": { "minAvailable": 1, "selector": { "matchLabels": { "a": "1" } } } }),
    );
    Api::namespaced(client.clone(), "t").create(&PostParams::default(), &budget).await.unwrap();
    let ready = |deployments: Api<Deployment>| async move {
        while deployments.get_status("d").await.unwrap().status.and_then(|status| status.ready_replicas)
            != Some(2)
        {
            tokio::task::yield_now().await;
        }
    };
    within("two pods", ready(deployments.clone())).await;
    let pods: Api<Pod> = Api::namespaced(client, "t");
    let names: Vec<_> = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .map(|pod| pod.metadata.name.unwrap())
        .collect();
    // Nothing can replace it until a host takes pods again.
    let hosts: Api<Node> = Api::all(pods.clone().into_client());
    let cordon = |off: bool| {
        let hosts = hosts.clone();
        async move {
            for number in 1..=3 {
                let patch = Patch::Merge(json!({ "spec": { "unschedulable": off } }));
                hosts.patch(&format!("mgmt-{number}"), &PatchParams::default(), &patch).await.unwrap();
            }
        }
    };
    cordon(true).await;
    pods.evict(&names[0], &EvictParams::default()).await.unwrap();
    assert_eq!(code(&pods.evict(&names[1], &EvictParams::default()).await.unwrap_err()), 429);
    cordon(false).await;
    within("the replacement", async {
        while pods.evict(&names[1], &EvictParams::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within("two pods again", ready(deployments)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_reach_clients() {
    let (shared, client) = start().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "t");
    // As the outside orders them, over HTTP.
    let faults = json!({ "faults": [
        { "kind": "configmaps", "verb": "create", "times": 1, "harm": { "refuse": 500 } },
        { "kind": "configmaps", "verb": "create", "times": 2, "harm": "lose_answer" },
    ] });
    let order = http::Request::post(CONTROL_PATH).body(faults.to_string().into_bytes()).unwrap();
    assert_eq!(client.request_text(order).await.unwrap(), "done\n");
    assert_eq!(code(&maps.create(&PostParams::default(), &map("a", "1")).await.unwrap_err()), 500);
    assert!(!matches!(maps.create(&PostParams::default(), &map("a", "1")).await.unwrap_err(), Error::Api(_)));
    assert_eq!(maps.get("a").await.unwrap().data.unwrap()["x"], "1", "carried out all the same");
    let wrong = http::Request::post(CONTROL_PATH).body(b"{\"sink\":1}".to_vec()).unwrap();
    assert!(client.request_text(wrong).await.is_err());
    shared.stop();
}
