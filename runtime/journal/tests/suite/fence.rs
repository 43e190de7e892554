//! The fence: one effective writer, whoever believes what.

use std::cell::Cell;
use std::collections::BTreeMap;

use journal::{Appended, Journal, Owner, Row, Settings};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Fresh, fill, on_both, owner, row, rows, told};

/// A row that says who wrote it.
fn row_of(owner: &Owner, seq: u64) -> Row {
    Row { events: owner.as_str().as_bytes().to_vec(), ..row(seq) }
}

fn rows_of(owner: &Owner, after: u64, count: u64) -> Vec<Row> {
    (after + 1..=after + count).map(|seq| row_of(owner, seq)).collect()
}

#[test]
fn only_the_row_after_the_last_is_taken() {
    on_both(async |fresh| {
        let me = owner("me");
        let append = async |rows: &[Row]| fresh.journal.append("a", &me, rows).await.unwrap();
        assert_eq!(append(&rows(2, 2)).await, Appended::Stale, "a gap at the beginning");
        assert_eq!(append(&rows(1, 1)).await, Appended::Committed);
        assert_eq!(append(&rows(1, 1)).await, Appended::Stale, "the same row again");
        assert_eq!(append(&rows(3, 3)).await, Appended::Stale, "a gap");
        assert_eq!(append(&rows(2, 4)).await, Appended::Committed);
        assert_eq!(append(&rows(4, 6)).await, Appended::Stale, "an overlap is refused whole");
        assert_eq!(append(&rows(6, 8)).await, Appended::Stale, "a gap is refused whole");
        assert_eq!(append(&rows(1, 6)).await, Appended::Stale);
        assert_eq!(fresh.journal.load_from("a", 0, 100, usize::MAX).await.unwrap(), rows(1, 4));
        assert_eq!(append(&rows(5, 5)).await, Appended::Committed, "the connection is as good as before");
    });
}

/// What one of several runners does that all believe to own a stream.
#[derive(Clone, Debug)]
enum Step {
    /// Appends this many rows after the last one it knows.
    Append(u64),
    /// Drops its state and loads again.
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![3 => (1..4_u64).prop_map(Step::Append), 1 => Just(Step::Reload)];
    proptest::collection::vec((0..3_usize, step), 1..16)
}

/// Over all interleavings of three runners: an append succeeds exactly when its runner knows the end of the
/// stream, and the stream holds exactly what was acknowledged.
#[test]
fn zombies_are_fenced_in_every_interleaving() {
    on_both(async |fresh| {
        let handles = [fresh.journal.clone(), fresh.again().await, fresh.again().await];
        let owners = ["one", "two", "three"].map(owner);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            let case = Cell::new(0);
            let mut runner =
                TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
            let outcome = runner.run(&steps(), |steps| {
                case.set(case.get() + 1);
                let stream = format!("case-{}", case.get());
                runtime.block_on(interleave(&stream, &handles, &owners, steps))
            });
            outcome.unwrap();
        });
    });
}

async fn interleave(
    stream: &str,
    handles: &[Journal; 3],
    owners: &[Owner; 3],
    steps: Vec<(usize, Step)>,
) -> Result<(), TestCaseError> {
    let mut known = [0_u64; 3];
    let mut model: Vec<Row> = Vec::new();
    for (who, step) in steps {
        match step {
            Step::Append(count) => {
                let rows = rows_of(&owners[who], known[who], count);
                let appended = handles[who].append(stream, &owners[who], &rows).await.unwrap();
                if known[who] == model.len() as u64 {
                    prop_assert_eq!(appended, Appended::Committed);
                    model.extend(rows);
                    known[who] = model.len() as u64;
                } else {
                    prop_assert_eq!(appended, Appended::Stale);
                }
            }
            Step::Reload => {
                known[who] = handles[who].head(stream).await.unwrap().map_or(0, |head| head.seq);
                prop_assert_eq!(known[who], model.len() as u64);
            }
        }
    }
    let stored = handles[0].load_from(stream, 0, 1_000, usize::MAX).await.unwrap();
    prop_assert_eq!(stored, model);
    Ok(())
}

/// The same with real concurrency: each row was won by exactly one, the one that was told so.
#[test]
fn of_racing_owners_exactly_one_wins_each_row() {
    const ROWS: u64 = 60;
    on_both(async |fresh| {
        let mut racing = Vec::new();
        for number in 0..4 {
            // Two share a handle, two come with connections of their own.
            let journal = if number < 2 { fresh.journal.clone() } else { fresh.again().await };
            let me = owner(&format!("owner-{number}"));
            racing.push(tokio::spawn(async move {
                let mut won = Vec::new();
                loop {
                    let after = journal.head("a").await.unwrap().map_or(0, |head| head.seq);
                    if after >= ROWS {
                        return won;
                    }
                    // One or two rows: both the single statement and the transaction race.
                    let rows = rows_of(&me, after, 1 + after % 2);
                    if journal.append("a", &me, &rows).await.unwrap() == Appended::Committed {
                        won.extend(rows);
                    }
                }
            }));
        }
        let mut acknowledged = BTreeMap::new();
        for one in racing {
            for row in one.await.unwrap() {
                let seq = row.seq;
                assert!(acknowledged.insert(seq, row).is_none(), "row {seq} was won twice");
            }
        }
        let stored = fresh.journal.load_from("a", 0, 1_000, usize::MAX).await.unwrap();
        assert!(stored.len() as u64 >= ROWS);
        assert_eq!(stored, acknowledged.into_values().collect::<Vec<_>>());
    });
}

/// A foreign process holds SQLite's write lock: an append waits for it, for as long as configured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_waits_for_a_held_write_lock() {
    let fresh = Fresh::sqlite().await;
    fill(&fresh.journal, "a", 1).await;
    let mut holder = fresh.raw().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();

    let hasty = Settings { lock_wait_millis: 20, ..Settings::default() };
    let refused = Journal::open_with(&fresh.url, hasty).await.unwrap();
    let error = refused.append("a", &owner("me"), &rows(2, 2)).await.unwrap_err();
    assert!(told(&error).contains("locked"), "{}", told(&error));
    let error = refused.append("a", &owner("me"), &rows(2, 3)).await.unwrap_err();
    assert!(told(&error).contains("locked"), "{}", told(&error));

    // Reading does not wait.
    assert_eq!(refused.head("a").await.unwrap().unwrap().seq, 1);

    let patient = fresh.journal.clone();
    let waiting = tokio::spawn(async move { patient.append("a", &owner("me"), &rows(2, 2)).await });
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Appended::Committed);
    assert_eq!(refused.append("a", &owner("me"), &rows(3, 3)).await.unwrap(), Appended::Committed);
}

/// The lock's holder wins the row that an append waits to write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_waited_is_stale_when_the_row_is_taken() {
    let fresh = Fresh::sqlite().await;
    fill(&fresh.journal, "a", 1).await;
    let mut holder = fresh.raw().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let patient = fresh.journal.clone();
    let waiting = tokio::spawn(async move { patient.append("a", &owner("me"), &rows(2, 2)).await });
    let copied = "INSERT INTO journal SELECT stream, 2, at_micros, rules, position_created, position_sequence, \
                  published, state_hash, chain, owner, input, events FROM journal";
    sqlx::raw_sql(copied).execute(&mut holder).await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Appended::Stale);
}

/// An append that is given up half-way leaves the handle usable and the stream without a gap.
#[test]
fn an_abandoned_append_harms_nobody() {
    on_both(async |fresh| {
        let me = owner("me");
        fill(&fresh.journal, "a", 1).await;
        for polls in 1..12 {
            let after = fresh.journal.head("a").await.unwrap().unwrap().seq;
            let rows = rows(after + 1, after + 3);
            let mut append = Box::pin(fresh.journal.append("a", &me, &rows));
            for _ in 0..polls {
                if futures_poll_once(&mut append).await {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(append);
        }
        // What was given up may still commit, so the end moves until somebody wins the row after it.
        let mut tries = 0;
        loop {
            let after = fresh.journal.head("a").await.unwrap().unwrap().seq;
            if fresh.journal.append("a", &me, &rows(after + 1, after + 1)).await.unwrap()
                == Appended::Committed
            {
                break;
            }
            tries += 1;
            assert!(tries < 50, "the stream does not come to rest");
        }
        let stored = fresh.journal.load_from("a", 0, 1_000, usize::MAX).await.unwrap();
        assert_eq!(stored, rows(1, stored.len() as u64));
    });
}

/// Polls once; says whether it is done.
async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_ready())
    })
    .await
}
