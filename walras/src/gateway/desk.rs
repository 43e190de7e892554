//! The gateway's side of the bus: asks the market and waits for its answer, and keeps a view to read from. The answers
//! of sites come with those of the market, and are given on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use market::view::View;
use market::view::json::BidAlone;
use proto::machine::{Command as _, Role, Sender};
use proto::market::{Accepted, Answer, BidOption, LeaseNumber, MarketCommand};
use proto::placement::PlacementAnswer;
use proto::webhook::WebhookAnswer;
use proto::{BidId, MarketId, PrincipalId, StreamName, TenantId};
use runtime::batcher::{Batcher, SendError};
use runtime::bus::{Bus, ReadEnd};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::mirror::Mirror;
use super::problem::Problem;
use super::recent::{Followed, Place};
use super::sites::Sites;
use super::tellers::Tellers;
use super::waiting::Waiting;

/// How long a request waits for its answer before the tenant is told to ask again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a read waits for the view to get as far as it was asked to.
const READ_WAIT: Duration = Duration::from_secs(5);
/// Messages taken from the answer stream at a time.
const ANSWER_MESSAGES_MAX: usize = 1_024;
/// Bytes taken from the answer stream at a time.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// One exchange as the gateway sees it.
struct Exchange {
    batcher: Batcher,
    mirror: Arc<Mirror>,
}

/// Asks the market, and reads from views of it.
pub struct Desk {
    bus: Bus,
    exchanges: BTreeMap<StreamName, Exchange>,
    first: StreamName,
    waiting: Arc<Waiting<Answer>>,
    /// The sites, which are placement's.
    pub(super) sites: Sites,
    /// Who tells tenants over HTTP.
    pub(super) tellers: Tellers,
}

impl Desk {
    /// Opens a desk for exchanges that exist, and starts following them.
    ///
    /// # Errors
    /// When the answer stream cannot be reached.
    pub async fn open(
        bus: &Bus,
        principal: PrincipalId,
        exchanges: &[StreamName],
        sites: &[StreamName],
        unique: &str,
    ) -> anyhow::Result<Self> {
        let Some(first) = exchanges.first().cloned() else {
            anyhow::bail!("market.exchanges: none is listed")
        };
        let sender = Sender { role: Role::Gateway, principal };
        let waiting = Arc::<Waiting<Answer>>::default();
        let at_sites = Arc::<Waiting<PlacementAnswer>>::default();
        let at_tellers = Arc::<Waiting<WebhookAnswer>>::default();
        let end = bus.stream_state(proto::subject::ANSWER_STREAM).await?;
        let after =
            (end.last > 0).then_some(runtime::bus::Position { created: end.created, sequence: end.last });
        let subject = proto::subject::answer(&sender.principal);
        let answers = bus.read(proto::subject::ANSWER_STREAM, &subject, after).await?;
        let all = Waiters {
            at_exchanges: Arc::clone(&waiting),
            at_sites: Arc::clone(&at_sites),
            at_tellers: Arc::clone(&at_tellers),
        };
        tokio::spawn(hand_out(answers, all));
        let sites = Sites::open(bus, &sender, sites, unique, at_sites);
        let tellers = Tellers::open(bus, &sender, exchanges, unique, at_tellers);
        let open = |name: &StreamName| {
            let subject = proto::subject::command("market", name, &sender);
            let batcher = Batcher::start(bus.clone(), subject, format!("{unique}.{name}"));
            (name.clone(), Exchange { batcher, mirror: Mirror::start(bus.clone(), name.clone()) })
        };
        let exchanges = exchanges.iter().map(open).collect();
        Ok(Self { bus: bus.clone(), exchanges, first, waiting, sites, tellers })
    }

    /// The exchange that clears a market; the first one for a market nobody knows, which refuses it by name.
    pub fn exchange_of(&self, market: Option<&MarketId>) -> &StreamName {
        let clears = |exchange: &&Exchange| {
            market.is_some_and(|market| exchange.mirror.read(|view| view.market(market).is_some()))
        };
        self.exchanges.iter().find(|(_, exchange)| clears(exchange)).map_or(&self.first, |(name, _)| name)
    }

    /// The exchange that clears the markets of a bid's options; the first one for markets nobody knows, which refuses
    /// them by name. `prefix` stands before the field's name in a refusal.
    ///
    /// # Errors
    /// Options in two exchanges, with both named: what clears apart cannot be taken one or the other.
    pub fn exchange_of_options(&self, prefix: &str, options: &[BidOption]) -> Result<&StreamName, Problem> {
        let mut first: Option<(&MarketId, &StreamName)> = None;
        for (place, option) in options.iter().enumerate() {
            let market = &option.market;
            let clears = |exchange: &Exchange| exchange.mirror.read(|view| view.market(market).is_some());
            let Some((exchange, _)) = self.exchanges.iter().find(|(_, exchange)| clears(exchange)) else {
                continue;
            };
            match first {
                Some((before, its)) if its != exchange => {
                    let field = format!("{prefix}options[{place}].market");
                    let problem =
                        format!("clears in the exchange {exchange}, and {before} in the exchange {its}");
                    return Err(Problem::out_of_range(&field, market, &problem));
                }
                Some(_) => {}
                None => first = Some((market, exchange)),
            }
        }
        Ok(first.map_or(&self.first, |(_, exchange)| exchange))
    }

    /// The exchange where a bid stands; the first one for a bid nobody knows.
    pub fn exchange_of_bid(&self, tenant: &TenantId, bid: &BidId) -> &StreamName {
        let knows = |exchange: &Exchange| exchange.mirror.read(|view| view.bid(tenant, bid).is_some());
        self.exchanges.iter().find(|(_, exchange)| knows(exchange)).map_or(&self.first, |(name, _)| name)
    }

    /// The exchange where a tenant has a lease of this number; the first one if none.
    pub fn exchange_of_lease(&self, tenant: &TenantId, lease: LeaseNumber) -> &StreamName {
        let knows = |exchange: &Exchange| exchange.mirror.read(|view| view.lease(tenant, lease).is_some());
        self.exchanges.iter().find(|(_, exchange)| knows(exchange)).map_or(&self.first, |(name, _)| name)
    }

    /// Whether every view has caught up with its exchange.
    pub fn is_ready(&self) -> bool {
        self.exchanges.values().all(|exchange| exchange.mirror.is_ready())
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// The refusal, or that the outcome is unknown.
    pub async fn ask(&self, exchange: &StreamName, command: MarketCommand) -> Result<Accepted, Problem> {
        let Some(exchange) = self.exchanges.get(exchange) else {
            return Err(Problem::not_found("exchange", exchange.as_str()));
        };
        let Some(tenant) = command.tenant().cloned() else {
            return Err(Problem::outcome_unknown("only tenants' commands come through the gateway"));
        };
        let payload = serde_json::to_vec(&command)
            .map_err(|error| Problem::malformed("body", "", &error.to_string()))?;
        let key = (tenant, command.id().clone());
        let answer = self.waiting.wait(key.clone())?;
        let outcome = async {
            exchange.batcher.send(Bytes::from(payload)).await.map_err(|error| unsent(&error))?;
            answer.await.map_err(|_| Problem::outcome_unknown("this gateway is stopping"))
        };
        let outcome = tokio::time::timeout(ANSWER_WAIT, outcome).await;
        self.waiting.forget(&key);
        match outcome {
            Ok(Ok(Answer::Accepted(accepted))) => Ok(accepted),
            Ok(Ok(Answer::Refused(refused))) => Err(refused.into()),
            Ok(Ok(_)) => Err(Problem::outcome_unknown("the market answered with something else")),
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(Problem::outcome_unknown("the market has not answered in time")),
        }
    }

    /// A tenant's bid, once its exchange has got as far as `sequence`.
    ///
    /// # Errors
    /// 404 when the tenant has no such bid there.
    pub async fn bid(
        &self,
        exchange: &StreamName,
        tenant: &TenantId,
        bid: &BidId,
        sequence: u64,
    ) -> Result<BidAlone, Problem> {
        let found = self.read(exchange, sequence, |view| view.bid(tenant, bid)).await?;
        found.ok_or_else(|| Problem::not_found("bid", bid.as_str()))
    }

    /// Reads from the view of an exchange, once it has got as far as `sequence`.
    ///
    /// # Errors
    /// When the view does not get that far in time.
    pub async fn read<A>(
        &self,
        exchange: &StreamName,
        sequence: u64,
        read: impl FnOnce(&View) -> A,
    ) -> Result<A, Problem> {
        let Some(exchange) = self.exchanges.get(exchange) else {
            return Err(Problem::not_found("exchange", exchange.as_str()));
        };
        tokio::time::timeout(READ_WAIT, exchange.mirror.reach(sequence))
            .await
            .map_err(|_| Problem::behind(sequence))?;
        Ok(exchange.mirror.read(read))
    }

    /// Whether any exchange has a market.
    pub fn knows(&self, market: &MarketId) -> bool {
        self.exchanges.values().any(|exchange| exchange.mirror.read(|view| view.market(market).is_some()))
    }

    /// Asks whoever writes the transcript of an exchange.
    ///
    /// # Errors
    /// 404 for an exchange nobody knows, 503 when there is no answer in time.
    pub async fn transcript(
        &self,
        exchange: &StreamName,
        question: &str,
        asked: &serde_json::Value,
    ) -> Result<Bytes, Problem> {
        self.question(market_service::QUERIED_AS, exchange, question, asked).await
    }

    /// Asks whoever answers for an exchange under a machine's name.
    ///
    /// # Errors
    /// 404 for an exchange nobody knows, 503 when there is no answer in time.
    pub async fn question(
        &self,
        machine: &str,
        exchange: &StreamName,
        question: &str,
        asked: &serde_json::Value,
    ) -> Result<Bytes, Problem> {
        if !self.exchanges.contains_key(exchange) {
            return Err(Problem::not_found("exchange", exchange.as_str()));
        }
        let subject = proto::subject::query(machine, exchange, question);
        let answered = self.bus.request(&subject, Bytes::from(asked.to_string()), READ_WAIT).await;
        match answered {
            Ok(parts) => Ok(Bytes::from(parts.concat())),
            Err(error) => {
                tracing::warn!(%exchange, %machine, %question, %error, "a question is not answered");
                Err(Problem::unanswered("the market service does not answer"))
            }
        }
    }

    /// The names of all exchanges.
    pub fn exchanges(&self) -> impl Iterator<Item = &StreamName> {
        self.exchanges.keys()
    }

    /// What happens in each exchange, behind the place given for it, or from now on.
    pub(super) fn follow(&self, after: &BTreeMap<StreamName, Place>) -> Vec<(StreamName, Followed)> {
        let follow = |(name, exchange): (&StreamName, &Exchange)| {
            (name.clone(), exchange.mirror.follow(after.get(name).copied()))
        };
        self.exchanges.iter().map(follow).collect()
    }
}

pub(super) fn unsent(error: &SendError) -> Problem {
    match error {
        SendError::TooLarge { bytes } => proto::envelope::Refusal::new(
            proto::envelope::RefusalReason::TooLarge,
            "body",
            bytes,
            "the command does not fit a message",
        )
        .into(),
        other => Problem::outcome_unknown(other.to_string()),
    }
}

/// A letter of any machine, its answers unread.
#[derive(Deserialize)]
struct Letter<'a> {
    #[serde(borrow)]
    machine: Cow<'a, str>,
    #[serde(borrow)]
    answers: &'a RawValue,
}

/// Who waits for the answers of which machine.
struct Waiters {
    at_exchanges: Arc<Waiting<Answer>>,
    at_sites: Arc<Waiting<PlacementAnswer>>,
    at_tellers: Arc<Waiting<WebhookAnswer>>,
}

/// Reads this gateway's answers for ever and hands each to the request that waits for it.
async fn hand_out(mut answers: runtime::bus::Reader, waiters: Waiters) {
    loop {
        let batch = match answers.next_batch(ANSWER_MESSAGES_MAX, ANSWER_BYTES_MAX).await {
            Ok(batch) => batch,
            Err(end) => {
                tracing::warn!(%end, "answers are read again");
                if matches!(end, ReadEnd::GaveUp { .. }) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                continue;
            }
        };
        for delivery in batch {
            if let Err(error) = hand(&delivery.payload, &waiters) {
                tracing::error!(%error, subject = delivery.subject, "an answer cannot be read");
            }
        }
    }
}

fn hand(payload: &[u8], waiters: &Waiters) -> serde_json::Result<()> {
    let letter: Letter<'_> = serde_json::from_slice(payload)?;
    if letter.machine == "placement" {
        for answer in serde_json::from_str::<Vec<PlacementAnswer>>(letter.answers.get())? {
            let key = match &answer {
                PlacementAnswer::Accepted(accepted) => accepted.tenant.clone().zip(Some(accepted.id.clone())),
                PlacementAnswer::Refused(refused) => refused.tenant.clone().zip(refused.id.clone()),
            };
            waiters.at_sites.hand(key, answer);
        }
        return Ok(());
    }
    if letter.machine == "webhook" {
        for answer in serde_json::from_str::<Vec<WebhookAnswer>>(letter.answers.get())? {
            let key = match &answer {
                WebhookAnswer::Accepted(accepted) => accepted.tenant.clone().zip(Some(accepted.id.clone())),
                WebhookAnswer::Refused(refused) => refused.tenant.clone().zip(refused.id.clone()),
            };
            waiters.at_tellers.hand(key, answer);
        }
        return Ok(());
    }
    for answer in serde_json::from_str::<Vec<Answer>>(letter.answers.get())? {
        let key = match &answer {
            Answer::Accepted(accepted) => accepted.tenant.clone().zip(Some(accepted.id.clone())),
            Answer::Refused(refused) => refused.tenant.clone().zip(refused.id.clone()),
            _ => None,
        };
        waiters.at_exchanges.hand(key, answer);
    }
    Ok(())
}
