//! Reading a stream of the broker, by a position of our own.
//!
//! The reader keeps one ephemeral consumer without acknowledgements that starts just behind its position,
//! and one or two pull requests in front of it, so that the broker sends a message the instant it is stored
//! and never more than there is room for. Everything else is doubt: a gap in the consumer's own count, a
//! silence longer than the heartbeat, any status that is not the end of a pull, a new connection. A
//! doubtful feed is dropped and opened again behind the position. The client's own recovery is not used: after
//! a broker was killed it takes 15 s, this takes what the reconnect takes.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::broker::Link;
use super::error::ReadEnd;
use super::pull::{is_end_of_pull, number, sequences};
use super::{Counters, Delivery, Position, StreamState, count};

/// Messages asked for in one pull. Pulled again when half of them came, so that at most one and a half
/// times as many wait for the caller.
const PULL_MESSAGES: u64 = 4_096;

/// Size of the messages of one pull, in bytes; at most two pulls are open. Several readers share a connection,
/// and a server cuts one that 64 MiB wait for.
const PULL_BYTES: u64 = 8 * 1024 * 1024;

/// How long the broker keeps a pull open.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// How often the broker says that it is still there when it has nothing to send.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Silence after which the consumer is taken for lost: two heartbeats and a half.
const SILENCE_MAX: Duration = Duration::from_millis(12_500);

/// How long the broker keeps a consumer that nobody pulls from.
const CONSUMER_IDLE_MAX: Duration = Duration::from_secs(30);

/// Attempts to open the stream before the caller is told.
const OPEN_ATTEMPTS_MAX: u32 = 60;

/// First and longest pause between two attempts; it doubles in between.
const OPEN_PAUSE_MIN: Duration = Duration::from_millis(10);
const OPEN_PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct BrokerReader {
    link: Arc<Link>,
    stream: String,
    filter: String,
    after: Option<Position>,
    feed: Feed,
    /// Attempts to open that failed in a row, or feeds that ended before they gave anything.
    failures: u32,
    counters: Arc<Counters>,
}

enum Feed {
    Closed,
    /// Kept here, not in the caller's future, so that a caller who waits in short slices gets on.
    Opening(BoxFuture<'static, Result<Opened, String>>),
    Open(Box<OpenFeed>),
}

enum Opened {
    Feed(Box<OpenFeed>),
    Regressed(StreamState),
}

/// Why a feed cannot be trusted any more.
type Doubt = String;

struct OpenFeed {
    link: Arc<Link>,
    connections: watch::Receiver<u64>,
    connection: u64,
    subscriber: Subscriber,
    inbox: String,
    pull_subject: String,
    created: i64,
    /// The broker's own count of what this consumer was sent, without gaps.
    consumer_sequence: u64,
    sequence: u64,
    /// Messages the broker may still send for pulls that are open.
    outstanding: u64,
    heard_at: Instant,
    /// A message that did not fit into the last batch.
    held: Option<Delivery>,
    /// A doubt met behind messages that were fine.
    doubt: Option<Doubt>,
}

impl std::fmt::Debug for BrokerReader {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("BrokerReader")
            .field("stream", &self.stream)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl BrokerReader {
    pub(super) fn new(
        link: Arc<Link>,
        stream: &str,
        filter: &str,
        after: Option<Position>,
        counters: Arc<Counters>,
    ) -> Self {
        let (stream, filter) = (stream.to_owned(), filter.to_owned());
        Self { link, stream, filter, after, feed: Feed::Closed, failures: 0, counters }
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.after
    }

    pub(super) async fn next_batch(
        &mut self,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<Delivery>, ReadEnd> {
        // Bounded by the attempts: a turn of this loop gives messages, ends the call, or is a failure.
        loop {
            match &mut self.feed {
                Feed::Closed => {
                    let open = open(
                        Arc::clone(&self.link),
                        self.stream.clone(),
                        self.filter.clone(),
                        self.after,
                        pause(self.failures),
                    );
                    self.feed = Feed::Opening(open.boxed());
                }
                Feed::Opening(opening) => match opening.await {
                    Ok(Opened::Feed(feed)) => self.feed = Feed::Open(feed),
                    Ok(Opened::Regressed(new)) => {
                        self.feed = Feed::Closed;
                        // Only a position can regress, so there is one.
                        let Some(old) = self.after.take() else { continue };
                        count(&self.counters.stream_regressions);
                        return Err(ReadEnd::StreamRegressed { stream: self.stream.clone(), old, new });
                    }
                    Err(why) => self.fail(why)?,
                },
                Feed::Open(feed) => match feed.next(max_messages, max_bytes).await {
                    Ok(batch) => {
                        self.after = batch.last().map(|delivery| delivery.position).or(self.after);
                        self.failures = 0;
                        return Ok(batch);
                    }
                    Err(why) => {
                        count(&self.counters.reader_reopens);
                        tracing::info!(
                            stream = self.stream,
                            why,
                            "opening the stream again behind its position"
                        );
                        self.fail(why)?;
                    }
                },
            }
        }
    }

    fn fail(&mut self, why: String) -> Result<(), ReadEnd> {
        self.feed = Feed::Closed;
        self.failures += 1;
        if self.failures < OPEN_ATTEMPTS_MAX {
            return Ok(());
        }
        let attempts = std::mem::take(&mut self.failures);
        Err(ReadEnd::GaveUp { stream: self.stream.clone(), attempts, why })
    }
}

/// How long to wait before the next attempt: not at all for the first two, since most feeds end because the
/// connection was just made anew.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        _ => OPEN_PAUSE_MIN.saturating_mul(1 << failures.min(10)).min(OPEN_PAUSE_MAX),
    }
}

async fn open(
    link: Arc<Link>,
    stream: String,
    filter: String,
    after: Option<Position>,
    pause: Duration,
) -> Result<Opened, String> {
    sleep(pause).await;
    let connections = link.connections.clone();
    let connection = *connections.borrow();
    let state = link.stream_state(&stream).await.map_err(|error| error.to_string())?;
    if after.is_some_and(|after| state.regressed_from(after)) {
        return Ok(Opened::Regressed(state));
    }
    let sequence = after.map_or(0, |after| after.sequence);
    let inbox = link.client.new_inbox();
    // The inbox ends in a token nobody else has: a good name for the consumer.
    let name = inbox.rsplit('.').next().unwrap_or(&inbox).to_owned();
    let config = pull::Config {
        name: Some(name.clone()),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 },
        ack_policy: AckPolicy::None,
        filter_subject: if filter == ">" { String::new() } else { filter },
        inactive_threshold: CONSUMER_IDLE_MAX,
        num_replicas: 1,
        memory_storage: true,
        ..Default::default()
    };
    link.context
        .create_consumer_on_stream(config, stream.as_str())
        .await
        .map_err(|error| error.to_string())?;
    // A stream recreated since the look above would give its own first messages under the old creation time.
    // Looked up again behind the consumer's creation, an equal time means that it is this stream's consumer.
    let again = link.stream_state(&stream).await.map_err(|error| error.to_string())?;
    if again.created != state.created {
        return Err("the stream was recreated while it was opened".to_owned());
    }
    let subscriber = link.client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
    Ok(Opened::Feed(Box::new(OpenFeed {
        connections,
        connection,
        subscriber,
        inbox,
        pull_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
        link,
        created: state.created,
        consumer_sequence: 0,
        sequence,
        outstanding: 0,
        heard_at: Instant::now(),
        held: None,
        doubt: None,
    })))
}

impl OpenFeed {
    /// At least one delivery, and what else already waits.
    async fn next(&mut self, max_messages: usize, max_bytes: usize) -> Result<Vec<Delivery>, Doubt> {
        let first = self.first().await?;
        // Nothing below awaits, so a caller that gives up loses nothing.
        let mut taken = first.payload.len();
        let mut batch = vec![first];
        while batch.len() < max_messages && taken < max_bytes {
            let Some(message) = self.subscriber.next().now_or_never() else { break };
            match message.ok_or_else(ended).and_then(|message| self.accept(message)) {
                Ok(None) => {}
                Ok(Some(delivery)) if taken + delivery.payload.len() > max_bytes => {
                    self.held = Some(delivery);
                    break;
                }
                Ok(Some(delivery)) => {
                    taken += delivery.payload.len();
                    batch.push(delivery);
                }
                Err(doubt) => {
                    self.doubt = Some(doubt);
                    break;
                }
            }
        }
        Ok(batch)
    }

    async fn first(&mut self) -> Result<Delivery, Doubt> {
        loop {
            if let Some(delivery) = self.held.take() {
                return Ok(delivery);
            }
            if let Some(doubt) = self.doubt.take() {
                return Err(doubt);
            }
            self.pull_when_low().await?;
            if *self.connections.borrow_and_update() != self.connection {
                return Err("the connection was made anew".to_owned());
            }
            let silent_at = self.heard_at + SILENCE_MAX;
            let message = tokio::select! {
                biased;
                message = timeout_at(silent_at, self.subscriber.next()) => message,
                _ = self.connections.changed() => continue,
            };
            let message = message.map_err(|_| format!("nothing was heard for {SILENCE_MAX:?}"))?;
            if let Some(delivery) = self.accept(message.ok_or_else(ended)?)? {
                return Ok(delivery);
            }
        }
    }

    async fn pull_when_low(&mut self) -> Result<(), Doubt> {
        if self.outstanding > PULL_MESSAGES / 2 {
            return Ok(());
        }
        let request = format!(
            r#"{{"batch":{PULL_MESSAGES},"max_bytes":{PULL_BYTES},"expires":{},"idle_heartbeat":{}}}"#,
            PULL_EXPIRES.as_nanos(),
            HEARTBEAT.as_nanos(),
        );
        let client = &self.link.client;
        client
            .publish_with_reply(self.pull_subject.clone(), self.inbox.clone(), Bytes::from(request))
            .await
            .map_err(|error| error.to_string())?;
        self.outstanding += PULL_MESSAGES;
        Ok(())
    }

    /// A message of the feed's subscription: a delivery, or news about a pull.
    fn accept(&mut self, message: Message) -> Result<Option<Delivery>, Doubt> {
        self.heard_at = Instant::now();
        match message.status {
            None | Some(StatusCode::OK) => self.deliver(message).map(Some),
            Some(StatusCode::IDLE_HEARTBEAT) => {
                let sent = number(&message, "Nats-Last-Consumer").unwrap_or_default();
                if sent > self.consumer_sequence {
                    return Err(format!(
                        "the broker sent {sent} messages and {} came",
                        self.consumer_sequence
                    ));
                }
                Ok(None)
            }
            Some(status) => {
                let description = message.description.as_deref().unwrap_or_default();
                if !is_end_of_pull(status, description) {
                    return Err(format!("status {status} {description}"));
                }
                // What the pull still had to give comes no more. Without the figure, nothing is assumed to
                // come: at worst one pull more is open for a while.
                let unused = number(&message, "Nats-Pending-Messages").unwrap_or(self.outstanding);
                self.outstanding = self.outstanding.saturating_sub(unused);
                Ok(None)
            }
        }
    }

    fn deliver(&mut self, message: Message) -> Result<Delivery, Doubt> {
        let (sequence, consumer_sequence) = message
            .reply
            .as_deref()
            .and_then(sequences)
            .ok_or_else(|| "a message without its place in the stream".to_owned())?;
        if consumer_sequence != self.consumer_sequence + 1 || sequence <= self.sequence {
            let (expected, last) = (self.consumer_sequence + 1, self.sequence);
            return Err(format!(
                "delivery {consumer_sequence} (message {sequence}) came where {expected} (behind message {last}) was due"
            ));
        }
        self.consumer_sequence = consumer_sequence;
        self.sequence = sequence;
        self.outstanding = self.outstanding.saturating_sub(1);
        Ok(Delivery {
            subject: message.subject.into_string(),
            position: Position { created: self.created, sequence },
            payload: message.payload,
        })
    }
}

fn ended() -> Doubt {
    "the subscription ended".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses: Vec<Duration> = (0..OPEN_ATTEMPTS_MAX).map(pause).collect();
        assert!(
            pauses.is_sorted()
                && pauses.first() == Some(&Duration::ZERO)
                && pauses.last() == Some(&OPEN_PAUSE_MAX)
        );
    }
}
