//! Dependency trees as cargo prints them.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::process;

/// One package of a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Whether it is one of ours: built from a folder.
    pub(crate) ours: bool,
    /// What was asked for beside it: its features, or its licence.
    pub(crate) detail: String,
}

/// The packages that `cargo tree` prints for these options, each with the `detail` that is asked for by one of
/// cargo's format letters (`f` features, `l` licence).
pub(crate) fn packages(options: &[&str], detail: char) -> Result<BTreeSet<Package>> {
    let mut command = process::cargo();
    command.args(["tree", "--locked", "--prefix", "none", "--charset", "ascii"]);
    command.args(options).args(["--format", &format!("{{p}}|{{{detail}}}")]);
    parse(&process::ask(&mut command)?)
}

fn parse(text: &str) -> Result<BTreeSet<Package>> {
    let mut packages = BTreeSet::new();
    for line in text.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty()) {
        let Some((package, detail)) = line.split_once('|') else {
            bail!("cargo tree printed a line without a detail: `{line}`");
        };
        let mut words = package.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            bail!("cargo tree printed a line without name and version: `{line}`");
        };
        // A folder's package is followed by its path; a proc macro by that word; a git package by an address.
        let ours = words.any(|word| word.starts_with("(/"));
        let version = version.trim_start_matches('v');
        packages.insert(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            ours,
            detail: detail.trim().to_owned(),
        });
    }
    if packages.is_empty() {
        bail!("cargo tree printed nothing");
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::{Package, parse};

    fn package(name: &str, version: &str, ours: bool, detail: &str) -> Package {
        Package { name: name.into(), version: version.into(), ours, detail: detail.into() }
    }

    #[test]
    fn lines_become_packages() {
        let text = "\
proto v0.1.0 (/somewhere/proto)|
chrono v0.4.45|alloc
serde_derive v1.0.229 (proc-macro)|default
serde_derive v1.0.229 (proc-macro)|default (*)

odd v0.1.0 (https://example.org/odd#0123)|
";
        let expected = [
            package("chrono", "0.4.45", false, "alloc"),
            package("odd", "0.1.0", false, ""),
            package("proto", "0.1.0", true, ""),
            package("serde_derive", "1.0.229", false, "default"),
        ];
        assert_eq!(parse(text).unwrap().into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in ["", "proto v0.1.0", "proto|"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
