//! What workers join for real: a market with its journal, a management cluster whose planes serve their tenants, and
//! the service between them. Only the tunnel's servers, the signer of certificates and the kubelet are doubles.

#![allow(dead_code, reason = "each test uses what it needs")]

mod ground;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cluster::request::Request;
use cluster::{Body, Settings};
use cluster_server::Shared;
use journal::{Journal, Owner};
use proto::machine::{Role, Sender};
use proto::market::Trust;
use proto::worker::certificate::{base64, unbase64, unpem};
use proto::worker::{JoinSecretAnswer, PublicKey};
use proto::{Timestamp, subject};
use runtime::bus::Bus;
use runtime::config::{Config, Sources, load};
use runtime::nats::layout;
use runtime::nats::server::Server;
use runtime::shell::Shell;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use self::ground::Ground;
use crate::authority::Authority;
use crate::double::certificate;

/// Between two looks of what goes on by itself.
const LOOK: Duration = Duration::from_millis(20);
/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Path of the tenant's own API.
pub(crate) const TENANT: &str = "/tenants/walras-acme/c";

pub(crate) struct World {
    pub(crate) service: SocketAddr,
    pub(crate) cluster: Arc<Shared>,
    pub(crate) bus: Bus,
    pub(crate) shell: Shell,
    folder: TempDir,
    sent: std::sync::atomic::AtomicU64,
    /// Those who speak to a broker with keys of their own; on a memory bus everybody is heard.
    parties: BTreeMap<&'static str, Bus>,
    broker: Option<Server>,
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    Timestamp::from_micros(since.as_micros() as i64)
}

/// TLS in front of a plain server. Workers show certificates, administrators need not.
fn tls(workers: &Authority) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let mut roots = RootCertStore::empty();
    roots.add(workers.certificate.clone().into()).expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.allow_unauthenticated().build().expect("a verifier");
    let chain = vec![CertificateDer::from_pem_file(certificate("server.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).expect("a key");
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.expect("certificate and key")))
}

async fn forward(listener: TcpListener, acceptor: TlsAcceptor, plain: SocketAddr) {
    while let Ok((socket, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Whoever is refused, or breaks off, comes again.
            let Ok(mut secure) = acceptor.accept(socket).await else { return };
            let Ok(mut inside) = TcpStream::connect(plain).await else { return };
            let _copied = tokio::io::copy_bidirectional(&mut secure, &mut inside).await;
        });
    }
}

/// The signer of a tenant's certificates: signs what is approved.
async fn sign(cluster: Arc<Shared>, authority: Authority) {
    let path = format!("{TENANT}/apis/certificates.k8s.io/v1/certificatesigningrequests");
    loop {
        let (_, list) = ask(&cluster, "GET", &path, &Value::Null);
        for request in list["items"].as_array().into_iter().flatten() {
            let conditions = request["status"]["conditions"].as_array();
            let approved = conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Approved"));
            let is_client = request["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet";
            if !approved || !is_client || request["status"]["certificate"].is_string() {
                continue;
            }
            let pem = unbase64(request["spec"]["request"].as_str().expect("a request")).expect("base64");
            let pem = String::from_utf8(pem).expect("a text");
            let bytes = unpem("CERTIFICATE REQUEST", &pem).expect("a request");
            let mark = [0x03, 0x42, 0x00, 0x04];
            let at = bytes.windows(4).position(|window| window == mark).expect("a key") + 3;
            let key = PublicKey::from_bytes(&bytes[at..at + 65]).expect("a point");
            let worker = request["metadata"]["labels"]["walras.dev/worker"].as_str().expect("a worker");
            let signed = authority.sign(&worker.parse().expect("a worker"), &key);
            let status = json!({ "status": { "certificate": base64(signed.as_bytes()) } });
            let name = request["metadata"]["name"].as_str().expect("a name");
            let (code, _) = ask(&cluster, "PATCH", &format!("{path}/{name}/status"), &status);
            assert_eq!(code, 200);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks the management cluster, or through it a tenant's, as their administrator.
pub(crate) fn ask(cluster: &Shared, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        content_type: if method == "PATCH" { "application/merge-patch+json" } else { "application/json" }
            .to_owned(),
        accept: "application/json".to_owned(),
        user_agent: "test/1".to_owned(),
        body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
    };
    let answer = cluster.with(|cluster, now| cluster.handle(now, &request));
    match answer.body {
        Body::Json(document) => (answer.code, document),
        Body::Text(_) | Body::Watch(_) => (answer.code, Value::Null),
    }
}

impl World {
    /// A world whose tunnels lead to `tunnel`.
    pub(crate) async fn start(tunnel: SocketAddr) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        World::on(Ground::memory(), folder, tunnel).await
    }

    /// The same with a real broker.
    pub(crate) async fn with_broker(tunnel: SocketAddr) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        World::on(Ground::broker(&folder).await, folder, tunnel).await
    }

    async fn on(ground: Ground, folder: TempDir, tunnel: SocketAddr) -> World {
        let authority = Authority::new();
        let plain = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let secure = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let inside = plain.local_addr().expect("an address");
        let settings = Settings {
            base_url: format!("https://127.0.0.1:{}", secure.local_addr().expect("an address").port()),
            certificate_authority: std::fs::read_to_string(certificate("ca.pem")).expect("an authority"),
            signs_certificates: false,
            reaction_micros: 1_000,
            pod_start_micros: 30_000,
            pod_stop_micros: 30_000,
            kamaji_pass_micros: 2_000,
            kamaji_certificates_micros: 10_000,
            ..Settings::default()
        };
        let cluster = Shared::new(settings);
        cluster.with(|cluster, now| cluster.furnish(now, 3));
        tokio::spawn(cluster_server::serve(plain, Arc::clone(&cluster)));
        tokio::spawn(forward(secure, tls(&authority), inside));
        plane(&cluster, tunnel).await;
        tokio::spawn(sign(Arc::clone(&cluster), authority));

        std::fs::write(folder.path().join("site.key"), "of at least thirty-two characters\n")
            .expect("written");
        let file = folder.path().join("walras.toml");
        std::fs::write(&file, configuration(&ground.settings)).expect("written");
        let config =
            load(&Sources { file: Some(file), ..Sources::default() }).expect("a configuration").config;
        let Ground { bus, parties, broker, .. } = ground;
        for spec in [
            layout::answer_stream(),
            layout::order_stream(),
            layout::command_stream("market", "main"),
            layout::event_stream("market", "main"),
        ] {
            bus.ensure_stream(&spec).await.expect("a stream");
        }
        let mut shell = Shell::bare("market").expect("a shell");
        market(&mut shell, &bus, &config, &folder).await;
        let management = kube::Config::new(format!("http://{inside}").parse().expect("an address"));
        let management = controlplane_service::client_of(management).expect("a client");
        let exchanges = ["main".parse().expect("a name")];
        let service =
            controlplane_service::workers::start(&mut shell, &bus, &management, &config.workers, &exchanges);
        let service = service.await.expect("a service").expect("an address");
        let world = World {
            service,
            cluster,
            bus,
            shell,
            folder,
            sent: std::sync::atomic::AtomicU64::new(0),
            parties,
            broker,
        };
        world.until("everything is ready", || world.shell.health().is_ready()).await;
        world
    }

    pub(crate) async fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        crate::server::until(what, holds).await;
    }

    /// Sends a command to the market.
    pub(crate) async fn say(&self, role: Role, principal: &str, mut command: Value) {
        let number = self.sent.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if command["id"].is_null() {
            command["id"] = format!("test-{number}").into();
        }
        let sender = Sender { role, principal: principal.parse().expect("a principal") };
        let subject = subject::command("market", &"main".parse().expect("a name"), &sender);
        let payload = Bytes::from(command.to_string());
        let bus = self.parties.get(principal).unwrap_or(&self.bus);
        bus.publish(&subject, &format!("m-{number}"), &[], payload).await.expect("published");
    }

    /// Asks the market.
    pub(crate) async fn query(&self, question: &str, asked: Value) -> Value {
        let subject = subject::query("market", &"main".parse().expect("a name"), question);
        let parts = self.bus.request(&subject, Bytes::from(asked.to_string()), ANSWER_WAIT).await;
        serde_json::from_slice(&parts.expect("an answer").concat()).expect("JSON")
    }

    pub(crate) async fn query_until(
        &self,
        question: &str,
        asked: Value,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = tokio::time::Instant::now() + crate::double::PATIENCE;
        loop {
            let answer = self.query(question, asked.clone()).await;
            if is(&answer) {
                return answer;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what}: in vain, {answer}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the tenant's only lease is in a state.
    pub(crate) async fn lease_until(&self, state: &str) -> Value {
        let is = |answer: &Value| answer["leases"][0]["state"] == state;
        let answer = self.query_until("leases", json!({ "tenant": "acme" }), state, is).await;
        answer["leases"][0].clone()
    }

    pub(crate) async fn offer(&self, generation: u64, units: u32) {
        self.say(
            Role::Hypervisor,
            "h1",
            json!({ "type": "SupplyOffered", "source": "h1", "generation": generation,
                "market": "dfw/gp.large", "units": units }),
        )
        .await;
    }

    pub(crate) async fn bid(&self, tenant: &str, limit: &str) {
        self.say(
            Role::Storefront,
            "s1",
            json!({ "type": "PlaceBid", "id": format!("bid-of-{tenant}"), "tenant": tenant, "cluster": "c",
                "pool": "p", "quantity": 1, "options": [{ "market": "dfw/gp.large", "limit": limit }] }),
        )
        .await;
    }

    /// What a hypervisor is answered that boots a lease's server.
    pub(crate) async fn secret(&self, principal: &str, lease: u64) -> Result<JoinSecretAnswer, String> {
        let bus = self.parties.get(principal).unwrap_or(&self.bus);
        let principal = principal.parse().expect("a principal");
        let subject = subject::join_secret(&"main".parse().expect("a name"), Role::Hypervisor, &principal);
        let payload = Bytes::from(json!({ "lease": lease }).to_string());
        let parts = bus.request(&subject, payload, ANSWER_WAIT).await.map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice(&parts.concat()).expect("an answer"))
    }

    /// Asks the tenant's API server.
    pub(crate) fn tenant(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        ask(&self.cluster, method, &format!("{TENANT}{path}"), body)
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        self.shell.meter().text().expect("metrics").lines().any(|one| one == line)
    }
}

fn configuration(bus: &str) -> String {
    let place = |name: &str| certificate(name).display().to_string();
    format!(
        r#"
data_dir = "data"
[market.exchanges.main]
rules = {{ coalesce_milliseconds = 0 }}
markets = [{{ region = "dfw", class = "gp.large", reserve = "0.001", notice_seconds = 30 }}]
[runner]
claim_seconds = 1
[workers]
listen = "127.0.0.1:0"
certificate_file = "{}"
key_file = "{}"
site_key_file = "site.key"
{bus}"#,
        place("server.pem"),
        place("server.key"),
    )
}

async fn market(shell: &mut Shell, bus: &Bus, config: &Config, folder: &TempDir) {
    let path = folder.path().join("walras.db");
    let journal = Journal::open(&format!("sqlite:{}", path.display())).await.expect("a journal");
    let trusted =
        [Trust { role: Role::Storefront, principal: "s1".parse().expect("a principal"), tenants: None }];
    let owner = Owner::new("test").expect("an owner");
    market_service::start(shell, bus, &journal, config, &owner, &trusted).expect("a market");
}

/// A tenant's plane, and in it the account of the tunnel's agents, as Kamaji makes it.
async fn plane(cluster: &Shared, tunnel: SocketAddr) {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "walras-acme" } });
    assert_eq!(ask(cluster, "POST", "/api/v1/namespaces", &namespace).0, 201);
    let plane = json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "c", "namespace": "walras-acme" },
        "spec": {
            "dataStore": "default", "kubernetes": { "version": "v1.34.0" },
            "networkProfile": { "dnsServiceIPs": ["10.96.0.10"] },
            "addons": { "konnectivity": { "server": { "port": tunnel.port() } } },
            "controlPlane": { "service": { "serviceType": "ClusterIP" }, "deployment": { "replicas": 1 } },
        },
    });
    let path = "/apis/kamaji.clastix.io/v1alpha1/namespaces/walras-acme/tenantcontrolplanes";
    let (code, made) = ask(cluster, "POST", path, &plane);
    assert_eq!(code, 201, "{made}");
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "konnectivity-agent", "namespace": "kube-system" } });
    let path = format!("{TENANT}/api/v1/namespaces/kube-system/serviceaccounts");
    crate::server::until("the plane serves", || ask(cluster, "POST", &path, &account).0 == 201).await;
}
