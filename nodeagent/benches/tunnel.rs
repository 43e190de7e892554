//! The agent between a double of the proxy server and endpoints, all on one machine: what it carries, what that
//! costs it in processor time and memory. With `WALRAS_KONNECTIVITY_AGENT` set to the path of upstream's agent, both
//! are measured in turn in the same run.
//!
//! `cargo bench -p nodeagent --bench tunnel [-- --rounds N | -- --storm]`

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a report; what fails ends it")]

#[path = "../tests/double/mod.rs"]
mod double;
#[path = "../tests/process/mod.rs"]
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use double::{Character, Double, Stream};
use nodeagent::konnectivity::{Agent, AgentConfig, AgentId, Metrics, ServerAddress, TlsFiles};
use process::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tunnel::{Packet, ServersConfig};

const MEBIBYTE: usize = 1 << 20;
const TRANSFER_BYTES: usize = 256 * MEBIBYTE;
const PIECE_BYTES: usize = 32 << 10;
const SETUPS: usize = 3_000;
const PARALLEL: usize = 16;
const TRIPS: usize = 10_000;
const OPEN: usize = 1_000;
const AGENTS: usize = 2_000;
const REQUEST: &[u8] = &[1; 128];
const REPLY: &[u8] = &[2; 512];

/// Ticks of processor time in a second, on Linux for programs.
const TICKS: f64 = 100.0;

fn main() {
    let rounds = std::env::args().skip_while(|arg| arg != "--rounds").nth(1);
    let rounds = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(3_usize);
    let mut agents = vec![("walras", PathBuf::from(env!("CARGO_BIN_EXE_walras-nodeagent")))];
    match std::env::var_os("WALRAS_KONNECTIVITY_AGENT") {
        Some(path) => agents.push(("upstream", path.into())),
        None => println!("upstream's agent is not measured: WALRAS_KONNECTIVITY_AGENT is not set"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if std::env::args().any(|arg| arg == "--storm") {
        return runtime.block_on(storm());
    }
    let mut results: BTreeMap<(usize, &str, &str), Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (name, path) in &agents {
            let measured = runtime.block_on(measure(path, *name == "walras"));
            for (place, (what, value)) in measured.into_iter().enumerate() {
                results.entry((place, what, name)).or_default().push(value);
            }
        }
    }
    println!(
        "| what (median of {rounds}) | {} |",
        agents.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | ")
    );
    println!("| --- |{}", " ---: |".repeat(agents.len()));
    let mut row = String::new();
    for ((_, what, name), mut values) in results {
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len() / 2).copied().unwrap_or_default();
        // The names are in alphabetical order, as in the map.
        if name == "upstream" || agents.len() == 1 || row.is_empty() {
            row = format!("{median:.2}");
        }
        if agents.len() == 1 {
            println!("| {what} | {median:.2} |");
        } else if name == "walras" {
            println!("| {what} | {median:.2} | {row} |");
            row.clear();
        }
    }
}

struct Bench {
    process: Process,
    stream: Stream,
}

impl Bench {
    fn cpu_seconds(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.process.child.id())).expect("a process");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks =
            |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
        (ticks(11) + ticks(12)) / TICKS
    }

    fn resident_mebibytes(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }
}

async fn measure(path: &Path, ours: bool) -> Vec<(&'static str, f64)> {
    let mut double = Double::start(Character { servers: vec!["one".into()], ..Character::default() }).await;
    let process = if ours {
        Process::start(double.address, &["--v=0"])
    } else {
        Process::start_as(path, double.address, &["--v=0", &mtls(0), &mtls(1)])
    };
    let stream = double.stream().await;
    let mut bench = Bench { process, stream };
    let mut results = Vec::new();
    // It has begun when a connection was made.
    let echo = listen(echo).await;
    let id = bench.stream.dial(&echo).await.expect("a connection");
    bench.stream.send(Packet::CloseRequest { connect_id: id }).await;
    bench.stream.closed(id).await;
    results.push(("resident, idle, MiB", bench.resident_mebibytes()));
    for (count, speed, cost) in [
        (1, "to the server, 1 connection, MiB/s", "processor s/GiB"),
        (64, "to the server, 64 connections, MiB/s", "processor s/GiB"),
    ] {
        let (mebibytes_per_second, seconds_per_gibibyte) = to_server(&mut bench, count).await;
        results.extend([(speed, mebibytes_per_second), (cost, seconds_per_gibibyte)]);
    }
    for (count, speed, cost) in [
        (1, "to the endpoint, 1 connection, MiB/s", "processor s/GiB"),
        (64, "to the endpoint, 64 connections, MiB/s", "processor s/GiB"),
    ] {
        let (mebibytes_per_second, seconds_per_gibibyte) = to_endpoint(&mut bench, count).await;
        results.extend([(speed, mebibytes_per_second), (cost, seconds_per_gibibyte)]);
    }
    let setups = set_ups(&mut bench, 1, SETUPS / 3).await;
    results.extend([
        ("connect, ask, close, 1 at a time, /s", setups.0),
        ("p50, ms", setups.1),
        ("p99, ms", setups.2),
    ]);
    let setups = set_ups(&mut bench, PARALLEL, SETUPS).await;
    results.extend([
        ("connect, ask, close, 16 at a time, /s", setups.0),
        ("p50, ms", setups.1),
        ("p99, ms", setups.2),
        ("processor µs each", setups.3),
    ]);
    for (count, speed) in [(1, "ask on 1 open connection, /s"), (64, "ask on 64 open connections, /s")] {
        let trips = trips(&mut bench, &echo, count).await;
        results.extend([
            (speed, trips.0),
            ("p50, ms", trips.1),
            ("p99, ms", trips.2),
            ("processor µs each", trips.3),
        ]);
    }
    let mut open = Vec::new();
    for _ in 0..OPEN {
        open.push(bench.stream.dial(&echo).await.expect("a connection"));
    }
    results.push(("resident, 1,000 connections, MiB", bench.resident_mebibytes()));
    results
}

fn mtls(which: usize) -> String {
    let (what, file) = if which == 0 { ("cert", "agent.pem") } else { ("key", "agent.key") };
    format!("--agent-{what}={}", double::certificate(file).display())
}

/// Serves each connection with `serve`.
async fn listen<F: Future<Output = ()> + 'static + Send>(serve: fn(TcpStream) -> F) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _nodelay = socket.set_nodelay(true);
            tokio::spawn(serve(socket));
        }
    });
    address
}

async fn echo(mut socket: TcpStream) {
    let (mut reader, mut writer) = socket.split();
    let _ended = tokio::io::copy(&mut reader, &mut writer).await;
}

async fn answer(mut socket: TcpStream) {
    let mut request = [0; REQUEST.len()];
    if socket.read_exact(&mut request).await.is_ok() && socket.write_all(REPLY).await.is_ok() {
        let _closed = socket.read(&mut request).await;
    }
}

async fn to_server(bench: &mut Bench, count: usize) -> (f64, f64) {
    async fn source(mut socket: TcpStream) {
        // The first byte says how many share the transfer.
        let share = TRANSFER_BYTES / usize::from(socket.read_u8().await.unwrap_or(1).max(1));
        let piece = vec![3; 64 << 10];
        for _ in 0..share / piece.len() {
            if socket.write_all(&piece).await.is_err() {
                return;
            }
        }
    }
    let address = listen(source).await;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(bench.stream.dial(&address).await.expect("a connection"));
    }
    let (began, cpu) = (Instant::now(), bench.cpu_seconds());
    for id in &ids {
        bench.stream.data(*id, vec![count as u8]).await;
    }
    let (mut bytes, mut closed) = (0, 0);
    while closed < count {
        match bench.stream.next().await.expect("an open stream") {
            Packet::Data { data, .. } => bytes += data.len(),
            Packet::CloseResponse { .. } => closed += 1,
            _ => {}
        }
    }
    rates(bytes, began.elapsed(), bench.cpu_seconds() - cpu)
}

async fn to_endpoint(bench: &mut Bench, count: usize) -> (f64, f64) {
    async fn sink(mut socket: TcpStream) {
        let mut buffer = vec![0; 256 << 10];
        let mut bytes = 0;
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            bytes += count;
        }
        TAKEN.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        DONE.notify_one();
    }
    static TAKEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    static DONE: tokio::sync::Notify = tokio::sync::Notify::const_new();
    let address = listen(sink).await;
    let before = TAKEN.load(std::sync::atomic::Ordering::Relaxed);
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(bench.stream.dial(&address).await.expect("a connection"));
    }
    let (began, cpu) = (Instant::now(), bench.cpu_seconds());
    let piece = Bytes::from(vec![4; PIECE_BYTES]);
    for turn in 0..TRANSFER_BYTES / PIECE_BYTES {
        let id = ids.get(turn % ids.len()).copied().unwrap_or_default();
        bench.stream.data(id, piece.clone()).await;
        // A single thread serves both ends.
        tokio::task::yield_now().await;
    }
    for id in &ids {
        bench.stream.send(Packet::CloseRequest { connect_id: *id }).await;
    }
    for id in ids {
        bench.stream.closed(id).await;
    }
    let taken = || TAKEN.load(std::sync::atomic::Ordering::Relaxed) - before;
    // Upstream's agent may lose the end of a transfer: what did not come within two seconds will not.
    while taken() < TRANSFER_BYTES {
        if tokio::time::timeout(Duration::from_secs(2), DONE.notified()).await.is_err() {
            println!("lost at the end of a transfer: {} bytes", TRANSFER_BYTES - taken());
            break;
        }
    }
    rates(TRANSFER_BYTES, began.elapsed(), bench.cpu_seconds() - cpu)
}

fn rates(bytes: usize, took: Duration, cpu_seconds: f64) -> (f64, f64) {
    let mebibytes = bytes as f64 / MEBIBYTE as f64;
    (mebibytes / took.as_secs_f64(), cpu_seconds / (mebibytes / 1024.0))
}

/// Connections a second, p50 and p99 until the answer in milliseconds, processor time each in microseconds.
async fn set_ups(bench: &mut Bench, parallel: usize, count: usize) -> (f64, f64, f64, f64) {
    let address = listen(answer).await;
    let (began, cpu) = (Instant::now(), bench.cpu_seconds());
    let mut dialled: BTreeMap<i64, Instant> = BTreeMap::new();
    let mut open: BTreeMap<i64, (Instant, usize)> = BTreeMap::new();
    let mut latencies = Vec::with_capacity(count);
    let (mut started, mut ended) = (0, 0);
    while ended < count {
        while started < count && started - ended < parallel {
            dialled.insert(bench.stream.begin_dial(&address).await, Instant::now());
            started += 1;
        }
        match bench.stream.next().await.expect("an open stream") {
            Packet::DialResponse { connect_id, random, error } => {
                assert_eq!(error, "");
                let since = dialled.remove(&random).expect("a dial");
                open.insert(connect_id, (since, 0));
                bench.stream.data(connect_id, Bytes::from_static(REQUEST)).await;
            }
            Packet::Data { connect_id, data, .. } => {
                let (since, bytes) = open.get_mut(&connect_id).expect("a connection");
                *bytes += data.len();
                if *bytes == REPLY.len() {
                    latencies.push(since.elapsed());
                    bench.stream.send(Packet::CloseRequest { connect_id }).await;
                }
            }
            Packet::CloseResponse { connect_id, .. } if open.remove(&connect_id).is_some() => ended += 1,
            _ => {}
        }
    }
    summary(count, latencies, began.elapsed(), bench.cpu_seconds() - cpu)
}

/// The same for requests on open connections.
async fn trips(bench: &mut Bench, address: &str, count: usize) -> (f64, f64, f64, f64) {
    let mut open = BTreeMap::new();
    for _ in 0..count {
        let id = bench.stream.dial(address).await.expect("a connection");
        open.insert(id, (Instant::now(), 0));
    }
    let (began, cpu) = (Instant::now(), bench.cpu_seconds());
    for (id, (since, _)) in &mut open {
        *since = Instant::now();
        bench.stream.data(*id, Bytes::from_static(REQUEST)).await;
    }
    let mut latencies = Vec::with_capacity(TRIPS);
    while latencies.len() < TRIPS {
        let Packet::Data { connect_id, data, .. } = bench.stream.next().await.expect("an open stream") else {
            continue;
        };
        let (since, bytes) = open.get_mut(&connect_id).expect("a connection");
        *bytes += data.len();
        if *bytes >= REQUEST.len() {
            latencies.push(since.elapsed());
            (*since, *bytes) = (Instant::now(), 0);
            bench.stream.data(connect_id, Bytes::from_static(REQUEST)).await;
        }
    }
    let (took, cpu) = (began.elapsed(), bench.cpu_seconds() - cpu);
    for id in open.keys() {
        bench.stream.send(Packet::CloseRequest { connect_id: *id }).await;
    }
    for id in open.keys() {
        bench.stream.closed(*id).await;
    }
    summary(TRIPS, latencies, took, cpu)
}

fn summary(
    count: usize,
    mut latencies: Vec<Duration>,
    took: Duration,
    cpu_seconds: f64,
) -> (f64, f64, f64, f64) {
    latencies.sort();
    let at = |permille: usize| {
        latencies.get(latencies.len() * permille / 1000).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    (count as f64 / took.as_secs_f64(), at(500), at(990), cpu_seconds / count as f64 * 1e6)
}

/// Many agents lose their server at once: how long until all are back. They run in this process, as tasks.
async fn storm() {
    let character = || Character { servers: vec!["one".into()], ..Character::default() };
    let mut double = Double::start(character()).await;
    let (_drain, draining) = tokio::sync::watch::channel(false);
    let address = double.address;
    for _ in 0..AGENTS {
        let config = AgentConfig {
            address: ServerAddress { host: "127.0.0.1".into(), port: address.port() },
            tls: TlsFiles { ca: double::certificate("ca.pem"), own: None, protocols: Vec::new() },
            agent_id: AgentId::Fresh("agent".into()),
            identifiers: String::new(),
            token: None,
            servers: ServersConfig {
                sync_interval: Duration::from_secs(1),
                sync_interval_cap: Duration::from_secs(10),
                recheck_interval: None,
            },
            keepalive: Duration::from_secs(35),
        };
        let metrics = std::sync::Arc::new(Metrics::new().expect("metrics"));
        tokio::spawn(Agent::new(config, metrics, draining.clone()).run());
    }
    let mut streams = Vec::new();
    for _ in 0..AGENTS {
        streams.push(double.stream().await);
    }
    // Nobody listens for a while, as when a server is replaced.
    drop((streams, double));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    let mut double = Double::start_at(address, character()).await;
    let mut back = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..AGENTS {
        streams.push(double.stream().await);
        back.push(began.elapsed());
    }
    let at = |permille: usize| {
        back.get((back.len() * permille / 1000).min(back.len() - 1)).map_or(0.0, Duration::as_secs_f64)
    };
    println!(
        "| {AGENTS} agents after their server was away for 3 s: half are back after, s | {:.2} |",
        at(500)
    );
    println!("| 99 in 100, s | {:.2} |\n| all, s | {:.2} |", at(990), at(1000));
}
