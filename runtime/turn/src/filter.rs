//! Whether an id may have been used long ago: a blocked Bloom filter (Putze, Sanders, Singler: Cache-, Hash- and
//! Space-Efficient Bloom Filters, 2007), grown by segments of doubling size.
//!
//! It says "never" or "maybe". On "maybe" the driver asks the journal's index. Each segment costs one cache line
//! per question, and there are few segments because each is as large as all before it together.

use proto::machine::CommandKey;

/// Keys the first segment holds.
const FIRST_KEYS: usize = 1 << 14;
/// Bits of a block: one cache line.
const BLOCK_BITS: u32 = 512;
/// Bits spent on each key. With 8 marks in a block of 512, about one new key in 10,000 is taken for an old one by
/// each segment, and each such question to the journal's index holds a turn up.
const KEY_BITS: usize = 24;
/// Marks set for each key.
const MARKS: u32 = 8;

type Block = [u64; (BLOCK_BITS / 64) as usize];

/// The set of all keys in the index of old answers, with one-sided errors.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    segments: Vec<Segment>,
    keys: u64,
}

#[derive(Clone, Debug)]
struct Segment {
    blocks: Vec<Block>,
    room: usize,
}

impl Filter {
    /// Adds a key.
    pub fn add(&mut self, key: CommandKey) {
        if self.segments.last().is_none_or(|segment| segment.room == 0) {
            let keys = FIRST_KEYS << self.segments.len();
            let blocks = keys * KEY_BITS / BLOCK_BITS as usize;
            self.segments.push(Segment { blocks: vec![[0; 8]; blocks], room: keys });
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.room -= 1;
            let block = block_of(key, segment.blocks.len());
            for bit in marks(key) {
                segment.blocks[block][(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        self.keys += 1;
    }

    /// Whether the key may have been added. Always true for one that was.
    pub fn may_hold(&self, key: CommandKey) -> bool {
        self.segments.iter().any(|segment| {
            let block = &segment.blocks[block_of(key, segment.blocks.len())];
            marks(key).all(|bit| block[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
        })
    }

    /// How many keys were added.
    pub const fn keys(&self) -> u64 {
        self.keys
    }
}

/// Keys are parts of a cryptographic hash: their bits serve as they are.
fn block_of(key: CommandKey, blocks: usize) -> usize {
    // 32 of the bits, scaled to the number of blocks (Lemire, Fast Random Integer Generation in an Interval, 2019).
    ((key.0 >> 72) as u32 as usize * blocks) >> 32
}

fn marks(key: CommandKey) -> impl Iterator<Item = u32> {
    (0..MARKS).map(move |mark| (key.0 >> (mark * 9)) as u32 & (BLOCK_BITS - 1))
}

#[cfg(test)]
mod tests {
    use proto::TenantId;

    use super::*;

    fn key(number: u32) -> CommandKey {
        let tenant: TenantId = "t".parse().unwrap();
        CommandKey::of_tenant(&tenant, &number.to_string())
    }

    #[test]
    fn an_added_key_is_always_known_and_a_new_one_rarely() {
        let mut filter = Filter::default();
        assert!(!filter.may_hold(key(0)));
        for number in 0..40_000 {
            filter.add(key(number));
        }
        assert!((0..40_000).all(|number| filter.may_hold(key(number))));
        let wrong = (40_000..80_000).filter(|number| filter.may_hold(key(*number))).count();
        assert!(wrong < 40, "{wrong} of 40,000 new keys were taken for old ones");
    }
}
