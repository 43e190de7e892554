//! The join secret: who may become the worker of a lease.
//!
//! A secret says of which lease and generation it is and until when it may first be redeemed, with a code over that
//! under the site's key: whoever keeps the key needs to remember no secrets. What must be remembered is which key
//! redeemed it ([`Bound`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::certificate::{CertificateError, PublicKey, request};
use super::hmac::{hex, hmac, same, unhex};
use super::id::WorkerId;
use crate::time::Timestamp;

/// What every secret begins with, so that scanners for leaked secrets find it.
const PREFIX: &str = "walras-join-1";

/// The longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 256;

/// The shortest key of a site, in bytes: as long as the codes made with it.
const KEY_BYTES_MIN: usize = 32;

/// Why a text is no secret, or no key of a site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text has another form. It is not repeated: it may be a secret all the same.
    #[error("a join secret is {PREFIX}.WORKER.GENERATION.SECONDS.CODE; this is something else")]
    Form,
    /// A key that could be guessed.
    #[error("the key of a site has at least {KEY_BYTES_MIN} bytes, this has {0}")]
    Key(usize),
}

/// The key of a site, under which its secrets are made. It is never shown.
#[derive(Clone)]
pub struct SiteKey(Vec<u8>);

impl fmt::Debug for SiteKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SiteKey(…)")
    }
}

/// A join secret. Shown whole by [`JoinSecret::reveal`] alone.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret {
    /// Whose it is.
    pub worker: WorkerId,
    /// Generation of the lease's server: a lease that moves to another server gets a new secret.
    pub generation: u64,
    /// Until when it may be redeemed for the first time, in whole seconds since 1970.
    pub expires_at: u64,
    code: [u8; 32],
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JoinSecret({} {}, …)", self.worker, self.generation)
    }
}

impl JoinSecret {
    /// The secret as text, to be given to the server that boots and to nobody else.
    pub fn reveal(&self) -> String {
        let Self { worker, generation, expires_at, code } = self;
        format!("{PREFIX}.{worker}.{generation}.{expires_at}.{}", hex(code))
    }
}

impl FromStr for JoinSecret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let read = || {
            let mut parts = text.split('.');
            let prefix = parts.next().filter(|prefix| *prefix == PREFIX && text.len() <= SECRET_BYTES_MAX);
            prefix?;
            let worker = parts.next()?.parse().ok()?;
            let (generation, expires_at) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let code = unhex(parts.next()?)?.try_into().ok()?;
            parts.next().is_none().then_some(Self { worker, generation, expires_at, code })
        };
        read().ok_or(SecretError::Form)
    }
}

/// What an agent sends to redeem its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redemption {
    /// The secret as text.
    pub secret: String,
    /// The key that the lease is to be bound to.
    pub public_key: PublicKey,
    /// The key's signature of [`super::certificate::request_info`] in DER, in hexadecimal.
    pub signature: String,
}

impl fmt::Debug for Redemption {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Redemption({:?}, …)", self.public_key)
    }
}

impl Redemption {
    /// The signature's bytes; none if it is not written in hexadecimal.
    pub fn signature_bytes(&self) -> Option<Vec<u8>> {
        unhex(&self.signature)
    }
}

/// What is remembered of a redeemed lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The generation that was redeemed.
    pub generation: u64,
    /// Fingerprint of the key that redeemed it.
    pub fingerprint: String,
}

/// Why a redemption is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedemptionRefusal {
    /// The message cannot be read.
    Malformed,
    /// The secret was not made here.
    Foreign,
    /// Nobody redeemed it in time.
    Expired,
    /// Another key redeemed it: somebody else has the secret. The site raises an alarm.
    OtherKey,
    /// The lease has moved to another server, or is over.
    Over,
}

/// A redemption whose secret is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of which lease.
    pub worker: WorkerId,
    /// Of which generation.
    pub generation: u64,
    /// By which key.
    pub public_key: PublicKey,
    /// The request for the Node's certificate, in PEM.
    pub certificate_request: String,
    expires_at: u64,
}

/// What becomes of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first: this is to be remembered before it is answered.
    Bind(Bound),
    /// The same key again: the same answer again.
    Again,
    /// Refused.
    Refuse(RedemptionRefusal),
}

impl SiteKey {
    /// A key.
    ///
    /// # Errors
    /// When it is too short.
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.len() < KEY_BYTES_MIN {
            return Err(SecretError::Key(bytes.len()));
        }
        Ok(Self(bytes.to_vec()))
    }

    fn code(&self, worker: &WorkerId, generation: u64, expires_at: u64) -> [u8; 32] {
        hmac(&self.0, &[format!("join\n{worker}\n{generation}\n{expires_at}").as_bytes()])
    }

    /// The secret for the server of a lease.
    pub fn mint(&self, worker: WorkerId, generation: u64, expires_at: Timestamp) -> JoinSecret {
        let expires_at = u64::try_from(expires_at.micros() / 1_000_000).unwrap_or_default();
        let code = self.code(&worker, generation, expires_at);
        JoinSecret { worker, generation, expires_at, code }
    }

    /// Reads a redemption: whose it is, and that the secret was made with this key.
    ///
    /// # Errors
    /// `Malformed` or `Foreign`.
    pub fn claim(&self, redemption: &Redemption) -> Result<Claim, RedemptionRefusal> {
        let malformed = |_| RedemptionRefusal::Malformed;
        let secret: JoinSecret = redemption.secret.parse().map_err(malformed)?;
        if !same(&secret.code, &self.code(&secret.worker, secret.generation, secret.expires_at)) {
            return Err(RedemptionRefusal::Foreign);
        }
        let signature = unhex(&redemption.signature).ok_or(CertificateError::Signature);
        let request = signature.and_then(|bytes| request(&secret.worker, &redemption.public_key, &bytes));
        Ok(Claim {
            certificate_request: request.map_err(|_| RedemptionRefusal::Malformed)?,
            worker: secret.worker,
            generation: secret.generation,
            public_key: redemption.public_key,
            expires_at: secret.expires_at,
        })
    }

    /// The bearer token of a worker's reports: a code over what it was bound to, so that it need not be remembered.
    pub fn session(&self, worker: &WorkerId, bound: &Bound) -> String {
        self.token("session", worker, bound)
    }

    /// Whether a report's bearer token is that of the worker it speaks of. A text of another length or form is not.
    pub fn is_session(&self, token: &str, worker: &WorkerId, bound: &Bound) -> bool {
        is_token(token, &self.session(worker, bound))
    }

    /// What a worker shows to the bus. Whoever learns it can listen to the worker's notices and do nothing else.
    pub fn bus_password(&self, worker: &WorkerId, bound: &Bound) -> String {
        self.token("bus", worker, bound)
    }

    /// Whether somebody shows what that worker would.
    pub fn is_bus_password(&self, token: &str, worker: &WorkerId, bound: &Bound) -> bool {
        is_token(token, &self.bus_password(worker, bound))
    }

    fn token(&self, purpose: &str, worker: &WorkerId, bound: &Bound) -> String {
        let Bound { generation, fingerprint } = bound;
        hex(&hmac(&self.0, &[format!("{purpose}\n{worker}\n{generation}\n{fingerprint}").as_bytes()]))
    }
}

fn is_token(given: &str, right: &str) -> bool {
    let bytes = |text: &str| unhex(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes(given).zip(bytes(right)).is_some_and(|(given, right)| same(&given, &right))
}

impl Claim {
    /// Decides on the claim. `live` is the generation of the lease's server now, none if the lease is over; `bound` is
    /// what redeemed the lease before.
    ///
    /// The time counts for the first redemption only: a worker that lost the answer, or restarts a day later without
    /// its disk's state but with its key, gets it again.
    pub fn judge(&self, now: Timestamp, live: Option<u64>, bound: Option<&Bound>) -> Verdict {
        let fingerprint = self.public_key.fingerprint();
        if live != Some(self.generation) {
            return Verdict::Refuse(RedemptionRefusal::Over);
        }
        match bound.filter(|bound| bound.generation == self.generation) {
            Some(bound) if bound.fingerprint == fingerprint => Verdict::Again,
            Some(_) => Verdict::Refuse(RedemptionRefusal::OtherKey),
            None if now.micros() / 1_000_000 >= i64::try_from(self.expires_at).unwrap_or(i64::MAX) => {
                Verdict::Refuse(RedemptionRefusal::Expired)
            }
            None => Verdict::Bind(Bound { generation: self.generation, fingerprint }),
        }
    }
}
