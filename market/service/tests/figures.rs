//! The market's metrics follow its events, and are gone with the view that told them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

use market::Market;
use market_service::Reading;
use proto::market::MarketEvent;
use proto::{StreamName, Timestamp};
use runtime::runner::View;
use runtime::telemetry::Meter;
use serde_json::{Value, json};

const START_MICROS: i64 = 1_700_000_000_000_000;

struct Case {
    meter: Meter,
    stream: StreamName,
    reading: Reading,
    sequence: u64,
}

impl Case {
    fn new() -> Self {
        let stream: StreamName = "main".parse().unwrap();
        let reading = <Reading as View<Market>>::new(&stream);
        Self { meter: Meter::new("market").unwrap(), stream, reading, sequence: 0 }
    }

    fn tell(&mut self, event: Value) {
        self.sequence += 1;
        let event: MarketEvent = serde_json::from_value(event).unwrap();
        let at = Timestamp::from_micros(START_MICROS);
        View::<Market>::apply(&mut self.reading, at, self.sequence, &event);
    }

    fn measure(&mut self) {
        View::<Market>::measure(&mut self.reading, &self.meter, &self.stream).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        self.meter.text().unwrap().lines().map(str::to_owned).collect()
    }

    fn shows(&self, line: &str) {
        let lines = self.lines();
        assert!(lines.iter().any(|found| found == line), "{line} is not in\n{}", lines.join("\n"));
    }

    fn shows_nothing_of(&self, name: &str) {
        let lines = self.lines();
        assert!(!lines.iter().any(|found| found.starts_with(&format!("{name}{{"))), "{name} is still shown");
    }
}

fn opened() -> Value {
    let settings = json!({ "reserve": "0.010", "notice_seconds": 360 });
    json!({ "type": "MarketDefined", "market": 0, "id": "r/c", "settings": settings })
}

fn priced(price: Option<&str>, supply: u32, sold: u32) -> Value {
    json!({
        "type": "PriceChanged", "market": 0, "round": 1, "price": price, "lowest_winning_bid": price,
        "reserve": "0.010", "supply": supply, "sold": sold, "wanted": 7,
    })
}

fn placed() -> Value {
    let options = json!([{ "market": "r/c", "limit": "0.030" }]);
    let bid = json!({
        "id": "a", "tenant": "t", "cluster": "k", "pool": "p", "quantity": 5, "options": options,
    });
    json!({ "type": "BidPlaced", "number": 1, "by": "s1", "bid": bid })
}

fn awarded() -> Value {
    json!({
        "type": "UnitsAwarded", "number": 1, "market": 0, "leases": { "first": 1, "units": 5 }, "round": 1,
    })
}

fn noticed(first: u64, units: u32, seconds: i64, reason: &str) -> Value {
    let gone_at = Timestamp::from_micros(START_MICROS + seconds * 1_000_000);
    json!({
        "type": "NoticeGiven", "number": 1, "market": 0, "leases": { "first": first, "units": units },
        "round": 2, "gone_at": gone_at, "reason": reason,
    })
}

fn released(first: u64, units: u32, reason: &str) -> Value {
    json!({
        "type": "UnitsReleased", "number": 1, "market": 0, "leases": { "first": first, "units": units },
        "reason": reason,
    })
}

const LABELS: &str = r#"{market="r/c",stream="main"}"#;

#[test]
fn prices_and_counts_follow_the_events() {
    let mut case = Case::new();
    case.measure();
    for event in [opened(), placed(), awarded(), priced(Some("0.031"), 9, 5)] {
        case.tell(event);
    }
    case.shows(&format!("walras_market_price_dollars_per_hour{LABELS} 0.031"));
    case.shows(&format!("walras_market_reserve_dollars_per_hour{LABELS} 0.01"));
    case.shows(&format!("walras_market_supply_units{LABELS} 9"));
    case.shows(&format!("walras_market_sold_units{LABELS} 5"));
    case.shows(&format!("walras_market_demand_units{LABELS} 7"));
    case.shows(r#"walras_market_standing_bids{stream="main"} 1"#);
    case.shows(r#"walras_market_awards_total{stream="main"} 5"#);
    case.tell(priced(None, 0, 0));
    case.shows_nothing_of("walras_market_price_dollars_per_hour");
    case.shows_nothing_of("walras_market_lowest_winning_bid_dollars_per_hour");
    case.tell(json!({ "type": "BidExpired", "number": 1 }));
    case.shows(r#"walras_market_standing_bids{stream="main"} 0"#);
}

#[test]
fn notices_that_are_too_short_are_breaches_and_own_exits_are_not() {
    let mut case = Case::new();
    case.measure();
    for event in [opened(), placed(), awarded(), noticed(1, 1, 360, "outbid")] {
        case.tell(event);
    }
    case.shows(&format!("walras_market_leaving_units{LABELS} 1"));
    case.shows(r#"walras_market_notices_total{reason="outbid",stream="main"} 1"#);
    case.shows(r#"walras_market_notice_breaches_total{stream="main"} 0"#);
    case.tell(noticed(2, 1, 30, "reduced"));
    case.shows(r#"walras_market_notice_breaches_total{stream="main"} 0"#);
    case.tell(noticed(3, 2, 30, "host"));
    case.shows(r#"walras_market_notice_breaches_total{stream="main"} 2"#);
    case.shows(&format!("walras_market_leaving_units{LABELS} 4"));
    case.shows(r#"walras_market_notice_lead_seconds_count{stream="main"} 3"#);
    let withdrawn = json!({
        "type": "NoticeWithdrawn", "number": 1, "market": 0, "leases": { "first": 1, "units": 1 }, "round": 3,
    });
    case.tell(withdrawn);
    case.tell(released(3, 2, "notice-ended"));
    case.shows(&format!("walras_market_leaving_units{LABELS} 1"));
    case.shows(r#"walras_market_notices_withdrawn_total{stream="main"} 1"#);
    // A server that dies under a unit that was not leaving.
    case.tell(released(5, 1, "server-lost"));
    case.shows(r#"walras_market_notice_breaches_total{stream="main"} 3"#);
    case.shows(&format!("walras_market_leaving_units{LABELS} 1"));
}

#[test]
fn history_is_shown_but_not_counted_again() {
    let mut case = Case::new();
    for event in [opened(), placed(), awarded(), noticed(1, 2, 360, "supply"), priced(Some("0.020"), 4, 3)] {
        case.tell(event);
    }
    case.measure();
    case.shows(&format!("walras_market_price_dollars_per_hour{LABELS} 0.02"));
    case.shows(&format!("walras_market_leaving_units{LABELS} 2"));
    case.shows(r#"walras_market_standing_bids{stream="main"} 1"#);
    case.shows(r#"walras_market_awards_total{stream="main"} 0"#);
    case.shows(r#"walras_market_notices_total{reason="supply",stream="main"} 0"#);
}

#[test]
fn gauges_are_gone_with_their_view() {
    let mut case = Case::new();
    case.measure();
    for event in [opened(), placed(), priced(Some("0.031"), 9, 5)] {
        case.tell(event);
    }
    case.reading = <Reading as View<Market>>::new(&case.stream);
    for name in
        ["price_dollars_per_hour", "reserve_dollars_per_hour", "supply_units", "sold_units", "leaving_units"]
    {
        case.shows_nothing_of(&format!("walras_market_{name}"));
    }
    case.shows(r#"walras_market_standing_bids{stream="main"} 0"#);
}
