//! What operators ask a process over HTTP: is it alive, is it ready and if not why, what are its numbers.
//!
//! `/livez`: every loop that promised to turn does; restart the process when not. `/readyz`: every condition is
//! met (the journal is writable, the bus connected and durable, the state caught up, the stream run here or stood
//! by for). `/startupz`: `/readyz` was good once. `/metrics`: everything of the [`Meter`](crate::telemetry::Meter)
//! in Prometheus text format. They say nothing about tenants and ask for no token: listen on a private address.

mod bounded;
mod health;
mod server;
mod watch;

pub use bounded::BoundedListener;
pub use health::{CONDITIONS_MAX, Condition, ConditionState, Health, Pulse, PulseState};
pub use server::{CONNECTIONS_MAX, METRICS_CONTENT_TYPE, router, serve};
pub use watch::watch_bus;
