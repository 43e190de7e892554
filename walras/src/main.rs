//! `walras`: the one binary that operators, tenants and services run.

use clap::Parser;

fn main() -> std::process::ExitCode {
    walras::run::run(walras::cli::Cli::parse().command)
}
