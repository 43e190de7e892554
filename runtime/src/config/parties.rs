//! Who may speak to Walras.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use proto::id::{PrincipalId, TenantId};

use crate::nats::access::ServiceRole;

use super::secret::{SecretText, TokenHash};

/// A tenant, known to the gateway by a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// SHA-256 of its token.
    pub token_sha256: TokenHash,
}

/// A service in front of us that bids for tenants over the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storefront {
    /// Its name on the bus.
    pub principal: PrincipalId,
    /// Its public key.
    pub nkey: PublicKey,
    /// The tenants it may bid for.
    #[serde(default)]
    pub tenants: Vec<TenantId>,
    /// Whether it may bid for every tenant; `tenants` is empty then.
    #[serde(default)]
    pub every_tenant: bool,
}

/// One of our services at a broker that is not our child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name on the bus.
    pub principal: PrincipalId,
    /// What it does, and so what it may do.
    pub role: ServiceRole,
    /// Its public key.
    pub nkey: PublicKey,
}

/// Anybody else with a key: a hypervisor, an operator, an observer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its name on the bus.
    pub principal: PrincipalId,
    /// Its public key.
    pub nkey: PublicKey,
}

/// The public half of a user's nkey: `U` and 55 more characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(String);

impl PublicKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Read as a secret: people paste the seed, and an error must not print it.
        let SecretText(text) = SecretText::deserialize(from)?;
        if text.starts_with('S') {
            let problem =
                "this looks like a seed, the secret half; give the public half, which begins with U";
            return Err(de::Error::custom(problem));
        }
        if !text.starts_with('U') || nkeys::KeyPair::from_public_key(&text).is_err() {
            return Err(de::Error::custom("must be the public nkey of a user: U and 55 more characters"));
        }
        Ok(Self(text))
    }
}
