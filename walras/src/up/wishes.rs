//! The demo's tenants ask for clusters and give them up, over the bus, as somebody trusted for them would.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use proto::{StreamName, Timestamp, subject};
use runtime::batcher::Batcher;
use runtime::bus::Bus;
use simulations::outside::Clusters;

/// Lets tenants wish for as long as the task lives.
pub(super) async fn live(
    mut clusters: Clusters,
    bus: Bus,
    site: StreamName,
    unique: String,
    clock: fn() -> Timestamp,
) -> Result<()> {
    let command_subject = subject::command("placement", &site, &clusters.sender());
    let batcher = Batcher::start(bus, command_subject, unique);
    loop {
        if let Some(command) = clusters.act(clock()) {
            // A wish that is lost is none.
            if let Err(error) = batcher.send(Bytes::from(serde_json::to_vec(&command)?)).await {
                tracing::debug!(%error, "a wish of the demo was not sent");
            }
        }
        let wait = clusters.next_at().micros_since(clock());
        tokio::time::sleep(Duration::from_micros(u64::try_from(wait).unwrap_or_default())).await;
    }
}
