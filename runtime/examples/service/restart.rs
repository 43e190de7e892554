//! How long a service that was killed takes until it answers again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use journal::{Appended, Journal, Owner};
use proto::{Machine, StreamName, subject};
use runtime::bus::RequestError;
use runtime::runner::journal_stream;
use serde_json::json;

use super::client::{answers_from_now, principal, publish};
use super::cpu::Times;
use super::engine::{Workload, World};
use super::envelopes::numbers;
use super::served::Served;
use super::throughput::fill;

/// How often each kind of start is measured.
const STARTS: u32 = 3;
/// Longest wait for the first answer of a service that starts.
const LOAD_WAIT: Duration = Duration::from_mins(2);

/// Journals so many commands, kills the service, and starts it again: from its newest snapshot, and over the same
/// rows without one.
pub(crate) async fn measure<W: Workload>(mut world: World, served: Served, commands: u64) -> Result<()> {
    let filled = fill::<W>(&world, commands).await?;
    world.take(filled);
    ask::<W>(&world).await?;
    drop(served);
    let name = journal_stream::<W::Machine>(&"main".parse()?);
    let journal = Journal::open(&world.journal_url("journal")).await?;
    let rows = journal.head(&name).await?.context("no rows")?.seq;
    let mebibytes = std::fs::metadata(world.journal_file("journal"))?.len() >> 20;
    // No program writes version 0, so that all there are are passed over, the newest first.
    let snapshots = journal.load_snapshot(&name, 0).await?.skipped;
    let newest = snapshots.first().map_or(0, |newest| newest.seq);
    println!(
        "{filled} commands in {rows} rows, a database of {mebibytes} MiB, newest snapshot at row {newest} (0: none); the service was killed"
    );
    for _ in 0..STARTS {
        again::<W>(&mut world, "journal", "newest snapshot").await?;
    }
    copy(&journal, &Journal::open(&world.journal_url("rows")).await?, &name).await?;
    again::<W>(&mut world, "rows", "first row").await?;
    world.server.stop().await?;
    Ok(())
}

/// Copies a stream's rows, and nothing else.
async fn copy(from: &Journal, to: &Journal, stream: &str) -> Result<()> {
    let owner = Owner::new("bench")?;
    let mut after = 0;
    loop {
        let rows = from.load_from(stream, after, 16, 8 << 20).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.seq;
        ensure!(to.append_given(stream, &owner, rows).await? == Appended::Committed);
    }
}

/// Starts the service over a database, sends it a bid and asks it a question.
async fn again<W: Workload>(world: &mut World, database: &str, from: &str) -> Result<()> {
    let number = world.take(1).start;
    let mut reader = answers_from_now(&world.receiver, principal(W::SUBJECT)).await?;
    let begun = Instant::now();
    let served = Served::start(&world.server, &world.journal_url(database))?;
    let payload = Bytes::from(W::command(number));
    publish(&world.sender, W::SUBJECT, &format!("restart.{number}"), payload).await?;
    loop {
        let next = reader.next_batch(64, 1 << 20);
        let batch = tokio::time::timeout(LOAD_WAIT, next).await.context("no answer")??;
        if batch.iter().any(|delivery| numbers(&delivery.payload).any(|found| found == number)) {
            break;
        }
    }
    let answered = begun.elapsed();
    let cpu = Times::of(served.pid()).total();
    ask::<W>(world).await?;
    let line = json!({
        "from": from,
        "commands": number,
        "started_to_bid_answered_seconds": rounded(answered.as_secs_f64()),
        "cpu_seconds_until_then": rounded(cpu),
        "started_to_question_answered_seconds": rounded(begun.elapsed().as_secs_f64()),
    });
    println!("{line}");
    drop(served);
    Ok(())
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

/// Asks the follower: it answers once it has caught up itself.
async fn ask<W: Workload>(world: &World) -> Result<()> {
    let stream: StreamName = "main".parse()?;
    let question = subject::query(W::Machine::NAME, &stream, W::QUESTION);
    match world.receiver.request(&question, Bytes::new(), LOAD_WAIT).await {
        // A machine that nobody reads says so, which is an answer as well.
        Ok(_) | Err(RequestError::Refused { .. }) => Ok(()),
        Err(error) => {
            ensure!(false, "{error}");
            Ok(())
        }
    }
}
