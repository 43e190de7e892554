//! What placement tells who sent a command.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Refused;
use crate::id::{ClusterId, CommandId, TenantId};

/// A command was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacementAccepted {
    /// The command's id.
    pub id: CommandId,
    /// Its tenant, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The cluster it concerns, if it concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// The version of the cluster's terms now, where they were set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Where in the machine's stream it was decided: a read can wait for it.
    pub sequence: u64,
}

/// What placement tells who sent a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum PlacementAnswer {
    /// A command was carried out.
    Accepted(PlacementAccepted),
    /// A command was not carried out.
    Refused(Refused),
}
