//! `/v1/clusters/{cluster}/kubeconfig`: the administrator's kubeconfig of a tenant's own cluster.
//!
//! It is asked for live, and neither kept nor logged anywhere on its way.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use controlplane_service::KubeconfigAnswer;
use proto::ClusterId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Gateway;
use super::asked::{Asked, Parted};
use super::clusters::{ClusterQuery, name};
use super::problem::Problem;

/// A kubeconfig.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KubeconfigView {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// The file's text. Who has it administers the cluster.
    pub kubeconfig: String,
}

/// `GET /v1/clusters/{cluster}/kubeconfig`
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Parted(cluster): Parted<String>,
    Asked(query): Asked<ClusterQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = gateway.identity.admit(&headers)?;
    let cluster = name(&cluster)?;
    let (site, sequence) = (query.site.as_ref(), query.wait_for.unwrap_or(0));
    let sites = &gateway.desk.sites;
    // A cluster that is another's, or was given up, has none.
    let found = sites.clusters(site, &tenant, Some(&cluster), sequence).await?;
    if found.clusters.is_empty() {
        return Err(Problem::not_found("cluster", cluster.as_str()));
    }
    match sites.kubeconfig(site, &tenant, &cluster).await? {
        KubeconfigAnswer::Kubeconfig { kubeconfig } => {
            let mut response = Json(KubeconfigView { cluster, kubeconfig }).into_response();
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
        KubeconfigAnswer::NotThere => {
            Err(Problem::unanswered("this cluster's control plane is still being made: ask again"))
        }
    }
}
