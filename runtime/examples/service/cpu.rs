//! Processor time of processes and their threads, as Linux tells it.

use std::collections::BTreeMap;
use std::fs;

/// Seconds of each thread of a process so far, by name without its number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(BTreeMap<String, f64>);

impl Times {
    /// Of the threads that are there now.
    pub(crate) fn of(pid: u32) -> Self {
        let mut times = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let (name, nanos) = (read("comm"), read("schedstat"));
            let nanos: f64 = nanos.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0.0);
            let name = name.trim().trim_end_matches(|last: char| last.is_ascii_digit() || last == '-');
            *times.entry(name.to_owned()).or_insert(0.0) += nanos / 1e9;
        }
        Self(times)
    }

    /// What has passed since `earlier`. Threads that ended meanwhile are not in it.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |name| earlier.0.get(name).copied().unwrap_or(0.0);
        Self(self.0.iter().map(|(name, now)| (name.clone(), (now - before(name)).max(0.0))).collect())
    }

    pub(crate) fn total(&self) -> f64 {
        self.0.values().sum()
    }

    /// Names and seconds of those that took a hundredth of the whole at least.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&str, f64)> {
        let least = self.total() / 100.0;
        self.0.iter().map(|(name, seconds)| (name.as_str(), *seconds)).filter(move |(_, it)| *it >= least)
    }
}
