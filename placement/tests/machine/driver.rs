//! Drives a machine turn by turn as the runner does, checks after every turn what must always hold, and plays those who
//! carry orders out.

use std::collections::BTreeMap;

use placement::machine::{ClusterView, Placement};
use proto::machine::{Command, Decided, Entry, Received, Role, Sender};
use proto::placement::{PlacementCommand, PlacementEvent, PlaneOrder};
use proto::{Machine, Timestamp};
use serde_json::{Value, json};

/// When every test begins: 2026-01-01.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// Wakes in one turn before something is taken to go round in circles.
const WAKES_MAX: usize = 10_000;

pub(crate) type Events = Vec<PlacementEvent>;

pub(crate) fn sender(role: Role, principal: &str) -> Sender {
    Sender { role, principal: principal.parse().unwrap() }
}

pub(crate) fn gateway() -> Sender {
    sender(Role::Gateway, "web")
}

pub(crate) fn service() -> Sender {
    sender(Role::Service, "controlplane")
}

pub(crate) fn command(json: &Value) -> PlacementCommand {
    let text = json.to_string();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A plane as it is told to those who carry orders out.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) generation: u64,
    pub(crate) order: PlaneOrder,
    pub(crate) gone_at: Option<Timestamp>,
    pub(crate) carried: u64,
}

/// A machine with another one that only reads its events.
pub(crate) struct World {
    pub(crate) machine: Placement,
    folded: Placement,
    pub(crate) now: Timestamp,
    sequence: u64,
    ids: u64,
    /// Names of planes and hosts, as events gave them.
    pub(crate) planes: BTreeMap<u64, String>,
    pub(crate) hosts: BTreeMap<u64, String>,
    pub(crate) told: BTreeMap<u64, Told>,
    pub(crate) answers: Vec<proto::Publication>,
    generation: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let stream = "main".parse().unwrap();
        let mut world = Self {
            machine: Placement::new(&stream),
            folded: Placement::new(&stream),
            now: START,
            sequence: 0,
            ids: 0,
            planes: BTreeMap::new(),
            hosts: BTreeMap::new(),
            told: BTreeMap::new(),
            answers: Vec::new(),
            generation: 0,
        };
        world.rules(json!({}));
        world.store("sql", 1_000);
        world
    }

    pub(crate) fn wait(&mut self, seconds: i64) -> &mut Self {
        self.now = self.now.plus_micros(seconds * 1_000_000);
        self
    }

    /// One turn at the present instant: what is due, the commands, what became due by them.
    pub(crate) fn turn(&mut self, commands: Vec<(Sender, PlacementCommand)>) -> Events {
        let mut inputs = vec![(None, self.wake_all())];
        for (sender, command) in commands {
            let received = Received::new(sender, command);
            let mut events = Vec::new();
            self.machine.step(self.now, &received, &mut events);
            assert!(!events.is_empty(), "no answer to {:?}", received.command.id());
            inputs.push((Some(received), events));
        }
        inputs.push((None, self.wake_all()));
        self.sequence += 1;
        let mut all = Vec::new();
        let entries = inputs.into_iter().map(|(received, events)| {
            all.extend(events);
            Entry { received, events_end: all.len() }
        });
        let entries = entries.collect();
        let decided = Decided { sequence: self.sequence, at: self.now, entries, events: all };
        self.after_turn(&decided);
        decided.events
    }

    fn wake_all(&mut self) -> Events {
        let mut events = Vec::new();
        let mut wakes = 0;
        while self.machine.wake_at().is_some_and(|due| due <= self.now) {
            self.machine.wake(self.now, &mut events);
            wakes += 1;
            assert!(wakes < WAKES_MAX, "wakes without end");
        }
        events
    }

    fn after_turn(&mut self, decided: &Decided<PlacementCommand, PlacementEvent>) {
        self.machine.check().unwrap();
        self.machine.check_turn().unwrap();
        for event in &decided.events {
            let json = serde_json::to_vec(event).unwrap();
            assert_eq!(&serde_json::from_slice::<PlacementEvent>(&json).unwrap(), event);
            self.folded.apply(self.now, event);
            self.hear(event);
        }
        self.folded.check().unwrap();
        assert_eq!(self.folded.hash(), self.machine.hash(), "folding gave another hash");
        let saved = self.machine.snapshot();
        assert!(self.folded.snapshot() == saved, "folding gave another snapshot");
        let restored = Placement::restore(&"main".parse().unwrap(), &saved).unwrap();
        restored.check().unwrap();
        assert_eq!(restored.hash(), self.machine.hash(), "a snapshot gave another hash");
        assert!(restored.snapshot() == saved, "a snapshot gave another snapshot");
        for mut early in [self.machine.clone(), restored] {
            let mut nothing = Vec::new();
            early.wake(self.now, &mut nothing);
            assert_eq!(nothing, [], "a wake before its time decided something");
        }
        self.answers.clear();
        self.machine.tell(decided, &mut self.answers);
    }

    fn hear(&mut self, event: &PlacementEvent) {
        match event {
            PlacementEvent::ClusterCreated { plane, cluster, .. } => {
                assert!(self.planes.insert(*plane, cluster.to_string()).is_none(), "a number is used again");
            }
            PlacementEvent::HostOffered { host, id, .. } => {
                self.hosts.insert(*host, id.to_string());
            }
            PlacementEvent::PlaneGone { plane } => drop(self.told.remove(plane)),
            PlacementEvent::PlaneOrdered { plane, generation, order, gone_at } => {
                let before = self.told.get(plane);
                assert_eq!(
                    *generation,
                    before.map_or(0, |told| told.generation) + 1,
                    "generations go one by one"
                );
                let carried = before.map_or(0, |told| told.carried);
                assert!(order.hosts.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
                self.told.insert(
                    *plane,
                    Told { generation: *generation, order: order.clone(), gone_at: *gone_at, carried },
                );
            }
            _ => {}
        }
    }

    /// Goes on with a machine made from a snapshot.
    pub(crate) fn restart(&mut self) {
        self.machine = Placement::restore(&"main".parse().unwrap(), &self.machine.snapshot()).unwrap();
    }

    /// Goes on with the machine that only read events.
    pub(crate) fn take_over(&mut self) {
        std::mem::swap(&mut self.machine, &mut self.folded);
    }

    /// One command in a turn of its own.
    pub(crate) fn send_events(&mut self, sender: &Sender, mut json: Value) -> Events {
        self.ids += 1;
        if json.get("id").is_none() {
            json["id"] = format!("x{}", self.ids).into();
        }
        self.turn(vec![(sender.clone(), command(&json))])
    }

    /// The same, told as lines.
    pub(crate) fn send(&mut self, sender: &Sender, json: Value) -> Vec<String> {
        let events = self.send_events(sender, json);
        self.lines(&events)
    }

    /// What is due now, told as lines.
    pub(crate) fn due(&mut self) -> Vec<String> {
        let events = self.turn(Vec::new());
        self.lines(&events)
    }

    pub(crate) fn rules(&mut self, rules: Value) -> Vec<String> {
        let mut all = json!({
            "surge_reserve_permille": 0,
            "sizes": [
                {"name": "small", "workers_max": 10, "request": {"cpu_milli": 250, "memory_mib": 500, "pods": 1}, "store_units": 1},
                {"name": "large", "workers_max": 100, "request": {"cpu_milli": 500, "memory_mib": 1000, "pods": 1}, "store_units": 4},
            ],
        });
        for (field, value) in rules.as_object().unwrap() {
            all[field] = value.clone();
        }
        self.send(&sender(Role::Operator, "ops"), json!({"type": "AdoptSiteRules", "rules": all}))
    }

    pub(crate) fn store(&mut self, id: &str, units: u32) -> Vec<String> {
        self.generation += 1;
        let terms = json!({"driver": "mysql", "units_max": units, "accepting": true});
        let json = json!({"type": "OfferDataStore", "data_store": id, "generation": self.generation, "terms": terms});
        self.send(&service(), json)
    }

    /// A host with room for so many small replicas.
    pub(crate) fn host(&mut self, id: &str, zone: &str, replicas: u32) -> Vec<String> {
        self.generation += 1;
        let capacity = json!({"cpu_milli": replicas * 250, "memory_mib": replicas * 500, "pods": replicas});
        let terms = json!({"zone": zone, "region": "dfw", "capacity": capacity, "hypervisor": "h1"});
        let json = json!({"type": "OfferHost", "host": id, "generation": self.generation, "terms": terms});
        self.send(&service(), json)
    }

    pub(crate) fn notice(&mut self, host: &str, seconds: i64) -> Vec<String> {
        let gone_at = self.now.plus_micros(seconds * 1_000_000);
        self.send(&service(), json!({"type": "NoticeHost", "host": host, "gone_at": gone_at}))
    }

    pub(crate) fn create(&mut self, cluster: &str, availability: &str) -> Vec<String> {
        let terms = json!({"availability": availability, "regions": ["dfw"], "version": "v1.35.0"});
        self.create_with(cluster, terms)
    }

    pub(crate) fn create_with(&mut self, cluster: &str, terms: Value) -> Vec<String> {
        let json = json!({"type": "CreateCluster", "tenant": "acme", "cluster": cluster, "terms": terms});
        self.send(&gateway(), json)
    }

    pub(crate) fn change(&mut self, cluster: &str, terms: Value) -> Vec<String> {
        let version = self.cluster(cluster).map_or(0, |cluster| cluster.version);
        let json = json!({
            "type": "ChangeCluster", "tenant": "acme", "cluster": cluster, "version": version, "terms": terms,
        });
        self.send(&gateway(), json)
    }

    pub(crate) fn delete(&mut self, cluster: &str) -> Vec<String> {
        self.send(&gateway(), json!({"type": "DeleteCluster", "tenant": "acme", "cluster": cluster}))
    }

    pub(crate) fn cluster(&self, cluster: &str) -> Option<ClusterView> {
        let views = self.machine.clusters(&"acme".parse().unwrap(), Some(&cluster.parse().unwrap()));
        views.clusters.into_iter().next()
    }

    /// The number of a cluster's plane.
    pub(crate) fn plane(&self, cluster: &str) -> u64 {
        self.cluster(cluster).unwrap().plane
    }

    /// Carries out the order in force for a plane, and says so.
    pub(crate) fn carry_out(&mut self, plane: u64, workers: u32) -> Events {
        let Some(told) = self.told.get_mut(&plane) else { return Vec::new() };
        told.carried = told.generation;
        let Told { generation, order, .. } = told.clone();
        if order.deleted {
            return self.send_events(&service(), json!({"type": "ReportPlaneGone", "plane": plane}));
        }
        let json = json!({
            "type": "ReportPlane", "plane": plane, "generation": generation, "ready_on": order.hosts,
            "version": order.version, "workers": workers,
        });
        self.send_events(&service(), json)
    }

    /// Carries orders out until none is left that was not.
    pub(crate) fn carry_out_all(&mut self) {
        for _ in 0..10_000 {
            let open = self.told.iter().find(|(_, told)| told.carried < told.generation);
            let Some((plane, _)) = open else { return };
            let plane = *plane;
            let workers = self.workers_of(plane);
            self.carry_out(plane, workers);
        }
        panic!("orders without end");
    }

    pub(crate) fn workers_of(&self, plane: u64) -> u32 {
        let Some(name) = self.planes.get(&plane) else { return 0 };
        self.cluster(name).map_or(0, |cluster| cluster.workers)
    }

    /// Hosts on which a cluster's plane is to be.
    pub(crate) fn hosts_of(&self, cluster: &str) -> Vec<String> {
        let told = &self.told[&self.plane(cluster)];
        told.order.hosts.iter().map(ToString::to_string).collect()
    }

    /// Events as short lines; instants in seconds since the test began.
    pub(crate) fn lines(&self, events: &[PlacementEvent]) -> Vec<String> {
        events.iter().map(|event| self.line(event)).collect()
    }

    fn line(&self, event: &PlacementEvent) -> String {
        let plane = |number: &u64| self.planes.get(number).cloned().unwrap_or_default();
        let host = |number: &u64| self.hosts.get(number).cloned().unwrap_or_default();
        let place = |from: &Option<u64>| from.as_ref().map_or("nowhere".to_owned(), host);
        match event {
            PlacementEvent::CommandRefused(refusal) => {
                format!("refused {} {}={}", word(&refusal.reason), refusal.field, refusal.value)
            }
            PlacementEvent::ClusterCreated { cluster, data_store, .. } => {
                format!("created {cluster} in {data_store}")
            }
            PlacementEvent::ClusterChanged { plane: number, version, .. } => {
                format!("changed {} v{version}", plane(number))
            }
            PlacementEvent::ClusterDeleted { plane: number } => format!("deleted {}", plane(number)),
            PlacementEvent::PlaneGone { plane: number } => format!("gone {}", plane(number)),
            PlacementEvent::PlaneSlept { plane: number } => format!("slept {}", plane(number)),
            PlacementEvent::PlaneWoken { plane: number } => format!("woken {}", plane(number)),
            PlacementEvent::PlaneSlow { plane: number, moves } => {
                format!("slow {}{}", plane(number), if *moves { "" } else { " crowded" })
            }
            PlacementEvent::PlaneSized { plane: number, size } => format!("sized {} {size}", plane(number)),
            PlacementEvent::PlaneReported { plane: number, generation, .. } => {
                format!("reported {} {generation}", plane(number))
            }
            PlacementEvent::HostOffered { id, .. } => format!("host {id}"),
            PlacementEvent::HostNoticed { host: number, gone_at, replicas } => {
                format!("notice {} x{replicas} at {}", host(number), seconds(*gone_at))
            }
            PlacementEvent::HostKept { host: number } => format!("kept {}", host(number)),
            PlacementEvent::HostGone { host: number, cause, lost } => {
                format!("gone {} {} x{lost}", host(number), word(cause))
            }
            PlacementEvent::DataStoreOffered { data_store, .. } => format!("store {data_store}"),
            PlacementEvent::BidsReported { exchange, sequence, .. } => format!("bids {exchange} {sequence}"),
            PlacementEvent::SiteRulesAdopted { .. } => "rules".to_owned(),
            PlacementEvent::MovesDecided { moves } => {
                let each = moves.iter().map(|decided| {
                    format!("{} {}>{}", plane(&decided.plane), place(&decided.from), host(&decided.to))
                });
                format!("decided {}", each.collect::<Vec<_>>().join(", "))
            }
            PlacementEvent::MovesWithdrawn => "withdrawn".to_owned(),
            PlacementEvent::MovesBegun { moves } => {
                let each = moves.iter().map(|begun| {
                    format!("{} {}>{}", plane(&begun.plane), place(&begun.from), host(&begun.to))
                });
                format!("begun {}", each.collect::<Vec<_>>().join(", "))
            }
            PlacementEvent::MoveDone { plane: number, .. } => format!("done {}", plane(number)),
            PlacementEvent::MoveFailed { plane: number, .. } => format!("failed {}", plane(number)),
            PlacementEvent::PlaneOrdered { plane: number, order, .. } => {
                let hosts: Vec<&str> = order.hosts.iter().map(proto::HostId::as_str).collect();
                format!("ordered {} x{} on [{}]", plane(number), order.replicas, hosts.join(" "))
            }
            PlacementEvent::PlaneAtRisk { plane: number, risk } => {
                format!("risk {} {}", plane(number), word(&risk.why))
            }
            PlacementEvent::PlaneSafe { plane: number } => format!("safe {}", plane(number)),
            PlacementEvent::HostsAdvised { advice } => {
                let hosts: u32 = advice.iter().map(|advice| advice.hosts).sum();
                format!("advised {hosts}")
            }
            event => super::servers::line(event),
        }
    }
}

pub(crate) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}

pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.micros_since(START) / 1_000_000
}
