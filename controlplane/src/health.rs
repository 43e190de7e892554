//! How quick a plane is, from what its servers count: latency of requests, of commits to its data store, and how long
//! its controllers take for one piece of work.
//!
//! Counts of one process only grow, so what happened between two looks is their difference. Which process answered, of
//! several behind one address, is told by the instant at which it started. A plane is slow when it missed an
//! objective at several looks in a row, and no longer so after more of them at which it met all: one slow moment moves
//! nothing, and a plane at the edge does not flicker.

use std::collections::{BTreeMap, VecDeque};

use crate::quantity::{micros, whole};

/// Looks in a row at which a plane missed an objective before it is slow.
pub const MISSED_LOOKS_MIN: u32 = 3;
/// Looks in a row at which a slow plane met all objectives before it is slow no more.
pub const MET_LOOKS_MIN: u32 = 5;
/// Of so many thousandths of requests the latency must be met.
const QUANTILE_PERMILLE: u64 = 990;
/// Fewer than so many observations between two looks say nothing.
const OBSERVATIONS_MIN: u64 = 10;
/// Processes of one plane whose counts are remembered; the one that answered longest ago is forgotten first.
const PROCESSES_MAX: usize = 16;
/// Characters of an instant that are kept.
const START_CHARACTERS_MAX: usize = 32;
/// The bound above all bounds.
const UNBOUNDED: u64 = u64::MAX;

/// How many took at most so long, in microseconds, for each bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution(BTreeMap<u64, u64>);

impl Distribution {
    fn add(&mut self, bound: u64, count: u64) {
        let known = self.0.entry(bound).or_default();
        *known = known.saturating_add(count);
    }

    /// Adds what was counted since an earlier look.
    fn add_since(&mut self, now: &Self, earlier: &Self) {
        for (bound, count) in &now.0 {
            self.add(*bound, count.saturating_sub(earlier.0.get(bound).copied().unwrap_or_default()));
        }
    }

    /// The least bound within which almost all were, in microseconds; none where there were too few.
    fn latency(&self) -> Option<u64> {
        let total = self.0.values().max().copied().filter(|total| *total >= OBSERVATIONS_MIN)?;
        let most = u128::from(total) * u128::from(QUANTILE_PERMILLE);
        self.0.iter().find(|(_, count)| u128::from(**count) * 1_000 >= most).map(|(bound, _)| *bound)
    }
}

/// What one process of a plane has counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// When it started, as it writes that.
    process: String,
    api: Distribution,
    commit: Distribution,
    controllers: Distribution,
    /// Nodes of the tenant's cluster, if they were counted.
    workers: Option<u32>,
}

impl Counts {
    /// Reads what an API server shows on `/metrics`.
    pub fn of_api_server(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("apiserver_request_duration_seconds_bucket{") {
                // Watches last as long as they are watched, and lists as long as they are.
                let ends =
                    |labels: &str| !is_one_of(labels, "verb", &["WATCH", "WATCHLIST", "CONNECT", "LIST"]);
                count(line, &mut counts.api, ends);
            } else if let Some(line) = line.strip_prefix("etcd_request_duration_seconds_bucket{") {
                let is_commit =
                    |labels: &str| is_one_of(labels, "operation", &["create", "update", "delete"]);
                count(line, &mut counts.commit, is_commit);
            } else if let Some(line) = line
                .strip_prefix("apiserver_storage_objects{")
                .or_else(|| line.strip_prefix("apiserver_resource_objects{"))
                && let Some((labels, value)) = line.split_once('}')
                && label(labels, "resource") == Some("nodes")
                && label(labels, "group").unwrap_or_default().is_empty()
            {
                // One that could not be counted is shown as -1, which is no quantity.
                counts.workers = first(value).and_then(whole).and_then(|count| u32::try_from(count).ok());
            } else {
                counts.take_start("server", line);
            }
        }
        counts
    }

    /// Reads what a controller manager shows on `/metrics`.
    pub fn of_controllers(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            match line.strip_prefix("workqueue_work_duration_seconds_bucket{") {
                Some(line) => count(line, &mut counts.controllers, |_| true),
                None => counts.take_start("controllers", line),
            }
        }
        counts
    }

    fn take_start(&mut self, what: &str, line: &str) {
        if let Some(value) = line.strip_prefix("process_start_time_seconds ").and_then(first) {
            self.process = format!("{what} {}", value.chars().take(START_CHARACTERS_MAX).collect::<String>());
        }
    }
}

/// Counts a line of a histogram, from behind the opening brace, if its labels are wanted.
fn count(line: &str, into: &mut Distribution, is_wanted: impl Fn(&str) -> bool) {
    let Some((labels, value)) = line.split_once('}') else { return };
    let bound = match label(labels, "le") {
        Some("+Inf") => Some(UNBOUNDED),
        Some(bound) => micros(bound),
        None => None,
    };
    if let (Some(bound), Some(counted)) = (bound, first(value).and_then(whole))
        && is_wanted(labels)
    {
        into.add(bound, counted);
    }
}

/// The value in front of what may be an instant.
fn first(value: &str) -> Option<&str> {
    value.split_ascii_whitespace().next()
}

/// The value of a label, as it is written. Those that are read here hold neither quotes nor braces.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.match_indices(name).find_map(|(at, _)| {
        let is_whole = at == 0 || matches!(labels.as_bytes().get(at - 1), Some(b',' | b' '));
        let value = labels.get(at + name.len()..)?.strip_prefix("=\"")?;
        is_whole.then(|| value.split('"').next()).flatten()
    })
}

fn is_one_of(labels: &str, name: &str, values: &[&str]) -> bool {
    label(labels, name).is_some_and(|value| values.contains(&value))
}

/// What planes are to meet, in microseconds, for all but a hundredth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objectives {
    /// From a request to its answer.
    pub api_micros: u64,
    /// From a write to its commit in the data store.
    pub commit_micros: u64,
    /// For one piece of a controller's work.
    pub controller_micros: u64,
}

/// What one look at a plane showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Latency of requests since the look before, in microseconds, if there were enough.
    pub api_micros: Option<u64>,
    /// Latency of commits.
    pub commit_micros: Option<u64>,
    /// Time that controllers took.
    pub controller_micros: Option<u64>,
    /// Nodes of the tenant's cluster, if they were counted.
    pub workers: Option<u32>,
    /// Whether the plane has long missed an objective.
    pub is_slow: bool,
}

/// A plane as it was looked at.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What its processes had counted when they were looked at last, the latest look last.
    counted: VecDeque<Counts>,
    missed: u32,
    met: u32,
    is_slow: bool,
}

impl Health {
    /// Takes in what processes have counted by now. The first look at one has nothing to compare with.
    pub fn look(&mut self, processes: Vec<Counts>, objectives: &Objectives) -> Look {
        let mut grown = Counts::default();
        for now in processes {
            if let Some(at) = self.counted.iter().position(|before| before.process == now.process)
                && let Some(before) = self.counted.remove(at)
            {
                grown.api.add_since(&now.api, &before.api);
                grown.commit.add_since(&now.commit, &before.commit);
                grown.controllers.add_since(&now.controllers, &before.controllers);
            }
            grown.workers = grown.workers.max(now.workers);
            self.counted.push_back(now);
            if self.counted.len() > PROCESSES_MAX {
                self.counted.pop_front();
            }
        }
        let api_micros = grown.api.latency();
        let commit_micros = grown.commit.latency();
        let controller_micros = grown.controllers.latency();
        let measured = [
            (api_micros, objectives.api_micros),
            (commit_micros, objectives.commit_micros),
            (controller_micros, objectives.controller_micros),
        ];
        if measured.iter().any(|(took, most)| took.is_some_and(|took| took > *most)) {
            (self.missed, self.met) = (self.missed.saturating_add(1), 0);
        } else if measured.iter().any(|(took, _)| took.is_some()) {
            (self.missed, self.met) = (0, self.met.saturating_add(1));
        }
        if self.missed >= MISSED_LOOKS_MIN {
            self.is_slow = true;
        } else if self.met >= MET_LOOKS_MIN {
            self.is_slow = false;
        }
        Look { api_micros, commit_micros, controller_micros, workers: grown.workers, is_slow: self.is_slow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTIVES: Objectives =
        Objectives { api_micros: 1_000_000, commit_micros: 250_000, controller_micros: 1_000_000 };

    /// What an API server shows after so many quick and so many slow requests.
    fn shown(start: &str, quick: u64, slow: u64) -> Counts {
        let all = quick + slow;
        Counts::of_api_server(&format!(
            "# TYPE apiserver_request_duration_seconds histogram\n\
             apiserver_request_duration_seconds_bucket{{verb=\"GET\",resource=\"pods\",le=\"0.05\"}} {quick}\n\
             apiserver_request_duration_seconds_bucket{{verb=\"GET\",resource=\"pods\",le=\"5\"}} {all}\n\
             apiserver_request_duration_seconds_bucket{{verb=\"GET\",resource=\"pods\",le=\"+Inf\"}} {all}\n\
             apiserver_request_duration_seconds_bucket{{verb=\"WATCH\",le=\"0.05\"}} 0\n\
             apiserver_request_duration_seconds_bucket{{verb=\"WATCH\",le=\"+Inf\"}} 1e+06\n\
             etcd_request_duration_seconds_bucket{{operation=\"update\",type=\"x\",le=\"0.005\"}} {all}\n\
             etcd_request_duration_seconds_bucket{{operation=\"update\",type=\"x\",le=\"+Inf\"}} {all}\n\
             etcd_request_duration_seconds_bucket{{operation=\"list\",type=\"x\",le=\"+Inf\"}} 999999\n\
             apiserver_storage_objects{{resource=\"nodes\"}} 17\n\
             apiserver_storage_objects{{resource=\"pods\"}} 400\n\
             process_start_time_seconds {start}\n"
        ))
    }

    #[test]
    fn what_servers_show_is_counted() {
        let counts = shown("1.5e+09", 90, 10);
        assert_eq!((counts.workers, counts.process.as_str()), (Some(17), "server 1.5e+09"));
        assert_eq!(counts.api.0, BTreeMap::from([(50_000, 90), (5_000_000, 100), (UNBOUNDED, 100)]));
        assert_eq!(counts.commit.0, BTreeMap::from([(5_000, 100), (UNBOUNDED, 100)]));
        assert_eq!(counts.api.latency(), Some(5_000_000));
        assert_eq!(shown("1", 991, 9).api.latency(), Some(50_000), "a hundredth may be slow");
        assert_eq!(shown("1", 5, 0).api.latency(), None, "too few say nothing");
        let line = "workqueue_work_duration_seconds_bucket{name=\"node\",le=\"1e-05\"} 1.234567e+06 17000\n";
        assert_eq!(Counts::of_controllers(line).controllers.0, BTreeMap::from([(10, 1_234_567)]));
        let none = Counts::of_api_server("apiserver_storage_objects{resource=\"nodes\"} -1\nnonsense{\n}{\n");
        assert_eq!(none, Counts::default());
    }

    #[test]
    fn a_plane_is_slow_late_and_no_longer_so_later() {
        let mut health = Health::default();
        let (mut quick, mut slow) = (1_000, 0);
        let mut look = |more_quick: u64, more_slow: u64| {
            quick += more_quick;
            slow += more_slow;
            health.look(vec![shown("1", quick, slow)], &OBJECTIVES)
        };
        assert_eq!(look(0, 0).api_micros, None, "nothing to compare with");
        let seen: Vec<bool> = (0..4).map(|_| look(50, 50).is_slow).collect();
        assert_eq!(seen, [false, false, true, true]);
        assert!(look(100, 0).is_slow && look(0, 0).is_slow, "quiet says nothing");
        let seen: Vec<bool> = (0..4).map(|_| look(100, 0).is_slow).collect();
        assert_eq!(seen, [true, true, true, false]);
        assert!(!look(50, 50).is_slow, "one slow moment is none");
    }

    #[test]
    fn each_process_is_compared_with_itself() {
        let mut health = Health::default();
        let mut look =
            |start: &str, quick, slow| health.look(vec![shown(start, quick, slow)], &OBJECTIVES).api_micros;
        // Two replicas behind one address: the second was slow long before it was looked at.
        assert_eq!(look("1", 1_000, 0), None);
        assert_eq!(look("2", 0, 5_000), None);
        assert_eq!(look("1", 1_100, 0), Some(50_000));
        assert_eq!(look("2", 100, 5_000), Some(50_000));
        for other in 3..3 + PROCESSES_MAX {
            assert_eq!(look(&other.to_string(), 100, 0), None);
        }
        assert_eq!(look("1", 1_200, 0), None, "the oldest is forgotten");
    }
}
