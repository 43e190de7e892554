//! Walras.

pub mod bus;
pub mod nats;
