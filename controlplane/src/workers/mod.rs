//! Workers of leases: who may join, what they are told, what the market is told of them. Pure, like everything here;
//! the shell keeps the sockets, and remembers in the management cluster which key redeemed which lease.

mod desk;
mod request;
mod roster;

pub use desk::{Act, Desk, DeskSettings, Holder, Judged, Statement};
pub use request::{RequestError, ServingRequest, read_serving_request};
pub use roster::{Gap, Lease, Roster};
