//! `walras bid|order|amend|cancel|acknowledge|bids|why|notices`.

use std::time::Duration;

use anyhow::Result;
use market::view::json::{Bid, BidAlone, Bids, MarketAlone, Why};
use proto::market::{BidOption, BidState, Terms};

use super::table::{print, print_json, print_line};
use crate::cli::{
    AcknowledgeArgs, AmendArgs, BidArgs, BidsArgs, CancelArgs, OrderArgs, ReadArgs, TermsArgs, WhyArgs,
};
use crate::client::{Client, Connection};
use crate::gateway::bids::{AcknowledgeRequest, AmendRequest, PlaceRequest};

/// Bids asked for at a time.
const PAGE: usize = 500;
/// How often a bid is looked at until its round has closed.
const ROUND_LOOK: Duration = Duration::from_millis(100);
/// Looks at a bid that wins nothing: two rounds of the usual length, and then some.
const ROUND_LOOKS_MAX: u32 = 6;

/// Places a bid.
///
/// # Errors
/// What the gateway refused, in one line.
pub fn place(arguments: &BidArgs) -> Result<()> {
    let terms = &arguments.terms;
    let request = PlaceRequest {
        id: arguments.id.clone(),
        cluster: arguments.cluster.clone(),
        pool: arguments.pool.clone(),
        quantity: terms.quantity,
        min_quantity: terms.min_quantity,
        options: terms.options.clone(),
        on_demand: false,
        expires_at: terms.expires_at,
    };
    let client = Client::new(&arguments.connection)?;
    let placed = client.post::<BidAlone>("/v1/bids", &request)?;
    show(&arguments.connection, &after_round(&client, &arguments.connection, placed)?)
}

/// Orders servers on demand, at the price of now unless a limit is named.
///
/// # Errors
/// What the gateway refused, in one line.
pub fn order(arguments: &OrderArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    let market = &arguments.market;
    let limit = if let Some(limit) = arguments.limit {
        limit
    } else {
        let known: MarketAlone = client.get(&format!("/v1/markets/{market}"))?;
        let price = known.market.settings.on_demand_price;
        price.ok_or_else(|| anyhow::anyhow!("market: {market} sells nothing on demand"))?
    };
    let request = PlaceRequest {
        id: arguments.id.clone(),
        cluster: arguments.cluster.clone(),
        pool: arguments.pool.clone(),
        quantity: arguments.quantity,
        min_quantity: None,
        options: vec![BidOption { market: market.clone(), limit, running_limit: None }],
        on_demand: true,
        expires_at: arguments.expires_at,
    };
    let placed = client.post::<BidAlone>("/v1/bids", &request)?;
    show(&arguments.connection, &after_round(&client, &arguments.connection, placed)?)
}

/// Replaces a bid's terms.
///
/// # Errors
/// As [`place`].
pub fn amend(arguments: &AmendArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    let path = format!("/v1/bids/{}", arguments.bid);
    let version = match arguments.version {
        Some(version) => version,
        None => client.get::<BidAlone>(&path)?.bid.version,
    };
    let request = AmendRequest {
        id: None,
        version,
        terms: terms(&arguments.terms),
        give_up: arguments.give_up.clone(),
    };
    let amended = client.patch::<BidAlone>(&path, &request)?;
    show(&arguments.connection, &after_round(&client, &arguments.connection, amended)?)
}

/// The bid as the round leaves it that its terms came into: rounds gather for a moment, and a person wants to know
/// what became of the bid. A program is told at once, and follows the events.
fn after_round(client: &Client, connection: &Connection, mut bid: BidAlone) -> Result<BidAlone> {
    for _ in 0..ROUND_LOOKS_MAX {
        if connection.json || bid.bid.units.queued == 0 {
            break;
        }
        std::thread::sleep(ROUND_LOOK);
        bid = client.get(&format!("/v1/bids/{}", bid.bid.bid))?;
    }
    Ok(bid)
}

fn terms(arguments: &TermsArgs) -> Terms {
    Terms {
        quantity: arguments.quantity,
        min_quantity: arguments.min_quantity.unwrap_or(1),
        options: arguments.options.clone(),
        expires_at: arguments.expires_at,
    }
}

/// Ends a bid.
///
/// # Errors
/// As [`place`].
pub fn cancel(arguments: &CancelArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    show(&arguments.connection, &client.delete::<BidAlone>(&format!("/v1/bids/{}", arguments.bid))?)
}

/// Says that leaving servers are drained.
///
/// # Errors
/// As [`place`].
pub fn acknowledge(arguments: &AcknowledgeArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    let request = AcknowledgeRequest { id: None, leases: arguments.leases.clone() };
    let path = format!("/v1/bids/{}/acknowledge", arguments.bid);
    show(&arguments.connection, &client.post::<BidAlone>(&path, &request)?)
}

/// Lists the tenant's bids, or shows one.
///
/// # Errors
/// As [`place`].
pub fn list(arguments: &BidsArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    if let Some(bid) = &arguments.bid {
        return show(&arguments.connection, &client.get::<BidAlone>(&format!("/v1/bids/{bid}"))?);
    }
    let bids = all(&client)?;
    if arguments.connection.json {
        return print_json(&bids);
    }
    let rows: Vec<_> = bids.iter().map(row).collect();
    print(HEADING, &rows)
}

/// Says why a bid holds what it holds, and what would change it.
///
/// # Errors
/// As [`place`].
pub fn why(arguments: &WhyArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    let why: Why = client.get(&format!("/v1/bids/{}/why", arguments.bid))?;
    if arguments.connection.json {
        return print_json(&why);
    }
    why.because.iter().try_for_each(|sentence| print_line(sentence))
}

/// Lists the tenant's units that have to leave.
///
/// # Errors
/// As [`place`].
pub fn notices(arguments: &ReadArgs) -> Result<()> {
    let mut bids = all(&Client::new(&arguments.connection)?)?;
    for bid in &mut bids {
        bid.leases.retain(|leases| leases.notice.is_some());
    }
    bids.retain(|bid| !bid.leases.is_empty());
    if arguments.connection.json {
        return print_json(&bids);
    }
    let mut rows = Vec::new();
    for bid in &bids {
        for leases in &bid.leases {
            let Some(notice) = leases.notice else { continue };
            rows.push(vec![
                bid.bid.to_string(),
                leases.market.to_string(),
                span(leases.first, leases.units),
                notice.gone_at.to_string(),
                word(&notice.reason),
                notice.kept_by.map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
            ]);
        }
    }
    print(&["bid", "market", "leases", "gone at", "reason", "kept by"], &rows)
}

fn all(client: &Client) -> Result<Vec<Bid>> {
    let pages = client.pages::<Bids>(&format!("/v1/bids?limit={PAGE}"))?;
    Ok(pages.into_iter().flat_map(|page| page.page.bids).collect())
}

const HEADING: &[&str] = &["bid", "state", "market", "limit", "wants", "holds", "waits", "leaves", "version"];

fn row(bid: &Bid) -> Vec<String> {
    let options = |text: fn(&proto::market::BidOption) -> String| {
        bid.options.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    vec![
        bid.bid.to_string(),
        word(&bid.state),
        options(|option| option.market.to_string()),
        options(|option| option.limit.to_string()),
        bid.quantity.to_string(),
        bid.units.winning.to_string(),
        bid.units.waiting.to_string(),
        bid.units.leaving.to_string(),
        bid.version.to_string(),
    ]
}

/// The word a value is written as in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "-".to_owned(),
    }
}

fn span(first: u64, units: u32) -> String {
    if units <= 1 { first.to_string() } else { format!("{first}-{}", first + u64::from(units) - 1) }
}

fn show(connection: &Connection, alone: &BidAlone) -> Result<()> {
    if connection.json {
        return print_json(alone);
    }
    let bid = &alone.bid;
    print(HEADING, &[row(bid)])?;
    for leases in &bid.leases {
        let numbers = span(leases.first, leases.units);
        let mut parts = vec![format!("  leases {numbers} in {}", leases.market)];
        parts.extend(leases.available_by.map(|by| format!("there by {by}")));
        if let Some(notice) = leases.notice {
            parts.push(format!("leaving at {} ({})", notice.gone_at, word(&notice.reason)));
            parts.extend(notice.kept_by.map(|limit| format!("a limit of {limit} would have kept them")));
        }
        print_line(&parts.join(", "))?;
    }
    if matches!(bid.state, BidState::Queued) {
        print_line("  queued: it wins when the price falls or its limit is raised (walras prices)")?;
    }
    Ok(())
}
