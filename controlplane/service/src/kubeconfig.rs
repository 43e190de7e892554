//! Hands an administrator's kubeconfig to who asks for it in the name of its tenant. It is read from the management
//! cluster at that moment, and written down nowhere.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use controlplane::{namespace_name, plane_name};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use proto::{ClusterId, StreamName, TenantId, subject};
use runtime::bus::{Bus, Serving};
use serde::{Deserialize, Serialize};

/// The question's last token.
pub const KUBECONFIG_QUESTION: &str = "kubeconfig";
/// How long the management cluster may take.
const READ_WAIT: Duration = Duration::from_secs(5);
/// The member of the Secret that leads to the public endpoint.
pub(crate) const MEMBER: &str = "admin.conf";

/// Whose kubeconfig is asked for. Who asks has checked that the tenant is the one that it claims to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeconfigAsked {
    /// Whose cluster.
    pub tenant: TenantId,
    /// Which cluster.
    pub cluster: ClusterId,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum KubeconfigAnswer {
    /// Here it is.
    Kubeconfig {
        /// The file's text.
        kubeconfig: String,
    },
    /// There is none yet, or not any more.
    NotThere,
}

impl std::fmt::Debug for KubeconfigAnswer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            // A debug line must not carry somebody's key.
            Self::Kubeconfig { .. } => "Kubeconfig",
            Self::NotThere => "NotThere",
        })
    }
}

/// Answers until the returned value is dropped.
pub(crate) async fn serve(bus: &Bus, site: &StreamName, client: Client) -> Result<Serving> {
    let client = Arc::new(client);
    let filter = subject::query("controlplane", site, KUBECONFIG_QUESTION);
    let serving = bus.serve(&filter, move |query| {
        let client = Arc::clone(&client);
        async move {
            let asked: KubeconfigAsked =
                serde_json::from_slice(&query.payload).map_err(|error| error.to_string())?;
            let answer = tokio::time::timeout(READ_WAIT, read(&client, &asked)).await;
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return Err(format!("the management cluster says: {error}")),
                Err(_) => return Err("the management cluster does not answer".to_owned()),
            };
            serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| error.to_string())
        }
    });
    Ok(serving.await?)
}

async fn read(client: &Client, asked: &KubeconfigAsked) -> Result<KubeconfigAnswer, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace_name(&asked.tenant));
    let secret = secrets.get_opt(&format!("{}-admin-kubeconfig", plane_name(&asked.cluster))).await?;
    let data = secret.and_then(|secret| secret.data?.remove(MEMBER));
    let text = data.and_then(|bytes| String::from_utf8(bytes.0).ok());
    Ok(text.map_or(KubeconfigAnswer::NotThere, |kubeconfig| KubeconfigAnswer::Kubeconfig { kubeconfig }))
}
