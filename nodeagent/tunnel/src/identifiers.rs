//! What an agent says it can reach.

use thiserror::Error;

/// The kinds of identifier that a proxy server knows.
const KNOWN: [&str; 5] = ["ipv4", "ipv6", "host", "cidr", "default-route"];

/// Longest text of identifiers, in bytes: it travels as one header.
const LENGTH_BYTES: usize = 4 << 10;

/// Why identifiers are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentifierError {
    /// No such kind.
    #[error("unknown identifier \"{0}\", expected one of ipv4, ipv6, host, cidr, default-route")]
    Unknown(String),
    /// Not what a URL's query looks like.
    #[error("identifiers are not URL-encoded at \"{0}\"")]
    Encoding(String),
    /// More than a header should hold.
    #[error("identifiers of {0} bytes, at most {LENGTH_BYTES} are sent")]
    TooLong(usize),
}

/// Checks identifiers in the form of a URL's query, `ipv4=10.0.0.7&host=a`.
///
/// # Errors
/// With the part that is wrong.
pub fn check_identifiers(text: &str) -> Result<(), IdentifierError> {
    if text.len() > LENGTH_BYTES {
        return Err(IdentifierError::TooLong(text.len()));
    }
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        for side in [name, value] {
            if !is_encoded(side) {
                return Err(IdentifierError::Encoding(part.to_owned()));
            }
        }
        if !KNOWN.contains(&name) {
            return Err(IdentifierError::Unknown(name.to_owned()));
        }
    }
    Ok(())
}

fn is_encoded(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hexadecimal = |digit: Option<u8>| digit.is_some_and(|digit| digit.is_ascii_hexdigit());
                if !hexadecimal(bytes.next()) || !hexadecimal(bytes.next()) {
                    return false;
                }
            }
            // It also has to fit into a header.
            b';' | ..=b' ' | 0x7f.. => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{IdentifierError, check_identifiers};

    #[test]
    fn known_kinds_pass_and_others_are_named() {
        for good in [
            "",
            "ipv4=10.0.0.7",
            "ipv4=10.0.0.7&ipv6=fd00::7&host=n7&host=n7.x&cidr=10.1.0.0/16&default-route=true",
            "host=a%2Db&",
            "cidr=127.0.0.1%2F16",
        ] {
            assert_eq!(check_identifiers(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("ip=1.2.3.4", IdentifierError::Unknown("ip".to_owned())),
            ("ipv4=1.2.3.4&node=a", IdentifierError::Unknown("node".to_owned())),
            ("host=a%2", IdentifierError::Encoding("host=a%2".to_owned())),
            ("host=a;b", IdentifierError::Encoding("host=a;b".to_owned())),
            ("host=a b", IdentifierError::Encoding("host=a b".to_owned())),
            ("host=ä", IdentifierError::Encoding("host=ä".to_owned())),
        ] {
            assert_eq!(check_identifiers(bad), Err(why), "{bad}");
        }
        assert_eq!(check_identifiers(&"x".repeat(5_000)), Err(IdentifierError::TooLong(5_000)));
    }
}
