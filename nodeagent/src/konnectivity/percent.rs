//! Percent-encoding, in a gRPC status and in a URL.

/// The bytes that `text` encodes, at most `limit`. What is not an encoding stays as it is.
pub(super) fn decoded(text: &[u8], limit: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len().min(limit));
    let mut rest = text;
    while let Some((first, after)) = rest.split_first().filter(|_| bytes.len() < limit) {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = after.get(if byte.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    bytes
}
