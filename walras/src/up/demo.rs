//! The simulated outside world of `walras up`: storefronts and hypervisors from `simulations`, each connected to
//! the bus with credentials of its own, as real ones would be.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use proto::envelope::Answers;
use proto::machine::Sender;
use proto::market::{Answer, MarketCommand};
use proto::{StreamName, Timestamp, subject};
use runtime::batcher::Batcher;
use runtime::bus::Bus;
use simulations::outside::{Hypervisor, Storefront};
use tokio::sync::broadcast::error::TryRecvError;

use super::grants::{Grant, Grants};

/// A party that is silent looks at its answers this often, at least.
const LOOK: Duration = Duration::from_millis(250);

/// One party of the outside world.
pub(super) enum Party {
    /// Places bids.
    Storefront(Box<Storefront>),
    /// Offers servers.
    Hypervisor(Box<Hypervisor>),
}

impl Party {
    fn sender(&self) -> Sender {
        match self {
            Self::Storefront(storefront) => storefront.sender(),
            Self::Hypervisor(hypervisor) => hypervisor.sender(),
        }
    }

    fn act(&mut self, now: Timestamp) -> Vec<MarketCommand> {
        match self {
            Self::Storefront(storefront) => storefront.act(now),
            Self::Hypervisor(hypervisor) => hypervisor.act(now),
        }
    }

    fn next_at(&self) -> Timestamp {
        match self {
            Self::Storefront(storefront) => storefront.next_at(),
            Self::Hypervisor(hypervisor) => hypervisor.next_at(),
        }
    }

    fn granted(&mut self, now: Timestamp, grant: Grant) {
        if let Self::Hypervisor(hypervisor) = self {
            hypervisor.grant(now, grant.leases, grant.available_by);
        }
    }

    fn told(&mut self, payload: &[u8]) {
        let Self::Storefront(storefront) = self else { return };
        let Ok(told) = serde_json::from_slice::<Answers<Answer>>(payload) else { return };
        for answer in &told.answers {
            if let Err(broken) = storefront.told(answer) {
                tracing::error!(%broken, "the demo's storefront was told two things");
            }
        }
    }
}

/// Lets a party act for as long as the task lives.
pub(super) async fn live(
    mut party: Party,
    bus: Bus,
    exchange: StreamName,
    grants: &Grants,
    unique: String,
    clock: fn() -> Timestamp,
) -> Result<()> {
    let sender = party.sender();
    let mut answers = bus.listen(&subject::answer(&sender.principal)).await?;
    let mut granted = grants.subscribe();
    let batcher = Batcher::start(bus.clone(), subject::command("market", &exchange, &sender), unique);
    loop {
        let now = clock();
        loop {
            match granted.try_recv() {
                Ok(grant) => party.granted(now, grant),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let commands = party.act(now).iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>()?;
        let sends = commands.into_iter().map(|json| batcher.send(Bytes::from(json)));
        for outcome in futures::future::join_all(sends).await {
            // What is not stored stays unanswered, and the party sends it again.
            if let Err(error) = outcome {
                tracing::debug!(principal = %sender.principal, %error, "a command of the demo was not sent");
            }
        }
        let wait = party.next_at().micros_since(clock()).clamp(0, LOOK.as_micros() as i64);
        let next = tokio::time::timeout(Duration::from_micros(wait as u64), answers.next()).await;
        match next {
            Ok(Some(announcement)) => party.told(&announcement.payload),
            Ok(None) => anyhow::bail!("the bus has ended"),
            Err(_) => {}
        }
    }
}
