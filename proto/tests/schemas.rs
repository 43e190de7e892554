//! The committed schemas are what the code says, and say what the code does.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests fail like tests

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proto::schema::documents;
use proto::{Role, Sender, subject};
use serde_json::Value;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn is_update() -> bool {
    std::env::var_os("WALRAS_UPDATE").is_some_and(|value| value == "1")
}

#[test]
fn committed_schemas_are_up_to_date() {
    let documents = documents();
    if is_update() {
        fs::create_dir_all(folder()).unwrap();
    }
    for (name, text) in &documents {
        let path = folder().join(&**name);
        if is_update() {
            fs::write(&path, text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == *text,
            "proto/schemas/{name} is not what the code says; run WALRAS_UPDATE=1 cargo test -p proto and commit"
        );
    }
    let known: BTreeSet<String> = documents.iter().map(|(name, _)| name.to_string()).collect();
    for file in fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "proto/schemas/{name} belongs to no message; delete it");
    }
}

/// Follows every `$ref` of a document: within it, or to another document.
fn check_references(here: &str, value: &Value, all: &BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                let (file, pointer) = match target.split_once('#') {
                    Some(("", pointer)) => (here, pointer),
                    Some((file, pointer)) => (file.trim_start_matches("./"), pointer),
                    None => (target.trim_start_matches("./"), ""),
                };
                let found = all.get(file).and_then(|document| document.pointer(pointer));
                assert!(found.is_some(), "{here}: {target} leads nowhere");
            }
            fields.values().for_each(|field| check_references(here, field, all));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(here, item, all)),
        _ => {}
    }
}

fn parsed() -> BTreeMap<String, Value> {
    let parse = |text: &str| serde_json::from_str(text).unwrap();
    documents().into_iter().map(|(name, text)| (name.into_owned(), parse(&text))).collect()
}

#[test]
fn every_reference_leads_somewhere() {
    let all = parsed();
    for (name, document) in &all {
        check_references(name, document, &all);
    }
}

#[test]
fn channels_are_the_subjects_of_the_bus() {
    let all = parsed();
    let address = |channel: &str| {
        let address = all["asyncapi.json"]["channels"][channel]["address"].as_str().unwrap();
        let parameters = all["asyncapi.json"]["channels"][channel]["parameters"].as_object().unwrap();
        let mut filled = address.to_owned();
        for (parameter, value) in [
            ("machine", "market"),
            ("stream", "main"),
            ("role", "storefront"),
            ("principal", "s1"),
            ("exchange", "main"),
            ("question", "state"),
            ("region", "dfw"),
            ("class", "gp.large"),
        ] {
            let hole = format!("{{{parameter}}}");
            assert_eq!(parameters.contains_key(parameter), filled.contains(&hole), "{channel}: {parameter}");
            filled = filled.replace(&hole, value);
        }
        assert!(!filled.contains(['{', '}']), "{channel}: {filled}");
        filled
    };
    let stream = "main".parse().unwrap();
    let sender = Sender { role: Role::Storefront, principal: "s1".parse().unwrap() };
    assert_eq!(address("command"), subject::command("market", &stream, &sender));
    assert_eq!(address("event"), subject::events("market", &stream));
    assert_eq!(address("answer"), subject::answer(&sender.principal));
    assert_eq!(address("query"), subject::query("market", &stream, "state"));
    assert_eq!(address("price"), subject::price(&stream, &"dfw/gp.large".parse().unwrap()));
}

#[test]
fn commands_refuse_unknown_fields_in_their_schema_too() {
    let all = parsed();
    let variants = all["market-command.schema.json"]["oneOf"].as_array().unwrap();
    assert_eq!(variants.len(), 12);
    for variant in variants {
        assert_eq!(variant["additionalProperties"], Value::Bool(false), "{}", variant["properties"]["type"]);
    }
}
