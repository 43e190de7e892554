//! Placement as a service: each site's machine in a runner, a view that answers questions about it, the operator's
//! configuration brought into force as commands like everybody else's, and the bids of every exchange reported to it.

mod bids;
mod figures;
mod reading;
mod steward;

pub use reading::{Reading, SiteAnswer};

use anyhow::Result;
use journal::{Journal, Owner};
use placement::machine::Placement;
use runtime::bus::Bus;
use runtime::config::Config;
use runtime::runner::Runner;
use runtime::shell::{Shell, Stage};

/// The principal under which this service speaks.
const PRINCIPAL: &str = "placement";

/// Starts every site of the configuration, in the name of `owner`, which no other process shares.
///
/// # Errors
/// When a stream of the bus cannot be used, or a metric or name is refused.
pub fn start(shell: &mut Shell, bus: &Bus, journal: &Journal, config: &Config, owner: &Owner) -> Result<()> {
    for (site, settings) in &config.placement.sites {
        let meter = shell.meter().of("placement");
        let runner = Runner::<Placement, Reading>::new(
            bus,
            journal,
            site.clone(),
            owner.clone(),
            config.runner.clone(),
            &meter,
        )?
        .with_health(shell.health().clone());
        shell.spawn(format!("site {site}"), Stage::Runner, |stop| async move {
            runner.run(stop).await;
            Ok(())
        });
        let steward = steward::Steward { bus: bus.clone(), site: site.clone(), settings: settings.clone() };
        let condition = shell.health().condition(format!("configuration of site {site}"));
        shell.spawn(format!("configuration of site {site}"), Stage::Entrance, |stop| {
            steward.run(stop, condition)
        });
        for exchange in config.market.exchanges.keys() {
            let follower =
                bids::Follower { bus: bus.clone(), site: site.clone(), exchange: exchange.clone() };
            shell.spawn(format!("bids of {exchange} for site {site}"), Stage::Entrance, |stop| {
                follower.run(stop)
            });
        }
    }
    Ok(())
}
