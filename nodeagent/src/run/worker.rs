//! The worker's loop: it does what the life says, and tells it what happened.

use std::collections::VecDeque;
use std::net::{IpAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Uri;
use life::{Action, DrainAction, Exit, Input, Life, Look, Phase, Source, When};
use proto::worker::{Admission, JoinSecret};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tunnel::ServersConfig;

use super::files::{self, SECRET};
use super::kube::Kube;
use super::kubelet::Kubelet;
use super::metadata::Metadata;
use super::notify::Notify;
use super::places::Places;
use super::service::Service;
use super::shown::{Shown, name};
use super::{bus, configure, key::Key};
use crate::konnectivity::{Agent, AgentConfig, AgentId, ServerAddress, TlsFiles};

/// What waits to be told to the life. Those who tell wait their turn.
pub(crate) const INPUTS_MAX: usize = 256;

/// Between two looks at the tunnel's streams.
const TUNNEL_LOOK: Duration = Duration::from_millis(500);

/// How the tunnel looks for servers: those that are missing soon, a changed number now and then.
const SERVERS: ServersConfig = ServersConfig {
    sync_interval: Duration::from_secs(1),
    sync_interval_cap: Duration::from_secs(30),
    recheck_interval: Some(Duration::from_mins(1)),
};

/// Between two pings of the tunnel. Servers close connections that ping more often than every 30 s.
const KEEPALIVE: Duration = Duration::from_secs(31);

/// What the loop works with.
pub(crate) struct Worker {
    pub(crate) places: Places,
    pub(crate) service: Service,
    /// None once it is redeemed and on disk.
    pub(crate) secret: Option<JoinSecret>,
    pub(crate) kubelet: Kubelet,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) notify: Notify,
    pub(crate) shown: Arc<Shown>,
    pub(crate) life: Life,
    pub(crate) began: Instant,
    /// Notice that a signal gives.
    pub(crate) stop_notice: Duration,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) waiting: mpsc::Receiver<Input>,
    pub(crate) tunnel: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    /// What listens on the bus, once it does.
    pub(crate) bus: Option<JoinHandle<()>>,
    pub(crate) admission: Option<Box<Admission>>,
}

/// How the loop ended.
pub(crate) enum Ended {
    /// The life is over.
    Over(Exit),
    /// Somebody stopped the agent, and not the worker.
    Interrupted,
}

impl Worker {
    /// Runs until the life is over, or the agent is interrupted.
    pub(crate) async fn run(mut self) -> Result<Ended> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
        let mut look = interval(TUNNEL_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = interval(Notify::watchdog().unwrap_or(Duration::from_hours(1)));
        let mut tunnel_open = false;
        let mut input = Input::Tick;
        loop {
            if let Some(exit) = self.take(std::mem::replace(&mut input, Input::Tick)).await {
                self.notify.stopping();
                return Ok(Ended::Over(exit));
            }
            let wake = self.life.wake_at().map(|at| self.began + at);
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            input = tokio::select! {
                Some(input) = self.waiting.recv() => input,
                () = timer => Input::Tick,
                _tick = watchdog.tick() => {
                    self.notify.alive();
                    Input::Tick
                }
                _tick = look.tick() => {
                    let open = self.tunnel.is_some() && self.shown.tunnel.open_servers() > 0;
                    if std::mem::replace(&mut tunnel_open, open) == open { Input::Tick } else { Input::Tunnel(open) }
                }
                _signal = terminate.recv() => {
                    tracing::info!(seconds = self.stop_notice.as_secs(), "told to leave");
                    let reason = "the agent was told to stop".to_owned();
                    Input::Noticed { source: Source::Signal, when: When::In(self.stop_notice), reason }
                }
                _signal = interrupt.recv() => {
                    tracing::info!("interrupted: the worker stays as it is, for the next agent");
                    self.notify.stopping();
                    return Ok(Ended::Interrupted);
                }
            };
        }
    }

    /// Lets the life take an input, and does what it says. What is done at once is told at once.
    async fn take(&mut self, input: Input) -> Option<Exit> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let before = self.life.status();
            let mut actions = Vec::new();
            self.life.step(self.began.elapsed(), input, &mut actions);
            self.log(&before);
            for action in actions {
                if let Action::Exit(exit) = action {
                    self.show();
                    return Some(exit);
                }
                inputs.extend(self.perform(action).await);
            }
        }
        self.show();
        None
    }

    fn show(&mut self) {
        let status = self.life.status();
        let text = match &status.notice {
            Some(notice) => format!("{}, gone at {}: {}", name(status.phase), notice.gone_at, notice.reason),
            None => name(status.phase).to_owned(),
        };
        self.notify.status(&text, status.phase >= Phase::Serving);
        self.shown.show(status);
    }

    /// One line for each thing that people want to know afterwards.
    fn log(&self, before: &life::Status) {
        let now = self.life.status();
        if now.notice != before.notice {
            if let Some(notice) = &now.notice {
                tracing::warn!(gone_at = %notice.gone_at, reason = notice.reason, "under notice");
            } else {
                tracing::info!("the notice is withdrawn");
            }
        }
        if now.phase != before.phase {
            tracing::info!(worker = now.worker, before = name(before.phase), "{}", name(now.phase));
        }
        if now.node_ready != before.node_ready {
            tracing::info!(ready = now.node_ready, "the Node");
        }
        for undone in now.undone.iter().skip(before.undone.len()) {
            tracing::warn!(what = ?undone.what, which = undone.which, why = undone.why, "could not be done");
        }
    }

    async fn perform(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Redeem => return self.redeem(),
            Action::Save(saved) => {
                self.admission = Some(saved.admission.clone());
                let written = saved.write().map_err(anyhow::Error::from);
                let written = written
                    .and_then(|bytes| Ok(files::replace(&self.places.state, &bytes, SECRET)?))
                    .with_context(|| self.places.state.display().to_string());
                return Some(match written {
                    Ok(()) => Input::Saved,
                    Err(error) => {
                        tracing::error!(error = %format!("{error:#}"), "the state is not on disk");
                        Input::SaveFailed
                    }
                });
            }
            Action::Configure(admission) => {
                return Some(match configure::write(&self.places, &admission) {
                    Ok(()) => {
                        self.listen(&admission);
                        Input::Configured
                    }
                    Err(error) => {
                        tracing::error!(error = %crate::chain(&error), "not configured");
                        Input::ConfigureFailed
                    }
                });
            }
            Action::RenewToken(admission) => {
                if let Err(error) = configure::write_token(&self.places, &admission) {
                    tracing::error!(error = %crate::chain(&error), "the tunnel's token is not renewed");
                }
            }
            Action::StartKubelet => {
                let admission = self.admission.as_ref()?;
                let arguments = configure::kubelet_arguments(&self.places, admission);
                if let Err(error) = self.kubelet.start(&arguments) {
                    tracing::error!(%error, "the kubelet cannot be started");
                    return Some(Input::KubeletEnded);
                }
            }
            Action::StopKubelet => self.kubelet.end(Signal::TERM),
            Action::KillKubelet => self.kubelet.end(Signal::KILL),
            Action::StartTunnel(admission) => self.start_tunnel(&admission),
            Action::DrainTunnel => {
                if let Some((_, drain)) = &self.tunnel {
                    drain.send_replace(true);
                }
            }
            Action::StopTunnel => {
                if let Some((task, _)) = self.tunnel.take() {
                    task.abort();
                    self.shown.tunnel.show_servers(0, 0);
                }
            }
            Action::Look | Action::Cordon(_) | Action::Drain(_) => self.ask_api(action),
            Action::Report(report) => {
                let (service, inputs) = (self.service.clone(), self.inputs.clone());
                let admission = self.admission.clone()?;
                tokio::spawn(async move {
                    let _told = inputs.send(service.report(&admission, &report).await).await;
                });
            }
            Action::Acknowledge => {
                if let Some(metadata) = &self.metadata {
                    metadata.acknowledge().await;
                }
            }
            // The loop ends with it.
            Action::Exit(_) => {}
        }
        None
    }

    fn redeem(&self) -> Option<Input> {
        let secret = self.secret.as_ref()?;
        // The key is on disk before anybody hears of it: the lease is bound to it from then on.
        let redemption = Key::keep(&self.places.key).and_then(|key| key.redemption(secret));
        match redemption {
            Ok(redemption) => {
                let (service, inputs) = (self.service.clone(), self.inputs.clone());
                tokio::spawn(async move {
                    let _told = inputs.send(service.redeem(&redemption).await).await;
                });
                None
            }
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "nothing to redeem with");
                Some(Input::RedeemFailed)
            }
        }
    }

    /// Listens on the bus, where the service says that there is something to hear.
    fn listen(&mut self, admission: &Admission) {
        let Some(terms) = admission.bus.clone().filter(|_| self.bus.is_none()) else { return };
        let (authority, worker) = (self.places.bus_authority.clone(), admission.worker.clone());
        self.bus = Some(tokio::spawn(bus::listen(terms, authority, worker, self.inputs.clone())));
    }

    fn ask_api(&self, action: Action) {
        let Some(admission) = &self.admission else { return };
        let kube = Kube::new(&self.places, &admission.cluster.api_server, &admission.worker.to_string());
        let (inputs, wall) = (self.inputs.clone(), self.life.wall());
        tokio::spawn(async move {
            let failed = |error: super::kube::KubeError| {
                let why = crate::chain(&error);
                tracing::warn!(why, "the API server");
                why
            };
            let input = match action {
                Action::Look => match kube.node().await {
                    Ok(Some(node)) => Input::Looked(Look { ready: node.ready }),
                    Ok(None) => Input::NoNode,
                    Err(error) => {
                        failed(error);
                        Input::LookFailed
                    }
                },
                Action::Cordon(cordoned) => match kube.cordon(cordoned).await {
                    Ok(true) => Input::Cordoned { cordoned },
                    Ok(false) => Input::NoNode,
                    Err(error) => Input::CordonFailed(failed(error)),
                },
                Action::Drain(DrainAction::List) => {
                    let listed = async {
                        let pods = kube.pods(wall).await?;
                        let volumes = kube.node().await?.map_or(0, |node| node.volumes);
                        Ok(Input::Listed { pods, volumes })
                    };
                    listed.await.unwrap_or_else(|error| Input::NotListed(failed(error)))
                }
                Action::Drain(DrainAction::Evict { pod, grace_seconds }) => {
                    let answered = kube.evict(&pod, grace_seconds).await;
                    tracing::info!(pod = %format!("{}/{}", pod.namespace, pod.name), ?answered, "eviction");
                    Input::Answered { uid: pod.uid, answered }
                }
                Action::Drain(DrainAction::Delete { pod, grace_seconds }) => {
                    let answered = kube.delete(&pod, grace_seconds).await;
                    let which = format!("{}/{}", pod.namespace, pod.name);
                    tracing::warn!(pod = which, grace_seconds, ?answered, "deletion: time is running out");
                    Input::Answered { uid: pod.uid, answered }
                }
                // Others do the rest.
                _ => return,
            };
            let _told = inputs.send(input).await;
        });
    }

    fn start_tunnel(&mut self, admission: &Admission) {
        let Some(terms) = &admission.tunnel else { return };
        let (drain, draining) = watch::channel(false);
        let worker = admission.worker.to_string();
        let mut identifiers = format!("host={worker}");
        if let Some(address) = own_address(&admission.cluster.api_server) {
            let kind = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            identifiers = format!("{kind}={address}&{identifiers}");
        }
        let config = AgentConfig {
            address: ServerAddress { host: terms.host.clone(), port: terms.port },
            tls: TlsFiles { ca: self.places.authority.clone(), own: None, protocols: Vec::new() },
            agent_id: AgentId::Fresh(worker),
            identifiers,
            token: Some(self.places.tunnel_token.clone()),
            servers: SERVERS,
            keepalive: KEEPALIVE,
        };
        let agent = Agent::new(config, Arc::clone(&self.shown.tunnel), draining);
        self.tunnel = Some((tokio::spawn(agent.run()), drain));
    }
}

/// The address that this machine has on its way to the API server: the one that the kubelet takes, too, where there is
/// one way out. Nothing is sent to find it.
fn own_address(api_server: &str) -> Option<IpAddr> {
    let uri: Uri = api_server.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let there = (host.as_str(), uri.port_u16().unwrap_or(443)).to_socket_addrs().ok()?.next()?;
    let any = if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(there).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
