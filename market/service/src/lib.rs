//! The market as a service: each exchange's machine in a runner, a view of it that answers questions, and the
//! operator's configuration brought into force as commands like everybody else's.

mod asked;
mod figures;
mod reading;
mod steward;
mod transcript;

pub use asked::{QUERIED_AS, RECORDS_MAX};
pub use reading::Reading;
pub use transcript::Transcriber;

use std::path::PathBuf;

use anyhow::Result;
use journal::{Journal, Owner};
use market::Market;
use proto::market::Trust;
use runtime::bus::Bus;
use runtime::config::Config;
use runtime::runner::Runner;
use runtime::shell::{Shell, Stage};

/// Starts every exchange of the configuration, in the name of `owner`, which no other process shares.
///
/// # Errors
/// When a stream of the bus cannot be used, or a metric or name is refused.
pub fn start(
    shell: &mut Shell,
    bus: &Bus,
    journal: &Journal,
    config: &Config,
    owner: &Owner,
    trusted: &[Trust],
) -> Result<()> {
    for (exchange, settings) in &config.market.exchanges {
        let meter = shell.meter().of("market");
        let runner = Runner::<Market, Reading>::new(
            bus,
            journal,
            exchange.clone(),
            owner.clone(),
            config.runner.clone(),
            &meter,
        )?
        .with_health(shell.health().clone());
        shell.spawn(format!("exchange {exchange}"), Stage::Runner, |stop| async move {
            runner.run(stop).await;
            Ok(())
        });
        let steward = steward::Steward {
            bus: bus.clone(),
            exchange: exchange.clone(),
            rules: settings.rules.clone(),
            markets: settings.all_markets().map(|market| (market.market(), market.settings())).collect(),
            trusted: trusted.to_vec(),
        };
        let condition = shell.health().condition(format!("configuration of {exchange}"));
        shell.spawn(format!("configuration of {exchange}"), Stage::Entrance, |stop| {
            steward.run(stop, condition)
        });
        let transcriber = Transcriber::new(
            journal.clone(),
            exchange.clone(),
            transcript_dir(config),
            config.runner.archive_dir.clone(),
        )?;
        shell.spawn(format!("transcript of {exchange}"), Stage::Reader, {
            let bus = bus.clone();
            |stop| transcriber.run(bus, stop)
        });
    }
    Ok(())
}

/// Where transcripts are kept.
pub fn transcript_dir(config: &Config) -> PathBuf {
    config.data_dir.join("transcript")
}
