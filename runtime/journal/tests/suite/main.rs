//! One suite, run on SQLite and on PostgreSQL: what holds on one holds on the other.

// The helpers are tests, too, which clippy's exception for tests does not see.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::needless_pass_by_value, reason = "a test is given as a closure")]

mod answers;
mod archive;
mod claim;
mod fence;
mod kill;
mod rows;
mod snapshot;
mod support;
