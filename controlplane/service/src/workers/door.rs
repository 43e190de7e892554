//! The endpoint: HTTPS, two paths, nothing kept open.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use proto::worker::{MESSAGE_BYTES_MAX, REDEEM_PATH, REPORT_PATH, Redemption, Report, ReportAnswer};
use runtime::config::WorkersSettings;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Office, clock};

/// How long a handshake may take.
const HANDSHAKE_SECONDS_MAX: u64 = 10;
/// How long a connection may take from its handshake to its end: a worker asks once on each.
const EXCHANGE_SECONDS_MAX: u64 = 30;
/// Pause after the operating system refused a connection, which it does when descriptors have run out.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// A connection with TLS, and its place among those that may be open.
pub(super) struct Guest {
    stream: TlsStream<TcpStream>,
    _place: OwnedSemaphorePermit,
}

/// The certificate and its key, as the configuration names them.
pub(super) fn acceptor(settings: &WorkersSettings) -> Result<TlsAcceptor> {
    let certificate = settings.certificate_file.as_deref().context("workers.certificate_file: is not set")?;
    let key = settings.key_file.as_deref().context("workers.key_file: is not set")?;
    let named = |key: &'static str, path: &Path| format!("workers.{key}: {}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| named("certificate_file", certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| named("key_file", key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes connections and shakes hands with each on its own, so that a slow one keeps nobody waiting.
async fn take(listener: TcpListener, acceptor: TlsAcceptor, guests: mpsc::Sender<Guest>, places: usize) {
    let room = Arc::new(Semaphore::new(places));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let (acceptor, guests) = (acceptor.clone(), guests.clone());
        tokio::spawn(async move {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "a connection cannot be set to answer at once");
            }
            let shaken =
                tokio::time::timeout(Duration::from_secs(HANDSHAKE_SECONDS_MAX), acceptor.accept(socket));
            match shaken.await {
                Ok(Ok(stream)) => {
                    // Nobody takes it where the service stops.
                    let _taken = guests.send(Guest { stream, _place: place }).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "no handshake"),
                Err(_) => tracing::debug!("a handshake took too long"),
            }
        });
    }
}

/// Serves workers until `stop` is done.
pub(super) async fn serve(
    office: Arc<Office>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let places = office.settings.connections_max.get() as usize;
    let (sender, mut guests) = mpsc::channel(places);
    let taking = tokio::spawn(take(listener, acceptor, sender, places));
    let router = router(Arc::clone(&office));
    tokio::pin!(stop);
    loop {
        let guest = tokio::select! {
            () = &mut stop => break,
            Some(guest) = guests.recv() => guest,
        };
        tokio::spawn(exchange(guest, router.clone()));
    }
    taking.abort();
    Ok(())
}

async fn exchange(guest: Guest, router: Router) {
    let Guest { stream, _place } = guest;
    let service = hyper_util::service::TowerToHyperService::new(router);
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
    let patience = Duration::from_secs(EXCHANGE_SECONDS_MAX);
    // Whoever broke off asks again.
    let _ended = tokio::time::timeout(patience, served).await;
}

fn router(office: Arc<Office>) -> Router {
    Router::new()
        .route(REDEEM_PATH, post(redeem))
        .route(REPORT_PATH, post(report))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(office)
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer to a worker cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn redeem(State(office): State<Arc<Office>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Redemption>(&body) {
        Ok(redemption) => json(&office.redeem(&redemption).await),
        Err(error) => {
            office.figures.redemptions.with_label_values(&["malformed"]).inc();
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
    }
}

async fn report(State(office): State<Arc<Office>>, headers: HeaderMap, body: Bytes) -> Response {
    let counted = |result: &str, status: StatusCode, why: &'static str| {
        office.figures.reports.with_label_values(&[result]).inc();
        (status, why).into_response()
    };
    let Ok(report) = serde_json::from_slice::<Report>(&body) else {
        return counted("malformed", StatusCode::BAD_REQUEST, "this is no report\n");
    };
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let session = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let Some((bound, holder)) = office.known(&report.worker).await else {
        if office.desk().is_over(&report.worker) {
            // Nothing is left here of a worker that missed its notice: it is told to leave all the same.
            office.figures.reports.with_label_values(&["over"]).inc();
            let generation = report.generation.saturating_add(1);
            return json(&ReportAnswer { now: clock(), generation, notice: None, tunnel: None });
        }
        return counted("unknown", StatusCode::FORBIDDEN, "no such worker has joined\n");
    };
    if !office.site_key.is_session(session, &report.worker, &bound) {
        return counted("foreign", StatusCode::FORBIDDEN, "this is not the worker's session\n");
    }
    let answer = office.desk().report(clock(), &report);
    let Some(mut answer) = answer else {
        return counted("later", StatusCode::SERVICE_UNAVAILABLE, "the leases are not known yet\n");
    };
    office.news.notify_one();
    for undone in &report.undone {
        tracing::warn!(
            worker = %report.worker, what = ?undone.what, which = undone.which, why = undone.why,
            "a worker could not do this before it left"
        );
    }
    if report.renew_token {
        answer.tunnel = office.new_token(&holder).await;
    }
    office.figures.reports.with_label_values(&["taken"]).inc();
    json(&answer)
}

/// Where a listener was bound.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("workers.listen: {address}: cannot listen"))
}
