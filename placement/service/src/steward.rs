//! Brings the configuration of a site into force: compares it with what stands and sends what differs, as commands that
//! are journaled and answered like any other.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use proto::envelope::Answers;
use proto::machine::{Command, Role, Sender};
use proto::placement::{AdoptSiteRules, OfferDataStore, OfferHost, PlacementAnswer, PlacementCommand};
use proto::{CommandId, StreamName, subject};
use runtime::admin::Condition;
use runtime::batcher::Batcher;
use runtime::bus::{Bus, Listener};
use runtime::config::SiteSettings;
use runtime::shell::Stop;

use crate::PRINCIPAL;
use crate::reading::SiteAnswer;

/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the owner of the site may take to say what stands.
const STATE_WAIT: Duration = Duration::from_secs(20);

/// What is to hold in a site.
pub(crate) struct Steward {
    pub(crate) bus: Bus,
    pub(crate) site: StreamName,
    pub(crate) settings: SiteSettings,
}

impl Steward {
    /// Tries until it is in force, then waits for the stop.
    pub(crate) async fn run(self, stop: Stop, condition: Condition) -> Result<()> {
        condition.unmet("not in force yet");
        let apply = async {
            loop {
                match tokio::time::timeout(ATTEMPT_MAX, self.apply()).await {
                    Ok(Ok(sent)) => return sent,
                    Ok(Err(error)) => {
                        tracing::warn!(site = %self.site, error = format!("{error:#}"), "the configuration is not in force yet");
                        condition.unmet(format!("{error:#}"));
                    }
                    Err(_) => condition.unmet("no answer in time"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            sent = apply => {
                tracing::info!(site = %self.site, commands = sent, "the configuration is in force");
                condition.met(format!("{} hosts, {} data stores", self.settings.hosts.len(), self.settings.data_stores.len()));
            }
            () = stop.clone().into_requested() => return Ok(()),
        }
        stop.into_requested().await;
        Ok(())
    }

    async fn apply(&self) -> Result<usize> {
        let sender = Sender { role: Role::Service, principal: PRINCIPAL.parse()? };
        let mut answers = self.bus.listen(&subject::answer(&sender.principal)).await?;
        let question = subject::query("placement", &self.site, "site");
        let parts = self.bus.request(&question, Bytes::new(), STATE_WAIT).await?;
        let answered: SiteAnswer = serde_json::from_slice(&parts.concat())?;
        let commands = self.commands(&answered)?;
        let subject = subject::command("placement", &self.site, &sender);
        // Ids say what is asked, so that an attempt whose answer was missed is asked again, not twice.
        let batcher = Batcher::start(self.bus.clone(), subject, format!("config-{}", self.site));
        for command in &commands {
            batcher.send(Bytes::from(serde_json::to_vec(command)?)).await?;
        }
        let mut waiting: Vec<&CommandId> = commands.iter().map(Command::id).collect();
        while !waiting.is_empty() {
            for id in self.next_answers(&mut answers).await? {
                waiting.retain(|waiting| **waiting != id);
            }
        }
        Ok(commands.len())
    }

    /// What must be said so that the configuration holds. What others offered stays as it is.
    fn commands(&self, answered: &SiteAnswer) -> Result<Vec<PlacementCommand>> {
        let mut commands = Vec::new();
        // Ids name what stands, so that an attempt whose answer was missed asks the same again.
        let unique = format!("config-{}", answered.sequence);
        let view = &answered.site;
        if view.rules != self.settings.rules {
            let id = format!("{unique}-rules").parse()?;
            let rules = self.settings.rules.clone();
            commands.push(PlacementCommand::AdoptSiteRules(AdoptSiteRules { id, rules }));
        }
        for (place, store) in self.settings.data_stores.iter().enumerate() {
            let stands = view.data_stores.iter().find(|known| known.data_store == store.id);
            if stands.is_none_or(|known| known.terms != store.terms()) {
                let generation = stands.map_or(1, |known| known.generation.saturating_add(1));
                let (id, data_store) = (format!("{unique}-store-{place}").parse()?, store.id.clone());
                let terms = store.terms();
                commands.push(PlacementCommand::OfferDataStore(OfferDataStore {
                    id,
                    data_store,
                    generation,
                    terms,
                }));
            }
        }
        for (place, host) in self.settings.hosts.iter().enumerate() {
            let stands = view.hosts.iter().find(|known| known.host == host.id);
            if stands.is_none_or(|known| known.terms != host.terms()) {
                let generation = stands.map_or(1, |known| known.generation.saturating_add(1));
                let (id, name) = (format!("{unique}-host-{place}").parse()?, host.id.clone());
                let terms = host.terms();
                commands.push(PlacementCommand::OfferHost(OfferHost { id, host: name, generation, terms }));
            }
        }
        Ok(commands)
    }

    async fn next_answers(&self, answers: &mut Listener) -> Result<Vec<CommandId>> {
        let told = answers.next().await.context("the bus has ended")?;
        let told: Answers<PlacementAnswer> = serde_json::from_slice(&told.payload)?;
        if told.stream != self.site || told.machine != PRINCIPAL {
            return Ok(Vec::new());
        }
        let mut ids = Vec::new();
        for answer in told.answers {
            match answer {
                PlacementAnswer::Accepted(accepted) => ids.push(accepted.id),
                // Reports of bids are answered to this principal, too; one that came twice is refused as stale.
                PlacementAnswer::Refused(refused) => match refused.id {
                    Some(id) if id.as_str().starts_with(placement::machine::REPORT_PREFIX) => {}
                    _ => bail!("refused: {}", refused.refusal.message),
                },
            }
        }
        Ok(ids)
    }
}
