//! Third stage: makes turns durable, in order, several with one commit where several wait.

use std::sync::Arc;
use std::time::Instant;

use journal::{Appended, Row as JournalRow};
use proto::machine::Decided;
use tokio::sync::{mpsc, watch};
use turn::{Outgoing, Position, Repeat, Row, Token};

use super::pack::Packed;
use super::progress::Progress;
use super::step::Stepped;
use super::{Context, Ended, Runnable};

/// Rows of one commit.
const COMMIT_ROWS_MAX: usize = 64;
/// Bytes after which a commit takes no further row.
const COMMIT_BYTES_MAX: usize = 8 << 20;

/// A row that is durable, for the follower.
pub(super) struct Committed<M: Runnable> {
    pub(super) row: Row,
    pub(super) decided: Arc<Decided<M::Command, M::Event>>,
}

/// What is to be told of a turn, now that it may be.
pub(super) struct Telling<M: Runnable> {
    /// The turn's row, if it has one.
    pub(super) sequence: Option<u64>,
    pub(super) token: Option<Token>,
    /// Answers and orders.
    pub(super) messages: Vec<Outgoing>,
    pub(super) repeats: Vec<Repeat>,
    /// What goes out when the answers are: it would only hold them up.
    pub(super) facts: Option<Facts>,
    pub(super) committed: Option<Committed<M>>,
}

/// A row's events, and what is only told to whoever listens.
pub(super) struct Facts {
    pub(super) sequence: u64,
    pub(super) messages: Vec<Outgoing>,
}

/// How far the input is decided, answered and committed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settled {
    pub(super) position: Position,
    /// Bytes of input committed in this run.
    pub(super) bytes: u64,
}

/// Where committed turns go.
pub(super) struct Outputs<M: Runnable> {
    pub(super) answers: mpsc::Sender<Telling<M>>,
    /// What lies before it may be purged.
    pub(super) settled: watch::Sender<Settled>,
}

impl<M: Runnable> Outputs<M> {
    /// Hands a turn's messages on. Waits while the broker is behind, which makes the next turns larger.
    pub(super) async fn tell(
        &self,
        sequence: Option<u64>,
        token: Option<Token>,
        outgoing: Vec<Outgoing>,
        repeats: Vec<Repeat>,
        committed: Option<Committed<M>>,
    ) {
        let kinds = [turn::KIND_EVENTS, turn::KIND_EVENTS_OMITTED];
        let is_fact = |one: &Outgoing| !one.durable || kinds.contains(&one.kind);
        let (facts, messages): (Vec<_>, Vec<_>) = outgoing.into_iter().partition(is_fact);
        let facts = sequence.map(|sequence| Facts { sequence, messages: facts });
        // A stage is gone only when the pipeline ends, and it says why.
        let _ = self.answers.send(Telling { sequence, token, messages, repeats, facts, committed }).await;
    }
}

/// Commits until the step stage ends.
pub(super) async fn run<M: Runnable>(
    context: Context,
    progress: Arc<Progress>,
    mut input: mpsc::Receiver<Packed<M>>,
    outputs: Outputs<M>,
) -> Result<(), Ended> {
    let mut turns: Vec<Stepped<M>> = Vec::new();
    while let Some(Packed { turned, row }) = input.recv().await {
        let mut bytes = row.as_ref().map_or(0, size);
        let mut rows: Vec<_> = row.into_iter().collect();
        turns.push(turned);
        while turns.len() < COMMIT_ROWS_MAX && bytes < COMMIT_BYTES_MAX {
            let Ok(Packed { turned, row }) = input.try_recv() else { break };
            bytes += row.as_ref().map_or(0, size);
            rows.extend(row);
            turns.push(turned);
        }
        append(&context, &progress, rows).await?;
        for turned in turns.drain(..) {
            hand_on(&context, &outputs, turned).await;
        }
    }
    Ok(())
}

fn size(row: &JournalRow) -> usize {
    row.input.len() + row.events.len()
}

/// One transaction for all rows. An error may mean anything: it ends the pipeline, and what is true is read
/// from the journal again.
async fn append(context: &Context, progress: &Progress, rows: Vec<JournalRow>) -> Result<(), Ended> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let (sequence, last) = (first.seq, last.seq);
    let begun = Instant::now();
    match context.journal.append_given(&context.journal_stream, &context.owner, rows).await {
        Ok(Appended::Committed) => {
            context.shown.commit.observe(begun.elapsed().as_secs_f64());
            context.shown.applied.set(last as i64);
            // Rows of one commit follow each other.
            context.shown.turns.inc_by(last + 1 - sequence);
            for sequence in sequence..=last {
                progress.committed(sequence);
            }
            Ok(())
        }
        Ok(Appended::Stale) => Err(Ended::Fenced { sequence }),
        Err(source) => Err(Ended::Commit { sequence, source }),
    }
}

async fn hand_on<M: Runnable>(context: &Context, outputs: &Outputs<M>, turned: Stepped<M>) {
    let Stepped::<M> { row, decided, mut outgoing, at_once, repeats, token, .. } = turned;
    let sequence = row.as_ref().map(|row| row.sequence);
    outgoing.extend(at_once);
    if let Some(row) = &row {
        context.shown.input.set(row.position.sequence as i64);
        outputs.settled.send_modify(|settled| {
            settled.position = row.position;
            settled.bytes += row.input.len() as u64;
        });
    }
    let committed = row.zip(decided).map(|(row, decided)| Committed { row, decided });
    outputs.tell(sequence, Some(token), outgoing, repeats, committed).await;
}
