//! The tunnel of a worker: the agent's side of the Konnectivity protocol as a machine without sockets and clocks.
//!
//! A proxy server beside the API server asks the agent, over one gRPC stream that the agent opened, to dial
//! endpoints near the worker and to carry bytes to and from them. [`Tunnel`] is one such stream: packets from the
//! server and what happened at endpoints go in, packets for the server and [`Action`]s at endpoints come out.
//! Time is an argument, as the span since any fixed instant. [`Servers`] decides when to open how many streams,
//! [`wire`] reads and writes packets as gRPC carries them. `README.md` says what is promised, and how.

mod backoff;
mod identifiers;
mod limits;
mod packet;
mod queue;
mod ring;
mod servers;
mod tunnel;
pub mod wire;

pub use backoff::{Backoff, spread};
pub use identifiers::{IdentifierError, check_identifiers};
pub use limits::Limits;
pub use packet::{Kind, Packet};
pub use servers::{Attempt, Servers, ServersConfig};
pub use tunnel::{Action, Closing, ConnectionId, Counts, Tunnel};
