//! The measurement, whatever the machine.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use journal::{Journal, Owner};
use proto::{Machine, StreamName};
use runtime::bus::{BrokerOptions, Bus, Durability};
use runtime::config::RunnerSettings;
use runtime::nats::guard::{self, GuardCommand};
use runtime::nats::layout;
use runtime::nats::server::{Server, ServerSpec};
use runtime::runner::{Runnable, Runner, View, journal_stream};
use runtime::shell::Stop;
use runtime::telemetry::Meter;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::{self, Latencies, answers_from_now, at_rate, flat_out, quantile};
use super::floors;

/// Commands in one envelope.
const ENVELOPE_COMMANDS: u64 = 1_024;
/// Envelopes on their way to the broker at once.
const ENVELOPES_IN_FLIGHT: usize = 4;
/// Rates at which latency is measured, per second.
const RATES: [u32; 2] = [100, 2_000];
/// Service and empty service take turns this often, so that noise hits both.
const SLICES: u32 = 3;
/// Single commands of the one-command-per-message measurement.
const SINGLES: u64 = 6_000;
/// Single commands on their way to the broker at once.
const SINGLES_IN_FLIGHT: usize = 64;

/// What is measured.
pub(crate) trait Workload {
    type Machine: Runnable;
    type View: View<Self::Machine>;
    /// Where commands go.
    const SUBJECT: &'static str;
    /// Whether each command is followed by an award to its bid.
    const AWARDS: bool = false;
    /// Subjects and commands that come first.
    fn preparations() -> Vec<(&'static str, String)>;
    /// A command whose id is `c` and its number.
    fn command(number: u64) -> String;
}

struct Running {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
    meter: Meter,
}

struct Bench {
    /// The service's connection, and two of its clients.
    service: Bus,
    sender: Bus,
    receiver: Bus,
    journal: Journal,
    next: u64,
}

/// Runs the whole measurement: `[SECONDS]` per latency phase (default 9), `[COMMANDS]` flat out (default
/// 1,200,000).
pub(crate) fn main<W: Workload>() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == guard::SUBCOMMAND).is_some() {
        bail!(guard::exec(arguments.collect::<Vec<OsString>>()));
    }
    let numbers: Vec<u64> = arguments
        .map(|number| number.to_string_lossy().parse())
        .collect::<Result<_, _>>()
        .context("usage: service [SECONDS] [COMMANDS]")?;
    let seconds = numbers.first().copied().unwrap_or(9);
    let commands = numbers.get(1).copied().unwrap_or(1_200_000).next_multiple_of(ENVELOPE_COMMANDS);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure::<W>(seconds as u32, commands))
}

async fn measure<W: Workload>(seconds: u32, commands: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::start(ServerSpec {
        max_file_store_bytes: 16 << 30,
        ..ServerSpec::new(dir.path().join("nats"), GuardCommand::this_program()?)
    })
    .await?;
    let mut bench = Bench::open::<W>(&server, dir.path()).await?;
    let running = bench.start::<W>()?;
    bench.prepare::<W>().await?;
    bench.latency::<W>(seconds).await?;
    let ratio_floor = bench.throughput::<W>(commands, &running).await?;
    bench.restart::<W>(running).await?;
    println!("{ratio_floor}");
    server.stop().await?;
    Ok(())
}

impl Bench {
    async fn open<W: Workload>(server: &Server, dir: &Path) -> Result<Self> {
        let connect = |name: &str| {
            let mut options = BrokerOptions::new(server.url(), name);
            options.monitoring_url = Some(server.monitoring_url());
            Bus::connect(options)
        };
        let service = connect("service").await?;
        ensure!(service.durable().await == Durability::Always, "the server does not sync");
        let machine = W::Machine::NAME;
        for spec in [
            layout::command_stream(machine, "main"),
            layout::event_stream(machine, "main"),
            layout::answer_stream(),
            layout::order_stream(),
            layout::command_stream("empty", "main"),
        ] {
            service.ensure_stream(&spec).await?;
        }
        let journal = Journal::open(&format!("sqlite:{}", dir.join("journal.db").display())).await?;
        let (sender, receiver) = (connect("sender").await?, connect("receiver").await?);
        Ok(Self { service, sender, receiver, journal, next: 0 })
    }

    fn start<W: Workload>(&self) -> Result<Running> {
        let meter = Meter::new("market")?;
        let stream: StreamName = "main".parse()?;
        let owner = Owner::new("bench")?;
        let settings = RunnerSettings { archive_dir: None, ..RunnerSettings::default() };
        let runner = Runner::<W::Machine, W::View>::new(
            &self.service,
            &self.journal,
            stream,
            owner,
            settings,
            &meter,
        )?;
        let (sender, stop) = Stop::new();
        Ok(Running { task: tokio::spawn(runner.run(stop)), stop: sender, meter })
    }

    async fn prepare<W: Workload>(&mut self) -> Result<()> {
        for (number, (subject, payload)) in W::preparations().into_iter().enumerate() {
            let principal = subject.rsplit('.').next().unwrap_or_default();
            let mut reader = answers_from_now(&self.receiver, principal).await?;
            client::publish(&self.sender, subject, &format!("p{number}"), Bytes::from(payload)).await?;
            let answers = reader.next_batch(1, 1 << 20).await?;
            let answer = answers.first().context("no answer")?;
            let text = String::from_utf8_lossy(&answer.payload);
            ensure!(!text.contains(r#""type":"Refused""#), "{text}");
        }
        Ok(())
    }

    fn take(&mut self, count: u64) -> std::ops::Range<u64> {
        let first = self.next;
        self.next += count;
        first..self.next
    }

    async fn latency<W: Workload>(&mut self, seconds: u32) -> Result<()> {
        let empty = floors::empty_service(self.service.clone(), self.journal.clone());
        println!("latency from sending a command to reading its answer, milliseconds");
        println!("| per second | | p50 | p99 | samples |\n|---|---|---|---|---|");
        for rate in RATES {
            let (mut of_empty, mut of_service) = (Latencies::default(), Latencies::default());
            for slice in 0..=SLICES {
                let count = u64::from(rate * seconds / SLICES);
                let buses = (&self.sender, &self.receiver);
                let (one, other) = (self.next..self.next + count, self.next + count..self.next + 2 * count);
                let empty_slice = at_rate(buses, floors::EMPTY_SUBJECT, one, rate, W::command, false).await?;
                let slice_of_service = at_rate(buses, W::SUBJECT, other, rate, W::command, W::AWARDS).await?;
                self.take(2 * count);
                // The first slice warms up.
                if slice > 0 {
                    of_empty.add(empty_slice);
                    of_service.add(slice_of_service);
                }
            }
            let show = |name: &str, values: &mut Vec<u64>| {
                let (p50, p99) = (quantile(values, 0.5), quantile(values, 0.99));
                println!("| {rate} | {name} | {p50:.3} | {p99:.3} | {} |", values.len());
                (p50, p99)
            };
            let floor = show("empty service", &mut of_empty.answered);
            let answered = show("answered", &mut of_service.answered);
            println!(
                "| {rate} | answered / empty | {:.2} | {:.2} | |",
                answered.0 / floor.0,
                answered.1 / floor.1
            );
            if W::AWARDS {
                let awarded = show("awarded", &mut of_service.awarded);
                println!(
                    "| {rate} | awarded / empty | {:.2} | {:.2} | |",
                    awarded.0 / floor.0,
                    awarded.1 / floor.1
                );
            }
        }
        empty.abort();
        Ok(())
    }

    async fn throughput<W: Workload>(&mut self, commands: u64, running: &Running) -> Result<String> {
        let numbers = self.take(commands);
        let singles = self.take(SINGLES);
        let payloads: Vec<Bytes> = numbers
            .step_by(ENVELOPE_COMMANDS as usize)
            .map(|first| {
                let commands: Vec<_> = (first..first + ENVELOPE_COMMANDS).map(W::command).collect();
                Bytes::from(format!(r#"{{"commands":[{}]}}"#, commands.join(",")))
            })
            .collect();
        let bytes = payloads.first().map_or(0, Bytes::len);
        let floor_payloads: Vec<Bytes> = payloads.iter().take(400).cloned().collect();
        let buses = (&self.sender, &self.receiver);
        let broker = floors::broker(buses, "floor", &floor_payloads, ENVELOPES_IN_FLIGHT).await?;
        let rows_before = applied(running);
        let cpu_before = cpu_seconds();
        let (taken, stored) =
            flat_out(buses, W::SUBJECT, payloads, ENVELOPES_IN_FLIGHT, commands as usize, "t").await?;
        let rate = commands as f64 / taken.as_secs_f64();
        let cpu = cpu_seconds() - cpu_before;
        let rows = applied(running) - rows_before;
        let (input, events) = self.last_row::<W>().await?;
        let journal = floors::journal(&self.journal, input, events, Duration::from_secs(2)).await?;
        let single_payloads: Vec<Bytes> = singles.map(|number| Bytes::from(W::command(number))).collect();
        let floor_singles = floors::broker(buses, "single", &single_payloads, SINGLES_IN_FLIGHT).await?;
        let (single_taken, _) =
            flat_out(buses, W::SUBJECT, single_payloads, SINGLES_IN_FLIGHT, SINGLES as usize, "s").await?;
        let single = SINGLES as f64 / single_taken.as_secs_f64();
        let per_envelope = ENVELOPE_COMMANDS as f64;
        let lower = broker.min(journal) * per_envelope;
        let lines = [
            format!("\nthroughput with envelopes of {ENVELOPE_COMMANDS} commands, {bytes} bytes"),
            format!("| | commands per second |\n|---|---|\n| service, sent to answered | {rate:.0} |"),
            format!(
                "| storing the commands, while the service runs | {:.0} |",
                commands as f64 / stored.as_secs_f64()
            ),
            format!("| broker alone, publish and read | {:.0} |", broker * per_envelope),
            format!("| journal alone, rows of {} bytes | {:.0} |", input + events, journal * per_envelope),
            format!("| broker alone, one command a message | {floor_singles:.0} |"),
            format!("| service, one command a message | {single:.0} |"),
            format!("| service / lower floor | {:.2} |", rate / lower),
            format!("| envelopes / one command a message, broker alone | {:.0} |", rate / floor_singles),
            format!("| envelopes / one command a message, service | {:.0} |", rate / single),
            format!("| rows | {rows} |"),
            // Says what a busy machine hides: service, journal, both clients, but not the broker.
            format!("| CPU of this process per command, microseconds | {:.2} |", cpu * 1e6 / commands as f64),
        ];
        Ok(lines.join("\n"))
    }

    /// Bytes of input and events of the newest full row.
    async fn last_row<W: Workload>(&self) -> Result<(usize, usize)> {
        let name = journal_stream::<W::Machine>(&"main".parse()?);
        let head = self.journal.head(&name).await?.context("no rows")?;
        let rows = self.journal.load_from(&name, head.seq.saturating_sub(20), 20, 64 << 20).await?;
        let largest = rows.iter().max_by_key(|row| row.input.len()).context("no rows")?;
        Ok((largest.input.len(), largest.events.len()))
    }

    async fn restart<W: Workload>(&mut self, running: Running) -> Result<()> {
        let name = journal_stream::<W::Machine>(&"main".parse()?);
        let head = self.journal.head(&name).await?.context("no rows")?;
        let snapshot = gauge(&running.meter, "walras_market_snapshot_sequence");
        // As kill -9 would.
        running.task.abort();
        let _ = running.task.await;
        drop(running.stop);
        let number = self.take(1).start;
        let mut reader =
            answers_from_now(&self.receiver, W::SUBJECT.rsplit('.').next().unwrap_or_default()).await?;
        let begun = Instant::now();
        let running = self.start::<W>()?;
        client::publish(&self.sender, W::SUBJECT, "restart", Bytes::from(W::command(number))).await?;
        let wanted = format!(r#""id":"c{number}""#);
        loop {
            let batch = reader.next_batch(64, 1 << 20).await?;
            if batch.iter().any(|delivery| String::from_utf8_lossy(&delivery.payload).contains(&wanted)) {
                break;
            }
        }
        println!(
            "\nrestart with {number} commands in {} rows, newest snapshot at row {snapshot}: first answer after {:.2} s (load {:.2} s)",
            head.seq,
            begun.elapsed().as_secs_f64(),
            gauge(&running.meter, "walras_market_load_duration_seconds"),
        );
        running.stop.send_replace(true);
        running.task.await?;
        Ok(())
    }
}

/// CPU time of this process so far, as Linux tells it in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which ends with the last bracket: state is the first field, user and system time the
    // 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn applied(running: &Running) -> f64 {
    gauge(&running.meter, "walras_market_applied_sequence")
}

fn gauge(meter: &Meter, name: &str) -> f64 {
    let text = meter.text().unwrap_or_default();
    let line = text.lines().find(|line| line.split(['{', ' ']).next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
}
