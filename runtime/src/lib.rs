//! Walras.

pub mod bus;
pub mod nats;
pub mod config;
pub mod telemetry;
pub mod admin;
pub mod shell;
pub mod runner;
