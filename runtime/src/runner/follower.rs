//! The follower: a replica behind the runner, for everything that must not slow it.
//!
//! It folds committed rows, answers questions, writes old answers to the index, saves snapshots and archives
//! rows. It never holds the runner up: when its queue is full it misses rows, and reads them from the journal.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use journal::Snapshot;
use proto::subject;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::commit::Committed;
use super::load::{
    INDEX_ANSWERS, LoadError, Newest, Replica, Source, answers_to_index, load_replica, snapshot_version,
};
use super::pages::Pages;
use super::view::{QUERY_WAIT_MAX, View};
use super::{Context, Ended, Runnable};
use crate::bus::{Query, Serving};

/// Committed rows that wait for the follower; what comes on top it reads from the journal.
pub const FOLLOWER_QUEUE_ROWS: usize = 256;
/// A snapshot is due after so many commands, even if `snapshot_every_rows` are not there yet: the next start
/// folds about so many. But each snapshot holds the whole state: none is made before [`ROWS_PER_SNAPSHOT_BYTES`]
/// are there.
pub const SNAPSHOT_EVERY_COMMANDS: u64 = 1 << 19;
/// Bytes of rows for each byte of the last snapshot before the next one is made. Under load with a large state, one
/// byte each let snapshots take a third of the service's processor time.
const ROWS_PER_SNAPSHOT_BYTES: usize = 4;

/// A replica that questions are answered from while rows are folded into it.
struct Shared<M: Runnable, V: View<M>> {
    replica: RwLock<Replica<M, V>>,
    /// The last row folded.
    folded: watch::Sender<u64>,
}

impl<M: Runnable, V: View<M>> Shared<M, V> {
    fn read(&self) -> RwLockReadGuard<'_, Replica<M, V>> {
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Replica<M, V>> {
        self.replica.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A snapshot that is saved once all rows in it are known to be published.
struct Pending {
    snapshot: Snapshot,
    commands: u64,
}

struct Follower<M: Runnable, V: View<M>> {
    context: Context,
    shared: Arc<Shared<M, V>>,
    indexed: watch::Sender<u64>,
    pending: Option<Pending>,
    /// At most one snapshot is being saved.
    saving: JoinSet<()>,
}

/// Follows until the pipeline ends, from the snapshot that the runner was loaded from.
pub(super) async fn run<M: Runnable, V: View<M>>(
    context: Context,
    source: Source<M, V>,
    mut input: mpsc::Receiver<Committed<M>>,
    indexed: watch::Sender<u64>,
) -> Result<(), Ended> {
    let mut replica = load_replica::<M, V>(&context, source).await?;
    replica.measure(&context);
    let folded = watch::Sender::new(replica.turn.sequence());
    let shared = Arc::new(Shared { replica: RwLock::new(replica), folded });
    let _serving = serve(&context, &shared).await;
    let saving = JoinSet::new();
    let mut follower = Follower { context, shared, indexed, pending: None, saving };
    while let Some(committed) = input.recv().await {
        follower.take(&committed).await?;
        follower.context.shown.follower_lag.set(input.len() as i64);
        follower.keep(committed.row.published).await;
        // Rows are folded in one go: others get their turn between them.
        tokio::task::yield_now().await;
    }
    Ok(())
}

impl<M: Runnable, V: View<M>> Follower<M, V> {
    async fn take(&mut self, committed: &Committed<M>) -> Result<(), LoadError> {
        let next = self.shared.read().turn.sequence() + 1;
        if committed.row.sequence < next {
            return Ok(());
        }
        if committed.row.sequence > next {
            return self.read_missed().await;
        }
        {
            let mut replica = self.shared.write();
            replica.turn.follow(&committed.row, &committed.decided).map_err(|source| LoadError::Damaged {
                stream: self.context.journal_stream.to_string(),
                source,
            })?;
            replica.show(&committed.row, committed.decided.events.iter());
        }
        self.shared.folded.send_replace(committed.row.sequence);
        Ok(())
    }

    /// Reads what was missed from the journal. Questions are answered between two rows.
    async fn read_missed(&mut self) -> Result<(), LoadError> {
        let mut pages = Pages::<M>::after(&self.context, *self.shared.folded.borrow());
        while let Some(page) = pages.next().await? {
            for read in page {
                let sequence = read.row().sequence;
                self.shared.write().take_in(&self.context, &read, false)?;
                self.shared.folded.send_replace(sequence);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Index, snapshot, archive: none of it may stop the stream.
    async fn keep(&mut self, published: u64) {
        let waiting = self.shared.read().turn.past_kept_unindexed();
        if waiting >= INDEX_ANSWERS
            && let Err(error) = self.index().await
        {
            tracing::warn!(stream = %self.context.stream, "old answers are not indexed now: {error}");
            return;
        }
        if self.is_snapshot_due()
            && let Err(error) = self.make_snapshot().await
        {
            self.context.shown.snapshot_failures.inc();
            tracing::warn!(stream = %self.context.stream, "no snapshot is made now: {error}");
            return;
        }
        while self.saving.try_join_next().is_some() {}
        if let Some(pending) = self.pending.take_if(|pending| pending.snapshot.seq <= published) {
            // On its own: it takes long, and rows come meanwhile.
            self.saving.spawn(save::<M, V>(self.context.clone(), pending));
        }
    }

    async fn index(&mut self) -> Result<(), LoadError> {
        let (answers, through) = answers_to_index(&self.shared.read().turn, INDEX_ANSWERS);
        if let Some(last) = answers.last() {
            // The last row may have more answers than these.
            let complete = last.seq.saturating_sub(1);
            self.context.journal.index_answers(&self.context.journal_stream, &answers, complete).await?;
            self.shared.write().turn.indexed(through);
            self.indexed.send_replace(through);
        }
        Ok(())
    }

    fn is_snapshot_due(&self) -> bool {
        let replica = self.shared.read();
        // As it was loaded: rows that were behind the newest snapshot at the start count, so that who is killed again
        // and again does not fold more at each start.
        let newest = replica.newest;
        let rows = replica.turn.sequence() - newest.sequence;
        let commands = replica.turn.answers_recorded() - newest.commands;
        self.pending.is_none()
            && self.saving.is_empty()
            && newest.bytes_behind >= ROWS_PER_SNAPSHOT_BYTES * newest.bytes
            && (rows >= u64::from(self.context.settings.snapshot_every_rows.get())
                || commands >= SNAPSHOT_EVERY_COMMANDS)
    }

    async fn make_snapshot(&mut self) -> Result<(), LoadError> {
        // What a snapshot does not hold must be in the index.
        while self.shared.read().turn.past_kept_unindexed() > 0 {
            self.index().await?;
        }
        let shared = Arc::clone(&self.shared);
        let made = tokio::task::spawn_blocking(move || {
            let replica = shared.read();
            (replica.turn.sequence(), replica.turn.answers_recorded(), replica.snapshot())
        });
        let (seq, commands, body) =
            made.await.map_err(|error| LoadError::Interrupted { problem: error.to_string() })?;
        let snapshot = Snapshot { seq, version: snapshot_version::<M, V>(), body };
        // Nobody else writes to the replica, so it is still at this row.
        self.shared.write().newest =
            Newest { sequence: seq, commands, bytes: snapshot.body.len(), bytes_behind: 0 };
        self.pending = Some(Pending { snapshot, commands });
        Ok(())
    }
}

async fn save<M: Runnable, V: View<M>>(context: Context, pending: Pending) {
    let Pending { snapshot, commands } = pending;
    let saved = context.journal.save_snapshot(&context.journal_stream, &snapshot).await;
    if let Err(error) = saved {
        context.shown.snapshot_failures.inc();
        tracing::warn!(stream = %context.stream, sequence = snapshot.seq, "a snapshot is not saved: {error}");
        return;
    }
    context.shown.snapshot.set(snapshot.seq as i64);
    tracing::info!(
        stream = %context.stream, sequence = snapshot.seq, commands, bytes = snapshot.body.len(),
        "snapshot saved"
    );
    archive::<M, V>(&context, snapshot.seq).await;
}

async fn archive<M: Runnable, V: View<M>>(context: &Context, sequence: u64) {
    let up_to = sequence.saturating_sub(context.settings.rows_kept.get());
    let Some(dir) = context.archive_dir().filter(|_| up_to > 0) else { return };
    let version = snapshot_version::<M, V>();
    match context.journal.archive(&context.journal_stream, &dir, up_to, version).await {
        Ok(Some(file)) => tracing::info!(
            stream = %context.stream, first = file.first_seq, last = file.last_seq,
            path = %file.path.display(), "rows archived"
        ),
        Ok(None) => {}
        Err(error) => tracing::warn!(stream = %context.stream, "rows are not archived now: {error}"),
    }
}

/// Answers questions until the returned value is dropped. A bus that refuses costs reads, not the stream.
async fn serve<M: Runnable, V: View<M>>(context: &Context, shared: &Arc<Shared<M, V>>) -> Option<Serving> {
    let filter = subject::query(M::NAME, &context.stream, ">");
    let prefix = subject::query(M::NAME, &context.stream, "");
    let shared = Arc::clone(shared);
    let serving =
        context.bus.serve(&filter, move |query| answer(Arc::clone(&shared), prefix.clone(), query)).await;
    serving
        .inspect_err(|error| {
            tracing::error!(stream = %context.stream, "questions are not answered: {error}");
        })
        .ok()
}

async fn answer<M: Runnable, V: View<M>>(
    shared: Arc<Shared<M, V>>,
    prefix: String,
    query: Query,
) -> Result<Bytes, String> {
    let Some(question) = query.subject.strip_prefix(&prefix) else {
        return Err(format!("{} is no question to this stream", query.subject));
    };
    if let Some(sequence) = V::wait_for(question, &query.payload) {
        let mut folded = shared.folded.subscribe();
        let reached = folded.wait_for(|folded| *folded >= sequence);
        if tokio::time::timeout(QUERY_WAIT_MAX, reached).await.is_err() {
            return Err(format!("sequence {sequence} is not reached; it is at {}", *shared.folded.borrow()));
        }
    }
    let replica = shared.read();
    replica.view.answer(replica.turn.machine(), question, &query.payload)
}
