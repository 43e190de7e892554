//! `walras`: the one binary that operators, tenants and services run.

mod cli;
mod client;
mod commands;
mod gateway;
mod run;
mod up;

use clap::Parser;

fn main() -> std::process::ExitCode {
    run::run(cli::Cli::parse().command)
}
