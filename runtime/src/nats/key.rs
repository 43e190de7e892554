//! Keys of users: an nkey each, the public half in the server's configuration, the seed with its owner.

use nkeys::{KeyPair, KeyPairType};
use thiserror::Error;

/// A user's key.
#[derive(Clone)]
pub struct UserKey {
    /// Public half, beginning with `U`: what the server knows the user by.
    pub public: String,
    /// Secret half, beginning with `SU`. Keep it in a file of mode 0600 and out of every log.
    pub seed: String,
}

impl std::fmt::Debug for UserKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("UserKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Why a key is not used. Says nothing of a seed's text.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// No seed, or a damaged one.
    #[error("nkey seed: {why}")]
    Seed {
        /// What is wrong with it.
        why: String,
    },
    /// Not the public half of a user's key.
    #[error("nkey {nkey:?}: not the public key of a user (it begins with U)")]
    Public {
        /// What it is.
        nkey: String,
    },
}

/// Makes a new key.
///
/// # Errors
/// [`KeyError::Seed`] when the operating system has no randomness to give.
pub fn generate() -> Result<UserKey, KeyError> {
    of_pair(&KeyPair::new_user())
}

/// The key a seed belongs to.
///
/// # Errors
/// [`KeyError::Seed`] for anything but a user's seed.
pub fn from_seed(seed: &str) -> Result<UserKey, KeyError> {
    let pair = KeyPair::from_seed(seed.trim()).map_err(|error| KeyError::Seed { why: error.to_string() })?;
    if pair.key_pair_type() != KeyPairType::User {
        return Err(KeyError::Seed { why: "not a user's".to_owned() });
    }
    of_pair(&pair)
}

/// Checks that `nkey` is the public half of a user's key.
///
/// # Errors
/// [`KeyError::Public`].
pub fn check_public(nkey: &str) -> Result<(), KeyError> {
    match KeyPair::from_public_key(nkey) {
        Ok(pair) if pair.key_pair_type() == KeyPairType::User => Ok(()),
        _ => Err(KeyError::Public { nkey: nkey.to_owned() }),
    }
}

fn of_pair(pair: &KeyPair) -> Result<UserKey, KeyError> {
    let seed = pair.seed().map_err(|error| KeyError::Seed { why: error.to_string() })?;
    Ok(UserKey { public: pair.public_key(), seed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_key_back_and_stays_out_of_logs() {
        let key = generate().unwrap();
        assert_eq!(from_seed(&format!("{}\n", key.seed)).unwrap().public, key.public);
        assert_eq!(check_public(&key.public), Ok(()));
        assert!(!format!("{key:?}").contains(&key.seed));
    }

    #[test]
    fn only_users_keys_are_taken() {
        let account = KeyPair::new_account();
        assert!(from_seed(&account.seed().unwrap()).is_err());
        let seed = generate().unwrap().seed;
        for nkey in [account.public_key().as_str(), "", "U", "UABC", seed.as_str()] {
            assert!(check_public(nkey).is_err(), "{nkey}");
        }
    }
}
