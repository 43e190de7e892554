//! `/v1/transcripts`: what each round left for those who want to check it; and what a tenant needs to open the
//! commitments to its own bids.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use market_service::RECORDS_MAX;
use proto::market::RoundNumber;
use proto::{BidId, StreamName};
use serde::Deserialize;
use serde_json::json;

use super::Gateway;
use super::asked::{Asked, Parted, page};
use super::bids::name;
use super::problem::Problem;

/// Records of a page where nothing is said.
const RECORDS_DEFAULT: usize = 100;
/// A record to a line, each exactly as it is hashed.
const NDJSON: &str = "application/x-ndjson";

const _: () = assert!(RECORDS_MAX == market::view::PAGE_MAX, "a page of records is a page");

/// Which records.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordsQuery {
    /// Those of the rounds behind this one.
    #[serde(default)]
    after: RoundNumber,
    #[serde(default)]
    limit: Option<usize>,
}

/// Which bid.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SaltsQuery {
    #[serde(default)]
    exchange: Option<StreamName>,
}

/// `GET /v1/transcripts/{exchange}`
pub(super) async fn records(
    State(gateway): State<Arc<Gateway>>,
    Parted(exchange): Parted<String>,
    Asked(query): Asked<RecordsQuery>,
) -> Result<Response, Problem> {
    let limit = page(query.limit, RECORDS_DEFAULT)?;
    let exchange: StreamName = exchange
        .parse()
        .map_err(|error: proto::id::IdError| Problem::malformed("exchange", &exchange, &error.to_string()))?;
    let question = json!({ "after": query.after, "limit": limit });
    let lines = gateway.desk.transcript(&exchange, "records", &question).await?;
    Ok(([(header::CONTENT_TYPE, NDJSON)], lines).into_response())
}

/// `GET /v1/bids/{id}/salts`
pub(super) async fn salts(
    State(gateway): State<Arc<Gateway>>,
    Parted(bid): Parted<String>,
    Asked(query): Asked<SaltsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let bid: BidId = name(&bid)?;
    let exchange = match &query.exchange {
        Some(exchange) => exchange,
        None => gateway.desk.exchange_of_bid(&tenant, &bid),
    };
    let acts = gateway.desk.read(exchange, 0, |view| view.acts(&tenant, &bid)).await?;
    let acts = acts.ok_or_else(|| Problem::not_found("bid", bid.as_str()))?;
    let salts = gateway.desk.transcript(exchange, "salts", &json!(acts)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], salts).into_response())
}
