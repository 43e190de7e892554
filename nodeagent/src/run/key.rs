//! The worker's key. It is made here and never leaves.

use std::io;
use std::path::Path;

use proto::worker::certificate::{pem, request_info};
use proto::worker::{JoinSecret, PublicKey, Redemption};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;

use super::files::{self, SECRET};

/// Why there is no key.
#[derive(Debug, Error)]
pub(crate) enum KeyError {
    /// The file.
    #[error("cannot keep the worker's key in {0}")]
    File(String, #[source] io::Error),
    /// What is in it.
    #[error("{0} holds no key for P-256 in PKCS #8")]
    Content(String),
    /// The system has no random numbers.
    #[error("cannot make a key")]
    Make,
    /// It signs nothing.
    #[error("cannot sign with the worker's key")]
    Sign,
}

/// The worker's key.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Key {
    /// The key in a file; a new one, put there first, if there is none.
    pub(crate) fn keep(path: &Path) -> Result<Key, KeyError> {
        let place = || path.display().to_string();
        let failed = |error| KeyError::File(place(), error);
        let random = SystemRandom::new();
        let text = if let Some(text) = files::read(path).map_err(failed)? {
            text
        } else {
            let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
            let text = pem("PRIVATE KEY", made.map_err(|_| KeyError::Make)?.as_ref()).into_bytes();
            files::replace(path, &text, SECRET).map_err(failed)?;
            text
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| KeyError::Content(place()))?;
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der(), &random);
        Ok(Key { pair: pair.map_err(|_| KeyError::Content(place()))?, random })
    }

    /// What redeems a secret for this key.
    pub(crate) fn redemption(&self, secret: &JoinSecret) -> Result<Redemption, KeyError> {
        let point = self.pair.public_key().as_ref();
        let public_key = PublicKey::from_bytes(point).map_err(|_| KeyError::Sign)?;
        let info = request_info(&secret.worker, &public_key);
        let signature = self.pair.sign(&self.random, &info).map_err(|_| KeyError::Sign)?;
        Ok(Redemption { secret: secret.reveal(), public_key, signature: hex(signature.as_ref()) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        text
    })
}

#[cfg(test)]
mod tests {
    use proto::Timestamp;
    use proto::worker::SiteKey;
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_key_stays_and_signs_its_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("worker.key");
        let site = SiteKey::new(&[1; 32]).expect("a key");
        let secret = site.mint("main-7".parse().expect("a worker"), 1, Timestamp::MAX);
        let one = Key::keep(&path).expect("a key").redemption(&secret).expect("a redemption");
        let two = Key::keep(&path).expect("a key").redemption(&secret).expect("a redemption");
        assert_eq!(one.public_key, two.public_key);
        let claim = site.claim(&two).expect("a claim");
        assert!(claim.certificate_request.contains("CERTIFICATE REQUEST"));
        let info = request_info(&claim.worker, &two.public_key);
        let signature: Vec<u8> = two
            .signature
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits"))
            .collect();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, two.public_key.as_bytes());
        assert!(key.verify(&info, &signature).is_ok());
        std::fs::write(&path, "x").expect("written");
        assert!(matches!(Key::keep(&path), Err(KeyError::Content(_))));
    }
}
