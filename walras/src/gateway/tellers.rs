//! The gateway's side of webhooks: asks the machines that tell tenants, one for each exchange, and reads what they know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::machine::{Command as _, Sender};
use proto::webhook::{WebhookAccepted, WebhookAnswer, WebhookCommand};
use proto::{Machine as _, StreamName};
use runtime::batcher::Batcher;
use runtime::bus::Bus;
use serde::de::DeserializeOwned;
use serde_json::Value;
use webhook::Webhooks;

use super::desk::unsent;
use super::problem::Problem;
use super::waiting::Waiting;

/// How long a request waits for its answer before the tenant is told to ask again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a read waits for the owner.
const READ_WAIT: Duration = Duration::from_secs(6);

/// Asks who tells tenants.
pub(super) struct Tellers {
    bus: Bus,
    batchers: BTreeMap<StreamName, Batcher>,
    waiting: Arc<Waiting<WebhookAnswer>>,
}

impl Tellers {
    pub(super) fn open(
        bus: &Bus,
        sender: &Sender,
        exchanges: &[StreamName],
        unique: &str,
        waiting: Arc<Waiting<WebhookAnswer>>,
    ) -> Self {
        let open = |exchange: &StreamName| {
            let subject = proto::subject::command(Webhooks::NAME, exchange, sender);
            (exchange.clone(), Batcher::start(bus.clone(), subject, format!("{unique}.webhook.{exchange}")))
        };
        Self { bus: bus.clone(), batchers: exchanges.iter().map(open).collect(), waiting }
    }

    /// The exchanges whose tenants are told, by name.
    pub(super) fn exchanges(&self) -> impl Iterator<Item = &StreamName> {
        self.batchers.keys()
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// The refusal, or that the outcome is unknown.
    pub(super) async fn ask(
        &self,
        exchange: &StreamName,
        command: &WebhookCommand,
    ) -> Result<WebhookAccepted, Problem> {
        let Some(batcher) = self.batchers.get(exchange) else {
            return Err(Problem::not_found("exchange", exchange.as_str()));
        };
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
            Ok(Ok(WebhookAnswer::Accepted(accepted))) => Ok(accepted),
            Ok(Ok(WebhookAnswer::Refused(refused))) => Err(refused.into()),
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(Problem::outcome_unknown("whoever keeps webhooks has not answered in time")),
        }
    }

    /// Asks a question under a machine's name.
    ///
    /// # Errors
    /// 503 when there is no answer in time.
    pub(super) async fn question<A: DeserializeOwned>(
        &self,
        machine: &str,
        exchange: &StreamName,
        question: &str,
        asked: &Value,
    ) -> Result<A, Problem> {
        let subject = proto::subject::query(machine, exchange, question);
        let answered = self.bus.request(&subject, Bytes::from(asked.to_string()), READ_WAIT).await;
        let unanswered = |error: &dyn std::fmt::Display| {
            tracing::warn!(%exchange, %question, %error, "whoever keeps webhooks does not answer");
            Problem::unanswered("whoever keeps webhooks does not answer")
        };
        let parts = answered.map_err(|error| unanswered(&error))?;
        serde_json::from_slice(&parts.concat()).map_err(|error| unanswered(&error))
    }
}
