//! One agent: it keeps a stream to every proxy server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tunnel::{Attempt, Servers, ServersConfig};

use super::connect::{self, ConnectError, Identity, Opened, ServerAddress};
use super::metrics::Metrics;
use super::status::Status;
use super::stream;
use super::tls::TlsFiles;
use crate::chain;

/// What the streams of an agent are called. A server that sees one name twice, because a broken connection is not
/// known to be broken yet, takes both for one.
#[derive(Debug, Clone)]
pub enum AgentId {
    /// Each stream has a name of its own, which begins so.
    Fresh(String),
    /// All have this one, because somebody said so.
    Given(String),
}

/// What an agent has to know.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The one address behind which all proxy servers are.
    pub address: ServerAddress,
    /// Certificates and keys.
    pub tls: TlsFiles,
    /// What its streams are called.
    pub agent_id: AgentId,
    /// What it can reach, as a URL's query.
    pub identifiers: String,
    /// The file with its token, where it has one. It is read for every attempt.
    pub token: Option<std::path::PathBuf>,
    /// When to attempt.
    pub servers: ServersConfig,
    /// Between two pings. Servers take a ping in less than 30 s for an attack.
    pub keepalive: Duration,
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    metrics: Arc<Metrics>,
    drain: watch::Receiver<bool>,
    /// Tells this process' streams from those of others.
    nonce: u64,
    streams: u64,
}

type Ended = (String, Status);

impl Agent {
    /// An agent that drains once `drain` is true.
    pub fn new(config: AgentConfig, metrics: Arc<Metrics>, drain: watch::Receiver<bool>) -> Self {
        Agent { config, metrics, drain, nonce: chance(), streams: 0 }
    }

    /// Keeps streams until it is dropped.
    pub async fn run(mut self) {
        let began = Instant::now();
        let mut servers = Servers::new(self.config.servers.clone());
        let mut streams: JoinSet<Ended> = JoinSet::new();
        let mut attempt: JoinSet<Result<Opened, ConnectError>> = JoinSet::new();
        let mut drain = self.drain.clone();
        loop {
            self.metrics.show_servers(servers.live(), servers.wanted());
            let due = servers.next_attempt().map(|at| began + at);
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer, if attempt.is_empty() => {
                    servers.attempting();
                    self.attempt(&mut attempt);
                }
                Some(result) = attempt.join_next() => match result {
                    Ok(Ok(opened)) => self.opened(&mut servers, &mut streams, began.elapsed(), opened),
                    Ok(Err(error)) => {
                        self.metrics.attempt("failed");
                        tracing::warn!(error = %chain(&error), "no stream to a proxy server");
                        servers.failed(began.elapsed(), chance());
                    }
                    Err(error) => {
                        tracing::error!(%error, "an attempt to open a stream broke off");
                        servers.failed(began.elapsed(), chance());
                    }
                },
                Some(ended) = streams.join_next() => match ended {
                    Ok((server, status)) => {
                        tracing::warn!(server, %status, "stream to a proxy server ended");
                        servers.lost(began.elapsed(), &server, chance());
                    }
                    Err(error) => tracing::error!(%error, "a stream broke off"),
                },
                true = asked(&mut drain), if !servers.is_draining() => {
                    tracing::info!("draining: proxy servers are asked to send new dials elsewhere");
                    self.metrics.draining();
                    servers.drain();
                }
            }
        }
    }

    fn attempt(&mut self, attempt: &mut JoinSet<Result<Opened, ConnectError>>) {
        self.streams += 1;
        let config = self.config.clone();
        let identity = Identity {
            agent_id: match config.agent_id {
                AgentId::Fresh(name) => format!("{name}-{:08x}-{}", self.nonce as u32, self.streams),
                AgentId::Given(name) => name,
            },
            identifiers: config.identifiers,
            token: config.token,
        };
        attempt.spawn(async move {
            connect::open(&config.address, &config.tls, &identity, config.keepalive).await
        });
    }

    fn opened(&self, servers: &mut Servers, streams: &mut JoinSet<Ended>, now: Duration, opened: Opened) {
        let Opened { server_id, server_count, sender, receiver, driver } = opened;
        match servers.met(now, &server_id, server_count, chance()) {
            Attempt::Duplicate => {
                self.metrics.attempt("duplicate");
                tracing::debug!(server = server_id, "there is a stream to this proxy server already");
            }
            Attempt::New => {
                self.metrics.attempt("new");
                tracing::info!(server = server_id, servers = server_count, "stream to a proxy server");
                // Streams with one name share their connections' numbers: each begins at a place of its own.
                let first_id = ((chance() >> 2) & !u64::from(u32::MAX)) as i64 + 1;
                let (drain, metrics) = (self.drain.clone(), Arc::clone(&self.metrics));
                streams.spawn(async move {
                    let status = stream::run(sender, receiver, first_id, drain, metrics).await;
                    drop(driver);
                    (server_id, status)
                });
            }
        }
    }
}

async fn asked(drain: &mut watch::Receiver<bool>) -> bool {
    drain.wait_for(|drain| *drain).await.is_ok()
}

/// A number that other agents do not have.
pub(crate) fn chance() -> u64 {
    let mut bytes = [0; 8];
    if rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).is_err() {
        tracing::warn!("the system has no random numbers; attempts are not spread");
    }
    u64::from_le_bytes(bytes)
}
