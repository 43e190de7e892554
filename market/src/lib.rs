//! The market: one deterministic machine for each exchange.
//!
//! This crate may not see a clock, a socket, a file, a thread or a random number. [`Market`] decides: bids, leases,
//! notices, prices, as `README.md` beside this crate rules them. [`book`] knows one market's standing units and who
//! of them wins, [`joint`] several markets that bids couple. [`billing`] says what leases cost. [`view`] is a fold of the
//! machine's events for those who read.

pub mod billing;
mod blocks;
pub mod book;
pub mod clear;
pub mod joint;
mod machine;
pub mod view;

pub use machine::{BidView, LeaseView, Market, Quote, QuoteError, Why, WhyOption, bounds};
