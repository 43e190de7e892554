//! Placement: which server a lease gets, and which hosts a plane's replicas run on.
//!
//! This crate may not see a clock, a socket, a file, a thread or a random number. [`pack`] is the packing of planes
//! onto hosts as a pure function, as `README.md` beside this crate explains it; [`site`] keeps the hosts and planes of
//! one site while they change one by one, [`rollout`] the order in which moves are carried out, and [`servers`] says
//! which server a lease gets. [`machine`] makes of all this the machine that decides for a site. Effort is a budget of
//! steps that the caller gives, never a time.

pub mod machine;
pub mod pack;
pub mod rollout;
pub mod servers;
pub mod site;
