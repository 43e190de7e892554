//! Programs that come with the distribution and with nothing smaller.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::{place, process};

/// Limit for one installation.
const INSTALL: Duration = Duration::from_mins(15);

/// PostgreSQL's programs that the tests start, and where Debian puts them.
const POSTGRES: [&str; 2] = ["postgres", "initdb"];
const POSTGRES_FOLDER: &str = "/usr/lib/postgresql";

/// Sees to it that a PostgreSQL server can be started.
pub(crate) fn postgres() -> Result<()> {
    if has_postgres() {
        return Ok(());
    }
    install("postgresql", "the journal's tests run on a real server")?;
    if has_postgres() { Ok(()) } else { bail!("PostgreSQL was installed but is not found") }
}

/// Sees to it that Prometheus' own checker is there.
pub(crate) fn promtool() -> Result<()> {
    if place::on_path("promtool").is_some() {
        return Ok(());
    }
    install("prometheus", "its promtool checks metrics and alert rules")
}

fn has_postgres() -> bool {
    let folders = std::fs::read_dir(POSTGRES_FOLDER).into_iter().flatten().flatten();
    let versions: Vec<PathBuf> = folders.map(|version| version.path().join("bin")).collect();
    POSTGRES.iter().all(|program| place::on_path(program).is_some())
        || versions.iter().any(|bin| POSTGRES.iter().all(|program| bin.join(program).is_file()))
}

/// Installs a package, as root or by `sudo` where that asks for no password.
pub(crate) fn install(package: &str, why: &str) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("`{package}` is not installed ({why}); install it and run again");
    }
    let root = process::ask(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !root && process::ask(Command::new("sudo").args(["-n", "true"])).is_err() {
        bail!("`{package}` is not installed ({why}); run `apt-get install {package}` as root and try again");
    }
    println!("    installing the Debian package {package}: {why}");
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command.args(["-q", "-o", "Acquire::Retries=3"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        process::run(&mut command, INSTALL)
    };
    // A machine image may carry no package lists, or old ones.
    apt(&["update"])?;
    apt(&["install", "-y", "--no-install-recommends", package])
}
