//! A cluster from its wish to its end, by command and by `kubectl`'s means.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::kubernetes::Api;
use super::process::{Walras, until};

const CONFIGURATION: &str = r#"
[market.exchanges.main]
markets = [{ region = "oak", class = "gp.small", reserve = "0.002" }]

[gateway]
requests_per_second = 50
burst = 400
"#;

fn command(walras: &Walras, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walras"));
    command.args(arguments).args(["--url", walras.told("gateway_url"), "--token-file"]);
    let output = command.arg(walras.token_file("wonka")).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A cluster of the tenant as the gateway shows it.
fn shown(walras: &Walras, cluster: &str) -> Value {
    walras.ask("wonka", "GET", &format!("/v1/clusters/{cluster}"), &Value::Null).json()
}

#[test]
fn a_cluster_lives_where_placement_wants_it_and_leaves_nothing_behind() {
    let Some(walras) = Walras::start_as(CONFIGURATION) else { return };
    let api = Api::of_file(walras.kubeconfig("main"));
    let before = leftovers(&api);
    command(&walras, &["cluster", "create", "prod", "--version", "v1.35.0", "--region", "oak"]).unwrap();
    let ready = until(|| Some(shown(&walras, "prod")).filter(|shown| shown["state"] == "ready"));
    assert_eq!((&ready["ready"], &ready["served"]), (&json!(2), &json!("v1.35.0")));
    let plane = api.planes().remove("prod").unwrap();
    assert_eq!(plane["status"]["kubernetesResources"]["version"]["status"], "Ready");
    let hosts = api.ready_on().remove("prod").unwrap();
    assert_eq!(hosts.len(), 2, "on two hosts");
    let zones: BTreeSet<String> = hosts.iter().map(|host| zone(&api, host)).collect();
    assert_eq!(zones.len(), 2, "in two zones");

    kubeconfig(&walras, &api);

    let change = json!({ "version": 1, "terms": { "regions": ["oak"], "version": "v1.36.0" } });
    assert_eq!(walras.ask("wonka", "PATCH", "/v1/clusters/prod", &change).status, 200);
    until(|| (shown(&walras, "prod")["served"] == "v1.36.0").then_some(()));
    until(|| (shown(&walras, "prod")["state"] == "ready").then_some(()));

    command(&walras, &["cluster", "delete", "prod"]).unwrap();
    until(|| (walras.ask("wonka", "GET", "/v1/clusters/prod", &Value::Null).status == 404).then_some(()));
    until(|| (leftovers(&api) == before).then_some(()));
    let refused = command(&walras, &["cluster", "kubeconfig", "prod"]).unwrap_err();
    assert!(refused.contains("prod"), "{refused}");
}

fn zone(api: &Api, host: &str) -> String {
    let node = api.get(&format!("/api/v1/nodes/{host}"));
    node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str().unwrap().to_owned()
}

/// The kubeconfig leads its tenant, and nobody else, into the cluster; it is nowhere in the journal.
fn kubeconfig(walras: &Walras, api: &Api) {
    let text = command(walras, &["cluster", "kubeconfig", "prod"]).unwrap();
    let kubeconfig: Value = serde_json::from_str(&text).unwrap();
    let namespaces = Api::of(&kubeconfig).get("/api/v1/namespaces");
    assert_eq!(namespaces["kind"], "NamespaceList");
    let path = "/v1/clusters/prod/kubeconfig";
    let answered = walras.ask("wonka", "GET", path, &Value::Null);
    assert_eq!((answered.status, answered.header("cache-control")), (200, "no-store"));
    assert_eq!(walras.ask("acme", "GET", path, &Value::Null).status, 404, "another tenant's is as none");
    assert_eq!(walras.ask("", "GET", path, &Value::Null).status, 401);
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str().unwrap().as_bytes();
    for file in walras.files() {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let found = bytes.windows(server.len()).any(|window| window == server);
        assert!(!found, "{} holds it", file.display());
    }
    assert!(!api.get("/api/v1/namespaces/walras-wonka/secrets/prod-admin-kubeconfig").is_null());
}

/// What a plane may leave behind.
fn leftovers(api: &Api) -> Vec<String> {
    let mut left = Vec::new();
    for path in [
        "/api/v1/namespaces",
        "/api/v1/pods",
        "/api/v1/secrets",
        "/api/v1/services",
        "/api/v1/serviceaccounts",
        "/api/v1/resourcequotas",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
        "/apis/policy/v1/poddisruptionbudgets",
        "/apis/networking.k8s.io/v1/networkpolicies",
        "/apis/rbac.authorization.k8s.io/v1/roles",
        "/apis/rbac.authorization.k8s.io/v1/rolebindings",
        "/apis/kamaji.clastix.io/v1alpha1/tenantcontrolplanes",
    ] {
        let listed = api.get(path);
        let items = listed["items"].as_array().unwrap_or_else(|| panic!("{path}: {listed}"));
        left.extend(items.iter().map(|item| {
            let metadata = &item["metadata"];
            format!("{path} {} {}", metadata["namespace"], metadata["name"])
        }));
    }
    left
}
