//! Users that come and go with leases. The broker asks about every user whom its configuration does not name (NATS'
//! authorization callout), and whoever answers says under which permissions the user gets in, signed with the issuer's
//! key. So a worker has credentials of its own for as long as its lease lives, and no configuration is touched.
//!
//! Question and answer are JSON web tokens, signed with Ed25519 as nkeys are. Here they are read and written; who is
//! let in is decided elsewhere.

use nkeys::{KeyPair, KeyPairType};
use proto::Timestamp;
use proto::worker::certificate::{base64, unbase64};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// Where the broker asks.
pub const CALLOUT_SUBJECT: &str = "$SYS.REQ.USER.AUTH";

/// Account of the users that are let in this way.
pub const WORKERS_ACCOUNT: &str = "WORKER";

/// Subscriptions of one such user.
const SUBSCRIPTIONS_MAX: u32 = 4;

/// Longest question, in bytes.
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// Why there is no issuer, or no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CalloutError {
    /// No seed of an account, or a damaged one. Its text is not repeated.
    #[error("issuer seed: {why}")]
    Seed {
        /// What is wrong with it.
        why: String,
    },
    /// Not the public half of an account's key.
    #[error("issuer {nkey:?}: not the public key of an account (it begins with A)")]
    Public {
        /// What it is.
        nkey: String,
    },
    /// Something that is no question of a broker.
    #[error("this is no question of a broker: {why}")]
    Question {
        /// What is wrong with it.
        why: String,
    },
    /// The key cannot sign.
    #[error("not signed: {why}")]
    Signature {
        /// Why.
        why: String,
    },
}

/// Who wants in.
#[derive(Clone, PartialEq, Eq)]
pub struct Applicant {
    /// The name it gives.
    pub name: String,
    /// What it shows. Secret.
    pub password: String,
    server: String,
    key: String,
}

impl std::fmt::Debug for Applicant {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Applicant({:?}, …)", self.name)
    }
}

#[derive(Deserialize)]
struct Claims {
    nats: Question,
}

#[derive(Deserialize)]
struct Question {
    server_id: Server,
    user_nkey: String,
    connect_opts: Shown,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    user: String,
    #[serde(default, rename = "pass")]
    password: String,
}

impl Applicant {
    /// Reads a question of the broker.
    ///
    /// # Errors
    /// [`CalloutError::Question`].
    pub fn read(payload: &[u8]) -> Result<Self, CalloutError> {
        let refused = |why: &str| CalloutError::Question { why: why.to_owned() };
        if payload.len() > QUESTION_BYTES_MAX {
            return Err(refused("it is too long"));
        }
        let text = std::str::from_utf8(payload).map_err(|_| refused("it is no text"))?;
        let claims = text.split('.').nth(1).ok_or_else(|| refused("it is no token"))?;
        let claims = decode(claims).ok_or_else(|| refused("its claims are not base64"))?;
        let claims: Claims = serde_json::from_slice(&claims)
            .map_err(|error| CalloutError::Question { why: error.to_string() })?;
        let Question { server_id, user_nkey, connect_opts } = claims.nats;
        let (name, password) = (connect_opts.user, connect_opts.password);
        Ok(Self { name, password, server: server_id.id, key: user_nkey })
    }
}

/// Whose signature the broker believes.
pub struct Issuer(KeyPair);

impl std::fmt::Debug for Issuer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Issuer({})", self.public())
    }
}

impl Issuer {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(KeyPair::new_account())
    }

    /// The issuer a seed belongs to.
    ///
    /// # Errors
    /// [`CalloutError::Seed`] for anything but an account's seed.
    pub fn from_seed(seed: &str) -> Result<Self, CalloutError> {
        let pair = KeyPair::from_seed(seed.trim());
        let pair = pair.map_err(|error| CalloutError::Seed { why: error.to_string() })?;
        if pair.key_pair_type() != KeyPairType::Account {
            return Err(CalloutError::Seed { why: "not an account's".to_owned() });
        }
        Ok(Self(pair))
    }

    /// The secret half, beginning with `SA`.
    ///
    /// # Errors
    /// [`CalloutError::Seed`] where there is none.
    pub fn seed(&self) -> Result<String, CalloutError> {
        self.0.seed().map_err(|error| CalloutError::Seed { why: error.to_string() })
    }

    /// The public half, beginning with `A`, as the broker's configuration names it.
    #[must_use]
    pub fn public(&self) -> String {
        self.0.public_key()
    }

    /// The answer that lets somebody in from `now` until `until`, to listen to these subjects and to say nothing.
    ///
    /// # Errors
    /// [`CalloutError::Signature`].
    pub fn admit(
        &self,
        who: &Applicant,
        now: Timestamp,
        until: Timestamp,
        subjects: &[String],
    ) -> Result<Vec<u8>, CalloutError> {
        let user = json!({
            "jti": who.key, "iss": self.public(), "sub": who.key, "aud": WORKERS_ACCOUNT, "name": who.name,
            "iat": seconds(now), "exp": seconds(until),
            "nats": {
                "type": "user", "version": 2, "subs": SUBSCRIPTIONS_MAX, "data": -1, "payload": -1,
                "pub": { "deny": [">"] }, "sub": { "allow": subjects },
            },
        });
        let user = self.sign(&user)?;
        self.answer(who, now, json!({ "type": "authorization_response", "version": 2, "jwt": user }))
    }

    /// The answer that keeps somebody out. Why is for the broker's log.
    ///
    /// # Errors
    /// [`CalloutError::Signature`].
    pub fn refuse(&self, who: &Applicant, now: Timestamp, why: &str) -> Result<Vec<u8>, CalloutError> {
        self.answer(who, now, json!({ "type": "authorization_response", "version": 2, "error": why }))
    }

    fn answer(&self, who: &Applicant, now: Timestamp, said: Value) -> Result<Vec<u8>, CalloutError> {
        let mut claims = json!({
            "jti": who.key, "iss": self.public(), "sub": who.key, "aud": who.server, "iat": seconds(now),
        });
        claims["nats"] = said;
        self.sign(&claims).map(String::into_bytes)
    }

    fn sign(&self, claims: &Value) -> Result<String, CalloutError> {
        let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
        let text =
            format!("{}.{}", encode(head.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.0.sign(text.as_bytes());
        let signature = signature.map_err(|error| CalloutError::Signature { why: error.to_string() })?;
        Ok(format!("{text}.{}", encode(&signature)))
    }
}

/// Checks that `nkey` is the public half of an account's key.
///
/// # Errors
/// [`CalloutError::Public`].
pub fn check_issuer(nkey: &str) -> Result<(), CalloutError> {
    match KeyPair::from_public_key(nkey) {
        Ok(pair) if pair.key_pair_type() == KeyPairType::Account => Ok(()),
        _ => Err(CalloutError::Public { nkey: nkey.to_owned() }),
    }
}

const fn seconds(at: Timestamp) -> i64 {
    at.micros() / 1_000_000
}

/// Base64 as URLs have it, without padding (RFC 4648, section 5).
fn encode(bytes: &[u8]) -> String {
    base64(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut plain = text.replace('-', "+").replace('_', "/");
    while !plain.len().is_multiple_of(4) {
        plain.push('=');
    }
    unbase64(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(options: &Value) -> Vec<u8> {
        let claims = json!({ "nats": { "server_id": { "id": "N1", "name": "n" }, "user_nkey": "U1",
            "connect_opts": options, "client_info": {} } });
        format!("e30.{}.c2ln", encode(claims.to_string().as_bytes())).into_bytes()
    }

    #[test]
    fn what_is_answered_is_signed_by_the_issuer_for_the_one_who_asked() {
        let issuer = Issuer::generate();
        let who = Applicant::read(&question(&json!({ "user": "main-7", "pass": "p" }))).unwrap();
        assert_eq!((who.name.as_str(), who.password.as_str()), ("main-7", "p"));
        let (now, until) = (Timestamp::from_micros(5_000_000), Timestamp::from_micros(9_000_000));
        let answer = issuer.admit(&who, now, until, &["a.b".to_owned()]).unwrap();
        let open = |token: &str| -> Value {
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let key = KeyPair::from_public_key(&issuer.public()).unwrap();
            key.verify(signed.as_bytes(), &decode(signature).unwrap()).unwrap();
            serde_json::from_slice(&decode(signed.split('.').nth(1).unwrap()).unwrap()).unwrap()
        };
        let answer = open(std::str::from_utf8(&answer).unwrap());
        assert_eq!((&answer["aud"], &answer["sub"]), (&json!("N1"), &json!("U1")));
        let user = open(answer["nats"]["jwt"].as_str().unwrap());
        assert_eq!((&user["aud"], &user["exp"]), (&json!("WORKER"), &json!(9)));
        assert_eq!(user["nats"]["pub"], json!({ "deny": [">"] }));
        assert_eq!(user["nats"]["sub"], json!({ "allow": ["a.b"] }));
        let refused = issuer.refuse(&who, now, "no").unwrap();
        let refused = open(std::str::from_utf8(&refused).unwrap());
        assert_eq!((&refused["nats"]["error"], &refused["nats"]["jwt"]), (&json!("no"), &Value::Null));
    }

    #[test]
    fn keys_and_questions_of_other_kinds_are_refused() {
        let issuer = Issuer::generate();
        let again = Issuer::from_seed(&issuer.seed().unwrap()).unwrap();
        assert_eq!(again.public(), issuer.public());
        assert!(Issuer::from_seed(&crate::nats::key::generate().unwrap().seed).is_err());
        assert!(check_issuer(&issuer.public()).is_ok());
        assert!(check_issuer(&crate::nats::key::generate().unwrap().public).is_err());
        for bad in [&b"x"[..], b"a.b.c", b"a.e30.c", &[0xff; 4], &vec![b'a'; QUESTION_BYTES_MAX + 1]] {
            assert!(Applicant::read(bad).is_err(), "{:?}", String::from_utf8_lossy(bad).len());
        }
        // Whoever shows nothing is a user without a name.
        assert_eq!(Applicant::read(&question(&json!({}))).unwrap().name, "");
    }
}
