//! The machine: who may ask what, what follows, and how it takes effect.

use std::collections::BTreeMap;

use proto::envelope::{Answers, Refusal, RefusalReason, Refused};
use proto::machine::{Broken, Command, Publication, Received, RestoreError, Role, Sender};
use proto::webhook::{
    FactsPosition, Redeliver, RemoveWebhook, SetWebhook, WebhookAccepted, WebhookAnswer, WebhookCommand,
    WebhookEvent,
};
use proto::{Machine, PrincipalId, StateHash, StreamName, TenantId, Timestamp, subject};

use crate::address::Target;
use crate::state::{
    DeliveriesView, Delivery, Due, Saved, State, WEBHOOKS_MAX, WEBHOOKS_PER_TENANT_MAX, Webhook, WebhooksView,
};

/// A refusal on its way out.
pub(crate) type Checked<T> = Result<T, Box<Refusal>>;
pub(crate) type Events = Vec<WebhookEvent>;
type Decided = proto::machine::Decided<WebhookCommand, WebhookEvent>;

/// `type` of a message of answers.
const ANSWERS: &str = "walras.answers";
/// Answers of one message.
const ANSWERS_MAX: usize = 512;
/// Who speaks for tenants: whoever has checked their tokens.
const FOR_TENANTS: [Role; 2] = [Role::Gateway, Role::Operator];

/// Says why a command is refused, with field and value.
pub(crate) fn refuse<T>(
    reason: RefusalReason,
    field: impl AsRef<str>,
    value: impl ToString,
    problem: impl AsRef<str>,
) -> Checked<T> {
    Err(Box::new(Refusal::new(reason, field.as_ref(), value, problem.as_ref())))
}

fn only(sender: &Sender, roles: &[Role], what: &str) -> Checked<()> {
    if roles.contains(&sender.role) {
        return Ok(());
    }
    let role = sender.role.token();
    refuse(RefusalReason::NotAllowed, "type", what, format!("is not for a {role} to say"))
}

/// The webhooks of one exchange's tenants: one deterministic machine.
#[derive(Clone, Debug)]
pub struct Webhooks {
    stream: StreamName,
    pub(crate) state: State,
}

impl Webhooks {
    /// Lets an event take effect and tells it.
    pub(crate) fn emit(&mut self, now: Timestamp, event: WebhookEvent, events: &mut Events) {
        self.take_effect(now, &event);
        events.push(event);
    }

    fn decide(&mut self, now: Timestamp, received: &Received<WebhookCommand>, events: &mut Events) {
        use WebhookCommand as Asked;
        let sender = &received.sender;
        let decided = match &received.command {
            Asked::SetWebhook(asked) => {
                only(sender, &FOR_TENANTS, "SetWebhook").and_then(|()| self.set(now, asked, events))
            }
            Asked::RemoveWebhook(asked) => {
                only(sender, &FOR_TENANTS, "RemoveWebhook").and_then(|()| self.remove(now, asked, events))
            }
            Asked::Redeliver(asked) => {
                only(sender, &FOR_TENANTS, "Redeliver").and_then(|()| self.redeliver(now, asked, events))
            }
            Asked::ReportFacts(asked) => {
                only(sender, &[Role::Service], "ReportFacts").and_then(|()| self.facts(now, asked, events))
            }
            Asked::ReportAttempt(asked) => only(sender, &[Role::Service], "ReportAttempt")
                .and_then(|()| self.attempted(now, asked, events)),
        };
        if let Err(refusal) = decided {
            events.push(WebhookEvent::CommandRefused(*refusal));
        }
    }

    fn set(&mut self, now: Timestamp, asked: &SetWebhook, events: &mut Events) -> Checked<()> {
        if let Err(problem) = Target::parse(&asked.url) {
            return refuse(RefusalReason::OutOfRange, "url", &asked.url, problem.to_string());
        }
        for (place, kind) in asked.kinds.iter().enumerate() {
            if asked.kinds[..place].contains(kind) {
                let field = format!("kinds[{place}]");
                return refuse(RefusalReason::Duplicate, field, kind.word(), "stands twice");
            }
        }
        let known = self.state.named(&asked.tenant, &asked.webhook).map(|known| known.number);
        if known.is_none() {
            if self.state.of_tenant(&asked.tenant).count() >= WEBHOOKS_PER_TENANT_MAX {
                let problem = format!("a tenant has at most {WEBHOOKS_PER_TENANT_MAX} webhooks");
                return refuse(RefusalReason::LimitReached, "webhook", &asked.webhook, problem);
            }
            if self.state.webhooks.len() >= WEBHOOKS_MAX {
                let problem = format!("there are {WEBHOOKS_MAX} webhooks already");
                return refuse(RefusalReason::LimitReached, "webhook", &asked.webhook, problem);
            }
        }
        let event = WebhookEvent::WebhookSet {
            number: known.unwrap_or(self.state.next_webhook),
            tenant: asked.tenant.clone(),
            webhook: asked.webhook.clone(),
            url: asked.url.clone(),
            kinds: asked.kinds.clone(),
            legacy: asked.legacy,
        };
        self.emit(now, event, events);
        Ok(())
    }

    fn remove(&mut self, now: Timestamp, asked: &RemoveWebhook, events: &mut Events) -> Checked<()> {
        let Some(number) = self.state.named(&asked.tenant, &asked.webhook).map(|known| known.number) else {
            return refuse(RefusalReason::Unknown, "webhook", &asked.webhook, "no such webhook is there");
        };
        self.emit(now, WebhookEvent::WebhookRemoved { number }, events);
        Ok(())
    }

    fn redeliver(&mut self, now: Timestamp, asked: &Redeliver, events: &mut Events) -> Checked<()> {
        let number = asked.delivery;
        let known = self.state.deliveries.get(&number);
        let own = known.and_then(|delivery| self.state.webhooks.get(&delivery.webhook));
        // Another tenant's delivery looks exactly like one that is not there.
        if own.is_none_or(|webhook| webhook.tenant != asked.tenant) {
            let problem = "no such delivery waits or was given up";
            return refuse(RefusalReason::Unknown, "delivery", number, problem);
        }
        self.emit(now, WebhookEvent::DeliveryRevived { number }, events);
        Ok(())
    }

    fn take_effect(&mut self, at: Timestamp, event: &WebhookEvent) {
        let state = &mut self.state;
        match event {
            WebhookEvent::CommandRefused(_) => {}
            WebhookEvent::WebhookSet { number, tenant, webhook, url, kinds, legacy } => {
                state.put_webhook(Webhook {
                    number: *number,
                    tenant: tenant.clone(),
                    webhook: webhook.clone(),
                    url: url.clone(),
                    kinds: kinds.clone(),
                    legacy: *legacy,
                });
            }
            WebhookEvent::WebhookRemoved { number } => state.remove_webhook(*number),
            WebhookEvent::FactsReported { upto } => state.reported = Some(*upto),
            WebhookEvent::DeliveryQueued { number, webhook, fact, lease } => state.put_delivery(Delivery {
                number: *number,
                webhook: *webhook,
                fact: (**fact).clone(),
                lease: *lease,
                attempts: 0,
                next_at: Some(at),
                failure: None,
            }),
            WebhookEvent::DeliveryDone { number } | WebhookEvent::DeliveryForgotten { number } => {
                state.take_delivery(*number);
            }
            WebhookEvent::DeliveryFailed { number, attempts, next_at, failure } => {
                state.change_delivery(*number, |delivery| {
                    delivery.attempts = *attempts;
                    delivery.next_at = Some(*next_at);
                    delivery.failure = Some(failure.clone());
                });
            }
            WebhookEvent::DeliveryDead { number, failure } => {
                state.change_delivery(*number, |delivery| {
                    delivery.next_at = None;
                    delivery.failure = Some(failure.clone());
                });
            }
            WebhookEvent::DeliveryRevived { number } => {
                state.change_delivery(*number, |delivery| {
                    delivery.attempts = 0;
                    delivery.next_at = Some(at);
                });
            }
        }
    }

    /// A tenant's webhooks; `sequence` is the last turn that is in this state.
    pub fn webhooks(&self, tenant: &TenantId, sequence: u64) -> WebhooksView {
        self.state.webhooks_of(tenant, sequence)
    }

    /// At most so many of a tenant's deliveries that were given up or wait.
    pub fn deliveries(&self, tenant: &TenantId, sequence: u64, most: usize) -> DeliveriesView {
        self.state.deliveries_of(tenant, sequence, most)
    }

    /// At most so many deliveries that are to be attempted by `now`, those longest due first.
    pub fn due_by(&self, now: Timestamp, most: usize) -> Vec<Due> {
        self.state.due_by(&self.stream, now, most)
    }

    /// The tenants that have a webhook.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.state.names.keys()
    }

    /// Up to where facts were reported.
    pub const fn reported(&self) -> Option<FactsPosition> {
        self.state.reported
    }
}

impl Machine for Webhooks {
    const NAME: &'static str = "webhook";
    const RULES: u32 = 1;
    const SNAPSHOT: u32 = 1;
    type Command = WebhookCommand;
    type Event = WebhookEvent;

    fn new(stream: &StreamName) -> Self {
        Self { stream: stream.clone(), state: State::begin() }
    }

    fn step(&mut self, now: Timestamp, received: &Received<WebhookCommand>, events: &mut Events) {
        self.decide(now, received, events);
    }

    /// Never: whoever delivers asks what is due.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    fn wake(&mut self, _: Timestamp, _: &mut Events) {}

    fn apply(&mut self, at: Timestamp, event: &WebhookEvent) {
        self.take_effect(at, event);
    }

    fn hash(&self) -> StateHash {
        StateHash(self.state.hash())
    }

    fn snapshot(&self) -> Vec<u8> {
        // Plain data; writing it to memory cannot fail.
        serde_json::to_vec(&self.state.save(Self::SNAPSHOT)).unwrap_or_default()
    }

    fn restore(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        let unreadable = |problem: String| RestoreError::Unreadable { problem };
        let saved: Saved = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if saved.version != Self::SNAPSHOT {
            return Err(unreadable(format!("version {}", saved.version)));
        }
        Ok(Self { stream: stream.clone(), state: State::load(saved) })
    }

    fn check(&self) -> Result<(), Broken> {
        let broken = |details: String| Err(Broken { invariant: "I7", details });
        if self.state.hash() != self.state.hash_anew() {
            return broken("the digest of webhooks is not what they are".to_owned());
        }
        let lists = self.state.waiting.values().chain(self.state.dead.values());
        let listed: usize = lists.map(std::collections::BTreeSet::len).sum();
        let waiting: usize = self.state.waiting.values().map(std::collections::BTreeSet::len).sum();
        let counts = (listed, waiting);
        if counts != (self.state.deliveries.len(), self.state.due.len()) {
            return broken(format!("{counts:?} deliveries are listed"));
        }
        let is_owned = |delivery: &Delivery| self.state.webhooks.contains_key(&delivery.webhook);
        match self.state.deliveries.values().find(|delivery| !is_owned(delivery)) {
            Some(lost) => broken(format!("delivery {} is for nobody", lost.number)),
            None => Ok(()),
        }
    }

    fn check_turn(&self) -> Result<(), Broken> {
        Ok(())
    }

    fn is_refusal(answer: &WebhookEvent) -> bool {
        matches!(answer, WebhookEvent::CommandRefused(_))
    }

    fn tell(&self, decided: &Decided, out: &mut Vec<Publication>) {
        let mut letters: BTreeMap<&PrincipalId, Vec<WebhookAnswer>> = BTreeMap::new();
        for (entry, events) in decided.iter() {
            if let (Some(received), Some(event)) = (&entry.received, events.first()) {
                let answer = answer_to(decided.sequence, received, event);
                letters.entry(&received.sender.principal).or_default().push(answer);
            }
        }
        for (to, answers) in letters {
            for answers in answers.chunks(ANSWERS_MAX) {
                out.push(letter(&self.stream, decided.sequence, decided.at, to, answers.to_vec()));
            }
        }
    }

    fn retell(
        stream: &StreamName,
        sequence: u64,
        at: Timestamp,
        received: &Received<WebhookCommand>,
        events: &[WebhookEvent],
    ) -> Option<Publication> {
        let answer = answer_to(sequence, received, events.first()?);
        Some(letter(stream, sequence, at, &received.sender.principal, vec![answer]))
    }
}

fn letter(
    stream: &StreamName,
    sequence: u64,
    at: Timestamp,
    to: &PrincipalId,
    answers: Vec<WebhookAnswer>,
) -> Publication {
    let machine = Webhooks::NAME.to_owned();
    let letter = Answers { machine, stream: stream.clone(), sequence: Some(sequence), at, answers };
    // Answers are plain data; writing them to memory cannot fail.
    let payload = serde_json::to_vec(&letter).unwrap_or_default();
    Publication { subject: subject::answer(to), kind: ANSWERS, payload, durable: true }
}

fn answer_to(sequence: u64, received: &Received<WebhookCommand>, event: &WebhookEvent) -> WebhookAnswer {
    let (id, tenant) = (received.command.id().clone(), received.command.tenant().cloned());
    match event {
        WebhookEvent::CommandRefused(refusal) => {
            let (id, sequence, refusal) = (Some(id), Some(sequence), refusal.clone());
            WebhookAnswer::Refused(Refused { id, tenant, sequence, refusal })
        }
        _ => WebhookAnswer::Accepted(WebhookAccepted { id, tenant, sequence }),
    }
}
