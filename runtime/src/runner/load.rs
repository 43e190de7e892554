//! From the journal to a state: the newest good snapshot and the rows behind it.

use std::sync::Arc;

use journal::{Answer, JournalError, Snapshot};
use proto::machine::CommandKey;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use turn::{FoldError, Locator, Outgoing, ReadRow, Row, Turn};

use super::pages::{Page, Pages};
use super::view::{NoView, View};
use super::{Context, Runnable};

/// Answers past the kept ones after which they are written to the index: many at a time, because a look-up there
/// asks every lot that was ever written.
pub(super) const INDEX_ANSWERS: usize = 65_536;
/// Keys of old answers read at a time.
const KEYS_AT_A_TIME: usize = 65_536;
/// Pages that the follower may be behind its runner while both load: what they hold is in memory.
const PAGES_BEHIND_MAX: usize = 8;

/// Why a state could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The journal could not be read.
    #[error("the journal cannot be read")]
    Journal(#[from] JournalError),
    /// The journal holds what cannot be taken in.
    #[error("the journal of {stream} is damaged")]
    Damaged {
        /// Which stream.
        stream: String,
        /// What is wrong.
        source: FoldError,
    },
    /// A task that read ended without saying why.
    #[error("reading the journal was interrupted: {problem}")]
    Interrupted {
        /// What is known.
        problem: String,
    },
}

impl LoadError {
    /// Whether loading again can help.
    pub(super) fn may_pass(&self) -> bool {
        !matches!(self, Self::Damaged { .. } | Self::Journal(JournalError::Gap { .. }))
    }
}

/// A turn and a view of the same rows.
pub(super) struct Replica<M: Runnable, V: View<M>> {
    pub(super) turn: Turn<M>,
    pub(super) view: V,
    pub(super) newest: Newest,
}

/// The newest snapshot of a stream, and what has been taken in behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Newest {
    /// Its row, and how many commands were answered up to there; 0 where there is none.
    pub(super) sequence: u64,
    pub(super) commands: u64,
    /// Its size.
    pub(super) bytes: usize,
    /// Bytes of the rows behind it.
    pub(super) bytes_behind: usize,
}

/// Messages of a row that may not have been published.
pub(super) struct Unpublished {
    pub(super) sequence: u64,
    pub(super) outgoing: Vec<Outgoing>,
}

/// Version of the snapshots of machine `M` with view `V`.
pub(super) const fn snapshot_version<M: Runnable, V: View<M>>() -> u32 {
    // Wrapping mixes both numbers without asking how large they are.
    Turn::<M>::SNAPSHOT.wrapping_mul(1 << 8).wrapping_add(V::SNAPSHOT as u32)
}

impl<M: Runnable, V: View<M>> Replica<M, V> {
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let turn = self.turn.snapshot();
        let mut body = Vec::with_capacity(turn.len() + 8);
        body.extend_from_slice(&(turn.len() as u64).to_le_bytes());
        body.extend_from_slice(&turn);
        body.extend(self.view.snapshot());
        body
    }

    /// The state that a snapshot holds, its view on a thread of its own: each takes as long as the other.
    async fn restore(context: &Context, snapshot: &Arc<Snapshot>) -> Result<Self, String> {
        let view = {
            let (stream, snapshot) = (context.stream.clone(), Arc::clone(snapshot));
            tokio::task::spawn_blocking(move || V::restore(&stream, halves(&snapshot.body)?.1).map_err(told))
        };
        let (stream, settings) = (context.stream.clone(), context.turn_settings());
        let turn = {
            let snapshot = Arc::clone(snapshot);
            let restore =
                move || Turn::<M>::restore(stream, settings, halves(&snapshot.body)?.0).map_err(told);
            tokio::task::spawn_blocking(restore).await.map_err(told)??
        };
        let view = view.await.map_err(told)??;
        let (sequence, commands) = (turn.sequence(), turn.answers_recorded());
        let newest = Newest { sequence, commands, bytes: snapshot.body.len(), bytes_behind: 0 };
        Ok(Self { turn, view, newest })
    }

    fn new(context: &Context) -> Self {
        let turn = Turn::new(context.stream.clone(), context.turn_settings());
        Self { turn, view: V::new(&context.stream), newest: Newest::default() }
    }

    /// Has the view tell its own metrics from now on.
    pub(super) fn measure(&mut self, context: &Context) {
        if let Err(error) = self.view.measure(&context.meter, &context.stream) {
            tracing::warn!(stream = %context.stream, %error, "the view's metrics are not told");
        }
    }

    /// Takes in the next row.
    pub(super) fn take_in(
        &mut self,
        context: &Context,
        read: &ReadRow<M::Event>,
        tell: bool,
    ) -> Result<Vec<Outgoing>, LoadError> {
        let outgoing = self.turn.fold_shared(read, tell).map_err(|source| damaged(context, source))?;
        self.show(read.row(), read.events());
        Ok(outgoing)
    }

    /// Takes in the next row after the runner did.
    fn take_in_behind(&mut self, context: &Context, read: &ReadRow<M::Event>) -> Result<(), LoadError> {
        self.turn.follow_read(read).map_err(|source| damaged(context, source))?;
        self.show(read.row(), read.events());
        Ok(())
    }

    /// Shows a row's events to the view.
    pub(super) fn show<'a>(&mut self, row: &Row, events: impl Iterator<Item = &'a M::Event>) {
        self.newest.bytes_behind += row.bytes();
        for event in events {
            self.view.apply(row.at, row.sequence, event);
        }
        self.view.settle(row.at, row.sequence);
    }
}

/// The two parts of a snapshot: the turn's and the view's.
fn halves(body: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (length, rest) = body.split_first_chunk::<8>().ok_or("it is too short")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(told)?;
    Ok(rest.split_at_checked(length).ok_or("it is too short")?)
}

#[allow(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What a runner begins with.
pub(super) struct Loaded<M: Runnable, V: View<M>> {
    /// At the end of the journal.
    pub(super) turn: Turn<M>,
    /// The messages of rows that may not have been published.
    pub(super) unpublished: Vec<Unpublished>,
    /// For its follower.
    pub(super) source: Source<M, V>,
}

/// From what a follower begins: a replica that takes in what its runner took in, so that rows are read once.
pub(super) struct Source<M: Runnable, V: View<M>> {
    behind: JoinHandle<Result<Option<Replica<M, V>>, LoadError>>,
    /// How many answers of the stream the runner saw to be in the index.
    indexed: u64,
}

/// Rows that the runner has taken in, and how many answers of the stream were in the index then.
struct TakenIn<M: Runnable> {
    page: Page<M>,
    indexed: u64,
}

/// Loads everything up to the end of the journal, without a view: who decides needs none. The follower's replica is made
/// behind it.
pub(super) async fn load<M: Runnable, V: View<M>>(context: &Context) -> Result<Loaded<M, V>, LoadError> {
    let head = context.journal.head(&context.journal_stream).await?;
    let published = head.map_or(0, |head| head.published);
    let mut snapshot = newest_snapshot::<M, V>(context, published).await?;
    let mut replica = from_snapshot::<M, NoView>(context, &mut snapshot).await;
    let (out, taken_in) = mpsc::channel(PAGES_BEHIND_MAX);
    let behind = tokio::spawn(load_behind::<M, V>(context.clone(), snapshot, taken_in));
    let mut unpublished = Vec::new();
    let mut pages = Pages::<M>::after(context, replica.turn.sequence());
    while let Some(page) = pages.next().await? {
        for read in &page {
            let sequence = read.row().sequence;
            let outgoing = replica.take_in(context, read, sequence > published)?;
            if sequence > published {
                unpublished.push(Unpublished { sequence, outgoing });
            }
        }
        if replica.turn.past_kept_unindexed() > INDEX_ANSWERS {
            index(context, &mut replica.turn, usize::MAX).await?;
        }
        // A follower that could not begin is gone, and is loaded by itself later.
        let _ = out.send(TakenIn { page, indexed: indexed(&replica.turn) }).await;
        tokio::task::yield_now().await;
    }
    drop(out);
    remember_indexed(context, &mut replica.turn).await?;
    let turn = replica.turn;
    let indexed = indexed(&turn);
    Ok(Loaded { turn, unpublished, source: Source { behind, indexed } })
}

/// How many answers of the stream are in the index.
fn indexed<M: Runnable>(turn: &Turn<M>) -> u64 {
    turn.past_kept() - turn.past_kept_unindexed() as u64
}

/// A replica with a view, from the snapshot that its runner was loaded from, and the rows that the runner takes in.
/// None if that snapshot is of no use to it.
async fn load_behind<M: Runnable, V: View<M>>(
    context: Context,
    snapshot: Option<Arc<Snapshot>>,
    mut taken_in: mpsc::Receiver<TakenIn<M>>,
) -> Result<Option<Replica<M, V>>, LoadError> {
    let mut replica = match snapshot {
        None => Replica::new(&context),
        Some(found) => match Replica::restore(&context, &found).await {
            Ok(replica) => replica,
            Err(why) => {
                tracing::warn!(stream = %context.stream, sequence = found.seq, why, "a snapshot is skipped");
                return Ok(None);
            }
        },
    };
    while let Some(TakenIn { page, indexed }) = taken_in.recv().await {
        for read in &page {
            replica.take_in_behind(&context, read)?;
        }
        replica.turn.indexed(indexed);
        tokio::task::yield_now().await;
    }
    Ok(Some(replica))
}

/// The follower's replica, once it has taken in what its runner took in.
pub(super) async fn load_replica<M: Runnable, V: View<M>>(
    context: &Context,
    source: Source<M, V>,
) -> Result<Replica<M, V>, LoadError> {
    let Source { behind, indexed } = source;
    if let Some(replica) = behind.await.map_err(interrupted)?? {
        return Ok(replica);
    }
    let mut replica = Replica::new(context);
    let mut pages = Pages::<M>::after(context, 0);
    while let Some(page) = pages.next().await? {
        for read in &page {
            replica.take_in(context, read, false)?;
        }
        // The runner wrote them.
        replica.turn.indexed(indexed);
        tokio::task::yield_now().await;
    }
    Ok(replica)
}

async fn newest_snapshot<M: Runnable, V: View<M>>(
    context: &Context,
    published: u64,
) -> Result<Option<Arc<Snapshot>>, LoadError> {
    let loaded = context.journal.load_snapshot(&context.journal_stream, snapshot_version::<M, V>()).await?;
    for skipped in &loaded.skipped {
        tracing::warn!(stream = %context.stream, sequence = skipped.seq, why = skipped.why, "a snapshot is skipped");
    }
    // A snapshot is saved once everything in it is known to be published; messages of rows within it could not
    // be made again.
    let young = loaded.snapshot.as_ref().filter(|snapshot| snapshot.seq > published);
    if let Some(young) = young {
        tracing::warn!(stream = %context.stream, sequence = young.seq, published, "a snapshot is too young to be used");
        return Ok(None);
    }
    Ok(loaded.snapshot.map(Arc::new))
}

/// The state of a snapshot, or the first one of all where there is none or it cannot be used; then it is taken away.
async fn from_snapshot<M: Runnable, V: View<M>>(
    context: &Context,
    snapshot: &mut Option<Arc<Snapshot>>,
) -> Replica<M, V> {
    let Some(found) = snapshot.take() else { return Replica::new(context) };
    match Replica::restore(context, &found).await {
        Ok(replica) => {
            *snapshot = Some(found);
            replica
        }
        Err(why) => {
            tracing::warn!(stream = %context.stream, sequence = found.seq, why, "a snapshot is skipped");
            Replica::new(context)
        }
    }
}

pub(super) fn damaged(context: &Context, source: FoldError) -> LoadError {
    LoadError::Damaged { stream: context.journal_stream.to_string(), source }
}

#[allow(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
pub(super) fn interrupted(error: JoinError) -> LoadError {
    LoadError::Interrupted { problem: error.to_string() }
}

/// Writes answers past the kept ones to the index, at most `max`, and forgets them in memory.
pub(super) async fn index<M: Runnable>(
    context: &Context,
    turn: &mut Turn<M>,
    max: usize,
) -> Result<u64, LoadError> {
    let (answers, through) = answers_to_index(turn, max);
    if let Some(last) = answers.last() {
        // The last row may have more answers than these.
        let complete = last.seq.saturating_sub(1);
        context.journal.index_answers(&context.journal_stream, &answers, complete).await?;
        turn.indexed(through);
    }
    Ok(through)
}

/// What is to be indexed next, and how many answers of the stream are indexed when that is done.
pub(super) fn answers_to_index<M: Runnable>(turn: &Turn<M>, max: usize) -> (Vec<Answer>, u64) {
    let waiting = turn.past_kept_unindexed();
    let answers: Vec<Answer> = turn
        .to_index(max)
        .into_iter()
        .map(|answered| Answer {
            key: answered.key.0.to_be_bytes(),
            seq: answered.locator.sequence(),
            index: answered.locator.index(),
            digest: answered.digest,
        })
        .collect();
    let through = turn.past_kept() - (waiting - answers.len()) as u64;
    (answers, through)
}

/// An answer of the index as the turn knows it.
pub(super) fn answered(answer: &Answer) -> turn::Answered {
    turn::Answered {
        key: CommandKey(u128::from_be_bytes(answer.key)),
        digest: answer.digest,
        locator: Locator::new(answer.seq, answer.index),
    }
}

async fn remember_indexed<M: Runnable>(context: &Context, turn: &mut Turn<M>) -> Result<(), LoadError> {
    let mut after = None;
    loop {
        let keys =
            context.journal.answer_keys(&context.journal_stream, after.as_ref(), KEYS_AT_A_TIME).await?;
        let Some(last) = keys.last() else { return Ok(()) };
        after = Some(*last);
        turn.remember_indexed(keys.iter().map(|indexed| CommandKey(u128::from_be_bytes(indexed.key))));
    }
}
