//! What the service stands on, alone: the broker, the journal, and a service that decides nothing.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use journal::{Appended, Journal, Owner, Row};
use runtime::bus::{Bus, StreamSpec};
use serde::Deserialize;
use tokio::task::{JoinHandle, JoinSet};

use super::client::publish;

/// Subject of the empty service's commands.
pub(crate) const EMPTY_SUBJECT: &str = "walras.v1.command.empty.main.storefront.empty";

/// Reads, commits one row with what it read, publishes one answer: nothing a durable service could leave out.
pub(crate) fn empty_service(bus: Bus, journal: Journal) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        let owner = Owner::new("empty")?;
        let mut reader =
            bus.read("walras-command-empty-main", "walras.v1.command.empty.main.>", None).await?;
        for seq in 1.. {
            let batch = reader.next_batch(1_024, 4 << 20).await?;
            let input: Vec<u8> = batch.iter().flat_map(|delivery| delivery.payload.iter().copied()).collect();
            let row = row(seq, batch.last().map_or(0, |last| last.position.sequence), input.clone(), input);
            anyhow::ensure!(journal.append("empty.main", &owner, &[row]).await? == Appended::Committed);
            let ids = batch.iter().filter_map(|delivery| id(&delivery.payload));
            let answers: Vec<String> =
                ids.map(|id| format!(r#"{{"type":"Accepted","id":"{id}"}}"#)).collect();
            let answer = format!(
                r#"{{"machine":"empty","stream":"main","sequence":{seq},"at":"2026-01-01T00:00:00Z","answers":[{}]}}"#,
                answers.join(",")
            );
            publish(&bus, "walras.v1.answer.empty", &format!("empty.{seq}"), Bytes::from(answer)).await?;
        }
        Ok(())
    })
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

fn id(payload: &[u8]) -> Option<String> {
    serde_json::from_slice::<Id>(payload).ok().map(|it| it.id)
}

fn row(seq: u64, position_sequence: u64, input: Vec<u8>, events: Vec<u8>) -> Row {
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

/// Publishes `payloads`, so many in flight, and reads them back on another connection: messages per second.
pub(crate) async fn broker(
    buses: (&Bus, &Bus),
    name: &str,
    payloads: &[Bytes],
    in_flight: usize,
) -> Result<f64> {
    let (sender, receiver) = buses;
    sender.ensure_stream(&StreamSpec::new(name, name)).await?;
    let mut reader = receiver.read(name, ">", None).await?;
    let count = payloads.len();
    let begun = Instant::now();
    let reading = tokio::spawn(async move {
        let mut read = 0;
        while read < count {
            read += reader.next_batch(4_096, 8 << 20).await?.len();
        }
        anyhow::Ok(begun.elapsed())
    });
    let mut flying = JoinSet::new();
    for (number, payload) in payloads.iter().enumerate() {
        while flying.len() >= in_flight {
            flying.join_next().await.transpose()?.transpose()?;
        }
        let (sender, name, payload) = (sender.clone(), name.to_owned(), payload.clone());
        flying.spawn(async move { publish(&sender, &name, &format!("f{number}"), payload).await });
    }
    while let Some(done) = flying.join_next().await {
        done??;
    }
    let taken = reading.await??;
    // Its bytes must not weigh on what is measured next.
    sender.purge(name, u64::MAX >> 1).await?;
    Ok(count as f64 / taken.as_secs_f64())
}

/// Appends rows of these sizes one by one: rows per second.
pub(crate) async fn journal(
    journal: &Journal,
    input: usize,
    events: usize,
    lasting: Duration,
) -> Result<f64> {
    let owner = Owner::new("floor")?;
    let begun = Instant::now();
    let mut rows = 0;
    while begun.elapsed() < lasting {
        rows += 1;
        let row = row(rows, rows, vec![b'x'; input], vec![b'y'; events]);
        journal.append("floor.main", &owner, &[row]).await?;
    }
    Ok(rows as f64 / begun.elapsed().as_secs_f64())
}
