//! `cargo xtask up`: the whole system on one machine, from a checkout.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{nats, place, process};

/// Limit for building the binary.
const BUILD: Duration = Duration::from_hours(1);

/// Fetches a broker if need be, builds `walras`, and becomes `walras up`.
///
/// The dev profile is the default: it compiles sooner, shares its artefacts with the tests, optimises the
/// dependencies all the same, and is fast enough to watch; `--release` is for those who want to load it.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (release, rest) = match arguments.split_first() {
        Some((first, rest)) if first == "--release" => (true, rest),
        _ => (false, arguments),
    };
    // Many people separate what is not meant for cargo.
    let rest = rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest);
    let server = nats::server()?;
    println!("==> nats-server: {}", server.display());
    println!("==> building walras ({} profile)", if release { "release" } else { "dev" });
    let mut build = process::cargo();
    build.args(["build", "--locked", "--package", "walras", "--bin", "walras"]);
    if release {
        build.arg("--release");
    }
    process::run(&mut build, BUILD)?;
    let binary = place::target()?.join(if release { "release" } else { "debug" }).join("walras");
    println!("==> {} up {}", binary.display(), rest.join(" "));
    // Replacing this process leaves terminal and signals to the one program they are meant for.
    let error = Command::new(&binary).arg("up").args(rest).env(nats::VARIABLE, server).exec();
    Err(error).with_context(|| format!("{} cannot be started", binary.display()))
}
