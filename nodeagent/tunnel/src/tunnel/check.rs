//! What must always hold of a tunnel.

use super::Tunnel;
use super::connection::{Endpoint, Server};

impl Tunnel {
    /// Compares what is kept twice, and what is kept with the limits. For tests: it looks at everything.
    ///
    /// # Errors
    /// With what does not hold.
    pub fn check(&self) -> Result<(), String> {
        let sum = |of: fn(&super::Connection) -> usize| self.connections.values().map(of).sum::<usize>();
        let dialing = sum(|connection| usize::from(connection.endpoint == Endpoint::Dialing));
        let counted = [
            ("dialing", self.dialing, dialing),
            ("inbound bytes", self.inbound_bytes, sum(|connection| connection.inbound.bytes())),
            ("outbound bytes", self.outbound_bytes, sum(|connection| connection.outbound_bytes)),
            ("queued bytes", self.outbound_bytes, sum(|c| c.outbound.iter().map(bytes::Bytes::len).sum())),
            ("timers", self.timers.len(), sum(|connection| usize::from(connection.timer.is_some()))),
            ("control", self.control.len(), sum(|connection| usize::from(connection.has_control()))),
            ("data", self.data.len(), sum(|connection| usize::from(connection.has_data()))),
        ];
        for (what, kept, found) in counted {
            if kept != found {
                return Err(format!("{what}: {kept} kept, {found} found"));
            }
        }
        let limits = &self.limits;
        let most_outbound = limits.outbound_bytes + (self.connections.len() + 1) * limits.packet_bytes;
        let bounded = [
            ("dialing", self.dialing, limits.dials),
            ("connections", self.connections.len(), limits.connections),
            ("names of dials", self.dials.len(), limits.connections),
            ("refusals", self.refusals.len(), limits.answers),
            ("strays", self.strays.len(), limits.answers),
            ("inbound bytes", self.inbound_bytes, limits.inbound_bytes + crate::wire::MESSAGE_BYTES),
            ("outbound bytes", self.outbound_bytes, most_outbound),
        ];
        for (what, found, limit) in bounded {
            if found > limit {
                return Err(format!("{what}: {found}, at most {limit}"));
            }
        }
        for (id, connection) in &self.connections {
            let waits = connection.endpoint == Endpoint::Dialing
                || connection.server_closed
                || connection.deaf
                || connection.ended;
            let holds = [
                ("member of control", self.control.contains(*id) == connection.has_control()),
                ("member of data", self.data.contains(*id) == connection.has_data()),
                (
                    "both sides gone",
                    connection.endpoint != Endpoint::Gone || connection.server != Server::Gone,
                ),
                ("bytes for nobody", connection.endpoint == Endpoint::Open || connection.inbound.is_empty()),
                ("timer", !waits || connection.endpoint == Endpoint::Gone || connection.timer.is_some()),
                ("bytes", connection.inbound.bytes() <= limits.endpoint_bytes + crate::wire::MESSAGE_BYTES),
            ];
            if let Some((what, _)) = holds.iter().find(|(_, holds)| !holds) {
                return Err(format!("connection {id}: {what}: {connection:?}"));
            }
        }
        Ok(())
    }
}
