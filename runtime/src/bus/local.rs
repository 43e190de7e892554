//! The bus within one process: streams under one lock, readers woken by one counter.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::error::{BusError, PublishError, ReadEnd, Refusal};
use super::memory::{LogRefusal, MemoryLog};
use super::query::{Announcement, Handler, LISTENER_MESSAGES_MAX};
use super::{Counters, Delivery, Position, StreamSpec, StreamState, count, filter};

/// A bus in memory; [`super::Bus::local`] gives it to tests that want to break its streams.
#[derive(Clone, Debug, Default)]
pub struct LocalBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inside: Mutex<Inside>,
    /// Counts changes, so that a reader that saw number n waits for n + 1 and misses none.
    changes: watch::Sender<u64>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { inside: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

#[derive(Default)]
struct Inside {
    streams: BTreeMap<String, MemoryLog>,
    newest_created: i64,
    listeners: Vec<LocalListener>,
    servers: VecDeque<LocalServer>,
    next_server: u64,
}

struct LocalListener {
    filter: String,
    sender: mpsc::Sender<Announcement>,
    counters: Arc<Counters>,
}

struct LocalServer {
    number: u64,
    filter: String,
    handler: Handler,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Inside").field("streams", &self.streams.keys()).finish_non_exhaustive()
    }
}

impl LocalBus {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // A panic elsewhere leaves a log whole: every change to it is complete before anything can panic.
        self.shared.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.shared.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn ensure_stream(&self, spec: &StreamSpec) -> Result<StreamState, BusError> {
        let mut inside = self.lock();
        if let Some(log) = inside.streams.get_mut(&spec.name) {
            let problems = unsafe_differences(log.spec(), spec);
            if !problems.is_empty() {
                return Err(BusError::UnsafeStream { stream: spec.name.clone(), problems });
            }
            log.adopt(spec.clone());
            return Ok(log.state());
        }
        for other in inside.streams.values() {
            let shares =
                |subject: &String| other.spec().subjects.iter().any(|kept| filter::overlap(kept, subject));
            if spec.subjects.iter().any(shares) {
                let why = format!("subjects overlap with those of stream {}", other.spec().name);
                return Err(BusError::broker("create stream", &spec.name, why));
            }
        }
        Ok(inside.create(spec.clone()))
    }

    pub(super) fn publish(
        &self,
        subject: &str,
        id: &str,
        headers: &[(&str, &str)],
        payload: &Bytes,
    ) -> Result<Position, PublishError> {
        let refused = |reason| PublishError::Refused { subject: subject.to_owned(), reason };
        if !filter::is_subject(subject) {
            return Err(refused(Refusal::Subject));
        }
        if let Some((name, _)) =
            headers.iter().chain(&[("Nats-Msg-Id", id)]).find(|(_, value)| value.contains(['\r', '\n']))
        {
            return Err(refused(Refusal::Header { name: (*name).to_owned() }));
        }
        let mut inside = self.lock();
        let Some(log) = inside.streams.values_mut().find(|log| log.keeps(subject)) else {
            // As the broker: nobody may be listening yet, so a repeat can succeed.
            let why = "no stream keeps this subject".to_owned();
            return Err(PublishError::Ambiguous { subject: subject.to_owned(), why });
        };
        let appended =
            log.append(now_micros(), subject, id, payload.clone()).map_err(|refusal| match refusal {
                LogRefusal::Full => {
                    refused(Refusal::Full { description: "maximum bytes exceeded".to_owned() })
                }
                LogRefusal::TooLarge => refused(Refusal::TooLarge { bytes: payload.len() }),
                LogRefusal::Subject => refused(Refusal::Subject),
            })?;
        let created = log.state().created;
        inside.tell(subject, payload);
        drop(inside);
        self.changed();
        Ok(Position { created, sequence: appended.sequence })
    }

    pub(super) fn purge(&self, stream: &str, through: u64) -> Result<(), BusError> {
        self.with_log(stream, |log| log.purge(through))
    }

    pub(super) fn stream_state(&self, stream: &str) -> Result<StreamState, BusError> {
        self.with_log(stream, |log| log.state())
    }

    /// Deletes the stream and creates it again, empty: what an operator's mistake looks like.
    ///
    /// # Errors
    /// [`BusError::NoSuchStream`].
    pub fn recreate(&self, stream: &str) -> Result<StreamState, BusError> {
        let mut inside = self.lock();
        let Some(log) = inside.streams.remove(stream) else {
            return Err(BusError::NoSuchStream { stream: stream.to_owned() });
        };
        let state = inside.create(log.spec().clone());
        drop(inside);
        self.changed();
        Ok(state)
    }

    /// Takes the stream back to where `last` was its newest message: a broker restored from an old copy.
    ///
    /// # Errors
    /// [`BusError::NoSuchStream`].
    pub fn truncate(&self, stream: &str, last: u64) -> Result<(), BusError> {
        self.with_log(stream, |log| log.truncate(last))?;
        self.changed();
        Ok(())
    }

    fn with_log<T>(&self, stream: &str, act: impl FnOnce(&mut MemoryLog) -> T) -> Result<T, BusError> {
        let mut inside = self.lock();
        let log = inside.streams.get_mut(stream);
        log.map(act).ok_or_else(|| BusError::NoSuchStream { stream: stream.to_owned() })
    }

    pub(super) fn announce(&self, subject: &str, payload: &Bytes) {
        self.lock().tell(subject, payload);
    }

    pub(super) fn listen(&self, filter: &str, counters: Arc<Counters>) -> mpsc::Receiver<Announcement> {
        let (sender, receiver) = mpsc::channel(LISTENER_MESSAGES_MAX);
        self.lock().listeners.push(LocalListener { filter: filter.to_owned(), sender, counters });
        receiver
    }

    /// Registers a server and says under which number.
    pub(super) fn serve(&self, filter: &str, handler: Handler) -> u64 {
        let mut inside = self.lock();
        inside.next_server += 1;
        let number = inside.next_server;
        inside.servers.push_back(LocalServer { number, filter: filter.to_owned(), handler });
        number
    }

    pub(super) fn stop_serving(&self, number: u64) {
        self.lock().servers.retain(|server| server.number != number);
    }

    /// Who answers `subject` this time: servers of the same subject take turns.
    pub(super) fn server_of(&self, subject: &str) -> Option<Handler> {
        let mut inside = self.lock();
        let index = inside.servers.iter().position(|server| filter::matches(&server.filter, subject))?;
        let server = inside.servers.remove(index)?;
        let handler = Arc::clone(&server.handler);
        inside.servers.push_back(server);
        Some(handler)
    }

    pub(super) fn read(
        &self,
        stream: &str,
        filter: &str,
        after: Option<Position>,
        counters: Arc<Counters>,
    ) -> LocalReader {
        LocalReader {
            changes: self.shared.changes.subscribe(),
            bus: self.clone(),
            stream: stream.to_owned(),
            filter: filter.to_owned(),
            after,
            counters,
        }
    }
}

impl Inside {
    fn create(&mut self, spec: StreamSpec) -> StreamState {
        // Two streams made within one microsecond must still be told apart.
        self.newest_created = now_micros().max(self.newest_created + 1);
        let log = MemoryLog::new(spec, self.newest_created);
        let state = log.state();
        self.streams.insert(log.spec().name.clone(), log);
        state
    }

    fn tell(&mut self, subject: &str, payload: &Bytes) {
        self.listeners.retain(|listener| !listener.sender.is_closed());
        for listener in self.listeners.iter().filter(|listener| filter::matches(&listener.filter, subject)) {
            let announcement = Announcement { subject: subject.to_owned(), payload: payload.clone() };
            if listener.sender.try_send(announcement).is_err() {
                count(&listener.counters.slow_consumers);
            }
        }
    }
}

/// What the broker would refuse to change, or what would be dangerous to.
fn unsafe_differences(have: &StreamSpec, want: &StreamSpec) -> String {
    let mut problems = Vec::new();
    if have.subjects != want.subjects {
        problems.push(format!("subjects are {:?}, must be {:?}", have.subjects, want.subjects));
    }
    if have.discard_new != want.discard_new {
        problems.push(format!("discard_new is {}, must be {}", have.discard_new, want.discard_new));
    }
    if have.storage != want.storage {
        problems.push(format!("storage is {:?}, must be {:?}", have.storage, want.storage));
    }
    problems.join("; ")
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[derive(Debug)]
pub(super) struct LocalReader {
    bus: LocalBus,
    changes: watch::Receiver<u64>,
    stream: String,
    filter: String,
    after: Option<Position>,
    counters: Arc<Counters>,
}

impl LocalReader {
    pub(super) fn position(&self) -> Option<Position> {
        self.after
    }

    pub(super) async fn next_batch(
        &mut self,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Delivery>, ReadEnd> {
        loop {
            self.changes.borrow_and_update();
            let batch = self.take(max_messages, max_bytes)?;
            if !batch.is_empty() {
                self.after = batch.last().map(|delivery| delivery.position);
                return Ok(batch);
            }
            // The sender lives in the bus this reader holds, so this cannot fail; if it did, looking again
            // would be right as well.
            let _ = self.changes.changed().await;
        }
    }

    fn take(&mut self, max_messages: usize, max_bytes: usize) -> Result<Vec<Delivery>, ReadEnd> {
        let inside = self.bus.lock();
        // A stream that is not there yet may still come; a broker's reader waits for it as well.
        let Some(log) = inside.streams.get(&self.stream) else { return Ok(Vec::new()) };
        let state = log.state();
        if let Some(old) = self.after.filter(|after| state.regressed_from(*after)) {
            self.after = None;
            count(&self.counters.stream_regressions);
            return Err(ReadEnd::StreamRegressed { stream: self.stream.clone(), old, new: state });
        }
        let after = self.after.map_or(0, |position| position.sequence);
        let deliver = |(sequence, stored): (u64, &super::memory::Stored)| Delivery {
            subject: stored.subject.clone(),
            position: Position { created: state.created, sequence },
            payload: stored.payload.clone(),
        };
        Ok(log.read(&self.filter, after, max_messages, max_bytes).into_iter().map(deliver).collect())
    }
}
