//! The thread that owns the child: starts it, waits, starts it again, ends it.
//!
//! A thread of its own, because the signal that ends the child with us is sent when the thread that started it
//! ends: on a pool's thread that could be while the process lives.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::access::Access;
use super::config::{self, Files, Ports};
use super::monitoring;
use super::server::{ServerError, ServerSpec, ServerState};

/// How long a start may take: a large store is read through first.
const HEALTHY_WAIT_MAX: Duration = Duration::from_mins(2);

/// Pause between two looks whether it is healthy.
const HEALTHY_PAUSE: Duration = Duration::from_millis(10);

/// Starts that failed in a row, or servers that died young, before it is given up.
const FAILURES_MAX: u32 = 10;

/// A server that was healthy for so long did not die of how it was started.
const STEADY: Duration = Duration::from_mins(1);

/// First and longest pause before it is started again.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(20);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long the server may take to read its configuration again.
const RELOAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long it may take to end in order before it is killed.
const TERMINATE_WAIT_MAX: Duration = Duration::from_secs(10);

/// What the owner wants.
#[derive(Debug)]
pub(super) enum Order {
    Stop,
    Admit { access: Box<Access>, done: oneshot::Sender<Result<(), String>> },
}

pub(super) struct Supervisor {
    spec: ServerSpec,
    binary: PathBuf,
    files: Files,
    orders: mpsc::Receiver<Order>,
    state: watch::Sender<ServerState>,
    ports_sender: watch::Sender<Ports>,
    ports: Ports,
    /// What the configuration of this life of the child says; it would refuse to reload another.
    configured: Ports,
    /// Size of the log when this life of the child began, in bytes: what stands behind is its own.
    log_bytes_before: u64,
}

/// How one life of the child ended.
enum End {
    Told,
    Died { why: String, lived: Duration },
}

/// The file the server writes its addresses to.
#[derive(Deserialize)]
struct PortsFile {
    #[serde(default)]
    nats: Vec<String>,
    #[serde(default)]
    monitoring: Vec<String>,
}

/// What is read of the server's general monitoring page.
#[derive(Deserialize)]
struct Varz {
    config_load_time: Option<String>,
}

impl Supervisor {
    /// Starts the thread.
    pub(super) fn spawn(
        spec: ServerSpec,
        binary: PathBuf,
        files: Files,
        orders: mpsc::Receiver<Order>,
        state: watch::Sender<ServerState>,
        ports_sender: watch::Sender<Ports>,
    ) -> Result<(), ServerError> {
        let failed = |error: io::Error| ServerError::Failed { why: format!("its thread: {error}") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let ports = Ports { client: spec.port.unwrap_or_default(), monitoring: 0 };
        let supervisor = Self {
            spec,
            binary,
            files,
            orders,
            state,
            ports_sender,
            ports,
            configured: ports,
            log_bytes_before: 0,
        };
        let thread = std::thread::Builder::new().name("nats-server".to_owned());
        thread.spawn(move || runtime.block_on(supervisor.run())).map(drop).map_err(failed)
    }

    async fn run(mut self) {
        let mut failures = 0;
        let mut restarts = 0;
        loop {
            match self.live(restarts).await {
                End::Told => {
                    self.state.send_replace(ServerState::Stopped);
                    return;
                }
                End::Died { why, lived } => {
                    failures = if lived >= STEADY { 1 } else { failures + 1 };
                    // A first start that fails has a reason that a second one would meet again.
                    if failures > FAILURES_MAX || self.ports_sender.borrow().client == 0 {
                        tracing::error!(why, "nats-server: given up");
                        self.state.send_replace(ServerState::Failed(why));
                        return;
                    }
                    tracing::error!(why, "nats-server ended and is started again");
                }
            }
            restarts += 1;
            self.state.send_replace(ServerState::Starting);
            if self.wait_before(failures).await {
                self.state.send_replace(ServerState::Stopped);
                return;
            }
        }
    }

    /// Waits before a restart; whether it was told to stop meanwhile.
    async fn wait_before(&mut self, failures: u32) -> bool {
        let pause = RESTART_PAUSE_MIN.saturating_mul(1 << failures.min(16)).min(RESTART_PAUSE_MAX);
        let until = Instant::now() + pause;
        loop {
            match tokio::time::timeout_at(until, self.orders.recv()).await {
                Err(_) => return false,
                Ok(None | Some(Order::Stop)) => return true,
                Ok(Some(Order::Admit { access, done })) => {
                    // The next start reads it.
                    self.spec.access = Some(*access);
                    let _ = done.send(Ok(()));
                }
            }
        }
    }

    /// One life of the child.
    async fn live(&mut self, restarts: u32) -> End {
        let started = Instant::now();
        let died = |why: String| End::Died { why, lived: started.elapsed() };
        let mut child = match self.start() {
            Ok(child) => child,
            Err(why) => return died(why),
        };
        let Some(pid) = child.id() else { return died("ended at once".to_owned()) };
        match self.until_healthy(&mut child, pid).await {
            Ok(true) => {}
            Ok(false) => return End::Told,
            Err(why) => {
                let _ = child.kill().await;
                return died(why);
            }
        }
        self.ports_sender.send_replace(self.ports);
        self.state.send_replace(ServerState::Running { pid, restarts });
        tracing::info!(pid, port = self.ports.client, restarts, "nats-server is healthy");
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    return died(self.with_last_line(&status));
                }
                order = self.orders.recv() => match order {
                    Some(Order::Admit { access, done }) => {
                        let _ = done.send(self.admit(*access, pid).await);
                    }
                    None | Some(Order::Stop) => {
                        end(&mut child, pid).await;
                        return End::Told;
                    }
                }
            }
        }
    }

    fn start(&mut self) -> Result<Child, String> {
        let said = |what: &std::path::Path| {
            let what = what.display().to_string();
            move |error: io::Error| format!("{what}: {error}")
        };
        self.configured = self.ports;
        self.write_config()?;
        self.log_bytes_before = fs::metadata(&self.files.log).map_or(0, |log| log.len());
        let output = File::create(&self.files.output).map_err(said(&self.files.output))?;
        let errors = output.try_clone().map_err(said(&self.files.output))?;
        let guard = &self.spec.guard;
        Command::new(&guard.program)
            .args(&guard.arguments)
            .arg(std::process::id().to_string())
            .arg(&self.files.lock)
            .arg(&self.binary)
            .arg("-c")
            .arg(&self.files.config)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(said(&guard.program))
    }

    fn write_config(&self) -> Result<(), String> {
        let content =
            config::content(&self.spec, &self.files, self.configured).map_err(|error| error.to_string())?;
        config::write(&content, &self.files.config)
            .map_err(|error| format!("{}: {error}", self.files.config.display()))
    }

    /// Waits until the child answers that it is healthy. `false` = told to stop meanwhile, and ended.
    async fn until_healthy(&mut self, child: &mut Child, pid: u32) -> Result<bool, String> {
        let deadline = Instant::now() + HEALTHY_WAIT_MAX;
        while Instant::now() < deadline {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    return Err(self.with_last_line(&status));
                }
                order = self.orders.recv() => match order {
                    Some(Order::Admit { done, .. }) => {
                        let _ = done.send(Err("not healthy yet".to_owned()));
                    }
                    None | Some(Order::Stop) => {
                        end(child, pid).await;
                        return Ok(false);
                    }
                },
                () = sleep(HEALTHY_PAUSE) => {}
            }
            let Some(ports) = self.read_ports(pid) else { continue };
            let monitoring_url = format!("http://127.0.0.1:{}", ports.monitoring);
            if monitoring::get(&monitoring_url, "/healthz").await.is_ok_and(|page| page.status == 200) {
                // From here on these are its ports, so that clients find it again after a restart.
                self.ports = ports;
                return Ok(true);
            }
        }
        Err(self.with_last_line(&format!("not healthy within {HEALTHY_WAIT_MAX:?}")))
    }

    fn read_ports(&self, pid: u32) -> Option<Ports> {
        let entries = fs::read_dir(&self.files.ports).ok()?;
        let suffix = format!("_{pid}.ports");
        let path = entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with(&suffix))?;
        // It may be half written; the next look will find it whole.
        let file: PortsFile = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        Some(Ports { client: port_of(file.nats.first()?)?, monitoring: port_of(file.monitoring.first()?)? })
    }

    /// Has the server read a new access list. Twice: imports of an account that is new become effective only
    /// with the reload after the one that made it (2.15.1).
    async fn admit(&mut self, access: Access, pid: u32) -> Result<(), String> {
        self.spec.access = Some(access);
        self.write_config()?;
        for _ in 0..2 {
            let before = self.config_loaded().await;
            signal(pid, Signal::HUP);
            let deadline = Instant::now() + RELOAD_WAIT_MAX;
            while self.config_loaded().await == before {
                if Instant::now() >= deadline {
                    return Err(self.with_last_line("did not take the new access list"));
                }
                sleep(HEALTHY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// When the server last read its configuration, in its own words.
    async fn config_loaded(&self) -> Option<String> {
        let monitoring_url = format!("http://127.0.0.1:{}", self.ports.monitoring);
        let page = monitoring::get(&monitoring_url, "/varz").await.ok()?;
        serde_json::from_slice::<Varz>(&page.body).ok()?.config_load_time
    }

    fn with_last_line(&self, why: &str) -> String {
        let last = |path: &PathBuf| {
            let text = fs::read_to_string(path).ok()?;
            text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
        };
        // Before it has a log it speaks to its output, and then no more.
        let logged = fs::metadata(&self.files.log).is_ok_and(|log| log.len() != self.log_bytes_before);
        match last(if logged { &self.files.log } else { &self.files.output }) {
            Some(line) => format!("{why}: {}", line.trim()),
            None => why.to_owned(),
        }
    }
}

fn port_of(url: &str) -> Option<u16> {
    url.rsplit(':').next()?.trim_end_matches('/').parse().ok()
}

/// Ends the child: asks, waits, kills.
async fn end(child: &mut Child, pid: u32) {
    signal(pid, Signal::TERM);
    if timeout(TERMINATE_WAIT_MAX, child.wait()).await.is_err() {
        tracing::warn!(pid, "nats-server did not end when asked and is killed");
        let _ = child.kill().await;
    }
}

/// Signals the child. Called only while it has not been waited for, so that its id is still its own.
fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        tracing::debug!(%error, "nats-server could not be signalled");
    }
}
