//! Reading the server's monitoring pages: one GET, one bounded answer.
//!
//! Twenty lines of HTTP/1.0 rather than an HTTP client: the pages are on loopback or a private network,
//! without TLS, redirects or compression.

use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Largest page read, in bytes.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;

/// How long a page may take.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(2);

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// HTTP status code.
    pub(crate) status: u16,
    /// What stands below the headers.
    pub(crate) body: Vec<u8>,
}

/// Why a page could not be read.
#[derive(Debug, Error)]
pub(crate) enum MonitoringError {
    /// The address cannot be used.
    #[error("monitoring address {url:?}: must be http://host:port")]
    Address { url: String },
    /// The server did not answer, or broke off.
    #[error("monitoring page {url}{path}: {why}")]
    Read { url: String, path: &'static str, why: String },
}

/// Reads `path` below the base address `url`.
pub(crate) async fn get(url: &str, path: &'static str) -> Result<Page, MonitoringError> {
    let host = url.strip_prefix("http://").map(|host| host.trim_end_matches('/'));
    let Some(host) = host.filter(|host| !host.is_empty() && !host.contains(['/', ' ', '\r', '\n'])) else {
        return Err(MonitoringError::Address { url: url.to_owned() });
    };
    let failed = |why: String| MonitoringError::Read { url: url.to_owned(), path, why };
    let answer = match timeout(PAGE_WAIT_MAX, exchange(host, path)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer within {PAGE_WAIT_MAX:?}"))),
    };
    parse(&answer).ok_or_else(|| failed("not an HTTP answer".to_owned()))
}

async fn exchange(host: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<Page> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Page { status, body: answer.get(end + 4..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let page = parse(b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\n{}").unwrap();
        assert_eq!((page.status, page.body.as_slice()), (503, b"{}".as_slice()));
        assert!(
            parse(b"HTTP/1.0 200 OK\r\n").is_none() && parse(b"").is_none() && parse(b"x\r\n\r\n").is_none()
        );
    }

    #[tokio::test]
    async fn an_address_must_be_plain_http() {
        for url in ["https://127.0.0.1:1", "127.0.0.1:1", "http://", "http://a/b", "http://a b"] {
            assert!(matches!(get(url, "/").await, Err(MonitoringError::Address { .. })), "{url}");
        }
    }
}
