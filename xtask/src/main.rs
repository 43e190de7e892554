//! The project's own commands: `cargo xtask test`, `cargo xtask up`, `cargo xtask bench`.
//!
//! It may do I/O as it likes, but it depends on next to nothing, because it is compiled before everything else on
//! a fresh machine, and it compiles no tool from source.

mod bench;
mod debian;
mod machine;
mod nats;
mod place;
mod process;
mod purity;
mod python;
mod records;
mod steps;
mod supply;
mod table;
mod tally;
mod test;
mod tree;
mod up;
mod version;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <command>

  test [--quick]       every check that a change must pass; --quick leaves out servers, doc tests and most seeds
  up [--release] ARGS  fetch a nats-server if none is installed, build, and run `walras up ARGS`
  bench [NAME…]        run the release benches, all or the named ones, as sections for docs/measurements.md
  tools                fetch what the tests need and print the variables that tell them of it
  purity               only the check that the cores depend on nothing impure
  supply               only the check of licences, sources and banned crates";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else { bail!("no command given\n{USAGE}") };
    match command.as_str() {
        "test" => return test::run(rest),
        "up" => up::run(rest)?,
        "bench" => bench::run(rest)?,
        "tools" => test::fetch()?,
        "purity" => println!("{}", purity::check()?),
        "supply" => println!("{}", supply::check()?),
        "help" | "--help" | "-h" => println!("{USAGE}"),
        other => bail!("unknown command `{other}`\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}
