//! `walras cluster create|list|upgrade|kubeconfig|wake|delete`.

use anyhow::Result;
use placement::machine::{ClusterView, ClustersView};
use proto::placement::{Availability, ClusterTerms};
use serde_json::json;

use super::table::{print, print_json, print_line};
use crate::cli::{ClusterCommand, CreateClusterArgs, NamedClusterArgs, UpgradeClusterArgs};
use crate::client::{Client, Connection};
use crate::gateway::clusters::{ChangeRequest, CreateRequest};
use crate::gateway::kubeconfigs::KubeconfigView;

/// Carries out one of the commands.
///
/// # Errors
/// What the gateway refused, in one line.
pub fn run(command: &ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Create(arguments) => create(arguments),
        ClusterCommand::List(arguments) => {
            let clusters = Client::new(&arguments.connection)?.get::<ClustersView>("/v1/clusters")?;
            if arguments.connection.json {
                return print_json(&clusters);
            }
            table(&clusters.clusters)
        }
        ClusterCommand::Upgrade(arguments) => upgrade(arguments),
        ClusterCommand::Kubeconfig(arguments) => {
            let path = format!("{}/kubeconfig", path(arguments));
            let found = Client::new(&arguments.connection)?.get::<KubeconfigView>(&path)?;
            if arguments.connection.json {
                print_json(&found)
            } else {
                print_line(found.kubeconfig.trim_end())
            }
        }
        ClusterCommand::Wake(arguments) => {
            let path = format!("{}/wake", path(arguments));
            let woken = Client::new(&arguments.connection)?.post::<ClusterView>(&path, &json!({}))?;
            show(&arguments.connection, &woken)
        }
        ClusterCommand::Delete(arguments) => {
            let deleted = Client::new(&arguments.connection)?.delete::<ClusterView>(&path(arguments))?;
            show(&arguments.connection, &deleted)
        }
    }
}

fn path(arguments: &NamedClusterArgs) -> String {
    format!("/v1/clusters/{}", arguments.cluster)
}

fn create(arguments: &CreateClusterArgs) -> Result<()> {
    let availability = if arguments.single { Availability::Single } else { Availability::High };
    let request = CreateRequest {
        id: arguments.id.clone(),
        cluster: arguments.cluster.clone(),
        terms: ClusterTerms {
            availability,
            regions: arguments.regions.clone(),
            version: arguments.version,
            driver: None,
            data_store: arguments.data_store.clone(),
            sleep_after_seconds: arguments.sleep_after_seconds,
        },
        site: arguments.site.clone(),
    };
    let created = Client::new(&arguments.connection)?.post::<ClusterView>("/v1/clusters", &request)?;
    show(&arguments.connection, &created)
}

fn upgrade(arguments: &UpgradeClusterArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    let path = format!("/v1/clusters/{}", arguments.cluster);
    let stands = client.get::<ClusterView>(&path)?;
    let terms = ClusterTerms { version: arguments.version, ..stands.terms };
    let request = ChangeRequest { id: None, version: stands.version, terms };
    show(&arguments.connection, &client.patch::<ClusterView>(&path, &request)?)
}

fn show(connection: &Connection, cluster: &ClusterView) -> Result<()> {
    if connection.json { print_json(cluster) } else { table(std::slice::from_ref(cluster)) }
}

fn table(clusters: &[ClusterView]) -> Result<()> {
    if clusters.is_empty() {
        return print_line("no clusters");
    }
    let word = |value: &dyn Fn() -> serde_json::Result<serde_json::Value>| {
        value().ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let row = |cluster: &ClusterView| {
        let served = cluster.served.map_or_else(|| "-".to_owned(), |served| served.to_string());
        let risk =
            cluster.at_risk.map_or_else(|| "-".to_owned(), |risk| word(&|| serde_json::to_value(risk)));
        vec![
            cluster.cluster.to_string(),
            word(&|| serde_json::to_value(cluster.state)),
            served,
            cluster.terms.version.to_string(),
            format!("{}/{}", cluster.ready, cluster.replicas),
            cluster.workers.to_string(),
            cluster.size.to_string(),
            cluster.data_store.to_string(),
            risk,
        ]
    };
    let heading =
        ["cluster", "state", "serves", "wanted", "ready", "workers", "size", "data store", "at risk"];
    print(&heading, &clusters.iter().map(row).collect::<Vec<_>>())
}
