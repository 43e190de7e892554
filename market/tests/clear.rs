//! `walras clear`: the worked examples of the rules, random books against the rules spelt out slowly, and what bad
//! input gets.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "book/oracle.rs"]
mod oracle;

use std::collections::BTreeMap;

use market::clear::clear_json;
use oracle::Offer;
use proptest::prelude::*;
use proto::Price;
use proto::market::PriceRule;
use serde_json::{Value, json};

fn cleared(book: &Value) -> Value {
    serde_json::from_str(&clear_json(&book.to_string()).unwrap()).unwrap()
}

fn refused(book: &Value) -> String {
    clear_json(&book.to_string()).unwrap_err().to_string()
}

fn bid(id: &str, quantity: u32, limit: &str) -> Value {
    json!({"id": id, "quantity": quantity, "options": [{"market": "dfw/gp.large", "limit": limit}]})
}

fn book(supply: u32, bids: &[Value]) -> Value {
    json!({"markets": [{"market": "dfw/gp.large", "supply": supply, "reserve": "0.001"}], "bids": bids})
}

/// Price, units sold, lowest winning bid, and units of each bid.
fn figures(outcome: &Value) -> (Value, u64, Value, Vec<u64>) {
    let market = &outcome["markets"][0];
    let units = |bid: &Value| bid["units"][0]["units"].as_u64().unwrap_or(0);
    let won = outcome["bids"].as_array().unwrap().iter().map(units).collect();
    (market["price"].clone(), market["sold"].as_u64().unwrap(), market["lowest_winning_bid"].clone(), won)
}

#[test]
fn the_example_of_the_format() {
    let given = json!({"price_rule": "lowest-accepted",
        "markets": [{"market": "dfw/gp.large", "supply": 3, "reserve": "0.001"}],
        "bids": [{"id": "a", "quantity": 2, "min_quantity": 1,
            "options": [{"market": "dfw/gp.large", "limit": "0.030"}],
            "running": [{"market": "dfw/gp.large", "units": 1}]}]});
    let expected = "{\"markets\":[{\"market\":\"dfw/gp.large\",\"price\":\"0.001\",\"sold\":2,\
        \"lowest_winning_bid\":\"0.001\"}],\"bids\":[{\"id\":\"a\",\"units\":[{\"market\":\"dfw/gp.large\",\
        \"units\":2}]}],\"surplus\":\"0.058\",\"paradoxically_rejected\":[]}";
    assert_eq!(clear_json(&given.to_string()).unwrap(), expected);
}

#[test]
fn highest_bids_first_and_one_price_for_all() {
    let bids = [bid("a", 2, "0.010"), bid("b", 2, "0.030"), bid("c", 2, "0.020")];
    let outcome = figures(&cleared(&book(3, &bids)));
    assert_eq!(outcome, (json!("0.020"), 3, json!("0.021"), vec![0, 2, 1]));
    let mut given = book(4, &bids);
    given["price_rule"] = json!("highest-rejected");
    assert_eq!(figures(&cleared(&given)), (json!("0.010"), 4, json!("0.021"), vec![0, 2, 2]));
}

#[test]
fn ties_go_to_incumbents_then_to_the_older() {
    let mut bids = [bid("a", 2, "0.010"), bid("b", 2, "0.010"), bid("c", 2, "0.010")];
    assert_eq!(figures(&cleared(&book(3, &bids))).3, [2, 1, 0]);
    bids[2]["running"] = json!([{"market": "dfw/gp.large", "units": 1}]);
    assert_eq!(figures(&cleared(&book(3, &bids))).3, [2, 0, 1]);
}

#[test]
fn supply_that_is_left_sells_at_the_reserve() {
    let outcome = figures(&cleared(&book(5, &[bid("a", 2, "0.010"), bid("b", 1, "0.001")])));
    assert_eq!(outcome, (json!("0.001"), 3, json!("0.001"), vec![2, 1]));
    // A limit below the reserve stands and cannot win.
    let mut given = book(5, &[bid("a", 2, "0.010")]);
    given["markets"][0]["reserve"] = json!("0.0105");
    assert_eq!(figures(&cleared(&given)), (json!("0.0105"), 0, json!("0.011"), vec![0]));
    assert_eq!(figures(&cleared(&book(0, &[bid("a", 2, "0.010")]))), (Value::Null, 0, Value::Null, vec![0]));
}

#[test]
fn a_running_limit_keeps_a_server_and_never_raises_its_owners_price() {
    let mut bids = [bid("a", 2, "0.010"), bid("b", 2, "0.020")];
    bids[0]["options"][0]["running_limit"] = json!("0.050");
    bids[0]["running"] = json!([{"market": "dfw/gp.large", "units": 2}]);
    // `b` loses and would have paid 0.020; `a` is worth 0.050 and pays no more than it takes to keep `b` out.
    assert_eq!(figures(&cleared(&book(2, &bids))), (json!("0.020"), 2, json!("0.051"), vec![2, 0]));
    // Nobody else wants them: the plain limit.
    assert_eq!(figures(&cleared(&book(2, &bids[..1]))).0, json!("0.010"));
}

#[test]
fn an_explicit_ladder_is_for_the_lowest_winning_bid_alone() {
    let mut given = book(1, &[bid("a", 1, "0.0155")]);
    given["markets"][0]["ladder"] = json!(["0.010", "0.015", "0.020"]);
    assert_eq!(figures(&cleared(&given)), (json!("0.0155"), 1, json!("0.020"), vec![1]));
    given["markets"][0]["ladder"] = json!(["0.010"]);
    assert_eq!(figures(&cleared(&given)).2, Value::Null);
}

#[test]
fn bad_input_gets_a_line_that_names_field_and_value() {
    let change = |path: &str, value: Value| {
        let mut given = book(1, &[bid("a", 1, "0.010")]);
        *given.pointer_mut(path).unwrap() = value;
        refused(&given)
    };
    let limit = "/bids/0/options/0/limit";
    for (path, value, words) in [
        (limit, json!(0.1), ["bids[0].options[0].limit", "0.1"]),
        (limit, json!("1e5"), ["bids[0].options[0].limit", "1e5"]),
        (limit, json!("-1"), ["bids[0].options[0].limit", "-1"]),
        (limit, json!("0.0000001"), ["bids[0].options[0].limit", "0.0000001"]),
        (limit, json!("9223372036854775808"), ["bids[0].options[0].limit", "9223372036854775808"]),
        ("/bids/0/quantity", json!(0), ["bids[0].quantity", "0"]),
        ("/bids/0/quantity", json!(-1), ["bids[0].quantity", "-1"]),
        ("/bids/0/quantity", json!(10_001), ["bids[0].quantity", "10001"]),
        ("/markets/0/supply", json!(1_u64 << 63), ["markets[0].supply", "9223372036854775808"]),
        ("/markets/0/market", json!("dfw"), ["markets[0].market", "dfw"]),
        ("/bids/0/options/0/market", json!("dfw/other"), ["bids[0].options[0].market", "dfw/other"]),
        ("/bids/0/id", json!("a b"), ["bids[0].id", "a b"]),
    ] {
        let line = change(path, value);
        assert!(words.iter().all(|word| line.contains(word)) && !line.contains('\n'), "{line}");
    }
    let mut given = book(1, &[bid("a", 1, "0.010")]);
    given["bids"][0]["quantitty"] = json!(1);
    assert!(refused(&given).contains("quantitty"), "{}", refused(&given));
    let twice = refused(&book(1, &[bid("a", 1, "0.010"), bid("a", 1, "0.010")]));
    assert!(twice.contains("bids[1].id") && twice.contains("stands twice"), "{twice}");
    let mut given = book(1, &[bid("a", 1, "0.010")]);
    given["bids"][0]["options"][0]["running_limit"] = json!("0.009");
    assert!(refused(&given).contains("running_limit"), "{}", refused(&given));
    let mut given = book(1, &[bid("a", 1, "0.010")]);
    given["bids"][0]["running"] = json!([{"market": "dfw/gp.large", "units": 2}]);
    assert!(refused(&given).contains("bids[0].running"), "{}", refused(&given));
}

/// A bid of a random book: limit, what a running unit is worth beyond it, units, of these running.
fn random_bid() -> impl Strategy<Value = (u64, u64, u32, u32)> {
    (996_u64..1_006, prop_oneof![Just(0_u64), 1_u64..6], 1_u32..5, 0_u32..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_books_clear_as_the_rules_say(
        bids in prop::collection::vec(random_bid(), 0..12),
        supply in 0_u32..20,
        reserve in 995_u64..1_002,
        highest_rejected in any::<bool>(),
    ) {
        let text = |micros: u64| Price::from_micros(micros).unwrap().to_string();
        let mut offers = BTreeMap::new();
        let mut listed = Vec::new();
        for (place, &(limit, more, units, running)) in (0_u32..).zip(&bids) {
            let held = running.saturating_sub(4).min(units);
            let age = u64::from(place);
            let mut bid = bid(&format!("b{place}"), units, &text(limit));
            bid["running"] = json!([{"market": "dfw/gp.large", "units": held}]);
            if more > 0 {
                bid["options"][0]["running_limit"] = json!(text(limit + more));
            }
            listed.push(bid);
            let running = Offer { limit: limit + more, plain_limit: Some(limit), age, units: held, held };
            offers.insert(2 * place, running);
            let queued = Offer { limit, plain_limit: None, age, units: units - held, held: 0 };
            offers.insert(2 * place + 1, queued);
        }
        let rule = if highest_rejected { PriceRule::HighestRejected } else { PriceRule::LowestAccepted };
        let expected = oracle::clear(&offers, supply, reserve, rule);
        let mut given = book(supply, &listed);
        given["price_rule"] = json!(rule);
        given["markets"][0]["reserve"] = json!(text(reserve));
        let outcome = cleared(&given);
        let (paid, sold, lowest, won) = figures(&outcome);
        prop_assert_eq!(paid, json!(expected.price.map(text)));
        prop_assert_eq!(sold, u64::from(expected.sold));
        prop_assert_eq!(&outcome["surplus"], &json!(Price::text_of_micros(expected.surplus)));
        for (place, won) in (0_u32..).zip(won) {
            let units = |lot| expected.won.get(&lot).copied().unwrap_or(0);
            prop_assert_eq!(won, u64::from(units(2 * place) + units(2 * place + 1)));
        }
        if let Some(limit) = lowest.as_str() {
            let limit = limit.parse::<Price>().unwrap().micros();
            prop_assert!(oracle::would_win(&offers, supply, reserve, limit));
            let lower = limit.checked_sub(1_000).filter(|&lower| lower > 0);
            prop_assert!(lower.is_none_or(|lower| !oracle::would_win(&offers, supply, reserve, lower)));
        }
    }
}
