//! A thousand planes made on the simulated management cluster: how fast, with how many requests, in how much memory.
//!
//! The cluster runs in a process of its own, so that time and memory here are the service's. It is quick: what is
//! measured is what the service adds. A number as argument is another count of planes.

#![allow(clippy::print_stdout, reason = "its figures are its output")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cluster::Settings;
use cluster_server::{Shared, serve};
use controlplane::{Amount, Desired, Plane, PlaneState};
use controlplane_service::{Order, Reconciler, client_of};
use kube::Config;
use proto::placement::Driver;
use runtime::shell::Stop;
use runtime::telemetry::Meter;
use tokio::sync::mpsc;

const HOSTS: u32 = 300;
/// How many planes there are if nobody says another number.
const PLANES: u64 = 1_000;
const PLANES_PER_TENANT: u64 = 4;
const REPLICAS: u32 = 2;
/// What makes this program the cluster.
const SERVE: &str = "--serve-cluster";
const PATIENCE: Duration = Duration::from_mins(4);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if std::env::args().any(|argument| argument == SERVE) {
        return runtime.block_on(serve_cluster());
    }
    let mut child = Command::new(std::env::current_exe()?).arg(SERVE).stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut url)?;
    let planes = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(PLANES);
    let measured = runtime.block_on(measure(url.trim(), planes));
    child.kill()?;
    child.wait()?;
    measured
}

async fn serve_cluster() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base_url = format!("http://{}", listener.local_addr()?);
    println!("{base_url}");
    let settings = Settings {
        base_url,
        reaction_micros: 1_000,
        pod_start_micros: 30_000,
        pod_stop_micros: 30_000,
        kamaji_pass_micros: 1_000,
        kamaji_certificates_micros: 1_000,
        kamaji_concurrency: 64,
        ..Settings::default()
    };
    let shared = Shared::new(settings);
    shared.with(|cluster, now| cluster.furnish(now, HOSTS));
    serve(listener, shared).await.context("serve")
}

fn plane(number: u64) -> Result<Plane> {
    let host = |replica: u64| (number * 7 + replica * 101) % u64::from(HOSTS) + 1;
    Ok(Plane {
        tenant: format!("tenant-{}", number / PLANES_PER_TENANT).parse()?,
        cluster: format!("cluster-{number}").parse()?,
        generation: 1,
        deleted: false,
        replicas: REPLICAS,
        hosts: (0..u64::from(REPLICAS)).map(|replica| format!("mgmt-{}", host(replica))).collect(),
        gone_at: None,
        version: "v1.34.0".parse()?,
        request: Amount { cpu_milli: 200, memory_mib: 512 },
        data_store: "default".to_owned(),
        driver: Driver::Etcd,
    })
}

async fn measure(url: &str, count: u64) -> Result<()> {
    let client = client_of(Config::new(url.parse()?))?;
    let (orders, given) = mpsc::channel(64);
    let (reports, mut told) = mpsc::channel::<PlaneState>(64);
    let meter = Meter::new("controlplane")?;
    let reconciler = Reconciler::new(client, &"main".parse()?, Desired::default(), reports, &meter)?;
    let (stop, stopped) = Stop::new();
    let empty = resident_kib()?;
    let begun = (Instant::now(), cpu_seconds()?);
    let task = tokio::spawn(reconciler.run(given, stopped));
    tokio::spawn(async move {
        for number in 0..count {
            let Ok(plane) = plane(number) else { return };
            if orders.send(Order::Set(number, plane)).await.is_err() {
                return;
            }
        }
        let _told = orders.send(Order::CaughtUp).await;
        // Who gives no more orders ends it.
        std::future::pending::<()>().await;
    });
    let mut reached = BTreeSet::new();
    let all = async {
        while let Some(state) = told.recv().await {
            if state.reached.is_some() {
                reached.insert(state.number);
            }
            if reached.len() as u64 == count {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.with_context(|| format!("not all within {PATIENCE:?}"))?;
    let (wall, cpu) = (begun.0.elapsed().as_secs_f64(), cpu_seconds()? - begun.1);
    let memory = resident_kib()?.saturating_sub(empty);
    let text = meter.text()?;
    let sum = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let planes = count as f64;
    println!("planes {count} of {REPLICAS} replicas, {PLANES_PER_TENANT} for each tenant, on {HOSTS} hosts");
    println!("wall {wall:.1} s, {:.1} planes/s", planes / wall);
    println!("processor time of the service {cpu:.2} s, {:.2} ms for each plane", cpu * 1e3 / planes);
    println!("writes {:.2} for each plane", sum("walras_controlplane_writes_total") / planes);
    let diffs = sum("walras_controlplane_diff_duration_seconds_count");
    println!(
        "diffs {:.2} for each plane, {:.0} us each",
        diffs / planes,
        sum("walras_controlplane_diff_duration_seconds_sum") * 1e6 / diffs
    );
    println!("memory {:.1} KiB for each plane", memory as f64 / planes);
    for line in text.lines().filter(|line| line.starts_with("walras_controlplane_writes_total")) {
        println!("  {line}");
    }
    stop.send_replace(true);
    drop(told);
    task.await?
}

/// Memory of this process that is in use, in KiB.
fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Processor time of this process, in seconds.
fn cpu_seconds() -> Result<f64> {
    /// Parts of a second in which Linux tells processor time.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| -> Result<f64> { Ok(fields.get(place).context("too few fields")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}
