//! `cluster-server`: a management cluster with some hosts, to point `kubectl` at.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Parser;
use cluster::Settings;
use cluster_server::{Shared, serve};
use tokio::net::TcpListener;

/// A simulated management cluster that speaks the Kubernetes API.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// How many hosts there are at the start, in three zones.
    #[arg(long, default_value_t = 6)]
    hosts: u32,
    /// Where all chance comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("listen on {}", arguments.listen))?;
    let base_url = format!("http://{}", listener.local_addr()?);
    let shared =
        Shared::new(Settings { seed: arguments.seed, base_url: base_url.clone(), ..Settings::default() });
    shared.with(|cluster, now| cluster.furnish(now, arguments.hosts));
    println!("kubectl --server {base_url} get nodes");
    serve(listener, shared).await.context("serve")
}
