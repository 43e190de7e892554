//! Delivers: asks which deliveries are due, posts them, and reports what came of it. It keeps nothing: who is killed asks
//! again at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::Bytes;
use proto::machine::{Role, Sender};
use proto::webhook::{DeliveryNumber, ReportAttempt, WebhookCommand};
use proto::{Machine as _, StreamName, Timestamp, subject};
use runtime::batcher::Batcher;
use runtime::bus::Bus;
use runtime::shell::Stop;
use tokio::task::JoinSet;
use webhook::{Due, Webhooks};

use crate::PRINCIPAL;
use crate::post::{Posted, Poster};
use crate::reading::DueQuestion;
use crate::secrets::Secrets;
use crate::sign::signature;

/// How long the owner of the stream may take to say what is due.
const DUE_WAIT: Duration = Duration::from_secs(20);
/// Pause between two looks at what is due.
const LOOK: Duration = Duration::from_millis(250);
/// Pause after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts under way at once, over all tenants.
const ATTEMPTS_AT_ONCE_MAX: usize = 32;
/// Attempts under way at once for one webhook, so that a receiver that hangs takes few places.
const ATTEMPTS_PER_WEBHOOK_MAX: usize = 4;
/// Deliveries asked for at a time.
const DUE_MAX: usize = 256;
/// How long an attempt that was reported is kept in mind: until then whoever is asked has heard of it.
const REPORTED_FOR: Duration = Duration::from_secs(5);

/// Delivers for one exchange.
pub(crate) struct Courier {
    pub(crate) bus: Bus,
    pub(crate) exchange: StreamName,
    pub(crate) poster: Poster,
    pub(crate) secrets: Secrets,
    pub(crate) unique: String,
}

/// What is under way and what was reported just now.
#[derive(Default)]
struct Underway {
    attempts: JoinSet<(Due, Posted)>,
    deliveries: BTreeSet<DeliveryNumber>,
    by_webhook: BTreeMap<String, usize>,
    reported: BTreeMap<DeliveryNumber, (u32, Instant)>,
}

impl Underway {
    fn may_begin(&self, due: &Due) -> bool {
        let is_reported =
            self.reported.get(&due.delivery).is_some_and(|&(attempt, _)| attempt == due.attempt);
        let of_webhook = self.by_webhook.get(&key(due)).copied().unwrap_or(0);
        self.attempts.len() < ATTEMPTS_AT_ONCE_MAX
            && of_webhook < ATTEMPTS_PER_WEBHOOK_MAX
            && !is_reported
            && !self.deliveries.contains(&due.delivery)
    }

    fn begun(&mut self, due: &Due) {
        self.deliveries.insert(due.delivery);
        *self.by_webhook.entry(key(due)).or_default() += 1;
    }

    fn ended(&mut self, due: &Due) {
        self.deliveries.remove(&due.delivery);
        if let Some(count) = self.by_webhook.get_mut(&key(due)) {
            *count -= 1;
            if *count == 0 {
                self.by_webhook.remove(&key(due));
            }
        }
        self.reported.insert(due.delivery, (due.attempt, Instant::now()));
    }
}

fn key(due: &Due) -> String {
    format!("{} {}", due.tenant, due.webhook)
}

/// UTC, as the machine's clock has it.
fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Courier {
    /// Delivers until the stop. What is under way then is attempted again at the next start.
    pub(crate) async fn run(self, stop: Stop) -> Result<()> {
        let sender = Sender { role: Role::Service, principal: PRINCIPAL.parse()? };
        let command_subject = subject::command(Webhooks::NAME, &self.exchange, &sender);
        let unique = format!("attempts-{}-{}", self.exchange, self.unique);
        let batcher = Batcher::start(self.bus.clone(), command_subject, unique);
        let deliver = async {
            let mut underway = Underway::default();
            let mut reports = 0_u64;
            loop {
                let pause = match self.turn(&batcher, &mut underway, &mut reports).await {
                    Ok(()) => LOOK,
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(exchange = %self.exchange, error, "nothing is delivered for a moment");
                        PAUSE
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = deliver => Ok(()),
            () = stop.into_requested() => Ok(()),
        }
    }

    /// Reports what has ended, and begins what is due.
    async fn turn(&self, batcher: &Batcher, underway: &mut Underway, reports: &mut u64) -> Result<()> {
        while let Some(ended) = underway.attempts.try_join_next() {
            let (due, posted) = ended.context("an attempt")?;
            *reports += 1;
            self.report(batcher, &due, posted, *reports).await?;
            underway.ended(&due);
        }
        underway.reported.retain(|_, (_, since)| since.elapsed() < REPORTED_FOR);
        for due in self.due().await? {
            if !underway.may_begin(&due) {
                continue;
            }
            underway.begun(&due);
            let poster = self.poster.clone();
            let secret = self.secrets.of(&due.tenant, &due.webhook);
            underway.attempts.spawn_blocking(move || {
                let signature =
                    signature(&secret, clock().micros().div_euclid(1_000_000), due.body.as_bytes());
                let posted = poster.post(&due.url, &signature, &due.body);
                (due, posted)
            });
        }
        Ok(())
    }

    async fn due(&self) -> Result<Vec<Due>> {
        let question = subject::query(Webhooks::NAME, &self.exchange, "due");
        let asked = serde_json::to_vec(&DueQuestion { now: clock(), limit: DUE_MAX })?;
        let parts = self.bus.request(&question, Bytes::from(asked), DUE_WAIT).await?;
        Ok(serde_json::from_slice(&parts.concat())?)
    }

    async fn report(&self, batcher: &Batcher, due: &Due, posted: Posted, number: u64) -> Result<()> {
        let failure = match posted {
            Posted::Taken => None,
            Posted::Failed(failure) => Some(failure),
        };
        let id = format!("attempt-{}-{number}", self.unique).parse()?;
        let (delivery, attempt) = (due.delivery, due.attempt);
        let command = WebhookCommand::ReportAttempt(ReportAttempt { id, delivery, attempt, failure });
        batcher.send(Bytes::from(serde_json::to_vec(&command)?)).await?;
        Ok(())
    }
}
