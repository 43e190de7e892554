//! What is counted of workers.

use controlplane::workers::Desk;
use prometheus::{IntCounterVec, IntGaugeVec};
use proto::worker::WorkerState;
use runtime::telemetry::{Meter, MeterError, metrics};

/// The metrics.
pub(super) struct Figures {
    pub(super) redemptions: IntCounterVec,
    pub(super) reports: IntCounterVec,
    pub(super) statements: IntCounterVec,
    pub(super) orders: IntCounterVec,
    pub(super) certificates: IntCounterVec,
    pub(super) cleaned: IntCounterVec,
    joined: IntGaugeVec,
}

/// Every state, as it is shown.
const STATES: [(Option<WorkerState>, &str); 7] = [
    (None, "silent"),
    (Some(WorkerState::Joining), "joining"),
    (Some(WorkerState::Ready), "ready"),
    (Some(WorkerState::Failing), "failing"),
    (Some(WorkerState::Draining), "draining"),
    (Some(WorkerState::Drained), "drained"),
    (Some(WorkerState::Left), "left"),
];

impl Figures {
    pub(super) fn new(meter: &Meter) -> Result<Self, MeterError> {
        let figures = Self {
            redemptions: meter.counters(&metrics::WORKERS_REDEMPTIONS)?,
            reports: meter.counters(&metrics::WORKERS_REPORTS)?,
            statements: meter.counters(&metrics::WORKERS_STATEMENTS)?,
            orders: meter.counters(&metrics::WORKERS_ORDERS)?,
            certificates: meter.counters(&metrics::WORKERS_CERTIFICATES)?,
            cleaned: meter.counters(&metrics::WORKERS_CLEANED)?,
            joined: meter.gauges(&metrics::WORKERS_JOINED)?,
        };
        // An alarm needs the count before the first time, too.
        figures.redemptions.with_label_values(&["other-key"]).reset();
        Ok(figures)
    }

    /// Shows how many workers are in which state.
    pub(super) fn show(&self, desk: &Desk) {
        let mut counts = [0_i64; STATES.len()];
        for (_, _, state) in desk.workers() {
            if let Some(place) = STATES.iter().position(|(one, _)| *one == state) {
                counts[place] += 1;
            }
        }
        for ((_, word), count) in STATES.iter().zip(counts) {
            self.joined.with_label_values(&[*word]).set(count);
        }
    }
}
