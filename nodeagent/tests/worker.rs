//! A worker's life with the real binary, on a simulated cluster, with a double of the kubelet (no kubelet can run
//! where tests run): it joins, serves, is killed and goes on, hears notices, and leaves.

#![allow(clippy::expect_used, reason = "tests panic where an expectation fails, helpers included")]

mod double;
#[allow(unused_imports, reason = "its parts are shared")]
mod process;
mod server;
mod site;

use std::process::{Command, Stdio};
use std::sync::Arc;

use double::{Character, Double, certificate};
use process::Process;
use proto::worker::{NoticeOrder, RedemptionRefusal, UndoneWhat, WorkerState};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use server::{Server, run_kubelet, until};
use site::{Site, TOKEN, has_told, now};

/// The kubelet of the other tests: their agent starts this very program again, with this test alone.
#[tokio::test]
#[ignore = "it is run by the agent of the other tests"]
async fn kubelet_double() {
    run_kubelet().await;
}

async fn site() -> (Double, Arc<Site>) {
    let character =
        Character { servers: vec!["one".into()], token: Some(TOKEN.into()), ..Character::default() };
    let tunnel = Double::start(character).await;
    let site = Site::start(tunnel.address).await;
    (tunnel, site)
}

fn pod(name: &str, more: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": { "nodeName": "main-7", "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "c", "image": "i" }] },
    });
    for (pointer, value) in more.as_object().into_iter().flatten() {
        let (folder, field) = pointer.rsplit_once('/').expect("a path");
        pod.pointer_mut(folder).expect("a place")[field] = value.clone();
    }
    pod
}

fn pods(site: &Site) -> Vec<String> {
    let (_, list) = site.ask("GET", "/api/v1/namespaces/default/pods", &Value::Null);
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_joins_serves_and_leaves_within_its_notice() {
    let (mut tunnel, site) = site().await;
    let server = Server::new(site.service, &site.lease("main-7"));
    site.memory(|memory| memory.lose = 2);
    let mut agent = server.start(&[]);
    until("in service", || agent.phase() == "serving").await;
    until("reported ready", || has_told(&site, WorkerState::Ready)).await;
    assert!(site.memory(|memory| memory.redemptions) >= 2, "a lost answer is asked for again");

    // The API server's side reaches the kubelet through the tunnel.
    let mut stream = tunnel.stream().await;
    assert_eq!(stream.header("agentidentifiers"), "ipv4=127.0.0.1&host=main-7");
    let (_, node) = site.ask("GET", "/api/v1/nodes/main-7", &Value::Null);
    assert_eq!(node["metadata"]["labels"]["walras/pool"], "p");
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().expect("a port");
    let id = stream.dial(&format!("127.0.0.1:{port}")).await.expect("a connection");
    stream.data(id, "GET /healthz HTTP/1.1\r\nHost: kubelet\r\n\r\n").await;
    let answer = stream.read(id, 59).await;
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200 OK"), "{answer:?}");

    // One pod that goes, one whose budget never lets it, one of a DaemonSet's.
    let daemon = json!({ "/metadata/ownerReferences": [{ "apiVersion": "apps/v1", "kind": "DaemonSet",
        "name": "d", "uid": "d", "controller": true }] });
    for pod in [pod("goes", &json!({})), pod("held", &json!({})), pod("daemon", &daemon)] {
        assert_eq!(site.ask("POST", "/api/v1/namespaces/default/pods", &pod).0, 201);
    }
    let budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "held", "namespace": "default" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "held" } } } });
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    assert_eq!(site.ask("POST", path, &budget).0, 201);
    let running = |name: &str| {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        site.ask("GET", &path, &Value::Null).1["status"]["phase"] == "Running"
    };
    until("pods that run", || running("goes") && running("held") && running("daemon")).await;

    let gone_at = now().plus_seconds(15);
    site.memory(|memory| memory.notice = Some(NoticeOrder { gone_at, reason: "outbid".into() }));
    until("drained", || has_told(&site, WorkerState::Drained)).await;
    assert_eq!(pods(&site), ["daemon"]);
    let (_, node) = site.ask("GET", "/api/v1/nodes/main-7", &Value::Null);
    assert_eq!(node["spec"]["unschedulable"], true);
    assert_eq!(agent.exit().await.code(), Some(0));
    assert!(now() < gone_at, "in time");
    assert!(server.kubelet().is_none(), "the kubelet has ended");
    site.memory(|memory| {
        let last = memory.reports.last().expect("a report");
        assert_eq!((last.state, last.gone_at), (WorkerState::Left, Some(gone_at)));
        assert_eq!(last.undone, []);
        let mut states: Vec<_> = memory.reports.iter().map(|report| report.state).collect();
        states.dedup();
        let usual = [WorkerState::Draining, WorkerState::Drained, WorkerState::Left];
        assert!(states.ends_with(&usual), "{states:?}");
    });
    // What has left stays left.
    let mut again = server.start(&[]);
    assert_eq!(again.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_goes_on_where_it_was() {
    let (_tunnel, site) = site().await;
    let server = Server::new(site.service, &site.lease("main-7"));
    let agent = server.start(&[]);
    until("in service", || agent.phase() == "serving").await;
    let kubelet = server.kubelet().expect("a kubelet");
    drop(agent);
    // The secret is not needed any more.
    std::fs::remove_file(server.path("join-secret")).expect("removed");
    let agent = server.start(&["--stop-seconds=8"]);
    until("in service again", || agent.phase() == "serving").await;
    assert_eq!(server.kubelet(), Some(kubelet), "the kubelet went on");
    assert_eq!(site.memory(|memory| memory.redemptions), 1);
    let volume = json!({ "name": "csi/volume", "devicePath": "" });
    let attached = json!({ "status": { "volumesAttached": [volume] } });
    assert_eq!(site.ask("PATCH", "/api/v1/nodes/main-7/status", &attached).0, 200);

    // Killed again in the middle of leaving; the one that comes after ends what was begun.
    agent.signal(Signal::TERM);
    until("draining", || has_told(&site, WorkerState::Draining)).await;
    drop(agent);
    let mut agent = server.start(&[]);
    assert_eq!(agent.exit().await.code(), Some(0));
    until("the kubelet's end", || server.kubelet().is_none()).await;
    site.memory(|memory| {
        let last = memory.reports.last().expect("a report");
        assert_eq!(last.state, WorkerState::Left);
        let undone: Vec<_> = last.undone.iter().map(|undone| (undone.what, undone.which.as_str())).collect();
        assert_eq!(undone, [(UndoneWhat::Volume, "")]);
        let sequences: Vec<u64> = memory.reports.iter().map(|report| report.sequence).collect();
        assert!(sequences.is_sorted_by(|left, right| left < right), "{sequences:?}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_are_no_good_are_refused_for_good() {
    let (_tunnel, site) = site().await;
    let good = site.lease("main-7");
    let worker = || "main-7".parse().expect("a worker");
    let stranger =
        proto::worker::SiteKey::new(&[8; 32]).expect("a key").mint(worker(), 1, now().plus_seconds(9));
    let late = site.key.mint(worker(), 1, now());
    let elsewhere = site.key.mint(worker(), 2, now().plus_seconds(900));
    for (secret, reason) in [
        (stranger.reveal(), Some(RedemptionRefusal::Foreign)),
        (late.reveal(), Some(RedemptionRefusal::Expired)),
        (elsewhere.reveal(), Some(RedemptionRefusal::Over)),
        ("no secret at all".to_owned(), None),
    ] {
        let server = Server::new(site.service, &secret);
        let mut agent = server.start(&[]);
        assert_eq!(agent.exit().await.code(), Some(3), "{reason:?}");
        assert_eq!(site.memory(|memory| memory.refusals.pop()), reason);
    }
    // Two servers with one secret: the second is refused, and the site knows.
    let first = Server::new(site.service, &good);
    let agent = first.start(&[]);
    until("in service", || agent.phase() == "serving").await;
    let second = Server::new(site.service, &good);
    let mut other = second.start(&[]);
    assert_eq!(other.exit().await.code(), Some(3));
    assert_eq!(site.memory(|memory| memory.refusals.pop()), Some(RedemptionRefusal::OtherKey));
    assert_eq!(agent.phase(), "serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_dies_is_started_again() {
    let (_tunnel, site) = site().await;
    let server = Server::new(site.service, &site.lease("main-7"));
    let agent = server.start(&[]);
    until("in service", || agent.phase() == "serving").await;
    let before = server.kubelet().expect("a kubelet");
    rustix::process::kill_process(before, Signal::KILL).expect("a process");
    until("another kubelet", || server.kubelet().is_some_and(|process| process != before)).await;
    let metric = || Process::get(agent.port, "/metrics").1;
    until("counted", || metric().lines().any(|line| line == "walras_nodeagent_kubelet_restarts_total 1"))
        .await;
    until("ready", || Process::get(agent.port, "/readyz").0.starts_with("HTTP/1.1 200")).await;
    let status = Command::new(env!("CARGO_BIN_EXE_walras-nodeagent"))
        .args(["status", &format!("--listen=127.0.0.1:{}", agent.port)])
        .output()
        .expect("a status");
    assert!(status.status.success());
    assert!(String::from_utf8_lossy(&status.stdout).contains("\"phase\": \"serving\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hypervisor_s_notice_is_acted_upon_and_acknowledged() {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use std::sync::atomic::{AtomicBool, Ordering};

    let (_tunnel, site) = site().await;
    let (noticed, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (asked, told) = (Arc::clone(&noticed), Arc::clone(&acknowledged));
    let answer = move || async move {
        if asked.load(Ordering::SeqCst) {
            let notice = json!({ "gone_at": now().plus_seconds(30), "reason": "supply" });
            (StatusCode::OK, notice.to_string())
        } else {
            (StatusCode::NOT_FOUND, String::new())
        }
    };
    let acknowledge = move || async move { told.store(true, Ordering::SeqCst) };
    let app = Router::new()
        .route("/walras/v1/notice", get(answer))
        .route("/walras/v1/notice/acknowledge", post(acknowledge));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("--metadata-url=http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let server = Server::new(site.service, &site.lease("main-7"));
    let mut agent = server.start(&["--metadata=walras", &url]);
    until("in service", || agent.phase() == "serving").await;
    noticed.store(true, Ordering::SeqCst);
    assert_eq!(agent.exit().await.code(), Some(0));
    assert!(acknowledged.load(Ordering::SeqCst), "the hypervisor may have its server");
    assert!(has_told(&site, WorkerState::Left));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_nobody_vouches_for_is_not_joined() {
    let (_tunnel, site) = site().await;
    let server = Server::new(site.service, &site.lease("main-7"));
    let other = format!("--service-ca={}", certificate("other.pem").display());
    // The last of a flag counts nowhere else here, so the command line is the agent's own.
    let mut child = Command::new(env!("CARGO_BIN_EXE_walras-nodeagent"))
        .args(["run", &format!("--service=https://127.0.0.1:{}", site.service.port()), &other])
        .arg(format!("--join-secret-file={}", server.path("join-secret").display()))
        .arg(format!("--state-directory={}", server.path("state").display()))
        .arg(format!("--listen=127.0.0.1:{}", server.port))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("an agent");
    until("redeeming", || Process::get(server.port, "/status").1.contains("redeeming")).await;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("its log")));
    let said = lines.find_map(|line| line.ok().filter(|line| line.contains("no admission yet")));
    assert!(said.expect("a line").contains("certificate"), "it says why");
    assert_eq!(site.memory(|memory| memory.redemptions), 0);
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).expect("a process");
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}
