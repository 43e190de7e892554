//! What happens by itself, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers of tests"
)]

mod world;

use std::cell::Cell;
use std::collections::BTreeSet;

use cluster::Control;
use cluster::fault::{Fault, Harm};
use serde_json::{Value, json};
use world::{DEPLOYMENTS, PLANES, PODS, World, deployment, plane, ready};

const NAME: &str = "kamaji.clastix.io/name";

fn word(world: &mut World, name: &str) -> String {
    let plane = world.get(&format!("{PLANES}/{name}"));
    plane["status"]["kubernetesResources"]["version"]["status"].as_str().unwrap_or_default().to_owned()
}

fn hosts_of(world: &World, value: &str) -> BTreeSet<String> {
    let pods = world.cluster.store().list("pods", None).map(|(_, pod)| pod);
    let chosen = pods.filter(|pod| pod["metadata"]["labels"][NAME] == value && world::is_ready(pod));
    chosen.map(|pod| pod["spec"]["nodeName"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_rollout_keeps_within_what_its_strategy_allows() {
    for (surge, unavailable, least, most) in
        [("1", "0", 4, 5), ("0", "1", 3, 4), ("100%", "0", 4, 8), ("25%", "25%", 3, 5)]
    {
        let mut world = World::new(3, 4);
        let mut object = deployment(4, "web:1");
        let number = |text: &str| text.parse::<i64>().map_or(json!(text), |number| json!(number));
        object["spec"]["strategy"] =
            json!({ "rollingUpdate": { "maxSurge": number(surge), "maxUnavailable": number(unavailable) } });
        world.make(DEPLOYMENTS, object.clone());
        world.run(10);
        assert_eq!(ready(&world.cluster, "app", "web"), 4);
        object["spec"]["template"]["spec"]["containers"][0]["image"] = "web:2".into();
        assert_eq!(world.send("PUT", &format!("{DEPLOYMENTS}/web"), "application/json", &object).0, 200);
        let (fewest, many) = (Cell::new(99), Cell::new(0));
        world.run_and_look(60, |cluster| {
            let here = cluster
                .store()
                .list("pods", Some("t"))
                .filter(|(_, pod)| pod["metadata"]["deletionTimestamp"].is_null());
            many.set(many.get().max(here.count()));
            fewest.set(fewest.get().min(ready(cluster, "app", "web")));
        });
        assert_eq!((fewest.get(), many.get()), (least, most), "surge {surge}, unavailable {unavailable}");
        let status = world.get(&format!("{DEPLOYMENTS}/web"))["status"].clone();
        assert_eq!((&status["updatedReplicas"], &status["readyReplicas"]), (&json!(4), &json!(4)));
        let pods = world.get(PODS);
        assert!(
            pods["items"]
                .as_array()
                .unwrap()
                .iter()
                .all(|pod| pod["spec"]["containers"][0]["image"] == "web:2")
        );
    }
}

#[test]
fn evictions_wait_for_the_budget() {
    let mut world = World::new(1, 3);
    world.make(DEPLOYMENTS, deployment(2, "web:1"));
    let budget = json!({ "metadata": { "name": "web" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } } });
    world.make("/apis/policy/v1/namespaces/t/poddisruptionbudgets", budget);
    world.run(10);
    let pods = world.get(PODS);
    let names: Vec<_> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap())
        .collect();
    let evict = |world: &mut World, name: &str| {
        let body = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name } });
        let answer = world.ask("POST", &format!("{PODS}/{name}/eviction"), "application/json", &body);
        (answer.code, answer.retry_after_seconds.is_some())
    };
    assert_eq!(evict(&mut world, names[0]), (201, false));
    assert_eq!(evict(&mut world, names[1]), (429, false), "before the first one's end was even seen");
    world.run(2);
    assert_eq!(evict(&mut world, names[1]), (429, false));
    world.run(8);
    assert_eq!(evict(&mut world, names[1]), (201, false), "its replacement is ready");
    world.run(10);
    assert_eq!(ready(&world.cluster, "app", "web"), 2);
}

#[test]
fn what_is_gated_waits_and_may_only_be_narrowed() {
    let mut world = World::new(1, 3);
    let spec = json!({ "schedulingGates": [{ "name": "g" }], "containers": [{ "name": "c", "image": "i:1" }],
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "Exists" }] }] } } } });
    world.make(PODS, json!({ "metadata": { "name": "p" }, "spec": spec }));
    world.run(10);
    let path = format!("{PODS}/p");
    assert_eq!(world.get(&path)["status"]["conditions"][0]["reason"], "SchedulingGated");
    let terms =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
    let wider = json!([{ "op": "remove", "path": format!("{terms}/matchExpressions/0") }]);
    assert_eq!(world.send("PATCH", &path, "application/json-patch+json", &wider).0, 422);
    let exact = json!([
        { "op": "add", "path": format!("{terms}/matchFields"),
          "value": [{ "key": "metadata.name", "operator": "In", "values": ["mgmt-3"] }] },
        { "op": "remove", "path": "/spec/schedulingGates" },
    ]);
    let (code, pod) = world.send("PATCH", &path, "application/json-patch+json", &exact);
    assert_eq!(code, 200, "{pod}");
    world.run(10);
    assert_eq!(world.get(&path)["spec"]["nodeName"], "mgmt-3");
}

#[test]
fn a_policy_in_force_gates_the_pods_that_it_is_about() {
    let mut world = World::new(1, 2);
    let base = "/apis/admissionregistration.k8s.io/v1";
    let expression =
        "Object{spec: Object.spec{schedulingGates: [Object.spec.schedulingGates{name: \"x.test/held\"}]}}";
    let policy = json!({ "metadata": { "name": "held" }, "spec": {
        "matchConstraints": { "objectSelector": { "matchLabels": { "held": "yes" } },
            "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }] },
        "mutations": [{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } }] } });
    world.make(&format!("{base}/mutatingadmissionpolicies"), policy);
    let pod = |name: &str, held: &str| {
        json!({ "metadata": { "name": name, "labels": { "held": held } },
            "spec": { "containers": [{ "name": "c", "image": "i:1" }] } })
    };
    let gates = |pod: &Value| pod["spec"]["schedulingGates"].clone();
    assert_eq!(gates(&world.make(PODS, pod("before", "yes"))), Value::Null, "no binding puts it in force");
    let binding = json!({ "metadata": { "name": "held" }, "spec": { "policyName": "held" } });
    world.make(&format!("{base}/mutatingadmissionpolicybindings"), binding);
    assert_eq!(gates(&world.make(PODS, pod("held", "yes"))), json!([{ "name": "x.test/held" }]));
    assert_eq!(gates(&world.make(PODS, pod("free", "no"))), Value::Null);
}

#[test]
fn the_scheduler_respects_what_pods_and_hosts_say() {
    let container = json!([{ "name": "c", "image": "i:1", "resources": { "requests": { "cpu": "5" } } }]);
    let anti = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "topology.kubernetes.io/zone", "labelSelector": { "matchLabels": { "a": "1" } } }] } });
    let zone = json!({ "topology.kubernetes.io/zone": "zone-2" });
    for (extra, copies, bound) in [
        // 3 hosts of 8 cores in 3 zones: 5 cores fit once on each.
        (json!({}), 5, 3),
        (json!({ "nodeSelector": zone }), 2, 1),
        (json!({ "affinity": anti, "containers": [{ "name": "c", "image": "i:1" }] }), 4, 3),
        (json!({ "nodeSelector": { "no": "where" } }), 1, 0),
        (json!({ "schedulerName": "another" }), 1, 0),
    ] {
        let mut world = World::new(1, 3);
        for number in 0..copies {
            let mut spec = json!({ "containers": container });
            for (name, value) in extra.as_object().unwrap() {
                spec[name] = value.clone();
            }
            world.make(
                PODS,
                json!({ "metadata": { "name": format!("p{number}"), "labels": { "a": "1" } }, "spec": spec }),
            );
        }
        world.run(10);
        assert_eq!(ready(&world.cluster, "a", "1"), bound, "{extra}");
    }
    let mut world = World::new(1, 1);
    assert_eq!(world.merge("/api/v1/nodes/mgmt-1", json!({ "spec": { "unschedulable": true } })).0, 200);
    world.make(PODS, json!({ "metadata": { "name": "p" }, "spec": { "containers": container } }));
    world.run(10);
    assert_eq!(world.get(&format!("{PODS}/p"))["status"]["conditions"][0]["reason"], "Unschedulable");
    assert_eq!(world.merge("/api/v1/nodes/mgmt-1", json!({ "spec": { "unschedulable": null } })).0, 200);
    world.run(10);
    assert_eq!(world.get(&format!("{PODS}/p"))["spec"]["nodeName"], "mgmt-1", "it is tried again");
}

#[test]
fn pods_of_a_dead_host_are_replaced_after_they_tolerated_it() {
    let mut world = World::new(1, 2);
    let mut object = deployment(1, "web:1");
    object["spec"]["template"]["spec"]["tolerations"] = json!([{ "key": "node.kubernetes.io/unreachable",
        "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20 }]);
    world.make(DEPLOYMENTS, object);
    world.run(10);
    let host = world.get(PODS)["items"][0]["spec"]["nodeName"].as_str().unwrap().to_owned();
    world.cluster.control(world.now, Control::Kill(host.clone())).unwrap();
    world.run(39);
    assert_eq!(ready(&world.cluster, "app", "web"), 1, "nobody knows yet");
    world.run(2);
    assert_eq!(ready(&world.cluster, "app", "web"), 0);
    world.run(30);
    assert_eq!(ready(&world.cluster, "app", "web"), 1);
    assert_eq!(
        world.get(PODS)["items"].as_array().unwrap().len(),
        2,
        "the old one cannot end on a dead machine"
    );
    assert_eq!(world.send("DELETE", &format!("/api/v1/nodes/{host}"), "", &Value::Null).0, 200);
    world.run(5);
    assert_eq!(world.get(PODS)["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_plane_is_made_relocated_upgraded_put_to_sleep_and_ended() {
    let mut world = World::new(5, 6);
    world.make(PLANES, plane("acme", 2));
    world.run(12);
    let path = format!("{PLANES}/acme");
    let object = world.get(&path);
    assert_eq!(word(&mut world, "acme"), "Ready", "{object}");
    assert_eq!(object["metadata"]["generation"], 2, "Kamaji completes the specification");
    assert_eq!(object["status"]["observedGeneration"], 2);
    assert_eq!(world.get("/apis/apps/v1/namespaces/t/replicasets")["items"].as_array().unwrap().len(), 3);
    assert_eq!(hosts_of(&world, "acme").len(), 2);

    // Relocation: right after the patch the status still says Ready; then it rolls, never below two.
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
        { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["mgmt-4", "mgmt-5"] }] }] } } });
    let config = json!({ "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "acme", "namespace": "t" }, "spec": { "controlPlane": { "deployment": { "affinity": affinity } } } });
    assert_eq!(world.apply(&path, "placement", false, &config).0, 200);
    assert_eq!(word(&mut world, "acme"), "Ready");
    let (fewest, words) = (Cell::new(99), std::cell::RefCell::new(BTreeSet::new()));
    world.run_and_look(15, |cluster| {
        fewest.set(fewest.get().min(ready(cluster, NAME, "acme")));
        let plane = cluster.get("tenantcontrolplanes", "t", "acme").unwrap();
        words
            .borrow_mut()
            .insert(plane["status"]["kubernetesResources"]["version"]["status"].as_str().unwrap().to_owned());
    });
    assert_eq!(fewest.get(), 2);
    assert_eq!(words.into_inner(), BTreeSet::from(["Ready".to_owned(), "Unknown".to_owned()]));
    assert_eq!(hosts_of(&world, "acme"), BTreeSet::from(["mgmt-4".to_owned(), "mgmt-5".to_owned()]));

    // Upgrades go one minor at a time and never back.
    for (version, allowed) in [("v1.34.0", false), ("v1.37.0", false), ("v1.36.0", true), ("v1.35.9", false)]
    {
        let code = world.merge(&path, json!({ "spec": { "kubernetes": { "version": version } } })).0;
        assert_eq!(code == 200, allowed, "{version}");
    }
    world.run(2);
    assert_eq!(word(&mut world, "acme"), "Upgrading");
    world.run(15);
    let object = world.get(&path);
    assert_eq!(
        object["status"]["kubernetesResources"]["version"],
        json!({ "status": "Ready", "version": "v1.36.0" })
    );

    // Sleep keeps Service and Secrets; waking makes a new template, because of the tunnel's count.
    assert_eq!(world.merge(&format!("{path}/scale"), json!({ "spec": { "replicas": 0 } })).0, 200);
    world.run(5);
    assert_eq!(word(&mut world, "acme"), "Sleeping");
    assert_eq!(world.get(&format!("{path}/scale"))["spec"]["replicas"], 0);
    assert_eq!(world.get("/api/v1/namespaces/t/secrets/acme-admin-kubeconfig")["type"], "Opaque");
    assert_eq!(world.merge(&format!("{path}/scale"), json!({ "spec": { "replicas": 2 } })).0, 200);
    world.run(15);
    assert_eq!(word(&mut world, "acme"), "Ready");

    assert_eq!(world.send("DELETE", &path, "", &Value::Null).0, 200);
    world.run(10);
    for kind in
        ["deployments", "replicasets", "pods", "services", "secrets", "endpointslices", "tenantcontrolplanes"]
    {
        let kind = cluster::kind::known(kind).plural;
        assert_eq!(world.cluster.store().list(kind, Some("t")).count(), 0, "{kind} is left");
    }
}

#[test]
fn a_plane_comes_up_in_the_order_and_time_that_the_readme_says() {
    let mut world = World::new(5, 6);
    world.make(PLANES, plane("acme", 2));
    let begun = world.now;
    let seen = std::cell::RefCell::new(Vec::<(String, i64)>::new());
    world.run_and_look(12, |cluster| {
        let plane = cluster.get("tenantcontrolplanes", "t", "acme").unwrap();
        let count = |kind: &'static str| cluster.store().list(kind, Some("t")).count();
        let word = plane["status"]["kubernetesResources"]["version"]["status"].as_str().unwrap_or_default();
        let now = format!(
            "generation {} {word} services {} secrets {} sets {}",
            plane["metadata"]["generation"],
            count("services"),
            count("secrets"),
            count("replicasets")
        );
        if seen.borrow().last().is_none_or(|(last, _)| *last != now) {
            seen.borrow_mut().push((now, cluster.now().micros_since(begun) / 100_000));
        }
    });
    let seen = seen.into_inner();
    let seen: Vec<_> = seen.iter().map(|(now, tenths)| (now.as_str(), *tenths)).collect();
    let expected = [
        ("generation 1  services 0 secrets 0 sets 0", 0),
        ("generation 2  services 0 secrets 0 sets 0", 1),
        ("generation 2 Provisioning services 1 secrets 0 sets 0", 2),
        ("generation 2 NotReady services 1 secrets 13 sets 0", 23),
        ("generation 2 NotReady services 1 secrets 13 sets 1", 23),
        ("generation 2 NotReady services 1 secrets 13 sets 2", 24),
        ("generation 2 NotReady services 1 secrets 13 sets 3", 25),
        ("generation 2 Provisioning services 1 secrets 13 sets 3", 59),
        ("generation 2 Ready services 1 secrets 13 sets 3", 64),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn kamaji_wipes_some_foreign_edits_and_keeps_others() {
    let mut world = World::new(1, 3);
    world.make(PLANES, plane("acme", 1));
    world.run(12);
    let path = format!("{DEPLOYMENTS}/acme");
    let edit = json!({ "metadata": { "annotations": { "mine": "1" } }, "spec": { "minReadySeconds": 1, "template": {
        "metadata": { "annotations": { "restartedAt": "now" }, "labels": { "mine": "1" } },
        "spec": { "priorityClassName": "high", "terminationGracePeriodSeconds": 60, "nodeSelector": { "a": "b" },
            "containers": [{ "name": "kube-apiserver", "lifecycle": { "preStop": {} }, "image": "mine:1" }] } } } });
    assert_eq!(world.send("PATCH", &path, "application/strategic-merge-patch+json", &edit).0, 200);
    world.run(20);
    let object = world.get(&path);
    let template = &object["spec"]["template"];
    assert_eq!(object["metadata"]["annotations"]["mine"], "1");
    assert_eq!(object["spec"]["minReadySeconds"], 1);
    assert_eq!(template["spec"]["priorityClassName"], "high");
    assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 60);
    let server = &template["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "kube-apiserver")
        .unwrap();
    assert_eq!(server["lifecycle"], json!({ "preStop": {} }));
    assert_eq!(server["image"], "registry.k8s.io/kube-apiserver:v1.35.0");
    for wiped in ["/metadata/annotations", "/metadata/labels/mine", "/spec/nodeSelector"] {
        assert_eq!(template.pointer(wiped), None, "{wiped}");
    }
    assert_eq!(word(&mut world, "acme"), "Ready");
    // Nothing goes on once all is as it should be.
    let version = world.cluster.store().version();
    world.run(600);
    assert_eq!(world.cluster.store().version(), version);
}

#[test]
fn planes_that_kamaji_would_refuse_are_refused() {
    let mut world = World::new(1, 0);
    for (path, value, field) in [
        ("/spec/dataStore", json!("none"), "spec.dataStore"),
        ("/spec/kubernetes/version", json!("v1.37.0"), "spec.kubernetes.version"),
        ("/spec/kubernetes/version", json!("newest"), "spec.kubernetes.version"),
        ("/metadata/name", json!("1st"), "metadata.name"),
        ("/spec/controlPlane/service", json!({}), "spec.controlPlane.service.serviceType"),
    ] {
        let mut object = plane("acme", 2);
        *object.pointer_mut(path).unwrap() = value;
        let (code, refusal) = world.send("POST", PLANES, "application/json", &object);
        assert_eq!((code, &refusal["details"]["causes"][0]["field"]), (422, &json!(field)), "{refusal}");
    }
    let mut object = plane("acme", 2);
    object["spec"]["controlPlane"]["deployment"]["schedulerName"] = "mine".into();
    let answer = world.ask("POST", PLANES, "application/json", &object);
    assert_eq!(answer.warnings, ["unknown field \"spec.controlPlane.deployment.schedulerName\""]);
    assert_eq!(answer.document().pointer("/spec/controlPlane/deployment/schedulerName"), None);
}

#[test]
fn data_stores_change_by_migration_and_stay_while_used() {
    let stores = "/apis/kamaji.clastix.io/v1alpha1/datastores";
    let mut world = World::new(1, 3);
    for (name, driver) in [("second", "etcd"), ("other", "MySQL")] {
        world.make(stores, json!({ "metadata": { "name": name }, "spec": { "driver": driver } }));
    }
    world.make(PLANES, plane("acme", 1));
    world.run(12);
    let path = format!("{PLANES}/acme");
    assert_eq!(world.merge(&path, json!({ "spec": { "dataStore": "other" } })).0, 422, "another driver");
    assert_eq!(world.send("DELETE", &format!("{stores}/default"), "", &Value::Null).0, 200);
    world.run(2);
    assert_eq!(world.get(&format!("{stores}/default"))["status"]["usedBy"], json!(["t/acme"]), "it waits");
    assert_eq!(world.merge(&path, json!({ "spec": { "dataStore": "second" } })).0, 200);
    world.run(5);
    assert_eq!(word(&mut world, "acme"), "Migrating");
    world.run(40);
    assert_eq!(word(&mut world, "acme"), "Ready");
    assert_eq!(world.get(&path)["status"]["storage"]["dataStoreName"], "second");
    assert_eq!(
        world.send("GET", &format!("{stores}/default"), "", &Value::Null).0,
        404,
        "nobody uses it any more"
    );
}

#[test]
fn cluster_api_rewrites_what_it_owns() {
    let mut world = World::new(1, 3);
    let owners = "/apis/controlplane.cluster.x-k8s.io/v1alpha2/namespaces/t/kamajicontrolplanes";
    let spec = json!({ "version": "1.35.0", "replicas": 1, "dataStoreName": "default",
        "network": { "serviceType": "ClusterIP" }, "deployment": { "nodeSelector": { "kubernetes.io/hostname": "mgmt-2" } } });
    world.make(owners, json!({ "metadata": { "name": "acme" }, "spec": spec }));
    world.run(15);
    let status = world.get(&format!("{owners}/acme"))["status"].clone();
    assert_eq!(
        (&status["ready"], &status["readyReplicas"], &status["version"]),
        (&json!(true), &json!(1), &json!("v1.35.0"))
    );
    let path = format!("{PLANES}/acme");
    let edit = json!({ "spec": { "controlPlane": { "deployment": { "nodeSelector": { "kubernetes.io/hostname": "mgmt-1" } } } } });
    assert_eq!(world.merge(&path, edit).0, 200);
    world.run(15);
    assert_eq!(hosts_of(&world, "acme"), BTreeSet::from(["mgmt-2".to_owned()]), "the edit did not last");
    assert_eq!(world.send("DELETE", &format!("{owners}/acme"), "", &Value::Null).0, 200);
    world.run(10);
    assert_eq!(world.cluster.store().list("tenantcontrolplanes", None).count(), 0);
}

#[test]
fn a_plane_serves_its_own_cluster_while_a_pod_is_ready() {
    let mut world = World::new(1, 3);
    world.make(PLANES, plane("acme", 1));
    let inside = "/tenants/t/acme/api/v1/nodes";
    assert_eq!(world.send("GET", inside, "", &Value::Null).0, 503);
    world.run(12);
    world.make(inside, json!({ "metadata": { "name": "worker-1" } }));
    assert_eq!(world.get("/api/v1/nodes")["items"].as_array().unwrap().len(), 3);
    let mut watch = world.watch(inside);
    assert_eq!(world.cluster.watch(world.now, &mut watch).len(), 1);
    let path = format!("{PLANES}/acme");
    assert_eq!(
        world.merge(&path, json!({ "spec": { "writePermissions": { "blockCreation": true } } })).0,
        200
    );
    let (code, _) =
        world.send("POST", inside, "application/json", &json!({ "metadata": { "name": "worker-2" } }));
    assert_eq!(code, 403);
    assert_eq!(world.merge(&format!("{path}/scale"), json!({ "spec": { "replicas": 0 } })).0, 200);
    world.run(10);
    assert_eq!(world.send("GET", inside, "", &Value::Null).0, 503);
    world.cluster.watch(world.now, &mut watch);
    assert!(watch.ended());
    assert_eq!(world.merge(&format!("{path}/scale"), json!({ "spec": { "replicas": 1 } })).0, 200);
    world.run(15);
    assert_eq!(world.get(inside)["items"].as_array().unwrap().len(), 1, "its data was kept");
}

#[test]
fn deletion_goes_through_owners_as_asked() {
    for (policy, left) in [("Background", 0), ("Foreground", 0), ("Orphan", 2)] {
        let mut world = World::new(1, 3);
        world.make(DEPLOYMENTS, deployment(2, "web:1"));
        world.run(10);
        let path = format!("{DEPLOYMENTS}/web?propagationPolicy={policy}");
        assert_eq!(world.send("DELETE", &path, "", &Value::Null).0, 200);
        if policy == "Foreground" {
            assert_eq!(
                world.get(&format!("{DEPLOYMENTS}/web"))["metadata"]["finalizers"],
                json!(["foregroundDeletion"])
            );
        }
        world.run(10);
        assert_eq!(world.send("GET", &format!("{DEPLOYMENTS}/web"), "", &Value::Null).0, 404, "{policy}");
        assert_eq!(ready(&world.cluster, "app", "web"), left, "{policy}");
    }
    let mut world = World::new(1, 3);
    world.make(DEPLOYMENTS, deployment(2, "web:1"));
    world.run(10);
    assert_eq!(world.send("DELETE", "/api/v1/namespaces/t", "", &Value::Null).0, 200);
    assert_eq!(
        world
            .send(
                "POST",
                "/api/v1/namespaces/t/secrets",
                "application/json",
                &json!({ "metadata": { "name": "s" } })
            )
            .0,
        403
    );
    world.run(10);
    assert_eq!(world.send("GET", "/api/v1/namespaces/t", "", &Value::Null).0, 404);
    assert_eq!(world.cluster.store().list("pods", None).count(), 0);
}

#[test]
fn faults_happen_as_ordered() {
    let mut world = World::new(1, 0);
    let maps = "/api/v1/namespaces/t/configmaps";
    let fault = |verb: &str, times, harm| Fault {
        kind: "configmaps".into(),
        verb: verb.into(),
        permille: 1_000,
        times,
        harm,
    };
    let faults = vec![
        fault("create", 1, Harm::Refuse(500)),
        fault("update", 0, Harm::Refuse(429)),
        fault("delete", 1, Harm::LoseAnswer),
        fault("get", 1, Harm::Stale(1)),
        fault("list", 1, Harm::Delay(7)),
        fault("list", 2, Harm::Expire),
    ];
    world.cluster.control(world.now, Control::Faults(faults)).unwrap();
    let object = json!({ "metadata": { "name": "a" }, "data": { "x": "1" } });
    assert_eq!(world.send("POST", maps, "application/json", &object).0, 500);
    world.make(maps, object.clone());
    let answer = world.ask("PUT", &format!("{maps}/a"), "application/json", &object);
    assert_eq!((answer.code, answer.retry_after_seconds), (429, Some(1)));
    assert_eq!(world.merge(&format!("{maps}/a"), json!({ "data": { "x": "2" } })).0, 200);
    assert_eq!(world.get(&format!("{maps}/a"))["data"]["x"], "1", "one version old");
    assert_eq!(world.get(&format!("{maps}/a"))["data"]["x"], "2");
    assert_eq!(world.send("GET", maps, "", &Value::Null).0, 410);
    assert!(world.ask("DELETE", &format!("{maps}/a"), "", &Value::Null).lost);
    assert_eq!(world.send("GET", &format!("{maps}/a"), "", &Value::Null).0, 404, "carried out all the same");
}

#[test]
fn quotas_refuse_pods_beyond_them() {
    let mut world = World::new(1, 3);
    let quota =
        json!({ "metadata": { "name": "q" }, "spec": { "hard": { "pods": "2", "requests.cpu": "900m" } } });
    world.make("/api/v1/namespaces/t/resourcequotas", quota);
    world.make(DEPLOYMENTS, deployment(3, "web:1"));
    world.run(10);
    assert_eq!(ready(&world.cluster, "app", "web"), 1, "500m each");
    let events = world.get("/api/v1/namespaces/t/events?fieldSelector=reason%3DFailedCreate");
    assert!(events["items"][0]["message"].as_str().unwrap().contains("exceeded quota: q"));
    world.send("DELETE", "/api/v1/namespaces/t/resourcequotas/q", "", &Value::Null);
    world.run(15);
    assert_eq!(ready(&world.cluster, "app", "web"), 3, "what was refused is tried again");
}

#[test]
fn stateful_sets_start_one_after_the_other_and_requests_are_signed_once_approved() {
    let mut world = World::new(1, 3);
    let mut object = deployment(3, "db:1");
    object["kind"] = "StatefulSet".into();
    world.make("/apis/apps/v1/namespaces/t/statefulsets", object);
    let most = Cell::new(0);
    world.run_and_look(30, |cluster| {
        let pods = cluster.store().list("pods", None).filter(|(_, pod)| !world::is_ready(pod)).count();
        most.set(most.get().max(pods));
    });
    assert_eq!((most.get(), ready(&world.cluster, "app", "web")), (1, 3));
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    world.make(requests, json!({ "metadata": { "name": "r" }, "spec": { "signerName": "kubernetes.io/kubelet-serving", "request": "" } }));
    world.run(2);
    let path = format!("{requests}/r/approval");
    let approved = json!({ "status": { "conditions": [{ "type": "Approved", "status": "True", "reason": "inventory" }] } });
    assert_eq!(world.merge(&path, approved).0, 200);
    world.run(2);
    assert!(world.get(&format!("{requests}/r"))["status"]["certificate"].is_string());
}

#[test]
fn a_seed_is_a_whole_run() {
    let run = |seed| {
        let mut world = World::new(seed, 6);
        for number in 0..5 {
            world.make(PLANES, plane(&format!("plane-{number}"), 2));
        }
        world.run(30);
        world.cluster.control(world.now, Control::Kill("mgmt-1".into())).unwrap();
        world.run(500);
        world.whole()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn servers_of_a_plane_show_how_quick_they_are() {
    let mut world = World::new(6, 4);
    world.make(PLANES, plane("prod", 2));
    world.run(60);
    let text = |world: &mut World, path: &str| match world.ask("GET", path, "", &Value::Null).body {
        cluster::Body::Text(text) => text,
        other => panic!("{path}: {other:?}"),
    };
    let within = |shown: &str, series: &str| -> u64 {
        let line = shown.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{shown}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let quick = "apiserver_request_duration_seconds_bucket{verb=\"GET\",resource=\"pods\",scope=\"resource\",le=\"0.005\"}";
    let all = "apiserver_request_duration_seconds_count";
    let path = "/tenants/t/prod/metrics";
    let shown = text(&mut world, path);
    assert_eq!(within(&shown, quick), within(&shown, all), "all are quick");
    assert!(shown.contains("apiserver_storage_objects{resource=\"nodes\"} 0"), "{shown}");
    let slow = Control::Pace {
        namespace: "t".to_owned(),
        name: "prod".to_owned(),
        api_micros: 3_000_000,
        commit_micros: 2_000,
        controller_micros: 2_000_000,
    };
    world.cluster.control(world.now, slow).unwrap();
    world.run(10);
    let later = text(&mut world, path);
    assert_eq!(within(&later, quick), within(&shown, quick), "no more are quick");
    assert_eq!(within(&later, all), within(&shown, all) + 500, "and what was counted stays so");
    let pods = world.cluster.store().list("pods", Some("t"));
    let pod = pods.map(|(key, _)| key.name.clone()).next().unwrap();
    let shown = text(&mut world, &format!("/api/v1/namespaces/t/pods/https:{pod}:10257/proxy/metrics"));
    assert_eq!(
        within(&shown, "workqueue_work_duration_seconds_bucket{name=\"deployment\",le=\"10\"}"),
        within(&shown, "workqueue_work_duration_seconds_count")
    );
    assert_eq!(
        world.ask("GET", "/api/v1/namespaces/t/pods/https:none:10257/proxy/metrics", "", &Value::Null).code,
        503
    );
}
