//! `/v1/webhooks` and `/v1/deliveries`: where a tenant wants to be told, and what could not be told.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use proto::webhook::{DeliveryNumber, FactKind, Redeliver, RemoveWebhook, SetWebhook, WebhookCommand};
use proto::{CommandId, Machine as _, StreamName, TenantId, WebhookId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use webhook::{DeliveriesView, DeliveryView, Target, WebhookView, Webhooks, WebhooksView, is_public};
use webhook_service::SecretAnswer;

use super::Gateway;
use super::asked::{Asked, Parted};
use super::body::Body;
use super::problem::Problem;

/// Deliveries of one answer, where nothing is said.
const DELIVERIES_DEFAULT: usize = 100;

/// Where a tenant wants to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// The request's id; made up where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// Where to: an `https` or `http` address of the public network.
    #[schemars(length(max = 2_048))]
    pub url: String,
    /// Which kinds of facts; all of them where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<FactKind>,
    /// Whether each lease is told by itself, with the keys `cloudspace`, `Server`, `IP` and `Time` that readers of another
    /// spot service's webhook know.
    #[serde(default)]
    pub legacy: bool,
}

/// What may be asked beside a webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookQuery {
    /// The request's id; made up where it is missing.
    #[serde(default)]
    pub id: Option<CommandId>,
}

/// Which deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliveryQuery {
    /// The request's id, where it asks for something; made up where it is missing.
    #[serde(default)]
    pub id: Option<CommandId>,
    /// Of which exchange: a delivery's number is its exchange's. The first one where it is missing.
    #[serde(default)]
    pub exchange: Option<StreamName>,
    /// At most so many.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A webhook, over all exchanges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookList {
    /// The tenant's webhooks, by name. What waits and what was given up are sums over all exchanges.
    pub webhooks: Vec<WebhookView>,
}

/// What a webhook's deliveries are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookSecret {
    /// The key of HMAC-SHA-256, as it stands.
    pub secret: String,
}

/// Deliveries that wait or were given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryList {
    /// Of which exchange.
    pub exchange: StreamName,
    /// Those given up first, then those that wait.
    pub deliveries: Vec<DeliveryView>,
}

/// `PUT /v1/webhooks/{webhook}`
pub(super) async fn set(
    State(gateway): State<Arc<Gateway>>,
    Parted(name): Parted<String>,
    headers: HeaderMap,
    Body(request): Body<WebhookRequest>,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let webhook = named(&name)?;
    let target = Target::parse(&request.url)
        .map_err(|problem| Problem::out_of_range("url", &request.url, &problem.to_string()))?;
    // A name is looked at whenever it is dialled; an address at once, so that the tenant learns of it.
    let is_private = target.address().is_some_and(|address| !is_public(address));
    if is_private && !gateway.may_point_private {
        return Err(Problem::out_of_range("url", &request.url, "is no address of the public network"));
    }
    let command = WebhookCommand::SetWebhook(SetWebhook {
        id: request.id.unwrap_or_else(|| gateway.made_up_id()),
        tenant: tenant.clone(),
        webhook: webhook.clone(),
        url: request.url,
        kinds: request.kinds,
        legacy: request.legacy,
    });
    let views = everywhere(&gateway, &tenant, &command).await?;
    let found = views.into_iter().find(|view| view.webhook == webhook);
    let found = found.ok_or_else(|| Problem::not_found("webhook", webhook.as_str()))?;
    Ok(Json(found).into_response())
}

/// `DELETE /v1/webhooks/{webhook}`
pub(super) async fn remove(
    State(gateway): State<Arc<Gateway>>,
    Parted(name): Parted<String>,
    Asked(query): Asked<WebhookQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let command = WebhookCommand::RemoveWebhook(RemoveWebhook {
        id: query.id.unwrap_or_else(|| gateway.made_up_id()),
        tenant: tenant.clone(),
        webhook: named(&name)?,
    });
    let left = everywhere(&gateway, &tenant, &command).await?;
    Ok(Json(WebhookList { webhooks: left }).into_response())
}

/// `GET /v1/webhooks`
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let mut all = Vec::new();
    for exchange in gateway.desk.tellers.exchanges() {
        add(&mut all, known(&gateway, exchange, &tenant, 0).await?);
    }
    Ok(Json(WebhookList { webhooks: all }).into_response())
}

/// `GET /v1/webhooks/{webhook}/secret`
pub(super) async fn secret(
    State(gateway): State<Arc<Gateway>>,
    Parted(name): Parted<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let webhook = named(&name)?;
    let Some(exchange) = gateway.desk.tellers.exchanges().next() else {
        return Err(Problem::not_found("exchange", "of any name"));
    };
    let views = known(&gateway, exchange, &tenant, 0).await?;
    if views.iter().all(|view| view.webhook != webhook) {
        return Err(Problem::not_found("webhook", webhook.as_str()));
    }
    let asked = json!({ "tenant": tenant, "webhook": webhook });
    let machine = webhook_service::QUERIED_AS;
    let SecretAnswer { secret } = gateway.desk.tellers.question(machine, exchange, "secret", &asked).await?;
    Ok(Json(WebhookSecret { secret }).into_response())
}

/// `GET /v1/deliveries`
pub(super) async fn deliveries(
    State(gateway): State<Arc<Gateway>>,
    Asked(query): Asked<DeliveryQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let exchange = exchange(&gateway, &query)?;
    shown(&gateway, exchange, &tenant, query.limit.unwrap_or(DELIVERIES_DEFAULT), 0).await
}

/// `POST /v1/deliveries/{delivery}/again`
pub(super) async fn again(
    State(gateway): State<Arc<Gateway>>,
    Parted(delivery): Parted<String>,
    Asked(query): Asked<DeliveryQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let number: DeliveryNumber =
        delivery.parse().map_err(|_| Problem::malformed("delivery", &delivery, "a delivery is a number"))?;
    let exchange = exchange(&gateway, &query)?.clone();
    let command = WebhookCommand::Redeliver(Redeliver {
        id: query.id.clone().unwrap_or_else(|| gateway.made_up_id()),
        tenant: tenant.clone(),
        delivery: number,
    });
    let accepted = gateway.desk.tellers.ask(&exchange, &command).await?;
    shown(&gateway, &exchange, &tenant, query.limit.unwrap_or(DELIVERIES_DEFAULT), accepted.sequence).await
}

fn named(text: &str) -> Result<WebhookId, Problem> {
    text.parse().map_err(|error: proto::id::IdError| Problem::malformed("webhook", text, &error.to_string()))
}

fn exchange<'a>(gateway: &'a Gateway, query: &'a DeliveryQuery) -> Result<&'a StreamName, Problem> {
    let mut all = gateway.desk.tellers.exchanges();
    let found = match &query.exchange {
        Some(name) => all.find(|known| *known == name),
        None => all.next(),
    };
    found.ok_or_else(|| {
        Problem::not_found("exchange", query.exchange.as_ref().map_or("of any name", StreamName::as_str))
    })
}

/// Asks for the same in every exchange, and gives what is known there afterwards.
async fn everywhere(
    gateway: &Gateway,
    tenant: &TenantId,
    command: &WebhookCommand,
) -> Result<Vec<WebhookView>, Problem> {
    let mut all = Vec::new();
    for exchange in gateway.desk.tellers.exchanges() {
        let accepted = gateway.desk.tellers.ask(exchange, command).await?;
        add(&mut all, known(gateway, exchange, tenant, accepted.sequence).await?);
    }
    Ok(all)
}

async fn known(
    gateway: &Gateway,
    exchange: &StreamName,
    tenant: &TenantId,
    sequence: u64,
) -> Result<Vec<WebhookView>, Problem> {
    let asked = json!({ "tenant": tenant, "wait_for_sequence": sequence });
    let tellers = &gateway.desk.tellers;
    let view: WebhooksView = tellers.question(Webhooks::NAME, exchange, "webhooks", &asked).await?;
    Ok(view.webhooks)
}

/// Adds what waits in another exchange.
fn add(all: &mut Vec<WebhookView>, views: Vec<WebhookView>) {
    for view in views {
        match all.iter_mut().find(|known| known.webhook == view.webhook) {
            Some(known) => {
                known.waiting += view.waiting;
                known.dead += view.dead;
            }
            None => all.push(view),
        }
    }
}

async fn shown(
    gateway: &Gateway,
    exchange: &StreamName,
    tenant: &TenantId,
    limit: usize,
    sequence: u64,
) -> Result<Response, Problem> {
    let asked = json!({ "tenant": tenant, "limit": limit, "wait_for_sequence": sequence });
    let tellers = &gateway.desk.tellers;
    let view: DeliveriesView = tellers.question(Webhooks::NAME, exchange, "deliveries", &asked).await?;
    let (exchange, deliveries) = (exchange.clone(), view.deliveries);
    Ok(Json(DeliveryList { exchange, deliveries }).into_response())
}
