//! The connection to a NATS server: streams, publishes, and what happened to the connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{Context, ContextBuilder};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::durability::{self, Durability};
use super::error::BusError;
use super::settings::{config_of, tunable, unsafe_settings};
use super::{Counters, StreamSpec, StreamState, count};
use crate::nats::version;

/// How long one request to the broker may take.
pub(super) const API_WAIT_MAX: Duration = Duration::from_secs(5);

/// Longest pause between two attempts to connect again.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(250);

/// Pause between two attempts to connect for the first time.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// How often the connection is checked when it is quiet; three missed checks end it.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Messages the client keeps for one subscription before it drops some. A reader never asks for as many.
pub(super) const SUBSCRIPTION_MESSAGES_MAX: usize = 65_536;

/// Acknowledgements a party's replay consumer may owe.
const REPLAY_UNACKNOWLEDGED_MAX: i64 = 1_024;

/// How to reach a NATS server, and as whom.
#[derive(Clone)]
pub struct BrokerOptions {
    /// Address, such as `nats://127.0.0.1:4222`; several separated by commas are one cluster.
    pub url: String,
    /// What the server's own reports call this connection.
    pub name: String,
    /// Prefix of this connection's inboxes: what its permissions let it subscribe to.
    pub inbox_prefix: String,
    /// Seed of the user's nkey; `None` = a server without accounts.
    pub seed: Option<String>,
    /// Certificate authority to trust beside the system's, a PEM file. Given, TLS is demanded.
    pub certificate_authority: Option<PathBuf>,
    /// Base address of the server's monitoring port, such as `http://127.0.0.1:8222`, where whether it
    /// syncs can be read; `None` = it stays unknown.
    pub monitoring_url: Option<String>,
    /// How long to try to connect for the first time.
    pub connect_timeout: Duration,
    /// Whether this connection may look at streams. A party may not: the positions of what it publishes then name
    /// no creation (0), and it reads nothing by position.
    pub may_see_streams: bool,
}

impl BrokerOptions {
    /// A connection called `name` to a server without accounts.
    #[must_use]
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            inbox_prefix: "_INBOX".to_owned(),
            seed: None,
            certificate_authority: None,
            monitoring_url: None,
            connect_timeout: Duration::from_secs(10),
            may_see_streams: true,
        }
    }
}

impl std::fmt::Debug for BrokerOptions {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed is a secret and stays out of every log.
        out.debug_struct("BrokerOptions")
            .field("url", &self.url)
            .field("name", &self.name)
            .field("has_seed", &self.seed.is_some())
            .finish_non_exhaustive()
    }
}

/// One connection, shared by everything that uses the bus.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) context: Context,
    /// Counts connections made: a reader that was opened under an older one opens again.
    pub(super) connections: watch::Receiver<u64>,
    monitoring_url: Option<String>,
    pub(super) may_see_streams: bool,
    pub(super) seen: Mutex<BTreeMap<String, Seen>>,
}

/// What this connection last saw of a stream it publishes to.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) created: i64,
    pub(super) last: u64,
    pub(super) connection: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    pub(super) async fn connect(options: BrokerOptions, counters: Arc<Counters>) -> Result<Self, BusError> {
        let (sender, connections) = watch::channel(0);
        let sender = Arc::new(sender);
        let deadline = Instant::now() + options.connect_timeout;
        let refused = |why: String| BusError::Connect { url: options.url.clone(), why };
        let client = loop {
            let connecting = connect_options(&options, &sender, &counters).connect(options.url.as_str());
            match timeout(options.connect_timeout, connecting).await {
                Ok(Ok(client)) => break client,
                // The server is there and knows that it does not want us: waiting would not help.
                Ok(Err(error))
                    if matches!(
                        error.kind(),
                        ConnectErrorKind::Authentication
                            | ConnectErrorKind::AuthorizationViolation
                            | ConnectErrorKind::ServerParse
                            | ConnectErrorKind::Tls
                    ) =>
                {
                    return Err(refused(error.to_string()));
                }
                Ok(Err(error)) if Instant::now() + CONNECT_PAUSE >= deadline => {
                    return Err(refused(error.to_string()));
                }
                Ok(Err(_)) => tokio::time::sleep(CONNECT_PAUSE).await,
                Err(_) => return Err(refused(format!("no answer within {:?}", options.connect_timeout))),
            }
        };
        // The event comes a moment after the connection; a reader opened in between would take it for a new one.
        let mut first = connections.clone();
        let _ = timeout(API_WAIT_MAX, first.wait_for(|connections| *connections > 0)).await;
        version::check(&client.server_info().version)
            .map_err(|source| BusError::Version { url: options.url.clone(), source })?;
        let context = ContextBuilder::new().timeout(API_WAIT_MAX).build(client.clone());
        Ok(Self {
            client,
            context,
            connections,
            monitoring_url: options.monitoring_url,
            may_see_streams: options.may_see_streams,
            seen: Mutex::default(),
        })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    pub(super) async fn ensure_stream(&self, spec: &StreamSpec) -> Result<StreamState, BusError> {
        let wanted = config_of(spec);
        let existing = match self.context.get_stream(&spec.name).await {
            Ok(stream) => stream.cached_info().config.clone(),
            Err(error) if is_no_stream(&error) => {
                self.context
                    .create_stream(wanted)
                    .await
                    .map_err(|error| BusError::broker("create stream", &spec.name, error))?;
                return self.stream_state(&spec.name).await;
            }
            Err(error) => return Err(BusError::broker("look up stream", &spec.name, error)),
        };
        let problems = unsafe_settings(&existing, &wanted);
        if !problems.is_empty() {
            return Err(BusError::UnsafeStream { stream: spec.name.clone(), problems: problems.join("; ") });
        }
        if tunable(&existing) != tunable(&wanted) {
            self.context
                .update_stream(&wanted)
                .await
                .map_err(|error| BusError::broker("update stream", &spec.name, error))?;
        }
        self.stream_state(&spec.name).await
    }

    pub(super) async fn stream_state(&self, stream: &str) -> Result<StreamState, BusError> {
        let connection = *self.connections.borrow();
        let found = self.context.get_stream(stream).await.map_err(|error| {
            if is_no_stream(&error) {
                BusError::NoSuchStream { stream: stream.to_owned() }
            } else {
                BusError::broker("look up stream", stream, error)
            }
        })?;
        let info = found.cached_info();
        let state = StreamState {
            created: info.created.timestamp_micros(),
            first: if info.state.messages == 0 {
                info.state.last_sequence + 1
            } else {
                info.state.first_sequence
            },
            last: info.state.last_sequence,
            messages: info.state.messages,
            bytes: info.state.bytes,
        };
        self.remember(stream, Seen { created: state.created, last: state.last, connection });
        Ok(state)
    }

    pub(super) async fn purge(&self, stream: &str, through: u64) -> Result<(), BusError> {
        let failed = |why: String| BusError::broker("purge stream", stream, why);
        let found =
            self.context.get_stream_no_info(stream).await.map_err(|error| failed(error.to_string()))?;
        // The broker purges up to, but not including, the sequence it is given.
        let outcome = found.purge().sequence(through.saturating_add(1)).await;
        outcome.map(drop).map_err(|error| failed(error.to_string()))
    }

    pub(super) async fn ensure_replay(
        &self,
        stream: &str,
        principal: &str,
        filter: &str,
    ) -> Result<(), BusError> {
        let config = pull::Config {
            durable_name: Some(principal.to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(30),
            max_ack_pending: REPLAY_UNACKNOWLEDGED_MAX,
            filter_subject: filter.to_owned(),
            ..Default::default()
        };
        let outcome = self.context.create_consumer_on_stream(config, stream).await;
        outcome.map(drop).map_err(|error| BusError::broker("create consumer", principal, error))
    }

    pub(super) async fn durable(&self) -> Durability {
        match &self.monitoring_url {
            Some(url) => durability::read(url).await,
            None => Durability::Unknown { why: "no monitoring address is configured".to_owned() },
        }
    }

    fn remember(&self, stream: &str, seen: Seen) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.to_owned(), seen);
    }
}

fn connect_options(
    options: &BrokerOptions,
    connections: &Arc<watch::Sender<u64>>,
    counters: &Arc<Counters>,
) -> ConnectOptions {
    let (connections, counters) = (Arc::clone(connections), Arc::clone(counters));
    let url = options.url.clone();
    let mut connect = match &options.seed {
        Some(seed) => ConnectOptions::with_nkey(seed.clone()),
        None => ConnectOptions::new(),
    };
    if let Some(file) = &options.certificate_authority {
        connect = connect.add_root_certificates(file.clone()).require_tls(true);
    }
    connect
        .name(&options.name)
        .custom_inbox_prefix(&options.inbox_prefix)
        .connection_timeout(API_WAIT_MAX)
        .request_timeout(Some(API_WAIT_MAX))
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .reconnect_delay_callback(|attempt| {
            let exponent = u32::try_from(attempt.min(10)).unwrap_or(10);
            Duration::from_millis(2_u64.saturating_pow(exponent)).min(RECONNECT_PAUSE_MAX)
        })
        .event_callback(move |event| {
            let (connections, counters, url) = (Arc::clone(&connections), Arc::clone(&counters), url.clone());
            async move { note(&event, &connections, &counters, &url) }
        })
}

fn note(event: &Event, connections: &watch::Sender<u64>, counters: &Counters, url: &str) {
    match event {
        Event::Connected => {
            count(&counters.connects);
            connections.send_modify(|connections| *connections += 1);
            tracing::info!(url, "connected to NATS");
        }
        Event::Disconnected => {
            count(&counters.disconnects);
            tracing::warn!(url, "lost the connection to NATS");
        }
        Event::SlowConsumer(subscription) => {
            count(&counters.slow_consumers);
            tracing::warn!(url, subscription, "a subscription was not read fast enough and lost a message");
        }
        Event::ServerError(error) => {
            count(&counters.broker_errors);
            tracing::warn!(url, %error, "NATS reports an error");
        }
        Event::ClientError(error) => tracing::debug!(url, %error, "NATS client"),
        Event::LameDuckMode | Event::Draining | Event::Closed => tracing::info!(url, %event, "NATS"),
    }
}

fn is_no_stream(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => {
            error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND
        }
        _ => false,
    }
}
