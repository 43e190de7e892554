//! The service's metrics.

use controlplane::{Change, Kind, Phase, PlaneState};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use runtime::telemetry::{Meter, MeterError, metrics};

use crate::write::WriteError;

/// What one reconciler tells.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
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
    pub(crate) fn new(meter: &Meter) -> Result<Self, MeterError> {
        Ok(Self {
            caught_up: meter.gauge(&metrics::CONTROLPLANE_CAUGHT_UP)?,
            objects: meter.gauge(&metrics::CONTROLPLANE_OBJECTS)?,
            diff: meter.histogram(&metrics::CONTROLPLANE_DIFF)?,
            planes: meter.gauges(&metrics::CONTROLPLANE_PLANES)?,
            notes: meter.gauges(&metrics::CONTROLPLANE_HELD_BACK)?,
            writes: meter.counters(&metrics::CONTROLPLANE_WRITES)?,
            watch_failures: meter.counters(&metrics::CONTROLPLANE_WATCH_FAILURES)?,
            unreadable: meter.counter(&metrics::CONTROLPLANE_UNREADABLE)?,
        })
    }

    pub(crate) fn watch_failures(&self, kind: Kind) -> IntCounter {
        self.watch_failures.with_label_values(&[kind.names().3])
    }

    pub(crate) fn wrote(&self, change: &Change, result: Result<(), &WriteError>) {
        let result = result.map_or_else(WriteError::word, |()| "done");
        self.writes.with_label_values(&[change.verb(), change.subject().0.names().3, result]).inc();
    }

    /// Counts a plane under its state instead of the one before.
    pub(crate) fn change(&self, before: Option<&PlaneState>, after: Option<&PlaneState>) {
        for (state, by) in [(before, -1), (after, 1)] {
            let Some(state) = state else { continue };
            self.planes.with_label_values(&[state.phase.word()]).add(by);
            for note in &state.notes {
                self.notes.with_label_values(&[note.reason.word()]).add(by);
            }
        }
    }

    /// Shows every phase from the beginning, also those that no plane is in.
    pub(crate) fn begin(&self) {
        for phase in Phase::ALL {
            self.planes.with_label_values(&[phase.word()]).set(0);
        }
    }
}
