//! Who may listen on the bus: the broker asks about every user that its configuration does not name, and each worker
//! whose lease lives gets in, to hear what it is told.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use proto::subject;
use proto::worker::WorkerId;
use runtime::bus::{Query, Serving};
use runtime::nats::callout::{Applicant, CALLOUT_SUBJECT, CalloutError};

use super::{Entrance, Office, clock};

/// After so long a worker has to show itself again, in seconds: one whose lease is over then stays out.
const ADMITTED_SECONDS: u32 = 86_400;
/// What is said to whoever is kept out, whatever the reason.
const REFUSED: &str = "no such worker, or not its password";

/// Answers the broker, where workers get into the bus at all.
pub(super) async fn serve(office: &Arc<Office>) -> Result<Option<Serving>> {
    if office.entrance.is_none() {
        return Ok(None);
    }
    let asked = Arc::clone(office);
    let handler = move |query: Query| {
        let office = Arc::clone(&asked);
        async move {
            let entrance = office.entrance.as_ref().ok_or_else(|| REFUSED.to_owned())?;
            let answer = answer(&office, entrance, &query.payload).await;
            answer.map(Bytes::from).map_err(|error| error.to_string())
        }
    };
    Ok(Some(office.bus.serve(CALLOUT_SUBJECT, handler).await?))
}

async fn answer(office: &Office, entrance: &Entrance, payload: &[u8]) -> Result<Vec<u8>, CalloutError> {
    let applicant = Applicant::read(payload)?;
    let now = clock();
    match admitted(office, &applicant).await {
        Some(worker) => {
            let until = now.plus_seconds(ADMITTED_SECONDS);
            entrance.issuer.admit(&applicant, now, until, &[subject::worker_order(&worker)])
        }
        None => entrance.issuer.refuse(&applicant, now, REFUSED),
    }
}

/// Which worker somebody is, if it is one whose lease lives.
async fn admitted(office: &Office, applicant: &Applicant) -> Option<WorkerId> {
    let worker: WorkerId = applicant.name.parse().ok()?;
    let (bound, _) = office.known(&worker).await?;
    office.desk().generation(&worker)?;
    office.site_key.is_bus_password(&applicant.password, &worker, &bound).then_some(worker)
}
