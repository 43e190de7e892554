//! What a runner shows of itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use turn::Counts;

use super::progress::Progress;
use crate::telemetry::{Meter, MeterError, metrics};

/// The metrics of one stream's runner.
pub(super) struct Shown {
    pub(super) applied: IntGauge,
    pub(super) input: IntGauge,
    pub(super) turns: IntCounter,
    pub(super) turn_commands: Histogram,
    pub(super) step: Histogram,
    pub(super) commit: Histogram,
    pub(super) journal_failures: IntCounter,
    pub(super) reloads: IntCounter,
    pub(super) load: Gauge,
    pub(super) fenced: IntCounter,
    pub(super) claim: IntGauge,
    pub(super) regressions: IntCounter,
    pub(super) clock_steps: IntCounter,
    pub(super) broken: IntCounter,
    pub(super) publish: Histogram,
    pub(super) publish_refused: IntCounter,
    pub(super) publish_ambiguous: IntCounter,
    pub(super) follower_lag: IntGauge,
    pub(super) snapshot: IntGauge,
    pub(super) snapshot_failures: IntCounter,
    commands: [IntCounter; 4],
    malformed: [IntCounter; 3],
    live: Mutex<Live>,
}

/// What is looked at when metrics are shown.
#[derive(Default)]
struct Live {
    progress: Option<Arc<Progress>>,
    /// When the oldest messages that wait to be decided were read.
    waiting_since: Option<Instant>,
}

impl Shown {
    pub(super) fn new(meter: &Meter, stream: &str) -> Result<Arc<Self>, MeterError> {
        let stream = &[stream][..];
        let labelled = |second: &'static str| [stream[0], second];
        let count = |metric| Ok::<_, MeterError>(meter.counters(metric)?.with_label_values(stream));
        let counts = |metric, second| {
            Ok::<_, MeterError>(meter.counters(metric)?.with_label_values(&labelled(second)))
        };
        let gauge = |metric| Ok::<_, MeterError>(meter.gauges(metric)?.with_label_values(stream));
        let decimal = |metric| Ok::<_, MeterError>(meter.decimals(metric)?.with_label_values(stream));
        let time = |metric| Ok::<_, MeterError>(meter.histograms(metric)?.with_label_values(stream));
        let commands = |result| counts(&metrics::COMMANDS, result);
        let malformed = |reason| counts(&metrics::MALFORMED, reason);
        let shown = Arc::new(Self {
            applied: gauge(&metrics::APPLIED_SEQUENCE)?,
            input: gauge(&metrics::INPUT_SEQUENCE)?,
            turns: count(&metrics::TURNS)?,
            turn_commands: time(&metrics::TURN_COMMANDS)?,
            step: time(&metrics::STEP_DURATION)?,
            commit: time(&metrics::JOURNAL_COMMIT_DURATION)?,
            journal_failures: count(&metrics::JOURNAL_FAILURES)?,
            reloads: count(&metrics::RELOADS)?,
            load: decimal(&metrics::LOAD_DURATION)?,
            fenced: count(&metrics::FENCED)?,
            claim: gauge(&metrics::CLAIM_HELD)?,
            regressions: count(&metrics::STREAM_REGRESSIONS)?,
            clock_steps: count(&metrics::CLOCK_STEPS)?,
            broken: count(&metrics::INVARIANTS_BROKEN)?,
            publish: time(&metrics::PUBLISH_DURATION)?,
            publish_refused: counts(&metrics::PUBLISH_ERRORS, "refused")?,
            publish_ambiguous: counts(&metrics::PUBLISH_ERRORS, "ambiguous")?,
            follower_lag: gauge(&metrics::FOLLOWER_LAG_ROWS)?,
            snapshot: gauge(&metrics::SNAPSHOT_SEQUENCE)?,
            snapshot_failures: count(&metrics::SNAPSHOT_FAILURES)?,
            commands: [
                commands("accepted")?,
                commands("refused")?,
                commands("repeated")?,
                commands("conflicting")?,
            ],
            malformed: [malformed("malformed")?, malformed("too-large")?, malformed("misdirected")?],
            live: Mutex::default(),
        });
        let rows = gauge(&metrics::UNPUBLISHED_ROWS)?;
        let rows_age = decimal(&metrics::UNPUBLISHED_LAG)?;
        let input_age = decimal(&metrics::INPUT_LAG)?;
        let looked_at = Arc::clone(&shown);
        meter.before_showing(move || {
            let live = looked_at.live.lock().unwrap_or_else(PoisonError::into_inner);
            let (count, age) = live.progress.as_ref().map_or((0, 0.0), |progress| progress.unpublished());
            rows.set(count as i64);
            rows_age.set(age);
            input_age.set(live.waiting_since.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        });
        Ok(shown)
    }

    /// A pipeline begins, or ends.
    pub(super) fn watch(&self, progress: Option<Arc<Progress>>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Live { progress, waiting_since: None };
    }

    /// Messages read at this instant wait to be decided; `None`: none waits.
    pub(super) fn waiting(&self, since: Option<Instant>) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).waiting_since = since;
    }

    /// A turn took `taken`.
    pub(super) fn turned(&self, counts: &Counts, taken: Duration) {
        self.step.observe(taken.as_secs_f64());
        if counts.decided > 0 {
            self.turn_commands.observe(counts.decided as f64);
        }
        let commands = [counts.decided - counts.refused, counts.refused, counts.repeated, counts.conflicts];
        let malformed = [counts.malformed, counts.too_large, counts.misdirected];
        for (counter, count) in self.commands.iter().zip(commands).chain(self.malformed.iter().zip(malformed))
        {
            counter.inc_by(count);
        }
    }
}
