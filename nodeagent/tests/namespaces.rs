//! A worker in a network of its own, from which it can dial out and into which nobody can dial: it joins, is reached
//! through the tunnel, loses its link for 30 s and gets it back, hears a notice of 60 s and leaves.
//!
//! The networks are namespaces, joined by a pair of virtual links; where none may be made, the test says so and
//! passes. The way out is a forwarder in the worker's network, in the place of a router that translates addresses. The
//! kubelet is a double.

#![allow(clippy::expect_used, reason = "tests panic where an expectation fails, helpers included")]

mod double;
#[allow(unused_imports, reason = "its parts are shared")]
mod process;
mod server;
mod site;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use double::{Character, Double};
use proto::worker::{NoticeOrder, WorkerState};
use serde_json::Value;
use server::{Server, run_kubelet, until};
use site::{Site, TOKEN, has_told, now};

/// Addresses of the two ends of the link.
const SITE: &str = "10.90.0.1";
const WORKER: &str = "10.90.0.2";

/// How long the link is down.
const CUT: Duration = Duration::from_secs(30);

/// Says that this process is in the site's network already.
const INSIDE: &str = "WALRAS_TEST_NAMESPACE";

/// What the forwarder forwards, ports with commas between.
const FORWARD: &str = "WALRAS_TEST_FORWARD";

#[tokio::test]
#[ignore = "it is run by the agent of the other test"]
async fn kubelet_double() {
    run_kubelet().await;
}

/// The way out of the worker's network: each port there leads to the same port of the site.
#[test]
#[ignore = "it is run by the other test"]
fn forwarder() {
    let ports = std::env::var(FORWARD).expect("ports");
    let threads = ports.split(',').map(|port| {
        let port: u16 = port.parse().expect("a port");
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port that is free");
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                std::thread::spawn(move || forward(socket, port));
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("a forwarder");
    }
}

fn forward(near: TcpStream, port: u16) {
    let address: SocketAddr = format!("{SITE}:{port}").parse().expect("an address");
    let Ok(far) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else { return };
    let (mut from, mut to) = (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
    let back = std::thread::spawn(move || copy(far, near));
    copy_between(&mut from, &mut to);
    let _ended = back.join();
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    copy_between(&mut from, &mut to);
}

fn copy_between(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _closed = to.shutdown(std::net::Shutdown::Both);
    let _closed = from.shutdown(std::net::Shutdown::Both);
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {line}");
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_worker_that_can_only_dial_out_joins_and_leaves() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(inside());
    }
    let unshare = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--map-root-user"]).args(command).env(INSIDE, "1").stdin(Stdio::null());
        unshare.status()
    };
    let own = std::env::current_exe().expect("this program");
    let probe = "ip link set lo up && ip link add name probe0 type veth peer name probe1 && unshare --net true && nsenter --version";
    if !unshare(&["sh", "-c", probe]).is_ok_and(|status| status.success()) {
        eprintln!("skipped: no network namespaces may be made here");
        return;
    }
    let own = own.to_str().expect("a path");
    let name = "a_worker_that_can_only_dial_out_joins_and_leaves";
    let status = unshare(&[own, name, "--exact", "--nocapture"]).expect("a namespace");
    assert!(status.success(), "what went wrong stands above");
}

async fn inside() {
    ip("link set lo up");
    let holder = Command::new("unshare").args(["--net", "sleep", "300"]).spawn().expect("a namespace");
    let holder = Killed(holder);
    let namespace = format!("/proc/{}/ns/net", holder.0.id());
    let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
    until("another network", || std::fs::read_link(&namespace).is_ok_and(|other| other != own)).await;
    let there = |line: &str| {
        let mut command = Command::new("nsenter");
        command.args(["-t", &holder.0.id().to_string(), "-n"]).args(line.split(' ')).stdin(Stdio::null());
        command
    };
    let run = |line: &str| assert!(there(line).status().is_ok_and(|status| status.success()), "{line}");
    ip("link add site0 type veth peer name worker0");
    ip(&format!("link set worker0 netns {}", holder.0.id()));
    ip(&format!("addr add {SITE}/24 dev site0"));
    ip("link set site0 up");
    run("ip link set lo up");
    run(&format!("ip addr add {WORKER}/24 dev worker0"));
    run("ip link set worker0 up");

    let character =
        Character { servers: vec!["one".into()], token: Some(TOKEN.into()), ..Character::default() };
    let mut tunnel = Double::start_at("0.0.0.0:0".parse().expect("an address"), character).await;
    let site = Site::start(tunnel.address).await;
    let ports = [site.service.port(), site.api.port(), tunnel.address.port()].map(|port| port.to_string());
    let program = std::env::current_exe().expect("this program");
    let forwarder = there(program.to_str().expect("a path"))
        .args(["forwarder", "--exact", "--ignored"])
        .env(FORWARD, ports.join(","))
        .spawn();
    let _forwarder = Killed(forwarder.expect("a forwarder"));

    let mut server = Server::new(site.service, &site.lease("main-7"));
    server.within = ["nsenter", "-t", &holder.0.id().to_string(), "-n"].map(str::to_owned).to_vec();
    let mut agent = server.start(&[]);
    until("reported ready", || has_told(&site, WorkerState::Ready)).await;
    let (_, node) = site.ask("GET", "/api/v1/nodes/main-7", &Value::Null);
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().expect("a port");
    let kubelet = format!("127.0.0.1:{port}");
    for address in [format!("{WORKER}:{port}"), kubelet.clone()] {
        let address: SocketAddr = address.parse().expect("an address");
        assert!(TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_err(), "nobody dials in");
    }
    let mut stream = tunnel.stream().await;
    assert!(healthy(&mut stream, &kubelet).await);

    // Nobody hears of the worker while its link is down, and everything is as before when it is up again.
    ip("link set site0 down");
    tokio::time::sleep(CUT).await;
    ip("link set site0 up");
    let before = site.memory(|memory| memory.reports.len());
    until("reports again", || site.memory(|memory| memory.reports.len() > before + 1)).await;
    until("ready again", || {
        site.memory(|memory| memory.reports.last().is_some_and(|report| report.state == WorkerState::Ready))
    })
    .await;
    // The stream that was open, or, if that broke, the one that took its place.
    let address = kubelet.clone();
    let old = tokio::spawn(async move { healthy(&mut stream, &address).await });
    let works = old.await.unwrap_or(false) || healthy(&mut tunnel.stream().await, &kubelet).await;
    assert!(works, "the kubelet is reached again");

    let gone_at = now().plus_seconds(60);
    site.memory(|memory| memory.notice = Some(NoticeOrder { gone_at, reason: "outbid".into() }));
    assert_eq!(agent.exit().await.code(), Some(0));
    assert!(has_told(&site, WorkerState::Left) && now() < gone_at, "it has left in time");
    assert!(server.kubelet().is_none());
}

async fn healthy(stream: &mut double::Stream, kubelet: &str) -> bool {
    let Ok(id) = stream.dial(kubelet).await else { return false };
    stream.data(id, "GET /healthz HTTP/1.1\r\nHost: kubelet\r\n\r\n").await;
    stream.read(id, 59).await.starts_with(b"HTTP/1.1 200 OK")
}
