//! `/v1/clusters`: a tenant's own clusters.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use proto::placement::{
    ChangeCluster, ClusterTerms, CreateCluster, DeleteCluster, PlacementCommand, WakeCluster,
};
use proto::{ClusterId, CommandId, StreamName, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Gateway;
use super::asked::{Asked, Parted};
use super::body::Body;
use super::problem::Problem;

/// What a tenant sends to get a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// The request's id; made up where it is missing. A request repeated with the same id and content gets the same
    /// answer and has no further effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// The cluster's name, unique for the tenant while it exists.
    pub cluster: ClusterId,
    /// What it is to be.
    pub terms: ClusterTerms,
    /// At which site; the first one where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<StreamName>,
}

/// What a tenant sends to have a cluster otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// The request's id; made up where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// The version of the terms that are replaced, as the cluster shows it.
    pub version: u32,
    /// The new terms, all of them.
    pub terms: ClusterTerms,
}

/// What may be asked beside a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterQuery {
    /// The request's id, where it asks for something; made up where it is missing.
    #[serde(default)]
    pub id: Option<CommandId>,
    /// At which site; the first one where it is missing.
    #[serde(default)]
    pub site: Option<StreamName>,
    /// Wait until the site has got this far: the `sequence` of an answer, to read one's own write.
    #[serde(default)]
    pub wait_for: Option<u64>,
}

/// `POST /v1/clusters`
pub(super) async fn create(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    Body(request): Body<CreateRequest>,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let command = PlacementCommand::CreateCluster(CreateCluster {
        id: request.id.unwrap_or_else(|| gateway.made_up_id()),
        tenant: tenant.clone(),
        cluster: request.cluster.clone(),
        terms: request.terms,
    });
    let site = request.site.as_ref();
    let accepted = gateway.desk.sites.ask(site, &command).await?;
    shown(&gateway, site, &tenant, &request.cluster, accepted.sequence, StatusCode::CREATED).await
}

/// `PATCH /v1/clusters/{cluster}`
pub(super) async fn change(
    State(gateway): State<Arc<Gateway>>,
    Parted(cluster): Parted<String>,
    Asked(query): Asked<ClusterQuery>,
    headers: HeaderMap,
    Body(request): Body<ChangeRequest>,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let cluster = name(&cluster)?;
    let command = PlacementCommand::ChangeCluster(ChangeCluster {
        id: request.id.unwrap_or_else(|| gateway.made_up_id()),
        tenant: tenant.clone(),
        cluster: cluster.clone(),
        version: request.version,
        terms: request.terms,
    });
    asked(&gateway, &query, &tenant, &cluster, &command).await
}

/// `DELETE /v1/clusters/{cluster}`
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    Parted(cluster): Parted<String>,
    Asked(query): Asked<ClusterQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let cluster = name(&cluster)?;
    let id = query.id.clone().unwrap_or_else(|| gateway.made_up_id());
    let (tenant_named, named) = (tenant.clone(), cluster.clone());
    let command = PlacementCommand::DeleteCluster(DeleteCluster { id, tenant: tenant_named, cluster: named });
    asked(&gateway, &query, &tenant, &cluster, &command).await
}

/// `POST /v1/clusters/{cluster}/wake`
pub(super) async fn wake(
    State(gateway): State<Arc<Gateway>>,
    Parted(cluster): Parted<String>,
    Asked(query): Asked<ClusterQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let cluster = name(&cluster)?;
    let id = query.id.clone().unwrap_or_else(|| gateway.made_up_id());
    let (tenant_named, named) = (tenant.clone(), cluster.clone());
    let command = PlacementCommand::WakeCluster(WakeCluster { id, tenant: tenant_named, cluster: named });
    asked(&gateway, &query, &tenant, &cluster, &command).await
}

/// `GET /v1/clusters`
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Asked(query): Asked<ClusterQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let sequence = query.wait_for.unwrap_or(0);
    let clusters = gateway.desk.sites.clusters(query.site.as_ref(), &tenant, None, sequence).await?;
    Ok(Json(clusters).into_response())
}

/// `GET /v1/clusters/{cluster}`
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Parted(cluster): Parted<String>,
    Asked(query): Asked<ClusterQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let cluster = name(&cluster)?;
    let sequence = query.wait_for.unwrap_or(0);
    shown(&gateway, query.site.as_ref(), &tenant, &cluster, sequence, StatusCode::OK).await
}

pub(super) fn name(text: &str) -> Result<ClusterId, Problem> {
    text.parse().map_err(|error: proto::id::IdError| Problem::malformed("cluster", text, &error.to_string()))
}

/// Asks for something, and answers with the cluster as that leaves it.
async fn asked(
    gateway: &Gateway,
    query: &ClusterQuery,
    tenant: &TenantId,
    cluster: &ClusterId,
    command: &PlacementCommand,
) -> Result<Response, Problem> {
    let site = query.site.as_ref();
    let accepted = gateway.desk.sites.ask(site, command).await?;
    shown(gateway, site, tenant, cluster, accepted.sequence, StatusCode::OK).await
}

/// Answers with the cluster as it stands once its site has got as far as the write.
async fn shown(
    gateway: &Gateway,
    site: Option<&StreamName>,
    tenant: &TenantId,
    cluster: &ClusterId,
    sequence: u64,
    status: StatusCode,
) -> Result<Response, Problem> {
    let found = gateway.desk.sites.clusters(site, tenant, Some(cluster), sequence).await?;
    let Some(shown) = found.clusters.into_iter().next() else {
        return Err(Problem::not_found("cluster", cluster.as_str()));
    };
    Ok((status, Json(shown)).into_response())
}
