//! Values that are used but never shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What is shown instead of a secret.
pub const MASK: &str = "***";

/// The URL of a database or broker. What is shown of it, in logs, errors and dumps, is never its password nor
/// its parameters, which may hold one.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// A URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL as it is, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part before the colon.
    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    /// The URL without user, password and parameters. Several separated by commas are masked each.
    pub fn masked(&self) -> String {
        // A comma without a scheme behind it is part of what stands before it, perhaps of a password.
        let mut urls: Vec<String> = Vec::new();
        for part in self.0.split(',') {
            match urls.last_mut() {
                Some(last) if !part.contains("://") => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => urls.push(part.to_owned()),
            }
        }
        urls.iter().map(|url| mask_one(url)).collect::<Vec<_>>().join(",")
    }
}

fn mask_one(url: &str) -> String {
    let (head, has_parameters) = match url.split_once(['?', '#']) {
        Some((head, _)) => (head, true),
        None => (url, false),
    };
    let mut masked = match head.split_once("://") {
        // Up to the last @: a password may hold one, and may hold a slash too where somebody forgot to encode it.
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, place)) => format!("{scheme}://{MASK}@{place}"),
            None => head.to_owned(),
        },
        None => match head.rsplit_once('@') {
            Some((_, place)) => format!("{MASK}@{place}"),
            None => head.to_owned(),
        },
    };
    if has_parameters {
        masked.push('?');
        masked.push_str(MASK);
    }
    masked
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.masked())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.masked(), out)
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.masked())
    }
}

/// Takes text and nothing else; its errors do not repeat what was there.
pub(super) struct SecretText(pub(super) String);

struct SecretVisitor;

impl de::Visitor<'_> for SecretVisitor {
    type Value = SecretText;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretText, E> {
        Ok(SecretText(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretText, E> {
        Err(E::custom("must be text; what it is is not shown"))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretText, E> {
        Err(E::custom("must be text; what it is is not shown"))
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(SecretVisitor)
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        SecretText::deserialize(from).map(|SecretText(url)| Self(url))
    }
}

/// SHA-256 of a tenant's token: 64 hexadecimal digits. Not shown, because a weak token could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token that has this SHA-256.
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// The 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(MASK)
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        const PROBLEM: &str =
            "must be the SHA-256 of a token, 64 hexadecimal digits; what it is is not shown";
        let SecretText(text) = SecretText::deserialize(from)?;
        let refused = || de::Error::custom(PROBLEM);
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| refused())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refused())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        let cases = [
            ("sqlite:data/walras.db", "sqlite:data/walras.db"),
            ("postgres://db.internal/walras", "postgres://db.internal/walras"),
            ("postgres://walras:s3cr3t@db/walras", "postgres://***@db/walras"),
            ("postgres://walras:s3/cr@3t@db:5432/walras", "postgres://***@db:5432/walras"),
            ("postgres://db/walras?password=s3cr3t", "postgres://db/walras?***"),
            ("nats://a:s3cr3t@h1:4222,nats://s3cr3t@h2:4222", "nats://***@h1:4222,nats://***@h2:4222"),
            ("walras:s3cr3t@db", "***@db"),
        ];
        for (url, shown) in cases {
            let secret = SecretUrl::new(url);
            assert_eq!(secret.to_string(), shown);
            assert!(!format!("{secret:?}").contains("cr3t"));
            assert!(!serde_json::to_string(&secret).unwrap().contains("cr3t"));
        }
    }

    #[test]
    fn a_password_with_a_comma_is_not_shown() {
        let secret = SecretUrl::new("postgres://walras:s3,cr3t@db/walras");
        assert!(!secret.to_string().contains("s3"), "{secret}");
    }
}
