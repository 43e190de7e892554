//! The bus: `publish(subject, id, payload)` and `read(filter, after)`, on `NATS` `JetStream` or in memory.
//!
//! A message that was acknowledged is in its stream; the same id published twice within the stream's
//! duplicate window is one message. A reader owns its position and gives every message after it exactly
//! once, in order, through reconnects and restarts of the broker; the position it hands out belongs in the
//! transaction of whoever acts on the message. A stream that was recreated or went backwards is reported
//! once and then read again from its first message.
//!
//! Beside streams the bus carries two things that are not kept: questions with answers ([`Bus::request`],
//! [`Bus::serve`]) and announcements ([`Bus::announce`], [`Bus::listen`]).

mod broker;
mod durability;
mod error;
pub mod filter;
mod local;
pub mod memory;
mod query;
mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

pub use broker::BrokerOptions;
pub use durability::Durability;
pub use error::{BusError, PublishError, ReadEnd, Refusal, RequestError};
pub use local::LocalBus;
pub use query::{Announcement, Listener, PART_BYTES_MAX, PARTS_MAX, Query, Serving};

/// Largest message a stream takes unless it is told otherwise, in bytes: envelopes end at 768 KiB, and this
/// leaves room for headers.
pub const MESSAGE_BYTES_MAX: u32 = 1024 * 1024;

/// Where a message stands: which incarnation of the stream, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// When the stream was created, UTC microseconds. A recreated stream counts from one again, so a
    /// sequence alone means nothing.
    pub created: i64,
    /// Place in the stream, from 1.
    pub sequence: u64,
}

/// One message as a reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The subject it was published on.
    pub subject: String,
    /// Where it stands in its stream.
    pub position: Position,
    /// What was published.
    pub payload: Bytes,
}

/// Where a stream keeps its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    File,
    /// In the broker's memory: gone when the broker ends.
    Memory,
}

/// What a stream must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Name: letters, digits, `-` and `_`.
    pub name: String,
    /// Filters of the subjects it keeps. No two streams may keep the same subject.
    pub subjects: Vec<String>,
    /// When full: refuse new messages (`true`) or forget the oldest (`false`).
    pub discard_new: bool,
    /// How long a message is kept; `None` = until it is purged.
    pub max_age: Option<Duration>,
    /// Size at which the stream is full, in bytes, headers and bookkeeping included.
    pub max_bytes: u64,
    /// Largest message, headers included, in bytes.
    pub max_message_bytes: u32,
    /// How many messages of one subject are kept; `None` = no limit.
    pub max_per_subject: Option<u64>,
    /// Where messages are kept.
    pub storage: Storage,
    /// How long an id is remembered. At least 100 ms, the broker's own floor.
    pub duplicate_window: Duration,
    /// Copies in a cluster of brokers: 1, 3 or 5.
    pub replicas: u8,
}

impl StreamSpec {
    /// A file stream of `name` over one filter: 1 GiB, forgets the oldest, ids remembered for two minutes.
    #[must_use]
    pub fn new(name: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            subjects: vec![subject.into()],
            discard_new: false,
            max_age: None,
            max_bytes: 1 << 30,
            max_message_bytes: MESSAGE_BYTES_MAX,
            max_per_subject: None,
            storage: Storage::File,
            duplicate_window: Duration::from_mins(2),
            replicas: 1,
        }
    }
}

/// What a stream holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// When it was created, UTC microseconds.
    pub created: i64,
    /// Sequence of the oldest message kept; `last + 1` when it is empty.
    pub first: u64,
    /// Sequence of the newest message ever stored; 0 when there was none.
    pub last: u64,
    /// Messages kept.
    pub messages: u64,
    /// Their size, in bytes.
    pub bytes: u64,
}

impl StreamState {
    /// Whether a reader that has seen everything up to `position` has reason to doubt that this is still
    /// the same stream: it was created at another instant, or it ends before the position.
    #[must_use]
    pub fn regressed_from(&self, position: Position) -> bool {
        self.created != position.created || self.last < position.sequence
    }
}

/// How often something out of the ordinary happened on this bus, since it was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounts {
    /// Connections made, the first included.
    pub connects: u64,
    /// Connections lost.
    pub disconnects: u64,
    /// Times the client dropped a message of a subscription that was not read fast enough. Streams are
    /// pulled within what there is room for, so only announcements and answers can be hit.
    pub slow_consumers: u64,
    /// Times a reader opened its stream again behind its position.
    pub reader_reopens: u64,
    /// Times a reader found its stream recreated or shorter than its position.
    pub stream_regressions: u64,
    /// Publishes whose outcome is unknown.
    pub ambiguous_publishes: u64,
    /// Publishes refused.
    pub refused_publishes: u64,
    /// Errors the broker reported on the connection, such as a permission that is missing.
    pub broker_errors: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    connects: AtomicU64,
    disconnects: AtomicU64,
    slow_consumers: AtomicU64,
    reader_reopens: AtomicU64,
    stream_regressions: AtomicU64,
    ambiguous_publishes: AtomicU64,
    refused_publishes: AtomicU64,
    broker_errors: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    fn read(&self) -> BusCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BusCounts {
            connects: get(&self.connects),
            disconnects: get(&self.disconnects),
            slow_consumers: get(&self.slow_consumers),
            reader_reopens: get(&self.reader_reopens),
            stream_regressions: get(&self.stream_regressions),
            ambiguous_publishes: get(&self.ambiguous_publishes),
            refused_publishes: get(&self.refused_publishes),
            broker_errors: get(&self.broker_errors),
        }
    }
}

/// A connection to a bus. Clones share it.
#[derive(Clone, Debug)]
pub struct Bus {
    backend: Backend,
    counters: Arc<Counters>,
}

#[derive(Clone, Debug)]
enum Backend {
    Memory(LocalBus),
    Broker(Arc<broker::Link>),
}

impl Bus {
    /// A bus within this process, for tests and for machines that share one.
    #[must_use]
    pub fn memory() -> Self {
        Self { backend: Backend::Memory(LocalBus::default()), counters: Arc::default() }
    }

    /// Connects to a NATS server.
    ///
    /// # Errors
    /// When no server answers within `options.connect_timeout`, it refuses the key, or it is older than
    /// the floor of [`crate::nats::version`].
    pub async fn connect(options: BrokerOptions) -> Result<Self, BusError> {
        let counters = Arc::<Counters>::default();
        let link = broker::Link::connect(options, Arc::clone(&counters)).await?;
        Ok(Self { backend: Backend::Broker(Arc::new(link)), counters })
    }

    /// The memory bus behind this one, if it is one: what a test needs to break a stream.
    #[must_use]
    pub fn local(&self) -> Option<&LocalBus> {
        match &self.backend {
            Backend::Memory(local) => Some(local),
            Backend::Broker(_) => None,
        }
    }

    /// What went out of the ordinary so far.
    #[must_use]
    pub fn counts(&self) -> BusCounts {
        self.counters.read()
    }

    /// Whether the connection is up at this instant. Only for telling people: a reader or a publish finds
    /// out by itself.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match &self.backend {
            Backend::Memory(_) => true,
            Backend::Broker(link) => link.is_connected(),
        }
    }

    /// Creates the stream, or checks the one that exists and brings its sizes and ages up to `spec`.
    ///
    /// # Errors
    /// [`BusError::UnsafeStream`] when the existing one would lose or forge messages in a way `spec` rules
    /// out; [`BusError::Invalid`] for a spec that cannot be; else what the broker said.
    pub async fn ensure_stream(&self, spec: &StreamSpec) -> Result<StreamState, BusError> {
        check_spec(spec)?;
        match &self.backend {
            Backend::Memory(local) => local.ensure_stream(spec),
            Backend::Broker(link) => link.ensure_stream(spec).await,
        }
    }

    /// Appends `payload` and waits until the broker says that it is stored. An `id` known to the stream
    /// gives the position of the message that came first.
    ///
    /// The position's `created` is what this connection last saw of the stream.
    ///
    /// # Errors
    /// [`PublishError::Refused`]: it was not stored. [`PublishError::Ambiguous`]: nobody knows; publish it
    /// again with the same id.
    pub async fn publish(
        &self,
        subject: &str,
        id: &str,
        headers: &[(&str, &str)],
        payload: Bytes,
    ) -> Result<Position, PublishError> {
        let outcome = match &self.backend {
            Backend::Memory(local) => local.publish(subject, id, headers, &payload),
            Backend::Broker(link) => link.publish(subject, id, headers, payload).await,
        };
        match &outcome {
            Ok(_) => {}
            Err(PublishError::Refused { .. }) => count(&self.counters.refused_publishes),
            Err(PublishError::Ambiguous { .. }) => count(&self.counters.ambiguous_publishes),
        }
        outcome
    }

    /// Reads what `filter` covers of `stream`, from just behind `after`, or from the first message kept.
    /// Nothing is asked of the broker before the first [`Reader::next_batch`].
    ///
    /// # Errors
    /// [`BusError::Invalid`] for a stream name or filter that cannot be.
    #[allow(clippy::unused_async, reason = "opening is free to talk to the broker one day")]
    pub async fn read(
        &self,
        stream: &str,
        filter: &str,
        after: Option<Position>,
    ) -> Result<Reader, BusError> {
        check_name("stream", stream)?;
        if !filter::is_filter(filter) {
            return Err(BusError::invalid("filter", filter, "not a subject filter"));
        }
        let counters = Arc::clone(&self.counters);
        let source = match &self.backend {
            Backend::Memory(local) => Source::Memory(local.read(stream, filter, after, counters)),
            Backend::Broker(link) => {
                Source::Broker(reader::BrokerReader::new(Arc::clone(link), stream, filter, after, counters))
            }
        };
        Ok(Reader { source })
    }

    /// Forgets every message of `stream` up to `through_sequence`, it included.
    ///
    /// # Errors
    /// What the broker said.
    pub async fn purge(&self, stream: &str, through_sequence: u64) -> Result<(), BusError> {
        match &self.backend {
            Backend::Memory(local) => local.purge(stream, through_sequence),
            Backend::Broker(link) => link.purge(stream, through_sequence).await,
        }
    }

    /// What `stream` holds now.
    ///
    /// # Errors
    /// [`BusError::NoSuchStream`], or what the broker said.
    pub async fn stream_state(&self, stream: &str) -> Result<StreamState, BusError> {
        match &self.backend {
            Backend::Memory(local) => local.stream_state(stream),
            Backend::Broker(link) => link.stream_state(stream).await,
        }
    }

    /// Gives `principal` a durable consumer of its own over `filter`, from the stream's first message: what
    /// a party that may not create consumers replays its answers and orders from.
    ///
    /// # Errors
    /// What the broker said. A memory bus has no parties and takes it as done.
    pub async fn ensure_replay(&self, stream: &str, principal: &str, filter: &str) -> Result<(), BusError> {
        check_name("principal", principal)?;
        match &self.backend {
            Backend::Memory(local) => local.stream_state(stream).map(drop),
            Backend::Broker(link) => link.ensure_replay(stream, principal, filter).await,
        }
    }

    /// Whether an acknowledged message survives the loss of power: does the broker sync before it answers?
    pub async fn durable(&self) -> Durability {
        match &self.backend {
            Backend::Memory(_) => Durability::Unknown { why: "a memory bus keeps nothing".to_owned() },
            Backend::Broker(link) => link.durable().await,
        }
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), BusError> {
    if filter::is_name(name) {
        Ok(())
    } else {
        Err(BusError::invalid(field, name, "only letters, digits, '-' and '_', 1 to 128 of them"))
    }
}

fn check_spec(spec: &StreamSpec) -> Result<(), BusError> {
    check_name("name", &spec.name)?;
    if spec.subjects.is_empty() {
        return Err(BusError::invalid("subjects", "[]", "a stream keeps at least one subject"));
    }
    if let Some(bad) = spec.subjects.iter().find(|subject| !filter::is_filter(subject)) {
        return Err(BusError::invalid("subjects", bad, "not a subject filter"));
    }
    if spec.max_message_bytes == 0 || spec.max_message_bytes > MESSAGE_BYTES_MAX {
        let value = spec.max_message_bytes.to_string();
        return Err(BusError::invalid("max_message_bytes", value, "must be between 1 and 1 MiB"));
    }
    if spec.max_bytes < u64::from(spec.max_message_bytes) || i64::try_from(spec.max_bytes).is_err() {
        let value = spec.max_bytes.to_string();
        return Err(BusError::invalid("max_bytes", value, "must hold at least one message"));
    }
    if spec.duplicate_window < Duration::from_millis(100) {
        let value = format!("{:?}", spec.duplicate_window);
        return Err(BusError::invalid("duplicate_window", value, "must be at least 100 ms"));
    }
    if !matches!(spec.replicas, 1 | 3 | 5) {
        return Err(BusError::invalid("replicas", spec.replicas.to_string(), "must be 1, 3 or 5"));
    }
    Ok(())
}

/// Reads one stream in order. Owns its position; see [`Bus::read`].
#[derive(Debug)]
pub struct Reader {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Memory(local::LocalReader),
    Broker(reader::BrokerReader),
}

impl Reader {
    /// Waits for at least one message and takes whatever else already waits, up to `max_messages` and
    /// `max_bytes` of payload; a single message larger than `max_bytes` still comes, alone.
    ///
    /// Safe to drop while it waits: nothing is lost, and work begun (opening the stream again) goes on with
    /// the next call.
    ///
    /// # Errors
    /// [`ReadEnd::StreamRegressed`] once per regression; the next call reads from the first message.
    /// [`ReadEnd::GaveUp`] after a bounded number of attempts; the next call tries afresh.
    pub async fn next_batch(
        &mut self,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Delivery>, ReadEnd> {
        let max_messages = max_messages.max(1);
        match &mut self.source {
            Source::Memory(reader) => reader.next_batch(max_messages, max_bytes).await,
            Source::Broker(reader) => reader.next_batch(max_messages, max_bytes).await,
        }
    }

    /// The last message given out, or where reading began.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match &self.source {
            Source::Memory(reader) => reader.position(),
            Source::Broker(reader) => reader.position(),
        }
    }
}
