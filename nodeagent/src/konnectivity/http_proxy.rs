//! The way out through an HTTP proxy, where a network has no other: `HTTPS_PROXY` and `NO_PROXY`, as gRPC programs
//! in Go read them.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connect::ServerAddress;
use super::percent::decoded;

/// Longest head of an answer, in bytes.
const HEAD_BYTES: usize = 8 << 10;

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpProxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// What comes before the `@`, percent-encoding and all.
    user: Option<String>,
}

impl HttpProxy {
    /// The proxy for a server, by the environment that `variable` reads; none if it is to be dialled itself.
    ///
    /// # Errors
    /// With what is wrong with the variable, which may hold a password and is not repeated.
    pub(super) fn for_server(
        server: &ServerAddress,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<HttpProxy>, &'static str> {
        let either = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            value.filter(|value| !value.is_empty())
        };
        let Some(text) = either("HTTPS_PROXY") else { return Ok(None) };
        if excluded(&server.host, server.port, &either("NO_PROXY").unwrap_or_default()) {
            return Ok(None);
        }
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err("HTTPS_PROXY does not begin with http://"),
            None => text.as_str(),
        };
        let rest = rest.split('/').next().unwrap_or_default();
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse::<u16>().map_err(|_| "HTTPS_PROXY has no valid port")?)
            }
            _ => (place, 80),
        };
        let host = bare(host).to_owned();
        if host.is_empty() {
            return Err("HTTPS_PROXY names no host");
        }
        Ok(Some(HttpProxy { host, port, user: user.map(str::to_owned) }))
    }

    /// Asks the proxy for a connection to `target`, host and port.
    pub(super) async fn connect(&self, mut socket: TcpStream, target: &str) -> io::Result<TcpStream> {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(user) = &self.user {
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&base64(&decoded(user.as_bytes(), HEAD_BYTES)));
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).await?;
        // Byte by byte: what comes after the head is not ours to take.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD_BYTES {
                return Err(io::Error::other("the proxy's answer has no end"));
            }
            head.push(socket.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head);
        let first = head.lines().next().unwrap_or_default();
        if first.split(' ').nth(1) == Some("200") {
            Ok(socket)
        } else {
            Err(io::Error::other(format!("the proxy answers \"{first}\"")))
        }
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// As Go has it: this machine is never dialled through a proxy; a list names hosts, domains with all their hosts,
/// addresses and networks, each perhaps with a port, or `*` for everything.
fn excluded(host: &str, port: u16, list: &str) -> bool {
    let host = bare(host).trim_end_matches('.').to_ascii_lowercase();
    let number: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || number.is_some_and(|number| number.is_loopback()) {
        return true;
    }
    list.split(',').map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty()).any(
        |entry| {
            if entry == "*" {
                return true;
            }
            if let (Some(number), Some((network, bits))) = (number, entry.split_once('/')) {
                return network
                    .parse()
                    .is_ok_and(|network| within(number, network, bits.parse().unwrap_or(255)));
            }
            let (name, only) = match entry.rsplit_once(':') {
                Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                    (name, digits.parse::<u16>().ok())
                }
                _ => (entry.as_str(), None),
            };
            if only.is_some_and(|only| only != port) {
                return false;
            }
            let name = bare(name);
            if let Ok(other) = name.parse::<IpAddr>() {
                return number == Some(other);
            }
            let name = name.strip_prefix('*').unwrap_or(name);
            match name.strip_prefix('.') {
                Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
                None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
            }
        },
    )
}

fn within(number: IpAddr, network: IpAddr, bits: u32) -> bool {
    let same = |left: u128, right: u128, width: u32| {
        bits <= width && (bits == 0 || (left ^ right) >> (width - bits) == 0)
    };
    match (number, network) {
        (IpAddr::V4(left), IpAddr::V4(right)) => same(left.to_bits().into(), right.to_bits().into(), 32),
        (IpAddr::V6(left), IpAddr::V6(right)) => same(left.to_bits(), right.to_bits(), 128),
        _ => false,
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS.get((number >> (18 - 6 * place)) as usize & 63).copied().unwrap_or(b'=');
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{HttpProxy, base64, excluded};
    use crate::konnectivity::ServerAddress;

    fn found(host: &str, https_proxy: &str, no_proxy: &str) -> Result<Option<HttpProxy>, &'static str> {
        HttpProxy::for_server(&ServerAddress { host: host.into(), port: 8132 }, |name| match name {
            "https_proxy" => Some(https_proxy.to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        })
    }

    fn proxy(host: &str, port: u16, user: Option<&str>) -> HttpProxy {
        HttpProxy { host: host.into(), port, user: user.map(str::to_owned) }
    }

    #[test]
    fn the_environment_is_read_as_go_reads_it() {
        assert_eq!(found("a.example", "", ""), Ok(None));
        assert_eq!(found("a.example", "http://p:3128", ""), Ok(Some(proxy("p", 3128, None))));
        assert_eq!(found("a.example", "p:3128", ""), Ok(Some(proxy("p", 3128, None))));
        assert_eq!(
            found("a.example", "http://u:s%40@[fd00::1]:1/", ""),
            Ok(Some(proxy("fd00::1", 1, Some("u:s%40"))))
        );
        assert_eq!(found("a.example", "http://p", ""), Ok(Some(proxy("p", 80, None))));
        assert_eq!(found("a.example", "http://p:3128", "example"), Ok(None));
        assert_eq!(found("127.0.0.1", "http://p:3128", ""), Ok(None));
        for wrong in ["https://p:1", "socks5://p:1", "http://p:x", "http://"] {
            assert!(found("a.example", wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_excludes_what_it_names() {
        for (host, list, expected) in [
            ("a.example", "*", true),
            ("a.example", "b.example, a.example", true),
            ("a.example", ".example", true),
            ("example", ".example", false),
            ("a.example", "*.example", true),
            ("ba.example", "a.example", false),
            ("a.example", "a.example:8132", true),
            ("a.example", "a.example:443", false),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8,0.0.0.0/33", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("fd00::7", "fd00::/16", true),
            ("fd00::7", "[fd00::7]:8132", true),
            ("localhost", "", true),
            ("a.example", "", false),
        ] {
            assert_eq!(excluded(host, 8132, list), expected, "{host} in {list}");
        }
    }

    #[test]
    fn base64_is_rfc_4648_s() {
        let expected = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in expected.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), text);
        }
    }
}
