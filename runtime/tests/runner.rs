//! Runners over a memory bus and SQLite: whatever dies, hangs or fights, each command has its effect once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

mod runner_support;

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Journal, Settings};
use proto::machine::RestoreError;
use proto::{StreamName, Timestamp};
use runner_support::{Chance, World, add, envelope, start, stream, until};
use runtime::bus::Bus;
use runtime::runner::{Clock, View, journal_stream};
use sqlx::Connection;
use tempfile::TempDir;
use turn::testing::{Tally, TallyAnswer, TallyEvent};

async fn world() -> World {
    World::new(Bus::memory()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_answered_repeats_are_told_again_and_bad_ones_refused() {
    let mut world = world().await;
    let running = world.start("a");
    world.send(&envelope(0..100)).await;
    for id in 100..110 {
        world.add(id).await;
    }
    world.until_answered(0..110).await;
    world.add(7).await;
    world.send(&add(8).replace(":1}", ":2}")).await;
    world.send(r#"{"type":"Add","id":"c110","tenant":"t","amount":"1"}"#).await;
    world.send("not json").await;
    world.until_answered(110..111).await;
    until("the repeat and the conflict are answered", || async {
        let answers = world.answers().await;
        answers["c7"].len() == 2 && answers["c8"].len() == 2
    })
    .await;
    running.stop().await;
    world.check(110).await;
    assert_eq!(world.metric("walras_market_commands_total"), 112);
    assert_eq!(world.metric("walras_market_malformed_total"), 2);
    assert_eq!(world.metric("walras_market_unpublished_rows"), 0);
    // A last row says that everything was published; a repeat is not journaled.
    let head = world.journal.head(&journal_stream::<Tally>(&stream())).await.unwrap().unwrap();
    assert_eq!(head.published, head.seq - 1);
    let state = world.bus.stream_state("walras-command-tally-main").await.unwrap();
    assert_eq!(head.position_sequence, state.last);
}

/// The process is killed again and again under load, wherever it happens to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_anywhere_loses_and_repeats_nothing() {
    const KILLS: u64 = 60;
    let mut world = world().await;
    let mut chance = Chance(1);
    let mut sent = 0;
    for round in 0..KILLS {
        let running = world.start("a");
        for _ in 0..chance.below(20) {
            world.add(sent).await;
            sent += 1;
        }
        if chance.below(3) == 0 {
            world.send(&envelope(sent..sent + 30)).await;
            sent += 30;
        }
        if round % 4 == 0 && sent > 5 {
            // Asked again while it may or may not be answered.
            world.add(sent - 3).await;
        }
        // Not a wait for anything: where the kill comes is the chance that is tested.
        tokio::time::sleep(Duration::from_micros(chance.below(8_000))).await;
        running.kill().await;
    }
    let running = world.start("a");
    world.until_answered(0..sent).await;
    running.stop().await;
    world.check(sent).await;
}

/// Both believe that the stream is theirs, all the time: the fence alone keeps them apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runners_of_one_stream_have_one_effect() {
    let mut world = world().await;
    // One name for both: each finds the claim its own.
    let (one, other) = (world.start("same"), start(world.runner_elsewhere("same")));
    for id in 0..300 {
        world.add(id).await;
    }
    world.until_answered(0..300).await;
    assert!(!one.task.is_finished() && !other.task.is_finished());
    one.stop().await;
    other.stop().await;
    let last = world.start("same");
    world.add(300).await;
    world.until_answered(300..301).await;
    last.stop().await;
    world.check(301).await;
}

/// A runner that was away for too long goes on as if the stream were still its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_is_fenced() {
    let mut world = world().await;
    // So long that the zombie never looks at its claim again: nothing but the fence can stop it.
    world.settings.claim_seconds = NonZeroU32::new(3_600).unwrap();
    let zombie = world.start("zombie");
    world.add(0).await;
    world.until_answered(0..1).await;
    // By the successor's clock, a day ahead, the claim has run out.
    let begun = Instant::now();
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let tomorrow = wall.as_micros() as i64 + 86_400_000_000;
    let late = Clock::of(move || {
        let monotonic = begun.elapsed().as_micros() as i64;
        (tomorrow + monotonic, monotonic)
    });
    let successor = start(world.runner_elsewhere("successor").with_clock(late));
    let name = journal_stream::<Tally>(&stream());
    let mut sent = 1;
    while world.metric("walras_market_fenced_total") < 1 {
        world.add(sent).await;
        sent += 1;
        world.until_answered(sent - 1..sent).await;
        assert!(sent < 10_000, "the zombie is never fenced");
    }
    assert_eq!(world.journal.head(&name).await.unwrap().unwrap().owner, "successor");
    for id in sent..sent + 20 {
        world.add(id).await;
    }
    world.until_answered(0..sent + 20).await;
    assert_eq!(world.journal.head(&name).await.unwrap().unwrap().owner, "successor");
    assert_eq!(world.metric("walras_market_claim_held"), 0);
    successor.stop().await;
    zombie.stop().await;
    world.check(sent + 20).await;
}

/// The database takes the commit, but says so to nobody: the runner must not trust either outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_unknown_outcome_is_read_back() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.db");
    let url = format!("sqlite:{}", path.display());
    // The journal gives up after a second; SQLite itself goes on waiting for the lock, and commits later.
    let settings = Settings { answer_seconds_max: 1, lock_wait_millis: 20_000, ..Settings::default() };
    let journal = Journal::open_with(&url, settings).await.unwrap();
    let mut world = World::with_journal(Bus::memory(), journal, dir).await;
    world.settings.claim_seconds = NonZeroU32::new(30).unwrap();
    let running = world.start("a");
    world.add(0).await;
    world.until_answered(0..1).await;
    for round in 0..2_u64 {
        let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        world.add(round * 2 + 1).await;
        until("the journal gives up", || async {
            world.metric("walras_market_journal_failures_total") > round
        })
        .await;
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        world.add(round * 2 + 2).await;
        world.until_answered(0..round * 2 + 3).await;
    }
    running.stop().await;
    world.check(5).await;
}

/// Each life is too short for a snapshot of its own: rows folded at the start count, or starts would take longer
/// and longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_killed_again_and_again_still_makes_snapshots() {
    const LIVES_MAX: u64 = 60;
    const ROWS_PER_LIFE: u64 = 6;
    let mut world = world().await;
    let mut lives = 0;
    while world.metric("walras_market_snapshot_sequence") == 0 {
        assert!(lives < LIVES_MAX, "no snapshot in {lives} lives of {ROWS_PER_LIFE} rows");
        let running = world.start("a");
        for row in 0..ROWS_PER_LIFE {
            let id = lives * ROWS_PER_LIFE + row;
            world.add(id).await;
            world.until_answered(id..=id).await;
        }
        // Killed a little later each time, since a snapshot is made beside the answers and may be behind them.
        let patience = Duration::from_millis(5 * lives);
        let saved = until("a snapshot", async || world.metric("walras_market_snapshot_sequence") > 0);
        let _ = tokio::time::timeout(patience, saved).await;
        running.kill().await;
        lives += 1;
    }
    let running = world.start("a");
    world.add(lives * ROWS_PER_LIFE).await;
    world.until_answered(0..=lives * ROWS_PER_LIFE).await;
    running.stop().await;
    world.check(lives * ROWS_PER_LIFE + 1).await;
}

/// Old ids leave memory, old rows leave the database; both are still known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_answers_are_found_in_the_index_and_in_the_archive() {
    let mut world = world().await;
    world.settings.answers_kept = NonZeroU32::new(16).unwrap();
    world.settings.snapshot_every_rows = NonZeroU32::new(5).unwrap();
    world.settings.rows_kept = NonZeroU64::new(3).unwrap();
    world.settings.archive_dir = Some(world.dir.path().join("archive"));
    let name = journal_stream::<Tally>(&stream());
    let running = world.start("a");
    for id in 0..200 {
        world.add(id).await;
        if id % 10 == 0 {
            world.until_answered(id..=id).await;
        }
    }
    world.until_answered(0..200).await;
    let mut more = 200;
    while world.journal.row(&name, 1).await.unwrap().is_some() {
        world.add(more).await;
        world.until_answered(more..=more).await;
        more += 1;
        assert!(more < 2_000, "the first row is never archived");
    }
    world.add(3).await;
    until("an archived answer is told again", || async { world.answers().await["c3"].len() == 2 }).await;
    running.kill().await;
    let running = world.start("b");
    world.add(4).await;
    world.send(&add(5).replace(":1}", ":2}")).await;
    until("and after a restart", || async {
        let answers = world.answers().await;
        answers["c4"].len() == 2 && answers["c5"].len() == 2
    })
    .await;
    assert!(matches!(world.answers().await["c5"][1], TallyAnswer::Refused(_)));
    running.stop().await;
    world.check(more).await;
}

/// The broker's stream was made anew, and everybody sends again what they are not sure of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_went_backwards_is_read_from_its_first_message() {
    let mut world = world().await;
    let running = world.start("a");
    for id in 0..20 {
        world.add(id).await;
    }
    world.until_answered(0..20).await;
    world.bus.local().unwrap().recreate("walras-command-tally-main").unwrap();
    for id in 15..40 {
        world.add(id).await;
    }
    world.until_answered(0..40).await;
    assert!(world.metric("walras_market_stream_regressions_total") >= 1);
    running.kill().await;
    // And once more, while nobody runs.
    world.bus.local().unwrap().recreate("walras-command-tally-main").unwrap();
    for id in 39..50 {
        world.add(id).await;
    }
    let running = world.start("b");
    world.until_answered(0..50).await;
    running.stop().await;
    world.check(50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_does_not_poison_the_stream() {
    let mut world = world().await;
    let offset = Arc::new(AtomicI64::new(0));
    let begun = Instant::now();
    let clock = {
        let offset = Arc::clone(&offset);
        Clock::of(move || {
            let monotonic = begun.elapsed().as_micros() as i64;
            (1_000_000_000_000_000 + monotonic + offset.load(Ordering::Relaxed), monotonic)
        })
    };
    let running = start(world.runner("a").with_clock(clock));
    world.add(0).await;
    world.until_answered(0..1).await;
    offset.store(10 * 365 * 86_400 * 1_000_000, Ordering::Relaxed);
    world.add(1).await;
    until("the runner steps down", || async { world.metric("walras_market_clock_steps_total") == 1 }).await;
    let head = world.journal.head(&journal_stream::<Tally>(&stream())).await.unwrap().unwrap();
    assert!(head.at_micros < 1_000_000_000_000_000 + 1_000_000_000, "{}", head.at_micros);
    running.stop().await;
    let running = world.start("b");
    world.until_answered(0..2).await;
    running.stop().await;
    world.check(2).await;
}

/// Remembers how many events it has seen.
struct Seen {
    events: u64,
    sequence: u64,
}

impl View<Tally> for Seen {
    const SNAPSHOT: u16 = 1;

    fn new(_: &StreamName) -> Self {
        Self { events: 0, sequence: 0 }
    }

    fn apply(&mut self, _: Timestamp, _: u64, _: &TallyEvent) {
        self.events += 1;
    }

    fn settle(&mut self, _: Timestamp, sequence: u64) {
        assert_eq!(sequence, self.sequence + 1);
        self.sequence = sequence;
    }

    fn snapshot(&self) -> Vec<u8> {
        [self.events.to_le_bytes(), self.sequence.to_le_bytes()].concat()
    }

    fn restore(_: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        Ok(Self { events: word(0), sequence: word(8) })
    }

    fn answer(&self, machine: &Tally, question: &str, _: &[u8]) -> Result<Bytes, String> {
        match question {
            "total" => {
                let total = machine.total(&"t".parse().unwrap());
                Ok(Bytes::from(format!("{total} {} {}", self.events > 0, self.sequence)))
            }
            other => Err(format!("question {other} is unknown")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_answers_and_one_reads_ones_own_writes() {
    let mut world = world().await;
    let mut running = start(world.runner_with_view::<Seen>("a"));
    let mut written = 0;
    for round in 0..4 {
        for id in written..written + 60 {
            world.add(id).await;
            if id % 3 == 0 {
                world.until_answered(id..=id).await;
            }
        }
        written += 60;
        world.until_answered(0..written).await;
        let head = world.head().await;
        let question = Bytes::from(format!(r#"{{"wait_for_sequence":{head}}}"#));
        let subject = "walras.v1.query.tally.main.total";
        let told = world.bus.request(subject, question, Duration::from_secs(10)).await.unwrap().concat();
        let told = String::from_utf8(told).unwrap();
        assert!(told.starts_with(&format!("{written} true ")), "{told}");
        let wrong =
            world.bus.request("walras.v1.query.tally.main.x", Bytes::new(), Duration::from_secs(5)).await;
        assert!(wrong.unwrap_err().to_string().contains("question x is unknown"));
        if round == 1 {
            running.kill().await;
            running = start(world.runner_with_view::<Seen>("b"));
        }
    }
    assert!(world.metric("walras_market_snapshot_sequence") > 0, "a snapshot was saved");
    running.stop().await;
    world.check(written).await;
}

/// A stop is orderly: what was read is decided, published, and the claim is free for the next at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_orderly_stop_the_next_runner_starts_at_once() {
    let mut world = world().await;
    world.settings.claim_seconds = NonZeroU32::new(3_600).unwrap();
    let mut sent = 0;
    for owner in ["a", "b", "c"] {
        let running = world.start(owner);
        world.send(&envelope(sent..sent + 50)).await;
        sent += 50;
        world.until_answered(0..sent).await;
        running.stop().await;
    }
    let rows = world.head().await;
    let running = world.start("d");
    until("it runs", || async { world.metric("walras_market_claim_held") == 1 }).await;
    running.stop().await;
    assert_eq!(world.head().await, rows, "starting and stopping writes nothing");
    world.check(sent).await;
}
