//! A view says of an exchange what the machine that decides knows, after every command and every wake.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests fail like tests

use std::collections::BTreeMap;

use market::view::transcript::{Secret, Transcript, check_chain, origin};
use market::view::{View, json};
use market::{BidView, Market};
use proptest::prelude::*;
use proto::machine::Received;
use proto::market::{LeaseNumber, MarketCommand, MarketEvent};
use proto::{Machine, PrincipalId, Role, Sender, Timestamp};
use serde_json::{Value, json};

/// Something asked of the market, or time that passes.
#[derive(Clone, Debug)]
enum Next {
    Place { tenant: u8, market: u8, limit: u8, quantity: u8, lives_seconds: Option<u16> },
    Amend { bid: u8, market: u8, limit: u8, quantity: u8, gives_up: bool },
    Cancel { bid: u8 },
    Acknowledge { bid: u8, units: u8 },
    Supply { market: u8, units: u8, loses: Option<u8>, soon: bool },
    Define { market: u8, reserve: u8 },
    Pass { seconds: u16 },
}

fn next() -> impl Strategy<Value = Next> {
    prop_oneof![
        6 => (0..6_u8, 0..2_u8, 4..12_u8, 1..6_u8, proptest::option::of(1..900_u16)).prop_map(
            |(tenant, market, limit, quantity, lives_seconds)| Next::Place {
                tenant, market, limit, quantity, lives_seconds
            }
        ),
        3 => (any::<u8>(), 0..2_u8, 4..12_u8, 1..6_u8, any::<bool>()).prop_map(
            |(bid, market, limit, quantity, gives_up)| Next::Amend { bid, market, limit, quantity, gives_up }
        ),
        2 => any::<u8>().prop_map(|bid| Next::Cancel { bid }),
        2 => (any::<u8>(), 1..4_u8).prop_map(|(bid, units)| Next::Acknowledge { bid, units }),
        3 => (0..2_u8, 0..14_u8, proptest::option::weighted(0.2, any::<u8>()), any::<bool>())
            .prop_map(|(market, units, loses, soon)| Next::Supply { market, units, loses, soon }),
        1 => (0..2_u8, 1..9_u8).prop_map(|(market, reserve)| Next::Define { market, reserve }),
        3 => (0..500_u16).prop_map(|seconds| Next::Pass { seconds }),
    ]
}

const MARKETS: [&str; 2] = ["dfw/gp.large", "iad/gp.large"];

/// The machine, and a view of it that sees its events only.
struct Exchange {
    market: Market,
    view: View,
    transcript: Transcript,
    records: Vec<market::view::transcript::Record>,
    told: Vec<(Timestamp, u64, MarketEvent)>,
    now: Timestamp,
    sequence: u64,
    commands: u64,
    generation: u64,
    placed: Vec<(String, String)>,
}

impl Exchange {
    fn open(coalesce_milliseconds: u32) -> Self {
        let stream = "main".parse().unwrap();
        let mut exchange = Self {
            market: Market::new(&stream),
            view: View::new(),
            transcript: Transcript::new(&stream),
            records: Vec::new(),
            told: Vec::new(),
            now: Timestamp::from_micros(1_700_000_000_000_000),
            sequence: 0,
            commands: 0,
            generation: 0,
            placed: Vec::new(),
        };
        let rules = json!({
            "coalesce_milliseconds": coalesce_milliseconds,
            "finished_bids_kept_seconds": 600,
            "standing_bids_max": 1000,
            "standing_bids_per_tenant_max": 100,
        });
        exchange.ask(Role::Operator, json!({ "type": "AdoptRules", "rules": rules }));
        let trusted = json!([{ "role": "gateway", "principal": "gateway-1" }]);
        exchange.ask(Role::Operator, json!({ "type": "AdoptTrust", "trusted": trusted }));
        for market in 0..MARKETS.len() as u8 {
            exchange.happen(&Next::Define { market, reserve: 3 });
        }
        exchange
    }

    fn ask(&mut self, role: Role, mut command: Value) {
        self.commands += 1;
        let fields = command.as_object_mut().unwrap();
        fields.entry("id").or_insert_with(|| format!("c-{}", self.commands).into());
        let principal: PrincipalId = format!("{}-1", role.token()).parse().unwrap();
        let command: MarketCommand = serde_json::from_value(command).unwrap();
        let received = Received::new(Sender { role, principal }, command);
        let mut events = Vec::new();
        self.market.step(self.now, &received, &mut events);
        assert!(!events.is_empty(), "{received:?}");
        self.fold(events);
        self.wake();
    }

    fn wake(&mut self) {
        // A wake may make another one due; there is an end to that.
        for _ in 0..64 {
            if self.market.wake_at().is_none_or(|at| at > self.now) {
                return;
            }
            let mut events = Vec::new();
            self.market.wake(self.now, &mut events);
            self.fold(events);
        }
        panic!("the machine wants to be woken for ever");
    }

    fn fold(&mut self, events: Vec<MarketEvent>) {
        self.sequence += 1;
        let secret = Secret::new([3; 32]);
        for event in events {
            self.view.apply(self.now, self.sequence, &event);
            self.records.extend(self.transcript.apply(&secret, self.now, self.sequence, &event));
            self.told.push((self.now, self.sequence, event));
        }
    }

    fn happen(&mut self, next: &Next) {
        let limit = |mills: &u8| format!("0.{mills:03}");
        let market = |market: &u8| MARKETS[usize::from(*market)];
        match next {
            Next::Place { tenant, market: place, limit: most, quantity, lives_seconds } => {
                let (tenant, id) = (format!("t{tenant}"), format!("b-{}", self.commands));
                self.placed.push((tenant.clone(), id.clone()));
                let mut bid = json!({
                    "type": "PlaceBid", "id": id, "tenant": tenant, "cluster": "prod", "pool": "workers",
                    "quantity": quantity, "options": [{ "market": market(place), "limit": limit(most) }],
                });
                if let Some(seconds) = lives_seconds {
                    bid["expires_at"] = json!(self.now.plus_seconds(1 + u32::from(*seconds)));
                }
                self.ask(Role::Gateway, bid);
            }
            Next::Amend { bid, market: place, limit: most, quantity, gives_up } => {
                let Some((tenant, id)) = self.pick(*bid) else { return };
                let Some(shown) = self.shown(&tenant, &id) else { return };
                let winning = shown.leases.iter().filter(|leases| leases.notice.is_none());
                let give_up: Vec<_> =
                    winning.take(usize::from(*gives_up)).map(|leases| leases.first).collect();
                let options = json!([{ "market": market(place), "limit": limit(most) }]);
                self.ask(
                    Role::Gateway,
                    json!({
                        "type": "AmendBid", "tenant": tenant, "bid": id, "version": shown.version,
                        "terms": { "quantity": quantity, "options": options }, "give_up": give_up,
                    }),
                );
            }
            Next::Cancel { bid } => {
                let Some((tenant, id)) = self.pick(*bid) else { return };
                self.ask(Role::Gateway, json!({ "type": "CancelBid", "tenant": tenant, "bid": id }));
            }
            Next::Acknowledge { bid, units } => {
                let Some((tenant, id)) = self.pick(*bid) else { return };
                let Some(shown) = self.shown(&tenant, &id) else { return };
                let leaving = shown.leases.iter().filter(|leases| leases.notice.is_some());
                let leases: Vec<LeaseNumber> = leaving
                    .flat_map(|leases| leases.first..leases.first + u64::from(leases.units))
                    .take((*units).into())
                    .collect();
                if !leases.is_empty() {
                    let command =
                        json!({ "type": "AcknowledgeNotice", "tenant": tenant, "bid": id, "leases": leases });
                    self.ask(Role::Gateway, command);
                }
            }
            Next::Supply { market: place, units, loses, soon } => {
                self.supply(market(place), *units, *loses, *soon);
            }
            Next::Define { market: place, reserve } => {
                let settings = json!({ "reserve": limit(reserve), "notice_seconds": 300 });
                self.ask(
                    Role::Operator,
                    json!({ "type": "DefineMarket", "market": market(place), "settings": settings }),
                );
            }
            Next::Pass { seconds } => self.pass(u32::from(*seconds)),
        }
    }

    fn supply(&mut self, market: &str, units: u8, loses: Option<u8>, soon: bool) {
        self.generation += 1;
        let held: Vec<LeaseNumber> = self
            .market
            .bids()
            .iter()
            .flat_map(|bid| bid.leases.clone())
            .filter(|lease| MARKETS[usize::from(lease.market)] == market)
            .map(|lease| lease.leases.first)
            .collect();
        let lost = loses.and_then(|lease| held.get(usize::from(lease) % held.len().max(1)));
        let mut command = json!({
            "type": "SupplyOffered", "source": "hypervisor-1", "generation": self.generation,
            "market": market, "units": units, "lost": lost.into_iter().collect::<Vec<_>>(),
        });
        if soon {
            command["gone_at"] = json!(self.now.plus_seconds(60));
        }
        self.ask(Role::Hypervisor, command);
    }

    /// Time passes, with every wake at its instant.
    fn pass(&mut self, seconds: u32) {
        let until = self.now.plus_seconds(seconds);
        for _ in 0..10_000 {
            match self.market.wake_at() {
                Some(at) if at <= until => {
                    self.now = self.now.max(at);
                    self.wake();
                    check(self);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn pick(&self, bid: u8) -> Option<(String, String)> {
        self.placed.get(usize::from(bid) % self.placed.len().max(1)).cloned()
    }

    fn shown(&self, tenant: &str, id: &str) -> Option<json::Bid> {
        self.view.bid(&tenant.parse().unwrap(), &id.parse().unwrap()).map(|alone| alone.bid)
    }
}

/// Each lease by itself: its market, by when it has a server if it waits, its notice.
type EachLease<W, N> = BTreeMap<LeaseNumber, (String, Option<W>, Option<N>)>;

fn check(exchange: &Exchange) {
    let known = exchange.market.bids();
    let finished = exchange.market.finished();
    let mut numbers: Vec<_> = finished.iter().map(|&(number, _)| number).collect();
    numbers.extend(known.iter().map(|bid| bid.number));
    numbers.sort_unstable();
    assert_eq!(exchange.view.numbers().collect::<Vec<_>>(), numbers);
    for bid in &known {
        let shown = exchange.view.bid(&bid.tenant, &bid.id).expect("known to the machine").bid;
        check_bid(exchange, bid, &shown);
    }
    for (number, id, prices) in exchange.market.markets() {
        let shown = exchange.view.market(id).unwrap().market;
        if let Some(prices) = prices {
            assert_eq!(shown.prices, prices, "{id}");
        }
        let held = exchange.market.held(number).unwrap();
        let bids = known.iter().map(|bid| exchange.view.bid(&bid.tenant, &bid.id).unwrap().bid);
        let mut units = (0, 0);
        for leases in bids.flat_map(|bid| bid.leases).filter(|leases| leases.market == *id) {
            *(if leases.notice.is_none() { &mut units.0 } else { &mut units.1 }) += leases.units;
        }
        assert_eq!(units, held, "{id}: winning and leaving");
    }
    assert_eq!(exchange.view.round(), exchange.market.round());
}

fn check_bid(exchange: &Exchange, bid: &BidView, shown: &json::Bid) {
    assert_eq!((shown.state, shown.version, shown.quantity), (bid.state, bid.version, bid.quantity));
    assert_eq!((shown.units.winning, shown.expires_at), (bid.won, bid.expires_at));
    let market = |number: u16| MARKETS[usize::from(number)].to_owned();
    let option = (shown.options[0].market.to_string(), shown.options[0].limit);
    assert_eq!(option, (market(bid.market), bid.limit));
    let mut expected: EachLease<_, _> = BTreeMap::new();
    for part in &bid.leases {
        for lease in part.leases.first..part.leases.end() {
            expected.insert(lease, (market(part.market), part.available_by, part.leaving));
        }
    }
    let mut found: EachLease<_, _> = BTreeMap::new();
    for part in &shown.leases {
        let notice = part.notice.map(|notice| (notice.gone_at, notice.reason));
        for lease in part.first..part.first + u64::from(part.units) {
            found.insert(lease, (part.market.to_string(), part.available_by, notice));
        }
    }
    // A view is told by when a waiting unit has a server, not that it got one earlier.
    for (lease, (_, available_by, notice)) in &mut found {
        let waits = expected.get(lease).is_some_and(|(_, available_by, _)| available_by.is_some());
        if !waits || notice.is_some() {
            *available_by = None;
        }
    }
    assert_eq!(found, expected, "bid {} at {}", bid.number, exchange.now);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_view_knows_what_the_machine_knows(
        steps in proptest::collection::vec(next(), 1..120),
        coalesce in prop_oneof![Just(0_u32), Just(250)],
        cut in any::<prop::sample::Index>(),
    ) {
        let mut exchange = Exchange::open(coalesce);
        for step in &steps {
            exchange.happen(step);
            check(&exchange);
        }
        // What the machine really says goes through a snapshot as what was made up does.
        let cut = cut.index(exchange.told.len());
        let mut view = View::new();
        for (place, (at, sequence, event)) in exchange.told.iter().enumerate() {
            if place == cut {
                view = View::restore(&view.snapshot()).unwrap();
            }
            view.apply(*at, *sequence, event);
        }
        prop_assert_eq!(&view, &exchange.view);
        let head = check_chain(origin(&"main".parse().unwrap()), &exchange.records);
        prop_assert_eq!(head, Ok(exchange.transcript.head()));
        prop_assert_eq!(exchange.records.len() as u64, exchange.market.round());
    }
}

/// The comparison above means something only if what it drives really happens.
#[test]
fn what_is_asked_makes_everything_happen() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..48 {
        let steps = proptest::collection::vec(next(), 100).new_tree(&mut runner).unwrap().current();
        let mut exchange = Exchange::open(0);
        for step in &steps {
            exchange.happen(step);
        }
        for (_, _, event) in &exchange.told {
            let event = serde_json::to_value(event).unwrap();
            *kinds.entry(event["type"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    for kind in [
        "BidPlaced",
        "BidAmended",
        "BidCancelled",
        "BidExpired",
        "BidForgotten",
        "NoticeAcknowledged",
        "UnitsAwarded",
        "NoticeGiven",
        "NoticeWithdrawn",
        "UnitsDelayed",
        "UnitsReleased",
        "PriceChanged",
        "RoundClosed",
        "SupplyChanged",
        "MarketDefined",
        "CommandRefused",
    ] {
        assert!(kinds.get(kind).is_some_and(|count| *count > 5), "{kind} hardly happens: {kinds:?}");
    }
}
