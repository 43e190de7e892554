//! One open stream: packets in, packets out, the endpoints between.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tunnel::wire::{Deframer, decode, encode};
use tunnel::{Action, Closing, ConnectionId, Counts, Limits, Tunnel};

use super::endpoint::{self, Link};
use super::metrics::{Metrics, Segment};
use super::status::Status;

/// Packets are put together up to this size before they are passed on, in bytes.
const BATCH_BYTES: usize = 64 << 10;

/// What all tasks of one stream share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is a packet to send.
    packets: Notify,
    /// The next timer is earlier than it was.
    timers: Notify,
    /// Packets may be passed on again.
    intake: Notify,
    began: Instant,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) struct State {
    pub(super) tunnel: Tunnel,
    pub(super) links: BTreeMap<ConnectionId, Link>,
    /// What is read from an endpoint lands here first: one buffer for all of them.
    pub(super) scratch: Box<[u8]>,
    armed: Option<Duration>,
    counts: Counts,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere ends that connection, not the stream.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Changes the tunnel, and does what it asks for in consequence.
    pub(super) fn with<T>(self: &Arc<Self>, change: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = self.now();
        let mut state = self.state();
        let result = change(&mut state, now);
        self.perform(&mut state, now);
        result
    }

    fn perform(self: &Arc<Self>, state: &mut State, now: Duration) {
        while let Some(action) = state.tunnel.next_action() {
            match action {
                Action::Dial { id, protocol, address } => {
                    state.links.insert(id, endpoint::dial(self, id, protocol, address));
                }
                Action::CancelDial { id, timed_out } => {
                    if timed_out {
                        self.metrics.dial_failed(true);
                    }
                    state.links.remove(&id);
                }
                Action::Write(id) => endpoint::write(state, now, id),
                Action::Read(id) => {
                    if let Some(link) = state.links.get(&id) {
                        link.wake();
                    }
                }
                Action::Shutdown(id) => {
                    if let Some(link) = state.links.get(&id) {
                        link.shutdown();
                    }
                }
                Action::Close(id, closing) => {
                    let Some(link) = state.links.remove(&id) else { continue };
                    match closing {
                        Closing::Finish => {}
                        Closing::Abort => link.reset(),
                        Closing::GiveUp => {
                            link.reset();
                            tracing::warn!(
                                endpoint = link.address,
                                "closed: the endpoint takes data too slowly"
                            );
                        }
                    }
                }
                Action::Resume => self.intake.notify_one(),
            }
        }
        if state.tunnel.has_packet() {
            self.packets.notify_one();
        }
        if state.tunnel.wake_at().is_some_and(|at| state.armed.is_none_or(|armed| at < armed)) {
            self.timers.notify_one();
        }
        let counts = state.tunnel.counts();
        if counts != state.counts {
            self.metrics.counts(state.counts, counts);
            state.counts = counts;
        }
    }
}

/// Closes every endpoint when its stream is no more, for whatever reason.
struct Lost(Arc<Shared>);

impl Drop for Lost {
    fn drop(&mut self) {
        self.0.with(|state, _| state.tunnel.lost());
    }
}

/// Runs a stream until it ends, and says how it did.
pub(super) async fn run(
    mut sender: SendStream<Bytes>,
    receiver: RecvStream,
    first_id: i64,
    mut drain: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) -> Status {
    let limits = Limits::default();
    let scratch = vec![0; limits.packet_bytes].into_boxed_slice();
    let state = State {
        tunnel: Tunnel::new(limits, first_id),
        links: BTreeMap::new(),
        scratch,
        armed: None,
        counts: Counts::default(),
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        packets: Notify::new(),
        timers: Notify::new(),
        intake: Notify::new(),
        began: Instant::now(),
        metrics,
    });
    let _lost = Lost(Arc::clone(&shared));
    let draining = async {
        if drain.wait_for(|drain| *drain).await.is_ok() {
            shared.with(|state, _| state.tunnel.drain());
        }
        std::future::pending::<Status>().await
    };
    tokio::select! {
        status = receive(&shared, receiver) => {
            shared.metrics.stream_error(Segment::ToAgent, status.code);
            status
        }
        status = send(&shared, &mut sender) => {
            shared.metrics.stream_error(Segment::FromAgent, status.code);
            status
        }
        status = keep_time(&shared) => status,
        status = draining => status,
    }
}

async fn receive(shared: &Arc<Shared>, mut receiver: RecvStream) -> Status {
    let mut deframer = Deframer::default();
    while let Some(chunk) = receiver.data().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Status::broken(error.to_string()),
        };
        let length = chunk.len();
        deframer.push(chunk);
        loop {
            // What is not taken fills the window, and the server waits.
            while !shared.state().tunnel.takes_packets() {
                shared.intake.notified().await;
            }
            let packet = match deframer.take().and_then(|message| message.map(decode).transpose()) {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(error) => return Status { code: "Internal", message: error.to_string() },
            };
            shared.metrics.packet(Segment::ToAgent, packet.kind());
            shared.with(|state, now| state.tunnel.packet(now, packet));
        }
        if let Err(error) = receiver.flow_control().release_capacity(length) {
            return Status::broken(error.to_string());
        }
    }
    match receiver.trailers().await {
        Ok(trailers) => trailers
            .as_ref()
            .and_then(Status::read)
            .unwrap_or_else(|| Status::broken("the server ended the stream".to_owned())),
        Err(error) => Status::broken(error.to_string()),
    }
}

async fn send(shared: &Arc<Shared>, sender: &mut SendStream<Bytes>) -> Status {
    let mut batch = BytesMut::new();
    loop {
        while !shared.state().tunnel.has_packet() {
            shared.packets.notified().await;
        }
        // Packets are taken only when they can go, so that those without data overtake as many as possible.
        let room = match capacity(sender, BATCH_BYTES).await {
            Ok(room) => room.min(BATCH_BYTES),
            Err(status) => return status,
        };
        shared.with(|state, now| {
            while batch.len() < room
                && let Some(packet) = state.tunnel.next_packet(now)
            {
                shared.metrics.packet(Segment::FromAgent, packet.kind());
                encode(&packet, &mut batch);
            }
        });
        let mut rest = batch.split().freeze();
        while !rest.is_empty() {
            let room = match capacity(sender, rest.len()).await {
                Ok(room) => room.min(rest.len()),
                Err(status) => return status,
            };
            if let Err(error) = sender.send_data(rest.split_to(room), false) {
                return Status::broken(error.to_string());
            }
        }
    }
}

/// Waits until something can be sent, at best `wanted` bytes, and says how much.
async fn capacity(sender: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, Status> {
    sender.reserve_capacity(wanted);
    while sender.capacity() == 0 {
        match poll_fn(|context| sender.poll_capacity(context)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Status::broken(error.to_string())),
            None => return Err(Status::broken("the stream is closed".to_owned())),
        }
    }
    Ok(sender.capacity())
}

async fn keep_time(shared: &Arc<Shared>) -> Status {
    loop {
        let at = {
            let mut state = shared.state();
            state.armed = state.tunnel.wake_at();
            state.armed
        };
        let timer = async {
            match at {
                Some(at) => sleep_until(shared.began + at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => shared.with(|state, now| state.tunnel.timeout(now)),
            () = shared.timers.notified() => {}
        }
    }
}
