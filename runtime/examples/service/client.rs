//! A storefront that sends at a rate, or as fast as it is served, and watches its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use runtime::bus::{Bus, PublishError, Reader};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

/// Longest wait for the next answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

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

/// Latencies of one phase, in nanoseconds.
#[derive(Default)]
pub(crate) struct Latencies {
    pub(crate) answered: Vec<u64>,
    pub(crate) awarded: Vec<u64>,
}

impl Latencies {
    pub(crate) fn add(&mut self, other: Self) {
        self.answered.extend(other.answered);
        self.awarded.extend(other.awarded);
    }
}

/// The given share of the values is at most this many milliseconds.
pub(crate) fn quantile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    let at = ((values.len() as f64 - 1.0) * share).round() as usize;
    values.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
}

/// The answers to `principal` from now on.
pub(crate) async fn answers_from_now(bus: &Bus, principal: &str) -> Result<Reader> {
    let state = bus.stream_state("walras-answer").await?;
    let after = runtime::bus::Position { created: state.created, sequence: state.last };
    let after = (state.last > 0).then_some(after);
    Ok(bus.read("walras-answer", &format!("walras.v1.answer.{principal}"), after).await?)
}

/// Publishes until the broker has it.
pub(crate) async fn publish(bus: &Bus, subject: &str, id: &str, payload: Bytes) -> Result<()> {
    const ATTEMPTS_MAX: u32 = 1_000;
    for _ in 0..ATTEMPTS_MAX {
        match bus.publish(subject, id, &[], payload.clone()).await {
            Ok(_) => return Ok(()),
            Err(PublishError::Ambiguous { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("{id} was never stored")
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Sends commands `first..first + count`, `per_second` one by one, and measures from sending to reading the
/// answer, and to reading the award if there are awards.
pub(crate) async fn at_rate(
    buses: (&Bus, &Bus),
    subject: &str,
    numbers: std::ops::Range<u64>,
    per_second: u32,
    command: fn(u64) -> String,
    awards: bool,
) -> Result<Latencies> {
    let (sender, receiver) = buses;
    let principal = subject.rsplit('.').next().unwrap_or_default();
    let mut reader = answers_from_now(receiver, principal).await?;
    let (first, count) = (numbers.start, (numbers.end - numbers.start) as usize);
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect());
    let start = Instant::now();
    let reading = {
        let sent = Arc::clone(&sent);
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
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut flying = JoinSet::new();
    for number in numbers {
        ticks.tick().await;
        let (sender, sent, subject) = (sender.clone(), Arc::clone(&sent), subject.to_owned());
        let payload = Bytes::from(command(number));
        flying.spawn(async move {
            if let Some(sent) = sent.get((number - first) as usize) {
                sent.store(nanos(start), Ordering::Relaxed);
            }
            publish(&sender, &subject, &format!("l{number}"), payload).await
        });
        while let Some(done) = flying.try_join_next() {
            done??;
        }
    }
    while let Some(done) = flying.join_next().await {
        done??;
    }
    reading.await?
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

/// Sends `payloads` with so many in flight, and waits until `count` commands are answered. Gives the time from
/// the first sending to the last answer, and to the last acknowledgement of the broker.
pub(crate) async fn flat_out(
    buses: (&Bus, &Bus),
    subject: &str,
    payloads: Vec<Bytes>,
    in_flight: usize,
    count: usize,
    name: &str,
) -> Result<(Duration, Duration)> {
    let (sender, receiver) = buses;
    let principal = subject.rsplit('.').next().unwrap_or_default();
    let mut reader = answers_from_now(receiver, principal).await?;
    let start = Instant::now();
    let reading = tokio::spawn(async move {
        let mut answered = 0;
        while answered < count {
            let batch = tokio::time::timeout(ANSWER_WAIT, reader.next_batch(4_096, 8 << 20)).await;
            let batch = batch.with_context(|| format!("{answered} of {count} answered"))??;
            // Only counted: a storefront's own reading is not what is measured.
            answered += batch.iter().map(|delivery| ids(&delivery.payload)).sum::<usize>();
        }
        anyhow::Ok(start.elapsed())
    });
    let mut flying = JoinSet::new();
    for (number, payload) in payloads.into_iter().enumerate() {
        while flying.len() >= in_flight {
            flying.join_next().await.transpose()?.transpose()?;
        }
        let (sender, subject, id) = (sender.clone(), subject.to_owned(), format!("{name}{number}"));
        flying.spawn(async move { publish(&sender, &subject, &id, payload).await });
    }
    while let Some(done) = flying.join_next().await {
        done??;
    }
    let stored = start.elapsed();
    Ok((reading.await??, stored))
}

/// How many command ids an answer message names. An award names its bid otherwise.
fn ids(payload: &[u8]) -> usize {
    std::str::from_utf8(payload).map_or(0, |text| text.matches(r#""id":"c"#).count())
}
