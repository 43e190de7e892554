//! The golden corpus: one message per kind, per variant of every enum, with every optional field and without.

mod answers;
mod commands;
mod events;
mod placement;

use std::str::FromStr;

use proto::market::{BidOption, Ladder, LeaseSpan, MarketSettings, PriceRule, Prices, Terms};
use proto::{Price, Timestamp};
use serde::Serialize;

/// A message's file name, without folder, and text.
pub(crate) type Golden = (String, String);

/// Every file of the corpus as today's types write it.
pub(crate) fn all() -> Vec<Golden> {
    [commands::all(), events::all(), answers::all(), placement::all()].concat()
}

/// Every variant of an enum without data, as a list that does not compile while it misses one.
macro_rules! each {
    ($name:ident: $($variant:ident),* $(,)?) => {{
        #[allow(dead_code)]
        fn complete(value: $name) {
            match value { $($name::$variant => (),)* }
        }
        vec![$($name::$variant),*]
    }};
}
pub(crate) use each;

/// For each variant of an enum with data its examples, as a list that does not compile while it misses one.
macro_rules! each_kind {
    ($name:ident: $($variant:ident => $examples:expr,)*) => {{
        #[allow(dead_code)]
        fn complete(value: $name) {
            match value { $($name::$variant { .. } => (),)* }
        }
        let kinds: Vec<(&str, Vec<(String, $name)>)> = vec![$((stringify!($variant), {
            let examples: Vec<(String, $name)> = $examples;
            assert!(!examples.is_empty(), "{} has no example", stringify!($variant));
            for (name, example) in &examples {
                assert!(matches!(example, $name::$variant { .. }), "{name} is no {}", stringify!($variant));
            }
            examples
        })),*];
        kinds
    }};
}
pub(crate) use each_kind;

/// One file: what it is (`command`, `events`, …), which kind of that, which example.
fn golden(what: &str, kind: &str, example: &str, value: &impl Serialize) -> Golden {
    let kind = kebab(kind);
    let name = [what, &kind, example].into_iter().filter(|part| !part.is_empty());
    (format!("{}.json", name.collect::<Vec<_>>().join(".")), serde_json::to_string(value).unwrap())
}

/// `PlaceBid` as `place-bid`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(character.to_ascii_lowercase());
    }
    kebab
}

/// A variant without data as its word.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}

fn id<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn price(text: &str) -> Price {
    text.parse().unwrap()
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOON: &str = "2026-11-22T12:00:00Z";
/// An instant to the microsecond.
const LATER: &str = "2026-11-22T12:06:00.000001Z";

fn leases() -> LeaseSpan {
    LeaseSpan { first: 17, units: 2 }
}

fn plain_terms() -> Terms {
    Terms { quantity: 4, min_quantity: 1, options: vec![option("dfw/gp.large", "0.030")], expires_at: None }
}

fn full_terms() -> Terms {
    let running = BidOption { running_limit: Some(price("0.045")), ..option("iad/gp.large", "0.0315") };
    Terms {
        quantity: 10_000,
        min_quantity: 4,
        options: vec![option("dfw/gp.vs1.large-dfw", "0.030"), running],
        expires_at: Some(instant(LATER)),
    }
}

fn option(market: &str, limit: &str) -> BidOption {
    BidOption { market: id(market), limit: price(limit), running_limit: None }
}

fn settings() -> Vec<(&'static str, MarketSettings)> {
    fn name(ladder: &Ladder) -> &'static str {
        match ladder {
            Ladder::Step(_) => "step",
            Ladder::Rungs(_) => "rungs",
        }
    }
    let with = |ladder: Ladder, withdraw_until_seconds| MarketSettings {
        reserve: price("0.005"),
        ladder,
        notice_seconds: 360,
        withdraw_until_seconds,
        on_demand_price: None,
        on_demand_units_max: None,
        held_back_units: 0,
    };
    let rungs = ["0.005", "0.010", "0.025"].map(price).to_vec();
    let mut all = [with(Ladder::Step(price("0.001")), None), with(Ladder::Rungs(rungs), Some(90))]
        .map(|settings| (name(&settings.ladder), settings))
        .to_vec();
    let on_demand = MarketSettings {
        on_demand_price: Some(price("0.090")),
        on_demand_units_max: Some(20),
        held_back_units: 2,
        ..with(Ladder::default(), None)
    };
    all.push(("on-demand", on_demand));
    all
}

fn price_rules() -> Vec<PriceRule> {
    each!(PriceRule: LowestAccepted, HighestRejected)
}

fn all_prices() -> Vec<(&'static str, Prices)> {
    let sold_out = Prices {
        price: Some(price("0.031")),
        lowest_winning_bid: Some(price("0.032")),
        reserve: price("0.005"),
        supply: 40,
        sold: 40,
        wanted: 57,
        on_demand: 0,
    };
    let without_supply = Prices { price: None, lowest_winning_bid: None, supply: 0, sold: 0, ..sold_out };
    let beside_orders = Prices { on_demand: 12, ..sold_out };
    vec![("sold-out", sold_out), ("without-supply", without_supply), ("beside-orders", beside_orders)]
}
