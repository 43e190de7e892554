//! `/v1/leases` and `/v1/bills`: what a tenant holds, and what it owes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use market::billing::Month;
use proto::StreamName;
use proto::market::LeaseNumber;
use serde::Deserialize;

use super::Gateway;
use super::asked::{Asked, Parted, page};
use super::problem::Problem;

/// Bids whose leases are on a page where nothing is said.
const PAGE_DEFAULT: usize = 100;

/// Which leases, or which part of a bill.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    exchange: Option<StreamName>,
    #[serde(default)]
    wait_for: Option<u64>,
}

/// `GET /v1/leases`
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Asked(query): Asked<PageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let exchange = gateway.desk.exchange_named(query.exchange.as_ref());
    let limit = page(query.limit, PAGE_DEFAULT)?;
    let read = |view: &market::view::View| view.leases(&tenant, query.after, limit);
    let part = gateway.desk.read(exchange, query.wait_for.unwrap_or(0), read).await?;
    Ok(Json(part).into_response())
}

/// `GET /v1/leases/{lease}`
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Parted(lease): Parted<String>,
    Asked(query): Asked<PageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let exchange = gateway.desk.exchange_named(query.exchange.as_ref());
    let number: LeaseNumber =
        lease.parse().map_err(|_| Problem::malformed("lease", &lease, "a lease is a number"))?;
    let read = |view: &market::view::View| view.lease(&tenant, number);
    let shown = gateway.desk.read(exchange, query.wait_for.unwrap_or(0), read).await?;
    let shown = shown.ok_or_else(|| Problem::not_found("lease", &lease))?;
    Ok(Json(shown).into_response())
}

/// `GET /v1/bills/{month}`
pub(super) async fn bill(
    State(gateway): State<Arc<Gateway>>,
    Parted(month): Parted<String>,
    Asked(query): Asked<PageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let exchange = gateway.desk.exchange_named(query.exchange.as_ref());
    let of: Month = month.parse().map_err(|error: market::billing::MonthError| {
        Problem::malformed("month", &month, &error.to_string())
    })?;
    let after = usize::try_from(query.after.unwrap_or(0)).unwrap_or(usize::MAX);
    let limit = page(query.limit, market::view::BILL_PAGE_MAX)?;
    let read = |view: &market::view::View| view.bill(&tenant, of, after, limit);
    let part = gateway.desk.read(exchange, query.wait_for.unwrap_or(0), read).await?;
    Ok(Json(part).into_response())
}
