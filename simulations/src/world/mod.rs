//! A world: parties, a bus, a journal and up to two runners of one exchange, in virtual time, from one seed.

mod journal;
mod runner;
mod stream;

use std::collections::BTreeMap;

use bytes::Bytes;
use market::Market;
use market::view::View;
use proto::envelope::{Answers, Commands, EventBatch};
use proto::machine::{Broken, Role, Sender};
use proto::market::{
    AdoptRules, AdoptTrust, Answer, DefineMarket, Ladder, LeaseNumber, MarketCommand, MarketEvent,
    MarketSettings, ReleaseReason, Rules, Trust,
};
use proto::{Price, StreamName, Timestamp, subject};
use turn::{Outgoing, Settings, Turn};

use crate::chance::Chance;
use crate::outside::{Habits, Hypervisor, HypervisorHabits, Listing, Storefront};
use journal::Journal;
pub use runner::CrashPoint;
use runner::{Runner, Step};
use stream::Stream;

/// Virtual time begins on 2026-01-01.
const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// A runner with nothing to do looks again after so many microseconds.
const IDLE_MICROS: u64 = 20_000;
/// How long the parties may take to get every answer once the faults have ended, in seconds.
const SETTLE_SECONDS: u32 = 120;
/// Answers that a turn keeps in memory here: few, so that the index is used.
const ANSWERS_KEPT: usize = 256;
/// A party reads its answers about so often, in microseconds.
const READ_MICROS: u64 = 50_000;

/// What goes wrong, each so many times of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A runner crashes after a step.
    pub crash_permille: u64,
    /// A commit's outcome is unknown.
    pub commit_permille: u64,
    /// A message from a party is lost.
    pub drop_permille: u64,
    /// A message from a party comes twice.
    pub duplicate_permille: u64,
    /// A message from a party comes late, and so after later ones.
    pub late_permille: u64,
    /// At a look around, a second owner starts although the first one lives.
    pub second_owner_permille: u64,
    /// At a look around, the command stream is deleted and created anew.
    pub recreate_permille: u64,
    /// At a look around, a snapshot is made; every eighth is damaged.
    pub snapshot_permille: u64,
}

impl Faults {
    /// A mixture drawn from a seed: some runs see much of one fault, some a little of all.
    fn drawn(chance: &mut Chance) -> Self {
        let mut some = |most: u64| if chance.permille(700) { chance.between(0, most) } else { 0 };
        Self {
            crash_permille: some(30),
            commit_permille: some(40),
            drop_permille: some(200),
            duplicate_permille: some(300),
            late_permille: some(300),
            second_owner_permille: some(300),
            recreate_permille: some(40),
            snapshot_permille: some(400),
        }
    }
}

/// The streams of the bus.
pub(crate) struct Buses {
    commands: Stream,
    answers: Stream,
    events: BTreeMap<u64, Bytes>,
    disagreement: Option<u64>,
}

impl Buses {
    fn publish(&mut self, message: &Outgoing) {
        if message.subject.starts_with("walras.v1.answer.") {
            self.answers.publish(&message.subject, message.payload.clone());
        } else if message.kind == turn::KIND_EVENTS {
            let Ok(batch) = serde_json::from_slice::<EventBatch<MarketEvent>>(&message.payload) else {
                return;
            };
            let first = self.events.entry(batch.sequence).or_insert_with(|| message.payload.clone());
            if *first != message.payload {
                self.disagreement.get_or_insert(batch.sequence);
            }
        }
    }
}

/// What happens next in a world.
#[derive(Clone, Debug)]
enum Happening {
    Storefront(usize),
    Hypervisor(usize),
    Arrival(String, Bytes),
    Reads(usize),
    Runner(usize),
    Starts(usize),
    LookAround,
}

/// What a run came to. Two runs of one seed give the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Rows journaled.
    pub rows: u64,
    /// Chain hash of the last row: equal for equal journals.
    pub chain: [u8; 32],
    /// Commands answered, of storefronts.
    pub answered: u64,
    /// Commands refused, of storefronts.
    pub refused: u64,
    /// Crashes, by where they came.
    pub crashes: BTreeMap<CrashPoint, u64>,
    /// Times an owner was fenced off.
    pub fenced: u64,
    /// Times the command stream was created anew.
    pub recreated: u64,
    /// Units awarded.
    pub awarded: u64,
    /// Notices given, in units.
    pub noticed: u64,
    /// Notices withdrawn, in units.
    pub withdrawn: u64,
    /// Workers that became ready.
    pub ready: u64,
    /// Workers that died.
    pub died: u64,
}

/// A world.
pub struct World {
    now: Timestamp,
    chance: Chance,
    faults: Faults,
    stream: StreamName,
    settings: Settings,
    storefronts: Vec<(Storefront, u64)>,
    hypervisors: Vec<Hypervisor>,
    journal: Journal,
    buses: Buses,
    runners: [Option<Runner>; 2],
    checker: Turn<Market>,
    /// The bystander's view, which bills.
    view: View,
    /// When leaving leases are gone at the earliest.
    notices: BTreeMap<LeaseNumber, Timestamp>,
    agenda: BTreeMap<(Timestamp, u64), Happening>,
    scheduled: u64,
    is_settling: bool,
    outcome: Outcome,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let faults = Faults::drawn(&mut chance);
        // `main` and the names below are made of letters.
        let stream: StreamName = "main".parse().unwrap_or_else(|error| unreachable!("{error}"));
        let listings = listings(&mut chance);
        let settings = Settings { answers_kept: ANSWERS_KEPT };
        let storefronts = (0..2).map(|at| (storefront(at, &listings, &mut chance), 0)).collect();
        let hypervisors = (0..2).map(|at| hypervisor(at, &listings, &mut chance)).collect();
        let created = START.micros();
        let mut world = Self {
            now: START,
            faults,
            settings,
            storefronts,
            hypervisors,
            journal: Journal::default(),
            buses: Buses {
                commands: Stream::new(created),
                answers: Stream::new(created),
                events: BTreeMap::new(),
                disagreement: None,
            },
            runners: [None, None],
            checker: Turn::new(stream.clone(), settings),
            view: View::new(),
            notices: BTreeMap::new(),
            stream,
            agenda: BTreeMap::new(),
            scheduled: 0,
            is_settling: false,
            outcome: Outcome { seed, ..Outcome::default() },
            chance,
        };
        world.open(&listings);
        world
    }

    /// Runs for so many virtual seconds with faults, then without until everything is answered and published,
    /// and checks every invariant on the way and at the end.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn run(mut self, seconds: u32) -> Result<Outcome, Broken> {
        let end = self.now.plus_seconds(seconds);
        self.until(end, |_| false)?;
        self.faults = Faults::default();
        self.is_settling = true;
        let settled = self.now.plus_seconds(SETTLE_SECONDS);
        self.until(settled, World::is_settled)?;
        if !self.is_settled() {
            let waiting: usize = self.storefronts.iter().map(|(one, _)| one.unanswered()).sum();
            let published = self.buses.events.len();
            return Err(Broken {
                invariant: "I1",
                details: format!(
                    "{SETTLE_SECONDS} s without faults: {waiting} commands without an answer, {published} of {} rows published",
                    self.journal.rows.len()
                ),
            });
        }
        self.close()
    }

    fn is_settled(&self) -> bool {
        self.storefronts.iter().all(|(one, _)| one.unanswered() == 0)
            && self.buses.events.len() == self.journal.rows.len()
            && self.runners.iter().flatten().all(|one| one.turn.sequence() == self.journal.rows.len() as u64)
    }

    fn until(&mut self, end: Timestamp, done: impl Fn(&Self) -> bool) -> Result<(), Broken> {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > end || done(self) {
                break;
            }
            // `first_entry` was looked at only; taking it cannot fail.
            let Some(((at, _), happening)) = self.agenda.pop_first() else { break };
            self.now = at;
            self.happens(happening)?;
        }
        self.now = end.max(self.now);
        Ok(())
    }

    fn schedule(&mut self, at: Timestamp, happening: Happening) {
        self.scheduled += 1;
        self.agenda.insert((at, self.scheduled), happening);
    }

    fn after(&mut self, micros: u64, happening: Happening) {
        self.schedule(self.now.plus_micros(micros as i64), happening);
    }

    fn open(&mut self, listings: &[Listing]) {
        let principal = "operator".parse();
        let Ok(principal) = principal else { return };
        let operator = Sender { role: Role::Operator, principal };
        let trusted = self.storefronts.iter().map(|(one, _)| Trust {
            role: Role::Storefront,
            principal: one.sender().principal,
            tenants: Some(tenants()),
        });
        // Rounds that close with every turn, and rounds that wait.
        let coalesce_milliseconds = [0, 250, 2_000][self.chance.below(3) as usize];
        let rules = Rules {
            coalesce_milliseconds,
            provisioning_seconds_max: self.chance.between(0, 60) as u32,
            dead_seconds_max: self.chance.between(0, 120) as u32,
            ..Rules::default()
        };
        let rules = "rules".parse().map(|id| AdoptRules { id, rules });
        let trust = "trust".parse().map(|id| AdoptTrust { id, trusted: trusted.collect() });
        let mut commands: Vec<MarketCommand> = rules.map(MarketCommand::AdoptRules).into_iter().collect();
        commands.extend(trust.map(MarketCommand::AdoptTrust));
        for (at, listing) in listings.iter().enumerate() {
            let settings = MarketSettings {
                reserve: listing.reserve,
                ladder: Ladder::Step(listing.step),
                notice_seconds: self.chance.between(5, 120) as u32,
                withdraw_until_seconds: None,
                on_demand_price: Some(listing.worth.max(listing.reserve)),
                on_demand_units_max: None,
                held_back_units: 0,
            };
            let Ok(id) = format!("define-{at}").parse() else { continue };
            commands.push(MarketCommand::DefineMarket(DefineMarket {
                id,
                market: listing.market.clone(),
                settings,
            }));
        }
        // The operator's own commands are not what is tried here: they are there from the first instant.
        let payload = envelope(&commands);
        let subject = subject::command("market", &self.stream, &operator);
        self.buses.commands.publish(&subject, payload);
        self.schedule(START, Happening::Starts(0));
        for at in 0..self.storefronts.len() {
            self.schedule(START, Happening::Storefront(at));
            self.schedule(START, Happening::Reads(at));
        }
        for at in 0..self.hypervisors.len() {
            self.schedule(START, Happening::Hypervisor(at));
        }
        self.schedule(START, Happening::LookAround);
    }

    fn happens(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Storefront(at) => self.storefront_acts(at),
            Happening::Hypervisor(at) => self.hypervisor_acts(at),
            Happening::Arrival(subject, payload) => self.buses.commands.publish(&subject, payload),
            Happening::Reads(at) => self.reads(at)?,
            Happening::Runner(at) => self.runner_steps(at)?,
            Happening::Starts(at) => {
                if self.runners[at].is_none() {
                    self.runners[at] = Some(Runner::load(&self.stream, self.settings, &self.journal)?);
                    self.after(1, Happening::Runner(at));
                }
            }
            Happening::LookAround => self.look_around(),
        }
        Ok(())
    }

    fn storefront_acts(&mut self, at: usize) {
        let (storefront, _) = &mut self.storefronts[at];
        let commands = if self.is_settling { storefront.repeat(self.now) } else { storefront.act(self.now) };
        let (sender, next) = (storefront.sender(), storefront.next_at().max(self.now.plus_micros(1_000)));
        self.send(&sender, &commands);
        let next = if self.is_settling { self.now.plus_seconds(1) } else { next };
        self.schedule(next, Happening::Storefront(at));
    }

    fn hypervisor_acts(&mut self, at: usize) {
        if self.is_settling {
            return;
        }
        let hypervisor = &mut self.hypervisors[at];
        let commands = hypervisor.act(self.now);
        let (sender, next) = (hypervisor.sender(), hypervisor.next_at().max(self.now.plus_micros(1_000)));
        self.send(&sender, &commands);
        self.schedule(next, Happening::Hypervisor(at));
    }

    /// Puts commands on the way, in one envelope or several; a message may be lost, doubled or late.
    fn send(&mut self, sender: &Sender, commands: &[MarketCommand]) {
        let subject = subject::command("market", &self.stream, sender);
        for part in commands.chunks(self.chance.between(1, 8) as usize) {
            let payload = envelope(part);
            let copies = if self.chance.permille(self.faults.drop_permille) {
                0
            } else if self.chance.permille(self.faults.duplicate_permille) {
                2
            } else {
                1
            };
            for _ in 0..copies {
                let late = self.chance.permille(self.faults.late_permille);
                let micros = self.chance.between(100, if late { 3_000_000 } else { 2_000 });
                self.after(micros, Happening::Arrival(subject.clone(), payload.clone()));
            }
        }
    }

    fn reads(&mut self, at: usize) -> Result<(), Broken> {
        let (storefront, read) = &mut self.storefronts[at];
        let own = subject::answer(&storefront.sender().principal);
        // Now and then a reader begins again a little earlier, as after a restart of its own.
        let after = if self.chance.permille(20) { read.saturating_sub(5) } else { *read };
        for delivery in self.buses.answers.read(after, 64) {
            *read = (*read).max(delivery.position.sequence);
            if delivery.subject != own {
                continue;
            }
            let told: Answers<Answer> = serde_json::from_slice(&delivery.payload)
                .map_err(|error| Broken { invariant: "I14", details: error.to_string() })?;
            told.answers.iter().try_for_each(|answer| storefront.told(answer))?;
        }
        let pause = self.chance.between(READ_MICROS / 2, READ_MICROS * 2);
        self.after(pause, Happening::Reads(at));
        Ok(())
    }

    fn runner_steps(&mut self, at: usize) -> Result<(), Broken> {
        let Some(runner) = &mut self.runners[at] else { return Ok(()) };
        let step =
            runner.step(self.now, &mut self.journal, &mut self.buses, &self.faults, &mut self.chance)?;
        self.check_rows()?;
        match step {
            Step::Busy => {
                let micros = self.chance.between(50, 800);
                self.after(micros, Happening::Runner(at));
            }
            Step::Idle => {
                if let Some(runner) = &mut self.runners[at] {
                    runner.index(&mut self.journal);
                }
                self.after(IDLE_MICROS, Happening::Runner(at));
            }
            Step::Fenced => {
                self.outcome.fenced += 1;
                self.stops(at);
            }
            Step::Crashed(point) => {
                *self.outcome.crashes.entry(point).or_default() += 1;
                self.stops(at);
            }
        }
        Ok(())
    }

    fn stops(&mut self, at: usize) {
        self.runners[at] = None;
        // The first owner always comes back; the second one only by chance.
        if at == 0 || self.runners[0].is_none() {
            let micros = self.chance.between(1_000, 5_000_000);
            self.after(micros, Happening::Starts(at));
        }
    }

    /// Every row that was committed is folded by a bystander, who checks everything there is to check.
    fn check_rows(&mut self) -> Result<(), Broken> {
        while let Some(row) = self.journal.rows.get(self.checker.sequence() as usize) {
            let fold = self.checker.fold(row, false);
            fold.map_err(|error| Broken { invariant: "I7", details: error.to_string() })?;
            self.checker.check()?;
            let batch: EventBatch<MarketEvent> = serde_json::from_slice(&row.events)
                .map_err(|error| Broken { invariant: "I14", details: error.to_string() })?;
            let gap = self.view.apply_batch(&batch);
            gap.map_err(|gap| Broken { invariant: "I6", details: gap.to_string() })?;
            for event in batch.entries.iter().flat_map(|entry| &entry.events) {
                self.watch(batch.at, event)?;
            }
        }
        Ok(())
    }

    /// Counts what happened, lets hypervisors know of leases, and sees that nobody is released before the instant that
    /// a notice named.
    fn watch(&mut self, at: Timestamp, event: &MarketEvent) -> Result<(), Broken> {
        match *event {
            MarketEvent::UnitsAwarded { leases, available_by, .. }
            | MarketEvent::UnitsMoved { leases, available_by, .. } => {
                self.outcome.awarded += u64::from(leases.units);
                // Whose servers they are does not matter to the market: all of both have some everywhere.
                let who = leases.first as usize % self.hypervisors.len();
                self.hypervisors[who].grant(at, leases, available_by);
            }
            MarketEvent::NoticeGiven { leases, gone_at, .. } => {
                self.outcome.noticed += u64::from(leases.units);
                self.notices.extend((leases.first..leases.end()).map(|lease| (lease, gone_at)));
            }
            MarketEvent::NoticeWithdrawn { leases, .. } => {
                self.outcome.withdrawn += u64::from(leases.units);
                self.notices.retain(|&lease, _| !leases.contains(lease));
            }
            MarketEvent::WorkersReady { leases, .. } => self.outcome.ready += u64::from(leases.units),
            MarketEvent::WorkersDead { leases, .. } => self.outcome.died += u64::from(leases.units),
            MarketEvent::UnitsReleased { leases, reason, .. } => {
                for lease in leases.first..leases.end() {
                    let gone_at = self.notices.remove(&lease);
                    let is_early = gone_at.is_none_or(|gone_at| at < gone_at);
                    if reason == ReleaseReason::NoticeEnded && is_early {
                        let details = format!("lease {lease} is released at {at}, notice until {gone_at:?}");
                        return Err(Broken { invariant: "I8", details });
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What leases cost adds up, and a view that was read from bytes says the same.
    fn check_bills(&self) -> Result<(), Broken> {
        let broken = |details: String| Broken { invariant: "I5", details };
        if let Some(fault) = self.view.billing_fault() {
            return Err(broken(fault));
        }
        let read = View::restore(&self.view.snapshot()).map_err(|error| broken(error.to_string()))?;
        if read != self.view {
            return Err(broken("a view's snapshot gives another view".to_owned()));
        }
        Ok(())
    }

    fn look_around(&mut self) {
        if self.chance.permille(self.faults.second_owner_permille) {
            self.after(0, Happening::Starts(1));
        }
        // Not before the operator's commands are decided: nobody repeats them.
        let is_open = self.journal.rows.len() > 10;
        if is_open && self.chance.permille(self.faults.recreate_permille) {
            self.buses.commands = Stream::new(self.now.micros());
            self.outcome.recreated += 1;
        }
        if self.chance.permille(self.faults.snapshot_permille) {
            self.snapshot();
        }
        let micros = self.chance.between(1_000_000, 20_000_000);
        self.after(micros, Happening::LookAround);
    }

    /// The bystander's state is that of the committed rows, as a follower's is.
    fn snapshot(&mut self) {
        // A snapshot holds the newest answers only: as in the follower, the index has the others first.
        let old = self.checker.to_index(usize::MAX);
        self.journal.index.extend(old.into_iter().map(|answered| (answered.key, answered)));
        let mut bytes = self.checker.snapshot();
        if self.chance.permille(125) {
            *self.outcome.crashes.entry(CrashPoint::Snapshot).or_default() += 1;
            let cut = self.chance.below(bytes.len() as u64) as usize;
            bytes.truncate(cut);
        }
        self.journal.snapshots.push(bytes);
        if self.journal.snapshots.len() > 3 {
            self.journal.snapshots.remove(0);
        }
    }

    /// What must hold at the end of a run.
    fn close(mut self) -> Result<Outcome, Broken> {
        if let Some(sequence) = self.buses.disagreement {
            let details = format!("batch {sequence} was published in two versions");
            return Err(Broken { invariant: "I3", details });
        }
        self.check_replays()?;
        self.check_bills()?;
        for (storefront, _) in &self.storefronts {
            for answer in storefront.answers().values() {
                self.outcome.answered += 1;
                self.outcome.refused += u64::from(matches!(answer, Answer::Refused(_)));
            }
        }
        self.outcome.rows = self.journal.rows.len() as u64;
        self.outcome.chain = self.checker.chain();
        Ok(self.outcome)
    }

    /// Folding, deciding again, and starting from any good snapshot end in the same state.
    fn check_replays(&self) -> Result<(), Broken> {
        let broken = |details: String| Broken { invariant: "I7", details };
        let expected = self.checker.snapshot();
        let mut audited = Turn::<Market>::new(self.stream.clone(), self.settings);
        for row in &self.journal.rows {
            audited.audit(row).map_err(|error| broken(error.to_string()))?;
        }
        if audited.snapshot() != expected {
            return Err(broken("deciding again gives another state than folding".to_owned()));
        }
        for bytes in &self.journal.snapshots {
            let Ok(mut turn) = Turn::<Market>::restore(self.stream.clone(), self.settings, bytes) else {
                continue;
            };
            let from = turn.sequence() as usize;
            for row in self.journal.rows.get(from..).unwrap_or_default() {
                turn.fold(row, false).map_err(|error| broken(error.to_string()))?;
            }
            if turn.snapshot() != expected {
                return Err(broken(format!("the snapshot of row {from} leads to another state")));
            }
        }
        Ok(())
    }
}

fn envelope(commands: &[MarketCommand]) -> Bytes {
    let json = match commands {
        [single] => serde_json::to_vec(single),
        several => serde_json::to_vec(&Commands { commands: several.to_vec() }),
    };
    // Plain data written to memory.
    Bytes::from(json.unwrap_or_default())
}

fn tenants() -> Vec<proto::TenantId> {
    ["ann", "bob", "cyd", "dan", "eve", "fay"].iter().filter_map(|name| name.parse().ok()).collect()
}

fn listings(chance: &mut Chance) -> Vec<Listing> {
    let names = ["dfw/gp.small", "dfw/gp.large", "iad/gp.large", "lon/mem.large"];
    let several = chance.between(1, names.len() as u64) as usize;
    let listing = |name: &&str| {
        // A coarse ladder makes ties, a fine one near-equal prices.
        let step = *chance.pick(&[1_000_u64, 5_000, 10_000])?;
        Some(Listing {
            market: name.parse().ok()?,
            worth: Price::micros_or_max(step * chance.between(2, 12)),
            step: Price::micros_or_max(step),
            reserve: Price::micros_or_max(step * chance.between(1, 3)),
        })
    };
    names.iter().take(several).filter_map(listing).collect()
}

fn storefront(at: usize, listings: &[Listing], chance: &mut Chance) -> Storefront {
    let principal = format!("storefront-{at}").parse().unwrap_or_else(|error| unreachable!("{error}"));
    let habits = Habits {
        standing: chance.between(5, 60),
        interval_milliseconds: chance.between(100, 2_000),
        quantity_max: chance.between(1, 8),
        ..Habits::default()
    };
    let fork = chance.fork();
    Storefront::new(principal, tenants(), listings.to_vec(), habits, "r", START, fork)
}

fn hypervisor(at: usize, listings: &[Listing], chance: &mut Chance) -> Hypervisor {
    let principal = format!("hypervisor-{at}").parse().unwrap_or_else(|error| unreachable!("{error}"));
    let habits = HypervisorHabits {
        units_max: chance.between(0, 40) as u32,
        interval_milliseconds: chance.between(500, 20_000),
        ..HypervisorHabits::default()
    };
    let fork = chance.fork();
    Hypervisor::new(principal, listings, habits, "r", 0, START, fork)
}
