//! What the service stands on, alone: the broker, the journal, and a service that decides nothing.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use journal::{Appended, Journal, Owner, Row};
use runtime::bus::{Bus, StreamSpec};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::client::publish;

/// Subject of the empty service's commands.
pub(crate) const EMPTY_SUBJECT: &str = "walras.v1.command.empty.main.storefront.empty";

/// What a stream of a floor may hold, in bytes.
pub(crate) const FLOOR_BYTES_MAX: u64 = 2 << 30;

/// Reads, commits one row with what it read, publishes one answer: nothing a durable service could leave out.
pub(crate) async fn empty_service(bus: Bus, journal: Journal) -> Result<()> {
    let owner = Owner::new("empty")?;
    let head = journal.head("empty.main").await?.map_or(0, |head| head.seq);
    let mut reader = bus.read("walras-command-empty-main", "walras.v1.command.empty.main.>", None).await?;
    for seq in head + 1.. {
        let batch = reader.next_batch(1_024, 512 << 10).await?;
        let input: Vec<u8> = batch.iter().flat_map(|delivery| delivery.payload.iter().copied()).collect();
        let row = row(seq, batch.last().map_or(0, |last| last.position.sequence), input.clone(), input);
        anyhow::ensure!(journal.append("empty.main", &owner, &[row]).await? == Appended::Committed);
        let ids = batch.iter().flat_map(|delivery| ids(&delivery.payload));
        let answers: Vec<String> = ids.map(|id| format!(r#"{{"type":"Accepted","id":"{id}"}}"#)).collect();
        let answer = format!(
            r#"{{"machine":"empty","stream":"main","sequence":{seq},"at":"2026-01-01T00:00:00Z","answers":[{}]}}"#,
            answers.join(",")
        );
        publish(&bus, "walras.v1.answer.empty", &format!("empty.{seq}"), Bytes::from(answer)).await?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sent {
    Together { commands: Vec<Id> },
    Alone(Id),
}

fn ids(payload: &[u8]) -> Vec<String> {
    match serde_json::from_slice(payload) {
        Ok(Sent::Together { commands }) => commands.into_iter().map(|it| it.id).collect(),
        Ok(Sent::Alone(it)) => vec![it.id],
        Err(_) => Vec::new(),
    }
}

pub(crate) fn row(seq: u64, position_sequence: u64, input: Vec<u8>, events: Vec<u8>) -> Row {
    Row {
        seq,
        at_micros: 0,
        rules: 1,
        position_created: 0,
        position_sequence,
        published: 0,
        state_hash: [0; 16],
        chain: [0; 32],
        input,
        events,
    }
}

/// Publishes messages, so many in flight, for so long, and reads them on another connection: messages per
/// second until the last one is read.
pub(crate) async fn broker(
    buses: (&Bus, &Bus),
    name: &str,
    in_flight: usize,
    lasting: Duration,
    mut payload: impl FnMut() -> Bytes,
) -> Result<f64> {
    let (sender, receiver) = buses;
    // Large enough for all of it: what a full stream forgets, or a purge, makes the file system wait for seconds
    // where it discards blocks, and would be charged to what is measured next.
    sender.ensure_stream(&StreamSpec { max_bytes: FLOOR_BYTES_MAX, ..StreamSpec::new(name, name) }).await?;
    let state = sender.stream_state(name).await?;
    let after = runtime::bus::Position { created: state.created, sequence: state.last };
    let mut reader = receiver.read(name, ">", (state.last > 0).then_some(after)).await?;
    let begun = Instant::now();
    let (count_out, count_in) = tokio::sync::watch::channel(u64::MAX);
    let reading = tokio::spawn(async move {
        let mut read = 0;
        while read < *count_in.borrow() {
            read += reader.next_batch(4_096, 8 << 20).await?.len() as u64;
        }
        anyhow::Ok(begun.elapsed())
    });
    let mut flying = JoinSet::new();
    let mut count = 0;
    // The last one goes alone, behind all others and the word how many there are: so the reader sees its end.
    while begun.elapsed() < lasting {
        while flying.len() >= in_flight {
            flying.join_next().await.transpose()?.transpose()?;
        }
        let (sender, subject, payload) = (sender.clone(), name.to_owned(), payload());
        let id = format!("{name}.{}.{count}", state.last);
        flying.spawn(async move { publish(&sender, &subject, &id, payload).await });
        count += 1;
    }
    while let Some(done) = flying.join_next().await {
        done??;
    }
    count_out.send_replace(count + 1);
    publish(sender, name, &format!("{name}.{}.last", state.last), payload()).await?;
    let taken = reading.await??;
    Ok((count + 1) as f64 / taken.as_secs_f64())
}

/// Appends rows of these sizes one by one: rows per second.
pub(crate) async fn journal(
    journal: &Journal,
    input: usize,
    events: usize,
    lasting: Duration,
) -> Result<f64> {
    let owner = Owner::new("floor")?;
    let first = journal.head("floor.main").await?.map_or(0, |head| head.seq);
    let begun = Instant::now();
    let mut rows = 0;
    while begun.elapsed() < lasting {
        rows += 1;
        let row = row(first + rows, rows, vec![b'x'; input], vec![b'y'; events]);
        anyhow::ensure!(journal.append("floor.main", &owner, &[row]).await? == Appended::Committed);
    }
    Ok(rows as f64 / begun.elapsed().as_secs_f64())
}
