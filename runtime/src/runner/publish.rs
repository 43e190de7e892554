//! Last stages: publish what is committed, each stream in order.
//!
//! A turn's answers go first and alone, because somebody waits for them; its events follow while the next
//! turn's answers are under way. The follower gets the row then, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesOrdered, StreamExt};
use tokio::sync::{mpsc, watch};
use turn::{Outgoing, Repeat, Row, Token, retell};

use super::commit::{Committed, Facts, Settled, Telling};
use super::pages::one_row;
use super::progress::Progress;
use super::{Context, Ended, Runnable};
use crate::bus::{PublishError, Refusal};

/// Turns whose answers wait to be published.
pub(super) const ANSWERS_QUEUE_TURNS: usize = 8;
/// Rows whose events wait to be published.
pub(super) const EVENTS_QUEUE_ROWS: usize = 16;
/// Answers on their way to the broker at once. It syncs one after the other; a few in flight hide the way.
const ANSWERS_IN_FLIGHT_MAX: usize = 8;
/// How often a message is tried before the runner steps down and begins anew.
const PUBLISH_ATTEMPTS_MAX: u32 = 100;
/// First pause after a failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Pause between two looks at what may be purged from the command stream.
const PURGE_LOOK: Duration = Duration::from_secs(1);
/// Longest time between two purges while commands come: a purge holds the broker up a little.
const PURGE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes after which a purge does not wait: an eighth of what the stream may hold.
const PURGE_BYTES: u64 = 128 << 20;

/// What is left of a turn when its answers are out.
struct Answered<M: Runnable> {
    sequence: Option<u64>,
    token: Option<Token>,
    facts: Option<Facts>,
    committed: Option<Committed<M>>,
}

/// Publishes answers and orders, then hands the rest of each turn on.
pub(super) async fn run_answers<M: Runnable>(
    context: Context,
    progress: Arc<Progress>,
    mut input: mpsc::Receiver<Telling<M>>,
    events: mpsc::Sender<Facts>,
    follower: mpsc::Sender<Committed<M>>,
) -> Result<(), Ended> {
    let mut in_flight = FuturesOrdered::new();
    let mut open = true;
    while open || !in_flight.is_empty() {
        tokio::select! {
            biased;
            Some(done) = in_flight.next(), if !in_flight.is_empty() => {
                let Answered::<M> { sequence, token, facts, committed } = done?;
                progress.answers_published(sequence, token);
                if let Some(facts) = facts {
                    // The stage is gone only when the pipeline ends, and it says why.
                    let _ = events.send(facts).await;
                }
                if let Some(committed) = committed {
                    // A follower that is behind finds what it misses in the journal: nobody waits for it.
                    let _ = follower.try_send(committed);
                }
            }
            next = input.recv(), if open && in_flight.len() < ANSWERS_IN_FLIGHT_MAX => match next {
                Some(telling) => in_flight.push_back(tell::<M>(&context, telling)),
                None => open = false,
            },
        }
    }
    Ok(())
}

async fn tell<M: Runnable>(context: &Context, telling: Telling<M>) -> Result<Answered<M>, Ended> {
    let Telling { sequence, token, messages, mut repeats, facts, committed } = telling;
    for message in &messages {
        publish(context, M::NAME, message).await?;
    }
    // By row, so that each is read once; within a row as they were asked.
    repeats.sort_by_key(|repeat| repeat.locator.sequence());
    for of_one_row in repeats.chunk_by(|left, right| left.locator.sequence() == right.locator.sequence()) {
        tell_again::<M>(context, of_one_row).await?;
    }
    Ok(Answered { sequence, token, facts, committed })
}

async fn tell_again<M: Runnable>(context: &Context, repeats: &[Repeat]) -> Result<(), Ended> {
    let Some(first) = repeats.first() else { return Ok(()) };
    let sequence = first.locator.sequence();
    let row: Option<Row> = one_row(context, sequence).await?;
    let told = row.map(|row| retell::<M>(&context.stream, &row, repeats));
    let messages = match told {
        Some(Ok(messages)) => messages,
        Some(Err(error)) => {
            tracing::error!(stream = %context.stream, sequence, "an answer cannot be told again: {error}");
            return Ok(());
        }
        None => {
            tracing::error!(stream = %context.stream, sequence, "an answer cannot be told again: its row is neither in the journal nor in the archive");
            return Ok(());
        }
    };
    for message in &messages {
        publish(context, M::NAME, message).await?;
    }
    Ok(())
}

/// Publishes events, one row after the other, then announces prices.
pub(super) async fn run_events<M: Runnable>(
    context: Context,
    progress: Arc<Progress>,
    mut input: mpsc::Receiver<Facts>,
) -> Result<(), Ended> {
    while let Some(facts) = input.recv().await {
        for message in &facts.messages {
            publish(&context, M::NAME, message).await?;
        }
        progress.events_published(facts.sequence);
    }
    Ok(())
}

/// Publishes one message; tries again, under the same id, until the broker has it.
async fn publish(context: &Context, machine: &str, message: &Outgoing) -> Result<(), Ended> {
    if !message.durable {
        // The next one replaces it, and a query tells the present one.
        if let Err(error) = context.bus.announce(&message.subject, message.payload.clone()).await {
            tracing::debug!(stream = %context.stream, id = message.id, "not announced: {error}");
        }
        return Ok(());
    }
    let source = format!("walras/{machine}/{}", context.stream);
    let id = &message.id;
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", id.as_str()),
        ("ce-source", source.as_str()),
        ("ce-type", message.kind),
    ];
    let mut pause = PAUSE_MIN;
    let mut problem = String::new();
    for _ in 0..PUBLISH_ATTEMPTS_MAX {
        let begun = Instant::now();
        match context.bus.publish(&message.subject, id, &headers, message.payload.clone()).await {
            Ok(_) => {
                context.shown.publish.observe(begun.elapsed().as_secs_f64());
                return Ok(());
            }
            Err(error @ PublishError::Refused { .. }) => {
                context.shown.publish_refused.inc();
                if is_hopeless(&error) {
                    tracing::error!(stream = %context.stream, id, "a message is given up: {error}");
                    return Ok(());
                }
                problem = error.to_string();
            }
            Err(error @ PublishError::Ambiguous { .. }) => {
                context.shown.publish_ambiguous.inc();
                problem = error.to_string();
            }
        }
        tracing::warn!(stream = %context.stream, id, "published again soon: {problem}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Err(Ended::Publish { id: id.clone(), attempts: PUBLISH_ATTEMPTS_MAX, problem })
}

/// Whether the same message would be refused for ever: waiting would stop the stream for good.
fn is_hopeless(error: &PublishError) -> bool {
    let PublishError::Refused { reason, .. } = error else { return false };
    matches!(reason, Refusal::TooLarge { .. } | Refusal::Subject | Refusal::Header { .. })
}

/// Purges the command stream behind what is settled, now and then.
pub(super) async fn run_purge<M: Runnable>(
    context: Context,
    mut settled: watch::Receiver<Settled>,
) -> Result<(), Ended> {
    let name = proto::subject::command_stream(M::NAME, &context.stream);
    let (mut purged, mut purged_at) = (Settled::default(), Instant::now());
    while settled.changed().await.is_ok() {
        let now = *settled.borrow_and_update();
        if now.bytes - purged.bytes >= PURGE_BYTES || purged_at.elapsed() >= PURGE_PAUSE_MAX {
            if let Err(error) = context.bus.purge(&name, now.position.sequence).await {
                tracing::warn!(stream = %context.stream, "the command stream is not purged now: {error}");
            }
            (purged, purged_at) = (now, Instant::now());
        }
        tokio::time::sleep(PURGE_LOOK).await;
    }
    Ok(())
}
