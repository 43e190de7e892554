//! The simulated outside world of `walras up`: storefronts and hypervisors from `simulations`, each connected to
//! the bus with credentials of its own, as real ones would be.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use proto::envelope::Answers;
use proto::machine::Sender;
use proto::market::Answer;
use proto::placement::ServerOrders;
use proto::{StreamName, Timestamp, subject};
use runtime::batcher::Batcher;
use runtime::bus::Bus;
use simulations::outside::{Hypervisor, ServerHypervisor, Storefront};
use tokio::sync::broadcast::error::TryRecvError;

use super::grants::{Grant, Grants};

/// A party that is silent looks at its answers this often, at least.
const LOOK: Duration = Duration::from_millis(250);

/// One party of the outside world.
pub(super) enum Party {
    /// Places bids.
    Storefront(Box<Storefront>),
    /// Offers a number of servers to the market.
    Hypervisor(Box<Hypervisor>),
    /// Offers servers to placement, at this site.
    Servers(Box<ServerHypervisor>, StreamName),
}

impl Party {
    fn sender(&self) -> Sender {
        match self {
            Self::Storefront(storefront) => storefront.sender(),
            Self::Hypervisor(hypervisor) => hypervisor.sender(),
            Self::Servers(hypervisor, _) => hypervisor.sender(),
        }
    }

    /// What it says: to the market, and to placement.
    fn act(&mut self, now: Timestamp) -> Result<[Vec<Bytes>; 2]> {
        Ok(match self {
            Self::Storefront(storefront) => [written(&storefront.act(now))?, Vec::new()],
            Self::Hypervisor(hypervisor) => [written(&hypervisor.act(now))?, Vec::new()],
            Self::Servers(hypervisor, _) => {
                let said = hypervisor.act(now);
                [written(&said.to_market)?, written(&said.to_placement)?]
            }
        })
    }

    fn next_at(&self) -> Timestamp {
        match self {
            Self::Storefront(storefront) => storefront.next_at(),
            Self::Hypervisor(hypervisor) => hypervisor.next_at(),
            Self::Servers(hypervisor, _) => hypervisor.next_at(),
        }
    }

    fn granted(&mut self, now: Timestamp, grant: Grant) {
        if let Self::Hypervisor(hypervisor) = self {
            hypervisor.grant(now, grant.leases, grant.available_by);
        }
    }

    /// Where it is told what concerns it.
    fn hears(&self) -> String {
        let Sender { role, principal } = self.sender();
        match self {
            Self::Servers(..) => subject::order(role, &principal),
            Self::Storefront(_) | Self::Hypervisor(_) => subject::answer(&principal),
        }
    }

    fn told(&mut self, now: Timestamp, payload: &[u8]) {
        if let Self::Servers(hypervisor, _) = self {
            let Ok(told) = serde_json::from_slice::<ServerOrders>(payload) else { return };
            for ordered in &told.orders {
                hypervisor.ordered(now, ordered);
            }
            return;
        }
        let Self::Storefront(storefront) = self else { return };
        let Ok(told) = serde_json::from_slice::<Answers<Answer>>(payload) else { return };
        for answer in &told.answers {
            if let Err(broken) = storefront.told(answer) {
                tracing::error!(%broken, "the demo's storefront was told two things");
            }
        }
    }
}

fn written<T: serde::Serialize>(commands: &[T]) -> Result<Vec<Bytes>> {
    let json = commands.iter().map(|command| serde_json::to_vec(command).map(Bytes::from));
    Ok(json.collect::<Result<_, _>>()?)
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
    let mut answers = bus.listen(&party.hears()).await?;
    let mut granted = grants.subscribe();
    let site = match &party {
        Party::Servers(_, site) => Some(site.clone()),
        Party::Storefront(_) | Party::Hypervisor(_) => None,
    };
    let to_site = site.map(|site| {
        let subject = subject::command("placement", &site, &sender);
        Batcher::start(bus.clone(), subject, format!("{unique}-site"))
    });
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
        let [to_market, to_placement] = party.act(now)?;
        let sends = to_market.into_iter().map(|json| batcher.send(json));
        let more = to_site.iter().flat_map(|site| to_placement.iter().map(|json| site.send(json.clone())));
        let (sent, also) =
            futures::future::join(futures::future::join_all(sends), futures::future::join_all(more)).await;
        for outcome in sent.into_iter().chain(also) {
            // What is not stored stays unanswered, and the party sends it again.
            if let Err(error) = outcome {
                tracing::debug!(principal = %sender.principal, %error, "a command of the demo was not sent");
            }
        }
        let wait = party.next_at().micros_since(clock()).clamp(0, LOOK.as_micros() as i64);
        let next = tokio::time::timeout(Duration::from_micros(wait as u64), answers.next()).await;
        match next {
            Ok(Some(announcement)) => party.told(clock(), &announcement.payload),
            Ok(None) => anyhow::bail!("the bus has ended"),
            Err(_) => {}
        }
    }
}
