//! Random histories: folding against deciding, restarts in between, and orders that are carried out well or badly.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::Machine;
use proto::machine::Role;
use serde_json::json;

use super::driver::*;

const HOSTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const CLUSTERS: [&str; 5] = ["p", "q", "r", "s", "t"];

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Create {
        cluster: usize,
        is_high: bool,
        is_far: bool,
        sleeps: bool,
    },
    Change {
        cluster: usize,
        is_high: bool,
        patch: u16,
    },
    Delete(usize),
    Wake(usize),
    Host {
        host: usize,
        zone: usize,
        replicas: u32,
        is_tainted: bool,
    },
    Notice {
        host: usize,
        seconds: i64,
    },
    Keep(usize),
    Gone(usize),
    /// Carries out the order of a plane; badly: with some replicas missing, or those of hosts it is to leave.
    Carry {
        cluster: usize,
        workers: u32,
        missing: usize,
    },
    Bids {
        cluster: usize,
        places: bool,
    },
    Rules {
        reserve: u32,
        moves_max: u32,
        tolerates: bool,
    },
    Restart,
    TakeOver,
}

fn step() -> impl Strategy<Value = Step> {
    let (cluster, host) = (0..CLUSTERS.len(), 0..HOSTS.len());
    prop_oneof![
        3 => (0..90_i64).prop_map(Step::Wait),
        4 => (cluster.clone(), any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.3))
            .prop_map(|(cluster, is_high, is_far, sleeps)| Step::Create { cluster, is_high, is_far, sleeps }),
        2 => (cluster.clone(), any::<bool>(), 0..3_u16)
            .prop_map(|(cluster, is_high, patch)| Step::Change { cluster, is_high, patch }),
        1 => cluster.clone().prop_map(Step::Delete),
        1 => cluster.clone().prop_map(Step::Wake),
        5 => (host.clone(), 0..3_usize, 0..5_u32, prop::bool::weighted(0.1))
            .prop_map(|(host, zone, replicas, is_tainted)| Step::Host { host, zone, replicas, is_tainted }),
        3 => (host.clone(), -2..200_i64).prop_map(|(host, seconds)| Step::Notice { host, seconds }),
        1 => host.clone().prop_map(Step::Keep),
        1 => host.prop_map(Step::Gone),
        8 => (cluster.clone(), prop_oneof![3 => 0..2_u32, 1 => 0..30_u32], prop_oneof![3 => Just(0_usize), 1 => 1..3_usize])
            .prop_map(|(cluster, workers, missing)| Step::Carry { cluster, workers, missing }),
        1 => (cluster, any::<bool>()).prop_map(|(cluster, places)| Step::Bids { cluster, places }),
        1 => (prop_oneof![Just(0_u32), Just(200), Just(1_000)], 1..4_u32, any::<bool>())
            .prop_map(|(reserve, moves_max, tolerates)| Step::Rules { reserve, moves_max, tolerates }),
        1 => Just(Step::Restart),
        1 => Just(Step::TakeOver),
    ]
}

struct History {
    world: World,
    bids: u64,
    sequence: u64,
    bid_of: BTreeMap<usize, u64>,
}

impl History {
    fn number(&self, cluster: usize) -> Option<u64> {
        Some(self.world.cluster(CLUSTERS[cluster])?.plane)
    }

    fn happens(&mut self, step: &Step) {
        let world = &mut self.world;
        match step {
            Step::Wait(seconds) => drop(world.wait(*seconds).due()),
            Step::Create { cluster, is_high, is_far, sleeps } => {
                let mut terms = json!({
                    "availability": if *is_high { "high" } else { "single" },
                    "regions": if *is_far { json!(["dfw", "iad"]) } else { json!(["dfw"]) },
                    "version": "v1.35.0",
                });
                if *sleeps {
                    terms["sleep_after_seconds"] = 120.into();
                }
                world.create_with(CLUSTERS[*cluster], terms);
            }
            Step::Change { cluster, is_high, patch } => {
                let availability = if *is_high { "high" } else { "single" };
                let terms = json!({"availability": availability, "regions": ["dfw"], "version": format!("v1.35.{patch}")});
                world.change(CLUSTERS[*cluster], terms);
            }
            Step::Delete(cluster) => drop(world.delete(CLUSTERS[*cluster])),
            Step::Wake(cluster) => {
                let json = json!({"type": "WakeCluster", "tenant": "acme", "cluster": CLUSTERS[*cluster]});
                world.send(&gateway(), json);
            }
            Step::Host { host, zone, replicas, is_tainted } => {
                let capacity = json!({"cpu_milli": replicas * 250, "memory_mib": replicas * 500, "pods": 9});
                let taints = if *is_tainted { json!(["spot"]) } else { json!([]) };
                let terms = json!({"zone": format!("z{zone}"), "region": "dfw", "capacity": capacity, "taints": taints});
                self.sequence += 1;
                let json = json!({"type": "OfferHost", "host": HOSTS[*host], "generation": self.sequence, "terms": terms});
                world.send(&service(), json);
            }
            Step::Notice { host, seconds } => drop(world.notice(HOSTS[*host], *seconds)),
            Step::Keep(host) => {
                drop(world.send(&service(), json!({"type": "KeepHost", "host": HOSTS[*host]})));
            }
            Step::Gone(host) => {
                drop(world.send(&service(), json!({"type": "ReportHostGone", "host": HOSTS[*host]})));
            }
            Step::Carry { cluster, workers, missing } => self.carry(*cluster, *workers, *missing),
            Step::Bids { cluster, places } => self.bid(*cluster, *places),
            Step::Rules { reserve, moves_max, tolerates } => {
                let tolerated = if *tolerates { json!(["spot"]) } else { json!([]) };
                let (most, shrink) = (50, 60);
                world.rules(json!({
                    "surge_reserve_permille": reserve, "moves_max": moves_max, "tolerated": tolerated,
                    "move_seconds_max": most, "shrink_after_seconds": shrink, "slow_seconds": 30, "calm_seconds": 60,
                }));
            }
            Step::Restart => world.restart(),
            Step::TakeOver => world.take_over(),
        }
    }

    fn carry(&mut self, cluster: usize, workers: u32, missing: usize) {
        let Some(number) = self.number(cluster) else { return };
        let world = &mut self.world;
        if missing == 0 {
            world.carry_out(number, workers);
            return;
        }
        let Some(told) = world.told.get_mut(&number).filter(|told| !told.order.deleted) else { return };
        told.carried = told.carried.min(told.generation - 1);
        let ready: Vec<_> = told.order.hosts.iter().skip(missing).collect();
        let json = json!({
            "type": "ReportPlane", "plane": number, "generation": told.generation, "ready_on": ready, "workers": workers, "slow": missing == 2,
        });
        world.send(&service(), json);
    }

    fn bid(&mut self, cluster: usize, places: bool) {
        self.sequence += 1;
        let mut json = json!({"type": "ReportBids", "exchange": "main", "sequence": self.sequence});
        if places {
            self.bids += 1;
            let stands = json!({"bid": self.bids, "tenant": "acme", "cluster": CLUSTERS[cluster]});
            json["placed"] = json!([stands]);
            self.bid_of.insert(cluster, self.bids);
        } else if let Some(bid) = self.bid_of.remove(&cluster) {
            json["ended"] = json!([bid]);
        }
        self.world.send(&sender(Role::Service, "market"), json);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// The driver checks after every turn that folding is deciding, that a snapshot is the state, that invariants hold,
    /// and that waking early decides nothing.
    #[test]
    fn any_history_can_be_folded_and_comes_to_rest(steps in prop::collection::vec(step(), 1..60)) {
        let mut history = History { world: World::new(), bids: 0, sequence: 0, bid_of: BTreeMap::new() };
        for step in &steps {
            history.happens(step);
        }
        let world = &mut history.world;
        world.carry_out_all();
        // Everything is where it belongs, or was said to be at risk.
        let view = world.machine.site_view();
        prop_assert_eq!((view.moving, view.waiting), (0, 0));
        for (number, told) in &world.told {
            let name = &world.planes[number];
            let cluster = world.cluster(name).unwrap();
            prop_assert!(told.order.deleted || cluster.ready == told.order.hosts.len() as u32);
            let is_whole = told.order.hosts.len() as u32 == told.order.replicas;
            prop_assert!(is_whole || cluster.at_risk.is_some(), "{} lacks a replica, and nobody was told", name);
        }
        // Asking for nothing decides nothing.
        let before = world.machine.hash();
        prop_assert_eq!(world.turn(Vec::new()), []);
        prop_assert_eq!(world.machine.hash(), before);
    }

    /// The same history on two machines, one of which is restarted after every step: the same events.
    #[test]
    fn restarts_change_nothing(steps in prop::collection::vec(step(), 1..40)) {
        let mut plain = History { world: World::new(), bids: 0, sequence: 0, bid_of: BTreeMap::new() };
        let mut restarted = History { world: World::new(), bids: 0, sequence: 0, bid_of: BTreeMap::new() };
        for step in &steps {
            plain.happens(step);
            restarted.happens(step);
            restarted.world.restart();
            prop_assert_eq!(plain.world.machine.hash(), restarted.world.machine.hash(), "after {:?}", step);
        }
    }
}
