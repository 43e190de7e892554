//! What is known: webhooks, what is to be told them, what was given up.

use std::collections::{BTreeMap, BTreeSet};

use proto::market::LeaseNumber;
use proto::webhook::{DeliveryNumber, Fact, FactKind, FactsPosition, WebhookNumber};
use proto::{StreamName, TenantId, Timestamp, WebhookId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most webhooks of one tenant.
pub const WEBHOOKS_PER_TENANT_MAX: usize = 16;
/// Most webhooks of one stream.
pub const WEBHOOKS_MAX: usize = 100_000;
/// Deliveries that may wait for one webhook; what comes on top is given up at once.
pub const WAITING_PER_WEBHOOK_MAX: usize = 10_000;
/// Given up deliveries that are kept for one webhook, the newest.
pub const DEAD_PER_WEBHOOK_MAX: usize = 1_000;
/// Deliveries of one webhook that are told to be due at a time.
const DUE_PER_WEBHOOK_MAX: usize = 8;
/// Attempts at one delivery.
pub const ATTEMPTS_MAX: u32 = 12;

/// Where a tenant wants to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Webhook {
    pub(crate) number: WebhookNumber,
    pub(crate) tenant: TenantId,
    pub(crate) webhook: WebhookId,
    pub(crate) url: String,
    pub(crate) kinds: Vec<FactKind>,
    pub(crate) legacy: bool,
}

impl Webhook {
    pub(crate) fn wants(&self, kind: FactKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

/// One thing to be told to one webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) number: DeliveryNumber,
    pub(crate) webhook: WebhookNumber,
    pub(crate) fact: Fact,
    pub(crate) lease: Option<LeaseNumber>,
    pub(crate) attempts: u32,
    /// When it is tried next; none: it was given up.
    pub(crate) next_at: Option<Timestamp>,
    /// What went wrong last.
    pub(crate) failure: Option<String>,
}

/// Everything, in an order that does not depend on how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) webhooks: BTreeMap<WebhookNumber, Webhook>,
    pub(crate) names: BTreeMap<TenantId, BTreeMap<WebhookId, WebhookNumber>>,
    pub(crate) deliveries: BTreeMap<DeliveryNumber, Delivery>,
    /// Deliveries that wait, by when they are due.
    pub(crate) due: BTreeSet<(Timestamp, DeliveryNumber)>,
    /// Of each webhook, those that wait and those that were given up.
    pub(crate) waiting: BTreeMap<WebhookNumber, BTreeSet<DeliveryNumber>>,
    pub(crate) dead: BTreeMap<WebhookNumber, BTreeSet<DeliveryNumber>>,
    pub(crate) next_webhook: WebhookNumber,
    pub(crate) next_delivery: DeliveryNumber,
    pub(crate) reported: Option<FactsPosition>,
    /// Sum of the digests of webhooks and deliveries.
    sum: u128,
}

/// The state as it is written.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) version: u32,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) next_webhook: WebhookNumber,
    pub(crate) next_delivery: DeliveryNumber,
    pub(crate) reported: Option<FactsPosition>,
}

const WEBHOOK: u8 = 1;
const DELIVERY: u8 = 2;
const REST: u8 = 3;

/// 128 bits of SHA-256 over what something is and how it is written.
fn digest(kind: u8, value: &impl Serialize) -> u128 {
    let mut hasher = Sha256::new();
    hasher.update([kind]);
    // Records are plain data; writing them to memory cannot fail.
    hasher.update(serde_json::to_vec(value).unwrap_or_default());
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize()[..16]);
    u128::from_be_bytes(first)
}

impl State {
    /// The state before the first event.
    pub(crate) fn begin() -> Self {
        Self { next_webhook: 1, next_delivery: 1, ..Self::default() }
    }

    pub(crate) fn hash(&self) -> u128 {
        self.sum.wrapping_add(digest(REST, &(self.next_webhook, self.next_delivery, self.reported)))
    }

    /// The hash worked out from nothing.
    pub(crate) fn hash_anew(&self) -> u128 {
        let webhooks = self.webhooks.values().map(|webhook| digest(WEBHOOK, webhook));
        let deliveries = self.deliveries.values().map(|delivery| digest(DELIVERY, delivery));
        let sum = webhooks.chain(deliveries).fold(0, u128::wrapping_add);
        Self { sum, ..self.clone() }.hash()
    }

    pub(crate) fn named(&self, tenant: &TenantId, webhook: &WebhookId) -> Option<&Webhook> {
        self.webhooks.get(self.names.get(tenant)?.get(webhook)?)
    }

    /// The webhooks of a tenant.
    pub(crate) fn of_tenant(&self, tenant: &TenantId) -> impl Iterator<Item = &Webhook> {
        let numbers = self.names.get(tenant).into_iter().flat_map(BTreeMap::values);
        numbers.filter_map(|number| self.webhooks.get(number))
    }

    pub(crate) fn put_webhook(&mut self, webhook: Webhook) {
        self.next_webhook = self.next_webhook.max(webhook.number + 1);
        let names = self.names.entry(webhook.tenant.clone()).or_default();
        names.insert(webhook.webhook.clone(), webhook.number);
        self.sum = self.sum.wrapping_add(digest(WEBHOOK, &webhook));
        if let Some(before) = self.webhooks.insert(webhook.number, webhook) {
            self.sum = self.sum.wrapping_sub(digest(WEBHOOK, &before));
        }
    }

    /// Takes a webhook off, with everything that is to be told it.
    pub(crate) fn remove_webhook(&mut self, number: WebhookNumber) {
        let Some(webhook) = self.webhooks.remove(&number) else { return };
        self.sum = self.sum.wrapping_sub(digest(WEBHOOK, &webhook));
        if let Some(names) = self.names.get_mut(&webhook.tenant) {
            names.remove(&webhook.webhook);
            if names.is_empty() {
                self.names.remove(&webhook.tenant);
            }
        }
        let waiting = self.waiting.remove(&number).unwrap_or_default();
        let dead = self.dead.remove(&number).unwrap_or_default();
        for delivery in waiting.into_iter().chain(dead) {
            self.take_delivery(delivery);
        }
    }

    pub(crate) fn put_delivery(&mut self, delivery: Delivery) {
        self.next_delivery = self.next_delivery.max(delivery.number + 1);
        let list = match delivery.next_at {
            Some(next_at) => {
                self.due.insert((next_at, delivery.number));
                &mut self.waiting
            }
            None => &mut self.dead,
        };
        list.entry(delivery.webhook).or_default().insert(delivery.number);
        self.sum = self.sum.wrapping_add(digest(DELIVERY, &delivery));
        self.deliveries.insert(delivery.number, delivery);
    }

    pub(crate) fn take_delivery(&mut self, number: DeliveryNumber) -> Option<Delivery> {
        let delivery = self.deliveries.remove(&number)?;
        self.sum = self.sum.wrapping_sub(digest(DELIVERY, &delivery));
        let list = match delivery.next_at {
            Some(next_at) => {
                self.due.remove(&(next_at, number));
                &mut self.waiting
            }
            None => &mut self.dead,
        };
        if let Some(numbers) = list.get_mut(&delivery.webhook) {
            numbers.remove(&number);
            if numbers.is_empty() {
                list.remove(&delivery.webhook);
            }
        }
        Some(delivery)
    }

    /// Changes a delivery.
    pub(crate) fn change_delivery(&mut self, number: DeliveryNumber, change: impl FnOnce(&mut Delivery)) {
        if let Some(mut delivery) = self.take_delivery(number) {
            change(&mut delivery);
            self.put_delivery(delivery);
        }
    }

    pub(crate) fn save(&self, version: u32) -> Saved {
        Saved {
            version,
            webhooks: self.webhooks.values().cloned().collect(),
            deliveries: self.deliveries.values().cloned().collect(),
            next_webhook: self.next_webhook,
            next_delivery: self.next_delivery,
            reported: self.reported,
        }
    }

    pub(crate) fn load(saved: Saved) -> Self {
        let mut state = Self::default();
        for webhook in saved.webhooks {
            state.put_webhook(webhook);
        }
        for delivery in saved.deliveries {
            state.put_delivery(delivery);
        }
        (state.next_webhook, state.next_delivery) = (saved.next_webhook, saved.next_delivery);
        state.reported = saved.reported;
        state
    }
}

/// A webhook as its tenant sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookView {
    /// Its name.
    pub webhook: WebhookId,
    /// Where to.
    pub url: String,
    /// Which kinds of facts; none: all.
    pub kinds: Vec<FactKind>,
    /// Whether it has the keys that older readers know, a message for each lease.
    pub legacy: bool,
    /// Deliveries that wait for it.
    pub waiting: usize,
    /// Deliveries that were given up.
    pub dead: usize,
}

/// A tenant's webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhooksView {
    /// The last turn that is in it.
    pub sequence: u64,
    /// The webhooks, by name.
    pub webhooks: Vec<WebhookView>,
}

/// A delivery as its tenant sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryView {
    /// Its number.
    pub delivery: DeliveryNumber,
    /// To which webhook.
    pub webhook: WebhookId,
    /// What is told.
    pub fact: Fact,
    /// Attempts made.
    pub attempts: u32,
    /// When it is tried next; absent: it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Some of a tenant's deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveriesView {
    /// The last turn that is in it.
    pub sequence: u64,
    /// Those given up first, then those that wait.
    pub deliveries: Vec<DeliveryView>,
}

/// A delivery that is to be attempted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Which delivery.
    pub delivery: DeliveryNumber,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
    /// Whose it is.
    pub tenant: TenantId,
    /// To which webhook.
    pub webhook: WebhookId,
    /// Where to.
    pub url: String,
    /// What is sent.
    pub body: String,
}

impl State {
    pub(crate) fn webhooks_of(&self, tenant: &TenantId, sequence: u64) -> WebhooksView {
        let count = |list: &BTreeMap<WebhookNumber, BTreeSet<DeliveryNumber>>, number| {
            list.get(&number).map_or(0, BTreeSet::len)
        };
        let view = |webhook: &Webhook| WebhookView {
            webhook: webhook.webhook.clone(),
            url: webhook.url.clone(),
            kinds: webhook.kinds.clone(),
            legacy: webhook.legacy,
            waiting: count(&self.waiting, webhook.number),
            dead: count(&self.dead, webhook.number),
        };
        WebhooksView { sequence, webhooks: self.of_tenant(tenant).map(view).collect() }
    }

    pub(crate) fn deliveries_of(&self, tenant: &TenantId, sequence: u64, most: usize) -> DeliveriesView {
        let numbers = |list: &BTreeMap<WebhookNumber, BTreeSet<DeliveryNumber>>| {
            let all = self.of_tenant(tenant).filter_map(|webhook| list.get(&webhook.number));
            all.flatten().copied().collect::<Vec<_>>()
        };
        let view = |number: DeliveryNumber| {
            let delivery = self.deliveries.get(&number)?;
            Some(DeliveryView {
                delivery: number,
                webhook: self.webhooks.get(&delivery.webhook)?.webhook.clone(),
                fact: delivery.fact.clone(),
                attempts: delivery.attempts,
                next_at: delivery.next_at,
                failure: delivery.failure.clone(),
            })
        };
        let all = numbers(&self.dead).into_iter().chain(numbers(&self.waiting));
        DeliveriesView { sequence, deliveries: all.filter_map(view).take(most).collect() }
    }

    pub(crate) fn due_by(&self, exchange: &StreamName, now: Timestamp, most: usize) -> Vec<Due> {
        let mut of_webhook: BTreeMap<WebhookNumber, usize> = BTreeMap::new();
        // A receiver that is away has many due: others get their turn beside it.
        let mut has_turn = |number: &DeliveryNumber| {
            let Some(delivery) = self.deliveries.get(number) else { return false };
            let count = of_webhook.entry(delivery.webhook).or_default();
            *count += 1;
            *count <= DUE_PER_WEBHOOK_MAX
        };
        let due = self.due.iter().take_while(|&&(at, _)| at <= now).filter(|(_, number)| has_turn(number));
        let view = |&(_, number): &(Timestamp, DeliveryNumber)| {
            let delivery = self.deliveries.get(&number)?;
            let webhook = self.webhooks.get(&delivery.webhook)?;
            let body = crate::message::body(exchange, &delivery.fact, delivery.lease, webhook.legacy);
            Some(Due {
                delivery: number,
                attempt: delivery.attempts + 1,
                tenant: webhook.tenant.clone(),
                webhook: webhook.webhook.clone(),
                url: webhook.url.clone(),
                body: String::from_utf8(body).unwrap_or_default(),
            })
        };
        due.filter_map(view).take(most).collect()
    }
}
