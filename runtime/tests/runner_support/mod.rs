//! Runners of the toy machine over a bus and a journal, and what must hold of what they leave behind.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Journal, Owner};
use proto::StreamName;
use proto::envelope::{Answers, EventBatch, RefusalReason};
use runtime::bus::{Bus, Reader};
use runtime::config::RunnerSettings;
use runtime::nats::layout;
use runtime::runner::{NoView, Runner, View, journal_stream, turn_row};
use runtime::shell::Stop;
use runtime::telemetry::Meter;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use turn::testing::{Tally, TallyAnswer, TallyEvent};
use turn::{Audited, Settings, Turn};

/// How long anything that must happen may take.
pub const WAIT_MAX: Duration = Duration::from_secs(40);

pub const SENDER: &str = "walras.v1.command.tally.main.storefront.s1";

pub fn stream() -> StreamName {
    "main".parse().unwrap()
}

pub fn settings() -> RunnerSettings {
    RunnerSettings {
        answers_kept: NonZeroU32::new(1_000).unwrap(),
        snapshot_every_rows: NonZeroU32::new(20).unwrap(),
        archive_dir: None,
        rows_kept: NonZeroU64::new(1_000_000).unwrap(),
        claim_seconds: NonZeroU32::new(1).unwrap(),
    }
}

/// A bus, a journal, and commands sent so far.
pub struct World {
    pub bus: Bus,
    pub journal: Journal,
    pub dir: TempDir,
    pub settings: RunnerSettings,
    pub meter: Meter,
    sent: u64,
}

/// A runner in its own task.
pub struct Running {
    pub task: JoinHandle<()>,
    pub stop: watch::Sender<bool>,
}

impl Running {
    /// As kill -9 of the process would: wherever it is, it does nothing more.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(WAIT_MAX, self.task).await.expect("stops in time").unwrap();
    }
}

impl World {
    pub async fn new(bus: Bus) -> Self {
        let dir = TempDir::new().unwrap();
        let url = format!("sqlite:{}", dir.path().join("journal.db").display());
        Self::with_journal(bus, Journal::open(&url).await.unwrap(), dir).await
    }

    pub async fn with_journal(bus: Bus, journal: Journal, dir: TempDir) -> Self {
        for spec in [
            layout::command_stream("tally", "main"),
            layout::event_stream("tally", "main"),
            layout::answer_stream(),
            layout::order_stream(),
        ] {
            bus.ensure_stream(&spec).await.unwrap();
        }
        let meter = Meter::new("market").unwrap();
        Self { bus, journal, dir, settings: settings(), meter, sent: 0 }
    }

    pub fn runner(&self, owner: &str) -> Runner<Tally, NoView> {
        self.runner_with_view(owner)
    }

    pub fn runner_with_view<V: View<Tally>>(&self, owner: &str) -> Runner<Tally, V> {
        let owner = Owner::new(owner).unwrap();
        let (bus, journal, settings) = (&self.bus, &self.journal, self.settings.clone());
        Runner::new(bus, journal, stream(), owner, settings, &self.meter).unwrap()
    }

    pub fn start(&self, owner: &str) -> Running {
        start(self.runner(owner))
    }

    /// With a meter of its own, as another process has.
    pub fn runner_elsewhere(&self, owner: &str) -> Runner<Tally, NoView> {
        let meter = Meter::new("market").unwrap();
        let owner = Owner::new(owner).unwrap();
        let (bus, journal, settings) = (&self.bus, &self.journal, self.settings.clone());
        Runner::new(bus, journal, stream(), owner, settings, &meter).unwrap()
    }

    pub async fn send(&mut self, payload: &str) {
        self.sent += 1;
        let id = format!("m{}", self.sent);
        let payload = Bytes::from(payload.to_owned());
        for _ in 0..1_000 {
            if self.bus.publish(SENDER, &id, &[], payload.clone()).await.is_ok() {
                return;
            }
        }
        panic!("{id} was never stored");
    }

    pub async fn add(&mut self, id: u64) {
        self.send(&add(id)).await;
    }

    /// All answers told so far, by command.
    pub async fn answers(&self) -> BTreeMap<String, Vec<TallyAnswer>> {
        let mut by_command = BTreeMap::<_, Vec<_>>::new();
        for message in read_all(&self.bus, "walras-answer", "walras.v1.answer.*").await {
            let batch: Answers<TallyAnswer> = serde_json::from_slice(&message).unwrap();
            for answer in batch.answers {
                if let Some(id) = answer.command() {
                    by_command.entry(id.to_string()).or_default().push(answer);
                }
            }
        }
        by_command
    }

    /// Waits until the additions `ids` are all answered.
    pub async fn until_answered(&self, ids: impl Iterator<Item = u64> + Clone) {
        let mut reader = reader(&self.bus, "walras-answer", "walras.v1.answer.*").await;
        let mut missing: std::collections::BTreeSet<String> = ids.map(|id| format!("c{id}")).collect();
        let deadline = Instant::now() + WAIT_MAX;
        while !missing.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let batch = tokio::time::timeout(left, reader.next_batch(10_000, 1 << 24)).await;
            let batch = batch.unwrap_or_else(|_| panic!("never answered: {missing:?}")).unwrap();
            for delivery in batch {
                let told: Answers<TallyAnswer> = serde_json::from_slice(&delivery.payload).unwrap();
                for answer in told.answers {
                    answer.command().map(|id| missing.remove(id.as_str()));
                }
            }
        }
    }

    /// Checks all that was left behind, when `count` additions of 1 were sent, each any number of times.
    pub async fn check(&self, count: u64) -> Turn<Tally> {
        let turn = self.audit().await;
        let tenant = "t".parse().unwrap();
        assert_eq!(turn.machine().total(&tenant), count as i64, "each has its effect once");
        let answers = self.answers().await;
        let mut totals = Vec::new();
        for id in 0..count {
            let told = &answers[&format!("c{id}")];
            let decided: Vec<_> = told
                .iter()
                .filter(|answer| !matches!(answer, TallyAnswer::Refused(it) if it.refusal.reason == RefusalReason::IdReused))
                .collect();
            assert!(decided.windows(2).all(|pair| pair[0] == pair[1]), "c{id}: {decided:?}");
            let Some(TallyAnswer::Total { total, .. }) = decided.first() else { panic!("c{id}: {told:?}") };
            totals.push(*total);
        }
        totals.sort_unstable();
        assert_eq!(totals, (1..=count as i64).collect::<Vec<_>>(), "each total is told to one command");
        self.check_events(&turn).await;
        turn
    }

    /// The event stream holds every row's events in order. A row may come twice where the broker has
    /// forgotten its id, but never with other content.
    async fn check_events(&self, turn: &Turn<Tally>) {
        let mut next = 1;
        for message in read_all(&self.bus, "walras-event-tally-main", "walras.v1.event.tally.main").await {
            let batch: EventBatch<TallyEvent> = serde_json::from_slice(&message).unwrap();
            assert!(batch.sequence <= next, "row {next} is missing from the events");
            let row = self.journal.row(&journal_stream::<Tally>(&stream()), batch.sequence).await.unwrap();
            if let Some(row) = row {
                assert!(
                    turn_row(row).events == message,
                    "row {} is published with other events",
                    batch.sequence
                );
            }
            next = next.max(batch.sequence + 1);
        }
        assert_eq!(next, turn.sequence() + 1, "all rows are published");
    }

    /// Decides the whole journal again.
    pub async fn audit(&self) -> Turn<Tally> {
        let kept = self.settings.answers_kept.get() as usize;
        let mut turn = Turn::new(stream(), Settings { answers_kept: kept });
        let name = journal_stream::<Tally>(&stream());
        if let Some(dir) = &self.settings.archive_dir {
            for row in journal::archived_rows(dir, &name, 0).unwrap() {
                assert_eq!(turn.audit(&turn_row(row.unwrap())).unwrap(), Audited::Decided);
            }
        }
        loop {
            let rows = self.journal.load_from(&name, turn.sequence(), 1_000, 1 << 24).await.unwrap();
            if rows.is_empty() {
                turn.check().unwrap();
                return turn;
            }
            for row in rows {
                assert_eq!(turn.audit(&turn_row(row)).unwrap(), Audited::Decided);
            }
        }
    }

    pub async fn head(&self) -> u64 {
        let head = self.journal.head(&journal_stream::<Tally>(&stream())).await.unwrap();
        head.map_or(0, |head| head.seq)
    }

    /// The value of a metric that counts, summed over its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.meter.text().unwrap();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

pub fn start<V: View<Tally>>(runner: Runner<Tally, V>) -> Running {
    let (sender, stop) = Stop::new();
    Running { task: tokio::spawn(runner.run(stop)), stop: sender }
}

pub fn add(id: u64) -> String {
    format!(r#"{{"type":"Add","id":"c{id}","tenant":"t","amount":1}}"#)
}

pub fn envelope(ids: impl Iterator<Item = u64>) -> String {
    let commands: Vec<_> = ids.map(add).collect();
    format!(r#"{{"commands":[{}]}}"#, commands.join(","))
}

async fn reader(bus: &Bus, stream: &str, filter: &str) -> Reader {
    bus.read(stream, filter, None).await.unwrap()
}

/// Everything that a stream holds now.
pub async fn read_all(bus: &Bus, stream: &str, filter: &str) -> Vec<Bytes> {
    let last = bus.stream_state(stream).await.unwrap().last;
    let mut reader = reader(bus, stream, filter).await;
    let mut all = Vec::new();
    while reader.position().is_none_or(|position| position.sequence < last) && last > 0 {
        let batch = tokio::time::timeout(WAIT_MAX, reader.next_batch(10_000, 1 << 24)).await;
        all.extend(batch.expect("in time").unwrap().into_iter().map(|delivery| delivery.payload));
    }
    all
}

/// Looks until `condition` holds, and fails the test if it never does.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + WAIT_MAX;
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Numbers that look random and are the same on every run (Steele, Lea, Flood: `SplitMix`, 2014).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
