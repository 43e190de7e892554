//! What lies under `deploy/` agrees with the code, and the tools that will read it accept it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::config::{Config, Sources, load};
use runtime::telemetry::{Kind, METRICS, PROCESS_METRICS};
use serde_json::{Value, json};

/// Names that Prometheus makes itself.
const FOREIGN: [&str; 1] = ["up"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&text("deploy/grafana/walras-market.json")).unwrap()
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    let targets = panels(dashboard).into_iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap()).collect()
}

/// Every name a scrape can show, with its labels.
fn exported() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut names = BTreeMap::new();
    for name in PROCESS_METRICS {
        let labels = if name == "walras_build_info" { vec!["version", "revision"] } else { vec![] };
        names.insert(name.to_owned(), labels.into_iter().collect());
    }
    for (_, metric) in METRICS {
        for service in metric.services {
            let name = metric.name(service);
            let labels: BTreeSet<&str> = metric.labels.iter().copied().collect();
            if let Kind::Histogram(_) = metric.kind {
                let mut with_bound = labels.clone();
                with_bound.insert("le");
                names.insert(format!("{name}_bucket"), with_bound);
                names.insert(format!("{name}_sum"), labels.clone());
                names.insert(format!("{name}_count"), labels);
            } else {
                names.insert(name, labels);
            }
        }
    }
    names
}

/// Metric names in a text, each with the label names selected on in the braces behind it.
fn named(text: &str) -> Vec<(String, Vec<String>)> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let end = rest[start..].find(|character| !is_word(character)).map_or(rest.len(), |end| start + end);
        let word = &rest[start..end];
        rest = &rest[end..];
        if !["walras_", "process_", "nats_"].iter().any(|prefix| word.starts_with(prefix)) {
            continue;
        }
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            for matcher in inside.0.split(',') {
                labels.push(matcher.split(['=', '!']).next().unwrap().trim().to_owned());
            }
        }
        found.push((word.to_owned(), labels));
    }
    found
}

#[test]
fn every_metric_named_in_dashboards_and_alerts_is_exported() {
    let exported = exported();
    let dashboard = dashboard();
    let mut texts: Vec<(&str, String)> =
        expressions(&dashboard).into_iter().map(|text| ("dashboard", text.to_owned())).collect();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    texts.extend(variables.map(|one| ("dashboard", one["query"]["query"].as_str().unwrap_or("").to_owned())));
    texts.push(("alerts", text("deploy/prometheus/alerts.yaml")));
    texts.push(("alert tests", text("deploy/prometheus/alerts_test.yaml")));
    texts.push(("nats readme", text("deploy/nats/README.md").replace("nats_url", "")));
    let mut seen = 0;
    for (place, text) in texts {
        for (name, labels) in named(&text) {
            // A file name, not a metric.
            if name.starts_with("nats_") || FOREIGN.contains(&name.as_str()) {
                continue;
            }
            let known = exported.get(&name).unwrap_or_else(|| panic!("{place}: {name} is not exported"));
            for label in labels {
                let is_known =
                    known.contains(label.as_str()) || ["job", "instance"].contains(&label.as_str());
                assert!(is_known, "{place}: {name} has no label {label}");
            }
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} names were found: the search is broken");
}

/// The text of every Rust file of the workspace's own crates.
fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && !["target", "tests", ".git"].iter().any(|skipped| name == *skipped) {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") && name != "metrics.rs" {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_metric_declared_is_used_by_the_code() {
    let mut code = String::new();
    sources(&root(), &mut code);
    let unused: Vec<&str> = METRICS
        .iter()
        .map(|(constant, _)| *constant)
        .filter(|constant| !code.contains(&format!("metrics::{constant})")))
        .filter(|constant| !code.contains(&format!("metrics::{constant},")))
        .collect();
    assert!(unused.is_empty(), "declared in telemetry::metrics and exported by nobody: {unused:?}");
}

#[test]
fn every_market_and_runner_metric_is_on_the_dashboard_or_alerted_on() {
    let dashboard = dashboard();
    let shown = expressions(&dashboard).join("\n") + &text("deploy/prometheus/alerts.yaml");
    let shown: BTreeSet<String> = named(&shown).into_iter().map(|(name, _)| name).collect();
    // What a person looks up when a panel above raises the question.
    let looked_up = ["walras_market_input_sequence", "walras_market_load_duration_seconds"];
    for (_, metric) in METRICS.iter().filter(|(_, metric)| metric.services.contains(&"market")) {
        let name = metric.name("market");
        let is_shown = shown.iter().any(|one| one == &name || one.starts_with(&format!("{name}_")));
        assert!(is_shown || looked_up.contains(&name.as_str()), "{name} is shown nowhere");
    }
}

/// The `- alert:` names and their runbook addresses, in order.
fn alerts() -> Vec<(String, String)> {
    let rules = text("deploy/prometheus/alerts.yaml");
    let value = |line: &str, key: &str| {
        line.trim().strip_prefix(key).map(|rest| rest.trim().trim_matches('"').to_owned())
    };
    let names = rules.lines().filter_map(|line| value(line, "- alert:"));
    let runbooks = rules.lines().filter_map(|line| value(line, "runbook_url:"));
    names.zip(runbooks).collect()
}

#[test]
fn every_alert_has_a_runbook_and_a_test() {
    let runbooks = text("docs/runbooks.md");
    let tests = text("deploy/prometheus/alerts_test.yaml");
    let mut sections: BTreeMap<&str, &str> = BTreeMap::new();
    for section in runbooks.split("\n## ").skip(1) {
        let (name, body) = section.split_once('\n').unwrap();
        sections.insert(name, body);
    }
    let alerts = alerts();
    assert!(alerts.len() > 20, "only {} alerts were found: the search is broken", alerts.len());
    for (name, address) in alerts {
        assert_eq!(address, format!("docs/runbooks.md#{}", name.to_lowercase()));
        let body = sections.remove(name.as_str()).unwrap_or_else(|| panic!("{name} has no runbook"));
        for part in ["Meaning", "Impact", "Diagnosis", "Mitigation"] {
            assert!(body.contains(&format!("- **{part}.** ")), "the runbook of {name} lacks {part}");
        }
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
    }
    assert!(sections.is_empty(), "runbooks without an alert: {:?}", sections.keys());
}

#[test]
fn the_dashboard_follows_the_conventions() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "walras-market");
    assert_eq!(dashboard["editable"], false);
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance", "stream", "market"]);
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is there twice");
        assert!(titles.insert(title), "{title} is there twice");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{title}: no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{title}: off the grid");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("job=~\"$job\", instance=~\"$instance\""), "{title}: {expression}");
            assert!(!expression.contains("rate(") || expression.contains("[$__rate_interval]"), "{title}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

/// Runs promtool in `deploy/prometheus`; `None` where it is not installed.
fn promtool(words: &[&str]) -> Option<(bool, String)> {
    let Ok(output) =
        Command::new("promtool").args(words).current_dir(root().join("deploy/prometheus")).output()
    else {
        println!("skipped: promtool is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), said.into_owned()))
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    for words in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts_test.yaml"],
        ["check", "config", "prometheus.yml"],
        ["check", "config", "compose.yml"],
    ] {
        let Some((accepted, said)) = promtool(&words) else { return };
        assert!(accepted, "{words:?}: {said}");
    }
}

#[test]
fn promtool_reads_every_expression_of_the_dashboard() {
    let dashboard = dashboard();
    let rules: Vec<Value> = expressions(&dashboard)
        .into_iter()
        .enumerate()
        .map(|(index, text)| {
            json!({ "record": format!("panel:{index}"), "expr": text.replace("$__rate_interval", "1m") })
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dashboard.yaml");
    // JSON is YAML.
    fs::write(&path, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string()).unwrap();
    let Some((accepted, said)) = promtool(&["check", "rules", path.to_str().unwrap()]) else { return };
    assert!(accepted, "{said}");
}

fn loaded(path: &str) -> Config {
    let sources = Sources { file: Some(root().join(path)), ..Sources::default() };
    load(&sources).unwrap_or_else(|error| panic!("{error}")).config
}

#[test]
fn the_shipped_configuration_and_catalogue_load() {
    let config = loaded("deploy/walras.toml");
    let exchange = config.market.exchanges.values().next().unwrap();
    assert_eq!(exchange.all_markets().count(), 30);
    let regions: BTreeSet<_> = exchange.all_markets().map(|market| market.region.clone()).collect();
    assert_eq!(regions.len(), 6);
    assert!(!config.demo.enabled);
}

#[test]
fn what_is_commented_out_in_the_shipped_configuration_would_load_too() {
    let key = || nkeys::KeyPair::new_user().public_key();
    let uncommented: Vec<String> = text("deploy/walras.toml")
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(code) if code.starts_with("[[") || code.contains(" = ") => {
                let code =
                    code.replace("\"A…\"", &format!("{:?}", nkeys::KeyPair::new_account().public_key()));
                code.replace("\"U…\"", &format!("{:?}", key())).replace('…', &"0".repeat(64))
            }
            _ => line.to_owned(),
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walras.toml");
    fs::write(&path, uncommented.join("\n")).unwrap();
    fs::copy(root().join("deploy/catalogue.toml"), folder.path().join("catalogue.toml")).unwrap();
    let config = load(&Sources { file: Some(path), ..Sources::default() }).unwrap().config;
    assert_eq!((config.tenants.len(), config.services.len(), config.storefronts.len()), (1, 1, 1));
    assert_eq!((config.hypervisors.len(), config.operators.len()), (1, 1));
    assert!(config.workers.listen.is_some() && config.access().authorization().is_some());
    nats_accepts(&config);
}

/// Has `nats-server` check our reference configuration with the accounts that follow from `config`.
fn nats_accepts(config: &Config) {
    let binary = std::env::var_os("WALRAS_NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("accounts.conf"), config.accounts_file().unwrap()).unwrap();
    let store = path("jetstream").display().to_string();
    let mut reference = text("deploy/nats/nats-server.conf").replace("/var/lib/nats/jetstream", &store);
    // There are no certificates to check here: take the blocks that name them out.
    while let Some(start) = reference.find("tls {") {
        let end = start + reference[start..].find('}').unwrap() + 1;
        reference.replace_range(start..end, "");
    }
    assert!(reference.contains("sync_interval: always"));
    fs::write(path("nats-server.conf"), reference).unwrap();
    match Command::new(&binary).arg("-t").arg("-c").arg(path("nats-server.conf")).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            assert!(std::env::var_os("WALRAS_REQUIRE_NATS").is_none(), "{}: {error}", binary.display());
            println!("skipped: nats-server is not installed");
        }
    }
}
