//! What follows: who is served with which server, what exchanges and hypervisors are to be told.

use proto::market::LeaseNumber;
use proto::placement::{ServedLease, ServerNumber, ServerOrder};
use proto::{MarketId, PrincipalId, ServerId, StreamName, Timestamp};

use super::{LeaseKey, Ord, Servers, Told};

/// What an exchange is to be told of a hypervisor's servers in a market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supply {
    /// Which exchange.
    pub exchange: StreamName,
    /// Which market.
    pub market: MarketId,
    /// Whose servers.
    pub hypervisor: PrincipalId,
    /// Of the last statement.
    pub generation: u64,
    /// Usable servers.
    pub units: u32,
    /// Whether the last statement said another number.
    pub is_news: bool,
}

/// How well a free server suits a lease: the least is chosen, an earlier field counts before all later ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, std::cmp::Ord)]
struct Suit {
    /// Leases of the tenant on the hypervisor, so that the departure of one interrupts few of a tenant's.
    tenant_leases: u32,
    hypervisor: Ord,
    server: ServerNumber,
}

impl Servers {
    /// The next lease to be served, and its server; none when nobody waits where a server is free.
    pub fn next_served(&mut self) -> Option<(LeaseKey, ServerNumber)> {
        while let Some(market) = self.to_serve.first().copied() {
            if let Some(found) = self.next_in(market) {
                return Some(found);
            }
            self.to_serve.remove(&market);
        }
        None
    }

    fn next_in(&self, market: Ord) -> Option<(LeaseKey, ServerNumber)> {
        let (_, key) = self.waiting.get(&market)?.first().copied()?;
        let bid = (key.exchange, self.leases.get(&key)?.bid);
        let tenant = &self.bidders.get(&bid)?.tenant;
        let mut best: Option<Suit> = None;
        for (hypervisor, servers) in self.free.get(&market)? {
            let Some(server) = servers.first().copied() else { continue };
            let tenant_leases = self.held.get(&(tenant.clone(), *hypervisor)).copied().unwrap_or(0);
            let suit = Suit { tenant_leases, hypervisor: *hypervisor, server };
            best = Some(best.map_or(suit, |best| best.min(suit)));
            if tenant_leases == 0 {
                break; // None of those behind it is better.
            }
        }
        Some((key, best?.server))
    }

    /// Whether a lease waits for a server.
    pub fn is_waiting(&self, key: LeaseKey) -> bool {
        self.leases.get(&key).is_some_and(super::Lease::waits)
    }

    /// The order by which a server comes to serve a lease.
    pub fn order_to_serve(&self, key: LeaseKey) -> Option<ServerOrder> {
        Some(ServerOrder { lease: Some(self.served(key)?), gone_at: None })
    }

    fn served(&self, key: LeaseKey) -> Option<ServedLease> {
        let lease = self.leases.get(&key)?;
        let bidder = self.bidders.get(&(key.exchange, lease.bid))?;
        Some(ServedLease {
            exchange: self.exchanges.get(key.exchange)?.clone(),
            lease: key.lease,
            market: self.markets.get(lease.market)?.clone(),
            tenant: bidder.tenant.clone(),
            cluster: bidder.cluster.clone(),
        })
    }

    /// The next server that is to be told something else than it was, with the order.
    pub fn next_order(&mut self) -> Option<(ServerNumber, ServerOrder)> {
        while let Some(number) = self.stale.pop_first() {
            let Some(server) = self.servers.get(&number) else { continue };
            let gone_at = server.lease.and_then(|key| self.leases.get(&key)?.gone_at);
            if (Told { lease: server.lease, gone_at }) == server.told {
                continue;
            }
            let lease = server.lease.and_then(|key| self.served(key));
            return Some((number, ServerOrder { lease, gone_at }));
        }
        None
    }

    /// The generation of the next order.
    pub const fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// Leases that have notice and no server, of which their exchanges were not told.
    pub fn unserved(&self) -> Vec<(StreamName, LeaseNumber)> {
        let named = |key: &LeaseKey| Some((self.exchanges.get(key.exchange)?.clone(), key.lease));
        self.unserved.iter().filter_map(named).collect()
    }

    /// Leases that stay on servers that go, with when they go.
    pub fn displaced(&self) -> Vec<(StreamName, LeaseNumber, Timestamp)> {
        let named = |key: &LeaseKey| {
            let gone_at = self.gone_at(self.leases.get(key)?.server?)?;
            Some((self.exchanges.get(key.exchange)?.clone(), key.lease, gone_at))
        };
        self.displaced.iter().filter_map(named).collect()
    }

    /// Where exchanges may have to be told another supply: hypervisor and market.
    pub fn take_dirty(&mut self) -> Vec<(Ord, Ord)> {
        std::mem::take(&mut self.dirty_offers).into_iter().collect()
    }

    /// What is to be told of an offer; none while no exchange has the market.
    pub fn supply(&self, (hypervisor, market): (Ord, Ord)) -> Option<Supply> {
        let offer = self.offers.get(&(hypervisor, market))?;
        Some(Supply {
            exchange: self.exchanges.get(*self.exchange_of.get(&market)?)?.clone(),
            market: self.markets.get(market)?.clone(),
            hypervisor: self.hypervisors.get(hypervisor)?.clone(),
            generation: offer.generation,
            units: offer.units,
            is_news: offer.units != offer.told || offer.generation == 0,
        })
    }

    /// Leases on servers that do not know yet that they are over by `gone_at`.
    pub fn outlasting(
        &self,
        numbers: &[ServerNumber],
        gone_at: Timestamp,
    ) -> Vec<(ServerNumber, StreamName, LeaseNumber)> {
        let outlasts = |number: &ServerNumber| {
            let key = self.servers.get(number)?.lease?;
            let lease = self.leases.get(&key)?;
            let is_over = lease.gone_at.is_some_and(|told| told <= gone_at);
            let exchange = self.exchanges.get(key.exchange)?.clone();
            (!is_over).then_some((*number, exchange, key.lease))
        };
        numbers.iter().filter_map(outlasts).collect()
    }

    /// Servers that are gone by an instant, at most so many.
    pub fn gone_by(&self, now: Timestamp, most: usize) -> Vec<ServerNumber> {
        self.leaving.iter().take_while(|(at, _)| *at <= now).take(most).map(|(_, number)| *number).collect()
    }

    /// When the next server is gone.
    pub fn next_gone_at(&self) -> Option<Timestamp> {
        self.leaving.first().map(|(at, _)| *at)
    }

    /// A hypervisor's server by its name.
    pub fn find(&self, hypervisor: &PrincipalId, name: &ServerId) -> Option<ServerNumber> {
        self.named.get(&self.hypervisors.find(hypervisor)?)?.get(name).copied()
    }

    /// Every server of a hypervisor.
    pub fn all_of(&self, hypervisor: &PrincipalId) -> Vec<ServerNumber> {
        let theirs = self.hypervisors.find(hypervisor).and_then(|ord| self.named.get(&ord));
        theirs.into_iter().flat_map(|named| named.values().copied()).collect()
    }

    /// In which market a server is sold.
    pub fn market_of(&self, number: ServerNumber) -> Option<&MarketId> {
        self.markets.get(self.servers.get(&number)?.market)
    }

    /// Of an offer: the hypervisor and market of a server.
    pub fn offer_of(&self, number: ServerNumber) -> Option<(Ord, Ord)> {
        self.servers.get(&number).map(|server| (server.hypervisor, server.market))
    }

    /// When a server is gone, if it goes.
    pub fn gone_at(&self, number: ServerNumber) -> Option<Timestamp> {
        self.servers.get(&number)?.gone_at
    }

    /// A server's hypervisor and name.
    pub fn name_of(&self, number: ServerNumber) -> Option<(&PrincipalId, &ServerId)> {
        let server = self.servers.get(&number)?;
        Some((self.hypervisors.get(server.hypervisor)?, &server.name))
    }

    /// The number of the next new server.
    pub const fn next_number(&self) -> ServerNumber {
        if self.next == 0 { 1 } else { self.next }
    }

    /// How many servers, hypervisors, markets and bids there are.
    pub fn counts(&self) -> [usize; 4] {
        [self.servers.len(), self.hypervisors.all.len(), self.markets.all.len(), self.bidders.len()]
    }

    /// Whether a bid is known.
    pub fn knows_bid(&self, exchange: &StreamName, bid: u64) -> bool {
        self.exchanges.find(exchange).is_some_and(|ord| self.bidders.contains_key(&(ord, bid)))
    }
}
