//! `/v1/bids`: a tenant's own bids.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use market::view::View;
use proto::market::{
    AcknowledgeNotice, AmendBid, BidOption, CancelBid, LeaseNumber, MarketCommand, PlaceBid, Terms,
};
use proto::{BidId, ClusterId, CommandId, Machine as _, PoolId, StreamName, TenantId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Gateway;
use super::asked::{Asked, Parted};
use super::body::Body;
use super::cursor::ListQuery;
use super::problem::Problem;

/// What a tenant sends to place a bid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceRequest {
    /// The bid's id, unique for the tenant for ever; made up where it is missing. A request repeated with the
    /// same id and content gets the same answer and has no further effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// The cluster that the servers are for.
    pub cluster: ClusterId,
    /// The pool within the cluster.
    pub pool: PoolId,
    /// How many servers.
    #[schemars(range(min = 1, max = 10_000))]
    pub quantity: u32,
    /// Fewer than this are worth nothing; equal to `quantity`: all or nothing. 1 where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub min_quantity: Option<u32>,
    /// Where, at which limit; each unit takes at most one.
    #[schemars(length(min = 1, max = 32))]
    pub options: Vec<BidOption>,
    /// Whether this is an on-demand order: never outbid, at the market's on-demand price, which is at most its limit. It has
    /// one option.
    #[serde(default, skip_serializing_if = "is_false")]
    pub on_demand: bool,
    /// When the bid ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_false(said: &bool) -> bool {
    !*said
}

impl PlaceRequest {
    fn terms(&self) -> Terms {
        Terms {
            quantity: self.quantity,
            min_quantity: self.min_quantity.unwrap_or(1),
            options: self.options.clone(),
            expires_at: self.expires_at,
        }
    }
}

/// What a tenant sends to replace a bid's terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AmendRequest {
    /// The amendment's own id; made up where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// The version that is amended, as the bid shows it.
    pub version: u32,
    /// The new terms, all of them.
    pub terms: Terms,
    /// Leases to give up first if the bid shrinks below what it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub give_up: Vec<LeaseNumber>,
}

/// What a tenant sends when leaving servers are drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeRequest {
    /// The acknowledgement's own id; made up where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// The leases that are drained.
    #[schemars(length(min = 1, max = 10_000))]
    pub leases: Vec<LeaseNumber>,
}

/// What may be asked beside a cancellation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelQuery {
    /// The cancellation's own id; made up where it is missing.
    #[serde(default)]
    pub id: Option<CommandId>,
}

/// Which of a tenant's bids is meant, and how fresh.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    #[serde(default)]
    exchange: Option<StreamName>,
    #[serde(default)]
    wait_for: Option<u64>,
}

/// Bids of a page where nothing is said.
const PAGE_DEFAULT: usize = 100;

/// `POST /v1/bids`
pub(super) async fn place(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    Body(request): Body<PlaceRequest>,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let terms = request.terms();
    let id = request.id.unwrap_or_else(|| gateway.made_up_id());
    let bid: BidId = name(id.as_str())?;
    let exchange = gateway.desk.exchange_of_options("", &terms.options)?;
    let command = MarketCommand::PlaceBid(Arc::new(PlaceBid {
        id,
        tenant: tenant.clone(),
        cluster: request.cluster,
        pool: request.pool,
        quantity: terms.quantity,
        min_quantity: terms.min_quantity,
        options: terms.options,
        on_demand: request.on_demand,
        expires_at: terms.expires_at,
        key: proto::machine::CommandKey::default(),
    }));
    let accepted = gateway.desk.ask(exchange, command).await?;
    shown(&gateway, exchange, &tenant, &bid, accepted.sequence, StatusCode::CREATED).await
}

/// `PATCH /v1/bids/{id}`
pub(super) async fn amend(
    State(gateway): State<Arc<Gateway>>,
    Parted(bid): Parted<String>,
    headers: HeaderMap,
    Body(request): Body<AmendRequest>,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let bid: BidId = name(&bid)?;
    gateway.desk.exchange_of_options("terms.", &request.terms.options)?;
    let command = MarketCommand::AmendBid(Arc::new(AmendBid {
        id: request.id.unwrap_or_else(|| gateway.made_up_id()),
        tenant: tenant.clone(),
        bid: bid.clone(),
        version: request.version,
        terms: request.terms,
        give_up: request.give_up,
        key: proto::machine::CommandKey::default(),
    }));
    let exchange = gateway.desk.exchange_of_bid(&tenant, &bid);
    let accepted = gateway.desk.ask(exchange, command).await?;
    shown(&gateway, exchange, &tenant, &bid, accepted.sequence, StatusCode::OK).await
}

/// `DELETE /v1/bids/{id}`
pub(super) async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    Parted(bid): Parted<String>,
    Asked(query): Asked<CancelQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let bid: BidId = name(&bid)?;
    let command = MarketCommand::CancelBid(CancelBid {
        id: query.id.unwrap_or_else(|| gateway.made_up_id()),
        tenant: tenant.clone(),
        bid: bid.clone(),
        key: proto::machine::CommandKey::default(),
    });
    let exchange = gateway.desk.exchange_of_bid(&tenant, &bid);
    let accepted = gateway.desk.ask(exchange, command).await?;
    shown(&gateway, exchange, &tenant, &bid, accepted.sequence, StatusCode::OK).await
}

/// `POST /v1/bids/{id}/acknowledge`
pub(super) async fn acknowledge(
    State(gateway): State<Arc<Gateway>>,
    Parted(bid): Parted<String>,
    headers: HeaderMap,
    Body(request): Body<AcknowledgeRequest>,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let bid: BidId = name(&bid)?;
    let command = MarketCommand::AcknowledgeNotice(AcknowledgeNotice {
        id: request.id.unwrap_or_else(|| gateway.made_up_id()),
        tenant: tenant.clone(),
        bid: bid.clone(),
        leases: request.leases,
        key: proto::machine::CommandKey::default(),
    });
    let exchange = gateway.desk.exchange_of_bid(&tenant, &bid);
    let accepted = gateway.desk.ask(exchange, command).await?;
    shown(&gateway, exchange, &tenant, &bid, accepted.sequence, StatusCode::OK).await
}

/// `GET /v1/bids`
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Asked(query): Asked<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let read = |view: &View, after, limit| view.bids(&tenant, after, limit);
    Ok(Json(gateway.page(query, PAGE_DEFAULT, read).await?).into_response())
}

/// `GET /v1/bids/{id}`
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Parted(bid): Parted<String>,
    Asked(query): Asked<ShowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let bid: BidId = name(&bid)?;
    let sequence = query.wait_for.unwrap_or(0);
    let exchange = match &query.exchange {
        Some(exchange) => exchange,
        None => gateway.desk.exchange_of_bid(&tenant, &bid),
    };
    shown(&gateway, exchange, &tenant, &bid, sequence, StatusCode::OK).await
}

/// `GET /v1/bids/{id}/why`
pub(super) async fn why(
    State(gateway): State<Arc<Gateway>>,
    Parted(bid): Parted<String>,
    Asked(query): Asked<ShowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let bid: BidId = name(&bid)?;
    let exchange = match &query.exchange {
        Some(exchange) => exchange,
        None => gateway.desk.exchange_of_bid(&tenant, &bid),
    };
    // Whoever has just changed the bid is told of it as it is now.
    let known = gateway.desk.bid(exchange, &tenant, &bid, query.wait_for.unwrap_or(0)).await?;
    let asked = json!({ "tenant": tenant, "bid": bid, "wait_for_sequence": known.as_of.sequence });
    let why = gateway.desk.question(market::Market::NAME, exchange, "why", &asked).await?;
    if &why[..] == b"null" {
        return Err(Problem::not_found("bid", bid.as_str()));
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], why).into_response())
}

pub(super) fn name(text: &str) -> Result<BidId, Problem> {
    text.parse().map_err(|error: proto::id::IdError| Problem::malformed("id", text, &error.to_string()))
}

/// Answers with the bid as it stands once the reader has got as far as the write.
async fn shown(
    gateway: &Gateway,
    exchange: &StreamName,
    tenant: &TenantId,
    bid: &BidId,
    sequence: u64,
    status: StatusCode,
) -> Result<Response, Problem> {
    let shown = gateway.desk.bid(exchange, tenant, bid, sequence).await?;
    Ok((status, Json(shown)).into_response())
}
