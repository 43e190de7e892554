//! A bid that was there, and the same bid as it would have been: both come out alike.

#![allow(clippy::unwrap_used)] // helpers of tests fail like tests

use std::sync::Arc;

use market::Market;
use market::counterfactual::{Counterfactual, CounterfactualError, Outcome};
use market::view::View;
use proptest::prelude::*;
use proto::machine::{Received, Role, Sender};
use proto::market::{MarketCommand, PlaceBid, Rules};
use proto::{Machine, Timestamp};
use serde_json::{Value, json};

const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
const MARKETS: [&str; 2] = ["dfw/a", "iad/b"];

fn received(role: Role, mut command: Value, id: usize) -> Received<MarketCommand> {
    if command.get("id").is_none() {
        command["id"] = json!(format!("c{id}"));
    }
    let command: MarketCommand = serde_json::from_value(command).unwrap();
    Received::new(Sender { role, principal: "p".parse().unwrap() }, command)
}

/// An exchange that goes on turn by turn, with its view.
struct World {
    market: Market,
    view: View,
    now: Timestamp,
    sequence: u64,
    reports: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            market: Market::new(&"main".parse().unwrap()),
            view: View::new(),
            now: START,
            sequence: 0,
            reports: 0,
        };
        let rules = json!({"type": "AdoptRules", "rules": rules()});
        world.take(START, &[received(Role::Operator, rules, 900)]);
        for (at, market) in MARKETS.iter().enumerate() {
            let settings = json!({"reserve": "0.001", "notice_seconds": 60, "on_demand_price": "0.050"});
            let open = json!({"type": "DefineMarket", "market": market, "settings": settings});
            let supply = json!({"type": "SupplyOffered", "source": "h", "market": market, "generation": 1, "units": 3});
            world.take(
                START,
                &[received(Role::Operator, open, 901 + at), received(Role::Operator, supply, 911 + at)],
            );
        }
        world
    }

    fn take(&mut self, at: Timestamp, asked: &[Received<MarketCommand>]) {
        self.wake(at);
        for received in asked {
            let mut events = Vec::new();
            self.market.step(at, received, &mut events);
            self.fold(&events);
        }
        self.wake(at);
    }

    fn wake(&mut self, at: Timestamp) {
        while let Some(due) = self.market.wake_at().filter(|&due| due <= at) {
            self.now = due.max(self.now);
            let mut events = Vec::new();
            self.market.wake(self.now, &mut events);
            self.fold(&events);
            self.report_ready();
        }
        self.now = at;
    }

    /// Of the tenant under watch every server is ready as soon as it is there.
    fn report_ready(&mut self) {
        let bids = self.market.bids();
        let own = bids.iter().filter(|known| known.tenant.as_str() == "mine").flat_map(|known| &known.leases);
        let booting =
            own.filter(|held| held.is_booting).flat_map(|held| held.leases.first..held.leases.end());
        let leases: Vec<u64> = booting.collect();
        if !leases.is_empty() {
            self.reports += 1;
            let report =
                json!({"type": "ReportReady", "id": format!("ready-{}", self.reports), "leases": leases});
            let mut events = Vec::new();
            self.market.step(self.now, &received(Role::Operator, report, 0), &mut events);
            self.fold(&events);
        }
    }

    fn fold(&mut self, events: &[proto::market::MarketEvent]) {
        self.sequence += 1;
        for event in events {
            self.view.apply(self.now, self.sequence, event);
        }
    }
}

fn rules() -> Value {
    json!({"coalesce_milliseconds": 250})
}

#[derive(Clone, Debug)]
enum Asked {
    Place { quantity: u32, options: Vec<(usize, u64)> },
    Cancel { which: usize },
    Supply { market: usize, units: u32 },
}

fn asked() -> impl Strategy<Value = Asked> {
    let options = prop::collection::btree_map(0..2_usize, 2..9_u64, 1..3);
    prop_oneof![
        5 => (1..4_u32, options)
            .prop_map(|(quantity, options)| Asked::Place { quantity, options: options.into_iter().collect() }),
        2 => (0..20_usize).prop_map(|which| Asked::Cancel { which }),
        3 => (0..2_usize, 0..6_u32).prop_map(|(market, units)| Asked::Supply { market, units }),
    ]
}

fn command(asked: &Asked, at: usize) -> Received<MarketCommand> {
    match asked {
        Asked::Place { quantity, options } => {
            let options: Vec<Value> = options
                .iter()
                .map(|(market, mills)| json!({"market": MARKETS[*market], "limit": format!("0.{mills:03}")}))
                .collect();
            let bid = json!({"type": "PlaceBid", "id": format!("b{at}"), "tenant": "t", "cluster": "c", "pool": "p",
                "quantity": quantity, "options": options});
            received(Role::Gateway, bid, at)
        }
        Asked::Cancel { which } => received(
            Role::Gateway,
            json!({"type": "CancelBid", "tenant": "t", "bid": format!("b{which}")}),
            at,
        ),
        Asked::Supply { market, units } => {
            let offer = json!({"type": "SupplyOffered", "source": "h", "market": MARKETS[*market],
                "generation": at + 2, "units": units});
            received(Role::Operator, offer, at)
        }
    }
}

fn bid(quantity: u32, mills: u64, on_demand: bool) -> Arc<PlaceBid> {
    let options: Vec<Value> = MARKETS[..if on_demand { 1 } else { 2 }]
        .iter()
        .map(|market| json!({"market": market, "limit": format!("0.{mills:03}")}))
        .collect();
    let placed = json!({"id": "mine", "tenant": "mine", "cluster": "c", "pool": "p", "quantity": quantity,
        "options": options, "on_demand": on_demand});
    Arc::new(serde_json::from_value(placed).unwrap())
}

/// What comes of a bid that is placed at `since` beside what is asked, one thing every 37 seconds.
fn otherwise(history: &[Asked], since: usize, bid: &Arc<PlaceBid>) -> Result<Outcome, CounterfactualError> {
    let instant = |at: usize| START.plus_seconds(37 * (at as u32 + 1));
    let mut world = World::new();
    for (at, asked) in history[..since].iter().enumerate() {
        world.take(instant(at), &[command(asked, at)]);
    }
    let begun = instant(since).plus_micros(-20_000_000);
    world.wake(begun);
    let rules: Rules = serde_json::from_value(rules()).unwrap();
    let mut otherwise = Counterfactual::begin(world.market, world.view, begun, bid, &rules)?;
    for (at, asked) in history.iter().enumerate().skip(since) {
        otherwise.take(instant(at), &[command(asked, at)])?;
    }
    otherwise.end(instant(history.len()))
}

#[test]
fn a_bid_alone_wins_and_pays_the_reserve() {
    let outcome = otherwise(&[], 0, &bid(2, 20, false)).unwrap();
    // Seventeen seconds before 37 it is placed; its round closes a quarter of a second later.
    assert_eq!((outcome.awards, outcome.wanted_unit_seconds, outcome.won_unit_seconds), (2, 40, 39));
    // 39.5 seconds of a server at 0.001 an hour.
    assert_eq!(outcome.cost.nanos(), 10_972);
    assert_eq!(outcome.held.len(), 2, "{outcome:?}");
    let refused = otherwise(&[], 0, &bid(2, 0, false));
    assert!(matches!(refused, Err(CounterfactualError::Refused(_))), "{refused:?}");
}

proptest! {
    /// What a bid would have won is what it wins when it is really placed: the same units at the same instants.
    #[test]
    fn what_would_have_been_is_what_is(
        history in prop::collection::vec(asked(), 1..25),
        since in 0..25_usize,
        quantity in 1..4_u32,
        mills in 2..9_u64,
        on_demand: bool,
    ) {
        let since = since.min(history.len());
        let bid = bid(quantity, if on_demand { 50 } else { mills }, on_demand);
        let instant = |at: usize| START.plus_seconds(37 * (at as u32 + 1));
        let begun = instant(since).plus_micros(-20_000_000);
        let mut world = World::new();
        let mut won = Vec::new();
        let mut is_refused = false;
        let mut look = |world: &World| {
            let mine = world.market.bids().into_iter().find(|known| known.tenant.as_str() == "mine");
            won.push(mine.map_or(0, |mine| mine.won));
        };
        for (at, asked) in history.iter().enumerate() {
            if at == since {
                let placed = MarketCommand::PlaceBid(Arc::clone(&bid));
                let sender = Sender { role: Role::Gateway, principal: "p".parse().unwrap() };
                world.take(begun, &[Received::new(sender, placed)]);
                is_refused = world.market.bids().iter().all(|known| known.tenant.as_str() != "mine");
            }
            world.take(instant(at), &[command(asked, at)]);
            if at >= since {
                look(&world);
            }
        }
        if since == history.len() {
            return Ok(());
        }
        let outcome = match otherwise(&history, since, &bid) {
            Err(CounterfactualError::Refused(_)) => {
                prop_assert!(is_refused);
                return Ok(());
            }
            other => other.unwrap(),
        };
        prop_assert!(!is_refused);
        for (place, won) in won.into_iter().enumerate() {
            let at = instant(since + place);
            let held = outcome.held.iter().take_while(|held| held.at <= at).last();
            let units: u32 = held.map_or(0, |held| held.units.values().sum());
            prop_assert_eq!(units, won, "at {} of {:?}", at, outcome);
        }
        prop_assert!(outcome.won_unit_seconds <= outcome.wanted_unit_seconds);
    }
}
