//! The machine beside a list of who is owed what; read back from bytes and from its events after every turn.

// Helpers of tests fail as tests do, and take what is convenient to write.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, clippy::type_complexity)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::machine::{Received, Role, Sender};
use proto::market::{Answer, LeaseSpan};
use proto::webhook::{Fact, FactKind, WebhookCommand, WebhookEvent};
use proto::{Machine, Timestamp};
use serde_json::{Value, json};
use webhook::{
    ATTEMPTS_MAX, DEAD_PER_WEBHOOK_MAX, WAITING_PER_WEBHOOK_MAX, WEBHOOKS_PER_TENANT_MAX, Webhooks,
};

const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

struct World {
    machine: Webhooks,
    folded: Webhooks,
    now: Timestamp,
    ids: u64,
    reported: u64,
}

impl World {
    fn new() -> Self {
        let stream = "main".parse().unwrap();
        let (machine, folded) = (Webhooks::new(&stream), Webhooks::new(&stream));
        Self { machine, folded, now: START, ids: 0, reported: 0 }
    }

    fn ask(&mut self, role: Role, mut command: Value) -> Vec<WebhookEvent> {
        self.ids += 1;
        command["id"] = json!(format!("c{}", self.ids));
        let command: WebhookCommand = serde_json::from_value(command).unwrap();
        let sender = Sender { role, principal: "p".parse().unwrap() };
        let mut events = Vec::new();
        self.machine.step(self.now, &Received::new(sender, command), &mut events);
        self.machine.check().unwrap();
        for event in &events {
            self.folded.apply(self.now, event);
        }
        assert_eq!(self.folded.hash(), self.machine.hash());
        let bytes = self.machine.snapshot();
        assert!(self.folded.snapshot() == bytes);
        let restored = Webhooks::restore(&"main".parse().unwrap(), &bytes).unwrap();
        restored.check().unwrap();
        assert_eq!(restored.hash(), self.machine.hash());
        events
    }

    fn set(&mut self, tenant: &str, webhook: &str, more: Value) -> Vec<WebhookEvent> {
        let mut command = json!({"type": "SetWebhook", "tenant": tenant, "webhook": webhook,
            "url": "https://example.org/hook"});
        for (key, value) in more.as_object().unwrap() {
            command[key] = value.clone();
        }
        self.ask(Role::Gateway, command)
    }

    fn facts(&mut self, facts: &[Fact]) -> Vec<WebhookEvent> {
        self.reported += 1;
        let upto = json!({"created": START, "sequence": self.reported});
        self.ask(Role::Service, json!({"type": "ReportFacts", "upto": upto, "facts": facts}))
    }

    fn attempt(&mut self, delivery: u64, attempt: u32, failure: Option<&str>) -> Vec<WebhookEvent> {
        let mut command = json!({"type": "ReportAttempt", "delivery": delivery, "attempt": attempt});
        if let Some(failure) = failure {
            command["failure"] = failure.into();
        }
        self.ask(Role::Service, command)
    }
}

/// A fact of a kind about leases of a tenant.
fn fact(tenant: &str, kind: FactKind, leases: LeaseSpan) -> Fact {
    let named = json!({"tenant": tenant, "bid": "b", "cluster": "c", "pool": "p", "market": "dfw/a", "leases": leases});
    let (name, more) = match kind {
        FactKind::Won => ("Awarded", json!({"round": 1, "price": null})),
        FactKind::Notice => {
            ("NoticeGiven", json!({"round": 1, "gone_at": START, "reason": "outbid", "price": null}))
        }
        FactKind::Withdrawn => ("NoticeWithdrawn", json!({"round": 1})),
        FactKind::Delayed => ("Delayed", json!({"round": 1, "available_by": START})),
        FactKind::Ready => ("Ready", json!({})),
        FactKind::Dead => ("Dead", json!({"since": START})),
        FactKind::Lost => ("Released", json!({"reason": "server-lost"})),
        FactKind::Released => ("Released", json!({"reason": "notice-ended"})),
        FactKind::Expired => ("Expired", json!({})),
    };
    let mut told = named;
    told["type"] = name.into();
    for (key, value) in more.as_object().unwrap() {
        told[key] = value.clone();
    }
    let told: Answer = serde_json::from_value(told).unwrap();
    assert_eq!(FactKind::of(&told), Some(kind));
    Fact { sequence: 7, at: START, told }
}

const fn leases(first: u64, units: u32) -> LeaseSpan {
    LeaseSpan { first, units }
}

fn refused(events: &[WebhookEvent]) -> Option<String> {
    match events {
        [WebhookEvent::CommandRefused(refusal)] => {
            let reason = serde_json::to_value(refusal.reason).unwrap();
            Some(format!("{} {}={}", reason.as_str().unwrap(), refusal.field, refusal.value))
        }
        _ => None,
    }
}

#[test]
fn what_is_refused() {
    let mut world = World::new();
    let said = |events: Vec<WebhookEvent>| refused(&events).unwrap_or_else(|| panic!("{events:?}"));
    assert_eq!(said(world.set("t", "w", json!({"url": "ftp://x"}))), "out-of-range url=ftp://x");
    assert_eq!(said(world.set("t", "w", json!({"kinds": ["won", "won"]}))), "duplicate kinds[1]=won");
    let remove = json!({"type": "RemoveWebhook", "tenant": "t", "webhook": "w"});
    assert_eq!(said(world.ask(Role::Gateway, remove.clone())), "unknown webhook=w");
    assert_eq!(said(world.ask(Role::Worker, remove.clone())), "not-allowed type=RemoveWebhook");
    for at in 0..WEBHOOKS_PER_TENANT_MAX {
        assert_eq!(refused(&world.set("t", &format!("w{at}"), json!({}))), None);
    }
    assert_eq!(said(world.set("t", "w", json!({}))), "limit-reached webhook=w");
    assert_eq!(
        refused(&world.set("t", "w1", json!({"url": "https://example.net"}))),
        None,
        "one more is none new"
    );
    assert_eq!(said(world.attempt(1, 1, None)), "unknown delivery=1");
    world.facts(&[fact("t", FactKind::Won, leases(1, 2))]);
    assert_eq!(said(world.attempt(1, 2, None)), "stale attempt=2");
    let redeliver = |tenant: &str| json!({"type": "Redeliver", "tenant": tenant, "delivery": 1});
    assert_eq!(said(world.ask(Role::Gateway, redeliver("u"))), "unknown delivery=1");
    assert_eq!(refused(&world.ask(Role::Gateway, redeliver("t"))), None);
    let again = json!({"type": "ReportFacts", "upto": {"created": START, "sequence": 1}, "facts": []});
    assert_eq!(said(world.ask(Role::Service, again.clone())), "stale upto.sequence=1");
    assert_eq!(said(world.ask(Role::Gateway, again)), "not-allowed type=ReportFacts");
}

#[test]
fn a_delivery_is_tried_again_with_longer_pauses_then_given_up_and_kept() {
    let mut world = World::new();
    world.set("t", "w", json!({}));
    world.facts(&[fact("t", FactKind::Notice, leases(7, 2))]);
    let mut pauses = Vec::new();
    for attempt in 1..=ATTEMPTS_MAX {
        let due = world.machine.due_by(world.now, 10);
        assert_eq!(due.iter().map(|due| (due.delivery, due.attempt)).collect::<Vec<_>>(), [(1, attempt)]);
        let events = world.attempt(1, attempt, Some("the receiver answers 500"));
        assert_eq!(world.machine.due_by(world.now, 10), []);
        match &events[..] {
            [WebhookEvent::DeliveryFailed { next_at, .. }] => {
                pauses.push(next_at.micros_since(world.now) / 1_000_000);
                world.now = *next_at;
            }
            [WebhookEvent::DeliveryDead { .. }] => assert_eq!(attempt, ATTEMPTS_MAX),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600]);
    let tenant = "t".parse().unwrap();
    let known = world.machine.deliveries(&tenant, 0, 10).deliveries;
    assert_eq!(
        (known.len(), known[0].next_at, known[0].failure.as_deref()),
        (1, None, Some("the receiver answers 500"))
    );
    assert_eq!(world.machine.deliveries(&"other".parse().unwrap(), 0, 10).deliveries, []);
    let redeliver = |tenant: &str| json!({"type": "Redeliver", "tenant": tenant, "delivery": 1});
    assert!(refused(&world.ask(Role::Gateway, redeliver("other"))).is_some());
    world.ask(Role::Gateway, redeliver("t"));
    assert_eq!(world.machine.due_by(world.now, 10).len(), 1);
    world.attempt(1, 1, None);
    assert_eq!(world.machine.deliveries(&tenant, 0, 10).deliveries, []);
}

#[test]
fn a_legacy_webhook_is_told_of_each_lease() {
    let mut world = World::new();
    world.set("t", "new", json!({"kinds": ["notice"]}));
    world.set("t", "old", json!({"legacy": true}));
    world.facts(&[fact("t", FactKind::Notice, leases(7, 3)), fact("u", FactKind::Notice, leases(10, 1))]);
    let due = world.machine.due_by(world.now, 10);
    let told = |body: &str| serde_json::from_str::<Value>(body).unwrap();
    let servers: Vec<Value> = due.iter().map(|due| told(&due.body)["Server"].clone()).collect();
    assert_eq!(servers, [json!(null), json!("lease-7"), json!("lease-8"), json!("lease-9")]);
    world.facts(&[fact("t", FactKind::Won, leases(20, 1))]);
    let due = world.machine.due_by(world.now, 10);
    assert_eq!(
        due.iter().filter(|due| due.webhook.as_str() == "new").count(),
        1,
        "it asked for notices only"
    );
}

#[test]
fn what_waits_and_what_is_kept_has_a_bound() {
    let stream = "main".parse().unwrap();
    let mut machine = Webhooks::new(&stream);
    let mut ids = 0;
    let mut ask = |machine: &mut Webhooks, role, mut command: Value| {
        ids += 1;
        command["id"] = json!(format!("c{ids}"));
        let command: WebhookCommand = serde_json::from_value(command).unwrap();
        let sender = Sender { role, principal: "p".parse().unwrap() };
        let mut events = Vec::new();
        machine.step(START, &Received::new(sender, command), &mut events);
        events
    };
    let set = json!({"type": "SetWebhook", "tenant": "t", "webhook": "w", "url": "https://example.org", "legacy": true});
    ask(&mut machine, Role::Gateway, set);
    let many = (WAITING_PER_WEBHOOK_MAX + DEAD_PER_WEBHOOK_MAX + 10) as u32;
    let facts = json!([fact("t", FactKind::Won, leases(1, many))]);
    let upto = json!({"created": START, "sequence": 1});
    ask(&mut machine, Role::Service, json!({"type": "ReportFacts", "upto": upto, "facts": facts}));
    let view = machine.webhooks(&"t".parse().unwrap(), 0).webhooks;
    assert_eq!((view[0].waiting, view[0].dead), (WAITING_PER_WEBHOOK_MAX, DEAD_PER_WEBHOOK_MAX));
    machine.check().unwrap();
    // However many are due for one, others get their turn.
    assert!(machine.due_by(START, 1_000).len() < 100);
    ask(&mut machine, Role::Gateway, json!({"type": "RemoveWebhook", "tenant": "t", "webhook": "w"}));
    machine.check().unwrap();
    assert_eq!(machine.due_by(START, 10), []);
}

#[derive(Clone, Debug)]
enum Step {
    Set { tenant: u8, webhook: u8, kind: Option<usize>, legacy: bool },
    Remove { tenant: u8, webhook: u8 },
    Facts(Vec<(u8, usize, u32)>),
    Attempt { which: usize, fails: bool },
    Redeliver { which: usize },
    Wait(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    let facts = prop::collection::vec((0..3_u8, 0..FactKind::ALL.len(), 1..4_u32), 0..4);
    prop_oneof![
        2 => (0..3_u8, 0..3_u8, prop::option::of(0..FactKind::ALL.len()), any::<bool>())
            .prop_map(|(tenant, webhook, kind, legacy)| Step::Set { tenant, webhook, kind, legacy }),
        1 => (0..3_u8, 0..3_u8).prop_map(|(tenant, webhook)| Step::Remove { tenant, webhook }),
        3 => facts.prop_map(Step::Facts),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(which, fails)| Step::Attempt { which, fails }),
        1 => any::<usize>().prop_map(|which| Step::Redeliver { which }),
        3 => (0..5_000_u32).prop_map(Step::Wait),
    ]
}

proptest! {
    /// What is due is what is owed: every fact once for each webhook that wanted it when it was told, and for old readers
    /// once for each lease, until it is taken or given up.
    #[test]
    fn who_is_owed_what_is_told_it(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut world = World::new();
        let mut hooks: BTreeMap<(u8, u8), (Option<usize>, bool)> = BTreeMap::new();
        // By delivery: of which webhook, attempts made, when it is next, or none if it was given up.
        let mut owed: BTreeMap<u64, ((u8, u8), u32, Option<Timestamp>)> = BTreeMap::new();
        let mut next = 1;
        for step in steps {
            match step {
                Step::Set { tenant, webhook, kind, legacy } => {
                    let kinds: Vec<FactKind> = kind.map(|at| FactKind::ALL[at]).into_iter().collect();
                    world.set(&format!("t{tenant}"), &format!("w{webhook}"), json!({"kinds": kinds, "legacy": legacy}));
                    hooks.insert((tenant, webhook), (kind, legacy));
                }
                Step::Remove { tenant, webhook } => {
                    world.ask(Role::Gateway, json!({"type": "RemoveWebhook", "tenant": format!("t{tenant}"),
                        "webhook": format!("w{webhook}")}));
                    hooks.remove(&(tenant, webhook));
                    owed.retain(|_, (of, ..)| *of != (tenant, webhook));
                }
                Step::Facts(told) => {
                    let facts: Vec<Fact> = told
                        .iter()
                        .map(|&(tenant, kind, units)| fact(&format!("t{tenant}"), FactKind::ALL[kind], leases(5, units)))
                        .collect();
                    world.facts(&facts);
                    for (tenant, kind, units) in told {
                        for (&hook, &(wants, legacy)) in hooks.iter().filter(|(hook, _)| hook.0 == tenant) {
                            if wants.is_some_and(|wants| wants != kind) {
                                continue;
                            }
                            let has_leases = FactKind::ALL[kind] != FactKind::Expired;
                            for _ in 0..if legacy && has_leases { units } else { 1 } {
                                owed.insert(next, (hook, 0, Some(world.now)));
                                next += 1;
                            }
                        }
                    }
                }
                Step::Attempt { which, fails } => {
                    let due = world.machine.due_by(world.now, 1_000);
                    if due.is_empty() {
                        continue;
                    }
                    let due = &due[which % due.len()];
                    let events = world.attempt(due.delivery, due.attempt, fails.then_some("no"));
                    let Some(known) = owed.get_mut(&due.delivery) else { panic!("{due:?} is owed to nobody") };
                    prop_assert_eq!(known.1 + 1, due.attempt);
                    match &events[..] {
                        [WebhookEvent::DeliveryDone { .. }] => drop(owed.remove(&due.delivery)),
                        [WebhookEvent::DeliveryFailed { next_at, .. }] => (known.1, known.2) = (due.attempt, Some(*next_at)),
                        [WebhookEvent::DeliveryDead { .. }] => known.2 = None,
                        other => panic!("{other:?}"),
                    }
                }
                Step::Redeliver { which } => {
                    let dead: Vec<u64> = owed.iter().filter(|(_, known)| known.2.is_none()).map(|(at, _)| *at).collect();
                    if dead.is_empty() {
                        continue;
                    }
                    let delivery = dead[which % dead.len()];
                    let known = owed.get_mut(&delivery).unwrap();
                    (known.1, known.2) = (0, Some(world.now));
                    let tenant = format!("t{}", known.0.0);
                    let asked = json!({"type": "Redeliver", "tenant": tenant, "delivery": delivery});
                    prop_assert_eq!(refused(&world.ask(Role::Gateway, asked)), None);
                }
                Step::Wait(seconds) => world.now = world.now.plus_seconds(seconds),
            }
            let mut counts: BTreeMap<(u8, u8), (usize, usize)> = BTreeMap::new();
            for (hook, _, next_at) in owed.values() {
                let count = counts.entry(*hook).or_default();
                if next_at.is_some() { count.0 += 1 } else { count.1 += 1 }
            }
            for tenant in 0..3_u8 {
                for view in world.machine.webhooks(&format!("t{tenant}").parse().unwrap(), 0).webhooks {
                    let webhook: u8 = view.webhook.as_str()[1..].parse().unwrap();
                    let expected = counts.get(&(tenant, webhook)).copied().unwrap_or_default();
                    prop_assert_eq!((view.waiting, view.dead), expected);
                }
            }
        }
    }
}
