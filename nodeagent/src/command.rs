//! The command line.

use std::ffi::OsString;
use std::path::Path;

use clap::{Args as _, Command, FromArgMatches as _};

use crate::{proxy_agent, run};

/// The name under which the binary behaves as upstream's agent.
const PROXY_AGENT: &str = "proxy-agent";

/// Runs the command that the arguments ask for, until it ends.
///
/// # Errors
/// With `clap::Error` where the arguments are not understood, else with what went wrong.
pub fn run(args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let args: Vec<OsString> = args.map(|arg| proxy_agent::normalized(&arg)).collect();
    let called = args.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    if called == PROXY_AGENT {
        let matches = proxy_agent().try_get_matches_from(args)?;
        return proxy_agent::run(proxy_agent::Flags::from_arg_matches(&matches)?);
    }
    let command = Command::new("walras-nodeagent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs on every worker: joins it to its tenant's cluster, and lets it leave in time")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run::Flags::augment_args(
            Command::new("run").about("The worker's life: join, serve, hear a notice, drain, leave"),
        ))
        .subcommand(run::StatusFlags::augment_args(
            Command::new("status")
                .about("How far the worker on this machine is; fails unless it is in service"),
        ))
        .subcommand(proxy_agent());
    let matches = command.try_get_matches_from(args)?;
    match matches.subcommand() {
        Some((PROXY_AGENT, matches)) => proxy_agent::run(proxy_agent::Flags::from_arg_matches(matches)?),
        Some(("run", matches)) => run::run(run::Flags::from_arg_matches(matches)?),
        Some(("status", matches)) => run::status(&run::StatusFlags::from_arg_matches(matches)?),
        _ => anyhow::bail!("no command given"),
    }
}

fn proxy_agent() -> Command {
    let about =
        "The tunnel alone, in the place of upstream's agent: the same flags, health checks and metrics";
    // As with upstream's parser, a flag given twice counts as given last.
    let command =
        Command::new(PROXY_AGENT).version(env!("CARGO_PKG_VERSION")).about(about).args_override_self(true);
    proxy_agent::Flags::augment_args(command)
}
