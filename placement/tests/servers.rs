//! Servers and leases under random changes: at most one lease to a server, nobody waits while a server is free, turns
//! are kept, notices come at once.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};

use placement::servers::{Award, Fact, Servers};
use proptest::prelude::*;
use proto::{Price, Timestamp};

const MARKETS: u16 = 2;
const TENANTS: u64 = 3;

#[derive(Clone, Debug)]
enum Op {
    Ready { hypervisor: u64, market: u16 },
    Gone(usize),
    Leaves { hypervisor: u64, at: i64 },
    Departed(u64),
    Awarded { bid: u64, market: u16, limit: u64 },
    Charge { bid: u64, market: u16, units: u32 },
    Released(usize),
    Moved(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (hypervisor, market, bid) = (0..6_u64, 0..MARKETS, 0..6_u64);
    let op = prop_oneof![
        8 => (hypervisor.clone(), market.clone()).prop_map(|(hypervisor, market)| Op::Ready { hypervisor, market }),
        2 => any::<usize>().prop_map(Op::Gone),
        2 => (hypervisor, 0..100_i64).prop_map(|(hypervisor, at)| Op::Leaves { hypervisor, at }),
        1 => (0..6_u64).prop_map(Op::Departed),
        8 => (bid.clone(), market.clone(), 1..5_u64).prop_map(|(bid, market, limit)| Op::Awarded { bid, market, limit }),
        2 => (bid, market, 1..3_u32).prop_map(|(bid, market, units)| Op::Charge { bid, market, units }),
        4 => any::<usize>().prop_map(Op::Released),
        3 => any::<usize>().prop_map(Op::Moved),
    ];
    prop::collection::vec(op, 1..120)
}

/// What is known from outside: what was told, and the facts that came of it.
#[derive(Default)]
struct World {
    servers: Servers,
    next: u64,
    /// By server its hypervisor and market.
    there: BTreeMap<u64, (u64, u16)>,
    leases: BTreeMap<u64, Award>,
    charged: BTreeSet<u64>,
    gone_at: BTreeMap<u64, Timestamp>,
    supply: BTreeMap<(u64, u16), u32>,
}

impl World {
    fn apply(&mut self, op: &Op) {
        let mut facts = Vec::new();
        self.next += 1;
        let nth = |numbers: Vec<u64>, which: usize| numbers.get(which % numbers.len().max(1)).copied();
        match *op {
            Op::Ready { hypervisor, market } => {
                let taken = self.servers.ready(hypervisor, market, self.next, &mut facts);
                assert_eq!(taken.is_err(), self.gone_at.contains_key(&hypervisor));
                if taken.is_ok() {
                    self.there.insert(self.next, (hypervisor, market));
                }
            }
            Op::Gone(which) => {
                if let Some(server) = nth(self.there.keys().copied().collect(), which) {
                    self.servers.gone(server, &mut facts).unwrap();
                    self.there.remove(&server);
                }
            }
            Op::Leaves { hypervisor, at } => self.leaves(hypervisor, Timestamp::from_micros(at), &mut facts),
            Op::Departed(hypervisor) => {
                if self.servers.departed(hypervisor, &mut facts).is_ok() {
                    self.there.retain(|_, (home, _)| *home != hypervisor);
                    self.gone_at.remove(&hypervisor);
                }
            }
            Op::Awarded { bid, market, limit } => {
                let limit = Price::from_micros(limit).unwrap();
                let (lease, round, age) = (self.next, self.next / 10, 1_000 - self.next);
                let award = Award { lease, bid, tenant: bid % TENANTS, market, round, limit, age };
                self.servers.awarded(&award, &mut facts).unwrap();
                self.leases.insert(lease, award);
            }
            Op::Charge { bid, market, units } => self.charge(bid, market, units, &mut facts),
            Op::Released(which) => {
                if let Some(lease) = nth(self.leases.keys().copied().collect(), which) {
                    self.servers.released(lease, &mut facts).unwrap();
                    self.leases.remove(&lease);
                }
            }
            Op::Moved(which) => {
                if let Some(lease) = nth(self.leases.keys().copied().collect(), which) {
                    self.servers.moved(lease).unwrap();
                }
            }
        }
        self.fold(&facts);
    }

    fn leaves(&mut self, hypervisor: u64, at: Timestamp, facts: &mut Vec<Fact>) {
        let sooner = self.gone_at.get(&hypervisor).is_none_or(|before| at < *before);
        let on: BTreeSet<u64> = (self.there.iter())
            .filter(|(_, (home, _))| *home == hypervisor)
            .filter_map(|(server, _)| self.servers.lease_on(*server))
            .collect();
        if self.servers.leaves(hypervisor, at, facts).is_err() || !sooner {
            assert!(facts.is_empty());
            return;
        }
        self.gone_at.insert(hypervisor, at);
        let noticed: Vec<u64> = facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::Noticed { lease, gone_at, .. } if *gone_at == at => Some(*lease),
                _ => None,
            })
            .collect();
        assert_eq!(noticed.iter().copied().collect::<BTreeSet<_>>(), on);
        assert_eq!(noticed.len(), on.len(), "noticed twice");
    }

    fn charge(&mut self, bid: u64, market: u16, units: u32, facts: &mut Vec<Fact>) {
        let leaving = |lease: &u64| {
            self.there.iter().any(|(server, (hypervisor, _))| {
                self.gone_at.contains_key(hypervisor) && self.servers.lease_on(*server) == Some(*lease)
            })
        };
        let candidates: Vec<u64> = self
            .leases
            .values()
            .filter(|award| {
                award.bid == bid && award.market == market && !self.charged.contains(&award.lease)
            })
            .map(|award| award.lease)
            .collect();
        let leavers = candidates.iter().filter(|lease| leaving(lease)).count();
        let left: BTreeSet<u64> = candidates.iter().copied().filter(leaving).collect();
        let charged = self.servers.charge(bid, market, units, facts);
        assert_eq!(charged.len(), candidates.len().min(units as usize));
        assert!(charged.iter().all(|lease| candidates.contains(lease)));
        assert_eq!(charged.iter().filter(|lease| left.contains(lease)).count(), leavers.min(units as usize));
        self.charged.extend(charged);
    }

    fn fold(&mut self, facts: &[Fact]) {
        for fact in facts {
            match *fact {
                Fact::SupplyChanged { hypervisor, market, units, .. } => {
                    self.supply.insert((hypervisor, market), units);
                }
                Fact::Assigned { lease, server, .. } => {
                    assert_eq!(self.there[&server].1, self.leases[&lease].market);
                    assert!(!self.gone_at.contains_key(&self.there[&server].0), "a server that leaves");
                }
                Fact::Lost { lease, .. } => {
                    self.leases.remove(&lease);
                }
                Fact::Noticed { .. } => {}
            }
        }
    }

    fn check(&self) {
        let mut on: BTreeMap<u64, u32> = BTreeMap::new();
        for server in self.there.keys() {
            if let Some(lease) = self.servers.lease_on(*server) {
                *on.entry(lease).or_insert(0) += 1;
                assert!(self.leases.contains_key(&lease));
            }
        }
        for lease in self.leases.keys() {
            let servers = on.get(lease).copied().unwrap_or(0);
            let server = self.servers.server_of(*lease);
            assert!(servers <= 2 && (server.is_none() || servers >= 1));
            assert!(server.is_none_or(|server| self.servers.lease_on(server) == Some(*lease)));
        }
        for market in 0..MARKETS {
            let waiting: Vec<u64> = self.servers.waiting(market).collect();
            assert!(
                waiting.is_empty() || self.servers.free(market) == 0,
                "somebody waits while a server is free"
            );
            let turn = |lease: &u64| {
                let award = self.leases[lease];
                (award.round, u64::MAX - award.limit.micros(), award.age, *lease)
            };
            assert!(waiting.is_sorted_by_key(turn));
            let without = self.leases.values().filter(|award| {
                award.market == market
                    && self.servers.server_of(award.lease).is_none()
                    && !self.charged.contains(&award.lease)
            });
            assert_eq!(
                without.map(|award| award.lease).collect::<BTreeSet<_>>(),
                waiting.into_iter().collect()
            );
        }
        for ((hypervisor, market), units) in &self.supply {
            let there = self.there.values().filter(|home| **home == (*hypervisor, *market)).count() as u32;
            assert_eq!(*units, if self.gone_at.contains_key(hypervisor) { 0 } else { there });
        }
    }
}

proptest! {
    #[test]
    fn servers_and_leases_stay_sound(ops in ops()) {
        let mut world = World::default();
        for op in &ops {
            world.apply(op);
            world.check();
        }
    }
}

fn award(lease: u64, bid: u64, round: u64, limit: u64) -> Award {
    Award { lease, bid, tenant: bid, market: 0, round, limit: Price::from_micros(limit).unwrap(), age: lease }
}

/// Servers with the numbers given, by hypervisor.
fn servers(of: &[(u64, &[u64])]) -> Servers {
    let mut servers = Servers::default();
    for (hypervisor, numbers) in of {
        for server in *numbers {
            servers.ready(*hypervisor, 0, *server, &mut Vec::new()).unwrap();
        }
    }
    servers
}

#[test]
fn a_tenant_s_leases_are_on_different_hypervisors() {
    let mut servers = servers(&[(1, &[10, 11]), (2, &[20, 21])]);
    for lease in [1, 2] {
        servers.awarded(&award(lease, 7, 1, 1), &mut Vec::new()).unwrap();
    }
    assert_eq!((servers.server_of(1), servers.server_of(2)), (Some(10), Some(20)));
}

#[test]
fn who_waits_is_served_by_round_limit_and_age() {
    let mut servers = Servers::default();
    for (lease, round, limit) in [(1, 2, 9), (2, 1, 3), (3, 1, 5), (4, 1, 5)] {
        servers.awarded(&award(lease, lease, round, limit), &mut Vec::new()).unwrap();
    }
    assert_eq!(servers.waiting(0).collect::<Vec<_>>(), [3, 4, 2, 1]);
    let mut facts = Vec::new();
    servers.ready(1, 0, 10, &mut facts).unwrap();
    assert_eq!(facts[1], Fact::Assigned { lease: 3, server: 10, replaces: None });
}

#[test]
fn a_departure_interrupts_whom_the_market_takes_from_and_the_others_get_another_server() {
    let mut servers = servers(&[(1, &[10, 11]), (2, &[20])]);
    for (lease, bid) in [(1, 7), (2, 8), (3, 7)] {
        servers.awarded(&award(lease, bid, 1, 1), &mut Vec::new()).unwrap();
    }
    // Bid 7 has leases 1 and 3, on hypervisors 1 and 2; bid 8 has lease 2.
    assert_eq!([1, 2, 3].map(|lease| servers.server_of(lease)), [Some(10), Some(11), Some(20)]);
    let (mut facts, gone_at) = (Vec::new(), Timestamp::from_micros(5));
    servers.leaves(1, gone_at, &mut facts).unwrap();
    let noticed = |lease, server| Fact::Noticed { lease, server, gone_at };
    let supply = Fact::SupplyChanged { hypervisor: 1, market: 0, units: 0, gone_at: Some(gone_at) };
    assert_eq!(facts, [supply, noticed(1, 10), noticed(2, 11)]);
    // The market takes one unit from bid 7 and one from none: charged to the lease that leaves anyway.
    facts.clear();
    assert_eq!(servers.charge(7, 0, 1, &mut facts), [1]);
    assert_eq!(facts, []);
    // Lease 2 keeps its unit and waits; it gets the server that lease 3 gives back, and leaves the old one.
    servers.released(3, &mut facts).unwrap();
    assert_eq!(facts, [Fact::Assigned { lease: 2, server: 20, replaces: Some(11) }]);
    assert_eq!((servers.lease_on(11), servers.lease_on(20)), (Some(2), Some(2)));
    servers.moved(2).unwrap();
    assert_eq!((servers.lease_on(11), servers.lease_on(20)), (None, Some(2)));
    // The server that nobody uses any more dies with its hypervisor, and takes no lease with it.
    facts.clear();
    servers.gone(11, &mut facts).unwrap();
    assert_eq!(facts, []);
    servers.gone(10, &mut facts).unwrap();
    assert_eq!(facts, [Fact::Lost { lease: 1, server: 10 }]);
}
