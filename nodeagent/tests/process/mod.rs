//! The real binary as a child.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::double::{PATIENCE, certificate};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// An agent's process, killed when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) health: u16,
    pub(crate) admin: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

impl Process {
    /// `walras-nodeagent proxy-agent` with what every test needs, and more flags.
    pub(crate) fn start(server: SocketAddr, more: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walras-nodeagent"));
        command.arg("proxy-agent");
        Process::spawn(command, server, more)
    }

    /// With a proxy in the environment.
    pub(crate) fn start_through(proxy: SocketAddr, server: SocketAddr, more: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walras-nodeagent"));
        command.arg("proxy-agent").env("HTTPS_PROXY", format!("http://user:pass%21@{proxy}"));
        Process::spawn(command, server, more)
    }

    /// The same binary called by another name.
    pub(crate) fn start_as(path: &Path, server: SocketAddr, more: &[&str]) -> Process {
        Process::spawn(Command::new(path), server, more)
    }

    fn spawn(mut command: Command, server: SocketAddr, more: &[&str]) -> Process {
        let (health, admin) = (free_port(), free_port());
        let child = command
            .args(["--proxy-server-host=127.0.0.1", "--health-server-host=127.0.0.1", "--sync-interval=50ms"])
            .args(["--sync-interval-cap=200ms"])
            .arg(format!("--proxy-server-port={}", server.port()))
            .arg(format!("--health-server-port={health}"))
            .arg(format!("--admin-server-port={admin}"))
            .arg(format!("--ca-cert={}", certificate("ca.pem").display()))
            .args(more)
            .env_remove("RUST_LOG")
            .env_remove("PROXY_AGENT_ID")
            .stdin(Stdio::null())
            .spawn()
            .expect("a process");
        Process { child, health, admin }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("a live process");
    }

    pub(crate) fn exit(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(PAUSE);
        }
    }

    /// Asks over HTTP: status line and headers, body. Empty while nobody listens.
    pub(crate) fn get(port: u16, path: &str) -> (String, String) {
        let asked = || {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
            socket.set_read_timeout(Some(PATIENCE)).ok()?;
            write!(socket, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").ok()?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).ok()?;
            answer.split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned()))
        };
        asked().unwrap_or_default()
    }

    /// The value of a metric, none if it is not there.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = Process::get(self.health, "/metrics");
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&Process) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !tokio::task::block_in_place(|| holds(self)) {
            assert!(Instant::now() < until, "not in time: {what}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
