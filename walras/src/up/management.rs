//! The management clusters that planes run on: those that somebody names, or in `walras up` simulated ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cluster::Settings;
use cluster_server::{Shared, serve};
use controlplane_service::Client;
use proto::StreamName;
use proto::placement::Driver;
use runtime::bus::Bus;
use runtime::config::{Config, ExchangeSettings};
use runtime::shell::{Shell, Stage};
use serde_json::json;
use tokio::net::TcpListener;

use super::keys;

/// Planes that the simulated Kamaji works on at once.
const KAMAJI_CONCURRENCY: u16 = 8;
/// Zones of the simulated hosts of a region.
const ZONES: u32 = 3;

/// The kubeconfig of a site's management cluster, if somebody names one.
fn named<'a>(config: &'a Config, site: &StreamName) -> Option<&'a Path> {
    let of_site = config.controlplane.sites.get(site).and_then(|site| site.kubeconfig.as_deref());
    of_site.or(config.controlplane.kubeconfig.as_deref())
}

/// Whether the environment names a management cluster.
fn is_in_environment() -> bool {
    std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty())
}

/// Serves the workers of all exchanges beside the control planes of a site, if the configuration says where.
async fn serve_workers(shell: &mut Shell, bus: &Bus, config: &Config, management: &Client) -> Result<()> {
    if config.workers.listen.is_none() {
        return Ok(());
    }
    let sites = config.placement.sites.len();
    // Whoever joins is looked for in one management cluster.
    anyhow::ensure!(
        sites == 1,
        "workers.listen: workers are served where there is one site, and here are {sites}"
    );
    let exchanges: Vec<StreamName> = config.market.exchanges.keys().cloned().collect();
    let listening =
        controlplane_service::workers::start(shell, bus, management, &config.workers, &exchanges).await?;
    if let Some(address) = listening {
        tracing::info!(%address, "workers join and report here");
    }
    Ok(())
}

/// Starts the control planes of every site, each on the cluster that is named for it, or that this runs in.
pub(super) async fn start(shell: &mut Shell, bus: &Bus, config: &Config) -> Result<()> {
    for site in config.placement.sites.keys() {
        let client = controlplane_service::client(named(config, site))
            .await
            .with_context(|| format!("the management cluster of site {site}"))?;
        controlplane_service::start(shell, bus, config, site, client.clone())?;
        serve_workers(shell, bus, config, &client).await?;
    }
    Ok(())
}

/// Starts the control planes of every site; where no cluster is named, on a simulated one. Where the kubeconfigs of
/// simulated clusters are.
pub(super) async fn start_or_simulate(
    shell: &mut Shell,
    bus: &Bus,
    config: &Config,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut simulated = BTreeMap::new();
    for site in config.placement.sites.keys() {
        let kubeconfig = match named(config, site) {
            Some(path) => Some(path.to_owned()),
            None if is_in_environment() => None,
            None if config.controlplane.simulated_hosts == 0 => continue,
            None => {
                let path = simulate(shell, config, site).await?;
                simulated.insert(site.to_string(), path.clone());
                Some(path)
            }
        };
        let client = controlplane_service::client(kubeconfig.as_deref())
            .await
            .with_context(|| format!("the management cluster of site {site}"))?;
        controlplane_service::start(shell, bus, config, site, client.clone())?;
        serve_workers(shell, bus, config, &client).await?;
    }
    Ok(simulated)
}

/// Starts a simulated management cluster, and writes down how `kubectl` reaches it. It asks nobody who they are, and
/// listens to this machine only.
async fn simulate(shell: &mut Shell, config: &Config, site: &StreamName) -> Result<PathBuf> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("a simulated management cluster")?;
    let base_url = format!("http://{}", listener.local_addr()?);
    let shared = Shared::new(Settings {
        seed: config.demo.seed,
        base_url: base_url.clone(),
        kamaji_concurrency: KAMAJI_CONCURRENCY,
        ..Settings::default()
    });
    let placed = config.placement.sites.get(site).cloned().unwrap_or_default();
    let exchanges = config.market.exchanges.values();
    let regions: BTreeSet<_> =
        exchanges.flat_map(ExchangeSettings::all_markets).map(|market| market.region.clone()).collect();
    shared.with(|cluster, now| {
        for region in &regions {
            for number in 1..=config.controlplane.simulated_hosts {
                let zone = format!("{region}-{}", (number - 1) % ZONES + 1);
                let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": {
                    "name": format!("mgmt-{region}-{number}").to_lowercase(),
                    "labels": { "topology.kubernetes.io/region": region,
                        "topology.kubernetes.io/zone": zone } } });
                cluster.furnish_with(now, node);
            }
        }
        for store in &placed.data_stores {
            let driver = match store.driver {
                Driver::Etcd => "etcd",
                Driver::MySql => "MySQL",
                Driver::PostgreSql => "PostgreSQL",
            };
            let store = json!({ "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore",
                "metadata": { "name": store.id }, "spec": { "driver": driver,
                    "endpoints": [format!("{}.stores:2379", store.id)] } });
            cluster.furnish_with(now, store);
        }
    });
    let path = config.data_dir.join(format!("kubeconfig-{site}.json"));
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "walras", "preferences": {},
        "clusters": [{ "name": "walras", "cluster": { "server": base_url } }],
        "users": [{ "name": "walras", "user": {} }],
        "contexts": [{ "name": "walras", "context": { "cluster": "walras", "user": "walras" } }],
    });
    keys::write(&path, &serde_json::to_string_pretty(&kubeconfig)?)?;
    tracing::info!(%site, url = base_url, kubeconfig = %path.display(), "a management cluster is simulated");
    shell.spawn(format!("simulated management cluster of {site}"), Stage::Ground, |stop| async move {
        let stopped = shared.clone();
        tokio::select! {
            served = serve(listener, shared) => Ok(served?),
            () = stop.into_requested() => {
                stopped.stop();
                Ok(())
            }
        }
    });
    Ok(path)
}
