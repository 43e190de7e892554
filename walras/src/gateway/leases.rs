//! `/v1/leases` and `/v1/bills`: what a tenant holds, and what it owes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use market::billing::Month;
use market::view::{BILL_PAGE_MAX, View};
use proto::StreamName;
use proto::market::LeaseNumber;
use serde::Deserialize;

use super::Gateway;
use super::asked::{Asked, Parted};
use super::cursor::ListQuery;
use super::problem::Problem;

/// Bids whose leases are on a page where nothing is said.
const PAGE_DEFAULT: usize = 100;

/// Which of a tenant's leases is meant, and how fresh.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    #[serde(default)]
    exchange: Option<StreamName>,
    #[serde(default)]
    wait_for: Option<u64>,
}

/// `GET /v1/leases`
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Asked(query): Asked<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let read = |view: &View, after, limit| view.leases(&tenant, after, limit);
    Ok(Json(gateway.page(query, PAGE_DEFAULT, read).await?).into_response())
}

/// `GET /v1/leases/{lease}`
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Parted(lease): Parted<String>,
    Asked(query): Asked<ShowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let number: LeaseNumber =
        lease.parse().map_err(|_| Problem::malformed("lease", &lease, "a lease is a number"))?;
    let exchange = match &query.exchange {
        Some(exchange) => exchange,
        None => gateway.desk.exchange_of_lease(&tenant, number),
    };
    let read = |view: &View| view.lease(&tenant, number);
    let shown = gateway.desk.read(exchange, query.wait_for.unwrap_or(0), read).await?;
    let shown = shown.ok_or_else(|| Problem::not_found("lease", &lease))?;
    Ok(Json(shown).into_response())
}

/// `GET /v1/bills/{month}`
pub(super) async fn bill(
    State(gateway): State<Arc<Gateway>>,
    Parted(month): Parted<String>,
    Asked(query): Asked<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let of: Month = month.parse().map_err(|error: market::billing::MonthError| {
        Problem::malformed("month", &month, &error.to_string())
    })?;
    let read = |view: &View, after: Option<u64>, limit| {
        let after = usize::try_from(after.unwrap_or(0)).unwrap_or(usize::MAX);
        view.bill(&tenant, of, after, limit)
    };
    Ok(Json(gateway.page(query, BILL_PAGE_MAX, read).await?).into_response())
}
