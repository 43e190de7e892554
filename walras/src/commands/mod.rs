//! What the binary does for people: each command asks, prints a line or a table, or JSON with `--json`.

pub mod bids;
pub mod broker;
pub mod clusters;
pub mod counterfactual;
pub mod files;
pub mod leases;
pub mod prices;
pub mod replay;
pub mod simulate;
pub mod table;
mod transcript;
pub mod webhooks;
