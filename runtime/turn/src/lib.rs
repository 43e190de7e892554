//! The turn: what a runner does between reading the bus and writing the journal, as one deterministic struct.
//!
//! This crate may not see a clock, a socket, a file, a thread, a random number or a hash map. [`Turn`] owns a
//! machine, the answers it has given, and its place in its input and in its own stream. It takes decoded
//! deliveries and yields at most one [`Row`] for the journal and the messages that follow from it. The real
//! runner and the simulator drive the same struct; whatever they do around it (commit late, crash, run twice),
//! the row is what happened.
//!
//! There is no outbox table. What is to be published is a pure function of a row and the state it leaves
//! ([`Fold`] makes it again while loading), and each row says up to which row everything was known to be
//! published. So the journal's transaction holds the outbox in effect.

mod answers;
mod audit;
mod delivery;
mod filter;
mod fold;
mod input;
mod outgoing;
mod retell;
mod row;
mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;
mod turned;
mod work;

pub use answers::{ANSWERS_KEPT, ANSWERS_UNINDEXED_MAX, Answered, Locator};
pub use audit::{AuditError, Audited};
pub use delivery::{Decoded, Delivery, Found, Position, decode};
pub use filter::Filter;
pub use fold::{Fold, FoldError, ReadRow, read_row};
pub use input::decided_input;
pub use outgoing::{KIND_ANSWERS, KIND_EVENTS, KIND_EVENTS_OMITTED, Outgoing};
pub use retell::{Repeat, retell};
pub use row::Row;
pub use turned::{Counts, Token, Turned};
pub use work::{
    POSITION_ROW_AFTER, Settings, TURN_COMMANDS_MAX, TURN_DELIVERIES_MAX, Turn, WAKES_PER_TURN_MAX,
};
