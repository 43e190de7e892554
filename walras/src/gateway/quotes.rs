//! `/v1/quotes`: what a bid must offer to win so many servers now.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use proto::market::{BidOption, OPTIONS_MAX, QUANTITY_MAX};
use proto::{Machine as _, MarketId, Price};
use serde::Deserialize;
use serde_json::json;

use super::Gateway;
use super::asked::Asked;
use super::problem::Problem;

/// For which units.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuoteQuery {
    /// How many servers, all of which are to win.
    #[serde(default = "one")]
    units: u32,
    /// The markets that would do, with commas between them.
    markets: String,
}

const fn one() -> u32 {
    1
}

/// `GET /v1/quotes`
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Asked(query): Asked<QuoteQuery>,
) -> Result<Response, Problem> {
    if !(1..=QUANTITY_MAX).contains(&query.units) {
        let problem = format!("must be 1 to {QUANTITY_MAX}");
        return Err(Problem::out_of_range("units", query.units, &problem));
    }
    let mut options: Vec<BidOption> = Vec::new();
    for name in query.markets.split(',') {
        let market: MarketId = name
            .parse()
            .map_err(|error: proto::id::IdError| Problem::malformed("markets", name, &error.to_string()))?;
        if !gateway.desk.knows(&market) {
            return Err(Problem::not_found("markets", market.as_str()));
        }
        if options.iter().any(|known| known.market == market) {
            return Err(Problem::out_of_range("markets", &market, "stands twice"));
        }
        options.push(BidOption { market, limit: Price::ZERO, running_limit: None });
    }
    if options.len() > OPTIONS_MAX {
        let problem = format!("must be 1 to {OPTIONS_MAX}");
        return Err(Problem::out_of_range("markets", options.len(), &problem));
    }
    let exchange = gateway.desk.exchange_of_options("", &options)?;
    let markets: Vec<&MarketId> = options.iter().map(|option| &option.market).collect();
    let question = json!({ "units": query.units, "markets": markets });
    let quote = gateway.desk.question(market::Market::NAME, exchange, "quote", &question).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], quote).into_response())
}
