//! Workers with the real binary, joined to the real service: a bid wins a lease, the hypervisor boots a server with
//! its secret, the worker joins and is charged, dies and comes back, is outbid and leaves, and nothing of it is left.

#![allow(clippy::expect_used, reason = "tests panic where an expectation fails, helpers included")]

#[path = "site/authority.rs"]
mod authority;
mod double;
#[allow(unused_imports, reason = "its parts are shared")]
mod process;
mod server;
mod world;

use double::{Character, Double};
use proto::Timestamp;
use proto::worker::certificate::{base64, pem};
use rustix::process::Signal;
use serde_json::{Value, json};
use server::{Server, run_kubelet, until};
use world::{World, ask, now};

/// The kubelet of the other tests: their agent starts this very program again, with this test alone.
#[tokio::test]
#[ignore = "it is run by the agent of the other tests"]
async fn kubelet_double() {
    run_kubelet().await;
}

/// Not a test: the guard of the broker of the other tests.
#[test]
#[ignore = "it is run by the broker of the other tests"]
fn guard_child() {
    let mut arguments = std::env::args_os().skip_while(|argument| argument != "--").skip(1).peekable();
    if arguments.peek().is_some() {
        eprintln!("{}", runtime::nats::guard::exec(arguments));
        std::process::exit(1);
    }
}

const OTHER_KEY: &str = "walras_controlplane_redemptions_total{result=\"other-key\"}";
const BINDING: &str = "/api/v1/namespaces/walras-acme/configmaps/worker-main-1";

/// A request for a serving certificate, as a kubelet makes it. Nobody here looks at its key or signature.
fn serving_request(node: &str, name: &str, address: [u8; 4]) -> Value {
    fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let mut bytes = vec![tag];
        match body.len() {
            length @ 0..0x80 => bytes.push(length as u8),
            length => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        bytes.extend(body);
        bytes
    }
    let attribute = |object: &[u8], text: &str| {
        let pair = value(0x30, &[&value(0x06, &[object]), &value(0x0c, &[text.as_bytes()])]);
        value(0x31, &[&pair])
    };
    let subject = value(
        0x30,
        &[
            &attribute(&[0x55, 0x04, 0x0a], "system:nodes"),
            &attribute(&[0x55, 0x04, 0x03], &format!("system:node:{node}")),
        ],
    );
    let names = value(0x30, &[&value(0x82, &[name.as_bytes()]), &value(0x87, &[&address])]);
    let extension = value(0x30, &[&value(0x06, &[&[0x55, 0x1d, 0x11]]), &value(0x04, &[&names])]);
    let object = value(0x06, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e]]);
    let asked = value(0x30, &[&object, &value(0x31, &[&value(0x30, &[&extension])])]);
    let info = value(0x30, &[&value(0x02, &[&[0]]), &subject, &value(0x30, &[]), &value(0xa0, &[&asked])]);
    let whole = value(0x30, &[&info, &value(0x30, &[]), &value(0x03, &[&[0]])]);
    let request = base64(pem("CERTIFICATE REQUEST", &whole).as_bytes());
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": format!("serving-{name}-{}", address[3]) },
        "spec": { "request": request, "signerName": "kubernetes.io/kubelet-serving",
            "username": format!("system:node:{node}"), "usages": ["digital signature", "server auth"] },
    })
}

/// What became of a request.
fn condition(world: &World, name: &str) -> String {
    let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}");
    let (_, request) = world.tenant("GET", &path, &Value::Null);
    request["status"]["conditions"][0]["type"].as_str().unwrap_or_default().to_owned()
}

async fn tunnel() -> Double {
    Double::start(Character { servers: vec!["one".into()], ..Character::default() }).await
}

/// A bid that has won the only server.
async fn win(world: &World) {
    world.offer(1, 1).await;
    world.bid("acme", "0.010").await;
    world.lease_until("provisioning").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_joins_is_charged_dies_returns_is_outbid_and_leaves() {
    let mut tunnel = tunnel().await;
    let world = World::start(tunnel.address).await;
    win(&world).await;
    // The secret is for whoever has servers there, and does not exist for others.
    for (principal, lease) in [("h2", 1), ("h1", 2)] {
        let why = world.secret(principal, lease).await.expect_err("no secret");
        assert!(why.contains("no lease of this number waits for a server of yours"), "{why}");
    }
    let secret = world.secret("h1", 1).await.expect("a secret");
    assert_eq!((secret.worker.to_string().as_str(), secret.generation), ("main-1", 1));
    let server = Server::new(world.service, &secret.secret);
    let agent = server.start(&[]);
    until("in service", || agent.phase() == "serving").await;
    world.lease_until("ready").await;
    let mut stream = tunnel.stream().await;
    assert!(stream.header("authorization").starts_with("Bearer token-of-kube-system-konnectivity-agent"));
    let (_, node) = world.tenant("GET", "/api/v1/nodes/main-1", &Value::Null);
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["walras.dev/pool"], "p");
    assert_eq!(labels["topology.kubernetes.io/region"], "dfw");
    let id = stream.dial("127.0.0.1:9").await;
    assert!(id.is_err(), "nobody listens there, and the worker says so");

    // Another server with the same secret is refused, and somebody is told; nothing changes for the first.
    let thief = Server::new(world.service, &secret.secret);
    assert_eq!(thief.start(&[]).exit().await.code(), Some(3));
    assert!(world.metric(&format!("{OTHER_KEY} 1")));

    // The kubelet's serving certificate: for exactly this Node and its address.
    for (request, wanted) in [
        (serving_request("main-1", "main-1", [127, 0, 0, 1]), "Approved"),
        (serving_request("main-1", "kubernetes", [127, 0, 0, 1]), "Denied"),
        (serving_request("main-2", "main-2", [127, 0, 0, 1]), ""),
    ] {
        let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        assert_eq!(world.tenant("POST", path, &request).0, 201);
        let name = request["metadata"]["name"].as_str().expect("a name").to_owned();
        if wanted.is_empty() {
            // Nobody of ours: left to others. The two before it are decided by now, so this one was looked at, too.
            assert_eq!(condition(&world, &name), wanted);
        } else {
            until(wanted, || condition(&world, &name) == wanted).await;
        }
    }

    // The agent and its kubelet die: not charged from the last sign of life on, and again when they are back.
    let kubelet = server.kubelet().expect("a kubelet");
    drop(agent);
    rustix::process::kill_process(kubelet, Signal::KILL).expect("a process");
    world.lease_until("worker-dead").await;
    let mut agent = server.start(&[]);
    world.lease_until("ready").await;

    // Outbid: notice, drain, release; charged until then and not until the notice ends.
    world.bid("globex", "0.020").await;
    let lease = world.lease_until("leaving").await;
    let gone_at: Timestamp = lease["notice"]["gone_at"].as_str().expect("an instant").parse().expect("one");
    assert_eq!(agent.exit().await.code(), Some(0));
    let is_over = |answer: &Value| answer["leases"].as_array().is_some_and(Vec::is_empty);
    world.query_until("leases", json!({ "tenant": "acme" }), "released", is_over).await;
    assert!(now() < gone_at, "in time");
    until("the Node is gone", || world.tenant("GET", "/api/v1/nodes/main-1", &Value::Null).0 == 404).await;
    until("forgotten", || ask(&world.cluster, "GET", BINDING, &Value::Null).0 == 404).await;
    let month = &now().to_string()[..7];
    let bill = world.query("bill", json!({ "tenant": "acme", "month": month })).await;
    let text = bill.to_string();
    let segments = bill["segments"].as_array().expect("segments");
    let ends = segments.iter().filter_map(|one| one["to"].as_str()?.parse::<Timestamp>().ok());
    assert!(ends.max().is_some_and(|end| end < gone_at), "{text}");
    assert!(text.contains("dead"), "the time without a worker is told: {text}");
    // What was redeemed once is over for good.
    let again = Server::new(world.service, &secret.secret);
    assert_eq!(again.start(&[]).exit().await.code(), Some(3));
}

/// With reports a minute apart: what makes the worker leave in time comes over the bus, from a broker that lets each
/// party say and hear what is its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_over_the_bus_is_heard_before_the_next_report() {
    if let Err(error) = runtime::nats::server::find(None) {
        let is_required = std::env::var_os("WALRAS_REQUIRE_NATS").is_some_and(|value| value == "1");
        assert!(!is_required, "WALRAS_REQUIRE_NATS=1, but {error}");
        println!("skipped: {error}");
        return;
    }
    let tunnel = tunnel().await;
    let world = World::with_broker(tunnel.address).await;
    win(&world).await;
    let secret = world.secret("h1", 1).await.expect("a secret");
    world.secret("h2", 1).await.expect_err("no secret");
    let server = Server::new(world.service, &secret.secret);
    let mut agent = server.start(&[]);
    world.lease_until("ready").await;
    until("the bus is heard", || {
        process::Process::get(agent.port, "/status").1.contains("\"bus_open\": true")
    })
    .await;
    let listening = "walras_controlplane_worker_orders_total{result=\"told\"}";
    world.bid("globex", "0.020").await;
    let lease = world.lease_until("leaving").await;
    let gone_at: Timestamp = lease["notice"]["gone_at"].as_str().expect("an instant").parse().expect("one");
    assert_eq!(agent.exit().await.code(), Some(0));
    assert!(now() < gone_at, "in time");
    assert!(world.metric(&format!("{listening} 1")), "told once, and not by a report");
    until("the Node is gone", || world.tenant("GET", "/api/v1/nodes/main-1", &Value::Null).0 == 404).await;
}
