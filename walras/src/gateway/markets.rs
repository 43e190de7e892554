//! `/v1/markets`: what is public. No token is needed, and nothing here can be traced to a tenant.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use market::view::json::{Market, Markets};
use proto::{MarketId, Timestamp};
use serde::Deserialize;

use super::Gateway;
use super::asked::{Asked, Parted, page};
use super::problem::Problem;

/// Points of a history where nothing is said.
const POINTS_DEFAULT: usize = 500;

/// Which markets to list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(default)]
    after: Option<MarketId>,
    #[serde(default)]
    limit: Option<usize>,
}

/// Which part of a history.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    #[serde(default)]
    from: Option<Timestamp>,
    #[serde(default)]
    limit: Option<usize>,
}

/// `GET /v1/markets`
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let limit = page(query.limit, market::view::PAGE_MAX)?;
    let mut merged: Option<Markets> = None;
    for exchange in gateway.desk.exchanges() {
        let page = gateway.desk.read(exchange, 0, |view| view.markets(query.after.as_ref(), limit)).await?;
        match &mut merged {
            None => merged = Some(page),
            Some(merged) => merged.markets.extend(page.markets),
        }
    }
    let Some(mut merged) = merged else { return Err(Problem::not_found("exchange", "none")) };
    merged.markets.sort_by(|one, other| one.market.cmp(&other.market));
    merged.markets.truncate(limit);
    merged.markets.iter_mut().for_each(|market| gateway.describe(market));
    merged.next = (merged.markets.len() == limit)
        .then(|| merged.markets.last().map(|last| last.market.clone()))
        .flatten();
    Ok(Json(merged).into_response())
}

/// `GET /v1/markets/{region}/{class}`
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Parted((region, class)): Parted<(String, String)>,
) -> Result<Response, Problem> {
    let market = name(&region, &class)?;
    let exchange = gateway.desk.exchange_of(Some(&market));
    let found = gateway.desk.read(exchange, 0, |view| view.market(&market)).await?;
    let mut found = found.ok_or_else(|| unknown(&market))?;
    gateway.describe(&mut found.market);
    Ok(Json(found).into_response())
}

/// `GET /v1/markets/{region}/{class}/history`
pub(super) async fn history(
    State(gateway): State<Arc<Gateway>>,
    Parted((region, class)): Parted<(String, String)>,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Response, Problem> {
    let market = name(&region, &class)?;
    let exchange = gateway.desk.exchange_of(Some(&market));
    let limit = page(query.limit, POINTS_DEFAULT)?;
    let read = gateway.desk.read(exchange, 0, |view| view.history(&market, query.from, limit));
    read.await?.map(|history| Json(history).into_response()).ok_or_else(|| unknown(&market))
}

impl Gateway {
    /// Adds what the market itself does not know.
    pub(super) fn describe(&self, market: &mut Market) {
        market.resources = self.resources.get(&market.market).cloned();
    }
}

fn name(region: &str, class: &str) -> Result<MarketId, Problem> {
    let text = format!("{region}/{class}");
    text.parse().map_err(|error: proto::id::IdError| Problem::malformed("market", &text, &error.to_string()))
}

fn unknown(market: &MarketId) -> Problem {
    Problem::not_found("market", market.as_str())
}
