//! `cargo xtask bench`: the release benches, printed as sections for `docs/measurements.md`.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{machine, nats, process, records, table};

/// Limit for building and running one bench once.
const BENCH: Duration = Duration::from_hours(1);

/// A bench: its name, what it measures, cargo's arguments, and what is added to them in each of its runs.
struct Bench {
    name: &'static str,
    measures: &'static str,
    cargo: &'static [&'static str],
    runs: &'static [&'static [&'static str]],
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "book",
        measures: "the auction book beside published order books, in thread CPU time",
        cargo: &["bench", "--quiet", "--package", "market-bench", "--bench", "book"],
        runs: &[&[]],
    },
    Bench {
        name: "joint",
        measures: "several markets cleared jointly, with their prices, after every event",
        cargo: &["bench", "--quiet", "--package", "market-bench", "--bench", "joint"],
        runs: &[&[]],
    },
    Bench {
        name: "step",
        measures: "a command decided by the market, beside its book alone, in thread CPU time",
        cargo: &["bench", "--quiet", "--package", "market-bench", "--bench", "step"],
        runs: &[&[]],
    },
    Bench {
        name: "packing",
        measures: "planes packed onto hosts: published instances, planes of the field, perfect packings; thread CPU time",
        cargo: &["bench", "--quiet", "--package", "placement-bench", "--bench", "packing"],
        runs: &[&[]],
    },
    Bench {
        name: "journal",
        measures: "rows made durable, beside plain synced writes of the same bytes",
        cargo: &["bench", "--quiet", "--package", "journal", "--bench", "append"],
        runs: &[&[]],
    },
    Bench {
        name: "bus",
        measures: "the broker alone with durable settings: one message at a time, many, and envelopes",
        cargo: &["run", "--quiet", "--release", "--package", "runtime", "--example", "bus_floor", "--"],
        // Payload bytes and publishes in flight: a command alone, commands together, envelopes small and large.
        runs: &[&["300", "1"], &["300", "64"], &["20480", "8"], &["409600", "4", "500"]],
    },
    Bench {
        name: "turn",
        measures: "what a turn costs a command beside the machine's own step, in thread CPU time",
        cargo: &["bench", "--quiet", "--package", "turn", "--bench", "turn"],
        runs: &[&[]],
    },
    Bench {
        name: "planes",
        measures: "control planes made on the simulated management cluster",
        cargo: &["bench", "--quiet", "--package", "controlplane-service", "--bench", "planes"],
        runs: &[&[]],
    },
    Bench {
        name: "latency",
        measures: "the market as a durable service: bid to answer and award, beside an empty service",
        cargo: &["run", "--quiet", "--release", "--package", "market-service", "--example", "service", "--"],
        runs: &[&["latency"]],
    },
    Bench {
        name: "service",
        measures: "the market as a durable service at full speed, beside broker and journal alone",
        cargo: &["run", "--quiet", "--release", "--package", "market-service", "--example", "service", "--"],
        runs: &[&["throughput"]],
    },
    Bench {
        name: "restart",
        measures: "the market killed with a million commands journaled, and started again",
        cargo: &["run", "--quiet", "--release", "--package", "market-service", "--example", "service", "--"],
        runs: &[&["restart"]],
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
        section(bench, &server)?;
    }
    Ok(())
}

fn section(bench: &Bench, server: &std::path::Path) -> Result<()> {
    println!("## {}: {}\n", bench.name, bench.measures);
    let (mut text, mut figures) = (Vec::new(), Vec::new());
    for run in bench.runs {
        let mut command = process::cargo();
        command.args(bench.cargo).args(*run).env(nats::VARIABLE, server);
        println!("    {}", process::shown(&command));
        let status = process::gather(&mut command, BENCH, |line| match records::fields(line) {
            Some(fields) => figures.push(fields),
            None => text.push(line.to_owned()),
        })?;
        process::succeeded(&process::shown(&command), status)?;
    }
    if !figures.is_empty() {
        let (head, rows) = records::rows(&figures);
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        println!("\n{}", table::markdown(&head, &rows));
    }
    if !text.is_empty() {
        println!("\n```text\n{}\n```\n", text.join("\n"));
    }
    Ok(())
}
