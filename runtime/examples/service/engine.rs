//! The measurement, whatever the machine: a broker, the service in a process of its own, and the clients here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use proto::Machine;
use runtime::bus::{BrokerOptions, Bus, Durability};
use runtime::nats::guard::{self, GuardCommand};
use runtime::nats::layout;
use runtime::nats::server::{Server, ServerSpec};
use runtime::runner::{Runnable, View};
use tempfile::TempDir;

use super::client::{self, answers_from_now};
use super::served::{self, Served};
use super::{latency, restart, throughput};

const USAGE: &str = "usage: service [latency [SECONDS] | throughput [SECONDS] | restart [COMMANDS]]";

/// What the empty service is called where a machine would stand.
pub(crate) const EMPTY: &str = "empty";
/// Files of all streams of the broker together, in bytes.
const FILE_STORE_BYTES_MAX: u64 = 32 << 30;

/// What is measured.
pub(crate) trait Workload {
    type Machine: Runnable;
    type View: View<Self::Machine>;
    /// Where commands go.
    const SUBJECT: &'static str;
    /// A question that its view answers.
    const QUESTION: &'static str;
    /// Whether each command is followed by an award to its bid.
    const AWARDS: bool = false;
    /// Subjects and commands that come first.
    fn preparations() -> Vec<(&'static str, String)>;
    /// A command whose id is `c` and its number in ten digits.
    fn command(number: u64) -> String;
}

/// What one run measures.
#[derive(Clone, Copy)]
enum Phase {
    Latency { seconds: u32 },
    Throughput { seconds: u32 },
    Restart { commands: u64 },
}

/// Everything one run needs, from the clients' side.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) sender: Bus,
    pub(crate) receiver: Bus,
    /// Number of the next command.
    next: u64,
    dir: TempDir,
}

/// Runs what the arguments ask for, by default everything.
pub(crate) fn main<W: Workload>() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == guard::SUBCOMMAND).is_some() {
        bail!(guard::exec(arguments.collect::<Vec<OsString>>()));
    }
    if arguments.next_if(|first| first == served::SUBCOMMAND).is_some() {
        return served::main::<W>(arguments);
    }
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let phases = match words.as_slice() {
        [] => vec![phase("latency", None)?, phase("throughput", None)?, phase("restart", None)?],
        [name] => vec![phase(name, None)?],
        [name, number] => vec![phase(name, Some(number))?],
        _ => bail!(USAGE),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("client").enable_all().build()?;
    for phase in phases {
        runtime.block_on(run::<W>(phase))?;
    }
    Ok(())
}

fn phase(name: &str, number: Option<&str>) -> Result<Phase> {
    fn or<T: FromStr>(number: Option<&str>, default: T) -> Result<T> {
        number.map_or(Ok(default), |number| number.parse().ok().context(USAGE))
    }
    match name {
        "latency" => Ok(Phase::Latency { seconds: or(number, 24)? }),
        "throughput" => Ok(Phase::Throughput { seconds: or(number, 36)? }),
        "restart" => Ok(Phase::Restart { commands: or(number, 1_000_000)? }),
        _ => bail!(USAGE),
    }
}

async fn run<W: Workload>(phase: Phase) -> Result<()> {
    let mut world = World::open::<W>().await?;
    let served = Served::start(&world.server, &world.journal_url("journal"))?;
    world.prepare::<W>().await?;
    match phase {
        Phase::Latency { seconds } => latency::measure::<W>(&mut world, seconds).await?,
        Phase::Throughput { seconds } => throughput::measure::<W>(&world, &served, seconds).await?,
        Phase::Restart { commands } => return restart::measure::<W>(world, served, commands).await,
    }
    drop(served);
    world.server.stop().await?;
    Ok(())
}

impl World {
    async fn open<W: Workload>() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = Server::start(ServerSpec {
            max_file_store_bytes: FILE_STORE_BYTES_MAX,
            ..ServerSpec::new(dir.path().join("nats"), GuardCommand::this_program()?)
        })
        .await?;
        let sender = connect(&server.url(), &server.monitoring_url(), "sender").await?;
        let receiver = connect(&server.url(), &server.monitoring_url(), "receiver").await?;
        ensure!(sender.durable().await == Durability::Always, "the server does not sync");
        let machine = W::Machine::NAME;
        for spec in [
            layout::command_stream(machine, "main"),
            layout::event_stream(machine, "main"),
            layout::answer_stream(),
            layout::order_stream(),
            layout::command_stream(EMPTY, "main"),
        ] {
            sender.ensure_stream(&spec).await?;
        }
        Ok(Self { server, sender, receiver, next: 0, dir })
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self, name: &str) -> Result<Bus> {
        connect(&self.server.url(), &self.server.monitoring_url(), name).await
    }

    pub(crate) fn journal_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.db"))
    }

    /// A database in the run's folder; the service's own is called `journal`.
    pub(crate) fn journal_url(&self, name: &str) -> String {
        format!("sqlite:{}", self.journal_file(name).display())
    }

    async fn prepare<W: Workload>(&mut self) -> Result<()> {
        for (number, (subject, payload)) in W::preparations().into_iter().enumerate() {
            let mut reader = answers_from_now(&self.receiver, client::principal(subject)).await?;
            client::publish(&self.sender, subject, &format!("p{number}"), Bytes::from(payload)).await?;
            let answers = reader.next_batch(1, 1 << 20).await?;
            let answer = answers.first().context("no answer")?;
            let text = String::from_utf8_lossy(&answer.payload);
            ensure!(!text.contains(r#""type":"Refused""#), "{text}");
        }
        Ok(())
    }

    /// The numbers of the next commands.
    pub(crate) fn take(&mut self, count: u64) -> std::ops::Range<u64> {
        let first = self.next;
        self.next += count;
        first..self.next
    }
}

pub(crate) async fn connect(url: &str, monitoring_url: &str, name: &str) -> Result<Bus> {
    let mut options = BrokerOptions::new(url, name);
    options.monitoring_url = Some(monitoring_url.to_owned());
    Ok(Bus::connect(options).await?)
}
