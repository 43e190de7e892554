//! Appending and reading back.

use journal::{Appended, Journal, JournalError};

use crate::support::{Fresh, fill, on_both, owner, row, rows, told};

#[test]
fn what_is_appended_is_read_back_by_another() {
    on_both(async |fresh| {
        let me = owner("me");
        let mut expected = rows(1, 5);
        // The corners: nothing in a row, and the largest numbers.
        expected[2].input.clear();
        expected[2].events.clear();
        expected[3].position_sequence = i64::MAX as u64;
        expected[3].at_micros = i64::MIN;
        expected[3].rules = u32::MAX;
        for one in &expected[..2] {
            let appended = fresh.journal.append("a", &me, std::slice::from_ref(one)).await.unwrap();
            assert_eq!(appended, Appended::Committed);
        }
        assert_eq!(fresh.journal.append("a", &me, &expected[2..]).await.unwrap(), Appended::Committed);

        let other = fresh.again().await;
        assert_eq!(other.load_from("a", 0, 100, usize::MAX).await.unwrap(), expected);
        assert_eq!(other.load_from("a", 3, 100, usize::MAX).await.unwrap(), expected[3..]);
        assert_eq!(other.load_from("a", 5, 100, usize::MAX).await.unwrap(), []);
        assert_eq!(other.row("a", 4).await.unwrap().as_ref(), Some(&expected[3]));
        assert_eq!(other.row("a", 6).await.unwrap(), None);
        assert_eq!(other.row("a", 0).await.unwrap(), None);

        let head = other.head("a").await.unwrap().unwrap();
        let last = &expected[4];
        assert_eq!((head.seq, head.published), (last.seq, last.published));
        assert_eq!(
            (head.position_created, head.position_sequence),
            (last.position_created, last.position_sequence)
        );
        assert_eq!((head.at_micros, head.rules), (last.at_micros, last.rules));
        assert_eq!((head.state_hash, head.chain, head.owner.as_str()), (last.state_hash, last.chain, "me"));
    });
}

#[test]
fn streams_do_not_see_each_other() {
    on_both(async |fresh| {
        fill(&fresh.journal, "a", 3).await;
        fill(&fresh.journal, "aa", 1).await;
        assert_eq!(fresh.journal.head("a").await.unwrap().unwrap().seq, 3);
        assert_eq!(fresh.journal.head("aa").await.unwrap().unwrap().seq, 1);
        assert_eq!(fresh.journal.head("b").await.unwrap(), None);
        assert_eq!(fresh.journal.load_from("b", 0, 9, 9).await.unwrap(), []);
    });
}

#[test]
fn pages_are_bounded_in_rows_and_in_bytes() {
    on_both(async |fresh| {
        let me = owner("me");
        let mut all = rows(1, 20);
        for row in &mut all {
            row.input = vec![1; 600];
            row.events = vec![2; 400];
        }
        fresh.journal.append("a", &me, &all).await.unwrap();
        let count = async |rows, bytes| fresh.journal.load_from("a", 2, rows, bytes).await.unwrap().len();
        assert_eq!(count(4, usize::MAX).await, 4);
        assert_eq!(count(100, 5_000).await, 5);
        assert_eq!(count(100, 4_999).await, 4);
        assert_eq!(count(100, 0).await, 1, "reading must proceed past a large row");
        assert_eq!(count(0, 0).await, 1);
        assert_eq!(count(100, usize::MAX).await, 18);
    });
}

#[test]
fn a_missing_row_is_an_error_not_a_shorter_history() {
    on_both(async |fresh| {
        fill(&fresh.journal, "a", 9).await;
        assert_eq!(fresh.tamper("DELETE FROM journal WHERE seq = 5").await, 1);
        let load = async |after| fresh.journal.load_from("a", after, 100, usize::MAX).await;
        let error = load(0).await.unwrap_err();
        assert!(matches!(error, JournalError::Gap { expected: 5, found: 6, .. }), "{error}");
        assert!(matches!(load(4).await.unwrap_err(), JournalError::Gap { expected: 5, found: 6, .. }));
        assert_eq!(load(5).await.unwrap().len(), 4);
        // A page that ends before the gap does not see it yet; the next one must.
        assert_eq!(fresh.journal.load_from("a", 0, 4, usize::MAX).await.unwrap().len(), 4);
    });
}

#[test]
fn a_row_of_impossible_content_is_named() {
    on_both(async |fresh| {
        fill(&fresh.journal, "a", 3).await;
        assert_eq!(fresh.tamper("UPDATE journal SET chain = input WHERE seq = 2").await, 1);
        let error = fresh.journal.load_from("a", 0, 100, usize::MAX).await.unwrap_err();
        assert!(matches!(error, JournalError::Damaged { seq: 2, .. }), "{error}");
        assert!(told(&error).contains("stream a, row 2"), "{}", told(&error));
    });
}

#[test]
fn rows_out_of_bounds_are_refused_with_field_and_value() {
    on_both(async |fresh| {
        let me = owner("me");
        let append = async |stream: &str, rows: Vec<journal::Row>| {
            let error = fresh.journal.append(stream, &me, &rows).await.unwrap_err();
            assert!(matches!(error, JournalError::Bound { .. }), "{error}");
            error.to_string()
        };
        assert!(append("a", vec![]).await.contains("rows is 0, must be 1 to 1024"));
        assert!(append("a", rows(1, 1_025)).await.contains("rows is 1025"));
        assert!(append("a b", rows(1, 1)).await.contains(r#"stream is "a b""#));
        assert!(append(&"a".repeat(81), rows(1, 1)).await.contains("stream is"));
        assert!(append("a", vec![row(1), row(3)]).await.contains("seq is 3, must be 2"));
        let mut large = row(1);
        large.events = vec![0; journal::limits::ROW_BYTES_MAX];
        assert!(append("a", vec![large]).await.contains("bytes of a row"));
        let mut far = row(1);
        far.position_sequence = u64::MAX;
        assert!(append("a", vec![far]).await.contains("position_sequence is 18446744073709551615"));
        assert_eq!(fresh.journal.head("a").await.unwrap(), None);
    });
}

#[test]
fn tables_of_a_newer_program_are_refused() {
    on_both(async |fresh| {
        assert_eq!(fresh.tamper("UPDATE journal_schema SET version = 99").await, 1);
        let error = Journal::open(&fresh.url).await.unwrap_err();
        assert!(matches!(error, JournalError::Schema { found: 99, known: 3, .. }), "{error}");
    });
}

#[test]
fn many_open_an_empty_database_at_once() {
    on_both(async |fresh| {
        let tables: &[&'static str] = &[
            "DROP TABLE journal_schema",
            "DROP TABLE journal",
            "DROP TABLE claims",
            "DROP TABLE snapshots",
            "DROP TABLE snapshot_parts",
            "DROP TABLE answer_runs",
            "DROP TABLE answer_blocks",
            "DROP TABLE answers_through",
            "DROP TABLE archives",
        ];
        for sql in tables {
            fresh.tamper(sql).await;
        }
        let opening: Vec<_> = (0..8)
            .map(|_| {
                let url = fresh.url.clone();
                tokio::spawn(async move { Journal::open(&url).await.map(|_| ()) })
            })
            .collect();
        for one in opening {
            one.await.unwrap().unwrap();
        }
        fill(&fresh.again().await, "a", 1).await;
    });
}

#[tokio::test]
async fn a_password_is_never_told() {
    for url in [
        "postgres://walras:geheim@127.0.0.1:1/walras",
        "postgres:///walras?host=/nowhere&user=walras&password=geheim",
        "postgres://walras:geheim@127.0.0.1:99999/walras",
        "mysql://walras:geheim@127.0.0.1/walras",
    ] {
        let error = Journal::open(url).await.unwrap_err();
        assert!(!told(&error).contains("geheim") && !format!("{error:?}").contains("geheim"), "{error:?}");
    }
    let error = Journal::open("sqlite:/nowhere/journal.db").await.unwrap_err();
    assert_eq!(error.to_string(), "database sqlite:/nowhere/journal.db: cannot connect");
}

#[tokio::test]
async fn an_error_names_stream_database_and_operation() {
    let fresh = Fresh::sqlite().await;
    fresh.tamper("DROP TABLE journal").await;
    let error = fresh.journal.append("a", &owner("me"), &rows(1, 1)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("database sqlite:") && text.ends_with("stream a: cannot append"), "{text}");
    assert!(told(&error).contains("no such table"), "{}", told(&error));
}

/// SQLite's log has its space from the start, keeps it, and does not grow with what goes through it.
#[test]
fn the_log_of_sqlite_keeps_its_size() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let fresh = Fresh::sqlite().await;
        let file = std::path::PathBuf::from(fresh.url.trim_start_matches("sqlite:"));
        let log = file.with_extension("db-wal");
        let megabytes = |path: &std::path::Path| std::fs::metadata(path).unwrap().len() >> 20;
        assert_eq!(megabytes(&file), 0);
        assert!((8..16).contains(&megabytes(&log)), "{} MiB", megabytes(&log));
        let mut large = row(1);
        large.events = vec![7; 1 << 20];
        let me = owner("me");
        for seq in 1..=64 {
            large.seq = seq;
            assert_eq!(fresh.journal.append("a", &me, &[large.clone()]).await.unwrap(), Appended::Committed);
            // The limit, and what one append and a fold under way may add.
            assert!(megabytes(&log) < 32, "{} MiB", megabytes(&log));
        }
        assert!(megabytes(&file) >= 32, "the log is folded as it goes");
    });
}
