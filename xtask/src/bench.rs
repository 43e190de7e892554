//! `cargo xtask bench`: the release benches, printed as sections for `docs/measurements.md`.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{machine, nats, process};

/// Limit for building and running one bench.
const BENCH: Duration = Duration::from_hours(1);

/// A bench: its name, what it measures, and cargo's arguments.
struct Bench {
    name: &'static str,
    measures: &'static str,
    arguments: &'static [&'static str],
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "book",
        measures: "the auction book beside published order books, thread CPU time",
        arguments: &["bench", "--package", "market-bench", "--bench", "book"],
    },
    Bench {
        name: "journal",
        measures: "rows appended per second beside plain synced writes",
        arguments: &["bench", "--package", "journal", "--bench", "append"],
    },
    Bench {
        name: "bus",
        measures: "the broker's own publish and read rate with durable settings",
        arguments: &["run", "--release", "--package", "runtime", "--example", "bus_floor"],
    },
];

/// Runs the named benches, or all.
pub(crate) fn run(names: &[String]) -> Result<()> {
    for name in names {
        if !BENCHES.iter().any(|bench| bench.name == name) {
            let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
            bail!("unknown bench `{name}`; there are {}", known.join(", "));
        }
    }
    let server = nats::server()?;
    println!("{}", machine::description());
    for bench in
        BENCHES.iter().filter(|bench| names.is_empty() || names.iter().any(|name| name == bench.name))
    {
        let mut command = process::cargo();
        command.args(bench.arguments).env(nats::VARIABLE, &server);
        println!("## {}\n\n{}: `{}`\n\n```text", bench.name, bench.measures, process::shown(&command));
        process::run(&mut command, BENCH)?;
        println!("```\n");
    }
    Ok(())
}
