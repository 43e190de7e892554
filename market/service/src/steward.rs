//! Brings the configuration of an exchange into force: compares it with what stands and sends what differs, as
//! commands that are journaled and answered like any other.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use market::view::View;
use proto::envelope::Answers;
use proto::machine::{Role, Sender};
use proto::market::{
    AdoptRules, AdoptTrust, Answer, DefineMarket, MarketCommand, MarketSettings, Rules, Trust,
};
use proto::{CommandId, MarketId, StreamName, subject};
use runtime::admin::Condition;
use runtime::batcher::Batcher;
use runtime::bus::{Bus, Listener};
use runtime::shell::Stop;

/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the owner of the exchange may take to say what stands.
const STATE_WAIT: Duration = Duration::from_secs(20);
/// The principal under which the market service speaks.
const PRINCIPAL: &str = "market";

/// What is to hold in an exchange.
pub(crate) struct Steward {
    pub(crate) bus: Bus,
    pub(crate) exchange: StreamName,
    pub(crate) rules: Rules,
    pub(crate) markets: Vec<(MarketId, MarketSettings)>,
    pub(crate) trusted: Vec<Trust>,
}

impl Steward {
    /// Tries until it is in force, then waits for the stop.
    pub(crate) async fn run(self, stop: Stop, condition: Condition) -> Result<()> {
        condition.unmet("not in force yet");
        let mut attempt = 0_u64;
        let apply = async {
            loop {
                attempt += 1;
                match tokio::time::timeout(ATTEMPT_MAX, self.apply(attempt)).await {
                    Ok(Ok(sent)) => return sent,
                    Ok(Err(error)) => {
                        tracing::warn!(exchange = %self.exchange, error = format!("{error:#}"), "the configuration is not in force yet");
                        condition.unmet(format!("{error:#}"));
                    }
                    Err(_) => condition.unmet("no answer in time"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            sent = apply => {
                tracing::info!(exchange = %self.exchange, markets = self.markets.len(), commands = sent, "the configuration is in force");
                condition.met(format!("{} markets", self.markets.len()));
            }
            () = stop.clone().into_requested() => return Ok(()),
        }
        stop.into_requested().await;
        Ok(())
    }

    async fn apply(&self, attempt: u64) -> Result<usize> {
        let sender = Sender { role: Role::Service, principal: PRINCIPAL.parse()? };
        let mut answers = self.bus.listen(&subject::answer(&sender.principal)).await?;
        let question = subject::query("market", &self.exchange, "state");
        let parts = self.bus.request(&question, Bytes::new(), STATE_WAIT).await?;
        let view = View::restore(&parts.concat())?;
        let unique = format!("config-{}-{attempt}", view.as_of().sequence);
        let commands = self.commands(&view, &unique)?;
        let subject = subject::command("market", &self.exchange, &sender);
        let batcher =
            Batcher::start(self.bus.clone(), subject, format!("{unique}-{}", view.as_of().at.micros()));
        for command in &commands {
            batcher.send(Bytes::from(serde_json::to_vec(command)?)).await?;
        }
        let mut waiting: Vec<&CommandId> = commands.iter().map(proto::machine::Command::id).collect();
        while !waiting.is_empty() {
            for id in self.next_answers(&mut answers).await? {
                waiting.retain(|waiting| **waiting != id);
            }
        }
        Ok(commands.len())
    }

    /// What must be said so that the configuration holds.
    fn commands(&self, view: &View, unique: &str) -> Result<Vec<MarketCommand>> {
        let mut commands = Vec::new();
        if *view.rules() != self.rules {
            let id = format!("{unique}-rules").parse()?;
            commands.push(MarketCommand::AdoptRules(AdoptRules { id, rules: self.rules.clone() }));
        }
        let id = format!("{unique}-trust").parse()?;
        commands.push(MarketCommand::AdoptTrust(AdoptTrust { id, trusted: self.trusted.clone() }));
        for (place, (market, settings)) in self.markets.iter().enumerate() {
            let stands = view.market(market).is_some_and(|known| known.market.settings == *settings);
            if !stands {
                let id = format!("{unique}-{place}").parse()?;
                let (market, settings) = (market.clone(), settings.clone());
                commands.push(MarketCommand::DefineMarket(DefineMarket { id, market, settings }));
            }
        }
        Ok(commands)
    }

    async fn next_answers(&self, answers: &mut Listener) -> Result<Vec<CommandId>> {
        let told = answers.next().await.context("the bus has ended")?;
        let told: Answers<Answer> = serde_json::from_slice(&told.payload)?;
        if told.stream != self.exchange {
            return Ok(Vec::new());
        }
        let mut ids = Vec::new();
        for answer in told.answers {
            match answer {
                Answer::Accepted(accepted) => ids.push(accepted.id),
                Answer::Refused(refused) => bail!("refused: {}", refused.refusal.message),
                _ => {}
            }
        }
        Ok(ids)
    }
}
