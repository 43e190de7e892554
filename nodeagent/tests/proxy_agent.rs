//! The binary against a double of the proxy server: what is decided below is carried out here.

#![allow(clippy::expect_used, reason = "tests panic where an expectation fails, helpers included")]

mod double;
mod process;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use double::{Character, Double, Stream, certificate, echo, listener};
use process::Process;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tunnel::Packet;

const ENDPOINTS: &str = "konnectivity_network_proxy_agent_open_endpoint_connections";
const SERVERS: &str = "konnectivity_network_proxy_agent_open_server_connections";

fn one() -> Character {
    Character { servers: vec!["one".into()], ..Character::default() }
}

async fn begun(more: &[&str]) -> (Double, Process, Stream) {
    let mut double = Double::start(one()).await;
    let process = Process::start(double.address, more);
    let stream = double.stream().await;
    (double, process, stream)
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_and_connections_end() {
    let (_double, process, mut stream) =
        begun(&["--agent-id=agent", "--agent-identifiers=ipv4=127.0.0.1&host=a"]).await;
    assert_eq!(stream.header("agentid"), "agent");
    assert_eq!(stream.header("agentidentifiers"), "ipv4=127.0.0.1&host=a");
    assert_eq!(stream.header("te"), "trailers");
    let address = echo().await;
    let (first, second) = (stream.dial(&address).await.expect("a"), stream.dial(&address).await.expect("b"));
    assert!(first > 0 && second > 0 && first != second);
    process.until("two endpoints", |process| process.metric(ENDPOINTS) == Some(2.0)).await;
    let sent = pattern(300_000);
    for piece in sent.chunks(50_000) {
        stream.data(first, piece.to_vec()).await;
        stream.data(second, b"x".to_vec()).await;
    }
    assert_eq!(stream.read(second, 6).await, b"xxxxxx");
    assert_eq!(stream.read(first, sent.len()).await, sent);
    stream.send(Packet::CloseRequest { connect_id: first }).await;
    assert_eq!(stream.closed(first).await, "");
    stream.data(second, b"still".to_vec()).await;
    assert_eq!(stream.read(second, 5).await, b"still");
    stream.send(Packet::CloseRequest { connect_id: second }).await;
    stream.closed(second).await;
    process.until("no endpoints", |process| process.metric(ENDPOINTS) == Some(0.0)).await;
    // Asked again, and asked for nonsense.
    stream.send(Packet::CloseRequest { connect_id: first }).await;
    assert_eq!(stream.closed(first).await, "Unknown connectID");
    stream.send(Packet::Unknown { number: 99 }).await;
    stream.data(77, b"?".to_vec()).await;
    assert_eq!(stream.closed(77).await, "unrecognized connectID");
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_that_fail_say_why_in_words_that_servers_know() {
    let (_double, process, mut stream) = begun(&[]).await;
    let (listener, closed) = listener().await;
    drop(listener);
    for (address, expected) in [
        (closed.as_str(), "connection refused"),
        ("no-such-host.invalid:80", "no such host"),
        ("127.0.0.1", "missing port"),
        ("127.0.0.1:99999", "invalid port"),
    ] {
        let error = stream.dial(address).await.expect_err(address);
        assert!(error.contains(expected), "{address}: {error}");
    }
    stream.send(Packet::DialRequest { protocol: "udp".into(), address: closed, random: 1000 }).await;
    let error = stream.wait(|packet| match packet {
        Packet::DialResponse { error, random: 1000, .. } => Some(error.clone()),
        _ => None,
    });
    assert!(error.await.contains("unknown network udp"));
    let failures = "konnectivity_network_proxy_agent_endpoint_dial_failure_total{reason=\"unknown\"}";
    process.until("five failures", |process| process.metric(failures) == Some(5.0)).await;
}

/// The endpoint reads late and slowly; the server has closed long before. Nothing is missing at its end.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_server_closes() {
    let (_double, _process, mut stream) = begun(&[]).await;
    let (listener, address) = listener().await;
    let id = stream.dial(&address).await.expect("a connection");
    let (mut socket, _) = listener.accept().await.expect("a connection");
    // Something for the agent's side to have unread when it closes.
    socket.write_all(&vec![1; 100_000]).await.expect("written");
    let sent = pattern(4 << 20);
    for piece in sent.chunks(32 << 10) {
        stream.data(id, piece.to_vec()).await;
    }
    stream.send(Packet::CloseRequest { connect_id: id }).await;
    stream.closed(id).await;
    let mut read = Vec::new();
    socket.read_to_end(&mut read).await.expect("an end in order");
    assert!(read == sent, "{} bytes of {}", read.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_endpoint_closes() {
    let (_double, process, mut stream) = begun(&[]).await;
    let (listener, address) = listener().await;
    let id = stream.dial(&address).await.expect("a connection");
    let (mut socket, _) = listener.accept().await.expect("a connection");
    let sent = pattern(3 << 20);
    let written = sent.clone();
    tokio::spawn(async move { socket.write_all(&written).await.expect("written") });
    assert!(stream.read(id, sent.len()).await == sent);
    assert_eq!(stream.closed(id).await, "");
    process.until("no endpoints", |process| process.metric(ENDPOINTS) == Some(0.0)).await;
}

/// A hundred megabytes for an endpoint that reads nothing: it is given up, and another connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_reads_nothing_is_given_up_and_others_go_on() {
    let (_double, process, mut stream) = begun(&[]).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("a small buffer");
    socket.bind("127.0.0.1:0".parse::<SocketAddr>().expect("address")).expect("a port");
    let listener = socket.listen(1).expect("listening");
    let address = listener.local_addr().expect("an address").to_string();
    let slow = stream.dial(&address).await.expect("a connection");
    let (_unread, _) = listener.accept().await.expect("a connection");
    let other = stream.dial(&echo().await).await.expect("a connection");
    let piece = Bytes::from(vec![7_u8; 1 << 20]);
    for round in 0..100_u8 {
        stream.data(slow, piece.clone()).await;
        stream.data(other, vec![round; 10]).await;
        assert_eq!(stream.read(other, 10).await, [round; 10]);
    }
    assert_eq!(stream.closed(slow).await, "the endpoint takes data too slowly");
    assert_eq!(process.metric("walras_nodeagent_tunnel_slow_endpoints_total"), Some(1.0));
    assert_eq!(process.metric(ENDPOINTS), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_read_for_every_attempt() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    std::fs::write(&path, "old\n").expect("written");
    let mut double = Double::start(Character { token: Some("new".into()), ..one() }).await;
    let flag = format!("--service-account-token-path={}", path.display());
    let process = Process::start(double.address, &[&flag]);
    assert_eq!(double.refused().await.get("authorization").expect("a token"), "Bearer old");
    assert_eq!(double.refused().await.get("authorization").expect("a token"), "Bearer old");
    assert_eq!(Process::get(process.health, "/healthz").1, "ok");
    let (head, body) = Process::get(process.health, "/readyz");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(body.contains("[-]server-connected failed: no servers connected"), "{body}");
    std::fs::write(&path, " new \r\n").expect("written");
    let stream = double.stream().await;
    assert_eq!(stream.header("authorization"), "Bearer new");
    process.until("ready", |process| Process::get(process.health, "/readyz").1 == "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_who_they_are() {
    // The server asks for a certificate; without one there is no stream.
    let mut double = Double::start(Character { ask_certificate: true, ..one() }).await;
    let without = Process::start(double.address, &[]);
    let failed = "walras_nodeagent_tunnel_attempts_total{result=\"failed\"}";
    without.until("failures", |process| process.metric(failed) >= Some(2.0)).await;
    let agent = [("cert", "agent.pem"), ("key", "agent.key")]
        .map(|(what, file)| format!("--agent-{what}={}", certificate(file).display()));
    let with = Process::start(double.address, &[&agent[0], &agent[1]]);
    let mut stream = double.stream().await;
    let id = stream.dial(&echo().await).await.expect("a connection");
    stream.data(id, b"x".to_vec()).await;
    assert_eq!(stream.read(id, 1).await, b"x");
    assert_eq!(with.metric(SERVERS), Some(1.0));
    // A server whose certificate another authority signed.
    let double = Double::start(one()).await;
    let other = format!("--ca-cert={}", certificate("other.pem").display());
    let process = Process::start(double.address, &[&other]);
    process.until("failures", |process| process.metric(failed) >= Some(2.0)).await;
    assert_eq!(process.metric(SERVERS), Some(0.0));
}

/// A network whose only way out is an HTTP proxy, which resolves names itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_s_proxy_is_used() {
    let mut double = Double::start(one()).await;
    let (proxy, address) = listener().await;
    let server = double.address;
    let proxied = tokio::spawn(async move {
        let (mut socket, _) = proxy.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a request"));
        }
        socket.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("written");
        let mut out = TcpStream::connect(server).await.expect("the server");
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut socket, &mut out).await });
        String::from_utf8(head).expect("text")
    });
    let proxy = address.parse().expect("an address");
    let _process = Process::start_through(proxy, server, &["--proxy-server-host=server.example"]);
    let mut stream = double.stream().await;
    let id = stream.dial(&echo().await).await.expect("a connection");
    stream.data(id, b"x".to_vec()).await;
    assert_eq!(stream.read(id, 1).await, b"x");
    let head = proxied.await.expect("a request");
    assert!(head.starts_with(&format!("CONNECT server.example:{} HTTP/1.1\r\n", server.port())), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic dXNlcjpwYXNzIQ==\r\n"), "{head}");
}

/// Three servers behind one address. The agent meets them all, under a name of its own for each, and when one
/// breaks off it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn every_server_gets_a_stream_and_gets_it_back() {
    let servers: Vec<String> = ["one", "two", "three"].map(str::to_owned).to_vec();
    let mut double = Double::start(Character { servers, ..Character::default() }).await;
    let process = Process::start(double.address, &[]);
    let mut streams = vec![double.stream().await, double.stream().await, double.stream().await];
    process.until("three servers", |process| process.metric(SERVERS) == Some(3.0)).await;
    let mut names: Vec<String> = streams.iter().map(|stream| stream.header("agentid").to_owned()).collect();
    let lost = streams.remove(1);
    assert_eq!(lost.server, "two");
    lost.reset();
    // The balancer goes on in turn, so some attempts meet servers that have a stream already.
    loop {
        let stream = double.stream().await;
        names.push(stream.header("agentid").to_owned());
        if stream.server == "two" {
            streams.push(stream);
            break;
        }
    }
    process.until("three servers again", |process| process.metric(SERVERS) == Some(3.0)).await;
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "a name used twice");
    // Numbers of connections are never used twice either, on whatever stream.
    let address = echo().await;
    let mut ids = Vec::new();
    for stream in &mut streams {
        ids.push(stream.dial(&address).await.expect("a connection"));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    for stream in streams {
        stream.end();
    }
    process.until("no endpoints", |process| process.metric(ENDPOINTS) == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_drains_and_the_second_stops() {
    let (mut double, mut process, mut stream) = begun(&[]).await;
    let id = stream.dial(&echo().await).await.expect("a connection");
    process.signal(Signal::TERM);
    stream.wait(|packet| (*packet == Packet::Drain).then_some(())).await;
    assert_eq!(process.metric("walras_nodeagent_tunnel_draining"), Some(1.0));
    stream.data(id, b"still here".to_vec()).await;
    assert_eq!(stream.read(id, 10).await, b"still here");
    // A server that has nobody else still dials through it.
    let other = stream.dial(&echo().await).await.expect("a connection");
    stream.send(Packet::CloseRequest { connect_id: other }).await;
    stream.closed(other).await;
    assert_eq!(Process::get(process.health, "/readyz").1, "ok");
    process.signal(Signal::TERM);
    assert!(tokio::task::block_in_place(|| process.exit()).success());
    while stream.next().await.is_some() {}
    assert!(tokio::time::timeout(Duration::ZERO, double.stream()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_off_or_talks_nonsense_is_left_and_tried_again() {
    let (mut double, process, mut stream) = begun(&[]).await;
    let (listener, address) = listener().await;
    let id = stream.dial(&address).await.expect("a connection");
    let (mut socket, _) = listener.accept().await.expect("a connection");
    stream.data(id, b"half a request".to_vec()).await;
    let mut half = [0; 14];
    socket.read_exact(&mut half).await.expect("half a request");
    // In the middle of a dial, too.
    stream.begin_dial("127.0.0.1:1").await;
    stream.reset();
    // The endpoint does not take half a request for a whole one.
    let error = socket.read(&mut half).await.expect_err("no end in order");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    for nonsense in [&[0, 0, 0, 0, 1, 0xff][..], &[1, 0, 0, 0, 0], &[0, 0xff, 0xff, 0xff, 0xff]] {
        let mut stream = double.stream().await;
        let id = stream.dial(&echo().await).await.expect("a connection");
        stream.data(id, b"x".to_vec()).await;
        assert_eq!(stream.read(id, 1).await, b"x");
        stream.send_bytes(Bytes::from_static(nonsense)).await;
        while stream.next().await.is_some() {}
    }
    let stream = double.stream().await;
    stream.end();
    let _again = double.stream().await;
    let errors = "konnectivity_network_proxy_agent_stream_errors_total{code=\"Internal\",packet_type=\"Unknown\",segment=\"to_agent\"}";
    assert_eq!(process.metric(errors), Some(3.0));
    process.until("no endpoints", |process| process.metric(ENDPOINTS) == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_say_who_it_is_is_left() {
    for character in [Character::default(), Character { count: Some("many".into()), ..one() }] {
        let double = Double::start(character).await;
        let process = Process::start(double.address, &[]);
        let failed = "walras_nodeagent_tunnel_attempts_total{result=\"failed\"}";
        process.until("failures", |process| process.metric(failed) >= Some(2.0)).await;
        assert_eq!(process.metric(SERVERS), Some(0.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn called_by_upstream_s_name_it_is_upstream_s_agent() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("proxy-agent");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_walras-nodeagent"), &path).expect("a link");
    let mut double = Double::start(one()).await;
    let process =
        Process::start_as(&path, double.address, &["-v=8", "--logtostderr=true", "--warn_on_channel_limit"]);
    double.stream().await;
    process.until("ready", |process| Process::get(process.health, "/readyz").1 == "ok").await;
    let (head, _) = Process::get(process.admin, "/metrics");
    assert!(head.contains(&format!("location: http://127.0.0.1:{}/metrics", process.health)), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_are_refused_with_the_flag() {
    let address = "127.0.0.1:1".parse().expect("an address");
    for (flag, status) in [
        ("--sync-interval=20s", 1),
        ("--agent-cert=/no/such/file", 1),
        ("--agent-identifiers=node=a", 1),
        ("--count-server-leases=true", 1),
        ("--no-such-flag", 2),
    ] {
        let mut process = Process::start(address, &[flag]);
        let code = tokio::task::block_in_place(|| process.exit()).code();
        assert_eq!(code, Some(status), "{flag}");
    }
}

/// A tunnel's socket is closed when nobody needs it, on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_leave_nothing_behind() {
    let (_double, process, mut stream) = begun(&[]).await;
    let address = echo().await;
    for _ in 0..20 {
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.push(stream.dial(&address).await.expect("a connection"));
        }
        for id in &ids {
            stream.data(*id, id.to_string()).await;
        }
        for id in &ids {
            assert_eq!(stream.read(*id, id.to_string().len()).await, id.to_string().as_bytes());
            stream.send(Packet::CloseRequest { connect_id: *id }).await;
        }
        for id in ids {
            stream.closed(id).await;
        }
    }
    process.until("no endpoints", |process| process.metric(ENDPOINTS) == Some(0.0)).await;
    let files = || std::fs::read_dir(format!("/proc/{}/fd", process.child.id())).map_or(0, Iterator::count);
    process.until("few files", |_| files() < 30).await;
    let _unused = TcpStream::connect(&address).await.expect("the endpoint is there");
}
