//! A small HTTP client: one request, one connection. A worker asks seldom, and of three places.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::konnectivity::TlsError;

/// Longest answer taken, in bytes: a list of 250 pods is well below.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long all of a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Not an address that can be asked.
    #[error("\"{0}\" is no address of the form https://HOST:PORT/PATH")]
    Address(String),
    /// TCP.
    #[error("cannot connect to {0}")]
    Tcp(String, #[source] io::Error),
    /// TLS.
    #[error("no TLS with {0}")]
    Handshake(String, #[source] io::Error),
    /// Certificates and keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// HTTP.
    #[error("no answer from {0}")]
    Http(String, #[source] hyper::Error),
    /// The request cannot be written.
    #[error("cannot write the request")]
    Request(#[from] http::Error),
    /// The answer is too long.
    #[error("the answer of {0} is longer than {ANSWER_BYTES_MAX} bytes")]
    Length(String),
    /// Nobody answered.
    #[error("no answer from {place} within {seconds} s", seconds = PATIENCE.as_secs())]
    Timeout {
        /// From where.
        place: String,
    },
}

/// An answer, with whatever status.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, whole.
    pub body: Bytes,
}

/// A request.
#[derive(Debug, Default)]
pub struct Ask<'a> {
    /// `GET` and so on.
    pub method: &'a str,
    /// `https://HOST:PORT/PATH`, or with `http`, where the address is one that only this machine sees.
    pub url: &'a str,
    /// Headers beside those that every request has.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, perhaps empty.
    pub body: Vec<u8>,
}

/// Asks once. TLS as configured where the address says `https`.
///
/// # Errors
/// When there is no whole answer in time.
pub async fn ask(ask: Ask<'_>, tls: Option<Arc<ClientConfig>>) -> Result<Answer, HttpError> {
    let place = ask.url.to_owned();
    timeout(PATIENCE, ask_whenever(ask, tls)).await.unwrap_or(Err(HttpError::Timeout { place }))
}

async fn ask_whenever(ask: Ask<'_>, tls: Option<Arc<ClientConfig>>) -> Result<Answer, HttpError> {
    let wrong = || HttpError::Address(ask.url.to_owned());
    let uri: Uri = ask.url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(ask.method)
        .uri(path)
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, concat!("walras-nodeagent/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    for (name, value) in ask.headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(ask.body)))?;
    let place = format!("{host}:{port}");
    let tcp = TcpStream::connect((host.as_str(), port)).await;
    let tcp = tcp.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp));
    let tcp = tcp.map_err(|error| HttpError::Tcp(place.clone(), error))?;
    match (secure, tls) {
        (false, None) => exchange(TokioIo::new(tcp), request, place).await,
        // Whoever has certificates means to be told who answers.
        (true, None) | (false, Some(_)) => Err(wrong()),
        (true, Some(config)) => {
            let name = ServerName::try_from(host).map_err(|_| wrong())?;
            let tls = TlsConnector::from(config).connect(name, tcp).await;
            let tls = tls.map_err(|error| HttpError::Handshake(place.clone(), error))?;
            exchange(TokioIo::new(tls), request, place).await
        }
    }
}

async fn exchange<S>(
    stream: TokioIo<S>,
    request: Request<Full<Bytes>>,
    place: String,
) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error| HttpError::Http(place.clone(), error);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
    let asked = async {
        let mut response = sender.send_request(request).await.map_err(failed)?;
        let mut body = BytesMut::new();
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.map_err(failed)?;
            let Some(data) = frame.data_ref() else { continue };
            if body.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(HttpError::Length(place.clone()));
            }
            body.extend_from_slice(data);
        }
        Ok(Answer { status: response.status(), body: body.freeze() })
    };
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => return answer,
        // The connection may end before its answer is read to the end by us.
        _ended = connection => {}
    }
    asked.await
}
