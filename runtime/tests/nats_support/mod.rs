//! A real `nats-server` for tests.
//!
//! The binary comes from `WALRAS_NATS_SERVER`, else from PATH. Without one these tests print a line and pass,
//! unless `WALRAS_REQUIRE_NATS=1` asks for them.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::bus::{BrokerOptions, Bus};
use runtime::nats::access::{Access, inbox_prefix};
use runtime::nats::guard::{self, GuardCommand};
use runtime::nats::key::UserKey;
use runtime::nats::server::{Server, ServerSpec, find};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a condition on a process may take before the test fails.
pub const CONDITION_WAIT_MAX: Duration = Duration::from_secs(30);

/// Whether there is a server to test with; says so if not.
pub fn is_available() -> bool {
    match find(None) {
        Ok(_) => true,
        Err(error) if std::env::var_os("WALRAS_REQUIRE_NATS").is_some_and(|value| value == "1") => {
            panic!("WALRAS_REQUIRE_NATS=1, but {error}")
        }
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

/// The test binary itself as the guard: [`guard_child`] below, run alone.
pub fn guard() -> GuardCommand {
    let arguments = ["nats_support::guard_child", "--exact", "--ignored", "--nocapture", "--"];
    GuardCommand {
        program: std::env::current_exe().unwrap(),
        arguments: arguments.map(OsString::from).to_vec(),
    }
}

/// Not a test: what [`guard`] starts.
#[test]
#[ignore = "the guard of other tests' servers"]
fn guard_child() {
    let mut arguments = std::env::args_os().skip_while(|argument| argument != "--").skip(1).peekable();
    if arguments.peek().is_some() {
        let error = guard::exec(arguments);
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// A server with a folder of its own.
pub struct TestServer {
    pub server: Server,
    pub dir: TempDir,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with_access(None).await
    }

    pub async fn with_access(access: Option<Access>) -> Self {
        let dir = TempDir::new().unwrap();
        let server = Server::start(ServerSpec { access, ..spec(dir.path()) }).await.unwrap();
        Self { server, dir }
    }

    /// A connection without a key.
    pub async fn bus(&self) -> Bus {
        let mut options = BrokerOptions::new(self.server.url(), "test");
        options.monitoring_url = Some(self.server.monitoring_url());
        Bus::connect(options).await.unwrap()
    }

    /// A connection of one who has a key.
    pub async fn bus_as(&self, principal: &str, key: &UserKey) -> Bus {
        let mut options = BrokerOptions::new(self.server.url(), principal);
        options.seed = Some(key.seed.clone());
        options.inbox_prefix = inbox_prefix(principal);
        options.monitoring_url = Some(self.server.monitoring_url());
        Bus::connect(options).await.unwrap()
    }

    /// Kills the server and waits until another one is healthy.
    pub async fn kill_and_wait(&self) {
        let pid = self.kill();
        until("the server runs again", || self.server.pid().is_some_and(|new| new != pid)).await;
    }

    /// Kills the server.
    pub fn kill(&self) -> u32 {
        let pid = self.server.pid().expect("the server runs");
        kill(pid);
        pid
    }
}

pub fn spec(dir: &Path) -> ServerSpec {
    ServerSpec { max_file_store_bytes: 16 << 30, ..ServerSpec::new(store_below(dir), guard()) }
}

pub fn store_below(dir: &Path) -> PathBuf {
    dir.join("nats")
}

pub fn kill(pid: u32) {
    kill_process(pid_of(pid), Signal::KILL).unwrap();
}

/// Whether the process runs. One that ended but was not waited for by whoever inherited it does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `<pid> (<name>) <state> …`, and the name may hold anything.
    stat.rsplit(") ").next().is_some_and(|rest| !stat.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Looks until `condition` holds, and fails the test if it never does.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + CONDITION_WAIT_MAX;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain for {CONDITION_WAIT_MAX:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
