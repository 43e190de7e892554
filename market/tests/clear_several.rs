//! `walras clear` with bids of several options, running units and gangs: the worked examples of the rules, and random
//! books against the rules spelt out slowly.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "clear/rules.rs"]
mod rules;

use market::clear::clear_json;
use proptest::prelude::*;
use proto::Price;
use proto::market::PriceRule;
use rules::{Bid, Book, Market};
use serde_json::{Value, json};

fn cleared(book: &Value) -> Value {
    serde_json::from_str(&clear_json(&book.to_string()).unwrap()).unwrap()
}

fn market(name: &str, supply: u32) -> Value {
    json!({"market": name, "supply": supply, "reserve": "0.001"})
}

fn bid(id: &str, quantity: u32, options: &[(&str, &str)]) -> Value {
    let options: Vec<Value> =
        options.iter().map(|(market, limit)| json!({"market": market, "limit": limit})).collect();
    json!({"id": id, "quantity": quantity, "options": options})
}

fn prices(outcome: &Value, name: &str) -> Vec<Value> {
    outcome["markets"].as_array().unwrap().iter().map(|market| market[name].clone()).collect()
}

/// What a bid won, as `market:units` words.
fn won(outcome: &Value, id: &str) -> String {
    let bids = outcome["bids"].as_array().unwrap();
    let bid = bids.iter().find(|bid| bid["id"] == id).unwrap();
    let word = |units: &Value| format!("{}:{}", units["market"].as_str().unwrap(), units["units"]);
    bid["units"].as_array().unwrap().iter().map(word).collect::<Vec<_>>().join(" ")
}

fn words(outcome: &Value, ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| won(outcome, id)).collect()
}

fn two_markets(bids: &[Value]) -> Value {
    json!({"markets": [market("dfw/x", 1), market("iad/x", 1)], "bids": bids})
}

#[test]
fn a_flexible_unit_goes_where_all_together_gain_most() {
    let mut book = two_markets(&[
        bid("a", 1, &[("dfw/x", "0.030"), ("iad/x", "0.020")]),
        bid("b", 1, &[("dfw/x", "0.025")]),
        bid("c", 1, &[("iad/x", "0.010")]),
    ]);
    let outcome = cleared(&book);
    assert_eq!(words(&outcome, &["a", "b", "c"]), ["iad/x:1", "dfw/x:1", ""]);
    assert_eq!(prices(&outcome, "price"), ["0.025", "0.015"]);
    assert_eq!(prices(&outcome, "lowest_winning_bid"), ["0.026", "0.016"]);
    assert_eq!(outcome["surplus"], "0.043");
    book["price_rule"] = json!("highest-rejected");
    assert_eq!(prices(&cleared(&book), "price"), ["0.020", "0.010"]);
}

#[test]
fn ties_go_to_incumbents_then_to_more_units_then_to_the_older_then_to_earlier_options() {
    let both = [("dfw/x", "0.010"), ("iad/x", "0.010")];
    let turned = [("iad/x", "0.010"), ("dfw/x", "0.010")];
    let outcome = cleared(&two_markets(&[bid("a", 1, &both), bid("b", 1, &both), bid("c", 1, &both)]));
    assert_eq!(words(&outcome, &["a", "b", "c"]), ["dfw/x:1", "iad/x:1", ""]);
    let outcome = cleared(&two_markets(&[bid("a", 1, &turned), bid("b", 1, &both)]));
    assert_eq!(words(&outcome, &["a", "b"]), ["iad/x:1", "dfw/x:1"]);
    // `c` runs in dfw and stays there, though the youngest.
    let mut runs = bid("c", 1, &both);
    runs["running"] = json!([{"market": "dfw/x", "units": 1}]);
    let outcome = cleared(&two_markets(&[bid("a", 1, &both), bid("b", 1, &both), runs]));
    assert_eq!(words(&outcome, &["a", "b", "c"]), ["iad/x:1", "", "dfw/x:1"]);
    // A limit equal to the reserve sells.
    let outcome = cleared(&two_markets(&[bid("a", 2, &[("dfw/x", "0.001"), ("iad/x", "0.001")])]));
    assert_eq!(won(&outcome, "a"), "dfw/x:1 iad/x:1");
}

#[test]
fn nobody_is_moved_for_a_tick() {
    let mut runs = bid("a", 1, &[("dfw/x", "0.010"), ("iad/x", "0.012")]);
    runs["running"] = json!([{"market": "dfw/x", "units": 1}]);
    let mut book = two_markets(&[runs]);
    assert_eq!(won(&cleared(&book), "a"), "iad/x:1");
    book["move_cost"] = json!("0.003");
    assert_eq!(won(&cleared(&book), "a"), "dfw/x:1");
    // It moves all the same if it would lose its server: worth 0.012 − 0.003 there.
    book["bids"].as_array_mut().unwrap().push(bid("b", 1, &[("dfw/x", "0.020")]));
    let outcome = cleared(&book);
    assert_eq!(words(&outcome, &["a", "b"]), ["iad/x:1", "dfw/x:1"]);
    assert_eq!(outcome["surplus"], "0.027");
}

#[test]
fn a_market_without_supply_has_no_price_and_binds_nobody() {
    let book = json!({"markets": [market("dfw/x", 0), market("iad/x", 2)],
        "bids": [bid("a", 1, &[("dfw/x", "0.090"), ("iad/x", "0.010")])]});
    let outcome = cleared(&book);
    assert_eq!(prices(&outcome, "price"), [Value::Null, json!("0.001")]);
    assert_eq!(prices(&outcome, "lowest_winning_bid"), [Value::Null, json!("0.001")]);
    assert_eq!(won(&outcome, "a"), "iad/x:1");
}

fn gang(id: &str, quantity: u32, limit: &str, running: u32) -> Value {
    let mut gang = bid(id, quantity, &[("dfw/x", limit)]);
    gang["min_quantity"] = json!(quantity);
    gang["running"] = json!([{"market": "dfw/x", "units": running}]);
    gang
}

#[test]
fn a_gang_that_is_short_is_left_out_and_reported() {
    let bids =
        [bid("a", 2, &[("dfw/x", "0.030")]), gang("g", 2, "0.020", 0), bid("c", 1, &[("dfw/x", "0.010")])];
    let outcome = cleared(&json!({"markets": [market("dfw/x", 3)], "bids": bids}));
    assert_eq!(words(&outcome, &["a", "g", "c"]), ["dfw/x:2", "", "dfw/x:1"]);
    assert_eq!(prices(&outcome, "price"), ["0.010"]);
    assert_eq!(outcome["paradoxically_rejected"], json!([{"id": "g", "short_by": 1}]));
    // Hopeless: more than there is.
    let bids = [gang("g", 4, "0.020", 0)];
    let outcome = cleared(&json!({"markets": [market("dfw/x", 3)], "bids": bids}));
    assert_eq!(outcome["paradoxically_rejected"], json!([{"id": "g", "short_by": 1}]));
    assert_eq!(prices(&outcome, "price"), ["0.001"]);
}

#[test]
fn a_running_gang_is_kept_where_that_is_worth_more() {
    let bids = [gang("g", 2, "0.020", 2), bid("a", 1, &[("dfw/x", "0.030")])];
    let outcome = cleared(&json!({"markets": [market("dfw/x", 2)], "bids": bids}));
    assert_eq!(words(&outcome, &["g", "a"]), ["dfw/x:2", ""]);
    assert_eq!(prices(&outcome, "price"), ["0.020"]);
    // With one more at 0.011, two others are worth more together than the gang.
    assert_eq!(prices(&outcome, "lowest_winning_bid"), ["0.011"]);
    assert_eq!(outcome["paradoxically_rejected"], json!([{"id": "a", "short_by": 1}]));
    // Worth more to others together.
    let bids = [gang("g", 2, "0.020", 2), bid("a", 1, &[("dfw/x", "0.050")])];
    let outcome = cleared(&json!({"markets": [market("dfw/x", 2)], "bids": bids}));
    assert_eq!(words(&outcome, &["g", "a"]), ["", "dfw/x:1"]);
    assert_eq!(outcome["paradoxically_rejected"], json!([{"id": "g", "short_by": 1}]));
}

#[test]
fn a_gang_left_out_too_early_is_let_in_again() {
    // Both gangs are short at first, and `g` is left out as the less valuable. `h` is left out too, because it can never
    // have its four beside `a`; then there is room for `g` after all.
    let mut g = bid("g", 2, &[("dfw/x", "0.030"), ("iad/x", "0.020")]);
    g["min_quantity"] = json!(2);
    let mut h = bid("h", 4, &[("iad/x", "0.050"), ("dfw/x", "0.010")]);
    h["min_quantity"] = json!(4);
    let bids = [bid("a", 1, &[("dfw/x", "0.040")]), g, h];
    let outcome = cleared(&json!({"markets": [market("dfw/x", 2), market("iad/x", 2)], "bids": bids}));
    assert_eq!(words(&outcome, &["a", "g", "h"]), ["dfw/x:1", "dfw/x:1 iad/x:1", ""]);
    assert_eq!(prices(&outcome, "price"), ["0.011", "0.001"]);
    assert_eq!(outcome["paradoxically_rejected"], json!([{"id": "h", "short_by": 1}]));
}

#[test]
fn more_gangs_than_passes_drop_together() {
    // Every gang wants two and there are three hundred of them, one server too few for each.
    let names: Vec<String> = (0..300).map(|number| format!("m{number}/x")).collect();
    let markets: Vec<Value> = names.iter().map(|name| market(name, 2)).collect();
    let mut bids = Vec::new();
    for name in &names {
        bids.push(bid(&format!("s{}", name.replace('/', "-")), 1, &[(name, "0.030")]));
        let mut gang = bid(&format!("g{}", name.replace('/', "-")), 2, &[(name, "0.020")]);
        gang["min_quantity"] = json!(2);
        bids.push(gang);
    }
    let outcome = cleared(&json!({"markets": markets, "bids": bids}));
    assert_eq!(outcome["paradoxically_rejected"].as_array().unwrap().len(), 300);
    assert!(prices(&outcome, "price").iter().all(|price| price == "0.001"));
}

/// A random bid: units, minimum, options (market, limit, more if running, running).
type RandomBid = (u32, u32, Vec<(usize, u64, u64, u32)>);

fn random_bid(gangs: bool) -> impl Strategy<Value = RandomBid> {
    let option = (0_usize..4, 998_u64..1_006, prop_oneof![3 => Just(0_u64), 1 => 1_u64..6], 0_u32..3);
    let minimum = if gangs { prop_oneof![2 => Just(1_u32), 1 => 2_u32..4].boxed() } else { Just(1).boxed() };
    (1_u32..5, minimum, prop::collection::vec(option, 1..4))
}

fn random_book(gangs: bool) -> impl Strategy<Value = Book> {
    (
        prop::collection::vec((0_u32..6, 999_u64..1_002), 1..4),
        prop::collection::vec(random_bid(gangs), 0..8),
        prop_oneof![Just(None), (0_u64..4).prop_map(Some)],
        any::<bool>(),
    )
        .prop_map(|(markets, bids, move_cost, highest_rejected)| {
            let markets: Vec<Market> =
                markets.into_iter().map(|(supply, reserve)| Market { supply, reserve }).collect();
            let count = markets.len();
            let bid = |(quantity, minimum, options): RandomBid| Bid::new(count, quantity, minimum, &options);
            let price_rule =
                if highest_rejected { PriceRule::HighestRejected } else { PriceRule::LowestAccepted };
            Book { markets, bids: bids.into_iter().map(bid).collect(), move_cost, price_rule }
        })
}

fn text(micros: u64) -> String {
    Price::from_micros(micros).unwrap().to_string()
}

fn given(book: &Book) -> Value {
    let name = |market: usize| format!("m{market}/x");
    let markets: Vec<Value> = (0..)
        .zip(&book.markets)
        .map(|(at, market)| json!({"market": name(at), "supply": market.supply, "reserve": text(market.reserve)}))
        .collect();
    let bids: Vec<Value> = (0..)
        .zip(&book.bids)
        .map(|(at, bid): (usize, &Bid)| {
            let option = |option: &rules::BidOption| {
                let mut given = json!({"market": name(option.market), "limit": text(option.limit)});
                if option.running_limit > option.limit {
                    given["running_limit"] = json!(text(option.running_limit));
                }
                given
            };
            let running = bid.options.iter().filter(|option| option.running > 0);
            let running =
                running.map(|option| json!({"market": name(option.market), "units": option.running}));
            json!({"id": format!("b{at}"), "quantity": bid.quantity, "min_quantity": bid.minimum,
                "options": bid.options.iter().map(option).collect::<Vec<_>>(),
                "running": running.collect::<Vec<_>>()})
        })
        .collect();
    let mut given = json!({"price_rule": book.price_rule, "markets": markets, "bids": bids});
    if let Some(move_cost) = book.move_cost {
        given["move_cost"] = json!(text(move_cost));
    }
    given
}

fn check(book: &Book) {
    let expected = rules::clear(book);
    let outcome = cleared(&given(book));
    for (at, market) in outcome["markets"].as_array().unwrap().iter().enumerate() {
        assert_eq!(market["price"], json!(expected.prices[at].map(text)), "price of market {at}");
        assert_eq!(market["sold"], expected.sold[at], "sold in market {at}");
        assert_eq!(market["price"].is_null(), market["lowest_winning_bid"].is_null());
    }
    for (at, bid) in outcome["bids"].as_array().unwrap().iter().enumerate() {
        let units = bid["units"].as_array().unwrap();
        let units =
            units.iter().map(|units| (units["market"].as_str().unwrap(), units["units"].as_u64().unwrap()));
        let units: Vec<(String, u64)> = units.map(|(market, units)| (market.to_owned(), units)).collect();
        let expected: Vec<(String, u64)> = expected.won[at]
            .iter()
            .map(|&(market, units)| (format!("m{market}/x"), u64::from(units)))
            .collect();
        assert_eq!(units, expected, "won by bid {at}");
    }
    let surplus = Price::text_of_micros(expected.surplus.unsigned_abs());
    assert_eq!(outcome["surplus"], json!(surplus));
    let rejected: Vec<Value> = expected
        .rejected
        .iter()
        .map(|&(bid, short_by)| json!({"id": format!("b{bid}"), "short_by": short_by}))
        .collect();
    assert_eq!(outcome["paradoxically_rejected"], json!(rejected));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_books_of_flexible_bids_clear_as_the_rules_say(book in random_book(false)) {
        check(&book);
    }

    #[test]
    fn random_books_with_gangs_clear_as_the_rules_say(book in random_book(true)) {
        check(&book);
    }

    /// A market clears alike by itself and when a hopeless flexible bid couples it to another.
    #[test]
    fn the_book_and_the_joint_clearing_agree(book in random_book(false)) {
        let mut book = book;
        for bid in &mut book.bids {
            bid.options.truncate(1);
            bid.minimum = 1;
        }
        let alone = cleared(&given(&book));
        let mut coupled = given(&book);
        let options: Vec<Value> =
            (0..book.markets.len()).map(|at| json!({"market": format!("m{at}/x"), "limit": "0.000001"})).collect();
        coupled["bids"].as_array_mut().unwrap().push(json!({"id": "z", "quantity": 3, "min_quantity": 2, "options": options}));
        let coupled = cleared(&coupled);
        prop_assert_eq!(&alone["markets"], &coupled["markets"]);
        prop_assert_eq!(&alone["surplus"], &coupled["surplus"]);
        let without = &coupled["bids"].as_array().unwrap()[..book.bids.len()];
        prop_assert_eq!(alone["bids"].as_array().unwrap(), without);
    }
}
