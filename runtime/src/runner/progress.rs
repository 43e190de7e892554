//! How far what was committed is known to be published, shared by the stages.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use turn::Token;

/// Rows whose commit instant is remembered, for the age of the oldest unpublished one. Further ones count as
/// committed when the last of these was.
const REMEMBERED_ROWS_MAX: usize = 4_096;

/// Shared by the stages of one pipeline.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    committed: u64,
    /// Up to which row answers and orders are published.
    answers: u64,
    /// Up to which row events are published.
    events: u64,
    token: Token,
    unpublished: VecDeque<(u64, Instant)>,
}

impl State {
    fn published(&self) -> u64 {
        self.answers.min(self.events)
    }
}

impl Progress {
    /// Of a stream that was loaded, of which all rows up to `published` are known to be published.
    pub(super) fn new(committed: u64, published: u64) -> Self {
        let progress = Self::default();
        {
            let mut state = progress.state();
            (state.committed, state.answers, state.events) = (committed, published, published);
            if published < committed {
                state.unpublished.push_back((committed, Instant::now()));
            }
        }
        progress
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn committed(&self, sequence: u64) {
        let mut state = self.state();
        state.committed = sequence;
        if state.unpublished.len() < REMEMBERED_ROWS_MAX {
            state.unpublished.push_back((sequence, Instant::now()));
        }
    }

    pub(super) fn answers_published(&self, sequence: Option<u64>, token: Option<Token>) {
        let mut state = self.state();
        state.answers = state.answers.max(sequence.unwrap_or(0));
        state.token = state.token.max(token.unwrap_or_default());
        self.settle(state);
    }

    pub(super) fn events_published(&self, sequence: u64) {
        let mut state = self.state();
        state.events = state.events.max(sequence);
        self.settle(state);
    }

    fn settle(&self, mut state: MutexGuard<'_, State>) {
        let published = state.published();
        while state.unpublished.front().is_some_and(|(sequence, _)| *sequence <= published) {
            state.unpublished.pop_front();
        }
        drop(state);
        self.moved.notify_waiters();
    }

    /// Up to which row everything is published, and up to which turn everybody was answered.
    pub(super) fn told(&self) -> (u64, Token) {
        let state = self.state();
        (state.published(), state.token)
    }

    /// How many committed rows are not known to be published, and since how many seconds the oldest is not.
    pub(super) fn unpublished(&self) -> (u64, f64) {
        let state = self.state();
        let age = state.unpublished.front().map_or(0.0, |(_, since)| since.elapsed().as_secs_f64());
        (state.committed - state.published().min(state.committed), age)
    }

    /// Waits until all turns up to `token` are answered, and at most `untold_max` rows up to `sequence` wait for
    /// their events.
    pub(super) async fn has_room(&self, token: Token, sequence: u64, untold_max: u64) {
        self.reaches(sequence.saturating_sub(untold_max), token).await;
    }

    /// Waits until everything up to `sequence` and `token` is published.
    pub(super) async fn reaches(&self, sequence: u64, token: Token) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Registered before looking, so that a change between looking and waiting is not missed.
            moved.as_mut().enable();
            let told = self.told();
            if told.0 >= sequence && told.1 >= token {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn there_is_room_when_all_are_answered_and_few_events_are_not_out() {
        let progress = Progress::new(10, 10);
        let has_room = |sequence| progress.has_room(Token::default(), sequence, 1).now_or_never().is_some();
        assert!(has_room(10) && has_room(11));
        progress.committed(12);
        assert!(!has_room(12));
        progress.answers_published(Some(12), None);
        // Events of two rows are not out.
        assert!(!has_room(12));
        progress.events_published(11);
        assert!(has_room(12) && !has_room(13));
    }
}
