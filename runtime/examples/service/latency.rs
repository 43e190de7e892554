//! How long a command takes to its answer, and to its bid's award, beside the empty service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use runtime::batcher::Batcher;
use runtime::bus::Bus;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{ANSWER_WAIT, answers_from_now, nanos, principal, publish, quantile};
use super::engine::{Workload, World};
use super::floors::EMPTY_SUBJECT;

/// Rates, in commands per second, and how commands are sent.
const CASES: [(u32, Sending); 3] =
    [(100, Sending::Singly), (2_000, Sending::Singly), (2_000, Sending::Batched)];
/// Service and empty service take turns of so many seconds, so that noise hits both.
const SLICE_SECONDS: u32 = 3;
/// Commands between who keeps the time and who sends.
const DUE_MAX: usize = 1_024;

/// How a client sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Each command a message of its own.
    Singly,
    /// Through the batcher that our gateway uses: what queues while a message is being stored goes as the next.
    Batched,
}

/// Of one case, in nanoseconds.
#[derive(Default)]
struct Latencies {
    answered: Vec<u64>,
    awarded: Vec<u64>,
}

impl Latencies {
    fn add(&mut self, other: Self) {
        self.answered.extend(other.answered);
        self.awarded.extend(other.awarded);
    }
}

/// One slice.
struct Slice {
    subject: &'static str,
    first: u64,
    count: u64,
    per_second: u32,
    sending: Sending,
    command: fn(u64) -> String,
    awards: bool,
}

/// Measures every case for so many seconds on each side.
pub(crate) async fn measure<W: Workload>(world: &mut World, seconds: u32) -> Result<()> {
    println!("latency from sending a command to reading what it leads to");
    for (per_second, sending) in CASES {
        let (mut of_empty, mut of_service) = (Latencies::default(), Latencies::default());
        let slice_seconds = SLICE_SECONDS.min(seconds.max(1));
        for slice in 0..=seconds / slice_seconds {
            let count = u64::from(per_second * slice_seconds);
            let slice_of = |subject, awards, first| Slice {
                subject,
                first,
                count,
                per_second,
                sending,
                command: W::command,
                awards,
            };
            let empty = slice_of(EMPTY_SUBJECT, false, world.take(count).start);
            let empty = run(&world.sender, &world.receiver, empty).await?;
            let service = slice_of(W::SUBJECT, W::AWARDS, world.take(count).start);
            let service = run(&world.sender, &world.receiver, service).await?;
            // The first slice warms up.
            if slice > 0 {
                of_empty.add(empty);
                of_service.add(service);
            }
        }
        let floor = report(per_second, sending, "empty service", &mut of_empty.answered, None);
        report(per_second, sending, "answered", &mut of_service.answered, Some(floor));
        if W::AWARDS {
            report(per_second, sending, "awarded", &mut of_service.awarded, Some(floor));
        }
    }
    Ok(())
}

fn report(
    per_second: u32,
    sending: Sending,
    what: &str,
    values: &mut [u64],
    floor: Option<(f64, f64)>,
) -> (f64, f64) {
    let (p50, p99) = (quantile(values, 0.5), quantile(values, 0.99));
    let over = floor.unwrap_or((p50, p99));
    let rounded = |value: f64, digits: f64| (value * digits).round() / digits;
    let line = json!({
        "per_second": per_second,
        "sent": if sending == Sending::Singly { "singly" } else { "batched" },
        "what": what,
        "p50_milliseconds": rounded(p50, 1e3),
        "p99_milliseconds": rounded(p99, 1e3),
        "p50_over_empty": rounded(p50 / over.0, 1e2),
        "p99_over_empty": rounded(p99 / over.1, 1e2),
        "samples": values.len(),
    });
    println!("{line}");
    (p50, p99)
}

/// Sends at the slice's rate and measures from the instant at which a command is due.
async fn run(sender: &Bus, receiver: &Bus, slice: Slice) -> Result<Latencies> {
    let mut reader = answers_from_now(receiver, principal(slice.subject)).await?;
    let Slice { first, count, awards, .. } = slice;
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect());
    let start = Instant::now();
    let reading = {
        let (sent, count) = (Arc::clone(&sent), count as usize);
        tokio::spawn(async move {
            let mut latencies = Latencies::default();
            while latencies.answered.len() < count || (awards && latencies.awarded.len() < count) {
                let batch = tokio::time::timeout(ANSWER_WAIT, reader.next_batch(4_096, 8 << 20)).await;
                let batch =
                    batch.with_context(|| format!("{} of {count} answered", latencies.answered.len()))??;
                let now = nanos(start);
                for delivery in batch {
                    note(&delivery.payload, first, &sent, now, &mut latencies)?;
                }
            }
            anyhow::Ok(latencies)
        })
    };
    send(sender, &slice, &sent, start).await?;
    reading.await?
}

async fn send(sender: &Bus, slice: &Slice, sent: &Arc<Vec<AtomicU64>>, start: Instant) -> Result<()> {
    let mut due = clock(slice.per_second, slice.count);
    let batcher = (slice.sending == Sending::Batched)
        .then(|| Batcher::start(sender.clone(), slice.subject.to_owned(), format!("b{}", slice.first)));
    let mut flying = JoinSet::new();
    while let Some(place) = due.recv().await {
        if let Some(sent) = sent.get(place as usize) {
            sent.store(nanos(start), Ordering::Relaxed);
        }
        let number = slice.first + place;
        let (sender, subject, batcher) = (sender.clone(), slice.subject, batcher.clone());
        let payload = Bytes::from((slice.command)(number));
        flying.spawn(async move {
            match batcher {
                Some(batcher) => Ok(batcher.send(payload).await.map(drop)?),
                None => publish(&sender, subject, &format!("l{number}"), payload).await,
            }
        });
        while let Some(done) = flying.try_join_next() {
            done??;
        }
    }
    while let Some(done) = flying.join_next().await {
        done??;
    }
    Ok(())
}

/// Says when the next command is due, from a thread of its own: the runtime's timers count whole milliseconds.
fn clock(per_second: u32, count: u64) -> mpsc::Receiver<u64> {
    let (out, due) = mpsc::channel(DUE_MAX);
    std::thread::spawn(move || {
        let start = Instant::now();
        for place in 0..count {
            let at = Duration::from_secs_f64(place as f64 / f64::from(per_second));
            std::thread::sleep(at.saturating_sub(start.elapsed()));
            if out.blocking_send(place).is_err() {
                return;
            }
        }
    });
    due
}

/// What of an answer is looked at.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(default)]
    id: Option<&'a str>,
    #[serde(default)]
    bid: Option<&'a str>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    answers: Vec<&'a RawValue>,
}

fn note(payload: &[u8], first: u64, sent: &[AtomicU64], now: u64, latencies: &mut Latencies) -> Result<()> {
    let message: Message<'_> = serde_json::from_slice(payload)?;
    for answer in message.answers {
        let told: Told<'_> = serde_json::from_str(answer.get())?;
        ensure!(told.kind != "Refused", "refused: {answer}");
        let award = told.kind == "Awarded";
        let name = if award { told.bid } else { told.id };
        let number = name.and_then(|id| id.strip_prefix('c')).and_then(|id| id.parse::<u64>().ok());
        let Some(at) = number.and_then(|number| sent.get(number.checked_sub(first)? as usize)) else {
            continue;
        };
        let taken = now.saturating_sub(at.load(Ordering::Relaxed));
        if award { latencies.awarded.push(taken) } else { latencies.answered.push(taken) }
    }
    Ok(())
}
