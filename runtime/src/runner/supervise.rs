//! The life of a runner: stand by, claim, run, step down, begin again.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use journal::{Journal, Owner};
use proto::StreamName;

use super::counts::Shown;
use super::{Clock, Context, Ended, Runnable, View, claim, journal_stream, pipeline};
use crate::admin::{Condition, Health};
use crate::bus::Bus;
use crate::config::RunnerSettings;
use crate::shell::Stop;
use crate::telemetry::{Meter, MeterError};

/// Pause before a first reload; it doubles up to [`RELOAD_PAUSE_MAX`] while nothing was committed in between.
const RELOAD_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between reloads.
const RELOAD_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the decisions of one turn may take before the process counts as stuck. A turn takes milliseconds.
const DECISIONS_MAX: Duration = Duration::from_mins(1);
/// A clock that stepped has this long to step back before it is believed.
const CLOCK_PAUSE: Duration = Duration::from_mins(1);

/// Why a runner could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A metric could not be registered.
    #[error(transparent)]
    Meter(#[from] MeterError),
}

/// Runs one stream of machine `M`, answering questions from view `V`.
pub struct Runner<M: Runnable, V: View<M>> {
    context: Context,
    health: Option<Health>,
    of: PhantomData<fn() -> (M, V)>,
}

impl<M: Runnable, V: View<M>> Runner<M, V> {
    /// A runner for `stream` in the name of `owner`, which no other process shares. The broker's streams must
    /// be there.
    ///
    /// # Errors
    /// When its metrics are not declared for the meter's service.
    pub fn new(
        bus: &Bus,
        journal: &Journal,
        stream: StreamName,
        owner: Owner,
        settings: RunnerSettings,
        meter: &Meter,
    ) -> Result<Self, RunnerError> {
        let shown = Shown::new(meter, stream.as_str())?;
        let context = Context {
            bus: bus.clone(),
            journal: journal.clone(),
            owner,
            journal_stream: journal_stream::<M>(&stream).into(),
            stream,
            settings: Arc::new(settings),
            clock: Clock::system(),
            shown,
            meter: meter.clone(),
            pulse: None,
        };
        Ok(Self { context, health: None, of: PhantomData })
    }

    /// Tells `health` whether the stream is run, here or by another, and whether each turn's decisions end within
    /// [`DECISIONS_MAX`].
    #[must_use]
    pub fn with_health(mut self, health: Health) -> Self {
        let pulse = health.pulse(format!("decisions of {}", self.context.journal_stream), DECISIONS_MAX);
        pulse.rest();
        self.context.pulse = Some(Arc::new(pulse));
        self.health = Some(health);
        self
    }

    /// Uses another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.context.clock = clock;
        self
    }

    /// Runs until it is told to stop: whatever ends a pipeline, another begins. A broken invariant or a damaged
    /// journal stops the stream for good: it stands still, and says so, until somebody looks.
    pub async fn run(self, mut stop: Stop) {
        let name = format!("{} runner", self.context.journal_stream);
        let condition = self.health.as_ref().map(|health| health.condition(name));
        let condition = Readiness(condition);
        let mut pause = RELOAD_PAUSE_MIN;
        while !stop.is_requested() {
            if !self.claim(&condition, &mut stop).await {
                break;
            }
            self.context.shown.claim.set(1);
            condition.unmet("claim held, reading the journal");
            // A clock of its own: what it compares with begins now.
            let context = self.context.clone();
            let before = context.shown.applied.get();
            let loaded = || condition.met("claim held");
            let ended = pipeline::run::<M, V>(&context, &stop, loaded).await;
            self.context.shown.claim.set(0);
            let Err(ended) = ended else { break };
            if context.shown.applied.get() > before {
                pause = RELOAD_PAUSE_MIN;
            }
            let wait = self.after(&ended, &condition, pause).await;
            pause = (pause * 2).min(RELOAD_PAUSE_MAX);
            tokio::select! {
                () = wait_for(wait) => {}
                () = stop.requested() => break,
            }
        }
        self.release().await;
    }

    /// Waits for the claim. False: told to stop.
    async fn claim(&self, condition: &Readiness, stop: &mut Stop) -> bool {
        loop {
            match claim::take(&self.context).await {
                Ok(Ok(generation)) => {
                    tracing::info!(stream = %self.context.stream, generation, "claimed");
                    return true;
                }
                Ok(Err(owner)) => condition.met(&format!("standing by, run by {owner}")),
                Err(error) => {
                    condition.unmet(&format!("the journal does not answer: {error}"));
                    tracing::warn!(stream = %self.context.stream, "not claimed: {error}");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(claim::pause(&self.context)) => {}
                () = stop.requested() => return false,
            }
        }
    }

    /// Says why a pipeline ended, and how long to wait before the next; `None`: for ever.
    async fn after(&self, ended: &Ended, condition: &Readiness, pause: Duration) -> Option<Duration> {
        let (shown, stream) = (&self.context.shown, &self.context.stream);
        let why = chain(ended);
        condition.unmet(&why);
        match ended {
            Ended::Fenced { .. } | Ended::ClaimLost { .. } => {
                if matches!(ended, Ended::Fenced { .. }) {
                    shown.fenced.inc();
                }
                tracing::warn!(%stream, "stepping down: {why}");
                Some(pause)
            }
            Ended::Clock(_) => {
                shown.clock_steps.inc();
                tracing::error!(%stream, "stepping down: {why}");
                self.release().await;
                Some(CLOCK_PAUSE)
            }
            Ended::Broken(_) => {
                shown.broken.inc();
                tracing::error!(%stream, "the stream stands still: {why}");
                None
            }
            Ended::Load(error) if !error.may_pass() => {
                shown.broken.inc();
                tracing::error!(%stream, "the stream stands still: {why}");
                None
            }
            Ended::Commit { .. } => {
                shown.journal_failures.inc();
                shown.reloads.inc();
                tracing::error!(%stream, "everything since the last commit is dropped and loaded again: {why}");
                Some(pause)
            }
            Ended::Load(_) | Ended::Publish { .. } | Ended::Index { .. } | Ended::Gone { .. } => {
                shown.reloads.inc();
                tracing::error!(%stream, "loading again: {why}");
                Some(pause)
            }
        }
    }

    async fn release(&self) {
        let released = self.context.journal.release(&self.context.journal_stream, &self.context.owner).await;
        if let Err(error) = released {
            tracing::warn!(stream = %self.context.stream, "the claim is not released and runs out by itself: {error}");
        }
    }
}

async fn wait_for(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// An error and what it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

/// The condition of readiness, if anybody asks for one.
struct Readiness(Option<Condition>);

impl Readiness {
    fn met(&self, detail: &str) {
        if let Some(condition) = &self.0 {
            condition.met(detail);
        }
    }

    fn unmet(&self, why: &str) {
        if let Some(condition) = &self.0 {
            condition.unmet(why);
        }
    }
}
