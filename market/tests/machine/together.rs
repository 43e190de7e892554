//! Bids with several options, gangs, running limits: rounds of coupled markets against `walras clear`, coupled markets
//! against books, and the rules by example.

use std::collections::BTreeMap;

use market::clear::{ClearInput, clear};
use proptest::prelude::*;
use proto::machine::Sender;
use proto::market::{MarketEvent, Prices};
use serde_json::{Value, json};

use super::driver::*;

pub(crate) const MARKETS: [&str; 3] = ["dfw/a", "iad/b", "lon/c"];

#[derive(Clone, Debug)]
pub(crate) struct Wish {
    quantity: u32,
    pub(crate) minimum: u32,
    /// Market, limit and running limit in mills; each market once.
    pub(crate) options: Vec<(usize, u64, Option<u64>)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Place(Wish),
    Amend { bid: usize, wish: Wish, named: Option<usize> },
    Cancel { bid: usize },
    Supply { market: usize, units: u32 },
    Reserve { market: usize, mills: u64 },
    Rules { move_cost: Option<u64>, is_highest_rejected: bool, passes: u32 },
    Release { first: usize, count: usize },
    Ready { first: usize, count: usize },
    Wait { seconds: i64 },
    Round,
    Restart,
    TakeOver,
}

pub(crate) fn mills(mills: u64) -> String {
    format!("0.{mills:03}")
}

fn wish() -> impl Strategy<Value = Wish> {
    let option = (0..3_usize, 2..8_u64, prop::option::weighted(0.25, 0..4_u64));
    let options = prop::collection::vec(option, 1..4).prop_map(|mut options| {
        options.sort_by_key(|&(market, limit, _)| (market, limit));
        options.dedup_by_key(|option| option.0);
        let mut rotated = options.clone();
        rotated.rotate_left(options[0].1 as usize % options.len());
        rotated
            .into_iter()
            .map(|(market, limit, more)| (market, limit, more.map(|more| limit + more)))
            .collect()
    });
    (1..5_u32, prop::option::weighted(0.2, 1..5_u32), options).prop_map(|(quantity, minimum, options)| Wish {
        quantity,
        minimum: minimum.map_or(1, |minimum| minimum.min(quantity)),
        options,
    })
}

/// What leaves a bid's place in the queue where its number puts it.
fn plain_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => wish().prop_map(Step::Place),
        2 => (0..30_usize).prop_map(|bid| Step::Cancel { bid }),
        4 => (0..3_usize, 0..7_u32).prop_map(|(market, units)| Step::Supply { market, units }),
        1 => (0..3_usize, 1..6_u64).prop_map(|(market, mills)| Step::Reserve { market, mills }),
        1 => (prop::option::of(0..3_u64), any::<bool>())
            .prop_map(|(move_cost, is_highest_rejected)| Step::Rules { move_cost, is_highest_rejected, passes: 64 }),
        5 => Just(Step::Round),
    ]
}

pub(crate) fn any_step() -> impl Strategy<Value = Step> {
    let amend = (0..30_usize, wish(), prop::option::of(0..9_usize));
    prop_oneof![
        10 => plain_step(),
        5 => amend.prop_map(|(bid, wish, named)| Step::Amend { bid, wish, named }),
        2 => (0..40_usize, 1..4_usize).prop_map(|(first, count)| Step::Release { first, count }),
        3 => (0..40_usize, 1..4_usize).prop_map(|(first, count)| Step::Ready { first, count }),
        3 => (0..40_i64).prop_map(|seconds| Step::Wait { seconds }),
        1 => (1..4_u32).prop_map(|passes| Step::Rules { move_cost: None, is_highest_rejected: false, passes }),
        1 => Just(Step::Restart),
        1 => Just(Step::TakeOver),
    ]
}

/// A world of three markets whose rounds wait until they are asked for.
pub(crate) struct Bourse {
    pub(crate) world: World,
    bids: Vec<String>,
    generation: u64,
    pub(crate) supply: [u32; 3],
    pub(crate) reserve: [u64; 3],
    move_cost: Option<u64>,
    is_highest_rejected: bool,
    told: BTreeMap<u16, Prices>,
    events: Vec<MarketEvent>,
}

impl Bourse {
    pub(crate) fn new(notice_seconds: u32) -> Self {
        let mut world = World::new();
        for market in MARKETS {
            world.define(market, json!({"reserve": "0.001", "notice_seconds": notice_seconds}));
        }
        let mut bourse = Self {
            world,
            bids: Vec::new(),
            generation: 0,
            supply: [0; 3],
            reserve: [1; 3],
            move_cost: None,
            is_highest_rejected: false,
            told: BTreeMap::new(),
            events: Vec::new(),
        };
        bourse.rules(64);
        bourse
    }

    fn send(&mut self, by: &Sender, json: Value) {
        let events = self.world.turn(vec![(by.clone(), command(json))]).concat();
        self.note(&events);
    }

    fn note(&mut self, events: &[MarketEvent]) {
        for event in events {
            if let MarketEvent::PriceChanged { market, prices, .. } = event {
                self.told.insert(*market, *prices);
            }
        }
        self.events.extend_from_slice(events);
    }

    fn id(&mut self) -> String {
        self.generation += 1;
        format!("c{}", self.generation)
    }

    fn rules(&mut self, passes: u32) {
        let mut rules = json!({"coalesce_milliseconds": 60_000, "gang_passes_max": passes});
        if let Some(cost) = self.move_cost {
            rules["move_cost"] = mills(cost).into();
        }
        if self.is_highest_rejected {
            rules["price_rule"] = "highest-rejected".into();
        }
        let id = self.id();
        self.send(&operator(), json!({"type": "AdoptRules", "id": id, "rules": rules}));
    }

    fn options(&self, wish: &Wish) -> Vec<Value> {
        let option = |&(market, limit, running): &(usize, u64, Option<u64>)| {
            // On the ladder and not below the reserve: what is refused is tested elsewhere.
            let limit = limit.max(self.reserve[market]);
            let mut option = json!({"market": MARKETS[market], "limit": mills(limit)});
            if let Some(running) = running {
                option["running_limit"] = mills(running.max(limit)).into();
            }
            option
        };
        wish.options.iter().map(option).collect()
    }

    /// Leases that are not over: all of them, or those under notice.
    fn leases(&self, is_leaving: bool) -> Vec<u64> {
        let bids = self.world.machine.bids();
        let spans = bids.iter().flat_map(|bid| &bid.leases);
        let spans = spans.filter(|span| span.leaving.is_some() || !is_leaving && span.available_by.is_none());
        spans.flat_map(|span| span.leases.first..span.leases.end()).collect()
    }

    fn report(&mut self, kind: &str, leases: &[u64]) {
        if !leases.is_empty() {
            let id = self.id();
            self.send(&operator(), json!({"type": kind, "id": id, "leases": leases}));
        }
    }

    /// What operators and hypervisors say.
    fn set(&mut self, step: &Step) {
        match step {
            Step::Supply { market, units } => {
                self.supply[*market] = *units;
                let (id, generation) = (self.id(), self.generation);
                self.send(
                    &hypervisor("h1"),
                    json!({"type": "SupplyOffered", "id": id, "source": "h1", "market": MARKETS[*market],
                        "generation": generation, "units": units}),
                );
            }
            Step::Reserve { market, mills: reserve } => {
                self.reserve[*market] = *reserve;
                let id = self.id();
                let settings = json!({"reserve": mills(*reserve), "notice_seconds": 600});
                self.send(
                    &operator(),
                    json!({"type": "DefineMarket", "id": id, "market": MARKETS[*market], "settings": settings}),
                );
            }
            Step::Rules { move_cost, is_highest_rejected, passes } => {
                (self.move_cost, self.is_highest_rejected) = (*move_cost, *is_highest_rejected);
                self.rules(*passes);
            }
            _ => unreachable!("{step:?} sets nothing"),
        }
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Place(wish) => {
                let id = format!("b{}", self.bids.len());
                let options = self.options(wish);
                self.bids.push(id.clone());
                let (quantity, minimum) = (wish.quantity, wish.minimum);
                self.send(
                    &gateway(),
                    json!({"type": "PlaceBid", "id": id, "tenant": "t", "cluster": "c", "pool": "p",
                        "quantity": quantity, "min_quantity": minimum, "options": options}),
                );
            }
            Step::Amend { bid, wish, named } if !self.bids.is_empty() => {
                let name = self.bids[bid % self.bids.len()].clone();
                let bids = self.world.machine.bids();
                let Some(known) = bids.iter().find(|known| known.id.as_str() == name) else { return };
                let leases: Vec<u64> = known.leases.iter().map(|span| span.leases.first).collect();
                let give_up: Vec<u64> =
                    named.and_then(|at| leases.get(at % leases.len().max(1)).copied()).into_iter().collect();
                let (id, version, options) = (self.id(), known.version, self.options(wish));
                let terms =
                    json!({"quantity": wish.quantity, "min_quantity": wish.minimum, "options": options});
                self.send(
                    &gateway(),
                    json!({"type": "AmendBid", "id": id, "tenant": "t", "bid": name, "version": version,
                        "terms": terms, "give_up": give_up}),
                );
            }
            Step::Cancel { bid } if !self.bids.is_empty() => {
                let (id, name) = (self.id(), self.bids[bid % self.bids.len()].clone());
                self.send(&gateway(), json!({"type": "CancelBid", "id": id, "tenant": "t", "bid": name}));
            }
            Step::Amend { .. } | Step::Cancel { .. } => {}
            Step::Supply { .. } | Step::Reserve { .. } | Step::Rules { .. } => self.set(step),
            Step::Release { first, count } => {
                let leaving = self.leases(true);
                let named: Vec<u64> = leaving.into_iter().skip(*first).take(*count).collect();
                self.report("ReportReleased", &named);
            }
            Step::Ready { first, count } => {
                let held = self.leases(false);
                let named: Vec<u64> = held.into_iter().skip(*first).take(*count).collect();
                self.report("ReportReady", &named);
            }
            Step::Wait { seconds } => {
                let events = self.world.wait(*seconds).turn(Vec::new()).concat();
                self.note(&events);
            }
            Step::Round => {
                let events = self.world.wait(60).turn(Vec::new()).concat();
                self.note(&events);
            }
            Step::Restart => self.world.restart(),
            Step::TakeOver => self.world.take_over(),
        }
    }

    /// The book as it stands, with who holds what: what the next round clears.
    fn book(&self) -> ClearInput {
        let bid = |bid: &market::BidView| {
            let option = |&(market, limit, running): &(u16, proto::Price, proto::Price)| {
                let mut option = json!({"market": MARKETS[usize::from(market)], "limit": limit});
                if running > limit {
                    option["running_limit"] = json!(running);
                }
                option
            };
            let mut running: BTreeMap<u16, u32> = BTreeMap::new();
            for span in &bid.leases {
                assert!(span.leaving.is_none() && span.available_by.is_none(), "all was released: {bid:?}");
                *running.entry(span.market).or_default() += span.leases.units;
            }
            let running: Vec<Value> = running
                .into_iter()
                .map(|(market, units)| json!({"market": MARKETS[usize::from(market)], "units": units}))
                .collect();
            let options: Vec<Value> = bid.options.iter().map(option).collect();
            json!({"id": bid.id, "quantity": bid.quantity, "min_quantity": bid.min_quantity, "options": options,
                "running": running})
        };
        let bids: Vec<Value> = self.world.machine.bids().iter().map(bid).collect();
        let market = |at: usize| {
            let rungs: Vec<String> = (1..12).map(mills).collect();
            json!({"market": MARKETS[at], "supply": self.supply[at], "reserve": mills(self.reserve[at]),
                "ladder": rungs})
        };
        let rule = if self.is_highest_rejected { "highest-rejected" } else { "lowest-accepted" };
        let mut book =
            json!({"price_rule": rule, "markets": [market(0), market(1), market(2)], "bids": bids});
        if let Some(cost) = self.move_cost {
            book["move_cost"] = mills(cost).into();
        }
        serde_json::from_value(book).unwrap()
    }
}

proptest! {
    /// Round by round, what the machine decides is what clearing the whole book from nothing gives.
    #[test]
    fn every_round_is_what_clear_says(steps in prop::collection::vec(plain_step(), 1..60)) {
        let mut bourse = Bourse::new(600);
        // `walras clear` knows a cost of moving in dollars only.
        bourse.take(&Step::Rules { move_cost: Some(0), is_highest_rejected: false, passes: 64 });
        for step in steps.iter().chain([&Step::Round]) {
            let step = match step {
                Step::Rules { move_cost, is_highest_rejected, passes } => Step::Rules {
                    move_cost: Some(move_cost.unwrap_or(0)),
                    is_highest_rejected: *is_highest_rejected,
                    passes: *passes,
                },
                other => other.clone(),
            };
            if !matches!(step, Step::Round) {
                bourse.take(&step);
                continue;
            }
            // Whoever left by his own will is gone, so that nobody holds a server who does not win it.
            bourse.report("ReportReleased", &bourse.leases(true));
            // Figures are those of the round that last looked at a market: this one looks at all of them.
            for market in 0..3 {
                bourse.take(&Step::Supply { market, units: bourse.supply[market] });
            }
            let book = bourse.book();
            let before = bourse.events.len();
            bourse.take(&Step::Round);
            let is_closed =
                bourse.events[before..].iter().any(|event| matches!(event, MarketEvent::RoundClosed { .. }));
            if !is_closed {
                continue;
            }
            let expected = clear(&book).unwrap();
            for (at, outcome) in expected.markets.iter().enumerate() {
                let told = bourse.told.get(&(at as u16)).copied().unwrap_or_default();
                let kept = (told.price, told.sold, told.lowest_winning_bid);
                let anew = (outcome.price, outcome.sold, outcome.lowest_winning_bid);
                // Above the rungs that the book names a machine's step ladder goes on.
                let is_off = anew.2.is_none() && outcome.price.is_some();
                prop_assert_eq!((kept.0, kept.1), (anew.0, anew.1), "{}", outcome.market);
                prop_assert!(is_off || kept.2 == anew.2, "{}: {kept:?}, {anew:?}", outcome.market);
            }
            let bids = bourse.world.machine.bids();
            for outcome in &expected.bids {
                let bid = bids.iter().find(|bid| bid.id == outcome.id).unwrap();
                let mut won: BTreeMap<&str, u32> = BTreeMap::new();
                for span in bid.leases.iter().filter(|span| span.leaving.is_none()) {
                    *won.entry(MARKETS[usize::from(span.market)]).or_default() += span.leases.units;
                }
                let anew: BTreeMap<&str, u32> =
                    outcome.units.iter().map(|units| (units.market.as_str(), units.units)).collect();
                prop_assert_eq!(won, anew, "{}", outcome.id);
            }
            let named = |number: u64| bids.iter().find(|bid| bid.number == number).unwrap().id.clone();
            let mut passed: Vec<(String, u32)> = bourse
                .world
                .machine
                .passed_over()
                .into_iter()
                .map(|(number, short_by)| (named(number).to_string(), short_by))
                .collect();
            passed.sort();
            let mut rejected: Vec<(String, u32)> = expected
                .paradoxically_rejected
                .iter()
                .map(|rejected| (rejected.id.to_string(), rejected.short_by))
                .collect();
            rejected.sort();
            prop_assert_eq!(passed, rejected);
            // Whoever lost is gone at once, so that the next round begins with servers for all who won.
            bourse.report("ReportReleased", &bourse.leases(true));
        }
    }

    /// Whatever happens, reading the events back, restarting and clearing from nothing come to the same: the driver
    /// checks it after every turn.
    #[test]
    fn every_state_is_what_its_events_make_it(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut bourse = Bourse::new(90);
        for step in &steps {
            bourse.take(step);
        }
        bourse.take(&Step::Round);
    }

    /// A market is the same by itself and together with others: beside a bid that names all markets and cannot win.
    #[test]
    fn markets_clear_alike_alone_and_together(steps in prop::collection::vec(any_step(), 1..60)) {
        let plain = |step: &Step| {
            let first = |wish: &Wish| Wish {
                quantity: wish.quantity,
                minimum: 1,
                options: vec![(wish.options[0].0, wish.options[0].1, None)],
            };
            match step {
                Step::Place(wish) => Step::Place(first(wish)),
                Step::Amend { bid, wish, named } => {
                    Step::Amend { bid: *bid, wish: first(wish), named: *named }
                }
                Step::Reserve { market, mills } => Step::Reserve { market: *market, mills: (*mills).max(2) },
                Step::Rules { is_highest_rejected, .. } => Step::Rules {
                    move_cost: None,
                    is_highest_rejected: *is_highest_rejected,
                    passes: 64,
                },
                other => other.clone(),
            }
        };
        let (mut alone, mut together) = (Bourse::new(90), Bourse::new(90));
        let options: Vec<Value> =
            MARKETS.iter().map(|market| json!({"market": market, "limit": "0.001"})).collect();
        for (bourse, options) in [(&mut alone, &options[..1]), (&mut together, &options[..])] {
            bourse.send(
                &gateway(),
                json!({"type": "PlaceBid", "id": "low", "tenant": "low", "cluster": "c", "pool": "p",
                    "quantity": 1, "options": options}),
            );
            for market in 0..3 {
                bourse.take(&Step::Reserve { market, mills: 2 });
            }
            bourse.take(&Step::Round);
            bourse.events.clear();
        }
        for step in &steps {
            let step = plain(step);
            alone.take(&step);
            together.take(&step);
        }
        prop_assert!((0..3).all(|market| together.world.machine.is_joint(market)));
        let by_market = |bourse: &mut Bourse, wants_low: bool| {
            let mut events = std::mem::take(&mut bourse.events);
            for event in &mut events {
                if let MarketEvent::PriceChanged { market, prices, .. } = event {
                    prices.wanted -= u64::from(wants_low || *market == 0);
                }
            }
            // Losses come before gains where markets clear together: compared as sets of each bid's and market's.
            let mut lines: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
            lines.sort();
            lines
        };
        prop_assert_eq!(by_market(&mut alone, false), by_market(&mut together, true));
    }
}

/// A bid of a tenant of its own name.
fn flexible(id: &str, quantity: u32, minimum: u32, options: Value) -> Value {
    json!({"type": "PlaceBid", "id": id, "tenant": format!("t-{id}"), "cluster": "c", "pool": "p",
        "quantity": quantity, "min_quantity": minimum, "options": options})
}

fn two_markets(supply: [u32; 2]) -> World {
    let mut world = World::new();
    for (at, market) in MARKETS.iter().take(2).enumerate() {
        world.define(market, json!({"reserve": "0.001", "notice_seconds": 60}));
        world.offer(json!({"market": market, "generation": 1, "units": supply[at]}));
    }
    world
}

fn either(first: &str, second: &str) -> Value {
    json!([{"market": "dfw/a", "limit": first}, {"market": "iad/b", "limit": second}])
}

fn one(limit: &str) -> Value {
    json!([{"market": "dfw/a", "limit": limit}])
}

#[test]
fn a_unit_moves_and_keeps_its_server_until_the_new_one_is_ready() {
    let mut world = two_markets([1, 1]);
    let lines = world.send(&gateway(), flexible("a", 1, 1, either("0.030", "0.029")));
    assert_eq!(but_prices(lines), ["placed a", "awarded a #1"]);
    // b wants dfw only; a is worth nearly as much in iad.
    let lines = world.send(&gateway(), flexible("b", 1, 1, one("0.040")));
    assert_eq!(
        but_prices(lines),
        ["placed b", "notice a #1 moved at 60 kept by 0.041", "awarded b #2 by 60", "moved a #1 to #3"]
    );
    let lines = world.report(&operator(), "ReportReady", &[3]);
    assert_eq!(but_prices(lines), ["ready a #3", "released a #1 replaced"]);
    let leases = &world.machine.bids()[1].leases;
    assert_eq!((leases.len(), leases[0].available_by), (1, None), "b has the server that a left");
}

#[test]
fn nobody_is_moved_for_a_tick() {
    let mut world = two_markets([1, 0]);
    world.send(&gateway(), flexible("a", 1, 1, either("0.030", "0.035")));
    let lines = world.offer(json!({"market": "iad/b", "generation": 2, "units": 1}));
    assert_eq!(
        but_prices(lines),
        ["supply h1 1 of 1", "notice a #1 moved at 60 kept by 0.001", "moved a #1 to #2"]
    );
    // A tenth of 0.032 is more than what moving gains.
    let mut world = two_markets([1, 0]);
    world.send(&gateway(), flexible("a", 1, 1, either("0.030", "0.032")));
    let lines = world.offer(json!({"market": "iad/b", "generation": 2, "units": 1}));
    assert_eq!(but_prices(lines), ["supply h1 1 of 1"]);
    // Unless the operator says that a move costs nothing.
    let lines = world.rules(json!({"move_cost": "0"}));
    assert_eq!(but_prices(lines), ["rules", "notice a #1 moved at 60 kept by 0.001", "moved a #1 to #2"]);
}

#[test]
fn a_running_limit_keeps_a_server_and_raises_nobodys_price() {
    let mut world = two_markets([1, 0]);
    let running = json!([{"market": "dfw/a", "limit": "0.010", "running_limit": "0.050"}]);
    world.send(&gateway(), flexible("a", 1, 1, running));
    let lines = world.send(&gateway(), flexible("b", 1, 1, one("0.020")));
    assert_eq!(lines[1], "price dfw/a 0.020 lowest 0.051 sold 1/1 wanted 2");
    let lines = world.cancel("b");
    assert_eq!(lines[1], "price dfw/a 0.010 lowest 0.051 sold 1/1 wanted 1");
    // Who has to leave and still holds the server counts as much as before.
    let lines = world.send(&gateway(), flexible("c", 1, 1, one("0.060")));
    assert_eq!(
        but_prices(lines),
        ["placed c", "notice a #1 outbid at 60 kept by 0.061", "awarded c #2 by 60"]
    );
    let lines = world.amend("c", 1, 1, "0.040");
    assert_eq!(but_prices(lines), ["amended c v2", "released c #2 never-served", "withdrawn a #1"]);
}

#[test]
fn a_gang_wins_whole_or_not_at_all() {
    let mut world = two_markets([3, 0]);
    world.send(&gateway(), flexible("a", 2, 1, one("0.030")));
    let lines = world.send(&gateway(), flexible("g", 2, 2, one("0.020")));
    assert_eq!(but_prices(lines), ["placed g", "passed over g by 1"]);
    let lines = world.supply(2, 4);
    assert_eq!(but_prices(lines), ["supply h1 4 of 4", "awarded g #3-4", "passed over g by 0"]);
}

#[test]
fn a_gang_holds_its_servers_against_who_offers_more_for_one_of_them() {
    let mut world = two_markets([2, 0]);
    world.send(&gateway(), flexible("g", 2, 2, one("0.020")));
    let lines = world.send(&gateway(), flexible("a", 1, 1, one("0.030")));
    assert_eq!(but_prices(lines), ["placed a", "passed over a by 1"]);
    let lines = world.send(&gateway(), flexible("b", 1, 1, one("0.031")));
    assert_eq!(
        but_prices(lines),
        [
            "placed b",
            "notice g #1-2 outbid at 60 kept by 0.031",
            "awarded b #3 by 60",
            "awarded a #4 by 60",
            "passed over a by 0"
        ]
    );
}

#[test]
fn a_market_goes_back_to_its_book_when_no_flexible_bid_names_it() {
    let mut world = two_markets([1, 1]);
    world.place("p", 1, "0.010");
    assert!(!world.machine.is_joint(0));
    world.send(&gateway(), flexible("a", 1, 1, either("0.030", "0.010")));
    assert!(world.machine.is_joint(0) && world.machine.is_joint(1));
    world.cancel("a");
    world.wait(1).place("q", 1, "0.002");
    assert!(!world.machine.is_joint(0) && !world.machine.is_joint(1));
    let of = |id: &str| world.machine.bids().into_iter().find(|bid| bid.id.as_str() == id).unwrap().won;
    assert_eq!((of("p"), of("q")), (1, 0));
}

#[test]
fn an_amendment_that_names_other_markets_lets_go_of_what_it_drops() {
    let mut world = two_markets([1, 1]);
    world.send(&gateway(), flexible("a", 2, 1, either("0.030", "0.029")));
    let amended = json!({"type": "AmendBid", "tenant": "t-a", "bid": "a", "version": 1,
        "terms": {"quantity": 2, "options": [{"market": "iad/b", "limit": "0.029"}]}});
    let lines = world.send(&gateway(), amended);
    assert_eq!(but_prices(lines), ["amended a v2", "notice a #1 reduced at 60"]);
    assert_eq!(world.machine.bids()[0].won, 1);
}
