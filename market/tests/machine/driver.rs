//! Drives a machine turn by turn as the runner does, and checks after every turn what must always hold.

use std::collections::BTreeMap;

use market::Market;
use proto::machine::{Command, Decided, Entry, Received, Role, Sender};
use proto::market::{LeaseSpan, MarketCommand, MarketEvent};
use proto::{Machine, Timestamp};
use serde_json::{Value, json};

/// When every test begins: 2026-01-01.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// Wakes in one turn before something is taken to go round in circles.
const WAKES_MAX: usize = 10_000;

pub(crate) type Events = Vec<MarketEvent>;

pub(crate) fn sender(role: Role, principal: &str) -> Sender {
    Sender { role, principal: principal.parse().unwrap() }
}

pub(crate) fn operator() -> Sender {
    sender(Role::Operator, "ops")
}

pub(crate) fn gateway() -> Sender {
    sender(Role::Gateway, "web")
}

pub(crate) fn hypervisor(name: &str) -> Sender {
    sender(Role::Hypervisor, name)
}

/// A command from JSON, as it comes from the bus.
pub(crate) fn command(json: Value) -> MarketCommand {
    let text = json.to_string();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A machine with another one that only reads its events.
pub(crate) struct World {
    pub(crate) machine: Market,
    folded: Market,
    pub(crate) now: Timestamp,
    pub(crate) sequence: u64,
    ids: u64,
    /// Bids by number, markets by number, as events named them.
    names: BTreeMap<u64, String>,
    markets: BTreeMap<u16, String>,
    pub(crate) told: Vec<proto::Publication>,
    /// What the last turn decided.
    events: Events,
}

impl World {
    pub(crate) fn new() -> Self {
        let stream = "main".parse().unwrap();
        let mut world = Self {
            machine: Market::new(&stream),
            folded: Market::new(&stream),
            now: START,
            sequence: 0,
            ids: 0,
            names: BTreeMap::new(),
            markets: BTreeMap::new(),
            told: Vec::new(),
            events: Vec::new(),
        };
        // What most tests are about shows with each turn: rounds that wait have tests of their own.
        let rules = json!({"type": "AdoptRules", "id": "at-once", "rules": {"coalesce_milliseconds": 0}});
        let mut events = Vec::new();
        world.machine.step(START, &Received::new(operator(), command(rules)), &mut events);
        for event in &events {
            world.folded.apply(START, event);
        }
        world
    }

    /// An exchange with one market, a reserve of $0.001, a minute's notice.
    pub(crate) fn with_market() -> Self {
        let mut world = Self::new();
        world.define("dfw/a", json!({"reserve": "0.001", "notice_seconds": 60}));
        world
    }

    pub(crate) fn wait(&mut self, seconds: i64) -> &mut Self {
        self.now = self.now.plus_micros(seconds * 1_000_000);
        self
    }

    /// One turn at the present instant: what is due, the commands, what became due by them. Returns the events of
    /// every input; the first and the last are of the wakes.
    pub(crate) fn turn(&mut self, commands: Vec<(Sender, MarketCommand)>) -> Vec<Events> {
        let mut entries = Vec::new();
        let mut all = Vec::new();
        let mut inputs = vec![self.wake_all()];
        for (sender, command) in commands {
            let received = Received::new(sender, command);
            self.machine.touch(&received);
            let mut events = Vec::new();
            self.machine.step(self.now, &received, &mut events);
            assert!(!events.is_empty(), "no answer to {:?}", received.command.id());
            inputs.push(events.clone());
            entries.push((Some(received), events));
        }
        inputs.push(self.wake_all());
        entries.insert(0, (None, inputs[0].clone()));
        entries.push((None, inputs[inputs.len() - 1].clone()));
        self.sequence += 1;
        let entries = entries
            .into_iter()
            .map(|(received, events)| {
                all.extend(events);
                Entry { received, events_end: all.len() }
            })
            .collect();
        let decided = Decided { sequence: self.sequence, at: self.now, entries, events: all };
        self.after_turn(&decided);
        inputs
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

    fn after_turn(&mut self, decided: &Decided<MarketCommand, MarketEvent>) {
        self.machine.check().unwrap();
        self.machine.check_turn().unwrap();
        for event in &decided.events {
            self.folded.apply(self.now, event);
            match event {
                MarketEvent::BidPlaced { number, bid, .. } => {
                    self.names.insert(*number, bid.id.to_string());
                }
                MarketEvent::MarketDefined { market, id, .. } => {
                    self.markets.insert(*market, id.to_string());
                }
                _ => {}
            }
        }
        self.folded.check().unwrap();
        assert_eq!(self.folded.hash(), self.machine.hash(), "folding gave another hash");
        let saved = self.machine.snapshot();
        assert!(self.folded.snapshot() == saved, "folding gave another snapshot");
        let restored = Market::restore(&"main".parse().unwrap(), &saved).unwrap();
        restored.check().unwrap();
        assert_eq!(restored.hash(), self.machine.hash(), "a snapshot gave another hash");
        assert!(restored.snapshot() == saved, "a snapshot gave another snapshot");
        let mut early = self.machine.clone();
        let mut nothing = Vec::new();
        early.wake(self.now, &mut nothing);
        assert_eq!(nothing, [], "a wake before its time decided something");
        self.events.clone_from(&decided.events);
        self.told.clear();
        self.machine.tell(decided, &mut self.told);
    }

    /// What the last turn decided.
    pub(crate) fn last_events(&self) -> &[MarketEvent] {
        &self.events
    }

    /// Goes on with a machine made from a snapshot.
    pub(crate) fn restart(&mut self) {
        self.machine = Market::restore(&"main".parse().unwrap(), &self.machine.snapshot()).unwrap();
    }

    /// Goes on with the machine that only read events.
    pub(crate) fn take_over(&mut self) {
        std::mem::swap(&mut self.machine, &mut self.folded);
    }

    /// One command in a turn of its own, told as lines.
    pub(crate) fn send(&mut self, sender: &Sender, mut json: Value) -> Vec<String> {
        self.ids += 1;
        if json.get("id").is_none() {
            json["id"] = format!("x{}", self.ids).into();
        }
        let inputs = self.turn(vec![(sender.clone(), command(json))]);
        self.lines(&inputs.concat())
    }

    /// What is due now, told as lines.
    pub(crate) fn due(&mut self) -> Vec<String> {
        let inputs = self.turn(Vec::new());
        self.lines(&inputs.concat())
    }

    pub(crate) fn define(&mut self, market: &str, settings: Value) -> Vec<String> {
        self.send(&operator(), json!({"type": "DefineMarket", "market": market, "settings": settings}))
    }

    /// Rules whose rounds close with the turn unless they say otherwise.
    pub(crate) fn rules(&mut self, mut rules: Value) -> Vec<String> {
        if rules.get("coalesce_milliseconds").is_none() {
            rules["coalesce_milliseconds"] = 0.into();
        }
        self.send(&operator(), json!({"type": "AdoptRules", "rules": rules}))
    }

    /// Supply of hypervisor `h1` in `dfw/a`.
    pub(crate) fn supply(&mut self, generation: u64, units: u32) -> Vec<String> {
        self.offer(json!({"generation": generation, "units": units}))
    }

    pub(crate) fn offer(&mut self, mut json: Value) -> Vec<String> {
        json["type"] = "SupplyOffered".into();
        if json.get("source").is_none() {
            json["source"] = "h1".into();
        }
        if json.get("market").is_none() {
            json["market"] = "dfw/a".into();
        }
        let source = json["source"].as_str().unwrap().to_owned();
        self.send(&hypervisor(&source), json)
    }

    /// A bid in `dfw/a` of a tenant of its own name.
    pub(crate) fn place(&mut self, id: &str, quantity: u32, limit: &str) -> Vec<String> {
        self.send(&gateway(), bid(id, quantity, limit))
    }

    /// An on-demand order in `dfw/a` of a tenant of its own name.
    pub(crate) fn order(&mut self, id: &str, quantity: u32, limit: &str) -> Vec<String> {
        let mut order = bid(id, quantity, limit);
        order["on_demand"] = true.into();
        self.send(&gateway(), order)
    }

    pub(crate) fn amend(&mut self, id: &str, version: u32, quantity: u32, limit: &str) -> Vec<String> {
        self.send(&gateway(), amendment(id, version, quantity, limit))
    }

    pub(crate) fn cancel(&mut self, id: &str) -> Vec<String> {
        self.send(&gateway(), json!({"type": "CancelBid", "tenant": format!("t-{id}"), "bid": id}))
    }

    pub(crate) fn acknowledge(&mut self, id: &str, leases: &[u64]) -> Vec<String> {
        let tenant = format!("t-{id}");
        let json = json!({"type": "AcknowledgeNotice", "tenant": tenant, "bid": id, "leases": leases});
        self.send(&gateway(), json)
    }

    /// A worker's, or for others a source's, report on leases of `dfw/a`.
    pub(crate) fn report(&mut self, by: &Sender, kind: &str, leases: &[u64]) -> Vec<String> {
        self.send(by, json!({"type": kind, "leases": leases}))
    }

    pub(crate) fn dead(&mut self, leases: &[u64], seconds_ago: i64) -> Vec<String> {
        let last = self.now.plus_micros(-1_000_000 * seconds_ago);
        self.send(
            &hypervisor("h1"),
            json!({"type": "ReportDead", "leases": leases, "last_heartbeat_at": last}),
        )
    }

    /// Events as short lines; instants in seconds since the test began.
    pub(crate) fn lines(&self, events: &[MarketEvent]) -> Vec<String> {
        events.iter().map(|event| self.line(event)).collect()
    }

    fn line(&self, event: &MarketEvent) -> String {
        let bid = |number: &u64| self.names.get(number).cloned().unwrap_or_default();
        let price = |price: Option<proto::Price>| price.map_or("none".to_owned(), |price| price.to_string());
        match event {
            MarketEvent::CommandRefused(refusal) => {
                let reason = serde_json::to_value(refusal.reason).unwrap();
                format!("refused {} {}={}", reason.as_str().unwrap(), refusal.field, refusal.value)
            }
            MarketEvent::BidPlaced { bid, .. } => format!("placed {}", bid.id),
            MarketEvent::BidAmended { number, version, .. } => format!("amended {} v{version}", bid(number)),
            MarketEvent::BidCancelled { number } => format!("cancelled {}", bid(number)),
            MarketEvent::BidExpired { number } => format!("expired {}", bid(number)),
            MarketEvent::BidForgotten { number } => format!("forgotten {}", bid(number)),
            MarketEvent::NoticeAcknowledged { number, units } => {
                format!("acknowledged {} x{units}", bid(number))
            }
            MarketEvent::SupplyChanged { source, units, supply, .. } => {
                format!("supply {source} {units} of {supply}")
            }
            MarketEvent::MarketDefined { id, .. } => format!("defined {id}"),
            MarketEvent::RulesAdopted { .. } => "rules".to_owned(),
            MarketEvent::TrustAdopted { trusted } => format!("trust x{}", trusted.len()),
            MarketEvent::UnitsAwarded { number, leases, available_by, .. } => {
                let by = available_by.map_or(String::new(), |by| format!(" by {}", seconds(by)));
                format!("awarded {} {}{by}", bid(number), span(*leases))
            }
            MarketEvent::NoticeGiven { number, leases, gone_at, reason, kept_by, .. } => {
                let reason = serde_json::to_value(reason).unwrap();
                let kept = kept_by.map_or(String::new(), |kept| format!(" kept by {kept}"));
                let (reason, gone_at) = (reason.as_str().unwrap(), seconds(*gone_at));
                format!("notice {} {} {reason} at {gone_at}{kept}", bid(number), span(*leases))
            }
            MarketEvent::NoticeWithdrawn { number, leases, .. } => {
                format!("withdrawn {} {}", bid(number), span(*leases))
            }
            MarketEvent::UnitsDelayed { number, leases, available_by, .. } => {
                format!("delayed {} {} by {}", bid(number), span(*leases), seconds(*available_by))
            }
            MarketEvent::UnitsMoved { number, leases, replaces, available_by, .. } => {
                let by = available_by.map_or(String::new(), |by| format!(" by {}", seconds(by)));
                format!("moved {} #{replaces} to {}{by}", bid(number), span(*leases))
            }
            MarketEvent::WorkersReady { number, leases, .. } => {
                format!("ready {} {}", bid(number), span(*leases))
            }
            MarketEvent::WorkersDead { number, leases, since, .. } => {
                format!("dead {} {} since {}", bid(number), span(*leases), seconds(*since))
            }
            MarketEvent::UnitsReleased { number, leases, reason, .. } => {
                let reason = serde_json::to_value(reason).unwrap();
                format!("released {} {} {}", bid(number), span(*leases), reason.as_str().unwrap())
            }
            MarketEvent::PriceChanged { market, prices, .. } => {
                let name = self.markets.get(market).cloned().unwrap_or_default();
                let (now, lowest) = (price(prices.price), price(prices.lowest_winning_bid));
                let proto::market::Prices { sold, supply, wanted, .. } = prices;
                let on_demand = if prices.on_demand == 0 {
                    String::new()
                } else {
                    format!(" on demand {}", prices.on_demand)
                };
                format!("price {name} {now} lowest {lowest} sold {sold}/{supply} wanted {wanted}{on_demand}")
            }
            MarketEvent::BidPassedOver { number, short_by, .. } => {
                format!("passed over {} by {short_by}", bid(number))
            }
            MarketEvent::RoundClosed { round } => format!("round {round}"),
        }
    }
}

/// A bid of a tenant of its own name in `dfw/a`.
pub(crate) fn bid(id: &str, quantity: u32, limit: &str) -> Value {
    json!({
        "type": "PlaceBid", "id": id, "tenant": format!("t-{id}"), "cluster": "c", "pool": "p",
        "quantity": quantity, "options": [{"market": "dfw/a", "limit": limit}],
    })
}

pub(crate) fn amendment(id: &str, version: u32, quantity: u32, limit: &str) -> Value {
    json!({
        "type": "AmendBid", "tenant": format!("t-{id}"), "bid": id, "version": version,
        "terms": {"quantity": quantity, "options": [{"market": "dfw/a", "limit": limit}]},
    })
}

pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.micros_since(START) / 1_000_000
}

fn span(leases: LeaseSpan) -> String {
    if leases.units == 1 {
        format!("#{}", leases.first)
    } else {
        format!("#{}-{}", leases.first, leases.end() - 1)
    }
}

/// Lines without prices and rounds, where a test is about something else.
pub(crate) fn but_prices(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with("price") && !line.starts_with("round")).collect()
}
