//! Every bound of a tunnel, by name.

use std::time::Duration;

/// The bounds of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Dials under way at once; a further one is refused with a text that the server maps to 503.
    pub dials: usize,
    /// Connections at once, those being dialled and those not yet taken leave of included.
    pub connections: usize,
    /// Length of an address, in bytes. A host name has at most 253.
    pub address_bytes: usize,
    /// How long a dial may take. The server's own patience is 30 s or more; upstream's agent waits 5 s.
    pub dial: Duration,
    /// Longest piece of data in one packet to the server, in bytes. The server refuses messages of 4 MiB.
    pub packet_bytes: usize,
    /// Bytes that one connection may have read ahead of what the stream took, beyond its first packet.
    pub read_ahead_bytes: usize,
    /// Bytes read ahead by all connections of the stream, beyond one packet each.
    pub outbound_bytes: usize,
    /// Bytes that may wait for one endpoint. Past it the whole stream is held, for at most `patience`.
    pub endpoint_bytes: usize,
    /// Bytes that may wait for all endpoints of the stream together.
    pub inbound_bytes: usize,
    /// How long one endpoint may hold the stream at a time. The protocol has no flow control per connection, so
    /// the choice is between this and dropping an upload that is merely slower than the tunnel.
    pub patience: Duration,
    /// Bytes an endpoint has to take within `patience` to let the stream go on and to be kept. With `patience` it
    /// is the slowest endpoint (1 MiB/s by default) that may be sent more than `endpoint_bytes` at once.
    pub progress_bytes: usize,
    /// How long bytes may wait for an endpoint after the server closed the connection.
    pub flush: Duration,
    /// How long a connection is kept after we closed our half, for the endpoint to close its own. A socket closed
    /// with something left to read is reset, and what the endpoint has not read yet is lost.
    pub linger: Duration,
    /// Answers that may wait to be sent for dials refused at once, and again for connections nobody knows. What is
    /// beyond goes unanswered: it is the server that floods.
    pub answers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            dials: 1_024,
            connections: 32_768,
            address_bytes: 512,
            dial: Duration::from_secs(5),
            packet_bytes: 32 << 10,
            read_ahead_bytes: 128 << 10,
            outbound_bytes: 1 << 20,
            endpoint_bytes: 8 << 20,
            inbound_bytes: 64 << 20,
            patience: Duration::from_millis(250),
            progress_bytes: 256 << 10,
            flush: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            answers: 1_024,
        }
    }
}
