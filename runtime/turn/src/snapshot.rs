//! The whole turn as bytes, and back. The bytes are a pure function of the rows taken in, whatever was read,
//! published or indexed beside them.

use proto::machine::{CommandKey, RestoreError};
use proto::{Machine, StateHash, StreamName, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::answers::{Answered, Answers, Locator};
use crate::delivery::Position;
use crate::work::{Head, Settings, Turn};

/// Layout of what is around the machine's own snapshot.
const LAYOUT: u32 = 1;
/// Bytes of one recorded answer.
const ANSWER_BYTES: usize = 32;
/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;

/// What stands before the answers and the machine.
#[derive(Serialize, Deserialize)]
struct Preamble {
    machine: String,
    stream: String,
    sequence: u64,
    at: i64,
    position: (i64, u64),
    published: u64,
    chain: [u8; 32],
    state_hash: u128,
    recorded: u64,
    answers_kept: u64,
    answers: u64,
}

impl<M: Machine> Turn<M> {
    /// Version of the snapshots of this build: a snapshot of another version is not read.
    pub const SNAPSHOT: u32 = LAYOUT << 16 | M::SNAPSHOT;

    /// The whole state. Equal rows give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let machine = self.machine.snapshot();
        let answers = self.answers.newest().count();
        let preamble = Preamble {
            machine: M::NAME.to_owned(),
            stream: self.stream.to_string(),
            sequence: self.head.sequence,
            at: self.head.at.micros(),
            position: (self.head.position.created, self.head.position.sequence),
            published: self.head.published,
            chain: self.head.chain,
            state_hash: self.machine.hash().0,
            recorded: self.answers.recorded(),
            answers_kept: self.answers.kept() as u64,
            answers: answers as u64,
        };
        // Plain data written to memory.
        let mut bytes = postcard::to_stdvec(&preamble).unwrap_or_default();
        bytes.reserve_exact(answers * ANSWER_BYTES + machine.len() + HASH_BYTES);
        for answered in self.answers.newest() {
            bytes.extend_from_slice(&answered.key.0.to_le_bytes());
            bytes.extend_from_slice(&answered.digest.to_le_bytes());
            bytes.extend_from_slice(&answered.locator.bits().to_le_bytes());
        }
        bytes.extend_from_slice(&machine);
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// The state a snapshot holds.
    ///
    /// # Errors
    /// When the bytes are damaged, of another machine or stream, or do not give the state they were made of.
    pub fn restore(stream: StreamName, settings: Settings, bytes: &[u8]) -> Result<Self, RestoreError> {
        let unreadable = |problem: &str| RestoreError::Unreadable { problem: problem.to_owned() };
        let Some((body, hash)) = bytes.split_last_chunk::<HASH_BYTES>() else {
            return Err(unreadable("it is too short"));
        };
        if Sha256::digest(body).as_slice() != hash {
            return Err(RestoreError::Hash);
        }
        let (preamble, rest): (Preamble, _) =
            postcard::take_from_bytes(body).map_err(|error| unreadable(&error.to_string()))?;
        if preamble.machine != M::NAME || preamble.stream != stream.as_str() {
            return Err(unreadable(&format!("it is of {}, stream {}", preamble.machine, preamble.stream)));
        }
        // Another number kept than now is no problem: what memory lacks, the index holds.
        let answers_bytes =
            usize::try_from(preamble.answers).ok().and_then(|it| it.checked_mul(ANSWER_BYTES));
        let Some((answers, machine)) = answers_bytes.and_then(|length| rest.split_at_checked(length)) else {
            return Err(unreadable("its answers end too early"));
        };
        let newest = answers.as_chunks::<ANSWER_BYTES>().0.iter().map(answered).collect();
        let machine = M::restore(&stream, machine)?;
        if machine.hash() != StateHash(preamble.state_hash) {
            return Err(RestoreError::Hash);
        }
        let head = Head {
            sequence: preamble.sequence,
            at: Timestamp::from_micros(preamble.at),
            position: Position { created: preamble.position.0, sequence: preamble.position.1 },
            published: preamble.published,
            chain: preamble.chain,
        };
        let answers = Answers::restore(settings.answers_kept, preamble.recorded, newest);
        Ok(Self::with(machine, stream, answers, head))
    }
}

fn answered(bytes: &[u8; ANSWER_BYTES]) -> Answered {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    Answered {
        key: CommandKey(u128::from(word(8)) << 64 | u128::from(word(0))),
        digest: word(16),
        locator: Locator::from_bits(word(24)),
    }
}
