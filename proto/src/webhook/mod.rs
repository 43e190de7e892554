//! What is said to the machine that tells tenants over HTTP what happened to their bids, and what it says.

mod command;
mod event;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use command::{
    FactsPosition, Redeliver, RemoveWebhook, ReportAttempt, ReportFacts, SetWebhook, WebhookCommand,
};
pub use event::{WebhookAccepted, WebhookAnswer, WebhookEvent};

use crate::id::StreamName;
use crate::market::Answer;
use crate::time::Timestamp;

/// A webhook's number within its stream, counted from 1 and never used again.
pub type WebhookNumber = u64;
/// A delivery's number within its stream, counted from 1 and never used again.
pub type DeliveryNumber = u64;

/// Longest address of a webhook, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// Most facts of one report.
pub const FACTS_MAX: usize = 512;
/// Longest account of what went wrong with a delivery, in bytes.
pub const FAILURE_BYTES_MAX: usize = 512;

/// What kind of fact a webhook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FactKind {
    /// A bid won units.
    Won,
    /// Units have to leave.
    Notice,
    /// Units need not leave after all.
    Withdrawn,
    /// Units that wait for a server get it later than they were told.
    Delayed,
    /// Units have ready workers.
    Ready,
    /// Workers of units are dead.
    Dead,
    /// Units are gone without a server of theirs to drain: it died, or they never had one.
    Lost,
    /// Units are gone: drained, or their notice is over.
    Released,
    /// A bid's time is over.
    Expired,
}

impl FactKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Won,
        Self::Notice,
        Self::Withdrawn,
        Self::Delayed,
        Self::Ready,
        Self::Dead,
        Self::Lost,
        Self::Released,
        Self::Expired,
    ];

    /// The kind as a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Notice => "notice",
            Self::Withdrawn => "withdrawn",
            Self::Delayed => "delayed",
            Self::Ready => "ready",
            Self::Dead => "dead",
            Self::Lost => "lost",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    /// What kind of fact an answer of the market is; `None` of what answers a command.
    pub const fn of(told: &Answer) -> Option<Self> {
        use crate::market::ReleaseReason::{NeverServed, ProvisioningTimedOut, ServerLost, WorkerDead};
        Some(match told {
            Answer::Awarded(_) => Self::Won,
            Answer::NoticeGiven(_) => Self::Notice,
            Answer::NoticeWithdrawn(_) => Self::Withdrawn,
            Answer::Delayed(_) => Self::Delayed,
            Answer::Ready(_) => Self::Ready,
            Answer::Dead(_) => Self::Dead,
            Answer::Released(released) => match released.reason {
                ServerLost | NeverServed | ProvisioningTimedOut | WorkerDead => Self::Lost,
                _ => Self::Released,
            },
            Answer::Expired(_) => Self::Expired,
            Answer::Accepted(_) | Answer::Refused(_) => return None,
        })
    }
}

/// Something that happened to a tenant's bid, as the market told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// The turn of the exchange that it follows from.
    pub sequence: u64,
    /// The instant of the turn.
    pub at: Timestamp,
    /// What was told.
    pub told: Answer,
}

impl Fact {
    /// Its name: the same whenever it is told, and no other fact's. Of what one turn told, the digest of its text is.
    pub fn id(&self, exchange: &StreamName) -> String {
        // A fact is plain data; writing it to memory cannot fail.
        let text = serde_json::to_vec(&self.told).unwrap_or_default();
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::digest(text)[..8]);
        format!("{exchange}-{}-{:016x}", self.sequence, u64::from_be_bytes(first))
    }
}
