//! A host that carries many planes gives notice, another dies without a word.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::Timestamp;
use serde_json::{Value, json};

use super::kubernetes::{Api, Endpoints};
use super::process::{Walras, until_within};

/// Many moves at once.
const CONFIGURATION: &str = r#"
[market.exchanges.main]
markets = [{ region = "oak", class = "gp.small", reserve = "0.002" }]

[placement.sites.main]
rules = { moves_max = 16 }

[gateway]
requests_per_second = 500
burst = 1000
"#;
/// Planes of two replicas: six hosts hold them all, with their reserve, when one has left and another has died.
const PLANES: usize = 40;
/// How long the host has left, in seconds.
const NOTICE_SECONDS: u32 = 300;
/// How long a part of this may take.
const PATIENCE: Duration = Duration::from_mins(4);

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(since.as_micros() as i64)
}

fn states(walras: &Walras) -> BTreeMap<String, usize> {
    let listed = walras.ask("wonka", "GET", "/v1/clusters", &Value::Null).json();
    let mut states = BTreeMap::new();
    // Who asks this often may be told to come again.
    for cluster in listed["clusters"].as_array().into_iter().flatten() {
        *states.entry(cluster["state"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    states
}

fn all_ready(walras: &Walras, planes: usize) -> Option<()> {
    (states(walras).get("ready") == Some(&planes)).then_some(())
}

/// The host that carries most planes, and how many.
fn fullest(api: &Api) -> (String, usize) {
    let mut counts = BTreeMap::new();
    for host in api.ready_on().into_values().flatten() {
        *counts.entry(host).or_insert(0) += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).unwrap()
}

/// Asks for planes of two replicas and waits until all are ready.
fn make(walras: &Walras, planes: usize) {
    for number in 0..planes {
        let body = json!({ "cluster": format!("c{number}"),
            "terms": { "regions": ["oak"], "version": "v1.35.0" } });
        let made = walras.ask("wonka", "POST", "/v1/clusters", &body);
        assert_eq!(made.status, 201, "{}", made.text);
    }
    until_within(PATIENCE, || all_ready(walras, planes));
}

fn give_notice(api: &Api, host: &str, gone_at: Timestamp) {
    let notice = json!({ "metadata": { "annotations": { "walras.dev/gone-at": gone_at } } });
    api.merge(&format!("/api/v1/nodes/{host}"), &notice);
}

fn is_left(api: &Api, host: &str) -> Option<()> {
    api.ready_on().values().all(|hosts| hosts.len() == 2 && !hosts.contains(host)).then_some(())
}

/// Both hosts of a plane at once, one of them within twenty seconds; the same notice twice; one that is late; one whose
/// instant has passed.
#[test]
fn short_overlapping_repeated_and_past_notices_leave_every_plane_with_an_endpoint() {
    let Some(walras) = Walras::start_as(CONFIGURATION) else { return };
    let api = Api::of_file(walras.kubeconfig("main"));
    make(&walras, 4);
    let endpoints = Endpoints::watch(&api);
    let hosts: Vec<String> = api.ready_on()["c0"].iter().cloned().collect();
    give_notice(&api, &hosts[0], now().plus_seconds(20));
    give_notice(&api, &hosts[1], now().plus_seconds(120));
    // What is said again, or later than it stands, changes nothing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut operator = walras.bus("operator").await.with_placement();
        for id in ["again", "late"] {
            let notice = json!({ "type": "NoticeHost", "id": id, "host": hosts[1],
                "gone_at": now().plus_seconds(240) });
            let told = operator.say(serde_json::to_vec(&notice).unwrap(), 1).await;
            assert_eq!(told[0]["type"], "Accepted", "{told:?}");
        }
    });
    for host in &hosts {
        until_within(PATIENCE, || is_left(&api, host));
    }
    until_within(PATIENCE, || all_ready(&walras, 4));
    let (third, _) = fullest(&api);
    give_notice(&api, &third, now().plus_micros(-60_000_000));
    until_within(PATIENCE, || is_left(&api, &third));
    until_within(PATIENCE, || all_ready(&walras, 4));
    let fewest = endpoints.fewest();
    assert!(fewest.values().all(|fewest| *fewest >= 1), "a plane had no endpoint: {fewest:?}");
}

#[test]
fn planes_leave_a_host_before_it_goes_and_outlive_one_that_dies() {
    let Some(walras) = Walras::start_as(CONFIGURATION) else { return };
    let api = Api::of_file(walras.kubeconfig("main"));
    make(&walras, PLANES);
    let (host, carried) = fullest(&api);
    let endpoints = Endpoints::watch(&api);
    let untouched: BTreeMap<String, Value> =
        api.planes().into_iter().filter(|(name, _)| !api.ready_on()[name].contains(&host)).collect();

    let gone_at = now().plus_seconds(NOTICE_SECONDS);
    give_notice(&api, &host, gone_at);
    until_within(PATIENCE, || api.ready_on().values().all(|hosts| !hosts.contains(&host)).then_some(()));
    until_within(PATIENCE, || all_ready(&walras, PLANES));
    assert!(now() < gone_at, "{carried} planes took longer than the notice");
    let fewest = endpoints.fewest();
    assert!(fewest.values().all(|fewest| *fewest >= 1), "a plane had no endpoint: {fewest:?}");
    let after = api.planes();
    for (name, before) in untouched {
        let version = |plane: &Value| plane["metadata"]["generation"].clone();
        assert_eq!(version(&after[&name]), version(&before), "{name} was not on the host");
    }

    // Another dies without a word: each plane keeps its other replica, and gets a second one again.
    let (host, _) = fullest(&api);
    api.control(&json!({ "kill": host }));
    until_within(PATIENCE, || {
        let ready = api.ready_on();
        ready.values().all(|hosts| hosts.len() == 2 && !hosts.contains(&host)).then_some(())
    });
    until_within(PATIENCE, || all_ready(&walras, PLANES));
    let fewest = endpoints.fewest();
    assert!(fewest.values().all(|fewest| *fewest >= 1), "a plane had no endpoint: {fewest:?}");
}
