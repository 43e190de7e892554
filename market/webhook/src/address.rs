//! Where a webhook may point, and which addresses may be dialled for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proto::webhook::URL_BYTES_MAX;

/// Why a text is no address of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Too many bytes.
    #[error("is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// Something that does not stand in a URL.
    #[error("holds a character that a URL does not have")]
    Character,
    /// Another scheme.
    #[error("does not begin with https:// or http://")]
    Scheme,
    /// A name and password.
    #[error("holds a user: a secret does not belong into an address")]
    User,
    /// No host, or one that is none.
    #[error("names no host")]
    Host,
    /// A port that is none.
    #[error("names no port between 1 and 65535")]
    Port,
    /// A part that is never sent.
    #[error("holds a fragment, which is never sent")]
    Fragment,
}

/// An address taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Whether it is `https`.
    pub is_secure: bool,
    /// The host, without brackets.
    pub host: &'a str,
    /// The port.
    pub port: u16,
}

impl<'a> Target<'a> {
    /// Reads an absolute `http` or `https` URL.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(url: &'a str) -> Result<Self, UrlError> {
        if url.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        if !url
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`'))
        {
            return Err(UrlError::Character);
        }
        if url.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (is_secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(UrlError::Scheme),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, _) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None if is_secure => 443,
            None => 80,
            Some(port) => port.parse().ok().filter(|&port| port > 0).ok_or(UrlError::Port)?,
        };
        Ok(Self { is_secure, host, port })
    }

    /// The host, where it is an address and not a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Host and port of an authority.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or(UrlError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| UrlError::Host)?;
        return match behind.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if behind.is_empty() => Ok((host, None)),
            None => Err(UrlError::Host),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(is_name) {
        return Err(UrlError::Host);
    }
    Ok((host, port))
}

/// Whether an address is of the public network: not of this machine, of a private network, of a link, or set aside for
/// something else (the registries of special-purpose addresses, RFC 6890). An address that carries another is what it
/// carries.
pub const fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

// One entry of the registry stands on a line.
#[allow(clippy::unnested_or_patterns)]
const fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, _, _)
    )
}

/// The IPv4 address in two groups of an IPv6 address.
const fn carried(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::new((high >> 8) as u8, (high & 0xff) as u8, (low >> 8) as u8, (low & 0xff) as u8)
}

const fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let groups = address.segments();
    match (groups[0], groups[1]) {
        // Translated: an IPv4 address in the last 32 bits (RFC 6052), or in the second and third group (6to4).
        (0x64, 0xff9b) if matches!(groups, [_, _, 0, 0, 0, 0, ..]) => {
            is_public_v4(carried(groups[6], groups[7]))
        }
        (0x2002, _) => is_public_v4(carried(groups[1], groups[2])),
        // Teredo, benchmarking, ORCHID, documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff) => false,
        // Of what is given out at all, the rest.
        (0x2000..=0x3fff, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_of_the_public_network() {
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::10.0.0.1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "5f00::1",
            "3fff::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "9.9.9.9",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.254",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn an_address_is_taken_apart_or_refused() {
        let target = |is_secure, host, port| Ok(Target { is_secure, host, port });
        for (url, found) in [
            ("https://example.org/hook?x=1", target(true, "example.org", 443)),
            ("http://example.org", target(false, "example.org", 80)),
            ("https://example.org:8443/", target(true, "example.org", 8443)),
            ("http://[::1]:9/x", target(false, "::1", 9)),
            ("https://[2606:4700::1111]", target(true, "2606:4700::1111", 443)),
            ("https://10.0.0.1/", target(true, "10.0.0.1", 443)),
            ("ftp://example.org", Err(UrlError::Scheme)),
            ("example.org", Err(UrlError::Scheme)),
            ("https://", Err(UrlError::Host)),
            ("https:///path", Err(UrlError::Host)),
            ("https://a:b@example.org", Err(UrlError::User)),
            ("https://example.org:0/", Err(UrlError::Port)),
            ("https://example.org:99999/", Err(UrlError::Port)),
            ("https://example.org:/", Err(UrlError::Port)),
            ("https://example.org/#x", Err(UrlError::Fragment)),
            ("https://exa mple.org", Err(UrlError::Character)),
            ("https://example.org/\r\nx: y", Err(UrlError::Character)),
            ("https://[::1/", Err(UrlError::Host)),
            ("https://[::1]x/", Err(UrlError::Host)),
        ] {
            assert_eq!(Target::parse(url), found, "{url}");
        }
        let long = format!("https://example.org/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(Target::parse(&long), Err(UrlError::TooLong));
        assert_eq!(Target::parse("http://127.0.0.1:1/").unwrap().address().map(is_public), Some(false));
        // A number that some resolvers take for an address is a name here, and is looked at when it is resolved.
        assert_eq!(Target::parse("http://2130706433/").unwrap().address(), None);
    }
}
