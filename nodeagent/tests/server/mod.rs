//! One server with its disk, and the agent on it as a process.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::double::{PATIENCE, certificate};
use crate::process::{Process, free_port};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the kubelet's double with the arguments that the agent gave it. Each test program has a test that does this
/// and nothing else, and its agents start the program again with that test alone.
pub(crate) async fn run_kubelet() {
    let arguments = std::env::var("KUBELET_ARGUMENTS").expect("a kubelet's arguments");
    let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    kubelet::run(&arguments).await.expect("a kubelet");
}

pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// One server: what is on its disk.
pub(crate) struct Server {
    folder: TempDir,
    service: SocketAddr,
    pub(crate) port: u16,
    /// What the agent is run by: another namespace, perhaps.
    pub(crate) within: Vec<String>,
}

impl Drop for Server {
    /// A kubelet that a failed test left running.
    fn drop(&mut self) {
        if let Some(process) = self.kubelet() {
            let _killed = rustix::process::kill_process(process, Signal::KILL);
        }
    }
}

impl Server {
    /// A server that boots with a secret, and joins where the service listens.
    pub(crate) fn new(service: SocketAddr, secret: &str) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("join-secret"), format!("{secret}\n")).expect("written");
        Server { folder, service, port: free_port(), within: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn start(&self, more: &[&str]) -> Agent {
        let kubelet = "KUBELET_ARGUMENTS=\"$*\" exec \"$0\" kubelet_double --exact --ignored --nocapture";
        let own = std::env::current_exe().expect("this program");
        let program = env!("CARGO_BIN_EXE_walras-nodeagent").to_owned();
        let line: Vec<String> = self.within.iter().cloned().chain([program]).collect();
        let (name, rest) = line.split_first().expect("a program");
        let child = Command::new(name)
            .args(rest)
            .args(["run", &format!("--service=https://127.0.0.1:{}", self.service.port())])
            .arg(format!("--service-ca={}", certificate("ca.pem").display()))
            .arg(format!("--join-secret-file={}", self.path("join-secret").display()))
            .arg(format!("--state-directory={}", self.path("state").display()))
            .arg(format!("--root={}", self.path("root").display()))
            .arg(format!("--listen=127.0.0.1:{}", self.port))
            .args(more)
            .args(["--kubelet", "/bin/sh", "-c", kubelet])
            .arg(own)
            .arg(";")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .spawn()
            .expect("an agent");
        Agent { child, port: self.port }
    }

    /// The kubelet's process, if one was started and lives. Another process may have got its number by now, so the
    /// instant of its start counts, too.
    pub(crate) fn kubelet(&self) -> Option<Pid> {
        let text = std::fs::read(self.path("state/kubelet.json")).ok()?;
        let known: Value = serde_json::from_slice(&text).ok()?;
        let process = i32::try_from(known.get("process")?.as_i64()?).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let started: u64 = fields.get(19)?.parse().ok()?;
        let lives = fields.first() != Some(&"Z") && Some(started) == known.get("started")?.as_u64();
        Pid::from_raw(process).filter(|_| lives)
    }
}

impl Agent {
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("a live process");
    }

    pub(crate) fn phase(&self) -> String {
        let (_, body) = Process::get(self.port, "/status");
        let status: Value = serde_json::from_str(&body).unwrap_or_default();
        status.get("phase").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end: {}", self.phase());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !tokio::task::block_in_place(&mut holds) {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
