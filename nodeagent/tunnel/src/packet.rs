//! What travels on the stream between agent and proxy server.

use bytes::Bytes;

/// A packet, in either direction. Numbers and texts are the sender's, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The server asks for a connection to an endpoint.
    DialRequest {
        /// `tcp`, or what else the server thinks an agent can dial.
        protocol: String,
        /// Host and port.
        address: String,
        /// The server's name for the dial until there is a connection.
        random: i64,
    },
    /// The agent says what became of a dial.
    DialResponse {
        /// Why it failed; empty if it did not.
        error: String,
        /// The agent's name for the connection; zero if there is none.
        connect_id: i64,
        /// As in the request.
        random: i64,
    },
    /// The server wants a connection closed.
    CloseRequest {
        /// Which.
        connect_id: i64,
    },
    /// A connection is closed, asked for or not.
    CloseResponse {
        /// Why, if not in the ordinary way.
        error: String,
        /// Which.
        connect_id: i64,
    },
    /// Bytes of a connection.
    Data {
        /// Which.
        connect_id: i64,
        /// Always empty so far.
        error: String,
        /// The bytes.
        data: Bytes,
    },
    /// The server no longer wants a dial.
    CloseDial {
        /// As in the request.
        random: i64,
    },
    /// The agent wants no new dials.
    Drain,
    /// A type that this version does not know.
    Unknown {
        /// Its number.
        number: i32,
    },
}

/// The type of a packet, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `DIAL_REQ`
    DialRequest,
    /// `DIAL_RSP`
    DialResponse,
    /// `CLOSE_REQ`
    CloseRequest,
    /// `CLOSE_RSP`
    CloseResponse,
    /// `DATA`
    Data,
    /// `DIAL_CLS`
    CloseDial,
    /// `DRAIN`
    Drain,
    /// Anything else.
    Unknown,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 8] = [
        Kind::DialRequest,
        Kind::DialResponse,
        Kind::CloseRequest,
        Kind::CloseResponse,
        Kind::Data,
        Kind::CloseDial,
        Kind::Drain,
        Kind::Unknown,
    ];

    /// The name in the protocol's definition, which metrics show.
    pub fn name(self) -> &'static str {
        match self {
            Kind::DialRequest => "DIAL_REQ",
            Kind::DialResponse => "DIAL_RSP",
            Kind::CloseRequest => "CLOSE_REQ",
            Kind::CloseResponse => "CLOSE_RSP",
            Kind::Data => "DATA",
            Kind::CloseDial => "DIAL_CLS",
            Kind::Drain => "DRAIN",
            Kind::Unknown => "UNKNOWN",
        }
    }
}

impl Packet {
    /// The packet's type.
    pub fn kind(&self) -> Kind {
        match self {
            Packet::DialRequest { .. } => Kind::DialRequest,
            Packet::DialResponse { .. } => Kind::DialResponse,
            Packet::CloseRequest { .. } => Kind::CloseRequest,
            Packet::CloseResponse { .. } => Kind::CloseResponse,
            Packet::Data { .. } => Kind::Data,
            Packet::CloseDial { .. } => Kind::CloseDial,
            Packet::Drain => Kind::Drain,
            Packet::Unknown { .. } => Kind::Unknown,
        }
    }
}
