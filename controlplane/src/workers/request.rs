//! A kubelet's request for its serving certificate (PKCS #10, RFC 2986; the alternative names are RFC 5280's), read as
//! far as it must be before it is approved: for whom it is, and under which names and addresses somebody would be
//! believed who holds it. What is not understood whole is not approved.

use std::net::IpAddr;

use proto::worker::certificate::unpem;

/// Names and addresses that one request may hold.
const NAMES_MAX: usize = 32;
/// The longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const ATTRIBUTES: u8 = 0xa0;
/// Alternative names: a name in DNS, an address.
const DNS_NAME: u8 = 0x82;
const ADDRESS: u8 = 0x87;

/// 2.5.4.10, organization.
const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];
/// 2.5.4.3, common name.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// 1.2.840.113549.1.9.14, the extensions that are asked for.
const EXTENSIONS: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// 2.5.29.17, alternative names.
const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 0x1d, 0x11];

/// Why a request is not for a kubelet's serving certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a request in PEM, or with something in it that is not understood.
    #[error("the request cannot be read")]
    Form,
    /// For somebody else than a Node.
    #[error("the request's subject is not a Node of system:nodes")]
    Subject,
    /// It asks for more than names and addresses.
    #[error("the request asks for an extension other than alternative names")]
    Extension,
    /// A kind of name that no kubelet has.
    #[error("the request asks for a name that is neither one in DNS nor an address")]
    Name,
    /// Too many of them.
    #[error("the request asks for more than {NAMES_MAX} names")]
    Count,
}

/// What a kubelet asks to be known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingRequest {
    /// Its Node.
    pub node: String,
    /// Names in DNS.
    pub names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

/// Bytes that are still to be read.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The next value, which has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, value) = self.next()?;
        (found == tag).then_some(value)
    }

    /// The next value with its tag. Lengths take two more bytes at most.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match (first, rest) {
            (0..=0x7f, _) => (usize::from(first), rest),
            (0x81, [one, rest @ ..]) => (usize::from(*one), rest),
            (0x82, [one, two, rest @ ..]) => (usize::from(*one) << 8 | usize::from(*two), rest),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// Reads a request in PEM.
///
/// # Errors
/// When it is for anything else than the serving certificate of a Node's kubelet.
pub fn read_serving_request(pem: &str) -> Result<ServingRequest, RequestError> {
    if pem.len() > REQUEST_BYTES_MAX {
        return Err(RequestError::Form);
    }
    let bytes = unpem("CERTIFICATE REQUEST", pem).ok_or(RequestError::Form)?;
    let parts = || {
        let mut whole = Rest(&bytes);
        let mut info = Rest(Rest(whole.take(SEQUENCE)?).take(SEQUENCE)?);
        info.take(INTEGER)?;
        let subject = info.take(SEQUENCE)?;
        info.take(SEQUENCE)?;
        let attributes = info.take(ATTRIBUTES)?;
        (whole.is_empty() && info.is_empty()).then_some((subject, attributes))
    };
    let (subject, attributes) = parts().ok_or(RequestError::Form)?;
    let node = node_of(subject).ok_or(RequestError::Subject)?;
    let (names, addresses) = alternatives(attributes)?;
    Ok(ServingRequest { node, names, addresses })
}

/// The Node that a subject is of: `system:node:NAME` in `system:nodes` and nothing beside.
fn node_of(subject: &[u8]) -> Option<String> {
    let mut rest = Rest(subject);
    let (mut organization, mut common) = (None, None);
    while !rest.is_empty() {
        let mut set = Rest(rest.take(SET)?);
        let mut attribute = Rest(set.take(SEQUENCE)?);
        let object = attribute.take(OBJECT)?;
        let (tag, text) = attribute.next()?;
        let text = std::str::from_utf8(text).ok().filter(|_| matches!(tag, UTF8 | PRINTABLE))?;
        let place = match object {
            _ if object == ORGANIZATION => &mut organization,
            _ if object == COMMON_NAME => &mut common,
            _ => return None,
        };
        if place.replace(text).is_some() || !set.is_empty() || !attribute.is_empty() {
            return None;
        }
    }
    let node = common?.strip_prefix("system:node:")?;
    (organization? == "system:nodes").then(|| node.to_owned())
}

/// The alternative names that attributes ask for.
fn alternatives(attributes: &[u8]) -> Result<(Vec<String>, Vec<IpAddr>), RequestError> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let mut rest = Rest(attributes);
    while !rest.is_empty() {
        let form = RequestError::Form;
        let mut attribute = Rest(rest.take(SEQUENCE).ok_or(form)?);
        if attribute.take(OBJECT).ok_or(form)? != EXTENSIONS {
            return Err(RequestError::Extension);
        }
        let mut extensions = Rest(Rest(attribute.take(SET).ok_or(form)?).take(SEQUENCE).ok_or(form)?);
        while !extensions.is_empty() {
            let mut extension = Rest(extensions.take(SEQUENCE).ok_or(form)?);
            if extension.take(OBJECT).ok_or(form)? != ALTERNATIVE_NAMES {
                return Err(RequestError::Extension);
            }
            let (mut tag, mut value) = extension.next().ok_or(form)?;
            if tag == BOOLEAN {
                (tag, value) = extension.next().ok_or(form)?;
            }
            if tag != OCTET_STRING || !extension.is_empty() {
                return Err(form);
            }
            let mut listed = Rest(Rest(value).take(SEQUENCE).ok_or(form)?);
            while !listed.is_empty() {
                match listed.next().ok_or(form)? {
                    (DNS_NAME, name) => names.push(String::from_utf8(name.to_vec()).map_err(|_| form)?),
                    (ADDRESS, bytes) => addresses.push(address(bytes).ok_or(form)?),
                    _ => return Err(RequestError::Name),
                }
                if names.len() + addresses.len() > NAMES_MAX {
                    return Err(RequestError::Count);
                }
            }
        }
    }
    Ok((names, addresses))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

impl ServingRequest {
    /// Why it is not approved for a worker whose Node says to have these addresses; `others` are what other Nodes of
    /// the cluster say to have, for nobody may be believed to be them.
    ///
    /// # Errors
    /// One line for people, with the name or address.
    pub fn check(&self, node: &str, own: &[IpAddr], others: &[IpAddr]) -> Result<(), String> {
        if self.node != node {
            return Err(format!("it is for the Node {}, and asked for by {node}", self.node));
        }
        if self.names.is_empty() && self.addresses.is_empty() {
            return Err("it names nothing".to_owned());
        }
        if let Some(name) = self.names.iter().find(|name| *name != node) {
            return Err(format!("it names {name}, which is not the Node"));
        }
        for address in &self.addresses {
            if address.is_unspecified() || address.is_multicast() || !own.contains(address) {
                return Err(format!("it names {address}, which is not an address of the Node"));
            }
            if others.contains(address) {
                return Err(format!("it names {address}, which another Node has"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::worker::certificate::{pem, unpem};

    use super::*;

    /// Made by `openssl req` on P-256 with subject `/O=system:nodes/CN=system:node:main-7` and alternative names
    /// `DNS:main-7, IP:10.0.0.7, IP:fd00::7`.
    const REQUEST: &str = include_str!("../../tests/serving-request.pem");

    fn good() -> ServingRequest {
        read_serving_request(REQUEST).unwrap()
    }

    #[test]
    fn a_kubelet_s_request_is_read() {
        let request = good();
        assert_eq!((request.node.as_str(), request.names.as_slice()), ("main-7", &["main-7".to_owned()][..]));
        let own: Vec<IpAddr> = ["10.0.0.7", "fd00::7"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(request.addresses, own);
        assert_eq!(request.check("main-7", &own, &[]), Ok(()));
        assert!(request.check("main-8", &own, &[]).is_err());
        assert!(request.check("main-7", &own[..1], &[]).unwrap_err().contains("fd00::7"));
        assert!(request.check("main-7", &own, &own[..1]).unwrap_err().contains("10.0.0.7"));
        let other = ServingRequest { names: vec!["kubernetes.default".to_owned()], ..good() };
        assert!(other.check("main-7", &own, &[]).unwrap_err().contains("kubernetes.default"));
        let bare = ServingRequest { names: vec![], addresses: vec![], ..good() };
        assert!(bare.check("main-7", &own, &[]).is_err());
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        let bytes = unpem("CERTIFICATE REQUEST", REQUEST).unwrap();
        for length in 0..bytes.len() {
            let cut = pem("CERTIFICATE REQUEST", &bytes[..length]);
            assert!(read_serving_request(&cut).is_err(), "cut at {length}");
        }
        // Another byte may stand in the key or the signature, which the signer checks; it never makes another name.
        for place in 0..bytes.len() {
            let mut other = bytes.clone();
            other[place] ^= 0x01;
            if let Ok(read) = read_serving_request(&pem("CERTIFICATE REQUEST", &other)) {
                let own = good();
                assert!(read == own || read.check("main-7", &own.addresses, &[]).is_err(), "{read:?}");
            }
        }
        for text in [
            "",
            "-----BEGIN CERTIFICATE REQUEST-----",
            "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----",
        ] {
            assert_eq!(read_serving_request(text), Err(RequestError::Form));
        }
    }
}
