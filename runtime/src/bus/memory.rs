//! One stream as a value: what a `JetStream` stream does, without a broker, a clock or a thread.
//!
//! Instants are arguments (UTC microseconds). The async bus in memory is a lock around these.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::filter;
use super::{StreamSpec, StreamState};

/// Bookkeeping a message costs beside its subject and payload, in bytes: about what the broker's file
/// store adds.
pub const OVERHEAD_BYTES: u64 = 30;

/// Most ids remembered at once; the oldest are forgotten first, as they are when their window ends.
pub const IDS_MAX: usize = 1 << 20;

/// One message kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it was published on.
    pub subject: String,
    /// When, UTC microseconds.
    pub at: i64,
    /// What was published.
    pub payload: Bytes,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where the message stands, or the one that came first with its id.
    pub sequence: u64,
    /// Whether the id was known.
    pub duplicate: bool,
}

/// Why an append was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRefusal {
    /// The stream is full and refuses new messages.
    Full,
    /// The message is over the stream's limit.
    TooLarge,
    /// The stream does not keep that subject.
    Subject,
}

/// A stream in memory.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    spec: StreamSpec,
    created: i64,
    last: u64,
    bytes: u64,
    messages: BTreeMap<u64, Stored>,
    sequence_by_id: BTreeMap<String, u64>,
    ids_by_age: VecDeque<(i64, String)>,
}

impl MemoryLog {
    /// An empty stream created at `created`, UTC microseconds.
    #[must_use]
    pub fn new(spec: StreamSpec, created: i64) -> Self {
        Self {
            spec,
            created,
            last: 0,
            bytes: 0,
            messages: BTreeMap::new(),
            sequence_by_id: BTreeMap::new(),
            ids_by_age: VecDeque::new(),
        }
    }

    /// What the stream is like.
    #[must_use]
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// Takes new sizes and ages.
    pub fn adopt(&mut self, spec: StreamSpec) {
        self.spec = spec;
    }

    /// What the stream holds.
    #[must_use]
    pub fn state(&self) -> StreamState {
        StreamState {
            created: self.created,
            first: self.messages.keys().next().copied().unwrap_or(self.last + 1),
            last: self.last,
            messages: self.messages.len() as u64,
            bytes: self.bytes,
        }
    }

    /// Whether the stream keeps `subject`.
    #[must_use]
    pub fn keeps(&self, subject: &str) -> bool {
        self.spec.subjects.iter().any(|kept| filter::matches(kept, subject))
    }

    /// Appends at instant `at`. An empty `id` is no id.
    ///
    /// # Errors
    /// A refusal leaves the stream as it was.
    pub fn append(
        &mut self,
        at: i64,
        subject: &str,
        id: &str,
        payload: Bytes,
    ) -> Result<Appended, LogRefusal> {
        if !self.keeps(subject) {
            return Err(LogRefusal::Subject);
        }
        if payload.len() as u64 > u64::from(self.spec.max_message_bytes) {
            return Err(LogRefusal::TooLarge);
        }
        self.expire(at);
        if let Some(&sequence) = self.sequence_by_id.get(id) {
            return Ok(Appended { sequence, duplicate: true });
        }
        let size = size(subject, &payload);
        if self.spec.discard_new && self.bytes + size > self.spec.max_bytes {
            return Err(LogRefusal::Full);
        }
        self.last += 1;
        self.bytes += size;
        self.messages.insert(self.last, Stored { subject: subject.to_owned(), at, payload });
        if !id.is_empty() {
            self.sequence_by_id.insert(id.to_owned(), self.last);
            self.ids_by_age.push_back((at, id.to_owned()));
        }
        self.make_room(subject);
        Ok(Appended { sequence: self.last, duplicate: false })
    }

    /// The messages behind `after` that `covering` covers, oldest first, up to `max_messages` and `max_bytes` of
    /// payload, but at least one if there is one.
    #[must_use]
    pub fn read(
        &self,
        covering: &str,
        after: u64,
        max_messages: usize,
        max_bytes: usize,
    ) -> Vec<(u64, &Stored)> {
        let mut taken = 0;
        let mut batch = Vec::new();
        let behind = self.messages.range(after.saturating_add(1)..);
        for (&sequence, stored) in behind.filter(|(_, stored)| filter::matches(covering, &stored.subject)) {
            taken += stored.payload.len();
            if batch.len() >= max_messages || (!batch.is_empty() && taken > max_bytes) {
                break;
            }
            batch.push((sequence, stored));
        }
        batch
    }

    /// Forgets every message up to `through`, it included. Sequences go on; ids stay known.
    pub fn purge(&mut self, through: u64) {
        let kept = self.messages.split_off(&through.saturating_add(1));
        for stored in std::mem::replace(&mut self.messages, kept).into_values() {
            self.bytes -= size(&stored.subject, &stored.payload);
        }
    }

    /// Goes back to what the stream was when `last` was its newest message: a broker restored from an
    /// older copy.
    pub fn truncate(&mut self, last: u64) {
        for stored in self.messages.split_off(&last.saturating_add(1)).into_values() {
            self.bytes -= size(&stored.subject, &stored.payload);
        }
        self.last = self.last.min(last);
        self.sequence_by_id.retain(|_, sequence| *sequence <= last);
    }

    /// Forgets what is over age at instant `at`: messages, and ids outside the duplicate window.
    fn expire(&mut self, at: i64) {
        let window = i64::try_from(self.spec.duplicate_window.as_micros()).unwrap_or(i64::MAX);
        while let Some((seen, _)) = self.ids_by_age.front() {
            if at.saturating_sub(*seen) < window && self.ids_by_age.len() <= IDS_MAX {
                break;
            }
            if let Some((_, id)) = self.ids_by_age.pop_front() {
                self.sequence_by_id.remove(&id);
            }
        }
        let Some(max_age) = self.spec.max_age else { return };
        let max_age = i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX);
        while let Some((&sequence, stored)) = self.messages.first_key_value() {
            if at.saturating_sub(stored.at) < max_age {
                break;
            }
            self.forget(sequence);
        }
    }

    /// Forgets the oldest messages while a limit is exceeded that discards old ones.
    fn make_room(&mut self, subject: &str) {
        while self.bytes > self.spec.max_bytes {
            let Some((&oldest, _)) = self.messages.first_key_value() else { break };
            self.forget(oldest);
        }
        if let Some(most) = self.spec.max_per_subject {
            let of_subject: Vec<u64> = self
                .messages
                .iter()
                .filter(|(_, stored)| stored.subject == subject)
                .map(|(&sequence, _)| sequence)
                .collect();
            let excess = of_subject.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
            for &sequence in of_subject.iter().take(excess) {
                self.forget(sequence);
            }
        }
    }

    fn forget(&mut self, sequence: u64) {
        if let Some(stored) = self.messages.remove(&sequence) {
            self.bytes -= size(&stored.subject, &stored.payload);
        }
    }
}

fn size(subject: &str, payload: &Bytes) -> u64 {
    subject.len() as u64 + payload.len() as u64 + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn spec() -> StreamSpec {
        StreamSpec::new("s", "a.>")
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append { subject: &'static str, id: u8 },
        Purge { through: u64 },
        Wait { micros: i64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (prop::sample::select(vec!["a.x", "a.y"]), 0..6_u8).prop_map(|(subject, id)| Step::Append { subject, id }),
            1 => (0..12_u64).prop_map(|through| Step::Purge { through }),
            1 => (0..900_000_i64).prop_map(|micros| Step::Wait { micros }),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// Against the plainest possible model: a list of everything ever appended.
        #[test]
        fn a_log_is_a_list(steps in steps()) {
            let mut log = MemoryLog::new(StreamSpec { duplicate_window: Duration::from_secs(1), ..spec() }, 7);
            let (mut now, mut purged) = (0, 0);
            let mut all: Vec<(&str, u8, i64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait { micros } => now += micros,
                    Step::Purge { through } => {
                        log.purge(through);
                        purged = purged.max(through.min(all.len() as u64));
                    }
                    Step::Append { subject, id } => {
                        let known = all.iter().rposition(|&(_, seen, at)| seen == id && now - at < 1_000_000);
                        let appended = log.append(now, subject, &id.to_string(), Bytes::from(vec![id])).unwrap();
                        let expected = known.map_or(all.len() as u64 + 1, |index| index as u64 + 1);
                        prop_assert_eq!(appended, Appended { sequence: expected, duplicate: known.is_some() });
                        if known.is_none() {
                            all.push((subject, id, now));
                        }
                    }
                }
                prop_assert_eq!(log.state().last, all.len() as u64);
                let read: Vec<u64> = log.read("a.x", 0, 100, usize::MAX).iter().map(|(sequence, _)| *sequence).collect();
                let expected: Vec<u64> = (1..).zip(&all).filter(|(sequence, (subject, ..))| *sequence > purged && *subject == "a.x").map(|(sequence, _)| sequence).collect();
                prop_assert_eq!(read, expected);
            }
            let held: u64 = log.read(">", 0, 1000, usize::MAX).iter().map(|(_, stored)| size(&stored.subject, &stored.payload)).sum();
            prop_assert_eq!(log.state().bytes, held);
        }
    }

    #[test]
    fn batches_are_bounded_but_never_empty() {
        let mut log = MemoryLog::new(spec(), 0);
        for _ in 0..5 {
            log.append(0, "a.x", "", Bytes::from_static(b"0123456789")).unwrap();
        }
        let lengths = [(2, 1000), (10, 25), (10, 3), (1, 0)]
            .map(|(messages, bytes)| log.read(">", 0, messages, bytes).len());
        assert_eq!(lengths, [2, 2, 1, 1]);
        assert_eq!(log.read(">", 4, 10, 1000).first().map(|(sequence, _)| *sequence), Some(5));
    }

    #[test]
    fn limits_refuse_or_forget() {
        let room = 2 * size("a.x", &Bytes::from_static(b"0123456789"));
        let payload = || Bytes::from_static(b"0123456789");
        let mut keeps_old = MemoryLog::new(StreamSpec { discard_new: true, max_bytes: room, ..spec() }, 0);
        let mut keeps_new = MemoryLog::new(StreamSpec { max_bytes: room, ..spec() }, 0);
        for log in [&mut keeps_old, &mut keeps_new] {
            assert!(
                log.append(0, "a.x", "", payload()).is_ok() && log.append(0, "a.x", "", payload()).is_ok()
            );
        }
        assert_eq!(keeps_old.append(0, "a.x", "", payload()), Err(LogRefusal::Full));
        assert!(keeps_new.append(0, "a.x", "", payload()).is_ok());
        assert_eq!((keeps_old.state().first, keeps_old.state().last), (1, 2));
        assert_eq!((keeps_new.state().first, keeps_new.state().last), (2, 3));
        assert_eq!(keeps_old.append(0, "b", "", payload()), Err(LogRefusal::Subject));
    }

    #[test]
    fn age_and_subject_limits_forget_the_oldest() {
        let aged = StreamSpec { max_age: Some(Duration::from_secs(1)), max_per_subject: Some(2), ..spec() };
        let mut log = MemoryLog::new(aged, 0);
        for subject in ["a.x", "a.y", "a.x", "a.x"] {
            log.append(0, subject, "", Bytes::new()).unwrap();
        }
        assert_eq!(
            log.read(">", 0, 9, 9).iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(),
            [2, 3, 4]
        );
        log.append(1_000_000, "a.y", "", Bytes::new()).unwrap();
        assert_eq!(log.state().first, 5);
    }

    #[test]
    fn a_truncated_log_regressed() {
        let mut log = MemoryLog::new(spec(), 9);
        for id in ["1", "2", "3"] {
            log.append(0, "a.x", id, Bytes::new()).unwrap();
        }
        let position = super::super::Position { created: 9, sequence: 3 };
        assert!(!log.state().regressed_from(position));
        log.truncate(1);
        assert!(log.state().regressed_from(position));
        assert_eq!(log.append(0, "a.x", "3", Bytes::new()), Ok(Appended { sequence: 2, duplicate: false }));
    }
}
