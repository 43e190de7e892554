//! The request for a worker's certificate (PKCS #10, RFC 2986), as both sides build it: from the worker's name and
//! its key alone. The agent signs it and sends only the signature, so that nobody has to read what a stranger wrote,
//! and no request for another name can be made of it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use super::hmac::{hex, unhex};
use super::id::WorkerId;

/// Bytes of a point of the curve P-256, uncompressed: the number 4 and two coordinates.
const POINT_BYTES: usize = 65;

/// The longest signature, in bytes: two numbers of 33 bytes with their lengths.
const SIGNATURE_BYTES_MAX: usize = 72;

/// Characters of base64 in one line of PEM (RFC 7468).
const LINE_CHARACTERS: usize = 64;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const ATTRIBUTES: u8 = 0xa0;

/// 2.5.4.10, organization.
const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];
/// 2.5.4.3, common name.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// 1.2.840.10045.2.1, a key on an elliptic curve.
const EC_KEY: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7, the curve P-256.
const P_256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.2.840.10045.4.3.2, ECDSA with SHA-256.
const ECDSA_SHA_256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// Why there is no key, or no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a point of the curve P-256, uncompressed.
    #[error("public_key must be 65 bytes in hexadecimal that begin with 04, a point of P-256")]
    PublicKey,
    /// Not a signature's length or form.
    #[error("signature must be a signature by ECDSA in DER, in hexadecimal, of at most 72 bytes")]
    Signature,
}

/// The public half of a worker's key: a point of the curve P-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; POINT_BYTES]);

impl PublicKey {
    /// The key with this point, uncompressed.
    ///
    /// # Errors
    /// When it does not look like one. Whether it lies on the curve shows when something is verified with it.
    pub fn from_bytes(point: &[u8]) -> Result<Self, CertificateError> {
        match <[u8; POINT_BYTES]>::try_from(point) {
            Ok(point) if point.first() == Some(&4) => Ok(Self(point)),
            _ => Err(CertificateError::PublicKey),
        }
    }

    /// The point, uncompressed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the point, in hexadecimal: what is kept and shown of a key.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.fingerprint())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let point = unhex(&text).ok_or(CertificateError::PublicKey);
        point.and_then(|point| Self::from_bytes(&point)).map_err(de::Error::custom)
    }
}

/// One value with its tag and length in front (DER). Lengths here are below 65,536.
fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    match length {
        0..=0x7f => bytes.push(length as u8),
        0x80..=0xff => bytes.extend([0x81, length as u8]),
        _ => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// One attribute of a name.
fn named(object: &[u8], text_tag: u8, text: &str) -> Vec<u8> {
    value(SET, &[&value(SEQUENCE, &[&value(OBJECT, &[object]), &value(text_tag, &[text.as_bytes()])])])
}

/// What a worker signs: that this key wants to be the Node of this lease, `system:node:NAME` in `system:nodes`.
pub fn request_info(worker: &WorkerId, key: &PublicKey) -> Vec<u8> {
    let name = format!("system:node:{worker}");
    let subject = value(
        SEQUENCE,
        &[&named(&ORGANIZATION, PRINTABLE, "system:nodes"), &named(&COMMON_NAME, UTF8, &name)],
    );
    let algorithm = value(SEQUENCE, &[&value(OBJECT, &[&EC_KEY]), &value(OBJECT, &[&P_256])]);
    let public = value(SEQUENCE, &[&algorithm, &value(BIT_STRING, &[&[0], &key.0])]);
    let version = value(INTEGER, &[&[0]]);
    value(SEQUENCE, &[&version, &subject, &public, &value(ATTRIBUTES, &[])])
}

/// The whole request in PEM, as a `CertificateSigningRequest` holds it.
///
/// # Errors
/// When the signature cannot be one. Whether it holds is for the signer to say.
pub fn request(worker: &WorkerId, key: &PublicKey, signature: &[u8]) -> Result<String, CertificateError> {
    if signature.len() > SIGNATURE_BYTES_MAX || signature.first() != Some(&SEQUENCE) {
        return Err(CertificateError::Signature);
    }
    let algorithm = value(SEQUENCE, &[&value(OBJECT, &[&ECDSA_SHA_256])]);
    let signed = value(BIT_STRING, &[&[0], signature]);
    let whole = value(SEQUENCE, &[&request_info(worker, key), &algorithm, &signed]);
    Ok(pem("CERTIFICATE REQUEST", &whole))
}

/// Bytes as PEM.
pub fn pem(label: &str, bytes: &[u8]) -> String {
    let mut body = String::new();
    for (place, letter) in base64(bytes).chars().enumerate() {
        if place % LINE_CHARACTERS == 0 {
            body.push('\n');
        }
        body.push(letter);
    }
    format!("-----BEGIN {label}-----{body}\n-----END {label}-----\n")
}

/// Bytes as base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The bytes that base64 with padding says; spaces and line ends between are passed over. None for anything else.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let letters: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let padding = letters.iter().rev().take_while(|byte| **byte == b'=').count();
    if !letters.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3);
    for group in letters[..letters.len() - padding].chunks(4) {
        let number =
            group.iter().try_fold(0_u32, |number, byte| Some((number << 6) | u32::from(digit(*byte)?)))?;
        let number = number << (6 * (4 - group.len()));
        bytes.extend_from_slice(&number.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

/// The bytes of a text in PEM with one section of this label.
pub fn unpem(label: &str, text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    unbase64(body.strip_suffix(&format!("-----END {label}-----"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_and_pem_are_their_rfcs() {
        for (length, text) in
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"].iter().enumerate()
        {
            assert_eq!(base64(&b"foobar"[..length]), *text);
            assert_eq!(unbase64(text).unwrap(), &b"foobar"[..length]);
        }
        for bad in ["Z", "Zg", "Zg=", "Z===", "====", "Zm9-", "Zg==Zg=="] {
            assert_eq!(unbase64(bad), None, "{bad}");
        }
        assert_eq!(unpem("X", &pem("X", &[3; 100])).unwrap(), [3; 100]);
        assert_eq!(unpem("Y", &pem("X", &[3; 100])), None);
        let text = pem("X", &[0; 60]);
        let lines: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lines, [17, 64, 16, 15]);
        assert_eq!(pem("X", &[]), "-----BEGIN X-----\n-----END X-----\n");
    }

    #[test]
    fn lengths_are_written_as_der_wants_them() {
        for (length, head) in
            [(0, vec![4, 0]), (127, vec![4, 127]), (128, vec![4, 0x81, 128]), (300, vec![4, 0x82, 1, 44])]
        {
            let bytes = value(4, &[&vec![7; length]]);
            assert_eq!((&bytes[..head.len()], bytes.len()), (&head[..], head.len() + length));
        }
    }

    #[test]
    fn keys_and_signatures_are_checked_for_their_form() {
        let mut point = [9; 65];
        assert!(PublicKey::from_bytes(&point).is_err());
        point[0] = 4;
        let key = PublicKey::from_bytes(&point).unwrap();
        assert!(PublicKey::from_bytes(&point[1..]).is_err());
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&text).unwrap(), key);
        assert!(serde_json::from_str::<PublicKey>("\"04\"").is_err());
        let worker = "main-1".parse().unwrap();
        assert!(request(&worker, &key, &[0x30; 73]).is_err());
        assert!(request(&worker, &key, b"x").is_err());
        let other = "main-2".parse().unwrap();
        assert_ne!(request_info(&worker, &key), request_info(&other, &key));
        assert!(
            request(&worker, &key, &[0x30; 70]).unwrap().starts_with("-----BEGIN CERTIFICATE REQUEST-----\n")
        );
    }
}
