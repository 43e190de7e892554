//! From an address to an open stream: TCP, TLS, HTTP/2, and the call that a proxy server serves.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::http_proxy::HttpProxy;
use super::status::Status;
use super::tls::{TlsError, TlsFiles};

/// The call.
const PATH: &str = "/AgentService/Connect";

/// How long all of an attempt may take.
const CONNECT: Duration = Duration::from_secs(20);

/// How long a ping may go unanswered; what gRPC implementations wait.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that the server may send ahead of what was taken: at 100 ms there and back this allows 20 MB/s. It is also
/// what waits in front of everybody's packets while the stream is held for a slow endpoint.
const WINDOW_BYTES: u32 = 2 << 20;

/// Bytes given to HTTP/2 that it has not passed on yet.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// Bytes exchanged with TCP at a time. TLS by itself reads 4 KiB and writes one record at a time, and most of what a
/// tunnel costs is the calls of the system.
const TCP_BYTES: usize = 64 << 10;

/// Headers and trailers of the server, in bytes.
const HEADER_BYTES: u32 = 64 << 10;

/// Between probes of an idle TCP connection.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// Longest token taken, in bytes.
const TOKEN_BYTES: usize = 16 << 10;

/// Where proxy servers are.
#[derive(Debug, Clone)]
pub struct ServerAddress {
    /// Name or number; certificates are compared with it.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl ServerAddress {
    /// Host and port in one text.
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// TCP.
    #[error("cannot connect to {0}")]
    Tcp(String, #[source] io::Error),
    /// The proxy that the environment names.
    #[error("{0}")]
    HttpProxy(&'static str),
    /// TLS.
    #[error("no TLS with {0}")]
    Handshake(String, #[source] io::Error),
    /// A name that no certificate can be compared with.
    #[error("\"{0}\" is neither a host name nor an address")]
    Name(String),
    /// The other side prefers another protocol.
    #[error("{0} speaks no HTTP/2 (it chose {1:?})")]
    Protocol(String, String),
    /// Certificates and keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token's file.
    #[error("cannot read the token from {0}")]
    Token(String, #[source] io::Error),
    /// The token.
    #[error("the token in {0} is {1}")]
    TokenContent(String, &'static str),
    /// HTTP/2.
    #[error("no HTTP/2 with the server")]
    Http(#[from] h2::Error),
    /// The request cannot be written.
    #[error("cannot write the request")]
    Request(#[from] http::Error),
    /// The server refuses.
    #[error("the server refuses the agent: {0}")]
    Refused(Status),
    /// Not what a proxy server answers.
    #[error("the server answered without {0}")]
    Answer(&'static str),
    /// Nobody answered.
    #[error("no answer within {} s", CONNECT.as_secs())]
    Timeout,
}

/// Who the agent says it is.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) agent_id: String,
    pub(super) identifiers: String,
    pub(super) token: Option<PathBuf>,
}

/// An open stream, and what the server said of itself.
pub(super) struct Opened {
    pub(super) server_id: String,
    pub(super) server_count: usize,
    pub(super) sender: SendStream<Bytes>,
    pub(super) receiver: RecvStream,
    /// What drives the connection. Aborted with the stream.
    pub(super) driver: Driver,
}

/// The task that drives a connection, for as long as this is kept.
pub(super) struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens one stream.
pub(super) async fn open(
    address: &ServerAddress,
    tls: &TlsFiles,
    identity: &Identity,
    keepalive: Duration,
) -> Result<Opened, ConnectError> {
    timeout(CONNECT, open_whenever(address, tls, identity, keepalive))
        .await
        .unwrap_or(Err(ConnectError::Timeout))
}

async fn open_whenever(
    address: &ServerAddress,
    tls: &TlsFiles,
    identity: &Identity,
    keepalive: Duration,
) -> Result<Opened, ConnectError> {
    // Files first: a missing token is worth no connection.
    let config = tls.load()?;
    let request = request(address, identity)?;
    let name =
        ServerName::try_from(address.host.clone()).map_err(|_| ConnectError::Name(address.host.clone()))?;
    let place = || address.authority();
    let tcp = BufStream::with_capacity(TCP_BYTES, TCP_BYTES, dial(address).await?);
    let tls = TlsConnector::from(config).connect(name, tcp).await;
    let tls = tls.map_err(|error| ConnectError::Handshake(place(), error))?;
    if let Some(other) = tls.get_ref().1.alpn_protocol().filter(|protocol| *protocol != b"h2") {
        return Err(ConnectError::Protocol(place(), String::from_utf8_lossy(other).into_owned()));
    }
    let (mut client, mut connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(tls)
        .await?;
    let pings = connection.ping_pong();
    let driver = tokio::spawn(async move {
        let driven = async {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a proxy server ended");
            }
        };
        // A server that does not answer a ping is gone, whatever TCP says: dropping the connection says so to
        // everybody who uses it.
        tokio::select! {
            () = driven => {}
            () = keep_alive(pings, keepalive) => tracing::warn!("a proxy server does not answer pings"),
        }
    });
    let driver = Driver(driver.abort_handle());
    let (response, sender) = client.send_request(request, false)?;
    let (server_id, server_count, receiver) = answer(response).await?;
    Ok(Opened { server_id, server_count, sender, receiver, driver })
}

/// A connection to the server, through a proxy where the environment says so.
async fn dial(address: &ServerAddress) -> Result<TcpStream, ConnectError> {
    let proxy =
        HttpProxy::for_server(address, |name| std::env::var(name).ok()).map_err(ConnectError::HttpProxy)?;
    let (host, port) =
        proxy.as_ref().map_or((&address.host, address.port), |proxy| (&proxy.host, proxy.port));
    let place = format!("{host}:{port}");
    let tcp = TcpStream::connect((host.as_str(), port)).await;
    let tcp = tcp.and_then(|tcp| prepare(&tcp).map(|()| tcp));
    let tcp = tcp.map_err(|error| ConnectError::Tcp(place.clone(), error))?;
    match proxy {
        Some(proxy) => {
            let through = proxy.connect(tcp, &address.authority()).await;
            through
                .map_err(|error| ConnectError::Tcp(format!("{} through {place}", address.authority()), error))
        }
        None => Ok(tcp),
    }
}

/// Ends when a ping goes unanswered.
async fn keep_alive(pings: Option<PingPong>, interval: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        let next = Instant::now() + interval;
        sleep_until(next).await;
        match timeout_at(Instant::now() + PING_TIMEOUT, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection ends by itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// No waiting for more to send, and probes while nothing is sent: what Go's sockets do unless told otherwise.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

fn request(address: &ServerAddress, identity: &Identity) -> Result<Request<()>, ConnectError> {
    let uri = Uri::builder().scheme("https").authority(address.authority()).path_and_query(PATH).build()?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("walras-nodeagent/", env!("CARGO_PKG_VERSION")))
        .header("agentid", &identity.agent_id)
        .header("agentidentifiers", &identity.identifiers);
    if let Some(path) = &identity.token {
        request = request.header(header::AUTHORIZATION, bearer(path)?);
    }
    Ok(request.body(())?)
}

/// The token as it is now: its file is renewed under us. Editors and secrets end in line ends, which no header can
/// hold.
fn bearer(path: &Path) -> Result<HeaderValue, ConnectError> {
    let place = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConnectError::Token(place(), error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(ConnectError::TokenContent(place(), "empty"));
    }
    if token.len() > TOKEN_BYTES {
        return Err(ConnectError::TokenContent(place(), "too long"));
    }
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value =
        value.map_err(|_| ConnectError::TokenContent(place(), "not made of printable characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn answer(response: ResponseFuture) -> Result<(String, usize, RecvStream), ConnectError> {
    let response = response.await?;
    let (head, receiver) = response.into_parts();
    if let Some(status) = Status::read(&head.headers) {
        return Err(ConnectError::Refused(status));
    }
    if !head.status.is_success() {
        return Err(ConnectError::Refused(Status {
            code: "Unknown",
            message: format!("HTTP status {}", head.status),
        }));
    }
    let server_id = only(&head.headers, "serverid").ok_or(ConnectError::Answer("one server id"))?;
    let count = only(&head.headers, "servercount").and_then(|count| count.parse().ok());
    let server_count = count.ok_or(ConnectError::Answer("one number of servers"))?;
    Ok((server_id, server_count, receiver))
}

/// A header's value, if there is exactly one.
fn only(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok().map(str::to_owned) }
}
