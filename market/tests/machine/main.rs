//! The market machine: the rules by example, every refusal, and random histories against a slow model.

// Helpers of tests fail as tests do, and take what is convenient to write.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod driver;
mod lives;
mod model;
mod orders;
mod properties;
mod quotes;
mod refusals;
mod rules;
mod telling;
mod together;
