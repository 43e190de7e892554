//! What stands in for a kubelet where none can run: it reads the files that a real one would read, registers its Node
//! with the certificate that it finds there, renews its Lease, and serves `/healthz` and `/pods`. It runs no pods; on
//! a simulated cluster they run by themselves. A real kubelet serves its port with TLS, this one without.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use nodeagent::client::{Answer, Ask, ask};
use nodeagent::konnectivity::TlsFiles;
use proto::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// Between two renewals of the Lease.
const RENEW: Duration = Duration::from_secs(10);

/// Between two attempts to register.
const RETRY: Duration = Duration::from_millis(200);

/// How long a Lease lasts, in seconds.
const LEASE_SECONDS: u32 = 40;

/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 8 << 10;

/// How long a request to this kubelet may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is read of files and arguments.
#[derive(Debug)]
struct Kubelet {
    node: String,
    server: String,
    tls: TlsFiles,
    labels: BTreeMap<String, String>,
    taints: Value,
}

/// Runs until it is told to end. `arguments` are a kubelet's, of which it reads what concerns it; the port is a free
/// one, which the Node's status names.
///
/// # Errors
/// When its files are not a kubelet's, or it cannot listen.
pub async fn run(arguments: &[String]) -> Result<()> {
    let kubelet = Arc::new(Kubelet::read(arguments)?);
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    let port = listener.local_addr()?.port();
    let served = tokio::spawn(serve(listener, Arc::clone(&kubelet)));
    let lived = async {
        while let Err(error) = kubelet.register(port).await {
            eprintln!("kubelet: not registered: {error:#}");
            sleep(RETRY).await;
        }
        loop {
            if let Err(error) = kubelet.renew().await {
                eprintln!("kubelet: the lease is not renewed: {error:#}");
            }
            sleep(RENEW).await;
        }
    };
    tokio::select! {
        () = lived => {}
        _signal = terminate.recv() => {}
    }
    served.abort();
    Ok(())
}

fn json_file(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("there is no {pointer}"))
}

impl Kubelet {
    fn read(arguments: &[String]) -> Result<Kubelet> {
        let given = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
        let kubeconfig = json_file(Path::new(given("--kubeconfig=").context("no --kubeconfig")?))?;
        let config = json_file(Path::new(given("--config=").context("no --config")?))?;
        if text(&config, "/kind")? != "KubeletConfiguration" || text(&kubeconfig, "/kind")? != "Config" {
            bail!("these are not a kubelet's files");
        }
        let user = |name: &str| text(&kubeconfig, &format!("/users/0/user/{name}")).map(PathBuf::from);
        let labels = given("--node-labels=").unwrap_or_default().split(',').filter_map(|label| {
            let (name, value) = label.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Ok(Kubelet {
            node: given("--hostname-override=").context("no --hostname-override")?.to_owned(),
            server: text(&kubeconfig, "/clusters/0/cluster/server")?.to_owned(),
            tls: TlsFiles {
                ca: text(&kubeconfig, "/clusters/0/cluster/certificate-authority")?.into(),
                own: Some((user("client-certificate")?, user("client-key")?)),
                protocols: vec!["http/1.1".to_owned()],
            },
            labels: labels.collect(),
            taints: config.get("registerWithTaints").cloned().unwrap_or(Value::Null),
        })
    }

    async fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Answer> {
        let url = format!("{}{path}", self.server);
        let headers = [("content-type", kind), ("accept", "application/json")];
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let asked = ask(Ask { method, url: &url, headers: &headers, body }, Some(self.tls.load_exactly()?));
        Ok(asked.await?)
    }

    /// Makes the Node, or takes the one that is there, and says where this kubelet listens.
    async fn register(&self, port: u16) -> Result<()> {
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": self.node, "labels": self.labels },
            "spec": { "taints": self.taints },
        });
        let made = self.ask("POST", "/api/v1/nodes", "application/json", &node).await?;
        if !made.status.is_success() && made.status.as_u16() != 409 {
            bail!("the API server answers {}: {}", made.status, String::from_utf8_lossy(&made.body));
        }
        let path = format!("/api/v1/nodes/{}/status", self.node);
        let status = json!({ "status": {
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        } });
        let said = self.ask("PATCH", &path, "application/merge-patch+json", &status).await?;
        if !said.status.is_success() {
            bail!("the API server answers {} to the status", said.status);
        }
        Ok(())
    }

    async fn renew(&self) -> Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let folder = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let spec = json!({
            "holderIdentity": self.node,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": now,
        });
        let path = format!("{folder}/{}", self.node);
        let patch = json!({ "spec": spec });
        let renewed = self.ask("PATCH", &path, "application/merge-patch+json", &patch).await?;
        if renewed.status.as_u16() == 404 {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": { "name": self.node, "namespace": "kube-node-lease" },
                "spec": spec,
            });
            self.ask("POST", folder, "application/json", &lease).await?;
        }
        Ok(())
    }

    /// The pods on this Node, as the API server has them.
    async fn pods(&self) -> Result<Vec<u8>> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.node);
        let answer = self.ask("GET", &path, "application/json", &Value::Null).await?;
        Ok(answer.body.to_vec())
    }
}

async fn serve(listener: TcpListener, kubelet: Arc<Kubelet>) {
    while let Ok((socket, _)) = listener.accept().await {
        let kubelet = Arc::clone(&kubelet);
        tokio::spawn(async move {
            // Whoever is too slow asks again.
            let _in_time = timeout(PATIENCE, exchange(socket, &kubelet)).await;
        });
    }
}

async fn exchange(mut socket: TcpStream, kubelet: &Kubelet) -> Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES || socket.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let (status, body) = match head.split(' ').nth(1) {
        Some("/healthz") => ("200 OK", b"ok".to_vec()),
        Some("/pods") => match kubelet.pods().await {
            Ok(pods) => ("200 OK", pods),
            Err(error) => ("502 Bad Gateway", format!("{error:#}\n").into_bytes()),
        },
        _ => ("404 Not Found", b"404 page not found\n".to_vec()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(&body).await?;
    socket.shutdown().await?;
    Ok(())
}
