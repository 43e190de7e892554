//! Which server a lease gets: a server has at most one lease, and free servers go to those that wait, in the order of
//! DESIGN §5 (*Who decides what*). The market owns bids and leases and counts servers; here they are told apart.
//!
//! A hypervisor that leaves gives one notice to every lease on it at once, and offers fewer servers. The market then
//! takes counts from bids; they are charged to leases that leave anyway first, so that a departure interrupts a tenant
//! only once. A lease whose bid keeps its count is in the queue for another server from the notice on, with the place
//! of its award, and keeps the old one until it is gone.

mod assign;
mod facts;

use std::collections::{BTreeMap, BTreeSet};

use proto::Timestamp;
use proto::market::{BidNumber, LeaseNumber, MarketNumber};

pub use facts::{Award, Fact, ServersError};
use facts::{Charge, Turn};

/// A hypervisor's number.
pub type HypervisorNumber = u64;
/// A server's number.
pub type ServerNumber = u64;
/// A tenant's number.
pub type TenantNumber = u64;

/// Most servers that are known at a time.
pub const SERVERS_MAX: usize = 10_000_000;
/// Most leases that are known at a time.
pub const LEASES_MAX: usize = 10_000_000;

#[derive(Clone, Copy, Debug)]
struct Server {
    hypervisor: HypervisorNumber,
    market: MarketNumber,
    lease: Option<LeaseNumber>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    award: Award,
    server: Option<ServerNumber>,
    /// The server that it leaves as soon as it has another.
    leaving: Option<ServerNumber>,
    /// The market took it: it gets no other server.
    ends: bool,
}

#[derive(Clone, Debug, Default)]
struct Hypervisor {
    gone_at: Option<Timestamp>,
    /// Usable servers by market.
    units: BTreeMap<MarketNumber, u32>,
    servers: BTreeSet<ServerNumber>,
}

/// Servers and leases of a region.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    hypervisors: BTreeMap<HypervisorNumber, Hypervisor>,
    servers: BTreeMap<ServerNumber, Server>,
    leases: BTreeMap<LeaseNumber, Lease>,
    of_bid: BTreeMap<(BidNumber, MarketNumber), BTreeSet<LeaseNumber>>,
    free: BTreeMap<MarketNumber, BTreeMap<HypervisorNumber, BTreeSet<ServerNumber>>>,
    waiting: BTreeMap<MarketNumber, BTreeSet<Turn>>,
    /// How many leases a tenant has on a hypervisor.
    held: BTreeMap<(TenantNumber, HypervisorNumber), u32>,
}

impl Servers {
    /// Takes a usable server in.
    ///
    /// # Errors
    /// When it is known already, there are too many, or its hypervisor leaves.
    pub fn ready(
        &mut self,
        hypervisor: HypervisorNumber,
        market: MarketNumber,
        server: ServerNumber,
        facts: &mut Vec<Fact>,
    ) -> Result<(), ServersError> {
        if self.servers.contains_key(&server) {
            return Err(ServersError::Known { what: "server", number: server });
        }
        if self.servers.len() >= SERVERS_MAX {
            return Err(ServersError::TooMany { what: "servers", most: SERVERS_MAX });
        }
        let home = self.hypervisors.entry(hypervisor).or_default();
        if home.gone_at.is_some() {
            return Err(ServersError::Leaving { hypervisor });
        }
        home.servers.insert(server);
        let units = home.units.entry(market).or_insert(0);
        *units += 1;
        facts.push(Fact::SupplyChanged { hypervisor, market, units: *units, gone_at: None });
        self.servers.insert(server, Server { hypervisor, market, lease: None });
        self.set_free(server);
        self.serve(market, facts);
        Ok(())
    }

    /// Forgets a server that died. A lease that it had is lost with it, unless it has another already.
    ///
    /// # Errors
    /// When it is not known.
    pub fn gone(&mut self, server: ServerNumber, facts: &mut Vec<Fact>) -> Result<(), ServersError> {
        let Some(known) = self.servers.get(&server).copied() else {
            return Err(ServersError::Unknown { what: "server", number: server });
        };
        if let Some(number) = known.lease {
            self.leave_server(number, server);
            match self.leases.get(&number).copied() {
                Some(lease) if lease.server.is_some() || lease.leaving.is_some() => self.wait(number),
                _ => {
                    self.forget(number);
                    facts.push(Fact::Lost { lease: number, server });
                }
            }
        }
        self.unset_free(server);
        self.servers.remove(&server);
        if let Some(home) = self.hypervisors.get_mut(&known.hypervisor)
            && home.servers.remove(&server)
            && home.gone_at.is_none()
            && let Some(units) = home.units.get_mut(&known.market)
        {
            *units = units.saturating_sub(1);
            let (hypervisor, market, units) = (known.hypervisor, known.market, *units);
            facts.push(Fact::SupplyChanged { hypervisor, market, units, gone_at: None });
        }
        // The lease that it was to replace another for waits for the next.
        self.serve(known.market, facts);
        Ok(())
    }

    /// Says that a hypervisor leaves: every lease on it has notice at once, none of its servers counts any more, and
    /// its leases wait for others. A sooner deadline gives another notice, a later one changes nothing.
    ///
    /// # Errors
    /// When it is not known.
    pub fn leaves(
        &mut self,
        hypervisor: HypervisorNumber,
        gone_at: Timestamp,
        facts: &mut Vec<Fact>,
    ) -> Result<(), ServersError> {
        let Some(home) = self.hypervisors.get_mut(&hypervisor) else {
            return Err(ServersError::Unknown { what: "hypervisor", number: hypervisor });
        };
        let before = home.gone_at;
        if before.is_some_and(|before| before <= gone_at) {
            return Ok(());
        }
        home.gone_at = Some(gone_at);
        let servers: Vec<ServerNumber> = home.servers.iter().copied().collect();
        let markets = std::mem::take(&mut home.units);
        for market in markets.keys() {
            facts.push(Fact::SupplyChanged { hypervisor, market: *market, units: 0, gone_at: Some(gone_at) });
        }
        for server in servers {
            self.unset_free(server);
            let Some(number) = self.servers.get(&server).and_then(|server| server.lease) else { continue };
            facts.push(Fact::Noticed { lease: number, server, gone_at });
            if before.is_some() {
                continue; // It waits for another server already.
            }
            let Some(lease) = self.leases.get_mut(&number) else { continue };
            if lease.ends || lease.server != Some(server) {
                continue;
            }
            if lease.leaving.is_none() {
                (lease.server, lease.leaving) = (None, Some(server));
            } else {
                // It was itself a replacement, not in use yet: the older server is left as before.
                self.leave_server(number, server);
            }
            self.wait(number);
        }
        for market in markets.keys() {
            self.serve(*market, facts);
        }
        Ok(())
    }

    /// Forgets a hypervisor that is gone, with all its servers, as [`Servers::gone`] does for one.
    ///
    /// # Errors
    /// When it is not known.
    pub fn departed(
        &mut self,
        hypervisor: HypervisorNumber,
        facts: &mut Vec<Fact>,
    ) -> Result<(), ServersError> {
        let Some(home) = self.hypervisors.get(&hypervisor) else {
            return Err(ServersError::Unknown { what: "hypervisor", number: hypervisor });
        };
        let servers = home.servers.clone();
        // None of them goes to somebody who waits while the others are taken off.
        for server in &servers {
            self.unset_free(*server);
        }
        for server in servers {
            self.gone(server, facts)?;
        }
        self.hypervisors.remove(&hypervisor);
        Ok(())
    }

    /// Takes an award in. It gets a server at once if one is free and nobody waits before it.
    ///
    /// # Errors
    /// When the lease is known already, or there are too many.
    pub fn awarded(&mut self, award: &Award, facts: &mut Vec<Fact>) -> Result<(), ServersError> {
        if self.leases.contains_key(&award.lease) {
            return Err(ServersError::Known { what: "lease", number: award.lease });
        }
        if self.leases.len() >= LEASES_MAX {
            return Err(ServersError::TooMany { what: "leases", most: LEASES_MAX });
        }
        self.leases.insert(award.lease, Lease { award: *award, server: None, leaving: None, ends: false });
        self.of_bid.entry((award.bid, award.market)).or_default().insert(award.lease);
        self.wait(award.lease);
        self.serve(award.market, facts);
        Ok(())
    }

    /// Says that the market took units from a bid in a market: the leases to which they are charged. They wait for
    /// nothing any more, keep the server they are on, and go on until [`Servers::released`].
    pub fn charge(
        &mut self,
        bid: BidNumber,
        market: MarketNumber,
        units: u32,
        facts: &mut Vec<Fact>,
    ) -> Vec<LeaseNumber> {
        let numbers = self.of_bid.get(&(bid, market)).into_iter().flatten();
        let mut charges: Vec<Charge> =
            numbers.filter_map(|number| self.leases.get(number)).map(|lease| self.charge_of(lease)).collect();
        charges.sort_unstable();
        charges.truncate(units as usize);
        let charged: Vec<LeaseNumber> = charges.iter().map(|charge| charge.turn.0.lease).collect();
        for number in &charged {
            self.end(*number);
        }
        self.serve(market, facts);
        charged
    }

    /// Says that a lease is over. Its server is free for others, if it stays.
    ///
    /// # Errors
    /// When it is not known.
    pub fn released(&mut self, number: LeaseNumber, facts: &mut Vec<Fact>) -> Result<(), ServersError> {
        let Some(lease) = self.leases.get(&number).copied() else {
            return Err(ServersError::Unknown { what: "lease", number });
        };
        for server in lease.server.into_iter().chain(lease.leaving) {
            self.leave_server(number, server);
        }
        self.forget(number);
        self.serve(lease.award.market, facts);
        Ok(())
    }

    /// Says that a lease works on the server that replaces another, so that the other is left.
    ///
    /// # Errors
    /// When it is not known.
    pub fn moved(&mut self, number: LeaseNumber) -> Result<(), ServersError> {
        let Some(lease) = self.leases.get(&number).copied() else {
            return Err(ServersError::Unknown { what: "lease", number });
        };
        if let (Some(_), Some(left)) = (lease.server, lease.leaving) {
            self.leave_server(number, left);
        }
        Ok(())
    }

    /// The server that a lease has or gets; none while it waits.
    pub fn server_of(&self, lease: LeaseNumber) -> Option<ServerNumber> {
        self.leases.get(&lease)?.server
    }

    /// The lease of a server.
    pub fn lease_on(&self, server: ServerNumber) -> Option<LeaseNumber> {
        self.servers.get(&server)?.lease
    }

    /// Leases of a market that wait for a server, in their order.
    pub fn waiting(&self, market: MarketNumber) -> impl Iterator<Item = LeaseNumber> + '_ {
        self.waiting.get(&market).into_iter().flatten().map(|turn| turn.lease)
    }

    /// Free servers of a market.
    pub fn free(&self, market: MarketNumber) -> usize {
        self.free.get(&market).into_iter().flat_map(BTreeMap::values).map(BTreeSet::len).sum()
    }
}
