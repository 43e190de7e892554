//! What others see of the worker: status, health, metrics.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use life::{Phase, Status};

use crate::konnectivity::Metrics;

/// Every phase, for a gauge each.
const PHASES: [Phase; 9] = [
    Phase::Redeeming,
    Phase::Configuring,
    Phase::Joining,
    Phase::Serving,
    Phase::Draining,
    Phase::Drained,
    Phase::Stopping,
    Phase::Left,
    Phase::Over,
];

/// The newest status, and the tunnel's metrics.
#[derive(Debug)]
pub(crate) struct Shown {
    status: Mutex<Status>,
    pub(crate) tunnel: Arc<Metrics>,
}

impl Shown {
    pub(crate) fn new(status: Status, tunnel: Arc<Metrics>) -> Shown {
        Shown { status: Mutex::new(status), tunnel }
    }

    pub(crate) fn show(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    pub(crate) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// In service, and not about to leave.
    pub(crate) fn is_ready(&self) -> bool {
        let status = self.status();
        status.phase == Phase::Serving && status.node_ready
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&self.status()).unwrap_or_default()
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn metrics(&self) -> Vec<u8> {
        let status = self.status();
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, kind: &str, values: &[(String, i64)]| {
            let _always = writeln!(
                text,
                "# HELP walras_nodeagent_{name} {help}\n# TYPE walras_nodeagent_{name} {kind}"
            );
            for (labels, value) in values {
                let _always = writeln!(text, "walras_nodeagent_{name}{labels} {value}");
            }
        };
        let phases: Vec<(String, i64)> = PHASES
            .iter()
            .map(|phase| (format!("{{phase=\"{}\"}}", name(*phase)), i64::from(*phase == status.phase)))
            .collect();
        let one = |value: i64| [(String::new(), value)];
        gauge("phase", "How far the worker is: 1 for the phase it is in.", "gauge", &phases);
        let flag = |value: bool| one(i64::from(value));
        gauge(
            "node_ready",
            "Whether its Node was ready when last looked at.",
            "gauge",
            &flag(status.node_ready),
        );
        gauge("bus_open", "Whether notices are heard over the bus.", "gauge", &flag(status.bus_open));
        gauge("kubelet_running", "Whether the kubelet runs.", "gauge", &flag(status.kubelet_running));
        let restarts = one(status.kubelet_restarts.into());
        gauge("kubelet_restarts_total", "How often the kubelet was started again.", "counter", &restarts);
        gauge("noticed", "Whether the worker is under notice.", "gauge", &flag(status.notice.is_some()));
        let gone_at = status.notice.map_or(0, |notice| notice.gone_at.micros() / 1_000_000);
        gauge("gone_at_seconds", "When its server will be gone, 0 for not.", "gauge", &one(gone_at));
        let pods = one(i64::try_from(status.pods_remaining).unwrap_or(i64::MAX));
        gauge("pods_remaining", "Pods that have still to go.", "gauge", &pods);
        let undone = one(i64::try_from(status.undone.len()).unwrap_or(i64::MAX));
        gauge("undone", "What could not be done while leaving.", "gauge", &undone);
        gauge("state_saved", "Whether the newest state is on disk.", "gauge", &flag(status.is_saved));
        let skew = one(status.skew_seconds);
        gauge("clock_skew_seconds", "The service's clock less the worker's.", "gauge", &skew);
        let mut bytes = text.into_bytes();
        bytes.extend(self.tunnel.text().unwrap_or_default());
        bytes
    }
}

/// A phase's name, as it is written everywhere.
pub(crate) fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Redeeming => "redeeming",
        Phase::Configuring => "configuring",
        Phase::Joining => "joining",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
        Phase::Drained => "drained",
        Phase::Stopping => "stopping",
        Phase::Left => "left",
        Phase::Over => "over",
    }
}
