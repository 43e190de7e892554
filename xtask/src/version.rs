//! Versions of tools: three numbers, compared in order.

use std::fmt;

/// A released version. What follows the third number, such as `-beta.1`, makes it older than the release and is
/// refused by [`Version::find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// The first word of `text` that is a version, with or without a leading `v`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut numbers = word.strip_prefix('v').unwrap_or(word).splitn(3, '.').map(str::parse);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Some(Self(major, minor, patch)),
                _ => None,
            }
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        for (text, expected) in [
            ("nats-server: v2.15.1", Some(Version(2, 15, 1))),
            ("cargo-nextest 0.9.143 (60fa45f63 2026-08-04)", Some(Version(0, 9, 143))),
            ("2.9.10", Some(Version(2, 9, 10))),
            ("nats-server: v2.15.0-beta.1", None),
            ("2.15", None),
            ("v2.15.1.4", None),
            ("", None),
        ] {
            assert_eq!(Version::find(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_compare_as_numbers() {
        assert!(Version(2, 9, 10) < Version(2, 12, 12));
        assert!(Version(2, 12, 9) < Version(2, 12, 12));
        assert!(Version(3, 0, 0) > Version(2, 99, 99));
    }
}
