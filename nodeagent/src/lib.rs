//! What runs on every worker. So far its tunnel: the Konnectivity agent, which also takes the place of upstream's
//! `proxy-agent`.
//!
//! What is decided is decided in the package `tunnel`; here are sockets, TLS, HTTP/2, files, signals and the clock.

pub mod command;
pub mod konnectivity;
mod proxy_agent;
