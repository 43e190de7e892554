//! Hosts as Nodes come, go, fall silent and give notice, told to placement's real machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use controlplane::{HOST_SILENT_SECONDS, Host, HostRules, Hosts, KnownHost};
use placement::machine::Placement;
use proptest::collection::vec;
use proptest::prelude::*;
use proto::machine::{Received, Role, Sender};
use proto::placement::{Amount, NoticeHost, PlacementCommand, PlacementEvent};
use proto::{Machine, Timestamp};

const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// Comparisons after which everything is said.
const ROUNDS_MAX: usize = 6;

struct World {
    machine: Placement,
    nodes: BTreeMap<String, Host>,
    hosts: Hosts,
    now: Timestamp,
    ids: u64,
    refused: usize,
}

fn node(uid: u64) -> Host {
    Host {
        uid: format!("uid-{uid}"),
        version: 1,
        ready: true,
        silent_since: None,
        cordoned: false,
        gone_at: None,
        zone: "z1".to_owned(),
        region: "oak".to_owned(),
        hypervisor: String::new(),
        capacity: Amount { cpu_milli: 8_000, memory_mib: 32_000, pods: 110 },
        taints: BTreeSet::new(),
        labels: BTreeMap::new(),
    }
}

impl World {
    fn new() -> Self {
        let rules = HostRules {
            reserved: Amount { cpu_milli: 500, memory_mib: 1_000, pods: 10 },
            declared: BTreeSet::from(["declared".parse().unwrap()]),
            ..HostRules::default()
        };
        Self {
            machine: Placement::new(&"main".parse().unwrap()),
            nodes: BTreeMap::new(),
            hosts: Hosts::new(rules),
            now: START,
            ids: 0,
            refused: 0,
        }
    }

    fn send(&mut self, role: Role, command: PlacementCommand) {
        let sender = Sender { role, principal: "controlplane".parse().unwrap() };
        let mut events = Vec::new();
        self.machine.step(self.now, &Received::new(sender, command), &mut events);
        let refused = |event: &&PlacementEvent| matches!(event, PlacementEvent::CommandRefused(_));
        self.refused += events.iter().filter(refused).count();
    }

    /// Lets time pass, for placement as well.
    fn wait(&mut self, seconds: u32) {
        self.now = self.now.plus_seconds(seconds);
        let mut events = Vec::new();
        while self.machine.wake_at().is_some_and(|due| due <= self.now) {
            self.machine.wake(self.now, &mut events);
        }
    }

    fn known(&self) -> Vec<KnownHost> {
        let view = self.machine.site_view();
        let known = |host: placement::machine::HostView| KnownHost {
            host: host.host,
            generation: host.generation,
            terms: host.terms,
            gone_at: host.gone_at,
        };
        view.hosts.into_iter().map(known).collect()
    }

    /// Compares once. How much was said.
    fn compare(&mut self) -> usize {
        let (known, ids) = (self.known(), &mut self.ids);
        let said = self.hosts.say(&self.nodes, &known, self.now, || {
            *ids += 1;
            format!("id-{ids}").parse().ok()
        });
        let count = said.commands.len();
        for command in said.commands {
            self.send(Role::Service, command);
        }
        count
    }

    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.compare() == 0 {
                return;
            }
        }
        panic!("there is always more to say");
    }
}

/// What happens to one of a few machines, or to all.
#[derive(Clone, Debug)]
enum Act {
    Comes(u8),
    Goes(u8),
    Silent(u8),
    Speaks(u8),
    Grows(u8),
    Notices(u8, u32),
    TakesBack(u8),
    NoticedByHypervisor(u8, u32),
    Wait(u32),
    Compare,
    /// The service starts anew and remembers nothing.
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let host = 0..4_u8;
    prop_oneof![
        3 => host.clone().prop_map(Act::Comes),
        1 => host.clone().prop_map(Act::Goes),
        1 => host.clone().prop_map(Act::Silent),
        1 => host.clone().prop_map(Act::Speaks),
        1 => host.clone().prop_map(Act::Grows),
        1 => (host.clone(), 1..200_u32).prop_map(|(host, seconds)| Act::Notices(host, seconds)),
        1 => host.clone().prop_map(Act::TakesBack),
        1 => (host, 1..200_u32).prop_map(|(host, seconds)| Act::NoticedByHypervisor(host, seconds)),
        1 => (1..100_u32).prop_map(Act::Wait),
        3 => Just(Act::Compare),
        1 => Just(Act::Restart),
    ]
}

impl World {
    fn act(&mut self, act: &Act, uid: u64) {
        let now = self.now;
        let name = |host: u8| format!("h{host}");
        let change = |nodes: &mut BTreeMap<String, Host>, host: u8, change: &dyn Fn(&mut Host)| {
            if let Some(node) = nodes.get_mut(&name(host)) {
                change(node);
            }
        };
        match *act {
            Act::Comes(host) => drop(self.nodes.entry(name(host)).or_insert_with(|| node(uid))),
            Act::Goes(host) => drop(self.nodes.remove(&name(host))),
            Act::Silent(host) => change(&mut self.nodes, host, &|node| {
                (node.ready, node.silent_since) = (false, node.silent_since.or(Some(now)));
            }),
            Act::Speaks(host) => {
                change(&mut self.nodes, host, &|node| (node.ready, node.silent_since) = (true, None));
            }
            Act::Grows(host) => change(&mut self.nodes, host, &|node| node.capacity.cpu_milli += 1_000),
            Act::Notices(host, seconds) => {
                change(&mut self.nodes, host, &|node| node.gone_at = Some(now.plus_seconds(seconds)));
            }
            Act::TakesBack(host) => change(&mut self.nodes, host, &|node| node.gone_at = None),
            Act::NoticedByHypervisor(host, seconds) => {
                let (id, host) = (format!("n{uid}").parse().unwrap(), name(host).parse().unwrap());
                let gone_at = now.plus_seconds(seconds);
                self.send(Role::Operator, PlacementCommand::NoticeHost(NoticeHost { id, host, gone_at }));
                // One that is not known is refused, and that is nobody's fault here.
                self.refused = 0;
            }
            Act::Wait(seconds) => self.wait(seconds),
            Act::Compare => drop(self.compare()),
            Act::Restart => self.hosts = World::new().hosts,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happened: once all is said, placement knows the machines that are there, as they are, and no others;
    /// nothing that is said is refused, and nothing is said for ever.
    #[test]
    fn placement_comes_to_know_the_machines_there_are(acts in vec(act(), 1..60)) {
        let mut world = World::new();
        for (uid, act) in acts.iter().enumerate() {
            world.act(act, uid as u64);
            prop_assert_eq!(world.refused, 0, "refused after {:?}", act);
        }
        world.settle();
        world.wait(HOST_SILENT_SECONDS);
        world.settle();
        prop_assert_eq!(world.refused, 0);
        let known: BTreeMap<String, KnownHost> =
            world.known().into_iter().map(|known| (known.host.as_str().to_owned(), known)).collect();
        for (name, node) in &world.nodes {
            let is_leaving = node.gone_at.is_some_and(|at| at <= world.now);
            let Some(known) = known.get(name) else {
                // It does not answer, or it was gone by somebody's notice while its Node lingered.
                let was_noticed = acts.iter().any(|act| matches!(act,
                    Act::NoticedByHypervisor(host, _) | Act::Notices(host, _) if format!("h{host}") == *name));
                prop_assert!(!node.ready || is_leaving || was_noticed, "{} is not known", name);
                continue;
            };
            prop_assert!(node.ready, "{} does not answer", name);
            prop_assert_eq!(known.terms.capacity.cpu_milli, node.capacity.cpu_milli - 500);
            if let Some(at) = node.gone_at {
                prop_assert!(known.gone_at.is_some_and(|known| known <= at), "{} gives notice", name);
            }
        }
        for name in known.keys() {
            prop_assert!(world.nodes.contains_key(name), "{} is not there", name);
        }
    }
}

#[test]
fn a_host_that_placement_ended_is_not_offered_again_before_it_is_another() {
    let mut world = World::new();
    world.act(&Act::Comes(1), 1);
    world.settle();
    world.act(&Act::NoticedByHypervisor(1, 60), 2);
    world.compare();
    world.wait(61);
    world.settle();
    assert!(world.known().is_empty(), "its Node lingers");
    world.act(&Act::Goes(1), 3);
    world.act(&Act::Comes(1), 4);
    world.settle();
    assert_eq!(world.known().len(), 1);
}

#[test]
fn nothing_is_said_of_hosts_that_the_operator_declared_nor_of_others_machines() {
    let mut world = World::new();
    world.nodes.insert("declared".to_owned(), node(1));
    world.nodes.insert("no region".replace(' ', "-"), Host { region: String::new(), ..node(2) });
    let said = world.hosts.say(&world.nodes, &[], START, || "i".parse().ok());
    assert!(said.commands.is_empty());
    assert_eq!(said.unusable, [("no-region".to_owned(), "it names no region")]);
}
