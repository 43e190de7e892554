//! What one turn makes durable.

use bytes::Bytes;
use proto::{StateHash, Timestamp};
use sha2::{Digest, Sha256};

use crate::delivery::Position;

/// One row of a stream's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Place in the stream, counted from 1, without gaps.
    pub sequence: u64,
    /// The turn's instant; never decreases.
    pub at: Timestamp,
    /// Version of the rules that decided.
    pub rules: u32,
    /// How far into the input everything is decided and answered: reading goes on behind it.
    pub position: Position,
    /// Up to which row everything was known to be published when this one was written.
    pub published: u64,
    /// Hash of the machine's state after the turn.
    pub state_hash: StateHash,
    /// SHA-256 of the previous row's chain and everything in this row.
    pub chain: [u8; 32],
    /// What was decided: JSON, messages as they came and wakes, in order.
    pub input: Bytes,
    /// What followed: JSON of a [`proto::envelope::EventBatch`], as it is published.
    pub events: Bytes,
}

impl Row {
    /// What `chain` must be after `previous`. Every field is in it, each with its length or of fixed length.
    pub fn link(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(previous);
        hasher.update(self.sequence.to_le_bytes());
        hasher.update(self.at.micros().to_le_bytes());
        hasher.update(self.rules.to_le_bytes());
        hasher.update(self.position.created.to_le_bytes());
        hasher.update(self.position.sequence.to_le_bytes());
        hasher.update(self.published.to_le_bytes());
        hasher.update(self.state_hash.0.to_le_bytes());
        hasher.update((self.input.len() as u64).to_le_bytes());
        hasher.update(&self.input);
        hasher.update((self.events.len() as u64).to_le_bytes());
        hasher.update(&self.events);
        hasher.finalize().into()
    }

    /// Bytes of its input and events.
    pub fn bytes(&self) -> usize {
        self.input.len() + self.events.len()
    }
}
