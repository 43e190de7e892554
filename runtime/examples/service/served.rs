//! The service under measurement, in a process of its own: the real runner, and the empty service beside it.

use std::ffi::OsString;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Result, bail};
use journal::{Journal, Owner};
use proto::StreamName;
use runtime::bus::Bus;
use runtime::config::{RunnerSettings, TelemetrySettings};
use runtime::nats::server::Server;
use runtime::runner::Runner;
use runtime::shell::Stop;
use runtime::telemetry::Meter;

use super::engine::{Workload, connect};
use super::floors;

/// First argument of the process.
pub(crate) const SUBCOMMAND: &str = "serve";

/// The running process; dropping it kills it.
pub(crate) struct Served {
    child: Child,
}

impl Served {
    pub(crate) fn start(server: &Server, journal_url: &str) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([SUBCOMMAND, &server.url(), &server.monitoring_url(), journal_url])
            // Its end is how the process learns that this one is gone.
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // SIGKILL; that it is gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process.
pub(crate) fn main<W: Workload>(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let [url, monitoring_url, journal_url] = words.as_slice() else { bail!("three words are wanted") };
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("service").enable_all().build()?;
    runtime.spawn(async {
        // Started by nobody any more: nobody is left to say so to.
        let gone = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = gone.await;
        std::process::exit(0);
    });
    runtime::telemetry::init(&TelemetrySettings { filter: "warn".to_owned(), ..Default::default() })?;
    runtime.block_on(async {
        let bus = connect(url, monitoring_url, "service").await?;
        let journal = Journal::open(journal_url).await?;
        tokio::spawn(floors::empty_service(bus.clone(), journal.clone()));
        serve::<W>(bus, journal).await
    })
}

async fn serve<W: Workload>(bus: Bus, journal: Journal) -> Result<()> {
    let meter = Meter::new("market")?;
    let stream: StreamName = "main".parse()?;
    let settings = RunnerSettings { archive_dir: None, ..RunnerSettings::default() };
    // Always the same owner: one that was killed is followed at once, without waiting for its claim to run out.
    let owner = Owner::new("bench")?;
    let runner = Runner::<W::Machine, W::View>::new(&bus, &journal, stream, owner, settings, &meter)?;
    let (_stop, stopped) = Stop::new();
    runner.run(stopped).await;
    Ok(())
}
