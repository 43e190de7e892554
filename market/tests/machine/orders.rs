//! On-demand orders: by example, what is refused, and random histories beside bids.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::market::{LossReason, MarketEvent};
use serde_json::{Value, json};

use super::driver::*;
use super::together::{Bourse, MARKETS, Step, any_step};

fn with_orders() -> World {
    let mut world = World::new();
    let settings = json!({"reserve": "0.001", "notice_seconds": 60, "on_demand_price": "0.050"});
    world.define("dfw/a", settings);
    world
}

#[test]
fn an_order_takes_servers_before_the_auction_and_whoever_has_them_gets_notice() {
    let mut world = with_orders();
    world.supply(1, 3);
    world.place("a", 3, "0.090");
    assert_eq!(
        world.order("o", 2, "0.050"),
        [
            "placed o",
            "notice a #2-3 supply at 60 kept by 0.091",
            "awarded o #4-5 by 60",
            "price dfw/a 0.090 lowest 0.091 sold 1/1 wanted 3 on demand 2",
            "round 4",
        ]
    );
    // Whatever is offered for them.
    assert_eq!(
        but_prices(world.place("b", 3, "9.000")),
        ["placed b", "notice a #1 outbid at 60 kept by 9.001", "awarded b #6 by 60"]
    );
    // And an order that goes leaves its servers to the auction.
    assert_eq!(
        but_prices(world.wait(10).cancel("o")),
        ["cancelled o", "released o #4-5 never-served", "awarded b #7-8 by 60"]
    );
}

#[test]
fn servers_held_back_are_nobody_s() {
    let mut world = World::new();
    let settings = |held_back: u32| json!({"reserve": "0.001", "notice_seconds": 60, "on_demand_price": "0.050", "held_back_units": held_back});
    world.define("dfw/a", settings(1));
    world.supply(1, 3);
    world.place("a", 3, "0.010");
    assert_eq!(world.machine.bid(1).unwrap().won, 2);
    assert_eq!(but_prices(world.order("o", 3, "0.050")), ["refused limit-reached quantity=3"]);
    assert_eq!(
        but_prices(world.define("dfw/a", settings(2))),
        ["defined dfw/a", "notice a #2 supply at 60 kept by 0.011"]
    );
    // More than there are: nothing is left.
    world.define("dfw/a", settings(9));
    assert_eq!(world.machine.bid(1).unwrap().won, 0);
}

#[test]
fn orders_lose_only_when_servers_go_and_the_youngest_first() {
    let mut world = with_orders();
    world.supply(1, 5);
    world.order("o", 2, "0.050");
    world.order("p", 2, "0.050");
    world.place("a", 1, "0.010");
    assert_eq!(
        but_prices(world.supply(2, 3)),
        ["supply h1 3 of 3", "notice p #4 supply at 60", "notice a #5 supply at 60"]
    );
    assert_eq!(
        but_prices(world.wait(10).supply(3, 4)),
        ["supply h1 4 of 4", "withdrawn p #4"],
        "what comes back is theirs first"
    );
    // A server that dies is made good before the auction has any.
    world.supply(4, 5);
    let died = world.offer(json!({"generation": 5, "units": 4, "lost": [1], "cause": "failed"}));
    let expected = [
        "supply h1 4 of 4",
        "released o #1 server-lost",
        "notice a #5 supply at 70 kept by none",
        "awarded o #6 by 70",
    ];
    assert_eq!(but_prices(died), expected.map(|line| line.replace(" kept by none", "")));
}

#[test]
fn an_order_is_told_what_it_pays() {
    let mut world = with_orders();
    world.supply(1, 2);
    world.order("o", 1, "0.060");
    let told = world.told.iter().map(|told| String::from_utf8_lossy(&told.payload).into_owned());
    let told: String = told.filter(|told| told.contains("Awarded")).collect();
    assert!(told.contains(r#""price":"0.050""#), "{told}");
}

#[test]
fn what_is_refused_of_an_order() {
    let mut world = with_orders();
    world.define("iad/b", json!({"reserve": "0.001"}));
    world.supply(1, 4);
    world.offer(json!({"market": "iad/b", "generation": 1, "units": 4}));
    let order = |change: Value| {
        let mut order = bid("o", 2, "0.050");
        order["on_demand"] = true.into();
        for (key, value) in change.as_object().unwrap() {
            order[key] = value.clone();
        }
        order
    };
    let one = |market: &str, limit: &str| json!([{"market": market, "limit": limit}]);
    let running = json!([{"market": "dfw/a", "limit": "0.050", "running_limit": "0.060"}]);
    let two = json!([{"market": "dfw/a", "limit": "0.050"}, {"market": "iad/b", "limit": "0.050"}]);
    for (change, refused) in [
        (json!({"options": one("iad/b", "0.050")}), "refused unsupported on_demand=true"),
        (json!({"options": one("dfw/a", "0.049")}), "refused below-reserve options[0].limit=0.049"),
        (json!({"options": running}), "refused out-of-range options[0].running_limit=0.060"),
        (json!({"options": two}), "refused out-of-range options=2"),
        (json!({"min_quantity": 2}), "refused out-of-range min_quantity=2"),
        (json!({"quantity": 5}), "refused limit-reached quantity=5"),
    ] {
        assert_eq!(world.send(&gateway(), order(change)), [refused]);
    }
    // Off the ladder is no matter: there is nobody to compare with.
    assert_eq!(world.order("o", 2, "0.0505")[0], "placed o");
    assert_eq!(world.order("p", 3, "0.050"), ["refused limit-reached quantity=3"]);
    let elsewhere = json!({"type": "AmendBid", "tenant": "t-o", "bid": "o", "version": 1,
        "terms": {"quantity": 2, "options": [{"market": "iad/b", "limit": "0.050"}]}});
    assert_eq!(world.send(&gateway(), elsewhere), ["refused out-of-range terms.options[0].market=iad/b"]);
    assert_eq!(world.amend("o", 1, 5, "0.050"), ["refused limit-reached terms.quantity=5"]);
    assert_eq!(but_prices(world.amend("o", 1, 4, "0.050")), ["amended o v2", "awarded o #3-4"]);
    assert_eq!(
        world.define("dfw/a", json!({"reserve": "0.001"})),
        ["refused out-of-range settings.on_demand_price=none"]
    );
    let dearer = |most: u32| json!({"reserve": "0.001", "notice_seconds": 60, "on_demand_price": "0.070", "on_demand_units_max": most});
    assert_eq!(but_prices(world.define("dfw/a", dearer(0))), ["defined dfw/a"]);
    assert_eq!(but_prices(world.amend("o", 2, 3, "0.050")), ["amended o v3", "notice o #4 reduced at 60"]);
    assert_eq!(world.amend("o", 3, 4, "0.050"), ["refused limit-reached terms.quantity=4"]);
    assert_eq!(world.order("p", 1, "0.070"), ["refused limit-reached quantity=1"]);
    let low = json!({"reserve": "0.010", "on_demand_price": "0.009"});
    assert_eq!(world.define("dfw/a", low), ["refused out-of-range settings.on_demand_price=0.009"]);
}

/// What else may happen beside the steps of bids.
#[derive(Clone, Debug)]
enum Beside {
    Step(Step),
    Order { market: usize, quantity: u32 },
    Amend { order: usize, quantity: u32 },
    Cancel { order: usize },
    HoldBack { market: usize, units: u32 },
}

fn beside() -> impl Strategy<Value = Beside> {
    prop_oneof![
        12 => any_step().prop_map(Beside::Step),
        3 => (0..3_usize, 1..4_u32).prop_map(|(market, quantity)| Beside::Order { market, quantity }),
        2 => (0..9_usize, 1..5_u32).prop_map(|(order, quantity)| Beside::Amend { order, quantity }),
        1 => (0..9_usize).prop_map(|order| Beside::Cancel { order }),
        1 => (0..3_usize, 0..3_u32).prop_map(|(market, units)| Beside::HoldBack { market, units }),
    ]
}

proptest! {
    /// Orders have servers before the auction, the oldest first, and lose them to nothing but servers that go: whatever is
    /// bid beside them, in markets that clear alone and together. The driver checks everything else after every turn.
    #[test]
    fn orders_come_before_the_auction_and_are_never_outbid(steps in prop::collection::vec(beside(), 1..60)) {
        let mut bourse = Bourse::new(90);
        let mut held_back = [0; 3];
        let mut orders: Vec<String> = Vec::new();
        let settings = |bourse: &Bourse, market: usize, held_back: u32| {
            json!({"reserve": super::together::mills(bourse.reserve[market]), "notice_seconds": 90,
                "on_demand_price": "0.012", "held_back_units": held_back})
        };
        for (market, name) in MARKETS.iter().enumerate() {
            bourse.world.define(name, settings(&bourse, market, 0));
        }
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                // That would take the on-demand price away.
                Beside::Step(Step::Reserve { .. }) => {}
                Beside::Step(step) => bourse.take(&step),
                Beside::Order { market, quantity } => {
                    let id = format!("o{at}");
                    let option = json!([{"market": MARKETS[market], "limit": "0.012"}]);
                    let placed = bourse.world.send(&gateway(), json!({"type": "PlaceBid", "id": id, "tenant": "o",
                        "cluster": "c", "pool": "p", "quantity": quantity, "options": option, "on_demand": true}));
                    if !placed[0].starts_with("refused") {
                        orders.push(id);
                    }
                }
                Beside::Amend { order, quantity } if !orders.is_empty() => {
                    let id = &orders[order % orders.len()];
                    let bids = bourse.world.machine.bids();
                    let Some(known) = bids.iter().find(|known| known.id.as_str() == id) else { continue };
                    let option = json!([{"market": MARKETS[usize::from(known.market)], "limit": "0.012"}]);
                    bourse.world.send(&gateway(), json!({"type": "AmendBid", "tenant": "o", "bid": id,
                        "version": known.version, "terms": {"quantity": quantity, "options": option}}));
                }
                Beside::Cancel { order } if !orders.is_empty() => {
                    let id = &orders[order % orders.len()];
                    bourse.world.send(&gateway(), json!({"type": "CancelBid", "tenant": "o", "bid": id}));
                }
                Beside::Amend { .. } | Beside::Cancel { .. } => {}
                Beside::HoldBack { market, units } => {
                    held_back[market] = units;
                    bourse.world.define(MARKETS[market], settings(&bourse, market, units));
                }
            }
            let bids = bourse.world.machine.bids();
            let numbers: BTreeMap<u64, u16> =
                bids.iter().filter(|bid| bid.on_demand).map(|bid| (bid.number, bid.market)).collect();
            for event in bourse.world.last_events() {
                let MarketEvent::NoticeGiven { number, reason, kept_by, .. } = event else { continue };
                if numbers.contains_key(number) {
                    let is_allowed = reason.is_own_exit()
                        || matches!(reason, LossReason::Supply | LossReason::Host | LossReason::Operator);
                    prop_assert!(is_allowed && kept_by.is_none(), "{:?}", event);
                }
            }
            for (market, &back) in held_back.iter().enumerate() {
                let (usable, on_demand, auctioned) = bourse.world.machine.division(market as u16).unwrap();
                prop_assert_eq!(usable, bourse.supply[market].saturating_sub(back));
                prop_assert_eq!(on_demand + auctioned, usable);
            }
        }
        // Once a round has closed, the oldest orders have all they want.
        bourse.take(&Step::Round);
        let mut left: Vec<u32> =
            (0..3).map(|market| bourse.supply[market].saturating_sub(held_back[market])).collect();
        for bid in bourse.world.machine.bids() {
            let stands = !matches!(bid.state, proto::market::BidState::Cancelled | proto::market::BidState::Expired);
            if bid.on_demand && stands {
                let left = &mut left[usize::from(bid.market)];
                let won = bid.quantity.min(*left);
                *left -= won;
                prop_assert_eq!(bid.won, won, "{:?}", bid);
            }
        }
    }
}
