//! The declaration of one metric, and what its name may be.

/// What a metric's value does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A whole number that goes up and down.
    Gauge,
    /// A number with decimals that goes up and down.
    Decimal,
    /// A distribution over these upper bounds, ascending.
    Histogram(&'static [f64]),
}

/// What a metric counts in: the last words of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A counter of anything.
    Total,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// US dollars per hour. Shown only: money that is owed is never a metric.
    DollarsPerHour,
    /// Place in a stream or journal.
    Sequence,
    /// Things counted, by their own word, such as `bids`.
    Count(&'static str),
    /// 0 or 1; the word says what 1 means, such as `connected`.
    Flag(&'static str),
    /// Always 1; the labels say it.
    Info,
}

impl Unit {
    /// The last words of the name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::DollarsPerHour => "dollars_per_hour",
            Self::Sequence => "sequence",
            Self::Count(word) | Self::Flag(word) => word,
            Self::Info => "info",
        }
    }
}

/// One metric, declared once. Its full name is `walras_<service>_<what>_<unit>`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Services that may export it.
    pub services: &'static [&'static str],
    /// What is measured, such as `journal_commit`; empty where the unit says it all.
    pub what: &'static str,
    /// What it is measured in.
    pub unit: Unit,
    /// What its value does.
    pub kind: Kind,
    /// Names of its labels. Every label has a bounded set of values: closed enums of ours, streams and markets
    /// from the configuration; never a tenant, a bid or a principal.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// Why a metric's name cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric {name}: {problem}")]
pub struct NameError {
    /// The name.
    pub name: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Labels a metric may have at most.
const LABELS_MAX: usize = 3;

/// Words that are units, or parts of units, other than the base ones.
const FOREIGN_UNITS: [&str; 12] = [
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "millis",
    "micros",
    "minutes",
    "hours",
    "days",
    "kilobytes",
    "megabytes",
    "percent",
    "bits",
];

impl Metric {
    /// The name it has when `service` exports it.
    pub fn name(&self, service: &str) -> String {
        if self.what.is_empty() {
            format!("walras_{service}_{}", self.unit.suffix())
        } else {
            format!("walras_{service}_{}_{}", self.what, self.unit.suffix())
        }
    }

    /// Checks the name for `service`.
    ///
    /// # Errors
    /// [`NameError`] for a service the metric is not declared for, and for a name that breaks the convention:
    /// lower-case words, base units, `total` on counters and only there.
    pub fn checked_name(&self, service: &str) -> Result<String, NameError> {
        let name = self.name(service);
        match self.problem(service, &name) {
            None => Ok(name),
            Some(problem) => Err(NameError { name, problem }),
        }
    }

    fn problem(&self, service: &str, name: &str) -> Option<&'static str> {
        let word = |word: &str| {
            word.starts_with(|first: char| first.is_ascii_lowercase())
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if !self.services.contains(&service) {
            return Some("not declared for this service");
        }
        if !name.split('_').all(word) || !self.labels.iter().all(|label| label.split('_').all(word)) {
            return Some("words are lower-case letters and digits, joined by single underscores");
        }
        if name.split('_').any(|part| FOREIGN_UNITS.contains(&part)) {
            return Some("units are base units: seconds, bytes");
        }
        if (self.unit == Unit::Total) != (self.kind == Kind::Counter) {
            return Some("counters, and only counters, end in `total`");
        }
        if self.what.split('_').any(|part| matches!(part, "total" | "info" | "bucket" | "count" | "sum")) {
            return Some("`total`, `info`, `bucket`, `count` and `sum` are the format's own words");
        }
        if self.labels.len() > LABELS_MAX || self.labels.contains(&"le") {
            return Some("at most three labels, none of them `le`");
        }
        if self.help.is_empty() {
            return Some("help is missing");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Metric = Metric {
        services: &["market"],
        what: "journal_commit",
        unit: Unit::Seconds,
        kind: Kind::Gauge,
        labels: &["stream"],
        help: "Time.",
    };

    #[test]
    fn a_name_is_service_what_and_unit() {
        assert_eq!(GOOD.checked_name("market").unwrap(), "walras_market_journal_commit_seconds");
        let bare = Metric { what: "", unit: Unit::Count("bids"), ..GOOD };
        assert_eq!(bare.checked_name("market").unwrap(), "walras_market_bids");
    }

    #[test]
    fn names_that_break_the_convention_are_refused() {
        let cases = [
            (Metric { what: "commit_milliseconds", ..GOOD }, "base units"),
            (Metric { what: "Commit", ..GOOD }, "lower-case"),
            (Metric { what: "commit__time", ..GOOD }, "lower-case"),
            (Metric { unit: Unit::Total, ..GOOD }, "only counters"),
            (Metric { kind: Kind::Counter, ..GOOD }, "only counters"),
            (Metric { what: "total_commit", ..GOOD }, "format's own"),
            (Metric { labels: &["le"], ..GOOD }, "`le`"),
            (Metric { labels: &["a", "b", "c", "d"], ..GOOD }, "three labels"),
            (Metric { labels: &["Stream"], ..GOOD }, "lower-case"),
            (Metric { help: "", ..GOOD }, "help"),
            (Metric { services: &["gateway"], ..GOOD }, "not declared"),
        ];
        for (metric, part) in cases {
            let error = metric.checked_name("market").unwrap_err();
            assert!(error.problem.contains(part), "{error} does not say {part}");
        }
    }
}
