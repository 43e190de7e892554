//! Processes killed with SIGKILL in the middle of their work: what was acknowledged is there.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use journal::testing::Postgres;
use journal::{Appended, Journal, Owner, Row};

use crate::support::{owner, row};

/// Longer than anything here takes on a busy machine; what does not come until then does not come.
const DEADLINE: Duration = Duration::from_mins(1);

/// Rows of about a page and a half, so that kills tear pages, too.
fn large_row(seq: u64) -> Row {
    Row { events: vec![seq as u8; 6_000], ..row(seq) }
}

fn large_rows(after: u64, count: u64) -> Vec<Row> {
    (after + 1..=after + count).map(large_row).collect()
}

async fn check_rows(journal: &Journal, stream: &str) -> u64 {
    let mut after = 0;
    loop {
        let page = journal.load_from(stream, after, 500, usize::MAX).await.unwrap();
        let Some(last) = page.last() else { return after };
        let next = last.seq;
        assert_eq!(page, large_rows(after, next - after));
        after = next;
    }
}

/// One runner: appends until an append fails, loads again, goes on. `acknowledged` is what it may rely on.
struct Runner {
    stream: String,
    acknowledged: Arc<AtomicU64>,
}

impl Runner {
    fn new(number: u64) -> Self {
        Self { stream: format!("stream-{number}"), acknowledged: Arc::default() }
    }

    /// Appends one or three rows at a time until the database is gone.
    fn start(&self, journal: &Journal, me: &Owner) -> tokio::task::JoinHandle<()> {
        let (journal, me) = (journal.clone(), me.clone());
        let (stream, acknowledged) = (self.stream.clone(), Arc::clone(&self.acknowledged));
        tokio::spawn(async move {
            let mut after = acknowledged.load(Ordering::Relaxed);
            loop {
                let rows = large_rows(after, if after.is_multiple_of(2) { 1 } else { 3 });
                match journal.append(&stream, &me, &rows).await {
                    Ok(Appended::Committed) => after += rows.len() as u64,
                    Ok(Appended::Stale) => panic!("nobody else writes {stream}"),
                    Err(_) => return,
                }
                acknowledged.store(after, Ordering::Relaxed);
            }
        })
    }
}

#[test]
fn postgres_killed_mid_append_keeps_what_it_acknowledged() {
    let Some(server) = Postgres::start() else { return };
    let url = server.database();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let journal = runtime.block_on(Journal::open(&url)).unwrap();
    let _spawning = runtime.enter();
    let me = owner("me");
    let runners: Vec<Runner> = (0..3).map(Runner::new).collect();
    for round in 1..=3 {
        let goal: Vec<u64> =
            runners.iter().map(|runner| runner.acknowledged.load(Ordering::Relaxed) + 20 * round).collect();
        let running: Vec<_> = runners.iter().map(|runner| runner.start(&journal, &me)).collect();
        let busy = || {
            runners
                .iter()
                .zip(&goal)
                .all(|(runner, goal)| runner.acknowledged.load(Ordering::Relaxed) >= *goal)
        };
        wait_for("appends", busy);
        server.kill();
        for one in running {
            runtime.block_on(one).unwrap();
        }
        server.restart();
        // The same handle: its connections are dead, and it has to notice.
        for runner in &runners {
            let acknowledged = runner.acknowledged.load(Ordering::Relaxed);
            let head = runtime.block_on(journal.head(&runner.stream)).unwrap().map_or(0, |head| head.seq);
            // The one append of unknown outcome is there whole or not at all.
            let unknown = if acknowledged.is_multiple_of(2) { 1 } else { 3 };
            assert!(head == acknowledged || head == acknowledged + unknown, "{head} after {acknowledged}");
            assert_eq!(runtime.block_on(check_rows(&journal, &runner.stream)), head);
            runner.acknowledged.store(head, Ordering::Relaxed);
        }
    }
}

/// Reading again changes nothing, so a reader need not hear that the server was away. A writer must.
#[test]
fn a_read_survives_a_restart_of_the_server_and_an_append_tells() {
    let Some(server) = Postgres::start() else { return };
    let url = server.database();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let journal = Journal::open(&url).await.unwrap();
        let me = owner("me");
        for round in 0..3 {
            assert_eq!(journal.append("a", &me, &large_rows(round, 1)).await.unwrap(), Appended::Committed);
            assert_eq!(check_rows(&journal, "a").await, round + 1);
            tokio::task::block_in_place(|| {
                server.kill();
                server.restart();
            });
            if round == 1 {
                assert!(journal.append("a", &me, &large_rows(round + 1, 1)).await.is_err());
            }
            assert_eq!(check_rows(&journal, "a").await, round + 1);
        }
    });
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Set for the child of the test below.
const CHILD_URL: &str = "WALRAS_JOURNAL_TEST_URL";

/// Not a test: what the child of the test below does until it is killed. Says what was acknowledged.
#[test]
fn child_that_appends() {
    let Ok(url) = std::env::var(CHILD_URL) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let journal = Journal::open(&url).await.unwrap();
        let me = owner("child");
        let mut after = journal.head("a").await.unwrap().map_or(0, |head| head.seq);
        loop {
            let rows = large_rows(after, if after.is_multiple_of(2) { 1 } else { 3 });
            assert_eq!(journal.append("a", &me, &rows).await.unwrap(), Appended::Committed);
            after += rows.len() as u64;
            println!("acknowledged {after}");
        }
    });
}

struct Writer {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Writer {
    fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_that_appends", "--nocapture"])
            .env(CHILD_URL, url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next row it says is acknowledged; `None` when it is gone.
    fn acknowledged(&mut self) -> Option<u64> {
        // The test harness writes to the same pipe, and a kill may tear the last line off.
        self.lines.by_ref().map_while(Result::ok).find_map(|line| {
            let number = line.split_once("acknowledged ")?.1;
            number.parse().ok()
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_killed_sqlite_writer_loses_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("journal.db").display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut reached = 0;
    for round in 1..=4 {
        let mut writer = Writer::start(&url);
        let mut last = 0;
        // Enough pages in the later rounds for a checkpoint to be under way now and then.
        for _ in 0..40 * round {
            last = writer.acknowledged().expect("the child ended by itself");
        }
        writer.child.kill().unwrap();
        // What it said between our last look and the kill counts as well.
        while let Some(acknowledged) = writer.acknowledged() {
            last = acknowledged;
        }
        writer.child.wait().unwrap();
        assert!(last > reached, "the child takes up where the last one was killed");
        runtime.block_on(async {
            let journal = Journal::open(&url).await.unwrap();
            let head = journal.head("a").await.unwrap().unwrap().seq;
            let unknown = if last.is_multiple_of(2) { 1 } else { 3 };
            // A line may have been torn off after its append, and one more append been under way.
            assert!(head >= last && head <= last + unknown + 3, "{head} after {last}");
            assert_eq!(check_rows(&journal, "a").await, head);
            reached = head;
            journal.close().await;
        });
    }
}

/// The test server ends with the process that started it, even when that is killed.
#[test]
fn a_test_server_does_not_outlive_its_process() {
    static ROLE: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("WALRAS_JOURNAL_TEST_SERVER").ok());
    if ROLE.is_some() {
        let Some(server) = Postgres::start() else {
            println!("acknowledged 0");
            return;
        };
        println!("started {}", server.database());
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::a_test_server_does_not_outlive_its_process", "--nocapture"])
        .env("WALRAS_JOURNAL_TEST_SERVER", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).find_map(|line| {
        let folder = line.split_once("host=").map(|(_, folder)| folder.to_owned());
        if line.contains("acknowledged 0") { Some(None) } else { folder.map(Some) }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let Some(Some(folder)) = said else { return };
    wait_for("the server to end and its folder to go", || !std::path::Path::new(&folder).exists());
}
