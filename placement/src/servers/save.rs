//! Servers and leases as they are saved: what can be worked out is left out.

use proto::market::{BidNumber, MarketNumber};
use proto::placement::ServerNumber;
use proto::{MarketId, PrincipalId, StreamName};
use serde::{Deserialize, Serialize};

use super::{BIDDER, Bidder, LEASE, Lease, LeaseKey, NAME, OFFER, Offer, Ord, SERVER, Server, Servers};

/// Servers and leases as they are saved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedServers {
    hypervisors: Vec<PrincipalId>,
    markets: Vec<MarketId>,
    exchanges: Vec<StreamName>,
    numbered: Vec<(Ord, MarketNumber, Ord)>,
    exchange_of: Vec<(Ord, Ord)>,
    offers: Vec<(Ord, Ord, Offer)>,
    servers: Vec<(ServerNumber, Server)>,
    leases: Vec<(LeaseKey, Lease)>,
    bidders: Vec<(Ord, BidNumber, Bidder)>,
    next: ServerNumber,
    generation: u64,
}

impl Servers {
    /// What is saved.
    pub fn saved(&self) -> SavedServers {
        SavedServers {
            hypervisors: self.hypervisors.all.clone(),
            markets: self.markets.all.clone(),
            exchanges: self.exchanges.all.clone(),
            numbered: self.numbered.iter().map(|((of, number), market)| (*of, *number, *market)).collect(),
            exchange_of: self.exchange_of.iter().map(|(market, of)| (*market, *of)).collect(),
            offers: self.offers.iter().map(|((of, market), offer)| (*of, *market, *offer)).collect(),
            servers: self.servers.iter().map(|(number, server)| (*number, server.clone())).collect(),
            leases: self.leases.iter().map(|(key, lease)| (*key, *lease)).collect(),
            bidders: self.bidders.iter().map(|((of, bid), bidder)| (*of, *bid, bidder.clone())).collect(),
            next: self.next,
            generation: self.generation,
        }
    }

    /// Makes the state anew from what was saved.
    pub fn restored(saved: SavedServers) -> Self {
        let mut state = Self { next: saved.next, generation: saved.generation, ..Self::default() };
        for name in &saved.hypervisors {
            state.name_hypervisor(name);
        }
        for name in &saved.markets {
            state.name_market(name);
        }
        for name in &saved.exchanges {
            state.name_exchange(name);
        }
        for (exchange, number, market) in saved.numbered {
            state.count(NAME, true, &("number", exchange, number, market));
            state.numbered.insert((exchange, number), market);
        }
        state.exchange_of = saved.exchange_of.into_iter().collect();
        for (hypervisor, market, offer) in saved.offers {
            state.count(OFFER, true, &((hypervisor, market), offer));
            state.offers.insert((hypervisor, market), offer);
        }
        for (exchange, bid, bidder) in saved.bidders {
            state.count(BIDDER, true, &((exchange, bid), &bidder));
            state.bidders.insert((exchange, bid), bidder);
        }
        for (key, lease) in saved.leases {
            state.count(LEASE, true, &(key, lease));
            state.leases.insert(key, lease);
            state.wait(key);
        }
        for (number, server) in saved.servers {
            state.count(SERVER, true, &(number, &server));
            state.named.entry(server.hypervisor).or_default().insert(server.name.clone(), number);
            if let Some(gone_at) = server.gone_at {
                state.leaving.insert((gone_at, number));
            }
            let lease = server.lease;
            state.servers.insert(number, server);
            state.set_free(number);
            if let Some(held) = lease.and_then(|key| state.holding(key, number)) {
                *state.held.entry(held).or_insert(0) += 1;
            }
        }
        state
    }
}
