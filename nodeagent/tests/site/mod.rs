//! A site to join: the service that keeps control planes, as far as workers see it, and a cluster's API server, both
//! behind TLS. What the service decides is decided by `proto::worker`; here it is only remembered.

#![allow(dead_code, reason = "each test uses what it needs")]

mod authority;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use authority::Authority;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use cluster::{Body as Content, Cluster, Settings};
use cluster_server::Shared;
use proto::Timestamp;
use proto::worker::{
    Admission, Bound, ClusterTerms, KubeletTerms, NoticeOrder, REDEEM_PATH, REPORT_PATH, Redemption,
    RedemptionAnswer, RedemptionRefusal, Report, ReportAnswer, SiteKey, TunnelTerms, Verdict, WorkerId,
    WorkerState,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::double::certificate;

/// What the service remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Leases and the generations of their servers.
    pub(crate) live: BTreeMap<String, u64>,
    pub(crate) bound: BTreeMap<String, Bound>,
    pub(crate) refusals: Vec<RedemptionRefusal>,
    pub(crate) redemptions: usize,
    pub(crate) reports: Vec<Report>,
    pub(crate) notice: Option<NoticeOrder>,
    /// Answers to redemptions that get lost.
    pub(crate) lose: usize,
}

pub(crate) struct Site {
    pub(crate) key: SiteKey,
    pub(crate) cluster: Arc<Shared>,
    pub(crate) service: SocketAddr,
    pub(crate) api: SocketAddr,
    memory: Mutex<Memory>,
    authority: Authority,
    tunnel: SocketAddr,
}

pub(crate) const TOKEN: &str = "konnectivity-token";

/// Connections with TLS.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((socket, address)) = self.listener.accept().await else { continue };
            // Whoever has no certificate that is taken comes no further.
            if let Ok(stream) = self.acceptor.accept(socket).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn tls(workers: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = match workers {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate.clone().into()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_file(certificate("server.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).expect("a key");
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("certificate and key")))
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    Timestamp::from_micros(since.as_micros() as i64)
}

impl Site {
    /// A site whose tunnel leads to `tunnel`.
    pub(crate) async fn start(tunnel: SocketAddr) -> Arc<Site> {
        let settings = Settings { pod_start_micros: 50_000, pod_stop_micros: 50_000, ..Settings::default() };
        let authority = Authority::new();
        let (service, api) = (listen(None).await, listen(Some(&authority)).await);
        let site = Arc::new(Site {
            key: SiteKey::new(&[7; 32]).expect("a key"),
            cluster: Shared::new(settings),
            service: service.listener.local_addr().expect("an address"),
            api: api.listener.local_addr().expect("an address"),
            memory: Mutex::default(),
            authority,
            tunnel,
        });
        let serving = Router::new().fallback(serve).with_state(Arc::clone(&site));
        tokio::spawn(async move { axum::serve(service, serving).await });
        let serving = Router::new().fallback(kubernetes).with_state(Arc::clone(&site));
        tokio::spawn(async move { axum::serve(api, serving).await });
        let cluster = Arc::clone(&site.cluster);
        tokio::spawn(async move {
            loop {
                cluster.with(Cluster::advance);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        site
    }

    pub(crate) fn memory<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A lease, and the secret of its server.
    pub(crate) fn lease(&self, worker: &str) -> String {
        self.memory(|memory| memory.live.insert(worker.to_owned(), 1));
        let worker: WorkerId = worker.parse().expect("a worker");
        self.key.mint(worker, 1, now().plus_seconds(900)).reveal()
    }

    /// Asks the API server without TLS and without a name: what an administrator does.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = cluster::request::Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            content_type: if method == "PATCH" { "application/merge-patch+json" } else { "application/json" }
                .to_owned(),
            accept: "application/json".to_owned(),
            user_agent: "test/1".to_owned(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let answer = self.cluster.with(|cluster, now| cluster.handle(now, &request));
        (answer.code, answer.document().clone())
    }

    fn redeem(&self, redemption: &Redemption) -> RedemptionAnswer {
        let claim = match self.key.claim(redemption) {
            Ok(claim) => claim,
            Err(reason) => return self.refuse(reason),
        };
        // That the key is its own: the signer of a real cluster checks the same of the request.
        let info = proto::worker::certificate::request_info(&claim.worker, &claim.public_key);
        let bytes = redemption.signature.as_bytes().chunks(2);
        let signature: Vec<u8> = bytes
            .map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("digits"))
            .collect();
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, claim.public_key.as_bytes());
        assert!(verifier.verify(&info, &signature).is_ok(), "a request that its key did not sign");
        let name = claim.worker.to_string();
        let verdict = self.memory(|memory| {
            memory.redemptions += 1;
            claim.judge(now(), memory.live.get(&name).copied(), memory.bound.get(&name))
        });
        match verdict {
            Verdict::Refuse(reason) => return self.refuse(reason),
            Verdict::Bind(bound) => {
                self.memory(|memory| memory.bound.insert(name.clone(), bound));
            }
            Verdict::Again => {}
        }
        let bound = self.memory(|memory| memory.bound[&name].clone());
        let authority = std::fs::read_to_string(certificate("ca.pem")).expect("an authority");
        RedemptionAnswer::Admitted(Box::new(Admission {
            now: now(),
            generation: claim.generation,
            session: self.key.session(&claim.worker, &bound),
            report_seconds: 1,
            cluster: ClusterTerms {
                api_server: format!("https://127.0.0.1:{}", self.api.port()),
                certificate_authority: authority,
                certificate: self.authority.sign(&claim.worker, &claim.public_key),
            },
            kubelet: KubeletTerms {
                cluster_domain: "cluster.local".into(),
                labels: BTreeMap::from([("walras/pool".into(), "p".into())]),
                ..KubeletTerms::default()
            },
            tunnel: Some(TunnelTerms {
                host: "127.0.0.1".into(),
                port: self.tunnel.port(),
                token: TOKEN.into(),
                token_expires_at: now().plus_seconds(3_600),
            }),
            bus: None,
            worker: claim.worker,
        }))
    }

    fn refuse(&self, reason: RedemptionRefusal) -> RedemptionAnswer {
        self.memory(|memory| memory.refusals.push(reason));
        RedemptionAnswer::Refused { reason }
    }

    fn report(&self, headers: &HeaderMap, report: Report) -> Option<ReportAnswer> {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        let name = report.worker.to_string();
        self.memory(|memory| {
            let bound = memory.bound.get(&name)?;
            if !self.key.is_session(token, &report.worker, bound) {
                return None;
            }
            let generation = report.generation;
            memory.reports.push(report);
            Some(ReportAnswer { now: now(), generation, notice: memory.notice.clone(), tunnel: None })
        })
    }
}

/// Whether a worker told the service that it is so.
pub(crate) fn has_told(site: &Site, state: WorkerState) -> bool {
    site.memory(|memory| memory.reports.iter().any(|report| report.state == state))
}

async fn listen(workers: Option<&Authority>) -> Secure {
    // On every address: a worker may be in a network of its own.
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    Secure { listener, acceptor: tls(workers) }
}

fn response(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

async fn serve(State(site): State<Arc<Site>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, proto::worker::MESSAGE_BYTES_MAX).await.expect("a body");
    match head.uri.path() {
        REDEEM_PATH => {
            let Ok(redemption) = serde_json::from_slice(&body) else { return response(400, "malformed") };
            let answer = site.redeem(&redemption);
            let lost = site.memory(|memory| {
                memory.lose = memory.lose.saturating_sub(1);
                memory.lose > 0
            });
            if lost {
                return response(502, "lost");
            }
            response(200, serde_json::to_string(&answer).expect("an answer"))
        }
        REPORT_PATH => {
            let Ok(report) = serde_json::from_slice(&body) else { return response(400, "malformed") };
            match site.report(&head.headers, report) {
                Some(answer) => response(200, serde_json::to_string(&answer).expect("an answer")),
                None => response(403, "no session"),
            }
        }
        _ => response(404, "nothing"),
    }
}

async fn kubernetes(State(site): State<Arc<Site>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let text = |name: header::HeaderName| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let request = cluster::request::Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        content_type: text(header::CONTENT_TYPE),
        accept: text(header::ACCEPT),
        user_agent: text(header::USER_AGENT),
        body: body.to_vec(),
    };
    let answer = site.cluster.with(|cluster, now| cluster.handle(now, &request));
    match answer.body {
        Content::Json(document) => response(answer.code, document.to_string()),
        Content::Text(text) => response(answer.code, text),
        Content::Watch(_) => response(500, "no watches here"),
    }
}
