//! Where things are: the workspace, its target folder, and what was fetched.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's root folder, as the cargo that started us says: two checkouts may share a target folder, and
/// so this program.
pub(crate) fn root() -> PathBuf {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map(Path::to_path_buf).unwrap_or(package)
}

/// The folder that cargo builds into, taken from where this program lies: cargo's own answer, whatever
/// configuration or environment led to it.
pub(crate) fn target() -> Result<PathBuf> {
    let program = env::current_exe().context("the path of this program is not known")?;
    let profile = program.parent();
    let target = profile.and_then(Path::parent);
    target.map(Path::to_path_buf).with_context(|| format!("{} lies in no target folder", program.display()))
}

/// The folder for tools that this program fetches.
pub(crate) fn tools() -> Result<PathBuf> {
    Ok(target()?.join("tools"))
}

/// A folder of this package's own files.
pub(crate) fn pins() -> PathBuf {
    root().join("xtask").join("python")
}

/// The first program of this name on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|file| file.is_file())
}
