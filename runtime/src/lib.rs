//! Walras.

pub mod bus;
pub mod nats;
pub mod config;
pub mod telemetry;
