//! What happens when bytes come faster than an endpoint takes them.
//!
//! All connections of a stream share its one flow control, so there are three things to do with bytes that an
//! endpoint does not take: keep them, stop the stream and with it everybody else, or give the connection up. Up to
//! a bound they are kept. Past it the stream is held, but never longer than [`crate::Limits::patience`] at a time,
//! and only for an endpoint that takes [`crate::Limits::progress_bytes`] in that time: an upload that is slower
//! than the tunnel goes on at its own speed. An endpoint that takes less is given up, so that it cannot stall the
//! others for longer than that once.

use std::time::Duration;

use super::{Action, Closing, Tunnel};

/// The stream is held for the sake of one connection.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: i64,
    pub(super) until: Duration,
    /// What waited for its endpoint in the beginning, in bytes.
    pub(super) bytes: usize,
}

impl Tunnel {
    /// After bytes were added to a connection.
    pub(super) fn hold_if_over(&mut self, now: Duration, id: i64) {
        let Some(victim) = self.over(Some(id)) else { return };
        if self.held.is_some() {
            // Somebody passes packets on all the same; the bound holds all the same.
            self.give_up(now, victim);
        } else {
            self.hold(now, victim);
        }
    }

    /// After bytes went away.
    pub(super) fn release_if_under(&mut self) {
        let Some(held) = &self.held else { return };
        let progress = self.limits.progress_bytes;
        let own = self.connections.get(&held.id).map_or(0, |connection| connection.inbound.bytes());
        let own_under = own <= self.limits.endpoint_bytes.saturating_sub(progress);
        let all_under = self.inbound_bytes <= self.limits.inbound_bytes.saturating_sub(progress);
        if own_under && all_under {
            self.held = None;
            self.actions.push_back(Action::Resume);
        }
    }

    /// Whether the patience with the endpoint for which the stream is held ended.
    pub(super) fn patience_ended(&mut self, now: Duration) {
        let Some(held) = self.held.take_if(|held| held.until <= now) else { return };
        let bytes = self.connections.get(&held.id).map_or(0, |connection| connection.inbound.bytes());
        if held.bytes.saturating_sub(bytes) < self.limits.progress_bytes {
            self.give_up(now, held.id);
        }
        match self.over(None) {
            Some(victim) => self.hold(now, victim),
            None => self.actions.push_back(Action::Resume),
        }
    }

    fn hold(&mut self, now: Duration, victim: i64) {
        let bytes = self.connections.get(&victim).map_or(0, |connection| connection.inbound.bytes());
        self.held = Some(Held { id: victim, until: now + self.limits.patience, bytes });
    }

    /// Whose fault it is that too much waits, if too much does: the connection that is past its own bound (only
    /// `last` can be, since the others were looked at before), else the one with the most.
    fn over(&self, last: Option<i64>) -> Option<i64> {
        let own = |id: &i64| self.connections.get(id).map_or(0, |connection| connection.inbound.bytes());
        if let Some(id) = last.filter(|id| own(id) > self.limits.endpoint_bytes) {
            return Some(id);
        }
        if self.inbound_bytes <= self.limits.inbound_bytes {
            return None;
        }
        let most = self.connections.iter().max_by_key(|(_, connection)| connection.inbound.bytes());
        most.map(|(id, _)| *id)
    }

    fn give_up(&mut self, now: Duration, id: i64) {
        self.counts.slow += 1;
        self.abort(now, id, Closing::GiveUp, "the endpoint takes data too slowly");
    }
}
