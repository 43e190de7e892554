//! The kubelet's process: a child, which outlives this agent and is found again by the next, or a unit of systemd's.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use life::Input;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::files::{self, SECRET};
use super::places::Places;

/// Between two looks at a unit.
const UNIT_LOOK: Duration = Duration::from_secs(2);

/// Between two looks at a kubelet that an earlier agent started.
const ADOPTED_LOOK: Duration = Duration::from_millis(500);

/// What runs the kubelet.
#[derive(Debug, Clone)]
pub(crate) enum Runs {
    /// This program, with arguments of its own before ours.
    Child(Vec<String>),
    /// This unit, by this `systemctl`. Its arguments are the unit's affair.
    Unit { systemctl: String, unit: String },
}

/// The process as it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    process: i32,
    /// In ticks since the machine started: tells the process from another that got its number.
    started: u64,
}

/// The kubelet.
pub(crate) struct Kubelet {
    runs: Runs,
    places: Places,
    inputs: mpsc::Sender<Input>,
    process: Option<OwnedFd>,
}

impl Kubelet {
    pub(crate) fn new(runs: Runs, places: Places, inputs: mpsc::Sender<Input>) -> Kubelet {
        Kubelet { runs, places, inputs, process: None }
    }

    /// Starts it, or goes on with the one that an earlier agent started.
    pub(crate) fn start(&mut self, arguments: &[String]) -> io::Result<()> {
        match self.runs.clone() {
            Runs::Child(program) => {
                if let Some((process, known)) = self.find() {
                    tracing::info!(process = known.process, "the kubelet runs already");
                    self.adopt(process, known);
                    return Ok(());
                }
                self.spawn(&program, arguments)
            }
            Runs::Unit { systemctl, unit } => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    if call(&systemctl, &["start", &unit]).await {
                        while call(&systemctl, &["is-active", "--quiet", &unit]).await {
                            sleep(UNIT_LOOK).await;
                        }
                    }
                    tracing::warn!(unit, "the kubelet's unit is not active");
                    let _told = inputs.send(Input::KubeletEnded).await;
                });
                Ok(())
            }
        }
    }

    fn spawn(&mut self, program: &[String], arguments: &[String]) -> io::Result<()> {
        let (name, own) = program.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
        let mut command = Command::new(name);
        // A process group of its own: what ends us from a terminal does not end it.
        command.args(own).args(arguments).stdin(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        let number = child.id().and_then(|number| i32::try_from(number).ok()).and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::other("it ended at once"))?;
        self.process = Some(pidfd_open(number, PidfdFlags::NONBLOCK)?);
        let process = number.as_raw_nonzero().get();
        tracing::info!(process, program = name, "the kubelet was started");
        if let Some(started) = started(process) {
            let known = serde_json::to_vec(&Known { process, started })?;
            if let Err(error) = files::replace(&self.places.kubelet_process, &known, SECRET) {
                tracing::warn!(%error, "should this agent be started again, it will not find the kubelet");
            }
        }
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            match child.wait().await {
                Ok(status) => tracing::warn!(%status, "the kubelet ended"),
                Err(error) => tracing::warn!(%error, "the kubelet cannot be waited for"),
            }
            let _told = inputs.send(Input::KubeletEnded).await;
        });
        Ok(())
    }

    /// The one that an earlier agent started, if it lives.
    fn find(&self) -> Option<(OwnedFd, Known)> {
        let text = files::read(&self.places.kubelet_process).ok().flatten()?;
        let known: Known = serde_json::from_slice(&text).ok()?;
        let process = pidfd_open(Pid::from_raw(known.process)?, PidfdFlags::NONBLOCK).ok()?;
        // Opened first, compared then: from here on the number cannot be another's.
        (started(known.process) == Some(known.started)).then_some((process, known))
    }

    /// Looks for the end of a process that is not our child: there is no other way to wait for one.
    fn adopt(&mut self, process: OwnedFd, known: Known) {
        self.process = Some(process);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            while started(known.process) == Some(known.started) {
                sleep(ADOPTED_LOOK).await;
            }
            tracing::warn!(process = known.process, "the kubelet ended");
            let _told = inputs.send(Input::KubeletEnded).await;
        });
    }

    /// Asks it to end, or ends it. That it has ended is told as an input.
    pub(crate) fn end(&mut self, signal: Signal) {
        match self.runs.clone() {
            Runs::Child(_) => {
                if let Some((process, known)) = self.find().filter(|_| self.process.is_none()) {
                    self.adopt(process, known);
                }
                let sent = self.process.as_ref().map(|process| pidfd_send_signal(process, signal));
                if !matches!(sent, Some(Ok(()))) {
                    self.tell_ended();
                }
            }
            Runs::Unit { systemctl, unit } => {
                let inputs = self.inputs.clone();
                let how = if signal == Signal::KILL { vec!["kill", "-s", "KILL"] } else { vec!["stop"] };
                tokio::spawn(async move {
                    let arguments: Vec<&str> = how.into_iter().chain([unit.as_str()]).collect();
                    if call(&systemctl, &arguments).await {
                        let _told = inputs.send(Input::KubeletEnded).await;
                    }
                });
            }
        }
    }

    fn tell_ended(&self) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let _told = inputs.send(Input::KubeletEnded).await;
        });
    }
}

async fn call(systemctl: &str, arguments: &[&str]) -> bool {
    let status = Command::new(systemctl).args(arguments).stdin(Stdio::null()).status().await;
    match status {
        Ok(status) => status.success(),
        Err(error) => {
            tracing::warn!(%error, systemctl, "cannot be called");
            false
        }
    }
}

/// When a process started, in ticks since the machine did; none if there is no such process, or it waits to be reaped.
fn started(process: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // What comes before may hold anything, parentheses included.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
