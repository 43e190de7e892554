//! Where code comes from and under which licence. `cargo deny` checks it where that tool is installed; the
//! licences, the sources and the banned crates of `deny.toml` are checked here in any case, because the only
//! builds of the tool in a package registry (0.14.2 in the Python index, none on npm or in Debian) cannot read the package
//! ids that cargo has printed since 1.77.

mod licence;
mod settings;

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::settings::Settings;
use crate::steps::Steps;
use crate::tree::{self, Package};
use crate::version::Version;
use crate::{place, process};

/// Oldest `cargo deny` that reads our `deny.toml`.
const DENY_FLOOR: Version = Version(0, 18, 0);

/// Checks licences, banned crates and sources without any tool but cargo.
pub(crate) fn check() -> Result<String> {
    let settings = Settings::load(&place::root().join("deny.toml"))?;
    let options = ["--workspace", "--all-features", "--edges", "normal,build,dev", "--target", "all"];
    let packages = tree::packages(&options, 'l')?;
    let lock_file = place::root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock_file)
        .with_context(|| format!("{} cannot be read", lock_file.display()))?;
    let mut problems = of_packages(&packages, &settings);
    problems.extend(of_lock(&lock, &settings));
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let foreign = packages.iter().filter(|package| !package.ours).count();
    Ok(format!("{foreign} packages, each from an allowed source under an allowed licence, none banned"))
}

/// Runs `cargo deny` where it is installed, with the advisory database where that can be had.
pub(crate) fn check_with_deny(steps: &mut Steps) -> Result<()> {
    let version =
        process::ask(process::cargo().args(["deny", "--version"])).ok().and_then(|text| Version::find(&text));
    match version {
        Some(version) if version >= DENY_FLOOR => {}
        found => {
            let found = found.map_or("not installed".to_owned(), |version| format!("only {version}"));
            steps.skip(format!(
                "advisories: cargo-deny is {found}, and no registry has a build ≥ {DENY_FLOOR}"
            ));
            return Ok(());
        }
    }
    let fetched = process::ask(&mut deny(&["fetch", "db"])).is_ok();
    if !fetched {
        steps.skip("advisories: the advisory database cannot be fetched");
    }
    let checks: &[&str] = if fetched {
        &["check", "advisories", "bans", "licenses", "sources"]
    } else {
        &["check", "bans", "licenses", "sources"]
    };
    process::run(&mut deny(checks), process::ASK)
}

fn deny(arguments: &[&str]) -> Command {
    let mut command = process::cargo();
    command.arg("deny").args(arguments);
    command
}

fn of_packages(packages: &BTreeSet<Package>, settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let (name, version) = (&package.name, &package.version);
        if settings.banned.contains(name) {
            problems.push(format!("{name} {version} is banned by deny.toml"));
        }
        if package.ours {
            continue;
        }
        if package.detail.is_empty() {
            problems.push(format!("{name} {version} states no licence"));
            continue;
        }
        match licence::allows(&package.detail, &|id| settings.licences.contains(id)) {
            Ok(true) => {}
            Ok(false) => {
                problems.push(format!(
                    "{name} {version} is under `{}`, which deny.toml does not allow",
                    package.detail
                ));
            }
            Err(problem) => {
                problems.push(format!("{name} {version} has licence `{}`: {problem}", package.detail));
            }
        }
    }
    problems
}

/// Every package of the lock file that has a source must come from an allowed registry, with a checksum.
fn of_lock(lock: &str, settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    for entry in lock.split("[[package]]").skip(1) {
        let field = |key: &str| {
            let line = entry.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
            line.map(|value| value.trim().trim_matches('"'))
        };
        let name = field("name").unwrap_or("a package without name");
        let Some(source) = field("source") else { continue };
        let registry = source.strip_prefix("registry+");
        if !registry.is_some_and(|registry| settings.registries.contains(registry)) {
            problems.push(format!("{name} comes from `{source}`, which deny.toml does not allow"));
        }
        if field("checksum").is_none_or(|sum| sum.len() != 64) {
            problems.push(format!("{name} has no checksum in Cargo.lock"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Settings, of_lock, of_packages};
    use crate::tree::Package;

    fn settings() -> Settings {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Settings {
            licences: set(&["MIT", "Apache-2.0"]),
            banned: set(&["backoff"]),
            registries: set(&["https://example.org/index"]),
        }
    }

    fn problems(name: &str, licence: &str) -> Vec<String> {
        let package =
            Package { name: name.into(), version: "1.0.0".into(), ours: false, detail: licence.into() };
        of_packages(&BTreeSet::from([package]), &settings())
    }

    #[test]
    fn licences_and_bans_are_held() {
        assert_eq!(problems("serde", "MIT OR GPL-3.0"), [""; 0]);
        for (name, licence) in
            [("a", "GPL-3.0"), ("b", ""), ("c", "MIT AND GPL-3.0"), ("d", "MIT OR"), ("backoff", "MIT")]
        {
            assert_eq!(problems(name, licence).len(), 1, "{name} {licence}");
        }
    }

    #[test]
    fn sources_are_held() {
        let entry = |source: &str, sum: &str| {
            let lock =
                format!("version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{source}{sum}");
            of_lock(&lock, &settings()).len()
        };
        let sum = format!("checksum = \"{}\"\n", "0".repeat(64));
        assert_eq!(entry("", ""), 0);
        assert_eq!(entry("source = \"registry+https://example.org/index\"\n", &sum), 0);
        assert_eq!(entry("source = \"registry+https://example.org/index\"\n", ""), 1);
        assert_eq!(entry("source = \"registry+https://example.com/index\"\n", &sum), 1);
        assert_eq!(entry("source = \"git+https://example.org/a#0123\"\n", ""), 2);
    }
}
