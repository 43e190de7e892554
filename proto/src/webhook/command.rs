//! What is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{DeliveryNumber, Fact, FactKind};
use crate::decode::tagged;
use crate::id::{CommandId, TenantId, WebhookId};
use crate::machine::Command;
use crate::time::Timestamp;

/// A tenant wants to be told at an address. One of the same name is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetWebhook {
    /// Id of the command.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name, unique for its tenant.
    pub webhook: WebhookId,
    /// Where to: `https://…` or `http://…`.
    #[schemars(length(max = 2_048))]
    pub url: String,
    /// Which kinds of facts; all of them where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<FactKind>,
    /// Whether each lease is told by itself, with the four keys `cloudspace`, `Server`, `IP` and `Time` that readers of the
    /// webhook of Rackspace Spot know.
    #[serde(default, skip_serializing_if = "is_false")]
    pub legacy: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
pub(super) fn is_false(said: &bool) -> bool {
    !*said
}

/// A tenant wants to be told no more; what waits is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveWebhook {
    /// Id of the command.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which one.
    pub webhook: WebhookId,
}

/// A tenant wants a delivery that waits, or was given up, to be tried now, with all its attempts before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redeliver {
    /// Id of the command.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which one.
    pub delivery: DeliveryNumber,
}

/// Up to where facts were reported: a place in the stream of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactsPosition {
    /// When the stream was made, as the broker says.
    pub created: Timestamp,
    /// The message.
    pub sequence: u64,
    /// How many of its answers; all of them where it is not said.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub answers: u32,
}

fn all() -> u32 {
    u32::MAX
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_all(answers: &u32) -> bool {
    *answers == u32::MAX
}

/// Says what happened to the bids of tenants that want to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportFacts {
    /// Id of the command.
    pub id: CommandId,
    /// Up to where this reports. What was reported before is refused.
    pub upto: FactsPosition,
    /// In order.
    #[schemars(length(max = 512))]
    pub facts: Vec<Fact>,
}

/// Says what came of an attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportAttempt {
    /// Id of the command.
    pub id: CommandId,
    /// Which delivery.
    pub delivery: DeliveryNumber,
    /// Which attempt, counted from 1. An attempt that was reported already is refused.
    pub attempt: u32,
    /// What went wrong, in a line; absent: it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum WebhookCommand {
    /// A tenant wants to be told.
    SetWebhook(SetWebhook),
    /// A tenant wants to be told no more.
    RemoveWebhook(RemoveWebhook),
    /// A tenant wants another attempt.
    Redeliver(Redeliver),
    /// Something happened.
    ReportFacts(ReportFacts),
    /// An attempt was made.
    ReportAttempt(ReportAttempt),
}

impl<'de> Deserialize<'de> for WebhookCommand {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        tagged!(from, WebhookCommand { SetWebhook, RemoveWebhook, Redeliver, ReportFacts, ReportAttempt })
    }
}

impl Command for WebhookCommand {
    fn id(&self) -> &CommandId {
        match self {
            Self::SetWebhook(command) => &command.id,
            Self::RemoveWebhook(command) => &command.id,
            Self::Redeliver(command) => &command.id,
            Self::ReportFacts(command) => &command.id,
            Self::ReportAttempt(command) => &command.id,
        }
    }

    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::SetWebhook(command) => Some(&command.tenant),
            Self::RemoveWebhook(command) => Some(&command.tenant),
            Self::Redeliver(command) => Some(&command.tenant),
            Self::ReportFacts(_) | Self::ReportAttempt(_) => None,
        }
    }
}
