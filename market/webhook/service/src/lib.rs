//! Webhooks as a service: each exchange's machine in a runner, the follower that reports facts to it, the courier that
//! delivers, and the secrets that deliveries are signed with.

mod courier;
mod follower;
mod post;
mod reading;
mod secrets;
mod sign;

pub use post::{Posted, Poster};
pub use reading::Reading;
pub use secrets::{QUERIED_AS, SecretAnswer};
pub use sign::{SIGNATURE_HEADER, signature};

use anyhow::Result;
use journal::{Journal, Owner};
use runtime::bus::Bus;
use runtime::config::Config;
use runtime::runner::Runner;
use runtime::shell::{Shell, Stage};
use webhook::Webhooks;

use secrets::Secrets;

/// The principal under which this service speaks.
const PRINCIPAL: &str = "webhook";

/// Starts the webhooks of every exchange of the configuration, in the name of `owner`, which no other process shares.
/// `unique` differs from start to start.
///
/// # Errors
/// When a stream of the bus cannot be used, a file of secrets cannot be read or made, or a metric or name is refused.
pub fn start(
    shell: &mut Shell,
    bus: &Bus,
    journal: &Journal,
    config: &Config,
    owner: &Owner,
    unique: &str,
) -> Result<()> {
    let secrets = Secrets::open(&config.data_dir)?;
    let may_dial_private = config.webhooks.private_addresses;
    for exchange in config.market.exchanges.keys() {
        let meter = shell.meter().of("webhook");
        let runner = Runner::<Webhooks, Reading>::new(
            bus,
            journal,
            exchange.clone(),
            owner.clone(),
            config.runner.clone(),
            &meter,
        )?
        .with_health(shell.health().clone());
        shell.spawn(format!("webhooks of {exchange}"), Stage::Runner, |stop| async move {
            runner.run(stop).await;
            Ok(())
        });
        let follower = follower::Follower { bus: bus.clone(), exchange: exchange.clone() };
        shell.spawn(format!("facts of {exchange}"), Stage::Entrance, |stop| follower.run(stop));
        let courier = courier::Courier {
            bus: bus.clone(),
            exchange: exchange.clone(),
            poster: Poster::new(may_dial_private),
            secrets: secrets.clone(),
            unique: unique.to_owned(),
        };
        shell.spawn(format!("courier of {exchange}"), Stage::Entrance, |stop| courier.run(stop));
        let (bus, exchange, secrets) = (bus.clone(), exchange.clone(), secrets.clone());
        shell.spawn(format!("secrets of {exchange}"), Stage::Reader, |stop| async move {
            let _serving = secrets::serve(&bus, &exchange, secrets).await?;
            stop.into_requested().await;
            Ok(())
        });
    }
    Ok(())
}
