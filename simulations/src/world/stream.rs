//! A stream of the bus as the simulated world has it.

use bytes::Bytes;
use turn::{Delivery, Position};

/// One stream: it keeps order, forgets what was purged, and can be created anew.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    created: i64,
    first: u64,
    messages: Vec<(String, Bytes)>,
}

impl Stream {
    pub(super) fn new(created: i64) -> Self {
        Self { created, first: 1, messages: Vec::new() }
    }

    pub(super) fn created(&self) -> i64 {
        self.created
    }

    pub(super) fn publish(&mut self, subject: &str, payload: Bytes) {
        self.messages.push((subject.to_owned(), payload));
    }

    /// At most so many messages behind `after`.
    pub(super) fn read(&self, after: u64, most: usize) -> Vec<Delivery> {
        let skip = (after + 1).saturating_sub(self.first) as usize;
        let start = (after + 1).max(self.first);
        let found = self.messages.iter().skip(skip).take(most).zip(start..);
        found
            .map(|((subject, payload), sequence)| Delivery {
                subject: subject.clone(),
                position: Position { created: self.created, sequence },
                payload: payload.clone(),
            })
            .collect()
    }

    pub(super) fn purge(&mut self, through: u64) {
        let gone = (through + 1).saturating_sub(self.first).min(self.messages.len() as u64);
        self.messages.drain(..gone as usize);
        self.first += gone;
    }
}
