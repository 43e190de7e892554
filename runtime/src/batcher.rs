//! Sends commands in envelopes that grow by themselves under load.
//!
//! With durable settings the broker syncs once per message and does not group syncs, so what has queued while
//! the previous envelope was being synced goes out as one: a single command waits for nobody, and a flood
//! costs one sync per 1,024.

use bytes::Bytes;
use proto::envelope::{COMMANDS_MAX, MESSAGE_BYTES_MAX};
use tokio::sync::{mpsc, oneshot};

use crate::bus::{Bus, Position, PublishError};

/// Commands that may wait for their envelope; who sends more waits.
pub const QUEUE_MAX: usize = 16_384;
/// How often an envelope whose outcome is unknown is sent again, under the same id.
const ATTEMPTS_MAX: u32 = 8;
/// Pause before the second attempt, in milliseconds; it doubles with each.
const PAUSE_MILLISECONDS: u64 = 50;
/// `{"commands":[` and `]}`.
const FRAME_BYTES: usize = 15;

/// Why a command was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// It does not fit a message even alone.
    #[error("a command has at most {} bytes, this has {bytes}", MESSAGE_BYTES_MAX - FRAME_BYTES)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The broker refused the envelope it was in.
    #[error("not sent: {problem}")]
    Refused {
        /// What the broker said.
        problem: String,
    },
    /// Nobody knows whether the envelope arrived: send the command again under its id.
    #[error("not known whether it was sent: {problem}")]
    Ambiguous {
        /// What happened.
        problem: String,
    },
    /// The batcher has ended.
    #[error("not sent: this service is stopping")]
    Stopped,
}

struct Waiting {
    command: Bytes,
    sent: oneshot::Sender<Result<Position, SendError>>,
}

/// A queue of commands to one subject. Clones share it; order is kept; it ends with the last clone.
#[derive(Clone)]
pub struct Batcher {
    queue: mpsc::Sender<Waiting>,
}

impl Batcher {
    /// Starts sending to `subject`. `unique` must differ from that of every other batcher that ever sends to the
    /// same stream within its duplicate window, restarts of this process included.
    pub fn start(bus: Bus, subject: String, unique: String) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(send_all(bus, subject, unique, waiting));
        Self { queue }
    }

    /// Queues one command, as JSON, and waits until the broker has stored it.
    ///
    /// # Errors
    /// See [`SendError`]; only `Ambiguous` may have arrived.
    pub async fn send(&self, command: Bytes) -> Result<Position, SendError> {
        if command.len() + FRAME_BYTES > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: command.len() });
        }
        let (sent, outcome) = oneshot::channel();
        self.queue.send(Waiting { command, sent }).await.map_err(|_| SendError::Stopped)?;
        outcome.await.map_err(|_| SendError::Stopped)?
    }
}

async fn send_all(bus: Bus, subject: String, unique: String, mut queue: mpsc::Receiver<Waiting>) {
    let mut left_over = None;
    for number in 0_u64.. {
        let Some(first) = next(&mut left_over, &mut queue).await else { return };
        let mut bytes = FRAME_BYTES + first.command.len();
        let mut envelope = vec![first];
        while envelope.len() < COMMANDS_MAX {
            let Ok(another) = queue.try_recv() else { break };
            if bytes + 1 + another.command.len() > MESSAGE_BYTES_MAX {
                left_over = Some(another);
                break;
            }
            bytes += 1 + another.command.len();
            envelope.push(another);
        }
        let outcome = publish(&bus, &subject, &format!("{unique}.{number}"), frame(&envelope)).await;
        for waiting in envelope {
            // Who asked may have gone away; the command is sent all the same.
            let _ = waiting.sent.send(outcome.clone());
        }
    }
}

async fn next(left_over: &mut Option<Waiting>, queue: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
    match left_over.take() {
        Some(waiting) => Some(waiting),
        None => queue.recv().await,
    }
}

fn frame(envelope: &[Waiting]) -> Bytes {
    if let [single] = envelope {
        return single.command.clone();
    }
    let bytes: usize = envelope.iter().map(|waiting| waiting.command.len() + 1).sum();
    let mut payload = Vec::with_capacity(bytes + FRAME_BYTES);
    payload.extend_from_slice(b"{\"commands\":[");
    for (place, waiting) in envelope.iter().enumerate() {
        if place > 0 {
            payload.push(b',');
        }
        payload.extend_from_slice(&waiting.command);
    }
    payload.extend_from_slice(b"]}");
    Bytes::from(payload)
}

async fn publish(bus: &Bus, subject: &str, id: &str, payload: Bytes) -> Result<Position, SendError> {
    let mut pause = PAUSE_MILLISECONDS;
    let mut problem = String::new();
    for attempt in 0..ATTEMPTS_MAX {
        if attempt > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            pause *= 2;
        }
        match bus.publish(subject, id, &[], payload.clone()).await {
            Ok(position) => return Ok(position),
            Err(refused @ PublishError::Refused { .. }) => {
                return Err(SendError::Refused { problem: refused.to_string() });
            }
            Err(ambiguous @ PublishError::Ambiguous { .. }) => problem = ambiguous.to_string(),
        }
    }
    Err(SendError::Ambiguous { problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::StreamSpec;

    async fn deliveries(bus: &Bus) -> Vec<Bytes> {
        let mut reader = bus.read("s", "s.>", None).await.unwrap();
        reader.next_batch(10_000, usize::MAX).await.unwrap().into_iter().map(|one| one.payload).collect()
    }

    #[tokio::test]
    async fn commands_arrive_once_and_in_order_in_few_envelopes() {
        let bus = Bus::memory();
        bus.ensure_stream(&StreamSpec::new("s", "s.>")).await.unwrap();
        let batcher = Batcher::start(bus.clone(), "s.a".into(), "u".into());
        let send =
            |number: u64| Box::pin(tokio::task::unconstrained(batcher.send(Bytes::from(number.to_string()))));
        let mut sends: Vec<_> = (0..5_000).map(send).collect();
        for send in &mut sends {
            // Polled once, in order: each is in the queue before the next.
            assert!(futures::poll!(send).is_pending());
        }
        for send in sends {
            send.await.unwrap();
        }
        let envelopes = deliveries(&bus).await;
        let mut numbers = Vec::new();
        for envelope in &envelopes {
            match serde_json::from_slice::<serde_json::Value>(envelope).unwrap() {
                serde_json::Value::Object(envelope) => {
                    numbers
                        .extend(envelope["commands"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()));
                }
                single => numbers.push(single.as_u64().unwrap()),
            }
        }
        assert_eq!(numbers, (0..5_000).collect::<Vec<_>>());
        assert!(envelopes.len() < 100, "{} envelopes", envelopes.len());
    }

    #[tokio::test]
    async fn an_envelope_stays_within_a_message() {
        let bus = Bus::memory();
        bus.ensure_stream(&StreamSpec::new("s", "s.>")).await.unwrap();
        let batcher = Batcher::start(bus.clone(), "s.a".into(), "u".into());
        let large = Bytes::from(format!("\"{}\"", "x".repeat(MESSAGE_BYTES_MAX / 3)));
        for sent in futures::future::join_all((0..7).map(|_| batcher.send(large.clone()))).await {
            sent.unwrap();
        }
        assert!(deliveries(&bus).await.iter().all(|envelope| envelope.len() <= MESSAGE_BYTES_MAX));
        let too_large = Bytes::from(vec![b' '; MESSAGE_BYTES_MAX]);
        assert!(matches!(batcher.send(too_large).await, Err(SendError::TooLarge { .. })));
    }
}
