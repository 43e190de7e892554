//! Planes are looked at: workers are counted, and one that is slow for a while is moved.

use serde_json::{Value, json};

use super::kubernetes::Api;
use super::process::{Walras, until};

const CONFIGURATION: &str = r#"
[market.exchanges.main]
markets = [{ region = "oak", class = "gp.small", reserve = "0.002" }]

[placement.sites.main]
rules = { slow_seconds = 1 }

[controlplane.sites.main]
look_seconds = 1

[gateway]
requests_per_second = 500
burst = 1000
"#;

#[test]
fn workers_are_counted_and_slow_planes_are_moved() {
    let Some(walras) = Walras::start_as(CONFIGURATION) else { return };
    let api = Api::of_file(walras.kubeconfig("main"));
    let terms = json!({ "regions": ["oak"], "version": "v1.35.0", "availability": "single" });
    let made = walras.ask("wonka", "POST", "/v1/clusters", &json!({ "cluster": "prod", "terms": terms }));
    assert_eq!(made.status, 201, "{}", made.text);
    let shown = || walras.ask("wonka", "GET", "/v1/clusters/prod", &Value::Null).json();
    until(|| (shown()["state"] == "ready").then_some(()));

    let answered = walras.ask("wonka", "GET", "/v1/clusters/prod/kubeconfig", &Value::Null).json();
    let inside: Value = serde_json::from_str(answered["kubeconfig"].as_str().unwrap()).unwrap();
    let inside = Api::of(&inside);
    for name in ["w1", "w2"] {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
        inside.make("/api/v1/nodes", &node);
    }
    until(|| (shown()["workers"] == 2).then_some(()));
    // Workers come and go, and nothing of the plane changes.
    let written = api.planes()["prod"]["metadata"]["generation"].clone();
    inside.end("/api/v1/nodes/w1");
    until(|| (shown()["workers"] == 1).then_some(()));
    assert_eq!(api.planes()["prod"]["metadata"]["generation"], written);

    let before = api.ready_on();
    // One host grows: there is more room on it than anywhere else.
    let nodes = api.get("/api/v1/nodes");
    let names =
        nodes["items"].as_array().unwrap().iter().map(|node| node["metadata"]["name"].as_str().unwrap());
    let roomy = names.into_iter().find(|name| !before["prod"].contains(*name)).unwrap().to_owned();
    let grown = json!({ "status": { "allocatable": { "cpu": "64", "memory": "256Gi" } } });
    api.merge(&format!("/api/v1/nodes/{roomy}/status"), &grown);
    let pace = |micros: u64| {
        json!({ "pace": { "namespace": "walras-wonka", "name": "prod", "api_micros": micros,
            "commit_micros": 2_000, "controller_micros": 800 } })
    };
    api.control(&pace(3_000_000));
    until(|| {
        let now = api.ready_on();
        (now["prod"].len() == 1 && now["prod"].contains(&roomy)).then_some(())
    });
    api.control(&pace(4_000));
    until(|| (walras.metric("walras_placement_slow_planes", &[]) == 0.0).then_some(()));
    until(|| (shown()["state"] == "ready").then_some(()));
    assert!(walras.metric("walras_controlplane_plane_api_latency_seconds_count", &[]) > 0.0);
}
