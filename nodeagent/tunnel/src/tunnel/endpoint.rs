//! What happened at endpoints. What is said of a connection that is no more is ignored.

use std::time::Duration;

use bytes::Bytes;

use super::connection::{Connection, Endpoint, Server};
use super::{ConnectionId, Tunnel};

impl Tunnel {
    /// A dial succeeded. False if nobody wants the connection any more: drop it.
    #[must_use]
    pub fn dialed(&mut self, now: Duration, ConnectionId(id): ConnectionId) -> bool {
        if !self.end_dial(id, Endpoint::Open, None) {
            return false;
        }
        self.settle(now, id);
        true
    }

    /// A dial failed. Servers look for words like "connection refused" in `error`.
    pub fn dial_failed(&mut self, now: Duration, ConnectionId(id): ConnectionId, error: String) {
        if self.end_dial(id, Endpoint::Gone, Some(error)) {
            self.settle(now, id);
        }
    }

    fn end_dial(&mut self, id: i64, endpoint: Endpoint, error: Option<String>) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.endpoint != Endpoint::Dialing {
            return false;
        }
        connection.endpoint = endpoint;
        connection.server = Server::Answering(error);
        // Not needed for messages any more.
        connection.target = String::new();
        self.dialing -= 1;
        self.set_timer(id, None);
        true
    }

    /// Whether more should be read from an endpoint now. Where not, [`super::Action::Read`] follows when it should.
    pub fn may_read(&mut self, ConnectionId(id): ConnectionId) -> bool {
        let (total, limits) = (self.outbound_bytes, &self.limits);
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.endpoint != Endpoint::Open || connection.ended {
            return false;
        }
        let may = has_room(connection, total, limits.read_ahead_bytes, limits.outbound_bytes);
        connection.paused = !may;
        may
    }

    /// Bytes came from an endpoint: at most [`crate::Limits::packet_bytes`] at a time, so that what waits stays in
    /// bounds. More is cut into packets.
    pub fn received(&mut self, now: Duration, ConnectionId(id): ConnectionId, mut data: Bytes) {
        let packet_bytes = self.limits.packet_bytes.max(1);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.endpoint != Endpoint::Open || connection.ended || connection.server_closed {
            return;
        }
        connection.outbound_bytes += data.len();
        self.outbound_bytes += data.len();
        while data.len() > packet_bytes {
            connection.outbound.push_back(data.split_to(packet_bytes));
        }
        if !data.is_empty() {
            connection.outbound.push_back(data);
        }
        self.settle(now, id);
    }

    /// An endpoint will send nothing more, in order or with an error. The protocol has no half-closed connections:
    /// this ends both directions, once what is under way has arrived.
    pub fn ended(&mut self, now: Duration, ConnectionId(id): ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.endpoint != Endpoint::Open || connection.ended {
            return;
        }
        connection.ended = true;
        connection.farewell.get_or_insert_default();
        if !connection.inbound.is_empty() && connection.timer.is_none() {
            self.set_timer(id, Some(now + self.limits.flush));
        }
        self.settle(now, id);
    }

    /// The first bytes to be written to an endpoint.
    pub fn front(&mut self, ConnectionId(id): ConnectionId) -> Option<Bytes> {
        let connection = self.connections.get_mut(&id)?;
        if connection.endpoint == Endpoint::Open { connection.inbound.front() } else { None }
    }

    /// An endpoint took the first `count` bytes.
    pub fn wrote(&mut self, now: Duration, ConnectionId(id): ConnectionId, count: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.inbound_bytes -= connection.inbound.take(count);
        self.settle(now, id);
    }

    /// An endpoint takes nothing more. What it sent before may still have to be read.
    pub fn write_failed(&mut self, now: Duration, ConnectionId(id): ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.endpoint != Endpoint::Open || connection.deaf {
            return;
        }
        connection.deaf = true;
        self.inbound_bytes -= connection.inbound.clear();
        if connection.timer.is_none() {
            self.set_timer(id, Some(now + self.limits.flush));
        }
        self.settle(now, id);
    }
}

/// A connection may always have one packet under way, so that each gets its turn, and more while there is room for
/// all together. Whoever waits has a packet in the queue and is looked at again when that is sent.
pub(super) fn has_room(connection: &Connection, total: usize, own_bytes: usize, total_bytes: usize) -> bool {
    connection.server_closed
        || connection.outbound_bytes == 0
        || (connection.outbound_bytes < own_bytes && total < total_bytes)
}
