//! What servers of planes show on `/metrics`: of each only the few series that tell how quick it is.
//!
//! Every plane is asked, commits and reconciles at a steady pace from its creation on; how long each takes is what the
//! outside says, and what was counted before stays counted.

use std::fmt::Write;

use proto::Timestamp;
use serde_json::Value;

use crate::json::{at, digest, items, text};
use crate::store::Key;
use crate::{Answer, Body, Cluster};

/// Time between two requests, two commits, or two pieces of a controller's work, in microseconds.
const EACH_MICROS: i64 = 20_000;
/// How long each takes in microseconds if nobody says otherwise.
const USUAL: Pace = Pace { api_micros: 4_000, commit_micros: 2_000, controller_micros: 800 };
/// Bounds of the API server's histograms, and in microseconds.
const SERVER_BOUNDS: [(&str, u64); 9] = [
    ("0.005", 5_000),
    ("0.025", 25_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.2", 200_000),
    ("0.6", 600_000),
    ("1", 1_000_000),
    ("5", 5_000_000),
    ("60", 60_000_000),
];
/// Bounds of work queues' histograms, and in microseconds.
const QUEUE_BOUNDS: [(&str, u64); 6] = [
    ("1e-05", 10),
    ("0.0001", 100),
    ("0.001", 1_000),
    ("0.1", 100_000),
    ("1", 1_000_000),
    ("10", 10_000_000),
];

/// How long each thing takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) api_micros: u64,
    pub(crate) commit_micros: u64,
    pub(crate) controller_micros: u64,
}

impl Cluster {
    /// What a plane's API server shows; a refusal where no pod of it answers.
    pub(crate) fn server_metrics(&mut self, key: &Key, workers: usize) -> Answer {
        let spans = self.spans(key);
        let mut shown = String::new();
        let asked = "verb=\"GET\",resource=\"pods\",scope=\"resource\"";
        histogram(&mut shown, "apiserver_request_duration_seconds", asked, &SERVER_BOUNDS, &spans, |pace| {
            pace.api_micros
        });
        let committed = "operation=\"update\",type=\"/registry/leases\"";
        histogram(&mut shown, "etcd_request_duration_seconds", committed, &SERVER_BOUNDS, &spans, |pace| {
            pace.commit_micros
        });
        // Text is written to memory, which does not fail.
        let _ = writeln!(shown, "apiserver_storage_objects{{resource=\"nodes\"}} {workers}");
        let _ = writeln!(shown, "process_start_time_seconds {}", digest([&*key.namespace, &*key.name]) >> 32);
        Answer { body: Body::Text(shown), ..Answer::json(200, Value::Null) }
    }

    /// What the controller manager in a pod shows, through the API server's proxy.
    pub(crate) fn controller_metrics(&self, namespace: &str, pod: &str) -> Option<Answer> {
        let pod = self.get("pods", namespace, pod)?;
        let plane = at(pod, "metadata.labels").get("kamaji.clastix.io/name")?.as_str()?;
        let conditions = items(pod, "status.conditions");
        if !conditions.iter().any(|one| text(one, "type") == "Ready" && text(one, "status") == "True") {
            return None;
        }
        let spans = self.spans(&Key::new("tenantcontrolplanes", namespace, plane));
        let mut shown = String::new();
        let queue = "name=\"deployment\"";
        histogram(&mut shown, "workqueue_work_duration_seconds", queue, &QUEUE_BOUNDS, &spans, |pace| {
            pace.controller_micros
        });
        let _ = writeln!(shown, "process_start_time_seconds {}", digest([text(pod, "metadata.uid")]) >> 32);
        Some(Answer { body: Body::Text(shown), ..Answer::json(200, Value::Null) })
    }

    /// From now on a plane is as quick as this.
    pub(crate) fn set_pace(&mut self, key: Key, pace: Pace) {
        let since = self.now;
        self.paces.entry(key).or_default().push((since, pace));
    }

    /// How often there was something at each pace.
    fn spans(&self, key: &Key) -> Vec<(u64, Pace)> {
        let born = self.store.get(key).map(|plane| text(plane, "metadata.creationTimestamp"));
        let born = born.and_then(|born| born.parse::<Timestamp>().ok()).unwrap_or(self.now);
        let mut spans = vec![(born, USUAL)];
        spans.extend(self.paces.get(key).into_iter().flatten().copied());
        let ends = spans.iter().skip(1).map(|(since, _)| *since).chain([self.now]).collect::<Vec<_>>();
        let count = |from: Timestamp, to: Timestamp| {
            u64::try_from(to.micros_since(from) / EACH_MICROS).unwrap_or_default()
        };
        spans.iter().zip(ends).map(|((since, pace), end)| (count(*since, end), *pace)).collect()
    }
}

fn histogram(
    shown: &mut String,
    name: &str,
    labels: &str,
    bounds: &[(&str, u64)],
    spans: &[(u64, Pace)],
    took: impl Fn(&Pace) -> u64,
) {
    let within = |bound: u64| -> u64 {
        spans.iter().filter(|(_, pace)| took(pace) <= bound).map(|(count, _)| count).sum()
    };
    let _ = writeln!(shown, "# TYPE {name} histogram");
    for (written, bound) in bounds.iter().copied().chain([("+Inf", u64::MAX)]) {
        let _ = writeln!(shown, "{name}_bucket{{{labels},le=\"{written}\"}} {}", within(bound));
    }
    let _ = writeln!(shown, "{name}_count{{{labels}}} {}", within(u64::MAX));
}
