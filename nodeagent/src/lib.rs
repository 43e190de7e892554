//! What runs on every worker: it joins the worker to its tenant's cluster, keeps it there, and lets it leave in the
//! time that a notice gives. Its tunnel alone, the Konnectivity agent, also takes the place of upstream's
//! `proxy-agent`.
//!
//! What is decided is decided in the packages `life` and `tunnel`; here are sockets, TLS, HTTP, files, processes,
//! signals and the clock.

pub mod client;
pub mod command;
pub mod konnectivity;
mod proxy_agent;
mod run;

pub use run::RefusedError;

/// An error with what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
