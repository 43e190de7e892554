//! Reports to the machine what happened to the bids of tenants that want to be told: reads what the market answers, which
//! names everything by its name, and goes on from the place that the machine keeps.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use proto::envelope::Answers;
use proto::machine::{Role, Sender};
use proto::market::Answer;
use proto::webhook::{FACTS_MAX, Fact, FactKind, FactsPosition, ReportFacts, WebhookCommand};
use proto::{Machine as _, StreamName, TenantId, Timestamp, subject};
use runtime::batcher::Batcher;
use runtime::bus::{Bus, BusError, Delivery, Position, ReadEnd};
use runtime::shell::Stop;
use serde::Deserialize;
use webhook::Webhooks;

use crate::PRINCIPAL;
use crate::reading::TenantsAnswer;

/// How long the owner of the stream may take to say where it is.
const STATE_WAIT: Duration = Duration::from_secs(20);
/// Pause before another attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// Messages taken at a time.
const MESSAGES_MAX: usize = 256;
/// Bytes taken at a time.
const BYTES_MAX: usize = 8 << 20;
/// After so many messages without a fact for anybody the place is reported all the same, so that a start reads no more than
/// these again.
const UNREPORTED_MAX: u64 = 4_096;

/// Follows the answers of one exchange.
pub(crate) struct Follower {
    pub(crate) bus: Bus,
    pub(crate) exchange: StreamName,
}

/// Of whom a message of answers is.
#[derive(Deserialize)]
struct Head {
    machine: String,
    stream: StreamName,
}

impl Follower {
    /// Follows until the stop.
    pub(crate) async fn run(self, stop: Stop) -> Result<()> {
        let follow = async {
            loop {
                if let Err(error) = self.follow().await {
                    let error = format!("{error:#}");
                    tracing::warn!(exchange = %self.exchange, error, "facts are followed anew");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = follow => Ok(()),
            () = stop.into_requested() => Ok(()),
        }
    }

    async fn state(&self) -> Result<TenantsAnswer> {
        let question = subject::query(Webhooks::NAME, &self.exchange, "tenants");
        let parts = self.bus.request(&question, Bytes::from_static(b"{}"), STATE_WAIT).await?;
        Ok(serde_json::from_slice(&parts.concat())?)
    }

    async fn follow(&self) -> Result<()> {
        let end = match self.bus.stream_state(subject::ANSWER_STREAM).await {
            Err(BusError::NoSuchStream { .. }) => return Ok(()), // The market service makes it.
            state => state?,
        };
        let sender = Sender { role: Role::Service, principal: PRINCIPAL.parse()? };
        let command_subject = subject::command(Webhooks::NAME, &self.exchange, &sender);
        let batcher = Batcher::start(self.bus.clone(), command_subject, format!("facts-{}", self.exchange));
        let mut reported = if let Some(reported) = self.state().await?.reported {
            reported
        } else {
            // At the very first start: what happened before nobody asked to be told.
            let created = Timestamp::from_micros(end.created);
            let begin = FactsPosition { created, sequence: end.last, answers: u32::MAX };
            self.report(&batcher, begin, Vec::new()).await?;
            begin
        };
        // A message that was reported in part is read again.
        let read = reported.sequence - u64::from(reported.sequence > 0 && reported.answers < u32::MAX);
        let after = (read > 0).then_some(Position { created: reported.created.micros(), sequence: read });
        let filter = format!("{}.answer.*", subject::ROOT);
        let mut answers = self.bus.read(subject::ANSWER_STREAM, &filter, after).await?;
        loop {
            let messages = match answers.next_batch(MESSAGES_MAX, BYTES_MAX).await {
                Ok(messages) => messages,
                Err(end @ ReadEnd::GaveUp { .. }) => return Err(end.into()),
                // The first message is next, of a stream that was made later.
                Err(ReadEnd::StreamRegressed { .. }) => continue,
            };
            let tenants = self.state().await?.tenants;
            for message in messages {
                reported = self.report_message(&batcher, &message, &tenants, reported).await?;
            }
        }
    }

    /// Reports what a message says; gives up to where has been reported since.
    async fn report_message(
        &self,
        batcher: &Batcher,
        message: &Delivery,
        tenants: &BTreeSet<TenantId>,
        mut reported: FactsPosition,
    ) -> Result<FactsPosition> {
        let created = Timestamp::from_micros(message.position.created);
        let here = FactsPosition { created, sequence: message.position.sequence, answers: u32::MAX };
        let is_again = (reported.created, reported.sequence) == (here.created, here.sequence);
        let mut done = if is_again { reported.answers as usize } else { 0 };
        let letter = if tenants.is_empty() { None } else { self.letter(message) };
        if let Some((sequence, letter)) = letter {
            while done < letter.answers.len() {
                let upto = (done + FACTS_MAX).min(letter.answers.len());
                let facts = facts(sequence, &letter, done..upto, tenants);
                done = upto;
                if facts.is_empty() {
                    continue;
                }
                let answers = if done == letter.answers.len() { u32::MAX } else { done as u32 };
                reported = FactsPosition { answers, ..here };
                self.report(batcher, reported, facts).await?;
            }
        }
        let is_far = here.created != reported.created
            || here.sequence.saturating_sub(reported.sequence) >= UNREPORTED_MAX;
        if is_far {
            reported = here;
            self.report(batcher, here, Vec::new()).await?;
        }
        Ok(reported)
    }

    /// What a message says, if it is of this exchange, with the turn it follows from.
    fn letter(&self, message: &Delivery) -> Option<(u64, Answers<Answer>)> {
        let head: Head = serde_json::from_slice(&message.payload).ok()?;
        if head.machine != "market" || head.stream != self.exchange {
            return None;
        }
        match serde_json::from_slice::<Answers<Answer>>(&message.payload) {
            Ok(letter) => Some((letter.sequence?, letter)),
            Err(error) => {
                // A newer market says something that this version does not know.
                let sequence = message.position.sequence;
                tracing::error!(exchange = %self.exchange, sequence, %error, "answers cannot be read and are passed over");
                None
            }
        }
    }

    async fn report(&self, batcher: &Batcher, upto: FactsPosition, facts: Vec<Fact>) -> Result<()> {
        let id = format!("facts-{}-{}-{}", upto.created.micros(), upto.sequence, upto.answers).parse()?;
        let command = WebhookCommand::ReportFacts(ReportFacts { id, upto, facts });
        batcher.send(Bytes::from(serde_json::to_vec(&command)?)).await?;
        Ok(())
    }
}

/// The facts among some answers that are about tenants who want to be told.
fn facts(
    sequence: u64,
    letter: &Answers<Answer>,
    range: Range<usize>,
    tenants: &BTreeSet<TenantId>,
) -> Vec<Fact> {
    let is_wanted = |told: &&Answer| {
        FactKind::of(told).is_some()
            && webhook::tenant_of(told).is_some_and(|tenant| tenants.contains(tenant))
    };
    let told = letter.answers.get(range).into_iter().flatten().filter(is_wanted);
    told.map(|told| Fact { sequence, at: letter.at, told: told.clone() }).collect()
}
