//! Which server a lease gets: a server has at most one lease, and free servers go to those that wait, in the order of
//! their awards.
//!
//! Exchanges own bids and leases and count servers; here servers are told apart. Everything changes by what an event
//! says ([`change`]); what follows from it is asked for ([`choose`]) and comes back as the next event. A lease whose server
//! goes is not given another one: its exchange is asked to let another lease take its place, which has its turn.

mod change;
mod check;
mod choose;
mod read;
mod save;

use std::collections::{BTreeMap, BTreeSet};

use proto::market::{BidNumber, LeaseNumber, MarketNumber};
use proto::placement::ServerNumber;
use proto::{ClusterId, MarketId, PrincipalId, ServerId, StreamName, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

pub use choose::Supply;
pub use read::{MarketServers, ServersView};
pub use save::SavedServers;

use crate::machine::digest;

/// Where a hypervisor, a market or an exchange stands in the order in which they were named first.
pub type Ord = u32;

/// Most servers that are known at a time.
pub const SERVERS_MAX: usize = 1_000_000;
/// Most servers of one hypervisor.
pub const HYPERVISOR_SERVERS_MAX: usize = 10_000;
/// Most hypervisors that have ever offered servers.
pub const HYPERVISORS_MAX: usize = 100_000;
/// Most markets that servers were ever offered in, or exchanges named.
pub const MARKETS_MAX: usize = 65_536;

/// A lease of any exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, std::cmp::Ord, Serialize, Deserialize)]
pub struct LeaseKey {
    /// Its exchange.
    pub exchange: Ord,
    /// Its number there.
    pub lease: LeaseNumber,
}

/// What a server was last told to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    lease: Option<LeaseKey>,
    gone_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Server {
    name: ServerId,
    hypervisor: Ord,
    market: Ord,
    /// When it is gone, if it goes.
    gone_at: Option<Timestamp>,
    lease: Option<LeaseKey>,
    told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    bid: BidNumber,
    market: Ord,
    /// Less is served first: the number of the first lease of those that replaced one another.
    turn: LeaseNumber,
    server: Option<ServerNumber>,
    /// When it is over, if it has notice.
    gone_at: Option<Timestamp>,
    /// Its server is gone: it gets no other, and its exchange was told.
    is_lost: bool,
}

impl Lease {
    /// Whether it is to get a server.
    const fn waits(&self) -> bool {
        self.server.is_none() && self.gone_at.is_none() && !self.is_lost
    }
}

/// Who placed a bid. Kept while it stands or has leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bidder {
    tenant: TenantId,
    cluster: ClusterId,
    leases: u32,
    has_ended: bool,
}

/// What a hypervisor has in a market.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    /// Usable servers, those that go left out.
    units: u32,
    /// What the exchange was told last.
    generation: u64,
    told: u32,
}

/// Names in the order in which they came.
#[derive(Clone, Debug)]
struct Names<T> {
    all: Vec<T>,
    ords: BTreeMap<T, Ord>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { all: Vec::new(), ords: BTreeMap::new() }
    }
}

impl<T: Clone + std::cmp::Ord> Names<T> {
    fn get(&self, ord: Ord) -> Option<&T> {
        self.all.get(ord as usize)
    }

    fn find(&self, name: &T) -> Option<Ord> {
        self.ords.get(name).copied()
    }

    /// The place of a name, and whether it is new.
    fn place(&mut self, name: &T) -> (Ord, bool) {
        if let Some(ord) = self.find(name) {
            return (ord, false);
        }
        let ord = self.all.len() as Ord;
        self.all.push(name.clone());
        self.ords.insert(name.clone(), ord);
        (ord, true)
    }
}

/// Who waits in a market: turns with their leases.
type Line = BTreeSet<(LeaseNumber, LeaseKey)>;

/// Servers and leases of a site.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    hypervisors: Names<PrincipalId>,
    markets: Names<MarketId>,
    exchanges: Names<StreamName>,
    /// What exchanges call markets.
    numbered: BTreeMap<(Ord, MarketNumber), Ord>,
    /// The exchange of each market that one has named.
    exchange_of: BTreeMap<Ord, Ord>,
    offers: BTreeMap<(Ord, Ord), Offer>,
    servers: BTreeMap<ServerNumber, Server>,
    named: BTreeMap<Ord, BTreeMap<ServerId, ServerNumber>>,
    leases: BTreeMap<LeaseKey, Lease>,
    bidders: BTreeMap<(Ord, BidNumber), Bidder>,
    next: ServerNumber,
    /// The generation of the last order. They are counted for the whole site, because a server may come again under a name
    /// that another had.
    generation: u64,
    free: BTreeMap<Ord, BTreeMap<Ord, BTreeSet<ServerNumber>>>,
    waiting: BTreeMap<Ord, Line>,
    /// How many leases a tenant has on a hypervisor.
    held: BTreeMap<(TenantId, Ord), u32>,
    /// Servers that go, the first to go first.
    leaving: BTreeSet<(Timestamp, ServerNumber)>,
    /// What has to be looked at before the turn ends: offers of which the exchange may not know, servers that may have to be
    /// told something else, markets where somebody may be served, leases that have notice and no server,
    /// and those that stay on a server that goes.
    dirty_offers: BTreeSet<(Ord, Ord)>,
    stale: BTreeSet<ServerNumber>,
    to_serve: BTreeSet<Ord>,
    unserved: BTreeSet<LeaseKey>,
    /// Leases that need not leave, on servers that go.
    displaced: BTreeSet<LeaseKey>,
    /// The sum of the digests of all records and names.
    sum: u128,
}

const SERVER: u8 = 16;
const LEASE: u8 = 17;
const BIDDER: u8 = 18;
const OFFER: u8 = 19;
const NAME: u8 = 20;

impl Servers {
    /// The sum of the digests of everything that is kept.
    pub fn sum(&self) -> u128 {
        let next = if self.next == 0 { 0 } else { digest(NAME, &("next", self.next, self.generation)) };
        self.sum.wrapping_add(next)
    }

    /// Takes a thing into the sum of digests, or out of it.
    fn count<T: Serialize>(&mut self, kind: u8, is_in: bool, thing: &T) {
        let digest = digest(kind, thing);
        self.sum = if is_in { self.sum.wrapping_add(digest) } else { self.sum.wrapping_sub(digest) };
    }

    fn name_hypervisor(&mut self, name: &PrincipalId) -> Ord {
        let (ord, is_new) = self.hypervisors.place(name);
        if is_new {
            self.count(NAME, true, &("hypervisor", ord, name));
        }
        ord
    }

    fn name_market(&mut self, name: &MarketId) -> Ord {
        let (ord, is_new) = self.markets.place(name);
        if is_new {
            self.count(NAME, true, &("market", ord, name));
        }
        ord
    }

    fn name_exchange(&mut self, name: &StreamName) -> Ord {
        let (ord, is_new) = self.exchanges.place(name);
        if is_new {
            self.count(NAME, true, &("exchange", ord, name));
        }
        ord
    }

    fn edit_server(&mut self, number: ServerNumber, edit: impl FnOnce(&mut Server)) {
        let Some(mut server) = self.servers.remove(&number) else { return };
        self.count(SERVER, false, &(number, &server));
        edit(&mut server);
        self.count(SERVER, true, &(number, &server));
        self.servers.insert(number, server);
    }

    fn edit_lease(&mut self, key: LeaseKey, edit: impl FnOnce(&mut Lease)) {
        let Some(mut lease) = self.leases.get(&key).copied() else { return };
        self.count(LEASE, false, &(key, lease));
        edit(&mut lease);
        self.count(LEASE, true, &(key, lease));
        self.leases.insert(key, lease);
    }

    fn edit_offer(&mut self, key: (Ord, Ord), edit: impl FnOnce(&mut Offer)) {
        let before = self.offers.get(&key).copied();
        if let Some(before) = before {
            self.count(OFFER, false, &(key, before));
        }
        let mut offer = before.unwrap_or_default();
        edit(&mut offer);
        self.count(OFFER, true, &(key, offer));
        self.offers.insert(key, offer);
    }
}
