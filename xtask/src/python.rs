//! Python: a package installer, and an environment of its own for the tests that are clients nobody here wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{debian, place, process};

/// Limit for installing the packages.
const INSTALL: Duration = Duration::from_mins(10);

/// A command that runs pip: the interpreter's own, or that of our environment.
pub(crate) fn pip() -> Result<Command> {
    let own = process::ask(Command::new("python3").args(["-m", "pip", "--version"])).is_ok();
    let python = if own { PathBuf::from("python3") } else { environment()? };
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    command.env("PIP_ROOT_USER_ACTION", "ignore");
    Ok(command)
}

/// The interpreter of an environment that holds exactly the pinned packages. It is made anew when the pins or
/// the interpreter change.
pub(crate) fn with_clients() -> Result<PathBuf> {
    let pins = place::pins().join("requirements.txt");
    let wanted = fs::read_to_string(&pins).with_context(|| format!("{} cannot be read", pins.display()))?;
    let version = process::ask(Command::new("python3").arg("--version"))?;
    let stamp_text = format!("{version}\n{wanted}");
    let stamp = folder()?.join("walras-stamp");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == stamp_text) {
        return Ok(interpreter(&folder()?));
    }
    println!("    installing the Python packages of {} into {}", pins.display(), folder()?.display());
    if folder()?.exists() {
        fs::remove_dir_all(folder()?).context("the old Python environment cannot be removed")?;
    }
    let python = environment()?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]);
    pip.args(["--require-hashes", "--requirement"]).arg(&pins).env("PIP_ROOT_USER_ACTION", "ignore");
    process::run(&mut pip, INSTALL)?;
    fs::write(&stamp, stamp_text).with_context(|| format!("{} cannot be written", stamp.display()))?;
    Ok(python)
}

/// The interpreter of our environment, made if it is not there.
fn environment() -> Result<PathBuf> {
    let folder = folder()?;
    let python = interpreter(&folder);
    // Where Debian's part for environments is missing, one without pip is left behind.
    if python.exists() && process::ask(Command::new(&python).args(["-m", "pip", "--version"])).is_ok() {
        return Ok(python);
    }
    let make = || process::ask(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    if make().is_err() {
        // Debian keeps this part of Python in a package of its own.
        debian::install("python3-venv", "Python cannot make a virtual environment without it")?;
        make()?;
    }
    Ok(python)
}

fn folder() -> Result<PathBuf> {
    Ok(place::tools()?.join("python"))
}

fn interpreter(folder: &Path) -> PathBuf {
    folder.join("bin").join("python")
}
