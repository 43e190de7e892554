//! The binary with upstream's own programs, where they can be had: `WALRAS_KONNECTIVITY_SERVER` is the path of a
//! `proxy-server`, `WALRAS_KONNECTIVITY_SUITE` that of upstream's compiled integration tests. Without them the tests
//! say so and pass.

#![allow(clippy::expect_used, reason = "tests panic where an expectation fails, helpers included")]

mod double;
mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use double::{PATIENCE, certificate, echo};
use process::Process;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

const SERVERS: &str = "konnectivity_network_proxy_agent_open_server_connections";
const ENDPOINTS: &str = "konnectivity_network_proxy_agent_open_endpoint_connections";

/// A path that the environment names.
fn named(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: {variable} is not set");
    }
    path
}

/// A real server with an HTTP front end on a Unix socket, killed when it is dropped.
struct Server {
    child: Child,
    agents: SocketAddr,
    front: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Server {
    fn start(path: &Path, directory: &Path, agents: SocketAddr) -> Server {
        let front = directory.join("front.sock");
        let _gone = std::fs::remove_file(&front);
        let file = |flag: &str, name: &str| format!("--{flag}={}", certificate(name).display());
        let child = Command::new(path)
            .arg(format!("--uds-name={}", front.display()))
            .args(["--server-port=0", "--mode=http-connect", "--agent-bind-address=127.0.0.1"])
            .args([
                "--health-bind-address=127.0.0.1",
                "--admin-bind-address=127.0.0.1",
                "--proxy-strategies=default",
            ])
            .arg(format!("--agent-port={}", agents.port()))
            .arg(format!("--health-port={}", process::free_port()))
            .arg(format!("--admin-port={}", process::free_port()))
            .args([file("cluster-ca-cert", "ca.pem"), file("cluster-cert", "server.pem")])
            .arg(file("cluster-key", "server.key"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a proxy server");
        Server { child, agents, front }
    }

    /// Asks for a connection: the head of the answer, and the connection.
    async fn connect(&self, target: &str) -> (String, UnixStream) {
        let mut socket = UnixStream::connect(&self.front).await.expect("the server's front end");
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match timeout(PATIENCE, socket.read_u8()).await.expect("an answer in time") {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        (String::from_utf8_lossy(&head).into_owned(), socket)
    }
}

fn agent(server: SocketAddr) -> Process {
    let own = [("cert", "agent.pem"), ("key", "agent.key")];
    let own = own.map(|(what, file)| format!("--agent-{what}={}", certificate(file).display()));
    Process::start(server, &[&own[0], &own[1]])
}

fn any_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], process::free_port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_works_through_the_agent() {
    let Some(path) = named("WALRAS_KONNECTIVITY_SERVER") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&path, directory.path(), any_address());
    let process = agent(server.agents);
    process.until("a server", |process| process.metric(SERVERS) == Some(1.0)).await;
    let address = echo().await;
    let (head, socket) = server.connect(&address).await;
    assert!(head.contains(" 200 "), "{head}");
    // Twenty mebibytes there and back at once.
    let sent: Vec<u8> = (0..20 << 20).map(|at: u32| (at * 7 + at / 251) as u8).collect();
    let (mut reader, mut writer) = socket.into_split();
    let written = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&written).await.expect("written");
        writer
    });
    let mut read = vec![0; sent.len()];
    timeout(PATIENCE, reader.read_exact(&mut read)).await.expect("bytes in time").expect("bytes");
    assert!(read == sent);
    drop((writing.await.expect("written"), reader));
    process.until("no endpoints", |process| process.metric(ENDPOINTS) == Some(0.0)).await;
    // Many small connections at once.
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let (_, mut socket) = server.connect(&address).await;
        tasks.spawn(async move {
            let text = number.to_string();
            socket.write_all(text.as_bytes()).await.expect("written");
            let mut read = vec![0; text.len()];
            timeout(PATIENCE, socket.read_exact(&mut read)).await.expect("bytes in time").expect("bytes");
            assert_eq!(read, text.as_bytes());
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the same bytes");
    }
    process.until("no endpoints", |process| process.metric(ENDPOINTS) == Some(0.0)).await;
    // A dial that fails is an error at the front end.
    let (head, _) = server.connect("127.0.0.1:1").await;
    assert!(!head.contains(" 200 "), "{head}");
    // Draining changes nothing for a server that has nobody else.
    process.signal(Signal::TERM);
    process
        .until("draining", |process| process.metric("walras_nodeagent_tunnel_draining") == Some(1.0))
        .await;
    let (head, _) = server.connect(&address).await;
    assert!(head.contains(" 200 "), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_that_dies_gets_its_agent_back() {
    let Some(path) = named("WALRAS_KONNECTIVITY_SERVER") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&path, directory.path(), any_address());
    let agents = server.agents;
    let process = agent(agents);
    process.until("a server", |process| process.metric(SERVERS) == Some(1.0)).await;
    let address = echo().await;
    let (_, mut socket) = server.connect(&address).await;
    socket.write_all(b"x").await.expect("written");
    assert_eq!(socket.read_u8().await.expect("a byte"), b'x');
    drop(server);
    process.until("nothing", |process| process.metric(SERVERS) == Some(0.0)).await;
    process.until("no endpoints", |process| process.metric(ENDPOINTS) == Some(0.0)).await;
    let server = Server::start(&path, directory.path(), agents);
    process.until("a server again", |process| process.metric(SERVERS) == Some(1.0)).await;
    let (head, _) = server.connect(&address).await;
    assert!(head.contains(" 200 "), "{head}");
}

/// Upstream's own tests, in a network namespace that holds nothing but loopback: they dial into an address that
/// must not exist.
#[test]
fn upstream_s_own_tests_pass() {
    const INSIDE: &str = "ip link set lo up && ip route add 198.18.0.0/16 dev lo && exec \"$0\" \"$@\"";
    let Some(suite) = named("WALRAS_KONNECTIVITY_SUITE") else { return };
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--map-root-user", "sh", "-c", INSIDE]).stdin(Stdio::null());
        command
    };
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no network namespace may be made here");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let agent = directory.path().join("proxy-agent");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_walras-nodeagent"), &agent).expect("a link");
    let mut command = unshare();
    command
        .arg(&suite)
        .arg(format!("-agent-path={}", agent.display()))
        .args(["-test.v", "-test.timeout=600s"]);
    let output = command.current_dir(directory.path()).output().expect("the suite");
    let text = String::from_utf8_lossy(&output.stdout);
    let ended = |how: &str| -> Vec<&str> { text.lines().filter_map(|line| line.strip_prefix(how)).collect() };
    let (passed, failed) = (ended("--- PASS: "), ended("--- FAIL: "));
    eprintln!("upstream's tests: {} passed, {} failed: {failed:?}", passed.len(), failed.len());
    assert!(output.status.success() && failed.is_empty() && !passed.is_empty());
}
