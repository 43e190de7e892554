//! Rows between the turn and the journal.
//!
//! Input and events are JSON, in which a turn of a thousand commands says nearly the same a thousand times. They are
//! stored packed: a row of 1,024 bids takes a fifth of the space, and the database less than half
//! of the processor time. The chain of hashes is over what was packed.

use journal::Row as JournalRow;
use journal::limits::ROW_BYTES_MAX;
use proto::{Machine, StateHash, StreamName, Timestamp};
use turn::{Position, Row};

/// First byte of a packed body: none that a JSON text begins with. Length and an LZ4 block follow.
const PACKED: u8 = 1;
/// Smaller bodies are stored as they are: packing would save no page of the database.
const PACKED_BYTES_MIN: usize = 2 << 10;

/// The name of a machine's stream in the journal.
pub fn journal_stream<M: Machine>(stream: &StreamName) -> String {
    format!("{}.{stream}", M::NAME)
}

/// A row of the journal as the turn knows it.
pub fn turn_row(row: JournalRow) -> Row {
    Row {
        sequence: row.seq,
        at: Timestamp::from_micros(row.at_micros),
        rules: row.rules,
        position: Position { created: row.position_created, sequence: row.position_sequence },
        published: row.published,
        state_hash: StateHash(u128::from_be_bytes(row.state_hash)),
        chain: row.chain,
        input: unpacked(row.input).into(),
        events: unpacked(row.events).into(),
    }
}

/// Makes rows as the journal takes them.
#[derive(Default)]
pub(super) struct Packer {
    /// Used again and again: a row's worst case is large, and what it comes to is small.
    scratch: Vec<u8>,
}

impl Packer {
    pub(super) fn journal_row(&mut self, row: &Row) -> JournalRow {
        JournalRow {
            seq: row.sequence,
            at_micros: row.at.micros(),
            rules: row.rules,
            position_created: row.position.created,
            position_sequence: row.position.sequence,
            published: row.published,
            state_hash: row.state_hash.0.to_be_bytes(),
            chain: row.chain,
            input: self.packed(&row.input),
            events: self.packed(&row.events),
        }
    }

    fn packed(&mut self, body: &[u8]) -> Vec<u8> {
        let Some(length) = u32::try_from(body.len()).ok().filter(|_| body.len() >= PACKED_BYTES_MIN) else {
            return body.to_vec();
        };
        let bytes_max = HEAD_BYTES + lz4_flex::block::get_maximum_output_size(body.len());
        if self.scratch.len() < bytes_max {
            self.scratch.resize(bytes_max, 0);
        }
        match lz4_flex::block::compress_into(body, &mut self.scratch[HEAD_BYTES..]) {
            Ok(bytes) if HEAD_BYTES + bytes < body.len() => {
                self.scratch[0] = PACKED;
                self.scratch[1..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
                self.scratch[..HEAD_BYTES + bytes].to_vec()
            }
            // What does not become smaller, or does not fit where by its own account it must, stays as it is.
            _ => body.to_vec(),
        }
    }
}

/// The mark and the length.
const HEAD_BYTES: usize = 5;

/// What was packed. Bytes that are no packed body are given as they are: damaged ones then fail by their hash.
fn unpacked(body: Vec<u8>) -> Vec<u8> {
    let Some((&[PACKED, a, b, c, d], block)) = body.split_first_chunk::<HEAD_BYTES>() else { return body };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > UNPACKED_BYTES_MAX {
        return body;
    }
    lz4_flex::block::decompress(block, length).unwrap_or(body)
}

/// No turn makes a body as large as this: it bounds what a damaged length makes us allocate.
const UNPACKED_BYTES_MAX: usize = 4 * ROW_BYTES_MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(words in prop::collection::vec("[ -~]{0,12}", 0..2_000), repeat in 1_usize..4) {
            let body = format!("[{}]", words.join(",").repeat(repeat)).into_bytes();
            prop_assert_eq!(unpacked(Packer::default().packed(&body)), body);
        }

        #[test]
        fn damaged_bytes_do_no_harm(body in prop::collection::vec(any::<u8>(), 0..200), length: u32) {
            let mut damaged = vec![PACKED];
            damaged.extend_from_slice(&length.to_le_bytes());
            damaged.extend_from_slice(&body);
            let _ = unpacked(damaged);
            prop_assert!(body.first() == Some(&PACKED) || unpacked(body.clone()) == body);
        }
    }

    #[test]
    fn what_says_the_same_again_is_stored_smaller_and_small_rows_as_they_are() {
        let body = br#"{"type":"PlaceBid","id":"b1"},"#.repeat(200);
        let mut packer = Packer::default();
        let packed = packer.packed(&body);
        assert!(packed.len() < body.len() / 8 && packed[0] == PACKED);
        assert_eq!(packer.packed(&body[..100]), &body[..100]);
        // What a larger body left behind is not taken for a smaller one's.
        assert_eq!(unpacked(packer.packed(&body[..3_000])), &body[..3_000]);
    }
}
