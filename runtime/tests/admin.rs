//! Health and metrics over a real socket, and what promtool says of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use runtime::admin::{CONNECTIONS_MAX, Health, serve, watch_bus};
use runtime::bus::{Bus, Durability};
use runtime::nats::server::ServerState;
use runtime::shell::Stop;
use runtime::telemetry::{Kind, METRICS, Meter, show_broker, show_bus, show_durability};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

struct Served {
    address: SocketAddr,
    health: Health,
    meter: Meter,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn served() -> Served {
    let meter = Meter::new("market").unwrap();
    let health = Health::new(&meter).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, health.clone(), meter.clone(), async {
        let _ = stopped.await;
    }));
    Served { address, health, meter, stop, task }
}

async fn request(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("{method} {path} HTTP/1.1\r\nHost: walras\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, _, body) = request(address, "GET", path).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let served = served().await;
    let (status, body) = get(served.address, "/readyz").await;
    assert_eq!((status, &body["ready"]), (503, &Value::Bool(false)), "nothing is known yet");
    let bus = served.health.condition("bus");
    let claim = served.health.condition("claim:main");
    bus.unmet("connection refused");
    claim.met("standby");
    let (status, body) = get(served.address, "/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body["conditions"][0]["name"], "bus");
    assert_eq!(body["conditions"][0]["met"], false);
    assert_eq!(body["conditions"][0]["detail"], "connection refused");
    assert_eq!(body["conditions"][1]["detail"], "standby");
    assert_eq!(get(served.address, "/startupz").await.0, 503);
    bus.met("connected");
    assert_eq!(get(served.address, "/readyz").await.0, 200);
    assert_eq!(get(served.address, "/startupz").await.0, 200);
    served.health.stop();
    let (status, body) = get(served.address, "/readyz").await;
    assert_eq!((status, &body["stopping"]), (503, &Value::Bool(true)));
    assert_eq!(get(served.address, "/startupz").await.0, 200, "it has started, even if it stops now");
    assert_eq!(get(served.address, "/livez").await.0, 200, "a process that stops is alive");
}

#[tokio::test]
async fn liveness_names_the_loop_that_hangs() {
    let served = served().await;
    let _turning = served.health.pulse("runner:main", std::time::Duration::from_hours(1));
    assert_eq!(get(served.address, "/livez").await.0, 200);
    let _hanging = served.health.pulse("publisher:main", std::time::Duration::ZERO);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let (status, body) = get(served.address, "/livez").await;
        if status == 503 {
            assert_eq!(body["loops"][0]["name"], "publisher:main");
            assert_eq!(body["loops"][0]["alive"], false);
            assert_eq!(body["loops"][1]["alive"], true);
            break;
        }
        assert!(std::time::Instant::now() < patience, "silence for longer than nothing is never noticed");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let served = served().await;
    assert_eq!(request(served.address, "GET", "/").await.0, 404);
    assert_eq!(request(served.address, "POST", "/metrics").await.0, 405);
    assert_eq!(request(served.address, "HEAD", "/livez").await.0, 200);
}

#[tokio::test]
async fn a_stop_ends_the_server() {
    let served = served().await;
    assert_eq!(get(served.address, "/livez").await.0, 200);
    served.stop.send(()).unwrap();
    served.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_there_is_room() {
    let served = served().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(TcpStream::connect(served.address).await.unwrap());
    }
    // The operating system takes the connection, the server does not: no answer until one of the others goes.
    let waiting = tokio::spawn(request(served.address, "GET", "/livez"));
    for stream in held.iter_mut().take(CONNECTIONS_MAX - 1) {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: walras\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
    assert!(!waiting.is_finished());
    held.pop();
    assert_eq!(waiting.await.unwrap().0, 200);
}

/// Registers every metric that is declared, with a value for each of its labels.
fn register_all(meter: &Meter) {
    for (_, metric) in METRICS {
        for service in metric.services {
            let meter = meter.of(service);
            let values: Vec<&str> = metric.labels.iter().map(|_| "x").collect();
            match metric.kind {
                Kind::Counter => meter.counters(metric).unwrap().with_label_values(&values).inc(),
                Kind::Gauge => meter.gauges(metric).unwrap().with_label_values(&values).set(1),
                Kind::Decimal => meter.decimals(metric).unwrap().with_label_values(&values).set(0.031),
                Kind::Histogram(_) => {
                    meter.histograms(metric).unwrap().with_label_values(&values).observe(0.2);
                }
            }
        }
    }
}

#[tokio::test]
async fn promtool_accepts_every_metric() {
    let served = served().await;
    register_all(&served.meter);
    let _condition = served.health.condition("bus");
    let (status, head, body) = request(served.address, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("walras_build_info{"), "{body}");
    assert!(body.contains("walras_market_price_dollars_per_hour{market=\"x\",stream=\"x\"} 0.031"), "{body}");
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("skipped: promtool is not installed");
        return;
    };
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn the_bus_is_shown_as_it_is_when_asked() {
    let meter = Meter::new("market").unwrap();
    let bus = Bus::memory();
    show_bus(&meter, &bus).unwrap();
    show_durability(&meter, &Durability::Always).unwrap();
    let text = meter.text().unwrap();
    for line in
        ["walras_market_bus_connected 1", "walras_market_bus_durable 1", "walras_market_bus_errors_total 0"]
    {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(show_bus(&meter.of("nats"), &bus).is_err(), "not a metric of that service");
}

#[test]
fn restarts_of_the_broker_are_counted_once() {
    let meter = Meter::new("market").unwrap();
    let (state, watched) = tokio::sync::watch::channel(ServerState::Starting);
    show_broker(&meter, watched).unwrap();
    let shows = |line: &str| {
        let text = meter.text().unwrap();
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    };
    shows("walras_nats_server_restarts_total 0");
    state.send_replace(ServerState::Running { pid: 7, restarts: 2 });
    shows("walras_nats_server_restarts_total 2");
    state.send_replace(ServerState::Starting);
    shows("walras_nats_server_restarts_total 2");
    state.send_replace(ServerState::Running { pid: 8, restarts: 3 });
    shows("walras_nats_server_restarts_total 3");
}

#[tokio::test]
async fn the_bus_is_a_condition_of_readiness() {
    let served = served().await;
    let (stop, stopped) = Stop::new();
    let watching =
        tokio::spawn(watch_bus(Bus::memory(), served.health.clone(), served.meter.clone(), stopped));
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while get(served.address, "/readyz").await.0 != 200 {
        assert!(std::time::Instant::now() < patience, "a bus that is there is never told to be ready");
    }
    let (_, body) = get(served.address, "/readyz").await;
    assert_eq!(body["conditions"][0]["name"], "bus connected");
    assert_eq!(body["conditions"][1]["detail"], "not known: a memory bus keeps nothing");
    let text = served.meter.text().unwrap();
    assert!(
        text.contains("walras_market_bus_durable 0"),
        "what is not known is not shown as durable: {text}"
    );
    stop.send(true).unwrap();
    watching.await.unwrap().unwrap();
    assert_eq!(get(served.address, "/readyz").await.0, 503);
}
