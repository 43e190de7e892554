//! What is told and what follows, and the orders in which leases are served and charged.

use std::cmp::Reverse;

use proto::market::{BidNumber, LeaseNumber, MarketNumber, RoundNumber};
use proto::{Price, Timestamp};

use super::{HypervisorNumber, ServerNumber, TenantNumber};

/// A unit that the market awarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Award {
    /// Its lease.
    pub lease: LeaseNumber,
    /// Its bid.
    pub bid: BidNumber,
    /// Whose bid.
    pub tenant: TenantNumber,
    /// Where.
    pub market: MarketNumber,
    /// In which round.
    pub round: RoundNumber,
    /// What the bid offers.
    pub limit: Price,
    /// Its place in the market's queue: less is older.
    pub age: u64,
}

/// When a lease's turn is. The order is the policy: earlier rounds, higher limits, older places, smaller numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) round: RoundNumber,
    pub(super) limit: Reverse<Price>,
    pub(super) age: u64,
    pub(super) lease: LeaseNumber,
}

/// How well a free server suits a lease: the least is chosen, an earlier field counts before all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suit {
    /// Leases of the tenant on the hypervisor, so that the departure of one interrupts few of a tenant's.
    pub(super) tenant_leases: u32,
    pub(super) hypervisor: HypervisorNumber,
    pub(super) server: ServerNumber,
}

/// In which order leases are charged when a bid loses units: first those whose server leaves, soonest gone first; then
/// those that have none yet, then the others; the last to be served comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Charge {
    pub(super) stays: bool,
    pub(super) gone_at: Option<Timestamp>,
    pub(super) served: bool,
    pub(super) turn: Reverse<Turn>,
}

/// What follows from what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A lease has a server.
    Assigned {
        /// Which lease.
        lease: LeaseNumber,
        /// Its server.
        server: ServerNumber,
        /// The server that it has to leave, if this one replaces another.
        replaces: Option<ServerNumber>,
    },
    /// A lease's server leaves with its hypervisor.
    Noticed {
        /// Which lease.
        lease: LeaseNumber,
        /// Its server.
        server: ServerNumber,
        /// When the server is gone.
        gone_at: Timestamp,
    },
    /// A lease's server died.
    Lost {
        /// Which lease.
        lease: LeaseNumber,
        /// Its server.
        server: ServerNumber,
    },
    /// A hypervisor has another number of usable servers in a market.
    SupplyChanged {
        /// Whose servers.
        hypervisor: HypervisorNumber,
        /// In which market.
        market: MarketNumber,
        /// How many, leased or free.
        units: u32,
        /// When those no longer counted are gone, if they leave.
        gone_at: Option<Timestamp>,
    },
}

/// Why something was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServersError {
    /// It is known already.
    #[error("{what} {number} is known already")]
    Known {
        /// Server or lease.
        what: &'static str,
        /// Its number.
        number: u64,
    },
    /// It is not known.
    #[error("{what} {number} is not known")]
    Unknown {
        /// Server, lease or hypervisor.
        what: &'static str,
        /// Its number.
        number: u64,
    },
    /// There are too many.
    #[error("at most {most} of {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Its hypervisor leaves.
    #[error("hypervisor {hypervisor} leaves and takes no new servers")]
    Leaving {
        /// Which one.
        hypervisor: HypervisorNumber,
    },
}

impl Award {
    pub(super) fn turn(&self) -> Turn {
        Turn { round: self.round, limit: Reverse(self.limit), age: self.age, lease: self.lease }
    }
}
