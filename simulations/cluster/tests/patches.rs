//! Patches and selectors, as examples: what stands there, the patch, what comes out.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers of tests"
)]

use cluster::patch;
use cluster::selector::Selector;
use cluster::shape::{POD, SERVICE};
use serde_json::{Value, json};

#[test]
fn merge_patches_as_in_rfc_7386() {
    for (value, change, expected) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        let mut value = value;
        patch::merge(&mut value, &change);
        assert_eq!(value, expected);
    }
}

#[test]
fn json_patches_as_in_rfc_6902() {
    for (value, change, expected) in [
        (
            json!({"a": [1, 3]}),
            json!([{"op": "add", "path": "/a/1", "value": 2}]),
            Some(json!({"a": [1, 2, 3]})),
        ),
        (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), Some(json!({"a": [1, 2]}))),
        (json!({"a": 1}), json!([{"op": "remove", "path": "/a"}]), Some(json!({}))),
        (json!({"a/b": 1}), json!([{"op": "replace", "path": "/a~1b", "value": 2}]), Some(json!({"a/b": 2}))),
        (json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), Some(json!({"b": 1}))),
        (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), Some(json!({"a": 1, "b": 1}))),
        (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), None),
        (json!({"a": 1}), json!([{"op": "remove", "path": "/b"}]), None),
        (json!({"a": [1]}), json!([{"op": "add", "path": "/a/5", "value": 2}]), None),
        (json!({"a": 1}), json!([{"op": "grow", "path": "/a"}]), None),
        (json!({"a": 1}), json!({"a": 2}), None),
    ] {
        let mut value = value;
        let done = patch::json(&mut value, &change).is_ok();
        assert_eq!(done.then_some(value), expected, "{change}");
    }
}

#[test]
fn strategic_patches_merge_lists_by_their_keys() {
    let pod = |containers: Value| json!({ "spec": { "containers": containers } });
    for (value, change, expected) in [
        (
            pod(json!([{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]}, {"name": "b"}])),
            pod(json!([{"name": "a", "env": [{"name": "y", "value": "2"}]}])),
            pod(
                json!([{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}, {"name": "y", "value": "2"}]}, {"name": "b"}]),
            ),
        ),
        (
            pod(json!([{"name": "a"}, {"name": "b"}])),
            pod(json!([{"name": "a", "$patch": "delete"}])),
            pod(json!([{"name": "b"}])),
        ),
        (
            pod(json!([{"name": "a"}])),
            json!({ "spec": { "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b"}] } }),
            pod(json!([{"name": "b"}, {"name": "a"}])),
        ),
        (
            json!({ "spec": { "nodeSelector": {"a": "1"}, "restartPolicy": "Always" } }),
            json!({ "spec": { "nodeSelector": {"b": "2"}, "restartPolicy": null } }),
            json!({ "spec": { "nodeSelector": {"b": "2"} } }),
        ),
        (
            json!({ "metadata": { "finalizers": ["a", "b"] } }),
            json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"] } }),
            json!({ "metadata": { "finalizers": ["b", "c"] } }),
        ),
        (
            json!({ "metadata": { "labels": {"a": "1"} } }),
            json!({ "metadata": { "labels": {"$patch": "replace", "b": "2"} } }),
            json!({ "metadata": { "labels": {"b": "2"} } }),
        ),
    ] {
        let mut value = value;
        patch::strategic(&mut value, &change, &POD).unwrap();
        assert_eq!(value, expected, "{change}");
    }
    let mut service = json!({ "spec": { "ports": [{"port": 80, "name": "a"}] } });
    patch::strategic(&mut service, &json!({ "spec": { "ports": [{"port": 80, "nodePort": 3}] } }), &SERVICE)
        .unwrap();
    assert_eq!(service["spec"]["ports"], json!([{"port": 80, "name": "a", "nodePort": 3}]));
    let lost = json!({ "spec": { "ports": [{"nodePort": 3}] } });
    assert!(patch::strategic(&mut service, &lost, &SERVICE).is_err());
}

#[test]
fn selectors_choose_by_labels() {
    let object = json!({ "metadata": { "labels": { "app": "web", "tier": "2" } } });
    for (written, expected) in [
        ("app=web", true),
        ("app==web,tier!=1", true),
        ("app in (db, web)", true),
        ("app notin (web)", false),
        ("!zone,tier", true),
        ("zone", false),
        ("zone!=a", true),
        ("", true),
    ] {
        assert_eq!(Selector::parse(written).unwrap().selects(&object), expected, "{written}");
    }
    assert!(Selector::parse("app within (web)").is_err());
    let fields = Selector::parse("metadata.labels.app=web,spec.nodeName=").unwrap();
    assert!(fields.selects_fields(&object));
}
