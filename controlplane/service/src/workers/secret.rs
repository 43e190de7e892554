//! Join secrets, on request: whoever boots a server asks when it does. Nothing of it is written down.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use proto::machine::Role;
use proto::worker::{JoinSecretAnswer, JoinSecretQuestion, WorkerId};
use proto::{SourceId, StreamName, subject};
use runtime::bus::{Query, Serving};

use super::{Office, clock};

/// What is said of a lease that the asker has no servers for, and of one that is not there: the same, so that nobody
/// learns of others' leases.
const NOT_YOURS: &str = "lease: no lease of this number waits for a server of yours";

/// Answers hypervisors, and operators who boot servers by hand.
pub(super) async fn serve(office: &Arc<Office>) -> Result<Vec<Serving>> {
    let exchanges: Vec<StreamName> = office.desk().exchanges().cloned().collect();
    let (bus, mut serving) = (office.bus.clone(), Vec::new());
    for exchange in exchanges {
        for role in [Role::Hypervisor, Role::Operator] {
            let filter = subject::join_secrets(&exchange, role);
            let (office, exchange) = (Arc::clone(office), exchange.clone());
            let handler = move |query: Query| {
                let answer = answer(&office, &exchange, role, &query);
                async move { answer }
            };
            serving.push(bus.serve(&filter, handler).await?);
        }
    }
    Ok(serving)
}

fn answer(office: &Office, exchange: &StreamName, role: Role, query: &Query) -> Result<Bytes, String> {
    let question: JoinSecretQuestion =
        serde_json::from_slice(&query.payload).map_err(|error| error.to_string())?;
    // The broker's permissions fix who asks: it stands in the subject.
    let asker = query.subject.rsplit('.').next().unwrap_or_default();
    let source: SourceId = asker.parse().map_err(|_| NOT_YOURS.to_owned())?;
    let worker = WorkerId::new(exchange.clone(), question.lease).map_err(|error| error.to_string())?;
    let generation = match role {
        Role::Operator => office.desk().generation(&worker),
        _ => office.desk().may_boot(&worker, &source),
    };
    let generation = generation.ok_or_else(|| NOT_YOURS.to_owned())?;
    let expires_at = clock().plus_seconds(office.settings.join_seconds.get());
    let secret = office.site_key.mint(worker.clone(), generation, expires_at).reveal();
    tracing::info!(%worker, asker, "a join secret is given");
    let answer = JoinSecretAnswer { worker, generation, secret, expires_at };
    serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| error.to_string())
}
