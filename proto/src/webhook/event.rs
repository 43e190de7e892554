//! What was decided, and who is answered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::{FactsPosition, is_false};
use super::{DeliveryNumber, Fact, FactKind, WebhookNumber};
use crate::envelope::{Refusal, Refused};
use crate::id::{CommandId, TenantId, WebhookId};
use crate::market::LeaseNumber;
use crate::time::Timestamp;

/// What was decided about webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum WebhookEvent {
    /// A command was not carried out.
    CommandRefused(Refusal),
    /// A webhook is there, or is another one.
    WebhookSet {
        /// Its number.
        number: WebhookNumber,
        /// Whose it is.
        tenant: TenantId,
        /// Its name.
        webhook: WebhookId,
        /// Where to.
        url: String,
        /// Which kinds of facts; none: all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<FactKind>,
        /// Whether it has the keys that older readers know.
        #[serde(default, skip_serializing_if = "is_false")]
        legacy: bool,
    },
    /// A webhook is gone, with what waited for it.
    WebhookRemoved {
        /// Its number.
        number: WebhookNumber,
    },
    /// Facts were reported up to a place in the stream of answers.
    FactsReported {
        /// The place.
        upto: FactsPosition,
    },
    /// A webhook is to be told something.
    DeliveryQueued {
        /// The delivery's number.
        number: DeliveryNumber,
        /// Which webhook.
        webhook: WebhookNumber,
        /// What.
        fact: Box<Fact>,
        /// Of which lease alone, where each is told by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseNumber>,
    },
    /// It was taken.
    DeliveryDone {
        /// Which delivery.
        number: DeliveryNumber,
    },
    /// It was not taken, and will be tried again.
    DeliveryFailed {
        /// Which delivery.
        number: DeliveryNumber,
        /// Attempts made.
        attempts: u32,
        /// When it is tried next.
        next_at: Timestamp,
        /// What went wrong.
        failure: String,
    },
    /// It is given up, and kept for its tenant to see.
    DeliveryDead {
        /// Which delivery.
        number: DeliveryNumber,
        /// What went wrong.
        failure: String,
    },
    /// One that waits, or was given up, is tried now, with all its attempts before it.
    DeliveryRevived {
        /// Which delivery.
        number: DeliveryNumber,
    },
    /// One that was given up long ago is no longer kept.
    DeliveryForgotten {
        /// Which delivery.
        number: DeliveryNumber,
    },
}

/// A command was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookAccepted {
    /// The command's id.
    pub id: CommandId,
    /// Its tenant, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Where in the machine's stream it was decided: a read can wait for it.
    pub sequence: u64,
}

/// What the sender of a command is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum WebhookAnswer {
    /// A command was carried out.
    Accepted(WebhookAccepted),
    /// A command was not carried out.
    Refused(Refused),
}
