//! The cores hold no async runtime, socket, clock or random source: their dependency trees are compared with a
//! list of the crates that are allowed, so that a new one is a decision and not an accident.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::tree::{self, Package};

/// The packages that decide.
const CORES: [&str; 10] = [
    "proto",
    "market",
    "webhook",
    "placement",
    "controlplane",
    "turn",
    "simulations",
    "cluster",
    "tunnel",
    "life",
];

/// Package whose tree is known to be impure. That the check finds it so shows in every run that it can fail.
const CONTROL: &str = "runtime";

/// Trees are read for one target, so that the result does not depend on the machine.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Limit for compiling the cores alone.
const BUILD: Duration = Duration::from_mins(10);

/// Every crate that a core may depend on, directly or not.
const ALLOWED: &[&str] = &[
    // Our own.
    "proto",
    "market",
    "webhook",
    "placement",
    "controlplane",
    "turn",
    "simulations",
    "cluster",
    "tunnel",
    "life",
    // Text and binary formats, and shared slices of memory.
    "bytes",
    "cobs",
    "itoa",
    "memchr",
    "postcard",
    "serde",
    "serde_core",
    "serde_json",
    "serde_path_to_error",
    "zmij",
    // Numbers and calendar. chrono without its clock: see FEATURES.
    "arrayvec",
    "chrono",
    "num-traits",
    "rust_decimal",
    // SHA-256.
    "block-buffer",
    "cfg-if",
    "const-oid",
    "cpufeatures",
    "crypto-common",
    "digest",
    "hybrid-array",
    "sha2",
    "typenum",
    // Schemas and errors.
    "dyn-clone",
    "ref-cast",
    "schemars",
    "thiserror",
    // A stream of numbers from a seed, for `simulations` only: no source of seeds among its features.
    "ppv-lite86",
    "rand_chacha",
    "rand_core",
    "zerocopy",
    // Run by the compiler.
    "proc-macro2",
    "quote",
    "ref-cast-impl",
    "schemars_derive",
    "serde_derive",
    "serde_derive_internals",
    "syn",
    "thiserror-impl",
    "unicode-ident",
];

/// Crates that a core must not depend on, for a message that says what they bring. What is on neither list is
/// refused all the same.
const BANNED: &[(&str, &str)] = &[
    ("async-io", "an async runtime"),
    ("async-nats", "a socket"),
    ("async-std", "an async runtime"),
    ("axum", "a socket"),
    ("fastrand", "randomness"),
    ("getrandom", "randomness"),
    ("hyper", "a socket"),
    ("iana-time-zone", "a clock"),
    ("instant", "a clock"),
    ("jiff", "a clock"),
    ("libc", "the operating system"),
    ("mio", "a socket"),
    ("nats", "a socket"),
    ("parking_lot", "threads"),
    ("quanta", "a clock"),
    ("rand", "randomness"),
    ("rayon", "threads"),
    ("reqwest", "a socket"),
    ("rustix", "the operating system"),
    ("smol", "an async runtime"),
    ("socket2", "a socket"),
    ("sqlx", "a database"),
    ("time", "a clock"),
    ("tokio", "an async runtime"),
    ("uuid", "randomness"),
];

/// Features that bring what the crate itself would not.
const FEATURES: &[(&str, &str, &str)] = &[
    ("chrono", "clock", "a clock"),
    ("chrono", "now", "a clock"),
    ("rand_chacha", "os_rng", "randomness"),
    ("rand_core", "os_rng", "randomness"),
];

/// Crates that only some cores may use.
const RESERVED: &[(&str, &str)] = &[("rand_chacha", "simulations"), ("rand_core", "simulations")];

/// Checks every core's tree, and compiles the cores alone, where no other crate's features can lend them a clock.
pub(crate) fn check() -> Result<String> {
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for core in CORES {
        let packages = normal_tree(core)?;
        problems.extend(violations(core, &packages));
        seen.extend(packages.into_iter().map(|package| package.name));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    if !violations(CONTROL, &normal_tree(CONTROL)?).iter().any(|problem| problem.contains("`tokio`")) {
        bail!("the check does not work: it finds no async runtime in `{CONTROL}`, which has one");
    }
    let mut build = process::cargo();
    build.args(["check", "--quiet", "--locked"]);
    build.args(CORES.iter().flat_map(|core| ["--package", core]));
    // Their warnings are for the lints.
    process::ask_for(&mut build, BUILD).context("the cores do not compile alone")?;
    Ok(format!("{} cores use {} crates, all of them allowed", CORES.len(), seen.len()))
}

fn normal_tree(package: &str) -> Result<BTreeSet<Package>> {
    tree::packages(&["--package", package, "--edges", "normal", "--all-features", "--target", TARGET], 'f')
}

fn violations(core: &str, packages: &BTreeSet<Package>) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        if let Some((_, what)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            problems.push(format!("`{core}` depends on `{name}`, which brings {what}"));
        } else if !ALLOWED.contains(&name) {
            problems.push(format!(
                "`{core}` depends on `{name}`, which is not on the list of xtask/src/purity.rs"
            ));
        }
        if let Some((_, only)) = RESERVED.iter().find(|(reserved, only)| *reserved == name && *only != core) {
            problems.push(format!("`{core}` depends on `{name}`, which only `{only}` may use"));
        }
        for feature in package.detail.split(',') {
            let banned = FEATURES.iter().find(|(of, named, _)| *of == name && *named == feature.trim());
            if let Some((_, _, what)) = banned {
                problems.push(format!("`{core}` uses `{name}` with `{feature}`, which brings {what}"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{ALLOWED, BANNED, CORES, violations};
    use crate::tree::Package;

    fn tree(packages: &[(&str, &str)]) -> BTreeSet<Package> {
        let package = |(name, features): &(&str, &str)| Package {
            name: (*name).to_owned(),
            version: "1.0.0".to_owned(),
            ours: false,
            detail: (*features).to_owned(),
        };
        packages.iter().map(package).collect()
    }

    #[test]
    fn a_pure_tree_passes() {
        assert_eq!(violations("market", &tree(&[("proto", ""), ("chrono", "alloc")])), [""; 0]);
    }

    #[test]
    fn each_kind_of_impurity_is_found() {
        for (core, name, features, said) in [
            ("market", "tokio", "full", "an async runtime"),
            ("proto", "getrandom", "", "randomness"),
            ("turn", "mio", "", "a socket"),
            ("market", "left-pad", "", "not on the list"),
            ("proto", "chrono", "alloc,now,std", "a clock"),
            ("simulations", "rand_core", "os_rng", "randomness"),
            ("market", "rand_chacha", "", "only `simulations`"),
        ] {
            let problems = violations(core, &tree(&[("serde", "std"), (name, features)]));
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(core) && problems[0].contains(name), "{problems:?}");
            assert!(problems[0].contains(said), "{problems:?}");
        }
    }

    #[test]
    fn no_crate_is_both_allowed_and_banned() {
        assert!(BANNED.iter().all(|(banned, _)| !ALLOWED.contains(banned)));
        assert!(CORES.iter().all(|core| ALLOWED.contains(core)));
    }
}
