//! Second stage: decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::Timestamp;
use tokio::sync::{mpsc, watch};
use turn::{Decoded, Found, Turn, Turned};

use super::load::answered;
use super::progress::Progress;
use super::read::Input;
use super::{Context, Ended, LoadError, Runnable};

/// Turns decided ahead of the commit in flight.
pub(super) const TURNS_AHEAD: usize = 2;
/// Rows whose events are not out yet, beyond which only a full turn is begun; and none is begun while answers are not
/// out. The broker syncs message by message: small turns at once only wait for each other there, where one larger turn
/// would have had one message of answers. A full turn waits for nobody, because waiting makes it no larger.
const ROWS_UNTOLD_MAX: u64 = 2;
/// Messages gathered for the next turns while the commit is busy.
const GATHERED_MAX: usize = 4_096;
/// A machine that is due and decides nothing is not asked again sooner.
const IDLE_WAKE_PAUSE: Duration = Duration::from_millis(100);
/// Longest sleep before looking at the clock again.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How long a stopping runner waits for what is in flight before it goes without its closing row.
const CLOSING_WAIT: Duration = Duration::from_secs(5);
/// How long the follower may take to write old answers to the index when they are too many.
const INDEX_WAIT: Duration = Duration::from_mins(1);

/// What the step stage hands on.
pub(super) type Stepped<M> = Turned<<M as proto::Machine>::Command, <M as proto::Machine>::Event>;

/// The step stage.
pub(super) struct Stepper<M: Runnable> {
    pub(super) context: Context,
    pub(super) turn: Turn<M>,
    pub(super) progress: Arc<Progress>,
    /// How many answers of the stream the index holds.
    pub(super) indexed: watch::Receiver<u64>,
    /// The first message waiting, and when it was read.
    pub(super) waiting_since: Option<Instant>,
    pub(super) gathered: Vec<Decoded<M::Command>>,
    pub(super) regressed: Option<i64>,
    pub(super) last_token: turn::Token,
}

impl<M: Runnable> Stepper<M> {
    pub(super) fn new(
        context: Context,
        turn: Turn<M>,
        progress: Arc<Progress>,
        indexed: watch::Receiver<u64>,
    ) -> Self {
        let (waiting_since, gathered, regressed) = (None, Vec::new(), None);
        let last_token = turn::Token::default();
        Self { context, turn, progress, indexed, waiting_since, gathered, regressed, last_token }
    }

    /// Decides until the reader ends, then closes.
    pub(super) async fn run(
        mut self,
        mut input: mpsc::Receiver<Input<M::Command>>,
        output: mpsc::Sender<Stepped<M>>,
    ) -> Result<(), Ended> {
        let mut not_before: Option<Instant> = None;
        loop {
            if self.gathered.is_empty() && self.regressed.is_none() {
                let delay = self.wake_delay(not_before)?;
                tokio::select! {
                    next = input.recv() => match next {
                        Some(next) => self.gather(next),
                        None => break,
                    },
                    () = tokio::time::sleep(delay.unwrap_or(SLEEP_MAX)) => {
                        if delay.is_none_or(|delay| delay == SLEEP_MAX) {
                            continue;
                        }
                    }
                }
            }
            // The permit comes when the commit stage is ready for more; until then the turn gathers.
            let Ok(permit) = output.reserve().await else { return Ok(()) };
            self.gather_until_room(&mut input).await;
            let turned = self.step().await?;
            let idle = turned.row.is_none() && turned.counts.deliveries == 0;
            not_before = idle.then(|| Instant::now() + IDLE_WAKE_PAUSE);
            permit.send(turned);
            // Who was woken may only run on this thread, and the next turn would keep it waiting.
            tokio::task::yield_now().await;
        }
        self.close(output).await
    }

    /// How long until the machine wants to be woken; `None`: never.
    fn wake_delay(&self, not_before: Option<Instant>) -> Result<Option<Duration>, Ended> {
        let Some(due) = self.turn.wake_at() else { return Ok(None) };
        let now = self.context.clock.now()?.max(self.turn.at());
        let until = Duration::from_micros(u64::try_from(due.micros_since(now)).unwrap_or(0));
        let pause = not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        Ok(Some(until.max(pause).min(SLEEP_MAX)))
    }

    fn gather(&mut self, input: Input<M::Command>) {
        match input {
            Input::Batch(mut batch, read_at) => {
                self.waiting_since.get_or_insert(read_at);
                self.gathered.append(&mut batch);
            }
            Input::Regressed { created } => self.regressed = Some(created),
        }
        self.context.shown.waiting(self.waiting_since);
    }

    /// Takes whatever else was read, until there is room for another turn or this one is full. What is due by itself
    /// does not wait.
    async fn gather_until_room(&mut self, input: &mut mpsc::Receiver<Input<M::Command>>) {
        self.gather_waiting(input);
        let progress = Arc::clone(&self.progress);
        let room = progress.has_room(self.last_token, self.turn.sequence(), ROWS_UNTOLD_MAX);
        tokio::pin!(room);
        while !self.gathered.is_empty() && self.regressed.is_none() && !Turn::<M>::is_full(&self.gathered) {
            tokio::select! {
                biased;
                () = &mut room => return,
                next = input.recv() => match next {
                    Some(next) => self.gather(next),
                    // The reader ended; what is gathered is decided all the same.
                    None => return,
                },
            }
        }
    }

    /// Takes whatever else was read, up to a change of the stream, which must come between two turns.
    fn gather_waiting(&mut self, input: &mut mpsc::Receiver<Input<M::Command>>) {
        while self.regressed.is_none() && self.gathered.len() < GATHERED_MAX {
            let Ok(next) = input.try_recv() else { return };
            self.gather(next);
        }
    }

    async fn step(&mut self) -> Result<Stepped<M>, Ended> {
        let (published, token) = self.progress.told();
        self.turn.note_published(published);
        self.turn.told(token);
        self.forget_indexed().await?;
        let fit = Turn::<M>::fit(&self.gathered);
        let rest = self.gathered.split_off(fit);
        let mut batch = std::mem::replace(&mut self.gathered, rest);
        self.look_up(&mut batch).await?;
        let now = self.now()?;
        for misdirected in batch.iter().filter(|delivery| delivery.is_misdirected()) {
            tracing::warn!(
                stream = %self.context.stream, subject = misdirected.subject(),
                "a message's subject names nobody, or another stream; it is passed over"
            );
        }
        let begun = Instant::now();
        if let Some(pulse) = &self.context.pulse {
            pulse.beat();
        }
        let turned = self.turn.turn(now, batch)?;
        if let Some(pulse) = &self.context.pulse {
            pulse.rest();
        }
        self.context.shown.turned(&turned.counts, begun.elapsed());
        if self.gathered.is_empty() {
            // Behind the messages of the old stream, before those of the new one.
            if let Some(created) = self.regressed.take() {
                self.turn.regressed(created);
            }
            self.waiting_since = None;
            self.context.shown.waiting(None);
        }
        self.last_token = turned.token;
        Ok(turned)
    }

    fn now(&self) -> Result<Timestamp, Ended> {
        Ok(self.context.clock.now()?)
    }

    /// Asks the journal's index about ids that memory cannot tell.
    async fn look_up(&self, batch: &mut [Decoded<M::Command>]) -> Result<(), Ended> {
        for delivery in batch {
            let doubts = self.turn.doubts(delivery);
            if doubts.is_empty() {
                continue;
            }
            let keys: Vec<_> = doubts.iter().map(|(_, key)| key.0.to_be_bytes()).collect();
            let journal = &self.context.journal;
            let answers = journal
                .find_answers(&self.context.journal_stream, &keys)
                .await
                .map_err(|error| Ended::Load(LoadError::Journal(error)))?;
            let found = doubts.iter().zip(&keys).filter_map(|((command, _), key)| {
                let answered = answered(answers.get(key)?);
                Some(Found { command: *command, answered })
            });
            delivery.looked_up(found.collect());
        }
        Ok(())
    }

    /// Forgets what the index holds. Where too much waits for the index, waits too: memory has a bound.
    async fn forget_indexed(&mut self) -> Result<(), Ended> {
        let through = *self.indexed.borrow_and_update();
        self.turn.indexed(through);
        let begun = Instant::now();
        while self.turn.is_index_overdue() {
            let left = INDEX_WAIT.saturating_sub(begun.elapsed());
            let moved = tokio::time::timeout(left, self.indexed.changed()).await;
            if !matches!(moved, Ok(Ok(()))) {
                return Err(Ended::Index { unindexed: self.turn.past_kept_unindexed() });
            }
            let through = *self.indexed.borrow_and_update();
            self.turn.indexed(through);
        }
        Ok(())
    }

    /// Waits until everything is out and says so in a last row.
    async fn close(mut self, output: mpsc::Sender<Stepped<M>>) -> Result<(), Ended> {
        let reached = self.progress.reaches(self.turn.sequence(), self.last_token);
        if tokio::time::timeout(CLOSING_WAIT, reached).await.is_err() {
            tracing::warn!(stream = %self.context.stream, "stopping before everything is published; the next runner goes on");
            return Ok(());
        }
        let (published, token) = self.progress.told();
        self.turn.note_published(published);
        self.turn.told(token);
        let now = self.now()?;
        if let Some(turned) = self.turn.closing(now) {
            // Gone only when the pipeline ends for another reason.
            let _ = output.send(turned).await;
        }
        Ok(())
    }
}
