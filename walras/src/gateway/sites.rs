//! The gateway's side of placement: asks for clusters and reads them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use controlplane_service::{KUBECONFIG_QUESTION, KubeconfigAnswer, KubeconfigAsked};
use placement::machine::ClustersView;
use proto::machine::{Command as _, Sender};
use proto::placement::{PlacementAccepted, PlacementAnswer, PlacementCommand};
use proto::{ClusterId, StreamName, TenantId};
use runtime::batcher::Batcher;
use runtime::bus::Bus;
use serde_json::json;

use super::desk::unsent;
use super::problem::Problem;
use super::waiting::Waiting;

/// How long a request waits for its answer before the tenant is told to ask again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a read waits for the site's owner.
const READ_WAIT: Duration = Duration::from_secs(6);

/// Asks sites, and reads from their owners.
pub(super) struct Sites {
    bus: Bus,
    batchers: BTreeMap<StreamName, Batcher>,
    waiting: Arc<Waiting<PlacementAnswer>>,
}

impl Sites {
    pub(super) fn open(
        bus: &Bus,
        sender: &Sender,
        sites: &[StreamName],
        unique: &str,
        waiting: Arc<Waiting<PlacementAnswer>>,
    ) -> Self {
        let open = |site: &StreamName| {
            let subject = proto::subject::command("placement", site, sender);
            (site.clone(), Batcher::start(bus.clone(), subject, format!("{unique}.site.{site}")))
        };
        Self { bus: bus.clone(), batchers: sites.iter().map(open).collect(), waiting }
    }

    /// The site of that name, or the first one.
    fn named<'a>(&'a self, name: Option<&'a StreamName>) -> Result<(&'a StreamName, &'a Batcher), Problem> {
        let found = match name {
            Some(name) => self.batchers.get_key_value(name),
            None => self.batchers.first_key_value(),
        };
        found.ok_or_else(|| Problem::not_found("site", name.map_or("of any name", StreamName::as_str)))
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// The refusal, or that the outcome is unknown.
    pub(super) async fn ask(
        &self,
        site: Option<&StreamName>,
        command: &PlacementCommand,
    ) -> Result<PlacementAccepted, Problem> {
        let (_, batcher) = self.named(site)?;
        let Some(tenant) = command.tenant().cloned() else {
            return Err(Problem::outcome_unknown("only tenants' commands come through the gateway"));
        };
        let payload = serde_json::to_vec(command)
            .map_err(|error| Problem::malformed("body", "", &error.to_string()))?;
        let key = (tenant, command.id().clone());
        let answer = self.waiting.wait(key.clone())?;
        let outcome = async {
            batcher.send(Bytes::from(payload)).await.map_err(|error| unsent(&error))?;
            answer.await.map_err(|_| Problem::outcome_unknown("this gateway is stopping"))
        };
        let outcome = tokio::time::timeout(ANSWER_WAIT, outcome).await;
        self.waiting.forget(&key);
        match outcome {
            Ok(Ok(PlacementAnswer::Accepted(accepted))) => Ok(accepted),
            Ok(Ok(PlacementAnswer::Refused(refused))) => Err(refused.into()),
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(Problem::outcome_unknown("placement has not answered in time")),
        }
    }

    /// Clusters of a tenant, once their site has got as far as `sequence`; with a name, that one only.
    ///
    /// # Errors
    /// 404 for a site nobody knows, 503 when there is no answer in time.
    pub(super) async fn clusters(
        &self,
        site: Option<&StreamName>,
        tenant: &TenantId,
        cluster: Option<&ClusterId>,
        sequence: u64,
    ) -> Result<ClustersView, Problem> {
        let (site, _) = self.named(site)?;
        let mut asked = json!({ "tenant": tenant, "wait_for_sequence": sequence });
        if let Some(cluster) = cluster {
            asked["cluster"] = json!(cluster);
        }
        let subject = proto::subject::query("placement", site, "clusters");
        let answered = self.bus.request(&subject, Bytes::from(asked.to_string()), READ_WAIT).await;
        let unanswered = |error: &dyn std::fmt::Display| {
            tracing::warn!(%site, %error, "placement does not answer");
            Problem::unanswered("the placement service does not answer")
        };
        let parts = answered.map_err(|error| unanswered(&error))?;
        serde_json::from_slice(&parts.concat()).map_err(|error| unanswered(&error))
    }

    /// The kubeconfig of a tenant's cluster, from whoever drives the site's management cluster. The tenant is the one
    /// whose token was checked.
    ///
    /// # Errors
    /// 404 for a site nobody knows, 503 when there is no answer in time.
    pub(super) async fn kubeconfig(
        &self,
        site: Option<&StreamName>,
        tenant: &TenantId,
        cluster: &ClusterId,
    ) -> Result<KubeconfigAnswer, Problem> {
        let (site, _) = self.named(site)?;
        let asked = KubeconfigAsked { tenant: tenant.clone(), cluster: cluster.clone() };
        let subject = proto::subject::query("controlplane", site, KUBECONFIG_QUESTION);
        let unanswered = |error: &dyn std::fmt::Display| {
            tracing::warn!(%site, %error, "the control-plane service does not answer");
            Problem::unanswered("the control-plane service does not answer")
        };
        let payload = serde_json::to_vec(&asked).map_err(|error| unanswered(&error))?;
        let answered = self.bus.request(&subject, Bytes::from(payload), READ_WAIT).await;
        let parts = answered.map_err(|error| unanswered(&error))?;
        // What is wrong with an answer may show a part of it.
        serde_json::from_slice(&parts.concat()).map_err(|_| unanswered(&"an answer that cannot be read"))
    }
}
