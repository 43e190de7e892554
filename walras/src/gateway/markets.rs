//! `/v1/markets`: what is public. No token is needed, and nothing here can be traced to a tenant.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use market::view::json::MarketPage;
use proto::MarketId;

use super::Gateway;
use super::problem::Problem;

/// `GET /v1/markets`
pub(super) async fn list(State(gateway): State<Arc<Gateway>>) -> Result<Response, Problem> {
    let mut pages = Vec::new();
    for exchange in gateway.desk.exchanges() {
        pages.push(gateway.desk.read(exchange, 0, market::view::View::markets).await?);
    }
    Ok(Json(MarketPage::merged(pages)).into_response())
}

/// `GET /v1/markets/{region}/{class}`
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Path((region, class)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let market = name(&region, &class)?;
    let exchange = gateway.desk.exchange_of(Some(&market));
    let status = gateway.desk.read(exchange, 0, |view| view.market(&market)).await?;
    status.map(|status| Json(status).into_response()).ok_or_else(|| unknown(&market))
}

/// `GET /v1/markets/{region}/{class}/history`
pub(super) async fn history(
    State(gateway): State<Arc<Gateway>>,
    Path((region, class)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let market = name(&region, &class)?;
    let exchange = gateway.desk.exchange_of(Some(&market));
    let history = gateway.desk.read(exchange, 0, |view| view.history(&market)).await?;
    history.map(|history| Json(history).into_response()).ok_or_else(|| unknown(&market))
}

fn name(region: &str, class: &str) -> Result<MarketId, Problem> {
    let text = format!("{region}/{class}");
    text.parse().map_err(|error: proto::id::IdError| Problem::malformed("market", &text, &error.to_string()))
}

fn unknown(market: &MarketId) -> Problem {
    Problem::not_found("market", market.as_str())
}
