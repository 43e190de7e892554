//! Notices: when the server will be gone, by whom and why.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::Timestamp;
use serde::{Deserialize, Serialize};

/// Who gave a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The market, through the service that keeps the control plane.
    Market,
    /// The hypervisor, through the server's metadata.
    Metadata,
    /// Whoever stops the agent.
    Signal,
}

/// When the server will be gone, as it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At an instant.
    At(Timestamp),
    /// After so long.
    In(Duration),
}

/// One notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// When the server will be gone.
    pub gone_at: Timestamp,
    /// Why, in the source's words.
    pub reason: String,
}

/// The notices that stand: one per source, because a source that speaks again corrects itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notices(BTreeMap<Source, Notice>);

impl Notices {
    /// Takes a notice; whether it says something new.
    pub fn heard(&mut self, source: Source, notice: Notice) -> bool {
        let new = self.0.get(&source) != Some(&notice);
        self.0.insert(source, notice);
        new
    }

    /// Takes a notice back; whether there was one.
    pub fn withdrawn(&mut self, source: Source) -> bool {
        self.0.remove(&source).is_some()
    }

    /// The notice that counts: the earliest.
    pub fn first(&self) -> Option<(Source, &Notice)> {
        let earliest = self.0.iter().min_by_key(|(_, notice)| notice.gone_at);
        earliest.map(|(source, notice)| (*source, notice))
    }

    /// Whether a source has given notice.
    pub fn is_from(&self, source: Source) -> bool {
        self.0.contains_key(&source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(seconds: i64) -> Notice {
        Notice { gone_at: Timestamp::from_micros(seconds * 1_000_000), reason: "outbid".into() }
    }

    #[test]
    fn the_earliest_counts_and_each_source_corrects_itself() {
        let mut notices = Notices::default();
        assert!(notices.heard(Source::Market, notice(100)));
        assert!(!notices.heard(Source::Market, notice(100)));
        assert!(notices.heard(Source::Metadata, notice(50)));
        assert_eq!(notices.first(), Some((Source::Metadata, &notice(50))));
        assert!(notices.heard(Source::Metadata, notice(200)));
        assert_eq!(notices.first(), Some((Source::Market, &notice(100))));
        assert!(notices.withdrawn(Source::Market) && !notices.withdrawn(Source::Market));
        assert_eq!(notices.first(), Some((Source::Metadata, &notice(200))));
    }
}
