//! Planes as their users meet them: `walras up --no-demo` as a process with a simulated management cluster, clusters
//! asked for by command, and hosts that give notice or die.
//!
//! The `nats-server` comes from `WALRAS_NATS_SERVER`, else from PATH. Without one these tests print a line and pass,
//! unless `WALRAS_REQUIRE_NATS=1` asks for them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

mod health;
mod kubernetes;
mod life;
mod notice;
#[path = "../gateway/process.rs"]
#[allow(dead_code, reason = "the tests of the gateway use the rest")]
mod process;
