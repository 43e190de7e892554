//! The shell, written once: the bus and its server, the runner, configuration, telemetry, admin endpoints,
//! orderly shutdown. It reads clocks, sockets and files so that the machines need not, and decides nothing.

pub mod admin;
pub mod batcher;
pub mod bus;
pub mod config;
pub mod nats;
pub mod runner;
pub mod shell;
pub mod telemetry;
