//! What must hold of a turn whatever comes in and wherever the process dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod driver;

use std::collections::BTreeMap;

use bytes::Bytes;
use driver::{Choices, Message, SETTINGS, World, stream};
use proptest::prelude::*;
use proto::Timestamp;
use proto::envelope::{Answers, EventBatch, MESSAGE_BYTES_MAX, RefusalReason};
use turn::testing::{AMOUNT_MAX, Tally, TallyAnswer, TallyEvent};
use turn::{AuditError, Audited, Settings, Turn};

/// What a test sends, with its meaning still visible.
#[derive(Clone, Debug)]
enum Ask {
    Add { id: u8, tenant: &'static str, amount: i64 },
    Inquire { id: u8, tenant: &'static str },
    Alarm { id: u8, after: u32 },
    Malformed { id: u8 },
}

impl Ask {
    fn json(&self) -> String {
        match self {
            Self::Add { id, tenant, amount } => {
                format!(r#"{{"type":"Add","id":"c{id}","tenant":"{tenant}","amount":{amount}}}"#)
            }
            Self::Inquire { id, tenant } => {
                format!(r#"{{"type":"Inquire","id":"c{id}","tenant":"{tenant}"}}"#)
            }
            Self::Alarm { id, after } => {
                format!(r#"{{"type":"SetAlarm","id":"c{id}","after_micros":{after}}}"#)
            }
            Self::Malformed { id } => format!(r#"{{"type":"Add","id":"c{id}","tenant":"t","amount":"1"}}"#),
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let tenant = prop::sample::select(vec!["t", "u"]);
    // Few ids, so that repeats and conflicts are common; far more than are kept in memory.
    let id = 0_u8..60;
    prop_oneof![
        6 => (id.clone(), tenant.clone(), -3_i64..4)
            .prop_map(|(id, tenant, amount)| Ask::Add { id, tenant, amount }),
        1 => (id.clone(), tenant.clone())
            .prop_map(|(id, tenant)| Ask::Add { id, tenant, amount: AMOUNT_MAX + 1 }),
        2 => (id.clone(), tenant).prop_map(|(id, tenant)| Ask::Inquire { id, tenant }),
        1 => (id.clone(), 0_u32..100).prop_map(|(id, after)| Ask::Alarm { id, after }),
        1 => id.prop_map(|id| Ask::Malformed { id }),
    ]
}

/// Messages: plain commands, and envelopes of some.
fn messages() -> impl Strategy<Value = Vec<(&'static str, Vec<Ask>)>> {
    let principal = prop::sample::select(vec!["s1", "s2"]);
    prop::collection::vec((principal, prop::collection::vec(ask(), 1..5)), 1..40)
}

fn log(messages: &[(&'static str, Vec<Ask>)]) -> Vec<Message> {
    let message = |(principal, asks): &(&'static str, Vec<Ask>)| {
        let json: Vec<_> = asks.iter().map(Ask::json).collect();
        let payload = match json.as_slice() {
            [single] => single.clone(),
            many => format!(r#"{{"commands":[{}]}}"#, many.join(",")),
        };
        Message { principal, payload }
    };
    messages.iter().map(message).collect()
}

/// The obvious way: one command after the other, every id remembered for ever.
#[derive(Default)]
struct Model {
    totals: BTreeMap<&'static str, i64>,
    alarms: u64,
    /// By scope and id: who asked what first, and what the answer says.
    first: BTreeMap<(String, u8), (&'static str, String, String)>,
    asked: BTreeMap<(String, u8), usize>,
    conflicts: usize,
    malformed: usize,
}

impl Model {
    fn ask(&mut self, principal: &'static str, ask: &Ask) {
        let (scope, id) = match ask {
            Ask::Add { id, tenant, .. } | Ask::Inquire { id, tenant } => ((*tenant).to_owned(), *id),
            Ask::Alarm { id, .. } => (format!("sender {principal}"), *id),
            Ask::Malformed { .. } => {
                self.malformed += 1;
                return;
            }
        };
        let key = (scope, id);
        if let Some((who, what, _)) = self.first.get(&key) {
            if (*who, what) == (principal, &ask.json()) {
                *self.asked.entry(key).or_default() += 1;
            } else {
                self.conflicts += 1;
            }
            return;
        }
        let answer = match ask {
            Ask::Add { amount, .. } if *amount > AMOUNT_MAX => "refused".to_owned(),
            Ask::Add { tenant, amount, .. } => {
                let total = self.totals.entry(tenant).or_default();
                *total += amount;
                format!("total {total}")
            }
            Ask::Inquire { tenant, .. } => format!("total {}", self.totals.get(tenant).unwrap_or(&0)),
            Ask::Alarm { .. } => {
                self.alarms += 1;
                format!("alarm {}", self.alarms)
            }
            Ask::Malformed { .. } => String::new(),
        };
        *self.asked.entry(key.clone()).or_default() += 1;
        self.first.insert(key, (principal, ask.json(), answer));
    }
}

/// Who was told what, by scope and id of the command.
type ToldAnswers = BTreeMap<(String, u8), Vec<(String, String)>>;

/// All answers the broker has, as the model writes them; how many conflicts and malformed commands were told
/// of; which alarms rang.
fn told(world: &World) -> (ToldAnswers, [usize; 2], Vec<u64>) {
    let (mut answers, mut refused, mut rang) = (ToldAnswers::new(), [0, 0], Vec::new());
    for message in &world.published {
        let Some(principal) = message.subject.strip_prefix("walras.v1.answer.") else { continue };
        let batch: Answers<TallyAnswer> = serde_json::from_slice(&message.payload).unwrap();
        for answer in batch.answers {
            let id = answer.command().map(|id| id.as_str()[1..].parse::<u8>().unwrap());
            let sender = format!("sender {principal}");
            let (scope, text) = match &answer {
                TallyAnswer::Total { tenant, total, .. } => (tenant.to_string(), format!("total {total}")),
                TallyAnswer::AlarmSet { number, .. } => (sender, format!("alarm {number}")),
                TallyAnswer::AlarmRang { number } => {
                    rang.push(*number);
                    continue;
                }
                TallyAnswer::Refused(it) if it.refusal.reason == RefusalReason::IdReused => {
                    refused[0] += 1;
                    continue;
                }
                TallyAnswer::Refused(it) if it.refusal.reason == RefusalReason::Malformed => {
                    refused[1] += 1;
                    continue;
                }
                TallyAnswer::Refused(it) => {
                    (it.tenant.as_ref().map_or(sender, ToString::to_string), "refused".to_owned())
                }
            };
            answers.entry((scope, id.unwrap())).or_default().push((principal.to_owned(), text));
        }
    }
    (answers, refused, rang)
}

fn check_world(world: &World, turn: &Turn<Tally>, messages: &[(&'static str, Vec<Ask>)]) {
    let mut model = Model::default();
    for (principal, asks) in messages {
        for ask in asks {
            model.ask(principal, ask);
        }
    }
    for (tenant, total) in &model.totals {
        assert_eq!(turn.machine().total(&tenant.parse().unwrap()), *total, "tenant {tenant}");
    }
    let (answers, [conflicts, malformed], rang) = told(world);
    let asked: Vec<_> = model.first.keys().collect();
    assert_eq!(answers.keys().collect::<Vec<_>>(), asked, "who was answered");
    for (key, (principal, _, answer)) in &model.first {
        let got = &answers[key];
        assert!(got.iter().all(|it| *it == ((*principal).to_owned(), answer.clone())), "{key:?}: {got:?}");
        assert!(got.len() >= model.asked[key], "{key:?} was asked more often than answered");
    }
    assert!(conflicts >= model.conflicts && malformed >= model.malformed);
    assert_eq!(rang.len() as u64, model.alarms, "each alarm rings once");
    if world.crashes == 0 {
        assert_eq!((conflicts, malformed), (model.conflicts, model.malformed));
        let count = answers.values().map(Vec::len).sum::<usize>();
        assert_eq!(count, model.asked.values().sum::<usize>(), "asked once, answered once");
    }
}

fn check_journal(world: &World, turn: &Turn<Tally>) {
    let batches: Vec<_> =
        world.published.iter().filter(|it| it.subject == "walras.v1.event.tally.main").collect();
    assert_eq!(batches.len(), world.journal.len(), "every row's events are published once");
    for (row, batch) in world.journal.iter().zip(batches) {
        assert_eq!(batch.payload, row.events, "row {}", row.sequence);
    }
    let mut folded = Turn::<Tally>::new(stream(), SETTINGS);
    let mut audited = Turn::<Tally>::new(stream(), SETTINGS);
    let mut snapshots = world.snapshots.iter().peekable();
    for row in &world.journal {
        folded.fold(row, false).unwrap();
        assert_eq!(audited.audit(row), Ok(Audited::Decided));
        while let Some((_, bytes)) = snapshots.next_if(|(sequence, _)| *sequence <= row.sequence) {
            let mut tail = Turn::<Tally>::restore(stream(), SETTINGS, bytes).unwrap();
            let rest = world.journal.iter().filter(|later| later.sequence > tail.sequence());
            for later in rest.collect::<Vec<_>>() {
                tail.fold(later, false).unwrap();
            }
            assert_eq!(tail.snapshot(), turn.snapshot(), "from a snapshot and from the beginning");
        }
    }
    assert_eq!(folded.snapshot(), turn.snapshot(), "folded and decided");
    assert_eq!(audited.snapshot(), turn.snapshot(), "decided again and decided");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A crash between any two steps loses nothing and repeats nothing; every repeat gets the first answer.
    #[test]
    fn every_command_has_its_effect_and_its_answer_exactly_once(
        messages in messages(),
        choices in prop::collection::vec(any::<u8>(), 1..200),
        crashes in 0_usize..12,
    ) {
        let mut world = World { log: log(&messages), ..World::default() };
        let turn = world.run(&mut Choices::new(choices, crashes));
        check_world(&world, &turn, &messages);
        check_journal(&world, &turn);
    }

    /// Neither how messages are batched nor where the process died shows in any answer to a command.
    #[test]
    fn batches_do_not_change_answers(
        messages in messages(),
        choices in prop::collection::vec(any::<u8>(), 1..50),
        others in prop::collection::vec(any::<u8>(), 1..50),
    ) {
        let run = |choices| {
            let mut world = World { log: log(&messages), ..World::default() };
            world.run(&mut Choices::new(choices, 0));
            told(&world).0
        };
        prop_assert_eq!(run(choices), run(others));
    }

    /// No byte of a row can change without being found.
    #[test]
    fn a_flipped_bit_is_found(
        messages in messages(),
        place in any::<prop::sample::Index>(),
        row in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        in_events in any::<bool>(),
    ) {
        let mut world = World { log: log(&messages), ..World::default() };
        world.run(&mut Choices::new(vec![1, 2, 3, 4, 5], 0));
        prop_assume!(!world.journal.is_empty());
        let row = row.index(world.journal.len());
        let damaged = &mut world.journal[row];
        let body = if in_events { &mut damaged.events } else { &mut damaged.input };
        let mut bytes = body.to_vec();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        *body = Bytes::from(bytes);
        for audit in [false, true] {
            let mut turn = Turn::<Tally>::new(stream(), SETTINGS);
            let ends = world.journal.iter().map(|row| {
                if audit { turn.audit(row).is_ok() } else { turn.fold(row, false).is_ok() }
            });
            prop_assert_eq!(ends.take_while(|is_good| *is_good).count(), row);
        }
    }
}

#[test]
fn every_header_field_of_a_row_is_in_its_chain() {
    let mut world =
        World { log: log(&[("s1", vec![Ask::Inquire { id: 1, tenant: "t" }])]), ..World::default() };
    world.run(&mut Choices::new(vec![3], 0));
    let good = &world.journal[0];
    let changes: [fn(&mut turn::Row); 8] = [
        |row| row.sequence += 1,
        |row| row.at = row.at.plus_micros(1),
        |row| row.rules += 1,
        |row| row.position.created += 1,
        |row| row.position.sequence += 1,
        |row| row.published += 1,
        |row| row.state_hash.0 ^= 1,
        |row| row.chain[31] ^= 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut row = good.clone();
        change(&mut row);
        assert_ne!(row.link(&[0; 32]), row.chain, "change {number}");
    }
    assert_eq!(good.link(&[0; 32]), good.chain);
}

#[test]
fn the_events_of_a_row_are_a_batch_of_the_vocabulary() {
    let asks = vec![Ask::Add { id: 1, tenant: "t", amount: 2 }, Ask::Alarm { id: 2, after: 0 }];
    let mut world = World { log: log(&[("s1", asks)]), ..World::default() };
    world.run(&mut Choices::new(vec![3], 0));
    let batch: EventBatch<TallyEvent> = serde_json::from_slice(&world.journal[0].events).unwrap();
    assert_eq!(serde_json::to_vec(&batch).unwrap(), world.journal[0].events);
    assert_eq!(batch.at, Timestamp::from_micros(batch.at.micros()));
    assert!(batch.entries[0].key.is_some() && batch.entries[2].key.is_none());
}

/// Messages have a bound; what is told to one party is split, what is told to readers is asked for.
#[test]
fn no_message_is_larger_than_it_may_be() {
    // One long refusal for each command: all their events, and all answers, are larger than one message.
    let asks = (0..1_024).map(|id| {
        let tenant = "t".repeat(60);
        format!(
            r#"{{"type":"Add","id":"{}-{id}","tenant":"{tenant}","amount":9000000000000000000}}"#,
            "c".repeat(50)
        )
    });
    let payload = format!(r#"{{"commands":[{}]}}"#, asks.collect::<Vec<_>>().join(","));
    let envelopes = 4;
    let mut world = World { log: vec![Message { principal: "s1", payload }; 1], ..World::default() };
    let deliveries = world.deliveries(0, 1);
    assert_eq!(deliveries[0].commands(), 1_024);
    let mut turn = Turn::<Tally>::new(stream(), SETTINGS);
    // More than a driver would put into one turn, so that everything becomes too large.
    let mut all = Vec::new();
    for number in 0..envelopes {
        let message = world.log[0].clone();
        let renamed = message.payload.replace("ccc-", &format!("cc{number}-"));
        world.log.push(Message { payload: renamed, ..message });
    }
    all.extend(world.deliveries(1, envelopes));
    let turned = turn.turn(Timestamp::from_micros(1), all).unwrap();
    let row = turned.row.unwrap();
    assert!(row.events.len() > MESSAGE_BYTES_MAX);
    let mut answers = 0;
    for message in &turned.outgoing {
        assert!(
            message.payload.len() <= MESSAGE_BYTES_MAX,
            "{} of {} bytes",
            message.id,
            message.payload.len()
        );
        if message.kind == turn::KIND_ANSWERS {
            let told: Answers<TallyAnswer> = serde_json::from_slice(&message.payload).unwrap();
            answers += told.answers.len();
        }
    }
    assert_eq!(answers, 1_024 * envelopes);
    assert!(turned.outgoing.iter().filter(|it| it.kind == turn::KIND_ANSWERS).count() > 1);
    let omitted: Vec<_> = turned.outgoing.iter().filter(|it| it.kind == turn::KIND_EVENTS_OMITTED).collect();
    assert_eq!(omitted.len(), 1);
    assert!(serde_json::from_slice::<EventBatch<TallyEvent>>(&omitted[0].payload).is_err());
    let mut folded = Turn::<Tally>::new(stream(), SETTINGS);
    assert_eq!(folded.fold(&row, true).unwrap().outgoing, turned.outgoing);
}

/// A driver that loses the index has commands decided twice; the audit says so.
#[test]
fn an_audit_finds_a_command_that_was_decided_twice() {
    let asks = |ids: std::ops::Range<u8>| ids.map(|id| Ask::Add { id, tenant: "t", amount: 1 }).collect();
    let mut world = World { log: log(&[("s1", asks(0..20)), ("s1", asks(0..1))]), ..World::default() };
    let mut turn = Turn::<Tally>::new(stream(), SETTINGS);
    for number in 0..2 {
        turn.indexed(turn.past_kept());
        let mut deliveries = world.deliveries(number, 1);
        assert_eq!(turn.doubts(&deliveries[0]).len() as u64, number, "asked about what memory has forgotten");
        deliveries[0].looked_up(Vec::new());
        let turned = turn.turn(Timestamp::from_micros(1), deliveries).unwrap();
        world.journal.extend(turned.row);
    }
    let mut audited = Turn::<Tally>::new(stream(), Settings { answers_kept: 100 });
    assert_eq!(audited.audit(&world.journal[0]), Ok(Audited::Decided));
    let found = audited.audit(&world.journal[1]);
    assert!(matches!(found, Err(AuditError::Answered { sequence: 2, command: 0, .. })), "{found:?}");
}

/// What was not looked up is not decided.
#[test]
fn a_doubtful_id_that_was_not_looked_up_stops_the_stream() {
    let asks = |ids: std::ops::Range<u8>| ids.map(|id| Ask::Add { id, tenant: "t", amount: 1 }).collect();
    let world = World { log: log(&[("s1", asks(0..20)), ("s1", asks(0..1))]), ..World::default() };
    let mut turn = Turn::<Tally>::new(stream(), SETTINGS);
    turn.turn(Timestamp::from_micros(1), world.deliveries(0, 1)).unwrap();
    turn.indexed(turn.past_kept());
    assert_eq!(turn.turn(Timestamp::from_micros(2), world.deliveries(1, 1)).unwrap_err().invariant, "I1");
}
