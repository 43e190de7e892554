//! The NATS server: finding it, starting it as our child, ending it with us, and who may do what on it.

pub mod access;
pub mod callout;
mod config;
pub mod guard;
pub mod key;
pub mod layout;
pub(crate) mod monitoring;
mod permissions;
pub mod server;
mod supervise;
pub mod version;
