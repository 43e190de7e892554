//! Health checks and metrics over HTTP/1.1: four paths, asked for now and then. A request is answered and the
//! connection closed.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::konnectivity::Metrics;
use crate::run::Shown;

/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 8 << 10;

/// How long a request and its answer may take together.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests at once; others wait to be accepted.
const REQUESTS: usize = 32;

/// Between two tries to accept a connection when the system has no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// What is served.
#[derive(Debug, Clone)]
pub(crate) enum Service {
    Health(Arc<Metrics>),
    /// A whole worker: our own paths.
    Worker(Arc<Shown>),
    /// Tells where metrics are.
    Admin {
        health_port: u16,
    },
}

struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            headers: "content-type: text/plain; charset=utf-8\r\n".to_owned(),
            body: body.into(),
        }
    }
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, service: Service) {
    let places = Arc::new(Semaphore::new(REQUESTS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((socket, _)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    // Whoever is too slow asks again.
                    let _in_time = timeout(PATIENCE, exchange(socket, &service)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a request");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn exchange(mut socket: TcpStream, service: &Service) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES || !matches!(socket.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
    let answer = answer(&String::from_utf8_lossy(&head), service);
    let mut reply = format!("HTTP/1.1 {}\r\n{}", answer.status, answer.headers);
    let _always = write!(reply, "content-length: {}\r\nconnection: close\r\n\r\n", answer.body.len());
    let mut reply = reply.into_bytes();
    reply.extend_from_slice(&answer.body);
    if socket.write_all(&reply).await.is_ok() {
        let _closed = socket.shutdown().await;
    }
}

fn answer(head: &str, service: &Service) -> Answer {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !matches!(method, "GET" | "HEAD") {
        return Answer::text("405 Method Not Allowed", "only GET is served here\n");
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut answer = match (service, path) {
        (Service::Health(_), "/healthz") => Answer::text("200 OK", "ok"),
        (Service::Health(metrics), "/ready" | "/readyz") => {
            let verbose = query.split('&').any(|part| part.split('=').next() == Some("verbose"));
            ready(metrics.open_servers() > 0, verbose)
        }
        (Service::Health(metrics), "/metrics") => match metrics.text() {
            Ok(text) => Answer {
                status: "200 OK",
                headers: "content-type: text/plain; version=0.0.4; charset=utf-8\r\n".to_owned(),
                body: text,
            },
            Err(error) => Answer::text("500 Internal Server Error", error.to_string()),
        },
        (Service::Worker(_), "/livez") => Answer::text("200 OK", "ok\n"),
        (Service::Worker(shown), "/readyz") if shown.is_ready() => Answer::text("200 OK", "ok\n"),
        (Service::Worker(_), "/readyz") => {
            Answer::text("503 Service Unavailable", "the worker is not in service\n")
        }
        (Service::Worker(shown), "/metrics") => Answer {
            headers: "content-type: text/plain; version=0.0.4; charset=utf-8\r\n".to_owned(),
            ..Answer::text("200 OK", shown.metrics())
        },
        (Service::Worker(shown), "/status") => Answer {
            headers: "content-type: application/json\r\n".to_owned(),
            ..Answer::text("200 OK", shown.json())
        },
        (Service::Admin { health_port }, "/metrics") => moved(head, target, *health_port),
        _ => Answer::text("404 Not Found", "404 page not found\n"),
    };
    if method == "HEAD" {
        answer.body.clear();
    }
    answer
}

/// In upstream's words, which people and scripts know.
fn ready(connected: bool, verbose: bool) -> Answer {
    match (connected, verbose) {
        (false, _) => Answer::text(
            "503 Service Unavailable",
            "[+]ping ok\n[-]server-connected failed: no servers connected\n",
        ),
        (true, false) => Answer::text("200 OK", "ok"),
        (true, true) => Answer::text("200 OK", "[+]ping ok\n[+]server-connected ok\ncheck passed\n"),
    }
}

fn moved(head: &str, target: &str, port: u16) -> Answer {
    let host = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    let host = host.unwrap_or("127.0.0.1");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let headers = format!("location: http://{name}:{port}{target}\r\n");
    Answer { status: "301 Moved Permanently", headers, body: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Service, answer};
    use crate::konnectivity::Metrics;

    fn asked(service: &Service, head: &str) -> (String, String, String) {
        let answer = answer(head, service);
        (answer.status.to_owned(), answer.headers, String::from_utf8(answer.body).expect("text"))
    }

    #[test]
    fn health_is_upstream_s() {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let service = Service::Health(Arc::clone(&metrics));
        let get = |path: &str| asked(&service, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((get("/healthz").0.as_str(), get("/healthz").2.as_str()), ("200 OK", "ok"));
        for path in ["/ready", "/readyz", "/readyz?verbose"] {
            let (status, _, body) = get(path);
            assert_eq!(status, "503 Service Unavailable");
            assert_eq!(body, "[+]ping ok\n[-]server-connected failed: no servers connected\n");
        }
        metrics.show_servers(1, 2);
        assert_eq!((get("/readyz").0.as_str(), get("/readyz").2.as_str()), ("200 OK", "ok"));
        assert_eq!(get("/readyz?verbose").2, "[+]ping ok\n[+]server-connected ok\ncheck passed\n");
        assert_eq!(get("/debug/pprof/").0, "404 Not Found");
        assert_eq!(asked(&service, "POST /healthz HTTP/1.1\r\n\r\n").0, "405 Method Not Allowed");
        assert_eq!(asked(&service, "\r\n\r\n").0, "405 Method Not Allowed");
    }

    #[test]
    fn metrics_have_upstream_s_names_helps_and_types() {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        metrics.show_servers(1, 2);
        metrics.attempt("new");
        metrics.dial_failed(true);
        let text = asked(&Service::Health(metrics), "GET /metrics HTTP/1.1\r\n\r\n").2;
        for line in [
            "# HELP konnectivity_network_proxy_agent_dial_duration_seconds Latency of dial to the remote endpoint in seconds",
            "# TYPE konnectivity_network_proxy_agent_dial_duration_seconds histogram",
            "konnectivity_network_proxy_agent_dial_duration_seconds_bucket{le=\"0.005\"} 0",
            "# HELP konnectivity_network_proxy_agent_endpoint_dial_failure_total Number of failures dialing the remote endpoint, by reason (example: timeout).",
            "# TYPE konnectivity_network_proxy_agent_endpoint_dial_failure_total counter",
            "konnectivity_network_proxy_agent_endpoint_dial_failure_total{reason=\"timeout\"} 1",
            "# HELP konnectivity_network_proxy_agent_open_server_connections Current number of open server connections.",
            "# TYPE konnectivity_network_proxy_agent_open_server_connections gauge",
            "konnectivity_network_proxy_agent_open_server_connections 1",
            "# TYPE konnectivity_network_proxy_agent_known_server_count gauge",
            "konnectivity_network_proxy_agent_known_server_count 2",
            "# HELP konnectivity_network_proxy_agent_open_endpoint_connections Current number of open endpoint connections.",
            "# TYPE konnectivity_network_proxy_agent_open_endpoint_connections gauge",
            "# HELP konnectivity_network_proxy_agent_stream_packets_total Count of packets processed, by segment and packet type (example: from_client, DIAL_REQ)",
            "konnectivity_network_proxy_agent_stream_packets_total{packet_type=\"DIAL_REQ\",segment=\"to_agent\"} 0",
            "walras_nodeagent_tunnel_attempts_total{result=\"new\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("reason=\"unknown\""), "a reason that has not occurred");
    }

    #[test]
    fn the_admin_server_says_where_metrics_are() {
        let service = Service::Admin { health_port: 8093 };
        for (host, place) in [("a:8094", "a"), ("[::1]:8094", "[::1]"), ("a", "a")] {
            let (status, headers, _) =
                asked(&service, &format!("GET /metrics?x HTTP/1.1\r\nhost: {host}\r\n\r\n"));
            assert_eq!(status, "301 Moved Permanently");
            assert_eq!(headers, format!("location: http://{place}:8093/metrics?x\r\n"));
        }
    }
}
