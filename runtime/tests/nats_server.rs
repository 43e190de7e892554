//! The server as our child: found, checked, kept alive, never left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

mod nats_support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nats_support::{TestServer, is_alive, kill, until};
use runtime::bus::{BrokerOptions, Bus};
use runtime::nats::guard::GuardCommand;
use runtime::nats::server::{Server, ServerError, ServerSpec, ServerState};
use tempfile::TempDir;

/// Where the helper process below is told to work.
const PARENT_DIR_VARIABLE: &str = "WALRAS_TEST_PARENT_DIR";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_is_started_again_on_the_same_port() {
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let url = server.server.url();
    let bus = server.bus().await;
    bus.ensure_stream(&runtime::bus::StreamSpec::new("s", "a")).await.unwrap();
    for restarts in 1..=3 {
        server.kill_and_wait().await;
        let state = server.server.state().borrow().clone();
        assert!(
            matches!(state, ServerState::Running { restarts: counted, .. } if counted == restarts),
            "{state:?}"
        );
    }
    assert_eq!(server.server.url(), url);
    let again = Bus::connect(BrokerOptions::new(url, "test")).await.unwrap();
    assert_eq!(again.stream_state("s").await.unwrap().last, 0, "the store outlives the server");
    let pid = server.server.pid().unwrap();
    server.server.stop().await.unwrap();
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_for_us_alone() {
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let dir = nats_support::store_below(server.dir.path());
    for (path, mode) in [("", 0o700), ("nats-server.conf", 0o600), ("jetstream", 0o700), ("lock", 0o600)] {
        let permissions = std::fs::metadata(dir.join(path)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_server_ends() {
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let pid = server.server.pid().unwrap();
    drop(server.server);
    until("the server is gone", || !is_alive(pid)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_server_is_refused_with_its_path() {
    let dir = TempDir::new().unwrap();
    let script = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let with = |binary| ServerSpec { binary: Some(binary), ..nats_support::spec(dir.path()) };
    let old = script("old", "echo 'nats-server: v2.9.10'");
    match Server::start(with(old.clone())).await {
        Err(error @ ServerError::Version { .. }) => {
            let line = error.to_string();
            assert!(line.contains("2.9.10") && line.contains("2.12.12") && line.contains("old"), "{line}");
        }
        other => panic!("{other:?}"),
    }
    let other = script("other", "echo hello");
    assert!(matches!(Server::start(with(other)).await, Err(ServerError::Version { .. })));
    let missing = dir.path().join("missing");
    assert!(matches!(Server::start(with(missing)).await, Err(ServerError::Binary { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_says_why() {
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let dir = TempDir::new().unwrap();
    let taken = server.server.url().rsplit(':').next().unwrap().parse().unwrap();
    let clash = ServerSpec { port: Some(taken), ..nats_support::spec(dir.path()) };
    match Server::start(clash).await {
        Err(ServerError::Failed { why }) => assert!(why.contains("address already in use"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Not a test: a process that starts a server, tells its id, and waits to be killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the parent that another test kills"]
async fn parent_child() {
    let Some(dir) = std::env::var_os(PARENT_DIR_VARIABLE).map(std::path::PathBuf::from) else { return };
    let server = Server::start(nats_support::spec(&dir)).await.unwrap();
    let partial = dir.join("pid.partial");
    std::fs::write(&partial, server.pid().unwrap().to_string()).unwrap();
    std::fs::rename(partial, dir.join("pid")).unwrap();
    std::future::pending::<()>().await;
}

/// Nobody can clean up after SIGKILL but the kernel; and the next server on the same folder starts at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_parent_takes_the_server_along() {
    if !nats_support::is_available() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["parent_child", "--exact", "--ignored", "--nocapture"])
        .env(PARENT_DIR_VARIABLE, dir.path())
        .spawn()
        .unwrap();
    let pid_file = dir.path().join("pid");
    until("the parent has a server", || pid_file.exists()).await;
    let pid: u32 = std::fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert!(is_alive(pid));
    kill(parent.id());
    let next = Server::start(nats_support::spec(dir.path())).await.unwrap();
    // The folder's lock passes on only when the old server is gone.
    assert!(!is_alive(pid) || next.pid() == Some(pid), "the old server still runs");
    parent.wait().unwrap();
    next.stop().await.unwrap();
}

/// Two servers on one folder would destroy its store: the second does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_has_one_server() {
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    match Server::start(nats_support::spec(server.dir.path())).await {
        Err(ServerError::Failed { why }) => assert!(why.contains("another nats-server"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(server.server.pid().is_some_and(is_alive));
}

/// The guard by hand: what is missing or stale is said, and nothing is started.
#[test]
fn the_guard_refuses_what_makes_no_sense() {
    let GuardCommand { program, arguments } = nats_support::guard();
    let dir = TempDir::new().unwrap();
    let lock = dir.path().join("lock");
    for (last, expected) in
        [(vec!["x"], "usage"), (vec!["1", lock.to_str().unwrap(), "/bin/true"], "is gone")]
    {
        let output = Command::new(&program).args(&arguments).args(&last).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{last:?}: {said}");
    }
}
