//! Which servers are recent enough.
//!
//! The floor is a security floor: 2.12.12, or 2.14.3 on the 2.14 line, are the oldest releases without
//! known ways around accounts and permissions; `sync_interval: always` and filters are older than that.

use thiserror::Error;

/// The oldest releases accepted, as people write them.
pub const FLOOR: &str = "2.12.12, or 2.14.3 on the 2.14 line";

/// Why a server is not used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VersionError {
    /// It is older than the floor.
    #[error("nats-server version {version}: too old, at least {FLOOR} is needed")]
    TooOld {
        /// What it says it is.
        version: String,
    },
    /// What it says is no version.
    #[error("nats-server version {version:?}: not a version")]
    Unreadable {
        /// What it says it is.
        version: String,
    },
}

/// Checks a version such as `2.15.1` or `v2.12.12-preview.1`.
///
/// # Errors
/// When it is below the floor or cannot be read.
pub fn check(version: &str) -> Result<(), VersionError> {
    let Some((major, minor, patch)) = parse(version) else {
        return Err(VersionError::Unreadable { version: version.to_owned() });
    };
    let accepted = match (major, minor) {
        (2, 12) => patch >= 12,
        (2, 14) => patch >= 3,
        // There was no 2.13 release line; what calls itself so is unreleased code from before the fixes.
        (major, minor) => (major, minor) > (2, 14),
    };
    if accepted { Ok(()) } else { Err(VersionError::TooOld { version: version.to_owned() }) }
}

/// The version in the line `nats-server --version` prints.
#[must_use]
pub fn of_line(line: &str) -> &str {
    line.trim().rsplit(' ').next().unwrap_or_default()
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let numbers = version.strip_prefix('v').unwrap_or(version);
    let numbers = numbers.split(['-', '+']).next()?;
    let mut numbers = numbers.split('.').map(str::parse);
    let parsed = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor() {
        for (version, accepted) in [
            ("2.15.1", Some(true)),
            ("v2.15.0", Some(true)),
            ("3.0.0", Some(true)),
            ("2.14.3", Some(true)),
            ("2.14.3-RC.1", Some(true)),
            ("2.14.2", Some(false)),
            ("2.13.99", Some(false)),
            ("2.12.12", Some(true)),
            ("2.12.11", Some(false)),
            ("2.9.10", Some(false)),
            ("1.99.99", Some(false)),
            ("2.15", None),
            ("2.15.1.4", None),
            ("", None),
            ("two", None),
        ] {
            match (check(version), accepted) {
                (Ok(()), Some(true))
                | (Err(VersionError::TooOld { .. }), Some(false))
                | (Err(VersionError::Unreadable { .. }), None) => {}
                (outcome, _) => panic!("{version:?}: {outcome:?}"),
            }
        }
        assert_eq!(of_line("nats-server: v2.15.1\n"), "v2.15.1");
    }
}
