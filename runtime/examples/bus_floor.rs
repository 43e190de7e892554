//! How fast the broker alone is: publish, sync, acknowledge, read. Others are measured against this.
//!
//! `cargo run --release -p runtime --example bus_floor -- PAYLOAD_BYTES IN_FLIGHT [MESSAGES] [PER_SECOND]`
//!
//! A server of our own with durable settings in a temporary folder (its file system is what is measured), one
//! publisher with so many publishes in flight, one reader on another connection; then everything is read once
//! more. With `PER_SECOND` messages are published at that rate instead of as fast as acknowledgements come.
//! Prints one line of JSON.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use runtime::bus::{BrokerOptions, Bus, Durability, StreamSpec};
use runtime::nats::guard::{self, GuardCommand};
use runtime::nats::server::{Server, ServerSpec};
use tokio::task::JoinSet;

const USAGE: &str = "usage: bus_floor PAYLOAD_BYTES IN_FLIGHT [MESSAGES] [PER_SECOND]";

struct Plan {
    payload_bytes: usize,
    in_flight: usize,
    messages: usize,
    per_second: Option<u32>,
}

fn plan() -> anyhow::Result<Plan> {
    let numbers: Vec<usize> =
        std::env::args().skip(1).map(|number| number.parse()).collect::<Result<_, _>>().context(USAGE)?;
    let (payload_bytes, in_flight, rest) = match numbers.as_slice() {
        [payload_bytes, in_flight, rest @ ..] if rest.len() <= 2 => (*payload_bytes, *in_flight, rest),
        _ => bail!(USAGE),
    };
    ensure!(
        in_flight > 0 && (8..=768 * 1024).contains(&payload_bytes),
        "PAYLOAD_BYTES is 8 to 786432, IN_FLIGHT at least 1"
    );
    let messages = rest.first().copied().unwrap_or(2_000).max(10);
    let per_second = rest.get(1).map(|rate| u32::try_from(*rate)).transpose()?.filter(|rate| *rate > 0);
    Ok(Plan { payload_bytes, in_flight, messages, per_second })
}

#[allow(clippy::print_stderr, reason = "one line for whoever started it")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bus_floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == guard::SUBCOMMAND).is_some() {
        bail!(guard::exec(arguments.collect::<Vec<OsString>>()));
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(plan()?))
}

async fn measure(plan: Plan) -> anyhow::Result<()> {
    let dir = std::env::temp_dir().join(format!("bus-floor-{}", std::process::id()));
    let outcome = measure_in(plan, dir.clone()).await;
    let _ = std::fs::remove_dir_all(dir);
    outcome
}

async fn measure_in(plan: Plan, dir: PathBuf) -> anyhow::Result<()> {
    let server = Server::start(ServerSpec::new(dir, GuardCommand::this_program()?)).await?;
    let connect = |name: &str| {
        let mut options = BrokerOptions::new(server.url(), name);
        options.monitoring_url = Some(server.monitoring_url());
        Bus::connect(options)
    };
    let (publisher, subscriber) = (connect("publisher").await?, connect("reader").await?);
    ensure!(
        publisher.durable().await == Durability::Always,
        "the server does not sync before it acknowledges"
    );
    publisher.ensure_stream(&StreamSpec { max_bytes: 8 << 30, ..StreamSpec::new("floor", "floor") }).await?;
    let mut reader = subscriber.read("floor", ">", None).await?;

    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..plan.messages).map(|_| AtomicU64::new(0)).collect());
    let start = Instant::now();
    let reading = {
        let (sent, messages) = (Arc::clone(&sent), plan.messages);
        tokio::spawn(async move {
            let mut hops = Vec::with_capacity(messages);
            while hops.len() < messages {
                for delivery in reader.next_batch(4_096, 8 << 20).await? {
                    let number =
                        delivery.payload.first_chunk::<8>().map_or(0, |number| u64::from_le_bytes(*number));
                    let sent = sent.get(usize::try_from(number)?).context("a message nobody sent")?;
                    hops.push(nanos(start) - sent.load(Ordering::Relaxed));
                }
            }
            anyhow::Ok((hops, start.elapsed()))
        })
    };
    let mut acknowledged = publish_all(&plan, &publisher, &sent, start).await?;
    let published = start.elapsed();
    let (mut hops, read) = reading.await??;
    let replayed = replay(&plan, &subscriber).await?;
    report(&plan, [published, read, replayed], &mut acknowledged, &mut hops);
    server.stop().await?;
    Ok(())
}

/// Publishes everything and gives how long each acknowledgement took, in nanoseconds.
async fn publish_all(
    plan: &Plan,
    publisher: &Bus,
    sent: &Arc<Vec<AtomicU64>>,
    start: Instant,
) -> anyhow::Result<Vec<u64>> {
    let mut ticks = plan.per_second.map(|rate| tokio::time::interval(Duration::from_secs(1) / rate));
    let mut flying = JoinSet::new();
    let mut acknowledged = Vec::with_capacity(plan.messages);
    for number in 0..plan.messages {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        while flying.len() >= plan.in_flight {
            acknowledged.extend(flying.join_next().await.transpose()?.transpose()?);
        }
        let (publisher, sent) = (publisher.clone(), Arc::clone(sent));
        let mut payload = vec![0_u8; plan.payload_bytes];
        payload.iter_mut().zip((number as u64).to_le_bytes()).for_each(|(byte, head)| *byte = head);
        flying.spawn(async move {
            let at = nanos(start);
            if let Some(sent) = sent.get(number) {
                sent.store(at, Ordering::Relaxed);
            }
            publisher.publish("floor", &number.to_string(), &[], Bytes::from(payload)).await?;
            anyhow::Ok(nanos(start) - at)
        });
    }
    while let Some(outcome) = flying.join_next().await {
        acknowledged.push(outcome??);
    }
    Ok(acknowledged)
}

/// How long reading everything again takes, with nothing published meanwhile.
async fn replay(plan: &Plan, bus: &Bus) -> anyhow::Result<Duration> {
    let mut reader = bus.read("floor", ">", None).await?;
    let start = Instant::now();
    let mut read = 0;
    while read < plan.messages {
        read += reader.next_batch(4_096, 8 << 20).await?.len();
    }
    Ok(start.elapsed())
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[allow(clippy::print_stdout, reason = "the report is this program's output")]
fn report(
    plan: &Plan,
    [published, read, replayed]: [Duration; 3],
    acknowledged: &mut [u64],
    hops: &mut [u64],
) {
    let per_second = |count: f64, over: Duration| count / over.as_secs_f64();
    let count = plan.messages as f64;
    let megabytes = count * plan.payload_bytes as f64 / 1e6;
    println!(
        "{}",
        serde_json::json!({
            "payload_bytes": plan.payload_bytes,
            "in_flight": plan.in_flight,
            "messages": plan.messages,
            "published_per_second": per_second(count, published).round(),
            "read_per_second": per_second(count, read).round(),
            "read_megabytes_per_second": (per_second(megabytes, read) * 10.0).round() / 10.0,
            "replayed_per_second": per_second(count, replayed).round(),
            "replayed_megabytes_per_second": (per_second(megabytes, replayed) * 10.0).round() / 10.0,
            "acknowledged_microseconds": { "p50": percentile(acknowledged, 50), "p99": percentile(acknowledged, 99) },
            "published_to_read_microseconds": { "p50": percentile(hops, 50), "p99": percentile(hops, 99) },
        })
    );
}

fn percentile(nanos: &mut [u64], percent: usize) -> u64 {
    nanos.sort_unstable();
    nanos.get((nanos.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default() / 1_000
}
