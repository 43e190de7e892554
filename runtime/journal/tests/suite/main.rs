//! One suite, run on SQLite and on PostgreSQL: what holds on one holds on the other.

mod answers;
mod archive;
mod claim;
mod fence;
mod kill;
mod rows;
mod snapshot;
mod support;
