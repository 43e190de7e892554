//! How deliveries are signed.

use sha2::{Digest, Sha256};

/// The header that a signature stands in: `t=<seconds since 1970>,v1=<hexadecimal>`.
pub const SIGNATURE_HEADER: &str = "walras-signature";

/// Bytes of a block of SHA-256.
const BLOCK_BYTES: usize = 64;

/// HMAC-SHA-256 (RFC 2104) for keys of at most a block; what is longer is cut off.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(place, key)| *place ^= key);
        block
    };
    let mut inner = Sha256::new().chain_update(pad(0x36));
    for part in parts {
        inner.update(part);
    }
    let inner = inner.finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The signature of a body at an instant, in seconds since 1970. The key is the secret's text, of at most 64 bytes.
pub fn signature(secret: &str, seconds: i64, body: &[u8]) -> String {
    let time = format!("{seconds}.");
    format!("t={seconds},v1={}", hexadecimal(&hmac(secret.as_bytes(), &[time.as_bytes(), body])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_a_reference() {
        // RFC 4231, test case 2.
        let found = hexadecimal(&hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]));
        assert_eq!(found, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_signature_is_of_secret_time_and_body() {
        let one = signature("s", 7, b"body");
        assert!(one.starts_with("t=7,v1=") && one.len() == 7 + 64, "{one}");
        for other in [signature("t", 7, b"body"), signature("s", 8, b"body"), signature("s", 7, b"bodies")] {
            assert_ne!(one[4..], other[4..]);
        }
    }
}
