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
mod counts;
mod durability;
mod error;
pub mod filter;
mod local;
pub mod memory;
mod publish;
mod pull;
mod query;
mod reader;
mod settings;
mod stream;

use std::sync::Arc;

use bytes::Bytes;

pub(crate) use counts::{Counters, count};

pub use broker::BrokerOptions;
pub use counts::BusCounts;
pub use durability::Durability;
pub use error::{BusError, PublishError, ReadEnd, Refusal, RequestError};
pub use local::LocalBus;
pub use query::{Announcement, Listener, PART_BYTES_MAX, PARTS_MAX, Query, Serving};
pub use stream::{MESSAGE_BYTES_MAX, Storage, StreamSpec, StreamState};

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
        stream::check_spec(spec)?;
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
        stream::check_name("stream", stream)?;
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
        stream::check_name("principal", principal)?;
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
