//! Notices over the bus: a connection that this agent opens and only listens on. What is missed while it is broken
//! comes with the answer to the next report, so nothing of it is kept.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use life::Input;
use proto::subject;
use proto::worker::{BusTerms, MESSAGE_BYTES_MAX, ReportAnswer, WorkerId};
use tokio::sync::mpsc;
use tunnel::spread;

use crate::konnectivity::chance;

/// Pause before the first attempt to connect again; it doubles with each.
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause. A broker that begins again hears from all workers within this time, and not at once.
const RETRY_CAP: Duration = Duration::from_secs(30);
/// Doublings of the pause.
const DOUBLINGS_MAX: usize = 5;
/// Between two pings of a connection that is quiet.
const PING: Duration = Duration::from_secs(30);
/// Messages that wait for us: a worker is told a few things in its life.
const MESSAGES_MAX: usize = 16;

/// Listens until it is dropped. `authority` is the file with the certificates of the terms, if they have some.
pub(crate) async fn listen(
    terms: BusTerms,
    authority: PathBuf,
    worker: WorkerId,
    inputs: mpsc::Sender<Input>,
) {
    for attempt in 0_usize.. {
        let ended = follow(&terms, &authority, &worker, &inputs).await;
        if inputs.is_closed() {
            return;
        }
        if let Err(error) = ended {
            tracing::warn!(error = %format!("{error:#}"), "notices do not come over the bus; reports go on");
        }
        tokio::time::sleep(pause(attempt)).await;
    }
}

fn pause(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1).min(DOUBLINGS_MAX)).unwrap_or_default();
    spread((RETRY * 2_u32.pow(doublings)).min(RETRY_CAP), chance())
}

async fn heard(event: Event, inputs: mpsc::Sender<Input>) {
    let open = match event {
        Event::Connected => true,
        Event::Disconnected => false,
        Event::ServerError(error) => {
            tracing::warn!(%error, "the bus");
            return;
        }
        _ => return,
    };
    tracing::info!(open, "the bus, for notices between two reports");
    // Nobody listens any more where the agent ends.
    let _told = inputs.send(Input::Bus(open)).await;
}

async fn follow(
    terms: &BusTerms,
    authority: &std::path::Path,
    worker: &WorkerId,
    inputs: &mpsc::Sender<Input>,
) -> anyhow::Result<()> {
    let told = inputs.clone();
    let options = ConnectOptions::with_user_and_password(worker.to_string(), terms.password.clone())
        .name(format!("walras-nodeagent {worker}"))
        .ping_interval(PING)
        .subscription_capacity(MESSAGES_MAX)
        .reconnect_delay_callback(pause)
        .retry_on_initial_connect()
        .event_callback(move |event| heard(event, told.clone()));
    let options = match terms.certificate_authority {
        Some(_) => options.add_root_certificates(authority.to_owned()),
        None => options,
    };
    let client = options.require_tls(terms.url.starts_with("tls://")).connect(terms.url.as_str()).await?;
    let mut orders = client.subscribe(subject::worker_order(worker)).await?;
    while let Some(message) = futures::StreamExt::next(&mut orders).await {
        if message.payload.len() > MESSAGE_BYTES_MAX {
            tracing::warn!(bytes = message.payload.len(), "an order that is too long is passed over");
            continue;
        }
        match serde_json::from_slice::<ReportAnswer>(&message.payload) {
            Ok(answer) => {
                if inputs.send(Input::Told(Box::new(answer))).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => tracing::warn!(%error, "an order that cannot be read is passed over"),
        }
    }
    anyhow::bail!("the subscription ended")
}
