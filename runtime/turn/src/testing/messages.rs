//! What the toy machine is asked and what it says.

use proto::envelope::{Refusal, Refused};
use proto::machine::Command;
use proto::{CommandId, PrincipalId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

/// An alarm's number, counted from 1.
pub type AlarmNumber = u64;

/// Adds to a tenant's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// Id of the command.
    pub id: CommandId,
    /// Whose account.
    pub tenant: TenantId,
    /// How much, possibly negative.
    pub amount: i64,
}

/// Asks for the present total.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inquire {
    /// Id of the command.
    pub id: CommandId,
    /// Whose account.
    pub tenant: TenantId,
}

/// Asks to be told later. Its id belongs to the sender, not to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAlarm {
    /// Id of the command.
    pub id: CommandId,
    /// How much later, in microseconds.
    pub after_micros: u32,
}

/// What the toy machine is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum TallyCommand {
    /// Adds.
    Add(Add),
    /// Asks.
    Inquire(Inquire),
    /// Asks to be told later.
    SetAlarm(SetAlarm),
}

impl Command for TallyCommand {
    fn id(&self) -> &CommandId {
        match self {
            Self::Add(add) => &add.id,
            Self::Inquire(inquire) => &inquire.id,
            Self::SetAlarm(alarm) => &alarm.id,
        }
    }

    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Add(add) => Some(&add.tenant),
            Self::Inquire(inquire) => Some(&inquire.tenant),
            Self::SetAlarm(_) => None,
        }
    }
}

/// What the toy machine decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum TallyEvent {
    /// A command was not carried out.
    CommandRefused(Refusal),
    /// An account was added to.
    Added {
        /// Whose.
        tenant: TenantId,
        /// How much.
        amount: i64,
        /// What it holds now.
        total: i64,
    },
    /// A total was told.
    Told {
        /// Whose.
        tenant: TenantId,
        /// The total.
        total: i64,
    },
    /// An alarm was set.
    AlarmSet {
        /// Its number.
        number: AlarmNumber,
        /// Who is told.
        by: PrincipalId,
        /// When.
        rings_at: Timestamp,
    },
    /// An alarm rang.
    AlarmRang {
        /// Its number.
        number: AlarmNumber,
        /// Who is told.
        by: PrincipalId,
    },
    /// The accounts were summed up.
    Summed {
        /// For how many times now.
        number: u64,
        /// The sum.
        sum: i64,
    },
}

/// What the toy machine tells single parties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum TallyAnswer {
    /// A command was not carried out.
    Refused(Refused),
    /// An addition or inquiry was carried out.
    Total {
        /// The command's id.
        id: CommandId,
        /// The account's tenant.
        tenant: TenantId,
        /// What the account held right then.
        total: i64,
    },
    /// An alarm was set.
    AlarmSet {
        /// The command's id.
        id: CommandId,
        /// The alarm's number.
        number: AlarmNumber,
    },
    /// An alarm rang.
    AlarmRang {
        /// Its number.
        number: AlarmNumber,
    },
}

impl TallyAnswer {
    /// The answer to a command whose first event is `event`.
    pub(super) fn to_command(sequence: u64, command: &TallyCommand, event: &TallyEvent) -> Self {
        let id = command.id().clone();
        match event {
            TallyEvent::Added { tenant, total, .. } | TallyEvent::Told { tenant, total } => {
                Self::Total { id, tenant: tenant.clone(), total: *total }
            }
            TallyEvent::AlarmSet { number, .. } | TallyEvent::AlarmRang { number, .. } => {
                Self::AlarmSet { id, number: *number }
            }
            TallyEvent::CommandRefused(refusal) => {
                let (tenant, refusal) = (command.tenant().cloned(), refusal.clone());
                Self::Refused(Refused { id: Some(id), tenant, sequence: Some(sequence), refusal })
            }
            TallyEvent::Summed { number, .. } => Self::AlarmRang { number: *number },
        }
    }

    /// The id of the command that is answered, if this answers one.
    pub fn command(&self) -> Option<&CommandId> {
        match self {
            Self::Refused(refused) => refused.id.as_ref(),
            Self::Total { id, .. } | Self::AlarmSet { id, .. } => Some(id),
            Self::AlarmRang { .. } => None,
        }
    }
}
