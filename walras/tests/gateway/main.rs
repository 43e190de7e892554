//! The gateway as its users meet it: `walras up --no-demo` as a process, asked over HTTP and over the bus.
//!
//! The `nats-server` comes from `WALRAS_NATS_SERVER`, else from PATH. Without one these tests print a line and pass,
//! unless `WALRAS_REQUIRE_NATS=1` asks for them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

mod bus;
mod clusters;
mod http;
mod live;
#[allow(dead_code, reason = "the tests of planes use the rest")]
mod process;
mod refusals;
mod services;
mod webhooks;
