//! Questions with answers in parts, and announcements: what the bus carries without keeping it.
//!
//! An answer may be a whole state of hundreds of megabytes. It travels in parts, and the server waits
//! for a sign of life from the asker every [`PARTS_AHEAD_MAX`] parts, because a broker cuts a connection
//! that lets too much pile up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{BusError, RequestError};
use super::{Backend, Bus, LocalBus, filter};

/// Largest part of an answer, in bytes.
pub const PART_BYTES_MAX: usize = 512 * 1024;

/// Most parts of one answer: 2 GiB.
pub const PARTS_MAX: usize = 4096;

/// Parts sent before the asker must have confirmed: 4 MiB.
pub(super) const PARTS_AHEAD_MAX: usize = 8;

/// Questions answered at once by one server; further ones wait in its subscription.
pub(super) const ANSWERS_IN_FLIGHT_MAX: usize = 64;

/// Announcements kept for a listener that is busy; what comes on top is dropped and counted.
pub(super) const LISTENER_MESSAGES_MAX: usize = 65_536;

/// How long a server waits for the asker to confirm before it drops the rest of an answer.
const CONFIRM_WAIT_MAX: Duration = Duration::from_secs(10);

/// Pause between two attempts while nobody serves a subject yet.
const RESPONDER_RETRY: Duration = Duration::from_millis(20);

const PART_INDEX: &str = "Walras-Part";
const PART_LAST: &str = "Walras-Last";
const PART_REFUSED: &str = "Walras-Refused";

/// A question as its server gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What it was asked on.
    pub subject: String,
    /// What was asked.
    pub payload: Bytes,
}

/// Something told to whoever listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What it was announced on.
    pub subject: String,
    /// What was said.
    pub payload: Bytes,
}

pub(super) type Handler = Arc<dyn Fn(Query) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// Keeps a server alive; dropping it ends serving.
#[derive(Debug)]
pub struct Serving {
    inside: ServingInside,
}

#[derive(Debug)]
enum ServingInside {
    Memory { bus: LocalBus, number: u64 },
    Broker { task: JoinHandle<()> },
}

impl Drop for Serving {
    fn drop(&mut self) {
        match &self.inside {
            ServingInside::Memory { bus, number } => bus.stop_serving(*number),
            ServingInside::Broker { task } => task.abort(),
        }
    }
}

/// Gets what is announced, from now on.
#[derive(Debug)]
pub struct Listener {
    inside: ListenerInside,
}

#[derive(Debug)]
enum ListenerInside {
    Memory(mpsc::Receiver<Announcement>),
    Broker(Subscriber),
}

impl Listener {
    /// The next announcement; `None` when the bus has ended.
    pub async fn next(&mut self) -> Option<Announcement> {
        match &mut self.inside {
            ListenerInside::Memory(receiver) => receiver.recv().await,
            ListenerInside::Broker(subscriber) => {
                let message = subscriber.next().await?;
                Some(Announcement { subject: message.subject.to_string(), payload: message.payload })
            }
        }
    }
}

impl Bus {
    /// Asks whoever serves `subject` and gives the parts of the answer, in order. A subject nobody serves yet
    /// is asked again until `wait_max` is over.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        wait_max: Duration,
    ) -> Result<Vec<Bytes>, RequestError> {
        if !filter::is_subject(subject) {
            return Err(RequestError::Broken {
                subject: subject.to_owned(),
                why: "not a subject".to_owned(),
            });
        }
        let deadline = Instant::now() + wait_max;
        loop {
            let outcome = match &self.backend {
                Backend::Memory(local) => ask_local(local, subject, payload.clone(), deadline).await,
                Backend::Broker(link) => ask(&link.client, subject, payload.clone(), deadline).await,
            };
            match outcome {
                Err(RequestError::NoResponder { .. }) if Instant::now() + RESPONDER_RETRY < deadline => {
                    tokio::time::sleep(RESPONDER_RETRY).await;
                }
                other => return other,
            }
        }
    }

    /// Answers questions on `filter` until the returned value is dropped. Several servers of one filter share
    /// the questions. An `Err` is told to the asker in its words.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for a filter that cannot be, or what the broker said.
    pub async fn serve<F, A>(&self, filter: &str, handler: F) -> Result<Serving, BusError>
    where
        F: Fn(Query) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Bytes, String>> + Send + 'static,
    {
        if !filter::is_filter(filter) {
            return Err(BusError::invalid("filter", filter, "not a subject filter"));
        }
        let handler: Handler = Arc::new(move |query| Box::pin(handler(query)));
        let inside = match &self.backend {
            Backend::Memory(local) => {
                ServingInside::Memory { number: local.serve(filter, handler), bus: local.clone() }
            }
            Backend::Broker(link) => {
                let client = link.client.clone();
                let questions = client
                    .queue_subscribe(filter.to_owned(), "walras".to_owned())
                    .await
                    .map_err(|error| BusError::broker("serve", filter, error))?;
                ServingInside::Broker { task: tokio::spawn(answer_all(client, questions, handler)) }
            }
        };
        Ok(Serving { inside })
    }

    /// Tells `payload` to whoever listens now. Nobody acknowledges it and nothing keeps it.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for a subject that cannot be, or when the connection is closed for good.
    pub async fn announce(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        if !filter::is_subject(subject) {
            return Err(BusError::invalid("subject", subject, "not a subject"));
        }
        match &self.backend {
            Backend::Memory(local) => local.announce(subject, &payload),
            Backend::Broker(link) => link
                .client
                .publish(subject.to_owned(), payload)
                .await
                .map_err(|error| BusError::broker("announce", subject, error))?,
        }
        Ok(())
    }

    /// Listens to what is announced on `filter`, and to what is published there.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for a filter that cannot be, or what the broker said.
    pub async fn listen(&self, filter: &str) -> Result<Listener, BusError> {
        if !filter::is_filter(filter) {
            return Err(BusError::invalid("filter", filter, "not a subject filter"));
        }
        let inside = match &self.backend {
            Backend::Memory(local) => {
                ListenerInside::Memory(local.listen(filter, Arc::clone(&self.counters)))
            }
            Backend::Broker(link) => ListenerInside::Broker(
                link.client
                    .subscribe(filter.to_owned())
                    .await
                    .map_err(|error| BusError::broker("listen", filter, error))?,
            ),
        };
        Ok(Listener { inside })
    }
}

async fn ask_local(
    local: &LocalBus,
    subject: &str,
    payload: Bytes,
    deadline: Instant,
) -> Result<Vec<Bytes>, RequestError> {
    let Some(handler) = local.server_of(subject) else {
        return Err(RequestError::NoResponder { subject: subject.to_owned() });
    };
    let answer = timeout_at(deadline, handler(Query { subject: subject.to_owned(), payload }));
    match answer.await {
        Err(_) => Err(RequestError::TimedOut { subject: subject.to_owned(), parts: 0 }),
        Ok(Err(why)) => Err(RequestError::Refused { subject: subject.to_owned(), why }),
        Ok(Ok(whole)) => parts_of(&whole).ok_or_else(|| RequestError::Refused {
            subject: subject.to_owned(),
            why: "the answer is too large".to_owned(),
        }),
    }
}

async fn ask(
    client: &Client,
    subject: &str,
    payload: Bytes,
    deadline: Instant,
) -> Result<Vec<Bytes>, RequestError> {
    let broken = |why: String| RequestError::Broken { subject: subject.to_owned(), why };
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| broken(error.to_string()))?;
    client
        .publish_with_reply(subject.to_owned(), inbox, payload)
        .await
        .map_err(|error| broken(error.to_string()))?;
    let mut parts = Vec::new();
    while parts.len() < PARTS_MAX {
        let Ok(message) = timeout_at(deadline, answers.next()).await else {
            return Err(RequestError::TimedOut { subject: subject.to_owned(), parts: parts.len() });
        };
        let message = message.ok_or_else(|| broken("the connection ended".to_owned()))?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(RequestError::NoResponder { subject: subject.to_owned() });
        }
        if let Some(why) = header(&message, PART_REFUSED) {
            return Err(RequestError::Refused { subject: subject.to_owned(), why: why.to_owned() });
        }
        let index = header(&message, PART_INDEX).and_then(|index| index.parse::<usize>().ok());
        if index != Some(parts.len()) {
            return Err(broken(format!("part {} is missing", parts.len())));
        }
        let is_last = header(&message, PART_LAST).is_some();
        parts.push(message.payload);
        if let Some(confirm) = message.reply {
            client.publish(confirm, Bytes::new()).await.map_err(|error| broken(error.to_string()))?;
        }
        if is_last {
            return Ok(parts);
        }
    }
    Err(broken(format!("more than {PARTS_MAX} parts")))
}

async fn answer_all(client: Client, mut questions: Subscriber, handler: Handler) {
    let in_flight = Arc::new(Semaphore::new(ANSWERS_IN_FLIGHT_MAX));
    while let Some(question) = questions.next().await {
        // Closed never: the semaphore lives here.
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let (client, handler) = (client.clone(), Arc::clone(&handler));
        tokio::spawn(async move {
            let _permit = permit;
            let Some(reply) = question.reply else { return };
            let query = Query { subject: question.subject.to_string(), payload: question.payload };
            let subject = query.subject.clone();
            let answer = handler(query).await;
            if let Err(why) = send_answer(&client, reply.to_string(), answer).await {
                tracing::debug!(%subject, why, "an answer was not delivered");
            }
        });
    }
}

async fn send_answer(client: &Client, to: String, answer: Result<Bytes, String>) -> Result<(), String> {
    let whole =
        match answer.and_then(|whole| parts_of(&whole).ok_or_else(|| "the answer is too large".to_owned())) {
            Ok(parts) => parts,
            Err(why) => {
                let one_line: String =
                    why.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
                let mut headers = HeaderMap::new();
                headers.insert(PART_REFUSED, one_line.as_str());
                return client
                    .publish_with_headers(to, headers, Bytes::new())
                    .await
                    .map_err(|error| error.to_string());
            }
        };
    let confirm = client.new_inbox();
    let mut confirmed = if whole.len() > PARTS_AHEAD_MAX {
        Some(client.subscribe(confirm.clone()).await.map_err(|error| error.to_string())?)
    } else {
        None
    };
    let parts = whole.len();
    for (index, part) in whole.into_iter().enumerate() {
        let mut headers = HeaderMap::new();
        headers.insert(PART_INDEX, index.to_string());
        let is_last = index + 1 == parts;
        if is_last {
            headers.insert(PART_LAST, "1");
        }
        let wait = (index + 1).is_multiple_of(PARTS_AHEAD_MAX) && !is_last;
        let sent = match &mut confirmed {
            Some(confirmed) if wait => {
                let sent =
                    client.publish_with_reply_and_headers(to.clone(), confirm.clone(), headers, part).await;
                timeout(CONFIRM_WAIT_MAX, confirmed.next())
                    .await
                    .map_err(|_| "the asker went away".to_owned())?;
                sent
            }
            _ => client.publish_with_headers(to.clone(), headers, part).await,
        };
        sent.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Cuts an answer into parts; an empty one is one empty part. `None` when there would be too many.
fn parts_of(whole: &Bytes) -> Option<Vec<Bytes>> {
    let count = whole.len().div_ceil(PART_BYTES_MAX).max(1);
    (count <= PARTS_MAX).then(|| {
        let part = |index: usize| {
            let start = index * PART_BYTES_MAX;
            whole.slice(start..whole.len().min(start + PART_BYTES_MAX))
        };
        (0..count).map(part).collect()
    })
}

fn header<'a>(message: &'a Message, name: &'static str) -> Option<&'a str> {
    message.headers.as_ref().and_then(|headers| headers.get(name)).map(async_nats::HeaderValue::as_str)
}
