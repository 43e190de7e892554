//! How tasks learn that they are to stop.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::stage::Stage;

/// One switch per stage.
pub(super) struct Switches([(Stage, watch::Sender<bool>); 5]);

impl Switches {
    pub(super) fn new() -> Self {
        Self(Stage::ORDER.map(|stage| (stage, watch::Sender::new(false))))
    }

    pub(super) fn stop(&self, stage: Stage) -> Stop {
        let found = self.0.iter().find(|(one, _)| *one == stage);
        // Every stage is in the order; one that were not would stop at once instead of never.
        Stop(found.map_or_else(|| watch::channel(true).1, |(_, switch)| switch.subscribe()))
    }

    pub(super) fn stop_stage(&self, stage: Stage) {
        for (_, switch) in self.0.iter().filter(|(one, _)| *one == stage) {
            switch.send_replace(true);
        }
    }
}

/// Tells a task when to stop. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// One that never asks, for what runs outside a shell. It asks when the sender is dropped or sends true.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits until it is time to stop. Safe to be dropped and called again.
    pub async fn requested(&mut self) {
        // An error means that the shell itself is gone, which is a reason to stop as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// The same as a future of its own.
    pub async fn into_requested(mut self) {
        self.requested().await;
    }

    /// Whether it is time to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Stops a shell, as a signal would.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Notify>);

impl Stopper {
    pub(super) fn new(asked: Arc<Notify>) -> Self {
        Self(asked)
    }

    /// Stops all, in order.
    pub fn stop(&self) {
        // Kept for the shell even where it is not waiting yet.
        self.0.notify_one();
    }
}
