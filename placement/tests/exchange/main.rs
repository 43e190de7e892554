//! Placement beside the market, both real: what one decides reaches the other late, in order, and now and then twice. Servers
//! come, have notice, go and die; bids come and go; workers are ready when the hypervisor's order has reached them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod run;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use market::Market;
use placement::machine::{Placement, reports};
use proptest::prelude::*;
use proto::envelope::{Commands, EventBatch, EventEntry};
use proto::machine::{Machine, Role, Sender};
use proto::market::{LeaseSpan, LossReason, MarketCommand, MarketEvent, ReleaseReason};
use proto::placement::{LeaseChange, OrderedServer, PlacementCommand, PlacementEvent, ServerOrders};
use proto::{StreamName, Timestamp};
use run::Run;
use serde_json::{Value, json};

const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
const MARKETS: [&str; 2] = ["dfw/large", "dfw/small"];
const HYPERVISORS: [&str; 3] = ["h0", "h1", "h2"];
const NOTICE_SECONDS: i64 = 60;

#[derive(Clone, Debug)]
enum Op {
    Offer {
        hypervisor: usize,
        market: usize,
        servers: u8,
    },
    Notice {
        hypervisor: usize,
        server: Option<u8>,
        seconds: i64,
    },
    Keep(usize),
    Dies {
        hypervisor: usize,
        server: Option<u8>,
    },
    Bid {
        tenant: u8,
        market: usize,
        quantity: u8,
        limit: u8,
    },
    Cancel(u64),
    /// Messages of one way arrive: from the market, from placement, to hypervisors.
    Arrives(usize),
    Again(usize),
    Wait(i64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let (hypervisor, market) = (0..HYPERVISORS.len(), 0..MARKETS.len());
    prop_oneof![
        4 => (hypervisor.clone(), market.clone(), 1..4_u8)
            .prop_map(|(hypervisor, market, servers)| Op::Offer { hypervisor, market, servers }),
        3 => (hypervisor.clone(), prop::option::of(0..12_u8), 0..100_i64)
            .prop_map(|(hypervisor, server, seconds)| Op::Notice { hypervisor, server, seconds }),
        1 => hypervisor.clone().prop_map(Op::Keep),
        2 => (hypervisor, prop::option::weighted(0.9, 0..12_u8))
            .prop_map(|(hypervisor, server)| Op::Dies { hypervisor, server }),
        5 => (0..4_u8, market, 1..4_u8, 1..9_u8)
            .prop_map(|(tenant, market, quantity, limit)| Op::Bid { tenant, market, quantity, limit }),
        2 => (0..20_u64).prop_map(Op::Cancel),
        14 => (0..3_usize).prop_map(Op::Arrives),
        1 => (0..2_usize).prop_map(Op::Again),
        3 => (0..40_i64).prop_map(Op::Wait),
        1 => Just(Op::Restart),
    ]
}

fn name(text: &str) -> StreamName {
    text.parse().unwrap()
}

fn sender(role: Role, principal: &str) -> Sender {
    Sender { role, principal: principal.parse().unwrap() }
}

struct World {
    now: Timestamp,
    market: Run<Market>,
    site: Run<Placement>,
    /// On their way: reports to placement, commands to the market, orders to hypervisors; and the last that arrived.
    to_site: VecDeque<PlacementCommand>,
    to_market: VecDeque<MarketCommand>,
    orders: VecDeque<(String, OrderedServer)>,
    last: (Option<PlacementCommand>, Option<MarketCommand>),
    /// By hypervisor and name, what a server was told last.
    servers: BTreeMap<(String, String), (u64, Option<u64>)>,
    /// Names of servers, the last generation of any order, and that at which servers were gone: older orders reach nobody.
    names: BTreeMap<u64, (String, String)>,
    generation: u64,
    gone: BTreeMap<(String, String), u64>,
    ids: u64,
    bids: u64,
    live: BTreeSet<u64>,
    /// Leases displaced by a departure, with by when; each once for each deadline, if nothing was taken back in between.
    displaced: BTreeSet<(u64, Timestamp)>,
    ever_displaced: BTreeSet<u64>,
    /// Leases whose servers died without a notice, or before its end.
    died: BTreeSet<u64>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: START,
            market: Run::new("main"),
            site: Run::new("main"),
            to_site: VecDeque::new(),
            to_market: VecDeque::new(),
            orders: VecDeque::new(),
            last: (None, None),
            servers: BTreeMap::new(),
            names: BTreeMap::new(),
            generation: 0,
            gone: BTreeMap::new(),
            ids: 0,
            bids: 0,
            live: BTreeSet::new(),
            displaced: BTreeSet::new(),
            ever_displaced: BTreeSet::new(),
            died: BTreeSet::new(),
        };
        let operator = sender(Role::Operator, "ops");
        world.ask_market(&operator, json!({"type": "AdoptRules", "rules": {"coalesce_milliseconds": 0}}));
        let trusted = json!([{"role": "storefront", "principal": "s"}]);
        world.ask_market(&operator, json!({"type": "AdoptTrust", "trusted": trusted}));
        for market in MARKETS {
            let settings = json!({"reserve": "0.001", "notice_seconds": NOTICE_SECONDS});
            let define = json!({"type": "DefineMarket", "market": market, "settings": settings});
            world.ask_market(&operator, define);
        }
        world
    }

    fn command<C: serde::de::DeserializeOwned>(&mut self, mut json: Value) -> C {
        if json.get("id").is_none() {
            self.ids += 1;
            json["id"] = format!("x{}", self.ids).into();
        }
        serde_json::from_value(json).unwrap()
    }

    fn ask_market(&mut self, sender: &Sender, json: Value) {
        let command = self.command(json);
        self.market_turn(vec![(sender.clone(), command)]);
    }

    fn market_turn(&mut self, commands: Vec<(Sender, MarketCommand)>) {
        let decided = self.market.turn(self.now, commands);
        for event in &decided.events {
            let each = |span: &LeaseSpan| span.first..span.end();
            match event {
                MarketEvent::UnitsAwarded { leases, .. } | MarketEvent::UnitsMoved { leases, .. } => {
                    self.live.extend(each(leases));
                }
                MarketEvent::UnitsReleased { leases, reason, .. } => {
                    each(leases).for_each(|lease| assert!(self.live.remove(&lease)));
                    // Who had notice of the departure in time is never lost with the server.
                    assert!(
                        *reason != ReleaseReason::ServerLost
                            || each(leases).all(|lease| self.died.contains(&lease)),
                        "{leases:?} were lost"
                    );
                }
                MarketEvent::NoticeGiven { leases, reason: LossReason::Host, .. } => {
                    let is_displaced = |lease: u64| self.ever_displaced.contains(&lease);
                    assert!(each(leases).all(is_displaced), "{leases:?} have notice for no departure");
                }
                _ => {}
            }
        }
        let batch = EventBatch {
            machine: "market".to_owned(),
            stream: name("main"),
            sequence: decided.sequence,
            at: decided.at,
            rules: 1,
            entries: vec![EventEntry { key: None, digest: None, events: decided.events }],
        };
        self.to_site.extend(reports(&name("main"), &batch));
    }

    fn site_turn(&mut self, commands: Vec<(Sender, PlacementCommand)>) {
        let decided = self.site.turn(self.now, commands);
        for event in &decided.events {
            match event {
                PlacementEvent::LeaseDisplaced { lease, gone_at, .. } => {
                    assert!(self.displaced.insert((*lease, *gone_at)), "lease {lease} has notice twice");
                    self.ever_displaced.insert(*lease);
                }
                PlacementEvent::ServersOffered { hypervisor, first, servers, .. } => {
                    for (number, name) in (*first..).zip(servers) {
                        self.names.insert(number, (hypervisor.to_string(), name.to_string()));
                    }
                }
                PlacementEvent::ServerOrdered { generation, .. } => self.generation = *generation,
                PlacementEvent::ServersGone { servers, .. } => {
                    for number in servers {
                        let name = self.names.remove(number).unwrap();
                        self.servers.remove(&name);
                        self.gone.insert(name, self.generation);
                    }
                }
                PlacementEvent::ServersKept { .. } => self.displaced.clear(),
                PlacementEvent::BidsReported { leases, .. } => {
                    for change in leases {
                        if let LeaseChange::Withdrawn { leases } = change {
                            self.displaced.retain(|(lease, _)| !leases.contains(*lease));
                        }
                    }
                }
                PlacementEvent::SupplyStated { lost, .. } => self.died.extend(lost),
                _ => {}
            }
        }
        let mut told = Vec::new();
        self.site.machine.tell(&decided, &mut told);
        for message in told {
            if message.subject.starts_with("walras.v1.command.market.main.service.placement") {
                let sent: Commands<MarketCommand> = serde_json::from_slice(&message.payload).unwrap();
                self.to_market.extend(sent.commands);
            } else if let Some(hypervisor) = message.subject.strip_prefix("walras.v1.order.hypervisor.") {
                let sent: ServerOrders = serde_json::from_slice(&message.payload).unwrap();
                self.orders.extend(sent.orders.into_iter().map(|order| (hypervisor.to_owned(), order)));
            }
        }
    }

    fn ask_site(&mut self, hypervisor: usize, mut json: Value) {
        json["hypervisor"] = HYPERVISORS[hypervisor].into();
        let command = self.command(json);
        self.site_turn(vec![(sender(Role::Hypervisor, HYPERVISORS[hypervisor]), command)]);
    }

    /// What is first on one of the ways arrives.
    fn arrives(&mut self, way: usize) -> bool {
        let placement = sender(Role::Service, "placement");
        match way {
            0 => {
                let Some(report) = self.to_site.pop_front() else { return false };
                self.last.0 = Some(report.clone());
                self.site_turn(vec![(placement, report)]);
            }
            1 => {
                // What was sent together is decided together.
                let sent: Vec<MarketCommand> = self.to_market.drain(..).collect();
                let Some(last) = sent.last() else { return false };
                self.last.1 = Some(last.clone());
                self.market_turn(sent.into_iter().map(|command| (placement.clone(), command)).collect());
            }
            _ => {
                let Some((hypervisor, ordered)) = self.orders.pop_front() else { return false };
                let lease = ordered.order.lease.as_ref().map(|served| served.lease);
                let key = (hypervisor, ordered.server.to_string());
                if self.gone.get(&key).is_some_and(|gone| ordered.generation <= *gone) {
                    return true;
                }
                let before = self.servers.insert(key, (ordered.generation, lease));
                assert!(before.is_none_or(|(generation, _)| generation < ordered.generation), "I6");
                if let Some(lease) = lease.filter(|_| ordered.order.gone_at.is_none()) {
                    let worker = sender(Role::Worker, &format!("lease-{lease}"));
                    self.ask_market(&worker, json!({"type": "ReportReady", "leases": [lease]}));
                }
            }
        }
        true
    }

    fn happens(&mut self, op: &Op) {
        let server = |of: Option<u8>| of.map_or(json!([]), |of| json!([format!("v{of}")]));
        match op {
            Op::Offer { hypervisor, market, servers } => {
                let names: Vec<String> =
                    (0..*servers).map(|of| format!("v{}", usize::from(of) + 4 * market)).collect();
                let market = MARKETS[*market];
                self.ask_site(
                    *hypervisor,
                    json!({"type": "OfferServers", "market": market, "servers": names}),
                );
            }
            Op::Notice { hypervisor, server: of, seconds } => {
                let gone_at = self.now.plus_micros(seconds * 1_000_000);
                let json = json!({"type": "NoticeServers", "servers": server(*of), "gone_at": gone_at});
                self.ask_site(*hypervisor, json);
            }
            Op::Keep(hypervisor) => self.ask_site(*hypervisor, json!({"type": "KeepServers"})),
            Op::Dies { hypervisor, server: of } => {
                self.ask_site(*hypervisor, json!({"type": "ReportServersGone", "servers": server(*of)}));
            }
            Op::Bid { tenant, market, quantity, limit } => {
                self.bids += 1;
                let option = json!({"market": MARKETS[*market], "limit": format!("0.00{limit}")});
                let json = json!({
                    "type": "PlaceBid", "id": format!("b{}", self.bids), "tenant": format!("t{tenant}"),
                    "cluster": "c", "pool": "p", "quantity": quantity, "options": [option],
                });
                self.ask_market(&sender(Role::Operator, "ops"), json);
            }
            Op::Cancel(bid) => {
                for tenant in 0..4 {
                    let json = json!({"type": "CancelBid", "tenant": format!("t{tenant}"), "bid": format!("b{bid}")});
                    self.ask_market(&sender(Role::Operator, "ops"), json);
                }
            }
            Op::Arrives(way) => drop(self.arrives(*way)),
            Op::Again(0) => {
                if let Some(report) = self.last.0.clone() {
                    self.site_turn(vec![(sender(Role::Service, "placement"), report)]);
                }
            }
            // A runner answers a command that it knows without asking the machine; this one is known by its generation.
            Op::Again(_) => {
                if let Some(command @ MarketCommand::SupplyOffered(_)) = self.last.1.clone() {
                    self.market_turn(vec![(sender(Role::Service, "placement"), command)]);
                }
            }
            Op::Wait(seconds) => {
                self.now = self.now.plus_micros(seconds * 1_000_000);
                self.market_turn(Vec::new());
                self.site_turn(Vec::new());
            }
            Op::Restart => {
                self.market.restart();
                self.site.restart();
            }
        }
    }

    /// Everything arrives, and every notice runs out.
    fn settle(&mut self) {
        for _ in 0..4 {
            for _ in 0..10_000 {
                if !self.something_arrives() {
                    break;
                }
            }
            self.happens(&Op::Wait(200));
        }
    }

    /// At rest both know the same leases, supply is what there is, and who can be served is.
    fn check_at_rest(&self) {
        let view = self.site.machine.site_view().servers;
        assert_eq!(view.leases as usize, self.live.len(), "leases that only one knows");
        assert_eq!(view.leaving, 0);
        for (number, market) in MARKETS.iter().enumerate() {
            let Some(there) = view.markets.iter().find(|there| there.market.to_string() == *market) else {
                continue;
            };
            let (won, leaving) = self.market.machine.held(number as u16).unwrap();
            assert_eq!(leaving, 0);
            assert!(won <= there.units, "{market}: {won} units are won, {} servers are there", there.units);
            assert_eq!(there.waiting, 0, "{market}: {won} won of {there:?}");
            assert_eq!(there.free, there.units - won, "{market}");
        }
        let mut serving = BTreeMap::new();
        for (key, (_, lease)) in &self.servers {
            if let Some(lease) = lease.filter(|lease| self.live.contains(lease)) {
                let others = serving.insert(lease, key);
                assert!(others.is_none(), "I2: {lease} on {key:?} and {others:?}");
            }
        }
        assert!(self.live.iter().all(|lease| serving.contains_key(lease)), "a lease that no server serves");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn leases_and_servers_agree_whatever_happens(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in &ops {
            world.happens(op);
        }
        world.settle();
        world.check_at_rest();
    }
}

/// One departure, in order: the leases on the hypervisor have notice at once, the lowest bid elsewhere makes room, and who
/// keeps its unit is served with what becomes free.
#[test]
fn a_departure_moves_who_stays_and_ends_who_loses() {
    let mut world = World::new();
    for hypervisor in [0, 1] {
        world.happens(&Op::Offer { hypervisor, market: 0, servers: 1 });
    }
    world.settle_messages();
    world.happens(&Op::Bid { tenant: 0, market: 0, quantity: 1, limit: 8 });
    world.happens(&Op::Bid { tenant: 1, market: 0, quantity: 1, limit: 3 });
    world.settle_messages();
    // The better bid is on the first hypervisor, which leaves.
    assert_eq!(world.serving(), ["h0/v0: 1", "h1/v0: 2"]);
    world.happens(&Op::Notice { hypervisor: 0, server: None, seconds: 30 });
    world.settle_messages();
    assert_eq!(world.displaced.iter().map(|(lease, _)| *lease).collect::<Vec<_>>(), [1]);
    let leaving = |world: &World| world.market.machine.held(0).unwrap();
    assert_eq!(leaving(&world), (1, 2), "one unit is won, and waits; both leases leave");
    world.happens(&Op::Wait(30));
    world.settle_messages();
    assert_eq!(leaving(&world), (1, 0));
    assert_eq!(world.live.iter().copied().collect::<Vec<_>>(), [3]);
    assert_eq!(world.serving(), ["h1/v0: 3"]);
}

impl World {
    /// Lets a message arrive on every way, and says whether there was one.
    fn something_arrives(&mut self) -> bool {
        let mut has_any = false;
        for way in 0..3 {
            has_any |= self.arrives(way);
        }
        has_any
    }

    fn settle_messages(&mut self) {
        while self.something_arrives() {}
    }

    fn serving(&self) -> Vec<String> {
        let line = |((hypervisor, server), (_, lease)): (&(String, String), &(u64, Option<u64>))| {
            Some(format!("{hypervisor}/{server}: {}", (*lease)?))
        };
        self.servers.iter().filter_map(line).collect()
    }
}
