//! `walras prices|watch`.

use anyhow::Result;
use market::view::json::{History, Markets, Quote};
use proto::Price;
use serde_json::{Value, json};

use super::table::{print, print_json, print_line};
use crate::cli::{PricesArgs, QuoteArgs, WatchArgs};
use crate::client::Client;

/// Says what a bid must offer to win so many servers now.
///
/// # Errors
/// What the gateway refused, in one line.
pub fn quote(arguments: &QuoteArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    let markets: Vec<&str> = arguments.options.iter().map(proto::MarketId::as_str).collect();
    let path = format!("/v1/quotes?units={}&markets={}", arguments.units, markets.join(","));
    let quote: Quote = client.get(&path)?;
    if arguments.connection.json {
        return print_json(&quote);
    }
    if quote.limit.is_none() {
        return print_line("there are not so many servers, at any limit");
    }
    let rows: Vec<_> = quote
        .options
        .iter()
        .map(|option| vec![option.market.to_string(), option.limit.to_string()])
        .collect();
    print(&["market", "bid to win"], &rows)
}

/// Shows every market, or one market's history.
///
/// # Errors
/// What the gateway refused, in one line.
pub fn prices(arguments: &PricesArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    match &arguments.market {
        None => markets(&client, arguments.connection.json),
        Some(market) => {
            let history: History =
                client.get(&format!("/v1/markets/{}/{}/history", market.region(), market.class()))?;
            if arguments.connection.json {
                return print_json(&history);
            }
            let rows: Vec<_> = history
                .points
                .iter()
                .map(|point| {
                    vec![
                        point.at.to_string(),
                        text(point.price),
                        text(point.lowest_winning_bid),
                        point.reserve.to_string(),
                    ]
                })
                .collect();
            print(&["at", "price", "bid to win", "reserve"], &rows)
        }
    }
}

fn text(price: Option<Price>) -> String {
    price.map_or_else(|| "-".to_owned(), |price| price.to_string())
}

fn markets(client: &Client, is_json: bool) -> Result<()> {
    let mut markets: Markets = client.get("/v1/markets")?;
    while let Some(next) = markets.next.take() {
        let page: Markets = client.get(&format!("/v1/markets?after={next}"))?;
        markets.next = page.next;
        markets.markets.extend(page.markets);
    }
    if is_json {
        return print_json(&markets);
    }
    let rows: Vec<_> = markets
        .markets
        .iter()
        .map(|market| {
            let percentiles = market.percentiles;
            let percentile =
                |which: fn(market::view::json::Percentiles) -> Price| text(percentiles.map(which));
            vec![
                market.market.to_string(),
                text(market.prices.price),
                market.prices.reserve.to_string(),
                text(market.prices.lowest_winning_bid),
                market.prices.sold.to_string(),
                market.prices.supply.to_string(),
                market.prices.wanted.to_string(),
                percentile(|p| p.p20),
                percentile(|p| p.p50),
                percentile(|p| p.p80),
            ]
        })
        .collect();
    let heading =
        ["market", "price", "reserve", "bid to win", "sold", "supply", "wanted", "20 %", "50 %", "80 %"];
    print(&heading, &rows)
}

/// Follows prices and what happens to the tenant's bids.
///
/// # Errors
/// As [`prices`].
pub fn watch(arguments: &WatchArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    let mut left = arguments.events;
    let mut outcome = Ok(());
    client.follow("/v1/events", |kind, fact| {
        // From where events are followed is no event of the market.
        if kind == "Following" {
            return true;
        }
        outcome = if arguments.connection.json {
            print_json(&json!({ "event": kind, "data": fact }))
        } else {
            print_line(&line(kind, fact))
        };
        left = left.map(|left| left.saturating_sub(1));
        outcome.is_ok() && left != Some(0)
    })?;
    outcome
}

/// One event in words.
fn line(kind: &str, fact: &Value) -> String {
    let get = |field: &str| match &fact[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let units = fact["leases"]["units"].as_u64().unwrap_or_default();
    match kind {
        "MarketReport" => format!(
            "{}  {}  price {}  bid to win {}  reserve {}  sold {} of {}",
            get("at"),
            get("market"),
            get("price"),
            get("lowest_winning_bid"),
            get("reserve"),
            get("sold"),
            get("supply")
        ),
        "Awarded" => format!("bid {} won {units} in {}", get("bid"), get("market")),
        "NoticeGiven" => format!(
            "bid {} loses {units} in {} at {} ({}; kept by {})",
            get("bid"),
            get("market"),
            get("gone_at"),
            get("reason"),
            get("kept_by")
        ),
        "NoticeWithdrawn" => format!("bid {} keeps {units} in {} after all", get("bid"), get("market")),
        "Delayed" => {
            format!("bid {}: {units} in {} come by {}", get("bid"), get("market"), get("available_by"))
        }
        "Released" => {
            format!("bid {}: {units} released in {} ({})", get("bid"), get("market"), get("reason"))
        }
        "Gap" => format!(
            "something was missed up to {} of {}: read prices and bids anew",
            get("sequence"),
            get("exchange")
        ),
        "Expired" => format!("bid {} expired", get("bid")),
        other => format!("{other} {fact}"),
    }
}
