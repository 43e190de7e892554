//! What the binary `walras` is made of: the command line, the commands for people, the gateway, and the wiring of
//! the whole system on one machine. It decides nothing.

pub mod cli;
pub mod client;
pub mod commands;
pub mod gateway;
pub mod run;
pub mod up;
