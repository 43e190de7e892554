//! An authority that signs workers' certificates, as a control plane's signer does: just enough of X.509 (RFC 5280).

use proto::worker::certificate::pem;
use proto::worker::{PublicKey, WorkerId};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

const ECDSA_SHA_256: [u8; 10] = [0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_P_256: [u8; 19] = [
    0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07,
];

pub(crate) struct Authority {
    key: EcdsaKeyPair,
    random: SystemRandom,
    /// Its own certificate, in DER.
    pub(crate) certificate: Vec<u8>,
}

fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![tag];
    match body.len() {
        length @ 0..0x80 => bytes.push(length as u8),
        length @ 0x80..0x100 => bytes.extend([0x81, length as u8]),
        length => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    bytes.extend(body);
    bytes
}

fn name(common: &str) -> Vec<u8> {
    let attribute = value(0x30, &[&[0x06, 3, 0x55, 0x04, 0x03], &value(0x0c, &[common.as_bytes()])]);
    value(0x30, &[&value(0x31, &[&attribute])])
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).expect("a key");
        let mut authority = Authority { key, random, certificate: Vec::new() };
        let own = PublicKey::from_bytes(authority.key.public_key().as_ref()).expect("a key");
        authority.certificate = authority.signed("test workers' authority", &own);
        authority
    }

    /// A worker's certificate, in PEM.
    pub(crate) fn sign(&self, worker: &WorkerId, key: &PublicKey) -> String {
        pem("CERTIFICATE", &self.signed(&format!("system:node:{worker}"), key))
    }

    fn signed(&self, subject: &str, key: &PublicKey) -> Vec<u8> {
        let algorithm = value(0x30, &[&ECDSA_SHA_256]);
        let validity = value(0x30, &[&value(0x17, &[b"200101000000Z"]), &value(0x18, &[b"21200101000000Z"])]);
        let public = value(0x30, &[&value(0x30, &[&EC_P_256]), &value(0x03, &[&[0], key.as_bytes()])]);
        let version = value(0xa0, &[&value(0x02, &[&[2]])]);
        let serial = value(0x02, &[&[1]]);
        let issuer = name("test workers' authority");
        let parts: [&[u8]; 7] = [&version, &serial, &algorithm, &issuer, &validity, &name(subject), &public];
        let to_sign = value(0x30, &parts);
        let signature = self.key.sign(&self.random, &to_sign).expect("a signature");
        value(0x30, &[&to_sign, &algorithm, &value(0x03, &[&[0], signature.as_ref()])])
    }
}
