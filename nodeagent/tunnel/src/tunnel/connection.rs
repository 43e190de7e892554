//! One dial, and the connection it becomes.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::{Action, Closing, ConnectionId, Tunnel};
use crate::queue::Queue;

/// What there is at the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Dialing,
    Open,
    Gone,
}

/// What the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// It waits for the dial's outcome.
    Dialing,
    /// The outcome is to be sent: an error, or none.
    Answering(Option<String>),
    /// It knows the connection.
    Open,
    /// It was told, or said itself, that there is nothing any more.
    Gone,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact that arrives on its own, in any order")]
pub(super) struct Connection {
    pub(super) random: i64,
    /// `protocol address`, for messages.
    pub(super) target: String,
    pub(super) endpoint: Endpoint,
    pub(super) server: Server,
    /// To be said when everything that was read has been sent; empty if there is nothing to say but that it ended.
    pub(super) farewell: Option<String>,
    /// The server wants nothing from the endpoint any more.
    pub(super) server_closed: bool,
    /// The endpoint sends nothing any more.
    pub(super) ended: bool,
    /// The endpoint takes nothing any more.
    pub(super) deaf: bool,
    /// Our half is closed, and the endpoint's is awaited.
    pub(super) lingering: bool,
    /// Somebody was told not to read.
    pub(super) paused: bool,
    pub(super) timer: Option<Duration>,
    pub(super) inbound: Queue,
    pub(super) outbound: VecDeque<Bytes>,
    pub(super) outbound_bytes: usize,
}

impl Connection {
    pub(super) fn new(random: i64, protocol: &str, address: &str) -> Self {
        Connection {
            random,
            target: format!("{protocol} {address}"),
            endpoint: Endpoint::Dialing,
            server: Server::Dialing,
            farewell: None,
            server_closed: false,
            ended: false,
            deaf: false,
            lingering: false,
            paused: false,
            timer: None,
            inbound: Queue::default(),
            outbound: VecDeque::new(),
            outbound_bytes: 0,
        }
    }

    /// Whether the server can mean this connection: it was told of it and not yet that it ended.
    pub(super) fn is_known(&self) -> bool {
        self.server == Server::Open
    }

    pub(super) fn has_control(&self) -> bool {
        match self.server {
            Server::Answering(_) => true,
            Server::Open => self.outbound.is_empty() && self.farewell.is_some(),
            Server::Dialing | Server::Gone => false,
        }
    }

    pub(super) fn has_data(&self) -> bool {
        self.server == Server::Open && !self.outbound.is_empty()
    }
}

impl Tunnel {
    /// Draws the consequences of whatever happened to a connection.
    pub(super) fn settle(&mut self, now: Duration, id: i64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.endpoint == Endpoint::Open && connection.inbound.is_empty() {
            if connection.ended || (connection.deaf && connection.server_closed) {
                connection.endpoint = Endpoint::Gone;
                self.actions.push_back(Action::Close(ConnectionId(id), Closing::Finish));
                self.set_timer(id, None);
            } else if connection.server_closed && !connection.lingering {
                connection.lingering = true;
                self.actions.push_back(Action::Shutdown(ConnectionId(id)));
                self.set_timer(id, Some(now + self.limits.linger));
            }
        }
        let Some(connection) = self.connections.get(&id) else { return };
        set_member(&mut self.control, id, connection.has_control());
        set_member(&mut self.data, id, connection.has_data());
        if connection.endpoint == Endpoint::Gone && connection.server == Server::Gone {
            let random = connection.random;
            self.connections.remove(&id);
            if self.dials.get(&random) == Some(&id) {
                self.dials.remove(&random);
            }
        }
        self.release_if_under();
    }

    /// The server wants a connection closed: nothing read is of use any more, what is to be written still is.
    pub(super) fn server_closed(&mut self, now: Duration, id: i64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.server_closed {
            return;
        }
        connection.server_closed = true;
        connection.farewell.get_or_insert_default();
        connection.outbound.clear();
        self.outbound_bytes -= std::mem::take(&mut connection.outbound_bytes);
        if std::mem::take(&mut connection.paused) && connection.endpoint == Endpoint::Open {
            // An endpoint that cannot send may not read either: what it sends is read and dropped.
            self.actions.push_back(Action::Read(ConnectionId(id)));
        }
        if connection.endpoint == Endpoint::Open && connection.timer.is_none() {
            self.set_timer(id, Some(now + self.limits.flush));
        }
        self.settle(now, id);
    }

    pub(super) fn set_timer(&mut self, id: i64, at: Option<Duration>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(before) = std::mem::replace(&mut connection.timer, at) {
            self.timers.remove(&(before, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    /// A connection's timer ran out.
    pub(super) fn expired(&mut self, now: Duration, id: i64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.timer = None;
        if connection.endpoint == Endpoint::Dialing {
            connection.endpoint = Endpoint::Gone;
            connection.server = Server::Answering(Some(format!("dial {}: i/o timeout", connection.target)));
            self.dialing -= 1;
            self.actions.push_back(Action::CancelDial { id: ConnectionId(id), timed_out: true });
            self.settle(now, id);
        } else {
            if !connection.inbound.is_empty() {
                self.counts.unflushed += 1;
            }
            self.abort(now, id, Closing::Abort, "");
        }
    }

    /// Closes the endpoint at once. What was read before is still sent.
    pub(super) fn abort(&mut self, now: Duration, id: i64, closing: Closing, farewell: &str) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.endpoint == Endpoint::Open {
            connection.endpoint = Endpoint::Gone;
            self.actions.push_back(Action::Close(ConnectionId(id), closing));
        }
        self.inbound_bytes -= connection.inbound.clear();
        connection.farewell.get_or_insert_with(|| farewell.to_owned());
        self.set_timer(id, None);
        self.settle(now, id);
    }
}

fn set_member(ring: &mut crate::ring::Ring, id: i64, member: bool) {
    if member {
        ring.insert(id);
    } else {
        ring.remove(id);
    }
}
