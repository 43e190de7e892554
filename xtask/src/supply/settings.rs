//! The part of `deny.toml` that is checked without `cargo deny`, so that one file says what is allowed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What is allowed and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Allowed licences.
    pub(super) licences: BTreeSet<String>,
    /// Banned crates, by name.
    pub(super) banned: BTreeSet<String>,
    /// Allowed registries, by index address.
    pub(super) registries: BTreeSet<String>,
}

impl Settings {
    /// Reads the file.
    pub(super) fn load(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not understood", file.display()))
    }

    /// Understands the layout that our file has: arrays of texts, and arrays of tables that begin with `crate`.
    fn parse(text: &str) -> Result<Self> {
        let list = |section: &str, key: &str| {
            let values = texts(&array(text, section, key)?);
            if values.is_empty() {
                bail!("`{key}` in [{section}] is empty");
            }
            Ok(values)
        };
        let banned = array(text, "bans", "deny")?;
        // A version requirement may follow the name after `@`; a ban of some versions is left to `cargo deny`.
        let banned = banned.split("crate").skip(1).filter_map(|entry| texts(entry).into_iter().next());
        Ok(Self {
            licences: list("licenses", "allow")?.into_iter().collect(),
            banned: banned.filter(|name| !name.contains('@')).collect(),
            registries: list("sources", "allow-registry")?.into_iter().collect(),
        })
    }
}

/// The text between the brackets of an array, without comments.
fn array(text: &str, section: &str, key: &str) -> Result<String> {
    let mut inside = false;
    let mut found: Option<String> = None;
    for line in text.lines().map(without_comment) {
        let line = line.trim();
        if let Some(array) = &mut found {
            array.push_str(line);
        } else if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if inside && let Some(value) = value_of(line, key) {
            found = Some(value.to_owned());
        }
        if let Some(array) = found.as_deref().and_then(|array| array.strip_suffix(']')) {
            return Ok(array.trim_start_matches('[').to_owned());
        }
    }
    bail!("`{key}` is missing in [{section}], or its array has no end")
}

fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.trim_start().strip_prefix('=').map(str::trim)
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let end = line.find(|character| {
        quoted ^= character == '"';
        character == '#' && !quoted
    });
    end.map_or(line, |end| &line[..end])
}

/// What stands in quotation marks.
fn texts(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use crate::place;

    #[test]
    fn our_own_file_is_understood() {
        let settings = Settings::load(&place::root().join("deny.toml")).unwrap();
        assert!(settings.licences.contains("Apache-2.0"), "{settings:?}");
        assert!(settings.banned.contains("serde_yml"), "{settings:?}");
        assert_eq!(settings.registries.len(), 1, "{settings:?}");
    }

    #[test]
    fn comments_and_line_ends_do_not_matter() {
        let text = "\
[bans]
deny = [ # these
  { crate = \"a\", reason = \"old # bad\" }, # \"not\"
  { crate = \"b@<2\", reason = \"x\" },
]
[licenses]
allow = [\"MIT\"]
[sources]
allow-registry = [\"one\",
  \"two\"]
";
        let settings = Settings::parse(text).unwrap();
        let list =
            |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(list(&settings.banned), "a");
        assert_eq!(list(&settings.licences), "MIT");
        assert_eq!(list(&settings.registries), "one two");
    }

    #[test]
    fn a_missing_list_is_an_error() {
        assert!(Settings::parse("[licenses]\nallow = [\"MIT\"]\n").is_err());
        assert!(Settings::parse("[bans]\ndeny = []\n[licenses]\nallow = []\n").is_err());
    }
}
