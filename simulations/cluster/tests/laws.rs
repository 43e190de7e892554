//! Laws of the API, with random inputs: who owns what under server-side apply against a model, watches and pieces
//! of lists against lists, versions that only grow.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers of tests"
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;

const MAPS: &str = "/api/v1/namespaces/t/configmaps";
const PODS: &str = world::PODS;

/// One configuration: members of a map, and items of a keyed list.
type Config = BTreeMap<u8, u8>;

#[derive(Clone, Debug)]
enum Act {
    /// A manager applies a configuration.
    Apply { manager: u8, force: bool, config: Config },
    /// Somebody else sets one field.
    Update { field: u8, value: u8 },
}

fn act() -> impl Strategy<Value = Act> {
    let config = proptest::collection::btree_map(0_u8..5, 0_u8..3, 0..5);
    prop_oneof![
        4 => (0_u8..3, any::<bool>(), config).prop_map(|(manager, force, config)| Act::Apply { manager, force, config }),
        1 => (0_u8..5, 0_u8..3).prop_map(|(field, value)| Act::Update { field, value }),
    ]
}

/// What server-side apply means: each field has a value and owners. Where fields are items of a list, an item has
/// owners too: it stays for them when nobody owns its value any more, with the value that the server gives it.
#[derive(Clone, Debug, Default)]
struct Model {
    values: BTreeMap<u8, u8>,
    owners: BTreeMap<u8, BTreeSet<String>>,
    items: BTreeMap<u8, BTreeSet<String>>,
    default: Option<fn(u8) -> u8>,
}

impl Model {
    fn apply(&mut self, manager: &str, force: bool, config: &Config) -> bool {
        let conflicts: Vec<u8> = config
            .iter()
            .filter(|(field, value)| {
                let foreign = self.owners.get(field).is_some_and(|all| all.iter().any(|one| one != manager));
                self.values.get(field) != Some(value) && foreign
            })
            .map(|(field, _)| *field)
            .collect();
        if !conflicts.is_empty() && !force {
            return false;
        }
        for field in conflicts {
            self.owners.remove(&field);
        }
        for field in (0..5).filter(|field| !config.contains_key(field)) {
            let owned = self.owners.entry(field).or_default().remove(manager);
            let held = self.items.entry(field).or_default().remove(manager);
            if (owned || held) && self.owners[&field].is_empty() {
                match self.default.filter(|_| !self.items[&field].is_empty()) {
                    Some(default) if owned => drop(self.values.insert(field, default(field))),
                    Some(_) => {}
                    None => drop(self.values.remove(&field)),
                }
            }
        }
        for (field, value) in config {
            self.values.insert(*field, *value);
            self.owners.entry(*field).or_default().insert(manager.to_owned());
            self.items.entry(*field).or_default().insert(manager.to_owned());
        }
        true
    }

    fn update(&mut self, field: u8, value: u8) {
        let other = BTreeSet::from(["other".to_owned()]);
        let before = self.values.insert(field, value);
        if before != Some(value) {
            self.owners.insert(field, other.clone());
        }
        if before.is_none() {
            self.items.insert(field, other);
        }
    }
}

/// How fields stand in an object of some kind.
struct Form {
    path: &'static str,
    object: fn(&Config) -> Value,
    read: fn(&Value) -> Config,
    step: fn(u8) -> Vec<String>,
    default: Option<fn(u8) -> u8>,
}

/// Members of the data of a `ConfigMap`.
const MEMBERS: Form = Form {
    path: "/api/v1/namespaces/t/configmaps/a",
    object: |config| {
        let data: BTreeMap<_, _> =
            config.iter().map(|(field, value)| (format!("f{field}"), value.to_string())).collect();
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "labels": { "kept": "1" } }, "data": data })
    },
    read: |object| {
        let data = object["data"].as_object().into_iter().flatten();
        data.map(|(name, value)| (name[1..].parse().unwrap(), value.as_str().unwrap().parse().unwrap()))
            .collect()
    },
    step: |field| vec!["f:data".into(), format!("f:f{field}")],
    default: None,
};

/// Items of a Service's ports, which are told apart by port and protocol.
const ITEMS: Form = Form {
    path: "/api/v1/namespaces/t/services/a",
    object: |config| {
        let ports: Vec<_> = config
            .iter()
            .map(|(field, value)| json!({ "port": 100 + u16::from(*field), "protocol": "TCP", "targetPort": 1 + u16::from(*value) }))
            .collect();
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a", "labels": { "kept": "1" } },
            "spec": { "ports": ports } })
    },
    read: |object| {
        let ports = object["spec"]["ports"].as_array().into_iter().flatten();
        ports
            .map(|port| {
                (
                    (port["port"].as_u64().unwrap() - 100) as u8,
                    (port["targetPort"].as_u64().unwrap() - 1) as u8,
                )
            })
            .collect()
    },
    step: |field| {
        let key = format!("k:{{\"port\":{},\"protocol\":\"TCP\"}}", 100 + u16::from(field));
        vec!["f:spec".into(), "f:ports".into(), key, "f:targetPort".into()]
    },
    // A port leads to the same port.
    default: Some(|field| 99 + field),
};

fn owners(object: &Value, steps: &[String]) -> BTreeSet<String> {
    let records = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owns = |record: &&Value| {
        steps.iter().try_fold(&record["fieldsV1"], |fields, step| fields.get(step)).is_some()
    };
    records.iter().filter(owns).map(|record| record["manager"].as_str().unwrap().to_owned()).collect()
}

fn ownership(form: &Form, acts: &[Act]) {
    let mut world = World::new(1, 0);
    let mut model = Model { default: form.default, ..Model::default() };
    let mut there = false;
    for act in acts {
        let before = world.get(form.path);
        match act {
            Act::Apply { manager, force, config } => {
                let name = format!("m{manager}");
                let expected = model.apply(&name, *force, config);
                let (code, answer) = world.apply(form.path, &name, *force, &(form.object)(config));
                assert_eq!(code < 300, expected, "{answer}");
                if expected {
                    there = true;
                    // Applying the same again changes nothing, not even the version.
                    let (_, again) = world.apply(form.path, &name, false, &(form.object)(config));
                    assert_eq!(again, answer);
                } else {
                    assert_eq!(code, 409);
                    assert!(answer["details"]["causes"][0]["reason"] == "FieldManagerConflict", "{answer}");
                    assert_eq!(world.get(form.path), before);
                }
            }
            Act::Update { field, value } if there => {
                let mut object = before.clone();
                let mut all = (form.read)(&object);
                all.insert(*field, *value);
                let wanted = (form.object)(&all);
                for part in ["data", "spec"] {
                    if !wanted[part].is_null() {
                        for (name, value) in wanted[part].as_object().unwrap() {
                            object[part][name] = value.clone();
                        }
                    }
                }
                model.update(*field, *value);
                let path = format!("{}?fieldManager=other", form.path);
                let (code, answer) = world.send("PUT", &path, "application/json", &object);
                assert_eq!(code, 200, "{answer}");
            }
            Act::Update { .. } => {}
        }
        let object = world.get(form.path);
        if there {
            assert_eq!((form.read)(&object), model.values, "{object}");
            for field in 0..5 {
                let expected = model.owners.get(&field).cloned().unwrap_or_default();
                assert_eq!(owners(&object, &(form.step)(field)), expected, "field {field} of {object}");
            }
        }
    }
}

/// Something that happens to pods: number, label, and whether it goes.
type Step = (u8, u8, bool);

fn take_step(world: &mut World, (number, label, goes): Step) {
    let path = format!("{PODS}/p{number}");
    let pod = json!({ "metadata": { "name": format!("p{number}"), "labels": { "l": label.to_string() } },
        "spec": { "schedulerName": "none", "containers": [{ "name": "c", "image": "i:1" }] } });
    let there = !world.get(&path)["metadata"].as_object().is_none_or(serde_json::Map::is_empty);
    if goes && there {
        assert_eq!(world.send("DELETE", &path, "", &Value::Null).0, 200);
    } else if there {
        assert_eq!(
            world.merge(&path, json!({ "metadata": { "labels": { "l": label.to_string() } } })).0,
            200
        );
    } else {
        world.make(PODS, pod);
    }
}

fn versions_grow(lines: &[Value], last: &mut u64) {
    for line in lines {
        let version = line["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        let bookmark = line["type"] == "BOOKMARK";
        assert!(version > *last || (bookmark && version >= *last), "{line}");
        *last = version;
    }
}

fn replay(state: &mut BTreeMap<String, Value>, lines: &[Value]) {
    for line in lines {
        let object = &line["object"];
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match line["type"].as_str().unwrap() {
            "ADDED" => assert!(state.insert(name, object.clone()).is_none(), "added twice: {line}"),
            "MODIFIED" => {
                assert!(state.insert(name, object.clone()).is_some(), "modified, never added: {line}");
            }
            "DELETED" => assert!(state.remove(&name).is_some(), "deleted, never added: {line}"),
            "BOOKMARK" => {}
            other => panic!("{other}"),
        }
    }
}

fn listed(list: &Value) -> BTreeMap<String, Value> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), item.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn members_belong_to_whom_the_model_says(acts in proptest::collection::vec(act(), 1..12)) {
        ownership(&MEMBERS, &acts);
    }

    #[test]
    fn items_belong_to_whom_the_model_says(acts in proptest::collection::vec(act(), 1..12)) {
        ownership(&ITEMS, &acts);
    }

    #[test]
    fn a_watch_from_a_list_replays_to_the_next_list(
        steps in proptest::collection::vec((0_u8..6, 0_u8..2, any::<bool>()), 1..40),
        from in 0_usize..40,
    ) {
        let mut world = World::new(1, 0);
        let chosen = format!("{PODS}?labelSelector=l%3D1");
        let (before, after) = steps.split_at(from.min(steps.len()));
        for step in before {
            take_step(&mut world, *step);
        }
        let first = world.get(&chosen);
        let version = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let mut last = version.parse().unwrap();
        let mut state = listed(&first);
        let mut watch = world.watch(&format!("{chosen}&resourceVersion={version}&allowWatchBookmarks=true"));
        for step in after {
            take_step(&mut world, *step);
            world.run(3);
            let lines = world.cluster.watch(world.now, &mut watch);
            versions_grow(&lines, &mut last);
            replay(&mut state, &lines);
        }
        let second = world.get(&chosen);
        prop_assert_eq!(state, listed(&second));
        // One that begins with what there is says the same.
        let mut fresh = world.watch(&format!("{chosen}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"));
        let lines = world.cluster.watch(world.now, &mut fresh);
        prop_assert_eq!(&lines.last().unwrap()["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        let mut state = BTreeMap::new();
        replay(&mut state, &lines);
        prop_assert_eq!(state, listed(&second));
    }

    #[test]
    fn pieces_of_a_list_are_one_list(
        steps in proptest::collection::vec((0_u8..9, 0_u8..2, any::<bool>()), 1..40),
        between in proptest::collection::vec((0_u8..9, 0_u8..2, any::<bool>()), 0..10),
        limit in 1_u8..5,
    ) {
        let mut world = World::new(1, 0);
        for step in &steps {
            take_step(&mut world, *step);
        }
        let whole = world.get(PODS);
        let mut between = between.into_iter();
        let (mut pieces, mut token) = (Vec::new(), String::new());
        loop {
            let piece = world.get(&format!("{PODS}?limit={limit}&continue={token}"));
            prop_assert_eq!(&piece["metadata"]["resourceVersion"], &whole["metadata"]["resourceVersion"]);
            pieces.extend(piece["items"].as_array().unwrap().iter().cloned());
            token = piece["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                break;
            }
            if let Some(step) = between.next() {
                take_step(&mut world, step);
            }
        }
        prop_assert_eq!(&Value::from(pieces), &whole["items"]);
    }
}

#[test]
fn who_stands_behind_a_compaction_is_told_that_it_is_gone() {
    let mut world = World::new(1, 0);
    (0..6).for_each(|number| take_step(&mut world, (number, 0, false)));
    let piece = world.get(&format!("{PODS}?limit=2"));
    let token = piece["metadata"]["continue"].as_str().unwrap().to_owned();
    let mut old = world.watch(&format!("{PODS}?resourceVersion=1001"));
    take_step(&mut world, (1, 1, false));
    world.cluster.control(world.now, cluster::Control::Compact).unwrap();
    let lines = world.cluster.watch(world.now, &mut old);
    assert_eq!((&lines[0]["type"], &lines[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert!(old.ended());
    let (code, refusal) = world.send("GET", &format!("{PODS}?limit=2&continue={token}"), "", &Value::Null);
    assert_eq!((code, &refusal["reason"]), (410, &json!("Expired")));
}

#[test]
fn writers_who_did_not_see_the_last_version_are_refused() {
    let mut world = World::new(1, 0);
    let made = world.make(MAPS, json!({ "metadata": { "name": "a" }, "data": { "x": "1" } }));
    let mut first = made.clone();
    first["data"]["x"] = "2".into();
    let mut second = made;
    second["data"]["x"] = "3".into();
    let path = format!("{MAPS}/a");
    assert_eq!(world.send("PUT", &path, "application/json", &first).0, 200);
    let (code, refusal) = world.send("PUT", &path, "application/json", &second);
    assert_eq!((code, &refusal["reason"]), (409, &json!("Conflict")));
    assert_eq!(world.get(&path)["data"]["x"], "2");
    assert_eq!(world.send("POST", MAPS, "application/json", &json!({ "metadata": { "name": "a" } })).0, 409);
    assert_eq!(world.send("POST", MAPS, "application/json", &json!({ "metadata": { "name": "A_" } })).0, 422);
    assert_eq!(world.send("GET", &format!("{MAPS}/b"), "", &Value::Null).0, 404);
}
