//! `walras pack`'s format: examples, and refusals that name field and value.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use placement::pack::pack_json;
use serde_json::{Value, json};

fn packed(problem: &Value) -> Value {
    serde_json::from_str(&pack_json(&problem.to_string()).unwrap()).unwrap()
}

fn host(id: &str, zone: &str, cpu: u64) -> Value {
    json!({"id": id, "zone": zone, "capacity": {"cpu_milli": cpu, "pods": 10}})
}

fn plane(id: &str, replicas: u32, cpu: u64, on: &[&str]) -> Value {
    json!({"id": id, "replicas": replicas, "request": {"cpu_milli": cpu, "pods": 1}, "on": on})
}

#[test]
fn the_design_s_example() {
    let problem = json!({
        "hosts": [{"id":"h1","zone":"z1","capacity":{"cpu_milli":7500,"memory_mib":30000,"pods":110},"leaving":false},
                  {"id":"h2","zone":"z2","capacity":{"cpu_milli":7500,"memory_mib":30000,"pods":110}}],
        "planes": [{"id":"p1","replicas":2,"request":{"cpu_milli":500,"memory_mib":1200,"pods":1},"on":["h1"]},
                   {"id":"p9","replicas":1,"request":{"cpu_milli":8000,"memory_mib":1200,"pods":1}}],
        "surge_reserve_permille": 0});
    assert_eq!(
        pack_json(&problem.to_string()).unwrap(),
        r#"{"planes":[{"id":"p1","on":["h1","h2"]},{"id":"p9","on":[]}],"moves":1,"hosts_used":2,"unplaced":[{"id":"p9","why":"1 of 1 replicas without a host: no host has 8000 cpu_milli, the most is 7500"}]}"#
    );
}

#[test]
fn a_leaving_host_is_emptied_and_nothing_else_moves() {
    let mut leaving = host("a", "z1", 1000);
    leaving["leaving"] = json!(true);
    let problem = json!({
        "hosts": [leaving, host("b", "z1", 1000), host("c", "z1", 1000)],
        "planes": [plane("p", 1, 500, &["a"]), plane("q", 1, 700, &["b"]), plane("r", 1, 400, &["c"])]});
    let output = packed(&problem);
    assert_eq!(output["planes"][0]["on"], json!(["c"]));
    assert_eq!(output["planes"][1]["on"], json!(["b"]));
    assert_eq!(output["planes"][2]["on"], json!(["c"]));
    assert_eq!(output["moves"], 1);
    assert_eq!(output["unplaced"], json!([]));
}

#[test]
fn what_cannot_leave_stays_and_is_said() {
    let mut leaving = host("a", "z1", 1000);
    leaving["leaving"] = json!(true);
    let output = packed(&json!({
        "hosts": [leaving, host("b", "z1", 400)], "planes": [plane("p", 1, 300, &["a"]), plane("q", 1, 200, &["a"])]}));
    let on: Vec<&Value> = output["planes"].as_array().unwrap().iter().map(|plane| &plane["on"]).collect();
    assert_eq!(on.iter().filter(|on| ***on == json!(["b"])).count(), 1, "{output}");
    assert_eq!(on.iter().filter(|on| ***on == json!(["a"])).count(), 1, "{output}");
    let why = output["unplaced"][0]["why"].as_str().unwrap();
    assert!(why.contains("still on a leaving host") && why.contains("cpu_milli"), "{why}");
}

#[test]
fn zones_bind_where_there_are_enough() {
    let hosts = [host("a", "z1", 1000), host("b", "z1", 1000), host("c", "z2", 1000)];
    let output = packed(&json!({"hosts": hosts, "planes": [plane("p", 2, 100, &[])]}));
    let on = output["planes"][0]["on"].as_array().unwrap();
    assert!(on.contains(&json!("c")), "{output}");
    // Three replicas in two zones: hosts bind, zones do not.
    let output = packed(&json!({"hosts": hosts, "planes": [plane("p", 3, 100, &[])]}));
    assert_eq!(output["planes"][0]["on"].as_array().unwrap().len(), 3);
    // One zone is full: the second replica is not put beside the first.
    let full = [host("a", "z1", 1000), host("c", "z2", 1000)];
    let output =
        packed(&json!({"hosts": full, "planes": [plane("p", 1, 950, &["c"]), plane("q", 2, 100, &[])]}));
    assert_eq!(output["unplaced"].as_array().unwrap().len(), 1, "{output}");
    assert!(output["unplaced"][0]["why"].as_str().unwrap().starts_with("1 of 2"), "{output}");
}

#[test]
fn others_make_room_when_nothing_fits_as_it_is() {
    let problem = json!({
        "hosts": [host("a", "z", 1000), host("b", "z", 1000)],
        "planes": [plane("p", 1, 300, &["a"]), plane("q", 1, 300, &["b"]), plane("big", 1, 900, &[])]});
    let output = packed(&problem);
    assert_eq!(output["unplaced"], json!([]));
    assert_eq!(output["moves"], 2);
}

#[test]
fn the_reserve_is_kept_free() {
    let problem = |permille: u32| {
        json!({
        "hosts": [host("a", "z", 1000)], "planes": [plane("p", 1, 900, &[])], "surge_reserve_permille": permille})
    };
    assert_eq!(packed(&problem(100))["unplaced"], json!([]));
    assert_eq!(packed(&problem(101))["unplaced"].as_array().unwrap().len(), 1);
}

#[test]
fn as_many_hosts_of_a_template_as_it_takes() {
    let template = json!({"zone": "z", "capacity": {"cpu_milli": 1000, "pods": 10}});
    let planes = [plane("p", 3, 500, &[]), plane("q", 1, 500, &["h2"]), plane("r", 1, 1001, &[])];
    let mut problem = json!({"hosts_template": template, "planes": planes});
    let output = packed(&problem);
    assert_eq!(output["hosts_used"], 3, "{output}");
    assert_eq!(output["planes"][1]["on"], json!(["h2"]));
    assert_eq!(output["unplaced"][0]["id"], "r");
    for at in 0..3 {
        problem["planes"][at]["on"] = output["planes"][at]["on"].clone();
    }
    let again = packed(&problem);
    assert_eq!(again["planes"], output["planes"]);
    assert_eq!(again["moves"], 0);
}

#[test]
fn replicas_that_need_not_be_apart_share_a_host() {
    let mut together = plane("p", 4, 250, &["b", "b"]);
    together["spread"] = json!(false);
    let output =
        packed(&json!({"hosts": [host("a", "z", 1000), host("b", "z", 1000)], "planes": [together]}));
    assert_eq!(output["planes"][0]["on"], json!(["b", "b", "b", "b"]));
    assert_eq!(output["moves"], 2);
    assert_eq!(output["hosts_used"], 1);
}

#[test]
fn a_host_that_is_gone_is_replaced() {
    let output = packed(&json!({"hosts": [host("a", "z", 1000)], "planes": [plane("p", 1, 100, &["gone"])]}));
    assert_eq!(output["planes"][0]["on"], json!(["a"]));
    assert_eq!(output["moves"], 1);
}

#[test]
fn nothing_is_a_problem_too() {
    let nothing = json!({"planes": [], "moves": 0, "hosts_used": 0, "unplaced": []});
    assert_eq!(packed(&json!({"hosts": [], "planes": []})), nothing);
    let output = packed(&json!({"hosts": [], "planes": [plane("p", 1, 1, &[])]}));
    assert_eq!(output["unplaced"][0]["why"], "1 of 1 replicas without a host: there is no host that stays");
    let output = packed(&json!({"hosts": [], "planes": [plane("asleep", 0, 1, &[])]}));
    assert_eq!(output["unplaced"], json!([]));
}

#[test]
fn refusals_name_field_and_value_in_one_line() {
    let good = json!({"hosts": [host("a", "z", 1000)], "planes": [plane("p", 1, 100, &[])]});
    pack_json(&good.to_string()).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut problem = good.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = problem.pointer_mut(parent).unwrap();
        match parent {
            Value::Object(fields) => drop(fields.insert(field.to_owned(), value)),
            other => *other.get_mut(field.parse::<usize>().unwrap()).unwrap() = value,
        }
        problem.to_string()
    };
    for (problem, said) in [
        ("{".to_owned(), "problem: EOF"),
        ("[]".to_owned(), "problem: "),
        (good.to_string() + "x", "problem: trailing characters"),
        (changed("/extra", json!(1)), "extra: is no field here; there is `hosts`"),
        (changed("/planes/0/extra", json!(1)), "planes[0].extra: is no field here; there is `id`"),
        (
            changed("/planes/0/replicas", json!(-1)),
            "planes[0].replicas: must be a whole number from 0 to 4294967295 (got -1)",
        ),
        (changed("/planes/0/replicas", json!(2_000_000)), "planes[0].replicas: at most 1000000 replicas"),
        (
            changed("/planes/0/request/cpu_milli", json!(1.5)),
            "planes[0].request.cpu_milli: must be a whole number from 0 to 18446744073709551615 (got 1.5)",
        ),
        (changed("/planes/0/request/gpu", json!(1)), "planes[0].request.gpu: no such resource"),
        (changed("/planes/0/request", json!({"pods": 1})), "planes[0].request.cpu_milli: is missing"),
        (changed("/planes/0/id", json!("")), "planes[0].id: must be 1 to 253 bytes"),
        (changed("/planes/0/on", json!([""])), "planes[0].on[0]: must be 1 to 253 bytes"),
        (
            changed("/hosts/0/capacity/pods", json!(1_u64 << 41)),
            "hosts[0].capacity.pods: at most 1099511627776",
        ),
        (changed("/hosts_template", json!({"capacity": {"pods": 1}})), "hosts_template: stands beside hosts"),
        (changed("/surge_reserve_permille", json!(1001)), "surge_reserve_permille: at most 1000 (got 1001)"),
        (json!({"planes": []}).to_string(), "hosts: is missing, and so is hosts_template"),
        (json!({"hosts": []}).to_string(), "planes: is missing (got nothing)"),
        (
            json!({"hosts": [host("a", "z", 1), host("a", "z", 1)], "planes": []}).to_string(),
            "hosts[1].id: stands twice (got a)",
        ),
    ] {
        let error = pack_json(&problem).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}\nwanted {said}");
        assert!(!error.contains('\n'), "{error}");
    }
}
