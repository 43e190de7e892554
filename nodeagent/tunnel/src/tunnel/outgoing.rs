//! What is to be sent to the server, in which order.

use std::time::Duration;

use super::connection::{Endpoint, Server};
use super::endpoint::has_room;
use super::{Action, ConnectionId, Stray, Tunnel};
use crate::packet::Packet;

impl Tunnel {
    /// The next packet for the server. Packets without data come first: they are few and somebody waits for them.
    /// Then each connection that has data in turn, a packet at a time. Within a connection the order is: outcome of
    /// the dial, data, end.
    pub fn next_packet(&mut self, now: Duration) -> Option<Packet> {
        if std::mem::take(&mut self.drain_unsent) {
            return Some(Packet::Drain);
        }
        if let Some(id) = self.control.turn() {
            return self.control_packet(now, id);
        }
        if let Some((random, error)) = self.refusals.pop_front() {
            return Some(Packet::DialResponse { error, connect_id: 0, random });
        }
        if let Some((connect_id, stray)) = self.strays.pop_first() {
            let error = match stray {
                Stray::Data => "unrecognized connectID",
                Stray::Close => "Unknown connectID",
            };
            return Some(Packet::CloseResponse { error: error.to_owned(), connect_id });
        }
        let id = self.data.turn()?;
        self.data_packet(now, id)
    }

    /// Whether [`Tunnel::next_packet`] has one.
    pub fn has_packet(&self) -> bool {
        self.drain_unsent
            || !self.control.is_empty()
            || !self.refusals.is_empty()
            || !self.strays.is_empty()
            || !self.data.is_empty()
    }

    fn control_packet(&mut self, now: Duration, id: i64) -> Option<Packet> {
        let connection = self.connections.get_mut(&id)?;
        let packet = match std::mem::replace(&mut connection.server, Server::Gone) {
            Server::Answering(None) => {
                connection.server = Server::Open;
                Packet::DialResponse { error: String::new(), connect_id: id, random: connection.random }
            }
            Server::Answering(Some(error)) => {
                Packet::DialResponse { error, connect_id: 0, random: connection.random }
            }
            // A connection among these that is neither has its end to tell.
            Server::Open | Server::Dialing | Server::Gone => {
                let error = connection.farewell.clone().unwrap_or_default();
                Packet::CloseResponse { error, connect_id: id }
            }
        };
        self.settle(now, id);
        Some(packet)
    }

    fn data_packet(&mut self, now: Duration, id: i64) -> Option<Packet> {
        let connection = self.connections.get_mut(&id)?;
        let data = connection.outbound.pop_front()?;
        connection.outbound_bytes -= data.len();
        self.outbound_bytes -= data.len();
        if connection.outbound.is_empty() {
            // An idle connection keeps no memory.
            connection.outbound.shrink_to_fit();
        }
        let limits = &self.limits;
        if connection.paused
            && connection.endpoint == Endpoint::Open
            && has_room(connection, self.outbound_bytes, limits.read_ahead_bytes, limits.outbound_bytes)
        {
            connection.paused = false;
            self.actions.push_back(Action::Read(ConnectionId(id)));
        }
        self.settle(now, id);
        Some(Packet::Data { connect_id: id, error: String::new(), data })
    }
}
