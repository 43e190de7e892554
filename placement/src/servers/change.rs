//! What events say takes effect.

use proto::market::{BidNumber, LeaseNumber, LeaseSpan, MarketNumber};
use proto::placement::{LeaseChange, MarketNamed, ServerNumber, ServerOrder};
use proto::{ClusterId, MarketId, PrincipalId, ServerId, StreamName, TenantId, Timestamp};

use super::{BIDDER, Bidder, LEASE, Lease, LeaseKey, NAME, Ord, SERVER, Server, Servers, Told};

impl Servers {
    /// An exchange has a market. What hypervisors have there is to be stated to it.
    pub fn open(&mut self, exchange: &StreamName, named: &MarketNamed) {
        let (exchange, market) = (self.name_exchange(exchange), self.name_market(&named.id));
        if self.numbered.insert((exchange, named.market), market) == Some(market) {
            return;
        }
        self.count(NAME, true, &("number", exchange, named.market, market));
        self.exchange_of.insert(market, exchange);
        let offers: Vec<_> = self.offers.keys().copied().filter(|(_, of)| *of == market).collect();
        self.dirty_offers.extend(offers);
    }

    /// A hypervisor has new servers, numbered from `first`, and is told again of others.
    pub fn add(
        &mut self,
        hypervisor: &PrincipalId,
        market: &MarketId,
        first: ServerNumber,
        names: &[ServerId],
        again: &[ServerNumber],
    ) {
        let (hypervisor, market) = (self.name_hypervisor(hypervisor), self.name_market(market));
        for (number, name) in (first..).zip(names) {
            let server = Server {
                name: name.clone(),
                hypervisor,
                market,
                gone_at: None,
                lease: None,
                told: Told::default(),
            };
            self.count(SERVER, true, &(number, &server));
            self.servers.insert(number, server);
            self.named.entry(hypervisor).or_default().insert(name.clone(), number);
            self.set_free(number);
            self.next = number + 1;
        }
        self.edit_offer((hypervisor, market), |offer| offer.units += names.len() as u32);
        self.dirty_offers.insert((hypervisor, market));
        for number in again {
            // What it was told counts no more, but for the generation.
            self.edit_server(*number, |server| server.told = Told::default());
            self.stale.insert(*number);
        }
    }

    /// Servers go at an instant, or stay.
    pub fn leave(&mut self, numbers: &[ServerNumber], gone_at: Option<Timestamp>) {
        for number in numbers {
            let Some(server) = self.servers.get(number) else { continue };
            let (before, key, is_free) =
                (server.gone_at, (server.hypervisor, server.market), server.lease.is_none());
            if let Some(before) = before {
                self.leaving.remove(&(before, *number));
            }
            if let Some(gone_at) = gone_at {
                self.leaving.insert((gone_at, *number));
            }
            self.edit_server(*number, |server| server.gone_at = gone_at);
            match (before.is_some(), gone_at.is_some()) {
                (false, true) => self.edit_offer(key, |offer| offer.units = offer.units.saturating_sub(1)),
                (true, false) => self.edit_offer(key, |offer| offer.units += 1),
                _ => {}
            }
            self.dirty_offers.insert(key);
            if is_free && gone_at.is_some() {
                self.unset_free(*number);
            } else if is_free {
                self.set_free(*number);
            }
        }
    }

    /// Servers are gone. Leases on them are without a server for good.
    pub fn remove(&mut self, numbers: &[ServerNumber]) {
        for number in numbers {
            let Some(server) = self.servers.get(number) else { continue };
            if let Some(key) = server.lease {
                self.part(key, *number);
                self.edit_lease(key, |lease| lease.is_lost = true);
            }
            self.unset_free(*number);
            let Some(server) = self.servers.remove(number) else { continue };
            self.count(SERVER, false, &(number, &server));
            let key = (server.hypervisor, server.market);
            match server.gone_at {
                Some(gone_at) => drop(self.leaving.remove(&(gone_at, *number))),
                None => self.edit_offer(key, |offer| offer.units = offer.units.saturating_sub(1)),
            }
            if let Some(named) = self.named.get_mut(&server.hypervisor) {
                named.remove(&server.name);
            }
            self.dirty_offers.insert(key);
            self.stale.remove(number);
        }
    }

    /// A bid stands.
    pub fn place(&mut self, exchange: &StreamName, bid: BidNumber, tenant: &TenantId, cluster: &ClusterId) {
        let key = (self.name_exchange(exchange), bid);
        if self.bidders.contains_key(&key) {
            return;
        }
        let bidder = Bidder { tenant: tenant.clone(), cluster: cluster.clone(), leases: 0, has_ended: false };
        self.count(BIDDER, true, &(key, &bidder));
        self.bidders.insert(key, bidder);
    }

    /// A bid has ended.
    pub fn end_bid(&mut self, exchange: &StreamName, bid: BidNumber) {
        let key = (self.name_exchange(exchange), bid);
        self.edit_bidder(key, |bidder| bidder.has_ended = true);
    }

    fn edit_bidder(&mut self, key: (Ord, BidNumber), edit: impl FnOnce(&mut Bidder)) {
        let Some(mut bidder) = self.bidders.remove(&key) else { return };
        self.count(BIDDER, false, &(key, &bidder));
        edit(&mut bidder);
        if bidder.has_ended && bidder.leases == 0 {
            return;
        }
        self.count(BIDDER, true, &(key, &bidder));
        self.bidders.insert(key, bidder);
    }

    /// Leases of an exchange come, have notice, stay or end.
    pub fn change(&mut self, exchange: &StreamName, change: LeaseChange) {
        let exchange = self.name_exchange(exchange);
        let keys = |span: LeaseSpan| (span.first..span.end()).map(move |lease| LeaseKey { exchange, lease });
        match change {
            LeaseChange::Awarded { bid, market, leases, replaces } => {
                for (offset, key) in keys(leases).enumerate() {
                    let replaced = replaces.map(|first| first + offset as LeaseNumber);
                    self.award(key, bid, market, replaced);
                }
            }
            LeaseChange::Noticed { leases, gone_at } => {
                keys(leases).for_each(|key| self.notice(key, Some(gone_at)));
            }
            LeaseChange::Withdrawn { leases } => keys(leases).for_each(|key| self.notice(key, None)),
            LeaseChange::Released { leases } => keys(leases).for_each(|key| self.release(key)),
        }
    }

    /// Takes a lease in. One of a bid or a market that nobody told of cannot be served.
    fn award(&mut self, key: LeaseKey, bid: BidNumber, market: MarketNumber, replaces: Option<LeaseNumber>) {
        let Some(market) = self.numbered.get(&(key.exchange, market)).copied() else { return };
        let bidder = (key.exchange, bid);
        if self.leases.contains_key(&key) || !self.bidders.contains_key(&bidder) {
            return;
        }
        let replaced = replaces.and_then(|lease| self.leases.get(&LeaseKey { lease, ..key }));
        let turn = replaced.map_or(key.lease, |replaced| replaced.turn);
        let lease = Lease { bid, market, turn, server: None, gone_at: None, is_lost: false };
        self.count(LEASE, true, &(key, lease));
        self.leases.insert(key, lease);
        self.edit_bidder(bidder, |bidder| bidder.leases += 1);
        self.wait(key);
    }

    fn notice(&mut self, key: LeaseKey, gone_at: Option<Timestamp>) {
        self.unwait(key);
        // One that stays after all, and whose server is gone since, gets another.
        self.edit_lease(key, |lease| {
            (lease.gone_at, lease.is_lost) = (gone_at, lease.is_lost && gone_at.is_some());
        });
        self.unserved.remove(&key);
        match self.leases.get(&key) {
            Some(Lease { server: Some(server), .. }) => {
                let server = *server;
                self.stale.insert(server);
                if gone_at.is_none() && self.gone_at(server).is_some() {
                    self.displaced.insert(key);
                }
            }
            // Whether others serve it is theirs to say.
            Some(&Lease { gone_at: Some(_), is_lost: false, market, .. }) if self.serves(market) => {
                self.unserved.insert(key);
            }
            _ => self.wait(key),
        }
    }

    /// Whether hypervisors ever offered servers of a market here.
    fn serves(&self, market: Ord) -> bool {
        self.offers.keys().any(|&(_, of)| of == market)
    }

    fn release(&mut self, key: LeaseKey) {
        let Some(lease) = self.leases.get(&key).copied() else { return };
        if let Some(server) = lease.server {
            self.part(key, server);
            self.set_free(server);
            self.stale.insert(server);
        }
        self.unwait(key);
        self.unserved.remove(&key);
        self.displaced.remove(&key);
        // As it is by now, without its server.
        if let Some(left) = self.leases.remove(&key) {
            self.count(LEASE, false, &(key, left));
        }
        self.edit_bidder((key.exchange, lease.bid), |bidder| {
            bidder.leases = bidder.leases.saturating_sub(1);
        });
    }

    /// The exchange was told that a lease has no server.
    pub fn unserved_told(&mut self, exchange: &StreamName, lease: LeaseNumber) {
        let exchange = self.name_exchange(exchange);
        self.unserved.remove(&LeaseKey { exchange, lease });
    }

    /// The exchange was told that a lease has to leave.
    pub fn displaced_told(&mut self, exchange: &StreamName, lease: LeaseNumber) {
        let exchange = self.name_exchange(exchange);
        self.displaced.remove(&LeaseKey { exchange, lease });
    }

    /// The exchange was told what a hypervisor has in a market.
    pub fn supply_told(&mut self, hypervisor: &PrincipalId, market: &MarketId, generation: u64, units: u32) {
        let key = (self.name_hypervisor(hypervisor), self.name_market(market));
        self.edit_offer(key, |offer| (offer.generation, offer.told) = (generation, units));
        self.dirty_offers.remove(&key);
    }

    /// A server was told what to be. If that is a lease that has none yet, it is its server now.
    pub fn ordered(&mut self, number: ServerNumber, generation: u64, order: &ServerOrder) {
        let lease = order.lease.as_ref().and_then(|served| {
            Some(LeaseKey { exchange: self.exchanges.find(&served.exchange)?, lease: served.lease })
        });
        let told = Told { lease, gone_at: order.gone_at };
        if let Some(key) = lease
            && self.leases.get(&key).is_some_and(Lease::waits)
            && self.servers.get(&number).is_some_and(|server| server.lease.is_none())
        {
            self.join(key, number);
        }
        self.generation = generation;
        self.edit_server(number, |server| server.told = told);
        self.stale.remove(&number);
    }

    fn join(&mut self, key: LeaseKey, number: ServerNumber) {
        self.unwait(key);
        self.unset_free(number);
        self.edit_server(number, |server| server.lease = Some(key));
        self.edit_lease(key, |lease| lease.server = Some(number));
        if let Some(held) = self.holding(key, number) {
            *self.held.entry(held).or_insert(0) += 1;
        }
    }

    /// Takes a lease off its server.
    fn part(&mut self, key: LeaseKey, number: ServerNumber) {
        if let Some(holding) = self.holding(key, number)
            && let Some(held) = self.held.get_mut(&holding)
        {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&holding);
            }
        }
        self.edit_server(number, |server| server.lease = None);
        self.edit_lease(key, |lease| lease.server = None);
    }

    pub(super) fn holding(&self, key: LeaseKey, number: ServerNumber) -> Option<(TenantId, Ord)> {
        let bid = (key.exchange, self.leases.get(&key)?.bid);
        Some((self.bidders.get(&bid)?.tenant.clone(), self.servers.get(&number)?.hypervisor))
    }

    pub(super) fn wait(&mut self, key: LeaseKey) {
        let Some(lease) = self.leases.get(&key).filter(|lease| lease.waits()) else { return };
        self.to_serve.insert(lease.market);
        self.waiting.entry(lease.market).or_default().insert((lease.turn, key));
    }

    fn unwait(&mut self, key: LeaseKey) {
        let Some(lease) = self.leases.get(&key) else { return };
        if let Some(line) = self.waiting.get_mut(&lease.market) {
            line.remove(&(lease.turn, key));
            if line.is_empty() {
                self.waiting.remove(&lease.market);
            }
        }
    }

    /// Notes that a server without a lease may be given to one, if it stays.
    pub(super) fn set_free(&mut self, number: ServerNumber) {
        let Some(server) = self.servers.get(&number) else { return };
        if server.gone_at.is_some() || server.lease.is_some() {
            return;
        }
        self.to_serve.insert(server.market);
        self.free.entry(server.market).or_default().entry(server.hypervisor).or_default().insert(number);
    }

    fn unset_free(&mut self, number: ServerNumber) {
        let Some(server) = self.servers.get(&number) else { return };
        let Some(hypervisors) = self.free.get_mut(&server.market) else { return };
        if let Some(free) = hypervisors.get_mut(&server.hypervisor) {
            free.remove(&number);
            if free.is_empty() {
                hypervisors.remove(&server.hypervisor);
            }
        }
        if hypervisors.is_empty() {
            self.free.remove(&server.market);
        }
    }
}
