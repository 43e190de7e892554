//! The state hash: a sum of one 128-bit digest per thing that the state holds, so that it is kept up by adding and
//! subtracting, and the order in which things came does not matter. It tells whether two machines agree; it is no
//! defence against somebody who looks for collisions (the journal's chain is).

/// What a digest is of: two things with the same words but of different kinds differ.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(super) enum Kind {
    Bid = 1,
    Names,
    Lease,
    Market,
    Source,
    Departure,
    Finished,
    Counters,
    Rules,
    Trust,
    Settings,
    Option,
    Place,
    PassedOver,
}

/// Odd constants without a pattern (fractional parts of the square roots of the primes from 2 to 29).
const KEYS: [u64; 10] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
    0xcbbb_9d5d_c105_9ed9,
    0x629a_292a_367c_d507,
];

/// A digest of a few words: the NH family of universal hashes (Black et al., UMAC, 1999), whose multiplications do
/// not wait for one another, and a finish that spreads its sum over all bits.
#[inline]
pub(super) const fn digest<const WORDS: usize>(kind: Kind, words: [u64; WORDS]) -> u128 {
    const { assert!(WORDS.is_multiple_of(2) && WORDS <= 8) };
    let mut sum = (kind as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let mut place = 0;
    while place < WORDS {
        let left = words[place].wrapping_add(KEYS[place]);
        let right = words[place + 1].wrapping_add(KEYS[place + 1]);
        sum = sum.wrapping_add(left as u128 * right as u128);
        place += 2;
    }
    finish(sum)
}

#[inline]
const fn finish(sum: u128) -> u128 {
    let (low, high) = (sum as u64, (sum >> 64) as u64);
    let left = (low ^ high.rotate_left(29)).wrapping_mul(KEYS[8] | 1);
    let right = (high ^ low.rotate_left(37)).wrapping_mul(KEYS[9] | 1);
    let left = (left ^ (left >> 32) ^ right.rotate_left(17)).wrapping_mul(KEYS[3] | 1);
    let right = (right ^ (right >> 29) ^ left).wrapping_mul(KEYS[5] | 1);
    ((left ^ (left >> 31)) as u128) << 64 | (right ^ (right >> 32)) as u128
}

/// A digest of a text, eight bytes at a time.
#[inline]
pub(super) fn text(text: &str) -> u64 {
    let mut state = KEYS[4] ^ text.len() as u64;
    let mut chunks = text.as_bytes().chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        state = fold(state, u64::from_le_bytes(word));
    }
    let rest = chunks.remainder();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    fold(state, u64::from_le_bytes(word))
}

/// A digest of bytes of any length, for what changes seldom.
pub(super) fn bytes(kind: Kind, bytes: &[u8]) -> u128 {
    let mut lanes = [KEYS[6] ^ bytes.len() as u64, KEYS[7]];
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        lanes = [fold(lanes[0], word), fold(lanes[1], word.rotate_left(32))];
    }
    digest(kind, lanes)
}

/// Folds the 128-bit product of two words, the step of wyhash and its kin.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a ^ KEYS[0]) as u128 * (b ^ KEYS[1]) as u128;
    product as u64 ^ (product >> 64) as u64
}

/// The running sum of digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(pub(super) u128);

impl Sum {
    #[inline]
    pub(super) fn add(&mut self, digest: u128) {
        self.0 = self.0.wrapping_add(digest);
    }

    #[inline]
    pub(super) fn remove(&mut self, digest: u128) {
        self.0 = self.0.wrapping_sub(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_and_the_kind_count() {
        let base = digest(Kind::Bid, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_ne!(base, digest(Kind::Lease, [1, 2, 3, 4, 5, 6, 7, 8]));
        for place in 0..8 {
            let mut words = [1, 2, 3, 4, 5, 6, 7, 8];
            for bit in 0..64 {
                words[place] ^= 1 << bit;
                let other = digest(Kind::Bid, words);
                let differing = (base ^ other).count_ones();
                assert!((30..=98).contains(&differing), "word {place} bit {bit}: {differing} bits differ");
                words[place] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn texts_differ_by_every_byte_and_by_length() {
        let texts = ["", "a", "b", "aa", "a\0", "12345678", "123456789", "12345678\0", "22345678"];
        for (place, left) in texts.iter().enumerate() {
            for right in &texts[place + 1..] {
                assert_ne!(text(left), text(right), "{left:?} {right:?}");
                assert_ne!(bytes(Kind::Rules, left.as_bytes()), bytes(Kind::Rules, right.as_bytes()));
            }
        }
    }
}
