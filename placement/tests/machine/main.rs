//! The placement machine.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "helpers of tests")]

mod cases;
mod driver;
mod properties;
mod refusals;
mod servers;
