//! Conditions of readiness and pulses of loops.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGaugeVec;
use serde::Serialize;

use crate::telemetry::{Meter, MeterError, metrics};

/// Conditions and pulses of one process, each: a bound on what a probe answers.
pub const CONDITIONS_MAX: usize = 256;

/// Whether this process is alive and ready. Clones are the same.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    begun: Instant,
    ready: IntGaugeVec,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    started: bool,
    conditions: BTreeMap<String, Held>,
    pulses: BTreeMap<String, Beating>,
    /// Tells a condition that was taken up again from the handle of its earlier life.
    lives: u64,
}

struct Held {
    life: u64,
    met: bool,
    detail: String,
    since: Instant,
}

struct Beating {
    life: u64,
    last_milliseconds: Arc<AtomicU64>,
    silence_max: Duration,
}

/// Stands for the last beat of a loop that waits for others: no instant is later.
const RESTING: u64 = u64::MAX;

/// How one condition stands, as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionState {
    /// Its name.
    pub name: String,
    /// Whether it is met.
    pub met: bool,
    /// Why, in words.
    pub detail: String,
    /// How long it has stood so, in whole seconds.
    pub since_seconds: u64,
}

/// How one loop turns, as `/livez` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PulseState {
    /// The loop's name.
    pub name: String,
    /// Whether it has turned within its bound.
    pub alive: bool,
    /// Time since it last turned, in whole seconds.
    pub silent_seconds: u64,
}

impl Health {
    /// No condition yet: not ready before the first one is met.
    ///
    /// # Errors
    /// When the meter does not give the metric.
    pub fn new(meter: &Meter) -> Result<Self, MeterError> {
        let ready = meter.of("process").gauges(&metrics::READY)?;
        let inner = Inner { begun: Instant::now(), ready, state: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes up a condition of readiness: not met until its holder says so, and not met once its holder is gone.
    /// Taking up a name again replaces the earlier holder. Past [`CONDITIONS_MAX`] the condition is not shown.
    pub fn condition(&self, name: impl Into<String>) -> Condition {
        let name = name.into();
        let mut state = self.state();
        state.lives += 1;
        let life = state.lives;
        if state.conditions.len() < CONDITIONS_MAX || state.conditions.contains_key(&name) {
            let held = Held { life, met: false, detail: "starting".to_owned(), since: Instant::now() };
            state.conditions.insert(name.clone(), held);
            self.inner.ready.with_label_values(&[name.as_str()]).set(0);
        } else {
            tracing::warn!(%name, "more than {CONDITIONS_MAX} conditions of readiness");
        }
        drop(state);
        Condition { health: self.clone(), name, life }
    }

    /// Takes up a loop that promises to turn at least every `silence_max`. Its promise ends with the pulse.
    pub fn pulse(&self, name: impl Into<String>, silence_max: Duration) -> Pulse {
        let name = name.into();
        let last_milliseconds = Arc::new(AtomicU64::new(self.milliseconds()));
        let mut state = self.state();
        state.lives += 1;
        let life = state.lives;
        if state.pulses.len() < CONDITIONS_MAX || state.pulses.contains_key(&name) {
            let last_milliseconds = Arc::clone(&last_milliseconds);
            state.pulses.insert(name.clone(), Beating { life, last_milliseconds, silence_max });
        } else {
            tracing::warn!(%name, "more than {CONDITIONS_MAX} loops with a pulse");
        }
        drop(state);
        Pulse { health: self.clone(), name, life, last_milliseconds }
    }

    /// From now on this process is not ready, whatever its conditions say.
    pub fn stop(&self) {
        self.state().stopping = true;
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Whether every condition is met, there is at least one, and nobody said stop.
    pub fn is_ready(&self) -> bool {
        ready(&self.state())
    }

    /// Whether it was ready once. A process that was ready and is not any more has started nevertheless.
    pub fn has_started(&self) -> bool {
        self.state().started
    }

    /// Whether every loop turns.
    pub fn is_alive(&self) -> bool {
        self.pulses().iter().all(|pulse| pulse.alive)
    }

    /// Every condition, by name.
    pub fn conditions(&self) -> Vec<ConditionState> {
        let state = self.state();
        let show = |(name, held): (&String, &Held)| ConditionState {
            name: name.clone(),
            met: held.met,
            detail: held.detail.clone(),
            since_seconds: held.since.elapsed().as_secs(),
        };
        state.conditions.iter().map(show).collect()
    }

    /// Every loop, by name.
    pub fn pulses(&self) -> Vec<PulseState> {
        let now = self.milliseconds();
        let show = |(name, beating): (&String, &Beating)| {
            let silent = now.saturating_sub(beating.last_milliseconds.load(Ordering::Relaxed));
            let silent = Duration::from_millis(silent);
            PulseState {
                name: name.clone(),
                alive: silent <= beating.silence_max,
                silent_seconds: silent.as_secs(),
            }
        };
        self.state().pulses.iter().map(show).collect()
    }

    fn set(&self, name: &str, life: u64, met: bool, detail: String) {
        let mut state = self.state();
        let Some(held) = state.conditions.get_mut(name).filter(|held| held.life == life) else { return };
        if held.met != met {
            held.since = Instant::now();
            self.inner.ready.with_label_values(&[name]).set(i64::from(met));
        }
        held.met = met;
        held.detail = detail;
        if ready(&state) {
            state.started = true;
        }
    }

    fn milliseconds(&self) -> u64 {
        self.inner.begun.elapsed().as_millis() as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready(state: &State) -> bool {
    !state.stopping && !state.conditions.is_empty() && state.conditions.values().all(|held| held.met)
}

impl std::fmt::Debug for Health {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Health").field("conditions", &self.conditions()).finish_non_exhaustive()
    }
}

/// One condition of readiness, held by whoever knows whether it is met.
#[derive(Debug)]
pub struct Condition {
    health: Health,
    name: String,
    life: u64,
}

impl Condition {
    /// It is met; `detail` says in which way, such as `held` or `standby`.
    pub fn met(&self, detail: impl Into<String>) {
        self.health.set(&self.name, self.life, true, detail.into());
    }

    /// It is not met, and why.
    pub fn unmet(&self, why: impl Into<String>) {
        self.health.set(&self.name, self.life, false, why.into());
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.unmet("whoever watched over it has ended");
    }
}

/// The promise of one loop to turn.
#[derive(Debug)]
pub struct Pulse {
    health: Health,
    name: String,
    life: u64,
    last_milliseconds: Arc<AtomicU64>,
}

impl Pulse {
    /// The loop has turned. Costs a clock reading and a store.
    pub fn beat(&self) {
        self.last_milliseconds.store(self.health.milliseconds(), Ordering::Relaxed);
    }

    /// The loop waits for others, and may be silent for as long as they take: until its next beat it is alive.
    pub fn rest(&self) {
        self.last_milliseconds.store(RESTING, Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let mut state = self.health.state();
        if state.pulses.get(&self.name).is_some_and(|beating| beating.life == self.life) {
            state.pulses.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(&Meter::new("market").unwrap()).unwrap()
    }

    #[test]
    fn ready_is_all_conditions_met_and_at_least_one() {
        let health = health();
        assert!(!health.is_ready(), "nothing is known yet");
        let (bus, claim) = (health.condition("bus"), health.condition("claim"));
        bus.met("connected");
        assert!(!health.is_ready() && !health.has_started());
        claim.met("standby");
        assert!(health.is_ready() && health.has_started());
        bus.unmet("connection lost");
        assert!(!health.is_ready() && health.has_started());
        bus.met("connected");
        health.stop();
        assert!(!health.is_ready(), "stopping is not ready");
    }

    #[test]
    fn a_condition_without_its_holder_is_not_met() {
        let health = health();
        let bus = health.condition("bus");
        bus.met("connected");
        drop(bus);
        assert!(!health.is_ready());
        assert_eq!(health.conditions()[0].detail, "whoever watched over it has ended");
    }

    #[test]
    fn an_earlier_holder_cannot_speak_for_a_later_one() {
        let health = health();
        let old = health.condition("bus");
        let new = health.condition("bus");
        new.met("connected");
        old.unmet("late word of a task that was replaced");
        drop(old);
        assert!(health.is_ready());
    }

    #[test]
    fn a_silent_loop_is_not_alive() {
        let health = health();
        let quick = health.pulse("quick", Duration::from_hours(1));
        let silent = health.pulse("silent", Duration::ZERO);
        // No time need pass to be silent for longer than nothing: one millisecond does, and it will.
        let patience = Instant::now() + Duration::from_secs(10);
        while health.is_alive() && Instant::now() < patience {
            std::hint::spin_loop();
        }
        assert!(!health.is_alive());
        let pulses = health.pulses();
        assert_eq!((pulses[0].name.as_str(), pulses[0].alive), ("quick", true));
        assert_eq!((pulses[1].name.as_str(), pulses[1].alive), ("silent", false));
        silent.rest();
        assert!(health.is_alive(), "who waits for others is not silent");
        silent.beat();
        while health.is_alive() && Instant::now() < patience {
            std::hint::spin_loop();
        }
        assert!(!health.is_alive(), "its work has begun again");
        drop(silent);
        quick.beat();
        assert!(health.is_alive(), "a promise ends with its loop");
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let health = health();
        let held: Vec<Condition> =
            (0..=CONDITIONS_MAX).map(|index| health.condition(format!("c{index}"))).collect();
        assert_eq!(health.conditions().len(), CONDITIONS_MAX);
        for condition in &held {
            condition.met("yes");
        }
        assert!(health.is_ready());
    }
}
