//! Control planes as a service: reads the management cluster by watches, asks [`controlplane`] what to write, writes it,
//! and comes again when something changes. It decides nothing, polls nothing, and writes nothing before it has read
//! everything and heard all orders.

mod clock;
mod feed;
mod figures;
mod kubeconfig;
mod outlook;
mod pace;
mod reconciler;
mod roster;
mod scrape;
mod sight;
mod speaker;
mod start;
pub mod workers;
mod write;

pub use kubeconfig::{KUBECONFIG_QUESTION, KubeconfigAnswer, KubeconfigAsked};
pub use outlook::Outlook;
pub use reconciler::{Order, Reconciler, WRITERS_MAX};
pub use start::start;
pub use write::WriteError;

pub use kube::Client;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A client for the cluster of a kubeconfig, or for the one this runs in. It does not repeat requests by itself: how
/// often and when is decided here, in one place.
///
/// # Errors
/// When there is no usable configuration.
pub async fn client(kubeconfig: Option<&std::path::Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default())
                .await?
        }
        None => Config::infer().await?,
    };
    client_of(config)
}

/// A client from a configuration.
///
/// # Errors
/// When its certificates cannot be used.
pub fn client_of(mut config: Config) -> anyhow::Result<Client> {
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
