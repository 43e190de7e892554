//! Commitments: a hash that says nothing to who does not know what it is of, and cannot be opened as two things.

use std::fmt;
use std::sync::Arc;

use proto::market::{AmendBid, BidNumber, MarketEvent, PlaceBid};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// SHA-256, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(transparent)]
pub struct Hash(#[schemars(with = "String", regex(pattern = "^[0-9a-f]{64}$"))] pub [u8; 32]);

/// What stands in a record instead of a bid.
pub type Commitment = Hash;
/// What makes a commitment unguessable: different for every number, version and act.
pub type Salt = Hash;

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

struct HashVisitor;

impl de::Visitor<'_> for HashVisitor {
    type Value = Hash;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("64 hexadecimal digits in lower case")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Hash, E> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let refused = || E::invalid_value(de::Unexpected::Str(text), &self);
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return Err(refused());
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = (digit(pair[0]).ok_or_else(refused)?, digit(pair[1]).ok_or_else(refused)?);
            *byte = high << 4 | low;
        }
        Ok(Hash(bytes))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(HashVisitor)
    }
}

/// What an exchange derives its salts from. Whoever has it can guess at every bid; whoever loses it can open none.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A secret of 32 random bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn salt(&self, number: BidNumber, version: u32, kind: ActKind) -> Salt {
        let mut message = [0; 13];
        message[..8].copy_from_slice(&number.to_be_bytes());
        message[8..12].copy_from_slice(&version.to_be_bytes());
        message[12] = kind as u8;
        Hash(hmac(&self.0, &message))
    }

    /// What a tenant needs beside its own words to open everything it did with one bid, the newest
    /// [`SALTS_MAX`] of them. For that tenant alone: with these anybody can guess at the bid.
    pub fn salts(&self, acts: &Acts) -> Salts {
        let salted = |version, act| Salted { version, act, salt: self.salt(acts.number, version, act) };
        let first = acts.version.saturating_sub(SALTS_MAX).saturating_add(1).max(1);
        let versions = (first..=acts.version).map(|version| match version {
            1 => salted(1, ActKind::Placed),
            _ => salted(version, ActKind::Amended),
        });
        let end = acts.end.map(|end| salted(0, end));
        Salts { number: acts.number, salts: versions.chain(end).collect() }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

/// HMAC-SHA-256 (RFC 2104) for keys of at most a block.
fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    const BLOCK_BYTES: usize = 64;
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(place, key)| *place ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// What a tenant did with a bid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "act", content = "what", rename_all = "kebab-case")]
pub enum Act {
    /// Placed it, so.
    Placed(Arc<PlaceBid>),
    /// Amended it, so.
    Amended(Arc<AmendBid>),
    /// Cancelled it.
    Cancelled,
    /// Let it expire.
    Expired,
}

impl Act {
    const fn kind(&self) -> ActKind {
        match self {
            Self::Placed(_) => ActKind::Placed,
            Self::Amended(_) => ActKind::Amended,
            Self::Cancelled => ActKind::Cancelled,
            Self::Expired => ActKind::Expired,
        }
    }
}

/// What kind of act it is. The numbers are part of what is hashed: they never change, they only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActKind {
    /// A bid was placed.
    Placed = 1,
    /// Its terms were replaced.
    Amended = 2,
    /// Its tenant ended it.
    Cancelled = 3,
    /// It ended by itself.
    Expired = 4,
}

/// Acts of one bid for which salts are given at once.
pub const SALTS_MAX: u32 = 1_000;

/// What was done with one bid, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acts {
    /// The bid's number.
    pub number: BidNumber,
    /// Its newest version: 1 as it was placed, and one more for each amendment.
    pub version: u32,
    /// How it ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ActKind>,
}

/// What a tenant needs to open the commitments to one of its bids, beside what it sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Salts {
    /// The bid's number.
    pub number: BidNumber,
    /// The salt of each act, oldest first.
    pub salts: Vec<Salted>,
}

/// The salt of one act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Salted {
    /// The version that the act made; 0 for an end.
    pub version: u32,
    /// What kind of act.
    pub act: ActKind,
    /// What its commitment was salted with.
    pub salt: Salt,
}

/// What a tenant is given to check a commitment with, and nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Opening {
    /// The bid's number.
    pub number: BidNumber,
    /// The version that the act made; 0 for an end.
    pub version: u32,
    /// What was done.
    #[serde(flatten)]
    pub act: Act,
    /// What the commitment was salted with.
    pub salt: Salt,
}

impl Opening {
    /// The opening of what an event says that a tenant did with a bid; `None` of every other event.
    pub fn of(secret: &Secret, event: &MarketEvent) -> Option<Self> {
        let (number, version, act) = match event {
            MarketEvent::BidPlaced { number, bid, .. } => (*number, 1, Act::Placed(Arc::clone(bid))),
            MarketEvent::BidAmended { number, version, amendment } => {
                (*number, *version, Act::Amended(Arc::clone(amendment)))
            }
            MarketEvent::BidCancelled { number } => (*number, 0, Act::Cancelled),
            MarketEvent::BidExpired { number } => (*number, 0, Act::Expired),
            _ => return None,
        };
        let salt = secret.salt(number, version, act.kind());
        Some(Self { number, version, act, salt })
    }

    /// The commitment that this opens: SHA-256 over the salt and the JSON of all the rest.
    pub fn commitment(&self) -> Commitment {
        let mut hasher = Sha256::new();
        hasher.update(b"walras transcript bid\n");
        hasher.update(self.salt.0);
        // Plain data always has a text.
        hasher.update(serde_json::to_vec(&(self.number, self.version, &self.act)).unwrap_or_default());
        Hash(hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_a_reference() {
        // RFC 4231 has no key of 32 bytes; its second case's key filled up with zeros is the same key to HMAC.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let found = Hash(hmac(&key, b"what do ya want for nothing?")).to_string();
        assert_eq!(found, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_salt_differs_by_number_version_act_and_secret() {
        let secret = Secret::new([7; 32]);
        let salts = [
            secret.salt(1, 1, ActKind::Cancelled),
            secret.salt(2, 1, ActKind::Cancelled),
            secret.salt(1, 2, ActKind::Cancelled),
            secret.salt(1, 1, ActKind::Expired),
            Secret::new([8; 32]).salt(1, 1, ActKind::Cancelled),
        ];
        for (place, salt) in salts.iter().enumerate() {
            assert!(!salts[..place].contains(salt));
        }
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn a_hash_is_64_digits_and_nothing_else() {
        let hash = Hash([0xab; 32]);
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<Hash>(&json).unwrap(), hash);
        for bad in ["\"\"", "\"ab\"", "7", &json.to_uppercase(), &json.replacen("ab", "+b", 1)] {
            assert!(serde_json::from_str::<Hash>(bad).is_err(), "{bad}");
        }
    }
}
