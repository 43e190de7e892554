//! A tenant's clusters over HTTP, by command, and what a hypervisor's notice means for them.

use std::process::Command;

use placement::machine::{ClusterView, ClustersView, PlaneState};
use proto::placement::RiskReason;
use serde_json::{Value, json};

use super::process::{Walras, until};
use super::refusals::check_problem;

fn terms(version: &str) -> Value {
    json!({"availability": "single", "regions": ["oak"], "version": version})
}

fn cluster(walras: &Walras, method: &str, path: &str, body: &Value, status: u16) -> ClusterView {
    let answered = walras.ask("wonka", method, path, body);
    assert_eq!(answered.status, status, "{}", answered.text);
    serde_json::from_str(&answered.text).unwrap_or_else(|error| panic!("{error}: {}", answered.text))
}

/// The site has one host of the hypervisor's, and one data store with room for two small planes.
pub(crate) fn clusters(walras: &Walras) {
    let create = |id: &str, name: &str, terms: Value| json!({"id": id, "cluster": name, "terms": terms});
    let dev = create("k1", "dev", terms("v1.35.0"));
    let made = cluster(walras, "POST", "/v1/clusters", &dev, 201);
    assert_eq!((made.state, made.replicas, made.version), (PlaneState::Creating, 1, 1));
    assert_eq!((made.size.as_str(), made.data_store.as_str(), made.at_risk), ("small", "sql", None));
    let again = cluster(walras, "POST", "/v1/clusters", &dev, 201);
    assert_eq!(again, made, "a request repeated has no further effect");
    // Two replicas want two hosts.
    let high = json!({"regions": ["oak"], "version": "v1.35.0"});
    let made = cluster(walras, "POST", "/v1/clusters", &create("k2", "prod", high), 201);
    assert_eq!((made.replicas, made.at_risk), (2, Some(RiskReason::Full)));
    refused(walras, &create);
    let answered = walras.ask("wonka", "GET", "/v1/clusters", &Value::Null);
    let all: ClustersView = serde_json::from_str(&answered.text).unwrap();
    assert_eq!(all.clusters.iter().map(|one| one.cluster.as_str()).collect::<Vec<_>>(), ["dev", "prod"]);
    let path = "/v1/clusters/dev";
    let change = json!({"version": 1, "terms": terms("v1.36.0")});
    assert_eq!(cluster(walras, "PATCH", path, &change, 200).version, 2);
    cluster(walras, "POST", "/v1/clusters/dev/wake", &Value::Null, 200);
    by_command(walras);
    leaving(walras);
    let gone = cluster(walras, "DELETE", "/v1/clusters/prod?id=k9", &Value::Null, 200);
    assert_eq!(gone.state, PlaneState::Deleting);
    until(|| {
        let planes = walras.metric("walras_placement_planes", &["stream=\"main\""]);
        (1.5..2.5).contains(&planes).then_some(())
    });
}

fn refused(walras: &Walras, create: &dyn Fn(&str, &str, Value) -> Value) {
    let with = |field: &str, value: Value| {
        let mut terms = terms("v1.35.0");
        terms[field] = value;
        terms
    };
    let bad: [(Value, u16, &str, &str, &str); 7] = [
        (create("k3", "dev", terms("v1.35.0")), 422, "duplicate", "cluster", "dev"),
        (create("k1", "other", terms("v1.35.0")), 409, "id-reused", "id", "k1"),
        (create("k4", "x", terms("v1.99.0")), 422, "out-of-range", "terms.version", "v1.99.0"),
        (create("k5", "x", terms("1.35")), 400, "malformed", "terms.version", "\"1.35\""),
        (create("k6", "x", with("data_store", json!("none"))), 404, "unknown", "terms.data_store", "none"),
        (create("k7", "x", with("colour", json!("red"))), 400, "malformed", "terms.colour", "\"red\""),
        (create("k8", "x", terms("v1.35.0")), 429, "limit-reached", "terms.driver", "any driver"),
    ];
    for (body, status, kind, field, value) in bad {
        let answered = walras.ask("wonka", "POST", "/v1/clusters", &body);
        check_problem(&answered, status, kind, field, value)
            .unwrap_or_else(|wrong| panic!("{body}: {wrong}"));
    }
    // Another tenant's cluster is as unknown as none.
    let foreign = walras.ask("acme", "GET", "/v1/clusters/dev", &Value::Null);
    check_problem(&foreign, 404, "unknown", "cluster", "dev").unwrap();
    let foreign = walras.ask("acme", "DELETE", "/v1/clusters/dev", &Value::Null);
    check_problem(&foreign, 404, "unknown", "cluster", "dev").unwrap();
    let nowhere = walras.ask("wonka", "GET", "/v1/clusters?site=none", &Value::Null);
    check_problem(&nowhere, 404, "unknown", "site", "none").unwrap();
}

fn by_command(walras: &Walras) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walras"));
    command.args(["cluster", "list", "--url", walras.told("gateway_url"), "--token-file"]);
    let output = command.arg(walras.token_file("wonka")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let dev = text.lines().find(|line| line.starts_with("dev ")).unwrap_or_else(|| panic!("{text}"));
    assert!(dev.contains("creating") && dev.contains("v1.36.0") && dev.contains("sql"), "{dev}");
}

/// The only host goes: nothing is left for the plane on it.
fn leaving(walras: &Walras) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let notice =
        json!({"type": "NoticeHost", "id": "n1", "host": "host-1", "gone_at": "2100-01-01T00:00:00Z"});
    let foreign =
        json!({"type": "NoticeHost", "id": "n2", "host": "host-2", "gone_at": "2100-01-01T00:00:00Z"});
    let told = runtime.block_on(async {
        let mut hypervisor = walras.bus("hypervisor").await.with_placement();
        let commands = json!({"commands": [notice, foreign]});
        hypervisor.say(serde_json::to_vec(&commands).unwrap(), 2).await
    });
    assert_eq!((&told[0]["type"], &told[1]["type"]), (&json!("Accepted"), &json!("Refused")), "{told:?}");
    assert_eq!(told[1]["field"], "host");
    until(|| {
        let dev = cluster(walras, "GET", "/v1/clusters/dev", &Value::Null, 200);
        (dev.at_risk == Some(RiskReason::NoHosts)).then_some(())
    });
}
