//! What is said to placement, as commands of this service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use controlplane::{PlaneState, Reports};
use futures::future::{BoxFuture, join_all};
use proto::envelope::Answers;
use proto::machine::{Role, Sender};
use proto::placement::{PlacementAnswer, PlacementCommand, PlaneNumber};
use proto::{CommandId, StreamName, subject};
use runtime::batcher::Batcher;
use runtime::bus::Bus;
use runtime::shell::Stop;
use tokio::sync::{mpsc, watch};

use crate::clock::now;
use crate::feed::Heard;
use crate::figures::Traffic;

/// The principal under which this service speaks.
const PRINCIPAL: &str = "controlplane";
/// Planes that are reported at once.
const PLANES_AT_ONCE_MAX: usize = 1_024;
/// Pause before what could not be sent is sent again.
const PAUSE: Duration = Duration::from_secs(1);

/// Speaks to one site. Clones speak with one voice.
#[derive(Clone)]
pub(crate) struct Voice {
    batcher: Batcher,
    unique: Arc<str>,
    count: Arc<AtomicU64>,
}

impl Voice {
    /// `unique` is shared with no other start of any process.
    pub(crate) fn new(bus: &Bus, site: &StreamName) -> Result<Self> {
        let sender = Sender { role: Role::Service, principal: PRINCIPAL.parse()? };
        let unique = format!("cp-{:x}-{:x}", now().micros(), std::process::id());
        let command_subject = subject::command("placement", site, &sender);
        let batcher = Batcher::start(bus.clone(), command_subject, format!("{unique}.{site}"));
        Ok(Self { batcher, unique: unique.into(), count: Arc::default() })
    }

    /// An id that was never used. None never: the text is one.
    pub(crate) fn id(&self) -> Option<CommandId> {
        format!("{}-{}", self.unique, self.count.fetch_add(1, Ordering::Relaxed)).parse().ok()
    }

    /// Says something, and waits until the bus has it.
    pub(crate) async fn say(&self, command: &PlacementCommand) -> Result<()> {
        self.batcher.send(Bytes::from(serde_json::to_vec(command)?)).await?;
        Ok(())
    }
}

/// What was measured of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) number: PlaneNumber,
    /// Workers that have joined, if they could be counted.
    pub(crate) workers: Option<u32>,
    /// Whether it has long been slower than it should be.
    pub(crate) is_slow: bool,
}

/// Tells placement how planes are.
pub(crate) struct Reporter {
    pub(crate) voice: Voice,
    pub(crate) states: mpsc::Receiver<PlaneState>,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) measured: mpsc::Receiver<Measured>,
    /// Where it is told how planes are, for who measures them.
    pub(crate) planes: watch::Sender<BTreeMap<PlaneNumber, PlaneState>>,
    pub(crate) traffic: Traffic,
}

impl Reporter {
    /// Reports until the stop. It always listens: who tells it something never waits for the bus.
    pub(crate) async fn run(mut self, mut stop: Stop) -> Result<()> {
        let mut reports = Reports::default();
        let mut sending: Option<BoxFuture<'static, Vec<PlaneNumber>>> = None;
        loop {
            if sending.is_none() {
                let commands = reports.say(PLANES_AT_ONCE_MAX, || self.voice.id());
                if !commands.is_empty() {
                    self.traffic.said("planes", commands.len());
                    sending = Some(Box::pin(send(self.voice.clone(), commands)));
                }
            }
            let sent = async {
                match sending.as_mut() {
                    Some(sending) => sending.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                Some(heard) = self.heard.recv() => match heard {
                    Heard::Known(number, generation, workers, slow) => {
                        reports.known(number, generation, workers, slow);
                    }
                    Heard::Taken(host) => reports.host_taken(&host),
                    Heard::Forgotten(number) => {
                        reports.forget(number);
                        self.planes.send_modify(|planes| drop(planes.remove(&number)));
                    }
                },
                unsent = sent => {
                    sending = None;
                    for number in unsent {
                        reports.unsaid(number);
                    }
                }
                Some(state) = self.states.recv() => {
                    self.planes.send_modify(|planes| drop(planes.insert(state.number, state.clone())));
                    reports.see(state);
                }
                Some(measured) = self.measured.recv() => {
                    reports.measure(measured.number, measured.workers, measured.is_slow);
                }
            }
        }
    }
}

/// Sends commands; the planes whose commands may not have arrived, after a pause.
async fn send(voice: Voice, commands: Vec<(PlaneNumber, PlacementCommand)>) -> Vec<PlaneNumber> {
    let each = commands.iter().map(|(number, command)| {
        let said = voice.say(command);
        async move { said.await.err().map(|error| (*number, error)) }
    });
    let failed: Vec<_> = join_all(each).await.into_iter().flatten().collect();
    if let Some((_, error)) = failed.first() {
        tracing::warn!(planes = failed.len(), error = format!("{error:#}"), "reports are sent again");
        tokio::time::sleep(PAUSE).await;
    }
    failed.into_iter().map(|(number, _)| number).collect()
}

/// Listens to what placement answers: what it refuses is said to people, and said again where it is about hosts.
pub(crate) async fn listen(
    bus: Bus,
    site: StreamName,
    hosts_refused: watch::Sender<u64>,
    traffic: Traffic,
    stop: Stop,
) -> Result<()> {
    let principal = PRINCIPAL.parse()?;
    let mut answers = bus.listen(&subject::answer(&principal)).await?;
    let hear = async {
        while let Some(told) = answers.next().await {
            let Ok(told) = serde_json::from_slice::<Answers<PlacementAnswer>>(&told.payload) else {
                continue;
            };
            if told.stream != site || told.machine != "placement" {
                continue;
            }
            for answer in told.answers {
                if let PlacementAnswer::Refused(refused) = answer {
                    traffic.was_refused();
                    tracing::warn!(%site, message = refused.refusal.message, "placement refused a report");
                    hosts_refused.send_modify(|count| *count += 1);
                }
            }
        }
    };
    tokio::select! {
        () = hear => stop.into_requested().await,
        () = stop.clone().into_requested() => {}
    }
    Ok(())
}
