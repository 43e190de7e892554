//! The service's metrics.

use controlplane::{Change, Kind, Look, Phase, PlaneState};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use proto::StreamName;
use runtime::telemetry::{Meter, MeterError, metrics};

use crate::write::WriteError;

/// What one reconciler tells.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    site: StreamName,
    pub(crate) caught_up: IntGauge,
    pub(crate) objects: IntGauge,
    pub(crate) diff: Histogram,
    planes: IntGaugeVec,
    notes: IntGaugeVec,
    writes: IntCounterVec,
    watch_failures: IntCounterVec,
    pub(crate) unreadable: IntCounter,
}

impl Figures {
    pub(crate) fn new(meter: &Meter, site: &StreamName) -> Result<Self, MeterError> {
        let stream = &[site.as_str()];
        Ok(Self {
            site: site.clone(),
            caught_up: meter.gauges(&metrics::CONTROLPLANE_CAUGHT_UP)?.with_label_values(stream),
            objects: meter.gauges(&metrics::CONTROLPLANE_OBJECTS)?.with_label_values(stream),
            diff: meter.histograms(&metrics::CONTROLPLANE_DIFF)?.with_label_values(stream),
            planes: meter.gauges(&metrics::CONTROLPLANE_PLANES)?,
            notes: meter.gauges(&metrics::CONTROLPLANE_HELD_BACK)?,
            writes: meter.counters(&metrics::CONTROLPLANE_WRITES)?,
            watch_failures: meter.counters(&metrics::CONTROLPLANE_WATCH_FAILURES)?,
            unreadable: meter.counters(&metrics::CONTROLPLANE_UNREADABLE)?.with_label_values(stream),
        })
    }

    pub(crate) fn watch_failures(&self, kind: Kind) -> IntCounter {
        self.watch_failures.with_label_values(&[self.site.as_str(), kind.names().3])
    }

    pub(crate) fn wrote(&self, change: &Change, result: Result<(), &WriteError>) {
        // Verb and kind together, for a metric has few labels.
        let what = format!("{} {}", change.verb(), change.subject().0.names().3);
        let result = result.map_or_else(WriteError::word, |()| "done");
        self.writes.with_label_values(&[self.site.as_str(), &what, result]).inc();
    }

    /// Counts a plane under its state instead of the one before.
    pub(crate) fn change(&self, before: Option<&PlaneState>, after: Option<&PlaneState>) {
        for (state, by) in [(before, -1), (after, 1)] {
            let Some(state) = state else { continue };
            self.planes.with_label_values(&[self.site.as_str(), state.phase.word()]).add(by);
            for note in &state.notes {
                self.notes.with_label_values(&[self.site.as_str(), note.reason.word()]).add(by);
            }
        }
    }

    /// Shows every phase from the beginning, also those that no plane is in.
    pub(crate) fn begin(&self) {
        for phase in Phase::ALL {
            self.planes.with_label_values(&[self.site.as_str(), phase.word()]).set(0);
        }
    }
}

/// What is told of orders and reports.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    /// The last turn of placement whose events are carried on.
    pub(crate) followed: IntGauge,
    /// Times everything was asked for again.
    pub(crate) anew: IntCounter,
    reports: IntCounterVec,
    refused: IntCounter,
    hosts: IntGauge,
    unusable: IntGauge,
    site: StreamName,
}

impl Traffic {
    pub(crate) fn new(meter: &Meter, site: &StreamName) -> Result<Self, MeterError> {
        let stream = &[site.as_str()];
        Ok(Self {
            followed: meter.gauges(&metrics::CONTROLPLANE_FOLLOWED)?.with_label_values(stream),
            anew: meter.counters(&metrics::CONTROLPLANE_ANEW)?.with_label_values(stream),
            reports: meter.counters(&metrics::CONTROLPLANE_REPORTS)?,
            refused: meter.counters(&metrics::CONTROLPLANE_REPORTS_REFUSED)?.with_label_values(stream),
            hosts: meter.gauges(&metrics::CONTROLPLANE_HOSTS)?.with_label_values(stream),
            unusable: meter.gauges(&metrics::CONTROLPLANE_HOSTS_UNUSABLE)?.with_label_values(stream),
            site: site.clone(),
        })
    }

    /// Counts what was said to placement.
    pub(crate) fn said(&self, about: &str, count: usize) {
        self.reports.with_label_values(&[self.site.as_str(), about]).inc_by(count as u64);
    }

    /// Counts what placement refused.
    pub(crate) fn was_refused(&self) {
        self.refused.inc();
    }

    /// Shows how many Nodes there are, and how many of them cannot be hosts.
    pub(crate) fn show_hosts(&self, hosts: usize, unusable: usize) {
        self.hosts.set(i64::try_from(hosts).unwrap_or(i64::MAX));
        self.unusable.set(i64::try_from(unusable).unwrap_or(i64::MAX));
    }
}

/// What is told of how quick planes are: never of which.
#[derive(Debug, Clone)]
pub(crate) struct Quickness {
    api: Histogram,
    commit: Histogram,
    controllers: Histogram,
    looks: IntCounterVec,
    site: StreamName,
}

impl Quickness {
    pub(crate) fn new(meter: &Meter, site: &StreamName) -> Result<Self, MeterError> {
        let stream = &[site.as_str()];
        let quickness = Self {
            api: meter.histograms(&metrics::CONTROLPLANE_API_LATENCY)?.with_label_values(stream),
            commit: meter.histograms(&metrics::CONTROLPLANE_COMMIT_LATENCY)?.with_label_values(stream),
            controllers: meter.histograms(&metrics::CONTROLPLANE_LOOP_DURATION)?.with_label_values(stream),
            looks: meter.counters(&metrics::CONTROLPLANE_LOOKS)?,
            site: site.clone(),
        };
        for result in ["done", "failed"] {
            quickness.looks.with_label_values(&[site.as_str(), result]);
        }
        Ok(quickness)
    }

    /// Shows what a look at a plane gave.
    pub(crate) fn saw(&self, look: &Look) {
        self.looks.with_label_values(&[self.site.as_str(), "done"]).inc();
        for (histogram, micros) in [
            (&self.api, look.api_micros),
            (&self.commit, look.commit_micros),
            (&self.controllers, look.controller_micros),
        ] {
            if let Some(micros) = micros {
                histogram.observe(micros as f64 / 1e6);
            }
        }
    }

    /// Counts a look that gave nothing.
    pub(crate) fn failed(&self) {
        self.looks.with_label_values(&[self.site.as_str(), "failed"]).inc();
    }
}
