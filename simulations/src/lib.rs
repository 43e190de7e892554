//! The real machines in virtual time: an outside world that behaves by chance from a seed, a bus and a journal in
//! memory that fail on purpose, and the runners' own logic between them.
//!
//! This crate may not see a clock, a socket, a file, a thread, or a random number that does not come from its
//! seed. **Determinism**: a seed and the code are the whole run; the swarm runs each seed twice and compares.

pub mod chance;
pub mod outside;
pub mod world;
