//! One stream between the agent and a proxy server.

mod check;
mod connection;
mod endpoint;
mod hold;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::limits::Limits;
use crate::packet::Packet;
use crate::ring::Ring;
use connection::{Connection, Endpoint, Server};
use hold::Held;

/// A connection of a tunnel, as long as it lives. It is never used again by the same tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub i64);

/// What is to be done at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Dial, and say [`Tunnel::dialed`] or [`Tunnel::dial_failed`].
    Dial {
        /// The connection to be.
        id: ConnectionId,
        /// `tcp` or something like it, as the server said.
        protocol: String,
        /// Host and port, as the server said.
        address: String,
    },
    /// Stop dialling.
    CancelDial {
        /// The connection that will not be.
        id: ConnectionId,
        /// Because it took too long, not because the server asked.
        timed_out: bool,
    },
    /// There are bytes to write where there were none: take them with [`Tunnel::front`].
    Write(ConnectionId),
    /// Reading may go on where [`Tunnel::may_read`] said no.
    Read(ConnectionId),
    /// Close our half: everything is written. Reading goes on.
    Shutdown(ConnectionId),
    /// Forget the connection. What is said of it from now on is ignored.
    Close(ConnectionId, Closing),
    /// Packets may be passed on where [`Tunnel::takes_packets`] said no.
    Resume,
}

/// How a socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// In order: the endpoint got everything.
    Finish,
    /// With a reset, so that the endpoint does not take what it got for the whole.
    Abort,
    /// With a reset, because the endpoint takes data too slowly.
    GiveUp,
}

/// What went wrong so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections closed because their endpoint took data too slowly.
    pub slow: u64,
    /// Packets that went unanswered because too many answers waited.
    pub unanswered: u64,
    /// Packets that an agent has no use for.
    pub unexpected: u64,
    /// Connections whose last bytes the endpoint did not take in time.
    pub unflushed: u64,
}

/// An answer about a connection that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stray {
    Data,
    Close,
}

/// One stream: the dials and connections that the server asked for.
///
/// After each call, take all of [`Tunnel::next_action`] and, while the stream has room, of [`Tunnel::next_packet`].
#[derive(Debug)]
pub struct Tunnel {
    limits: Limits,
    next_id: i64,
    connections: BTreeMap<i64, Connection>,
    /// The server's names of dials and of the connections they became.
    dials: BTreeMap<i64, i64>,
    /// Connections being dialled.
    dialing: usize,
    timers: BTreeSet<(Duration, i64)>,
    /// Connections whose next packet has no data: they come first.
    control: Ring,
    /// Connections whose next packet has data.
    data: Ring,
    refusals: VecDeque<(i64, String)>,
    strays: BTreeSet<(i64, Stray)>,
    draining: bool,
    drain_unsent: bool,
    lost: bool,
    actions: VecDeque<Action>,
    inbound_bytes: usize,
    outbound_bytes: usize,
    held: Option<Held>,
    counts: Counts,
}

impl Tunnel {
    /// A tunnel without connections. The first will be called `first_id` or, since zero and less mean nothing to a
    /// server, one.
    pub fn new(limits: Limits, first_id: i64) -> Self {
        Tunnel {
            limits,
            next_id: first_id.max(1),
            connections: BTreeMap::new(),
            dials: BTreeMap::new(),
            dialing: 0,
            timers: BTreeSet::new(),
            control: Ring::default(),
            data: Ring::default(),
            refusals: VecDeque::new(),
            strays: BTreeSet::new(),
            draining: false,
            drain_unsent: false,
            lost: false,
            actions: VecDeque::new(),
            inbound_bytes: 0,
            outbound_bytes: 0,
            held: None,
            counts: Counts::default(),
        }
    }

    /// A packet from the server.
    pub fn packet(&mut self, now: Duration, packet: Packet) {
        if self.lost {
            return;
        }
        match packet {
            Packet::DialRequest { protocol, address, random } => self.dial(now, protocol, address, random),
            Packet::Data { connect_id, data, .. } => self.data(now, connect_id, data),
            Packet::CloseRequest { connect_id } => self.close_requested(now, connect_id),
            Packet::CloseDial { random } => self.dial_closed(now, random),
            Packet::DialResponse { .. }
            | Packet::CloseResponse { .. }
            | Packet::Drain
            | Packet::Unknown { .. } => self.counts.unexpected += 1,
        }
    }

    /// Whether packets may be passed on now. Where not, the server is to be held by not reading from the stream;
    /// [`Action::Resume`] follows within [`Limits::patience`].
    pub fn takes_packets(&self) -> bool {
        self.held.is_none()
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The instant at which [`Tunnel::timeout`] has something to do.
    pub fn wake_at(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let hold = self.held.as_ref().map(|held| held.until);
        [timer, hold].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Duration) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            self.expired(now, id);
        }
        self.patience_ended(now);
    }

    /// Tells the server to send new dials elsewhere. Connections go on, and so do dials that come all the same.
    pub fn drain(&mut self) {
        if !self.draining && !self.lost {
            self.draining = true;
            self.drain_unsent = true;
        }
    }

    /// The stream is gone, and with it every connection.
    pub fn lost(&mut self) {
        for (id, connection) in std::mem::take(&mut self.connections) {
            match connection.endpoint {
                Endpoint::Dialing => {
                    self.actions.push_back(Action::CancelDial { id: ConnectionId(id), timed_out: false });
                }
                Endpoint::Open => self.actions.push_back(Action::Close(ConnectionId(id), Closing::Abort)),
                Endpoint::Gone => {}
            }
        }
        self.dials.clear();
        self.dialing = 0;
        self.timers.clear();
        self.control = Ring::default();
        self.data = Ring::default();
        self.refusals.clear();
        self.strays.clear();
        self.drain_unsent = false;
        self.lost = true;
        self.inbound_bytes = 0;
        self.outbound_bytes = 0;
        if self.held.take().is_some() {
            self.actions.push_back(Action::Resume);
        }
    }

    /// Dials and connections, those that are being taken leave of included.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What went wrong so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn dial(&mut self, now: Duration, protocol: String, address: String, random: i64) {
        if let Some(earlier) = self.dials.get(&random).and_then(|id| self.connections.get(id))
            && matches!(earlier.server, Server::Dialing | Server::Answering(_))
        {
            // The answer to the first will be taken for the answer to both.
            self.counts.unexpected += 1;
            return;
        }
        if let Some(why) = self.dial_refusal(&address) {
            if self.refusals.len() < self.limits.answers {
                self.refusals.push_back((random, why));
            } else {
                self.counts.unanswered += 1;
            }
            return;
        }
        let id = self.unused_id();
        let until = now + self.limits.dial;
        let mut connection = Connection::new(random, &protocol, &address);
        connection.timer = Some(until);
        self.connections.insert(id, connection);
        self.timers.insert((until, id));
        self.dials.insert(random, id);
        self.dialing += 1;
        self.actions.push_back(Action::Dial { id: ConnectionId(id), protocol, address });
    }

    /// Why a dial is not even tried. The words "too many open files" are what servers map to 503.
    fn dial_refusal(&self, address: &str) -> Option<String> {
        let limits = &self.limits;
        if address.len() > limits.address_bytes {
            Some(format!("address of {} bytes, at most {} are dialled", address.len(), limits.address_bytes))
        } else if self.dialing >= limits.dials {
            Some(format!("{} dials are under way already (too many open files)", self.dialing))
        } else if self.connections.len() >= limits.connections {
            Some(format!("{} connections are open already (too many open files)", self.connections.len()))
        } else {
            None
        }
    }

    fn unused_id(&mut self) -> i64 {
        // Ends: there are more numbers than connections may be open.
        loop {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(1);
            if !self.connections.contains_key(&id) {
                return id;
            }
        }
    }

    fn data(&mut self, now: Duration, id: i64, data: Bytes) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.is_known())
        else {
            // Zero is nobody's.
            if id != 0 {
                self.stray(id, Stray::Data);
            }
            return;
        };
        if data.is_empty()
            || connection.server_closed
            || connection.deaf
            || connection.endpoint != Endpoint::Open
        {
            return;
        }
        if connection.inbound.is_empty() {
            self.actions.push_back(Action::Write(ConnectionId(id)));
        }
        self.inbound_bytes += data.len();
        connection.inbound.push(data);
        self.hold_if_over(now, id);
    }

    fn close_requested(&mut self, now: Duration, id: i64) {
        if self.connections.get(&id).is_some_and(Connection::is_known) {
            self.server_closed(now, id);
        } else {
            self.stray(id, Stray::Close);
        }
    }

    fn dial_closed(&mut self, now: Duration, random: i64) {
        let Some(id) = self.dials.get(&random).copied() else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.endpoint == Endpoint::Dialing {
            connection.endpoint = Endpoint::Gone;
            connection.server = Server::Gone;
            self.dialing -= 1;
            self.set_timer(id, None);
            self.actions.push_back(Action::CancelDial { id: ConnectionId(id), timed_out: false });
            self.settle(now, id);
        } else {
            self.server_closed(now, id);
        }
    }

    fn stray(&mut self, id: i64, stray: Stray) {
        if self.strays.contains(&(id, stray)) {
            return;
        }
        if self.strays.len() < self.limits.answers {
            self.strays.insert((id, stray));
        } else {
            self.counts.unanswered += 1;
        }
    }
}
