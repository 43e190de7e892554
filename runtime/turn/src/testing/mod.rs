//! A toy machine: accounts that are added to, alarms that ring, and a sum that is announced once a turn. Small
//! enough to see through, with everything a turn must get right: refusals, wakes, state that decides answers,
//! several parties, answers that are told apart from events.

mod messages;

use std::collections::{BTreeMap, BTreeSet};

use proto::envelope::{Answers, Refusal, RefusalReason};
use proto::machine::{Broken, Decided, Received, RestoreError};
use proto::{Machine, PrincipalId, Publication, StateHash, StreamName, TenantId, Timestamp, subject};
use serde::{Deserialize, Serialize};

use crate::outgoing::KIND_ANSWERS;
pub use messages::{Add, AlarmNumber, Inquire, SetAlarm, TallyAnswer, TallyCommand, TallyEvent};

/// Amounts larger than this are refused.
pub const AMOUNT_MAX: i64 = 1_000_000;

/// The toy machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    stream: StreamName,
    accounts: BTreeMap<TenantId, i64>,
    alarms: BTreeSet<(Timestamp, AlarmNumber, PrincipalId)>,
    state: State,
    hash: u128,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    alarms_set: AlarmNumber,
    sums: u64,
    /// Since when something has been added that no sum includes.
    unsummed_since: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    accounts: Vec<(String, i64)>,
    alarms: Vec<(i64, AlarmNumber, String)>,
    state: State,
}

/// A mixing function (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), twice.
fn mix(left: u64, right: u64) -> u128 {
    let half = |seed: u64| {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let low = half(left ^ half(right));
    u128::from(half(low ^ right)) << 64 | u128::from(low)
}

fn text_bits(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn account_bits(tenant: &TenantId, total: i64) -> u128 {
    mix(text_bits(tenant.as_str()), total as u64)
}

fn alarm_bits(at: Timestamp, number: AlarmNumber) -> u128 {
    mix(at.micros() as u64, number ^ 1 << 63)
}

impl Tally {
    /// What a tenant's account holds.
    pub fn total(&self, tenant: &TenantId) -> i64 {
        self.accounts.get(tenant).copied().unwrap_or(0)
    }

    /// All accounts.
    pub const fn accounts(&self) -> &BTreeMap<TenantId, i64> {
        &self.accounts
    }

    /// How many sums were announced.
    pub const fn sums(&self) -> u64 {
        self.state.sums
    }

    fn decide(&self, now: Timestamp, received: &Received<TallyCommand>) -> TallyEvent {
        match &received.command {
            TallyCommand::Add(add) if !(-AMOUNT_MAX..=AMOUNT_MAX).contains(&add.amount) => {
                let problem = format!("at most {AMOUNT_MAX} either way");
                TallyEvent::CommandRefused(Refusal::new(
                    RefusalReason::OutOfRange,
                    "amount",
                    add.amount,
                    &problem,
                ))
            }
            TallyCommand::Add(add) => TallyEvent::Added {
                tenant: add.tenant.clone(),
                amount: add.amount,
                total: self.total(&add.tenant) + add.amount,
            },
            TallyCommand::Inquire(inquire) => {
                TallyEvent::Told { tenant: inquire.tenant.clone(), total: self.total(&inquire.tenant) }
            }
            TallyCommand::SetAlarm(alarm) => TallyEvent::AlarmSet {
                number: self.state.alarms_set + 1,
                by: received.sender.principal.clone(),
                rings_at: now.plus_micros(i64::from(alarm.after_micros)),
            },
        }
    }

    fn scalars_bits(&self) -> u128 {
        let since = self.state.unsummed_since.map_or(u64::MAX, |micros| micros as u64);
        mix(self.state.sums, since) ^ mix(self.state.alarms_set, 7)
    }

    fn hash_from_scratch(&self) -> u128 {
        let accounts = self.accounts.iter().map(|(tenant, total)| account_bits(tenant, *total));
        let alarms = self.alarms.iter().map(|(at, number, _)| alarm_bits(*at, *number));
        accounts.chain(alarms).fold(0, u128::wrapping_add)
    }
}

impl Machine for Tally {
    const NAME: &'static str = "tally";
    const RULES: u32 = 1;
    const SNAPSHOT: u32 = 1;
    type Command = TallyCommand;
    type Event = TallyEvent;

    fn new(stream: &StreamName) -> Self {
        let (accounts, alarms) = (BTreeMap::new(), BTreeSet::new());
        Self { stream: stream.clone(), accounts, alarms, state: State::default(), hash: 0 }
    }

    fn step(&mut self, now: Timestamp, received: &Received<TallyCommand>, events: &mut Vec<TallyEvent>) {
        let event = self.decide(now, received);
        self.apply(now, &event);
        events.push(event);
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let sum = self.state.unsummed_since.map(Timestamp::from_micros);
        let alarm = self.alarms.first().map(|(at, ..)| *at);
        sum.into_iter().chain(alarm).min()
    }

    fn wake(&mut self, now: Timestamp, events: &mut Vec<TallyEvent>) {
        let before = events.len();
        events.extend(
            self.alarms
                .iter()
                .take_while(|(at, ..)| *at <= now)
                .map(|(_, number, by)| TallyEvent::AlarmRang { number: *number, by: by.clone() }),
        );
        if self.state.unsummed_since.is_some_and(|since| since <= now.micros()) {
            let sum = self.accounts.values().sum();
            events.push(TallyEvent::Summed { number: self.state.sums + 1, sum });
        }
        for event in events.iter().skip(before) {
            self.apply(now, event);
        }
    }

    fn apply(&mut self, at: Timestamp, event: &TallyEvent) {
        match event {
            TallyEvent::CommandRefused(_) | TallyEvent::Told { .. } => {}
            TallyEvent::Added { tenant, total, .. } => {
                if let Some(old) = self.accounts.insert(tenant.clone(), *total) {
                    self.hash = self.hash.wrapping_sub(account_bits(tenant, old));
                }
                self.hash = self.hash.wrapping_add(account_bits(tenant, *total));
                self.state.unsummed_since.get_or_insert(at.micros());
            }
            TallyEvent::AlarmSet { number, by, rings_at } => {
                self.state.alarms_set = *number;
                self.alarms.insert((*rings_at, *number, by.clone()));
                self.hash = self.hash.wrapping_add(alarm_bits(*rings_at, *number));
            }
            TallyEvent::AlarmRang { number, .. } => {
                let rung = self.alarms.iter().find(|(_, other, _)| other == number).cloned();
                if let Some(alarm) = rung {
                    self.hash = self.hash.wrapping_sub(alarm_bits(alarm.0, alarm.1));
                    self.alarms.remove(&alarm);
                }
            }
            TallyEvent::Summed { number, .. } => {
                self.state.sums = *number;
                self.state.unsummed_since = None;
            }
        }
    }

    fn hash(&self) -> StateHash {
        StateHash(self.hash ^ self.scalars_bits())
    }

    fn snapshot(&self) -> Vec<u8> {
        let accounts = self.accounts.iter().map(|(tenant, total)| (tenant.to_string(), *total)).collect();
        let alarm = |(at, number, by): &(Timestamp, u64, PrincipalId)| (at.micros(), *number, by.to_string());
        let alarms = self.alarms.iter().map(alarm).collect();
        let saved = Saved { accounts, alarms, state: self.state.clone() };
        postcard::to_stdvec(&saved).unwrap_or_default()
    }

    fn restore(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        let unreadable = |problem: String| RestoreError::Unreadable { problem };
        let saved: Saved = postcard::from_bytes(bytes).map_err(|error| unreadable(error.to_string()))?;
        let mut tally = Self::new(stream);
        for (tenant, total) in saved.accounts {
            let tenant = tenant.parse().map_err(|error: proto::id::IdError| unreadable(error.to_string()))?;
            tally.accounts.insert(tenant, total);
        }
        for (at, number, by) in saved.alarms {
            let by = by.parse().map_err(|error: proto::id::IdError| unreadable(error.to_string()))?;
            tally.alarms.insert((Timestamp::from_micros(at), number, by));
        }
        tally.state = saved.state;
        tally.hash = tally.hash_from_scratch();
        Ok(tally)
    }

    fn check(&self) -> Result<(), Broken> {
        if self.hash == self.hash_from_scratch() {
            Ok(())
        } else {
            let details = "the hash kept up to date is not the state's".to_owned();
            Err(Broken { invariant: "I7", details })
        }
    }

    fn is_refusal(answer: &TallyEvent) -> bool {
        matches!(answer, TallyEvent::CommandRefused(_))
    }

    fn tell(&self, decided: &Decided<TallyCommand, TallyEvent>, out: &mut Vec<Publication>) {
        let mut answers: BTreeMap<&PrincipalId, Vec<TallyAnswer>> = BTreeMap::new();
        let mut sum = None;
        for (entry, events) in decided.iter() {
            match (&entry.received, events) {
                (Some(received), [first, ..]) => {
                    let answer = TallyAnswer::to_command(decided.sequence, &received.command, first);
                    answers.entry(&received.sender.principal).or_default().push(answer);
                }
                _ => {
                    for event in events {
                        match event {
                            TallyEvent::AlarmRang { number, by } => {
                                let answer = TallyAnswer::AlarmRang { number: *number };
                                answers.entry(by).or_default().push(answer);
                            }
                            TallyEvent::Summed { sum: latest, .. } => sum = Some(*latest),
                            _ => {}
                        }
                    }
                }
            }
        }
        for (principal, answers) in answers {
            out.push(publication(&self.stream, decided.sequence, decided.at, principal, answers));
        }
        if let Some(sum) = sum {
            let subject = format!("{}.price.{}.sum", subject::ROOT, self.stream);
            let payload = format!(r#"{{"sum":{sum}}}"#).into_bytes();
            out.push(Publication { subject, kind: "walras.sum", payload, durable: false });
        }
    }

    fn retell(
        stream: &StreamName,
        sequence: u64,
        at: Timestamp,
        received: &Received<TallyCommand>,
        events: &[TallyEvent],
    ) -> Option<Publication> {
        let answer = TallyAnswer::to_command(sequence, &received.command, events.first()?);
        Some(publication(stream, sequence, at, &received.sender.principal, vec![answer]))
    }
}

fn publication(
    stream: &StreamName,
    sequence: u64,
    at: Timestamp,
    principal: &PrincipalId,
    answers: Vec<TallyAnswer>,
) -> Publication {
    let machine = Tally::NAME.to_owned();
    let answers = Answers { machine, stream: stream.clone(), sequence: Some(sequence), at, answers };
    let payload = serde_json::to_vec(&answers).unwrap_or_default();
    Publication { subject: subject::answer(principal), kind: KIND_ANSWERS, payload, durable: true }
}
