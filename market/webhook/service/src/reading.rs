//! What can be asked about the webhooks of an exchange.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::machine::RestoreError;
use proto::webhook::{FactsPosition, WebhookEvent};
use proto::{StreamName, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use webhook::Webhooks;

/// Deliveries of one answer where nothing is said, and at most.
const DELIVERIES_DEFAULT: usize = 100;
const DELIVERIES_MAX: usize = 1_000;

/// How far the machine beside it has got: everything else the machine itself knows.
#[derive(Debug, Default)]
pub struct Reading {
    sequence: u64,
}

/// Whose webhooks are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantQuestion {
    tenant: TenantId,
    #[serde(default)]
    limit: Option<usize>,
    /// Read by whoever lets the question wait.
    #[serde(default)]
    wait_for_sequence: Option<u64>,
}

/// Which deliveries are to be attempted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DueQuestion {
    pub(crate) now: Timestamp,
    pub(crate) limit: usize,
}

/// Who wants to be told, and up to where facts were reported.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TenantsAnswer {
    pub(crate) tenants: BTreeSet<TenantId>,
    pub(crate) reported: Option<FactsPosition>,
}

impl runtime::runner::View<Webhooks> for Reading {
    const SNAPSHOT: u16 = 1;

    fn new(_: &StreamName) -> Self {
        Self::default()
    }

    fn apply(&mut self, _: Timestamp, sequence: u64, _: &WebhookEvent) {
        self.sequence = sequence;
    }

    fn settle(&mut self, _: Timestamp, sequence: u64) {
        self.sequence = sequence;
    }

    fn snapshot(&self) -> Vec<u8> {
        self.sequence.to_le_bytes().to_vec()
    }

    fn restore(_: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        let bytes: [u8; 8] = bytes
            .try_into()
            .map_err(|_| RestoreError::Unreadable { problem: format!("{} bytes, not 8", bytes.len()) })?;
        Ok(Self { sequence: u64::from_le_bytes(bytes) })
    }

    /// Questions: `webhooks` and `deliveries` of a tenant, `due` (for the courier), `tenants` (for the follower).
    fn answer(&self, machine: &Webhooks, question: &str, payload: &[u8]) -> Result<Bytes, String> {
        match question {
            "webhooks" => {
                let asked: TenantQuestion = read(payload)?;
                json(&machine.webhooks(&asked.tenant, self.sequence))
            }
            "deliveries" => {
                let asked: TenantQuestion = read(payload)?;
                let _ = asked.wait_for_sequence;
                let most = asked.limit.unwrap_or(DELIVERIES_DEFAULT).clamp(1, DELIVERIES_MAX);
                json(&machine.deliveries(&asked.tenant, self.sequence, most))
            }
            "due" => {
                let asked: DueQuestion = read(payload)?;
                json(&machine.due_by(asked.now, asked.limit.clamp(1, DELIVERIES_MAX)))
            }
            "tenants" => {
                let tenants = machine.tenants().cloned().collect();
                json(&TenantsAnswer { tenants, reported: machine.reported() })
            }
            other => Err(format!(
                "question {other} is unknown: webhooks, deliveries, due and tenants are answered"
            )),
        }
    }
}

fn read<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

fn json(value: &impl Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string())
}
