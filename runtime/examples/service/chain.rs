//! A floor in which broker, journal and clients share the machine as they do under the service: the same chain with
//! nothing decided in its middle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt};
use journal::{Appended, Journal, Owner};
use runtime::bus::{Bus, Reader, StreamSpec};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::client::{ANSWER_WAIT, publish};
use super::floors::{FLOOR_BYTES_MAX, row};

/// Messages that the middle has on their way to the broker at once.
const IN_FLIGHT: usize = 8;
/// Rows committed ahead of their messages.
const ROWS_AHEAD: usize = 8;
const STREAMS: [&str; 3] = ["chain-in", "chain-answers", "chain-events"];

/// What the service makes of an envelope, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    /// Of its row, as it is stored.
    pub(crate) input: usize,
    pub(crate) events: usize,
    /// Of its messages, as the broker keeps them.
    pub(crate) answers_told: usize,
    pub(crate) events_told: usize,
}

/// The clients' side: who sends, who reads, and how much is on its way.
pub(crate) struct Clients<'a> {
    pub(crate) sender: &'a Bus,
    pub(crate) receiver: &'a Bus,
    pub(crate) in_flight: usize,
    pub(crate) unanswered_max: usize,
}

/// Envelopes per second from sending them to reading the message that stands for their answers, for so long.
pub(crate) async fn chain(
    clients: Clients<'_>,
    middle: Bus,
    journal: Journal,
    weights: Weights,
    lasting: Duration,
    mut payload: impl FnMut() -> Bytes,
) -> Result<f64> {
    for name in STREAMS {
        let spec = StreamSpec { max_bytes: FLOOR_BYTES_MAX, ..StreamSpec::new(name, name) };
        middle.ensure_stream(&spec).await?;
    }
    let envelopes = middle.read(STREAMS[0], STREAMS[0], None).await?;
    let answers = clients.receiver.read(STREAMS[1], STREAMS[1], None).await?;
    let (out, rows) = mpsc::channel(ROWS_AHEAD);
    let mut serving = JoinSet::new();
    serving.spawn(commit(envelopes, journal, weights, out));
    serving.spawn(tell(middle, weights, rows));
    let room = Arc::new(Semaphore::new(clients.unanswered_max));
    let begun = Instant::now();
    let (count_out, count_in) = tokio::sync::watch::channel(u64::MAX);
    let reading = tokio::spawn(read(answers, Arc::clone(&room), count_in));
    let mut flying = JoinSet::new();
    let mut count = 0;
    while begun.elapsed() < lasting {
        while flying.len() >= clients.in_flight {
            flying.join_next().await.transpose()?.transpose()?;
        }
        room.acquire().await?.forget();
        let (sender, payload, id) = (clients.sender.clone(), payload(), format!("chain.{count}"));
        flying.spawn(async move { publish(&sender, STREAMS[0], &id, payload).await });
        count += 1;
    }
    while let Some(done) = flying.join_next().await {
        done??;
    }
    count_out.send_replace(count);
    tokio::time::timeout(ANSWER_WAIT, reading).await.context("the chain stands still")???;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    serving.shutdown().await;
    Ok(rate)
}

/// Commits a row for each envelope.
async fn commit(
    mut envelopes: Reader,
    journal: Journal,
    weights: Weights,
    out: mpsc::Sender<u64>,
) -> Result<()> {
    let owner = Owner::new("chain")?;
    let mut seq = journal.head("chain.main").await?.map_or(0, |head| head.seq);
    loop {
        for delivery in envelopes.next_batch(1, 1 << 20).await? {
            seq += 1;
            let (input, events) = (vec![b'x'; weights.input], vec![b'y'; weights.events]);
            let row = row(seq, delivery.position.sequence, input, events);
            let appended = journal.append_given("chain.main", &owner, vec![row]).await?;
            ensure!(appended == Appended::Committed);
            out.send(seq).await?;
        }
    }
}

/// Publishes what stands for a row's answers and for its events.
async fn tell(bus: Bus, weights: Weights, mut rows: mpsc::Receiver<u64>) -> Result<()> {
    let answers = Bytes::from(vec![b'a'; weights.answers_told]);
    let events = Bytes::from(vec![b'e'; weights.events_told]);
    let mut in_flight = FuturesOrdered::new();
    while let Some(seq) = rows.recv().await {
        for (stream, payload) in [(STREAMS[1], answers.clone()), (STREAMS[2], events.clone())] {
            if in_flight.len() >= IN_FLIGHT
                && let Some(done) = in_flight.next().await
            {
                let done: Result<()> = done;
                done?;
            }
            let bus = bus.clone();
            in_flight
                .push_back(async move { publish(&bus, stream, &format!("{stream}.{seq}"), payload).await });
        }
        // What is under way goes on while the next row is awaited, one step with each.
        while let Some(Some(done)) = futures::FutureExt::now_or_never(in_flight.next()) {
            done?;
        }
        if rows.is_empty() {
            while let Some(done) = in_flight.next().await {
                done?;
            }
        }
    }
    Ok(())
}

/// Reads answers until there are as many as envelopes.
async fn read(
    mut answers: Reader,
    room: Arc<Semaphore>,
    wanted: tokio::sync::watch::Receiver<u64>,
) -> Result<()> {
    let mut read = 0;
    while read < *wanted.borrow() {
        let next = tokio::time::timeout(Duration::from_millis(200), answers.next_batch(64, 4 << 20)).await;
        let Ok(batch) = next else { continue };
        let count = batch?.len();
        read += count as u64;
        room.add_permits(count);
    }
    Ok(())
}
