//! Starting, failing and stopping in order; signals on a real process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::shell::{Cause, Outcome, Shell, Stage, exit};
use rustix::process::{Pid, Signal, kill_process};

type Log = Arc<Mutex<Vec<&'static str>>>;

/// A task that notes when it is told to stop and when it has.
fn obedient(shell: &mut Shell, log: &Log, name: &'static str, stage: Stage) {
    let log = Arc::clone(log);
    shell.spawn(name, stage, move |mut stop| async move {
        stop.requested().await;
        log.lock().unwrap().push(name);
        Ok(())
    });
}

async fn ended(shell: Shell) -> Outcome {
    tokio::time::timeout(Duration::from_mins(1), shell.wait()).await.expect("the shell stops")
}

#[tokio::test]
async fn tasks_stop_in_the_order_of_their_stages() {
    let mut shell = Shell::bare("market").unwrap();
    let health = shell.health().clone();
    let log = Log::default();
    for (name, stage) in [
        ("admin", Stage::Admin),
        ("broker", Stage::Ground),
        ("runner", Stage::Runner),
        ("follower", Stage::Reader),
        ("gateway", Stage::Entrance),
    ] {
        obedient(&mut shell, &log, name, stage);
    }
    let told = health.clone();
    let not_ready_first = Arc::clone(&log);
    shell.spawn("witness", Stage::Entrance, move |mut stop| async move {
        stop.requested().await;
        assert!(told.is_stopping());
        not_ready_first.lock().unwrap().push("gateway");
        Ok(())
    });
    shell.stopper().stop();
    let outcome = ended(shell).await;
    assert!(matches!(&outcome.cause, Cause::Asked { .. }));
    assert_eq!(outcome.exit_code(), exit::STOPPED);
    assert_eq!(*log.lock().unwrap(), ["gateway", "gateway", "runner", "follower", "broker", "admin"]);
}

#[tokio::test]
async fn the_first_failure_stops_all_and_is_told_with_its_causes() {
    let mut shell = Shell::bare("market").unwrap();
    let log = Log::default();
    obedient(&mut shell, &log, "gateway", Stage::Entrance);
    shell.spawn("runner", Stage::Runner, |_| async {
        let source = std::io::Error::other("disk full");
        Err(anyhow::Error::new(source).context("journal main: append"))
    });
    let outcome = ended(shell).await;
    assert_eq!(outcome.cause.to_string(), "runner: journal main: append: disk full");
    assert_eq!(outcome.exit_code(), exit::FAILED);
    assert_eq!(*log.lock().unwrap(), ["gateway"]);
}

#[tokio::test]
async fn a_panic_is_a_failure() {
    let mut shell = Shell::bare("market").unwrap();
    let log = Log::default();
    obedient(&mut shell, &log, "gateway", Stage::Entrance);
    shell.spawn("runner", Stage::Runner, |_| async { panic!("more units than {}", "supply") });
    let outcome = ended(shell).await;
    assert_eq!(outcome.cause.to_string(), "runner: panicked: more units than supply");
    assert_eq!(outcome.exit_code(), exit::PANICKED);
    assert_eq!(*log.lock().unwrap(), ["gateway"]);
}

#[tokio::test]
async fn ending_unasked_is_a_failure() {
    let mut shell = Shell::bare("market").unwrap();
    shell.spawn("runner", Stage::Runner, |_| async { Ok(()) });
    let outcome = ended(shell).await;
    assert_eq!(outcome.cause.to_string(), "runner: ended without having been asked to");
    assert_eq!(outcome.exit_code(), exit::FAILED);
}

#[tokio::test]
async fn a_task_that_does_not_stop_is_left_behind_and_named() {
    let mut shell = Shell::bare("market").unwrap().with_patience(Duration::from_millis(200));
    let log = Log::default();
    obedient(&mut shell, &log, "broker", Stage::Ground);
    shell.spawn("runner", Stage::Runner, |_| std::future::pending());
    shell.stopper().stop();
    let outcome = ended(shell).await;
    assert_eq!(outcome.overdue, ["runner"]);
    assert_eq!(outcome.exit_code(), exit::OVERDUE);
    assert_eq!(*log.lock().unwrap(), ["broker"], "the others still stop in order");
}

#[tokio::test]
async fn a_failure_on_the_way_out_is_told() {
    let mut shell = Shell::bare("market").unwrap();
    shell.spawn("runner", Stage::Runner, |mut stop| async move {
        stop.requested().await;
        Err(anyhow::anyhow!("claim main: not released"))
    });
    let log = Log::default();
    obedient(&mut shell, &log, "broker", Stage::Ground);
    shell.stopper().stop();
    let outcome = ended(shell).await;
    assert!(matches!(&outcome.cause, Cause::Asked { .. }));
    assert_eq!(outcome.later[0].to_string(), "runner: claim main: not released");
    assert_eq!(outcome.exit_code(), exit::FAILED);
    assert_eq!(*log.lock().unwrap(), ["broker"]);
}

#[tokio::test]
async fn a_later_stage_that_ends_too_early_is_told() {
    let mut shell = Shell::bare("market").unwrap();
    let (gone, wait) = tokio::sync::oneshot::channel();
    shell.spawn("broker", Stage::Ground, |_| async move {
        let _ = wait.await;
        Ok(())
    });
    shell.spawn("runner", Stage::Runner, |mut stop| async move {
        stop.requested().await;
        gone.send(()).unwrap();
        // One thread runs all of this, so this lets the shell see that the broker is gone.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    shell.stopper().stop();
    let outcome = ended(shell).await;
    assert!(matches!(&outcome.cause, Cause::Asked { .. }));
    assert_eq!(outcome.later[0].to_string(), "broker: ended without having been asked to");
}

/// What the tests below run as a process of their own: not a test by itself.
#[tokio::test]
#[ignore = "started by other tests as a process of its own"]
async fn child() {
    let mut shell = Shell::bare("market").unwrap();
    let stubborn = std::env::var_os("SHELL_TEST_STUBBORN").is_some();
    shell.spawn("runner", Stage::Runner, move |mut stop| async move {
        println!("running");
        stop.requested().await;
        println!("stopping");
        if stubborn {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    shell.wait().await.exit()
}

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(stubborn: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if stubborn {
            command.env("SHELL_TEST_STUBBORN", "1");
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Reads lines until this one came.
    fn says(&mut self, wanted: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the process ended before it said {wanted}"
            );
            if line.trim() == wanted {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit_code(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

#[test]
fn signals_stop_a_process_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(false);
        process.says("running");
        process.signal(signal);
        process.says("stopping");
        assert_eq!(process.exit_code(), i32::from(exit::STOPPED));
    }
}

#[test]
fn a_second_signal_ends_a_process_at_once() {
    let mut process = Process::start(true);
    process.says("running");
    process.signal(Signal::INT);
    process.says("stopping");
    process.signal(Signal::INT);
    assert_eq!(process.exit_code(), i32::from(exit::KILLED));
}
