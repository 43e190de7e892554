//! The archive: rows leave the database and stay in the record.

use std::fs;
use std::path::{Path, PathBuf};

use journal::{Appended, Archived, JournalError, Row, Snapshot, archived_rows, verify_archive};

use crate::support::{Fresh, fill, on_both, owner, rows};

const VERSION: u32 = 1;

async fn snapshot(fresh: &Fresh, seq: u64) {
    let body = seq.to_le_bytes().to_vec();
    fresh.journal.save_snapshot("a", &Snapshot { seq, version: VERSION, body }).await.unwrap();
}

async fn archive(fresh: &Fresh, up_to: u64) -> Option<Archived> {
    fresh.journal.archive("a", &fresh.folder(), up_to, VERSION).await.unwrap()
}

fn read(dir: &Path, after: u64) -> Vec<Row> {
    archived_rows(dir, "a", after).unwrap().map(Result::unwrap).collect()
}

async fn in_database(fresh: &Fresh, after: u64) -> Vec<Row> {
    fresh.journal.load_from("a", after, 1_000, usize::MAX).await.unwrap()
}

/// Three files: rows 1 to 4, 5 to 9, 10 to 11; rows 12 to 20 stay.
async fn three_files(fresh: &Fresh) -> Vec<PathBuf> {
    fill(&fresh.journal, "a", 20).await;
    snapshot(fresh, 15).await;
    let mut paths = Vec::new();
    for up_to in [4, 9, 11] {
        paths.push(archive(fresh, up_to).await.unwrap().path);
    }
    paths
}

#[test]
fn rows_move_and_the_record_stays_whole() {
    on_both(async |fresh| {
        let paths = three_files(fresh).await;
        assert_eq!(paths.len(), 3);
        assert_eq!(read(&fresh.folder(), 0), rows(1, 11));
        assert_eq!(read(&fresh.folder(), 6), rows(7, 11));
        assert_eq!(read(&fresh.folder(), 11), []);
        assert_eq!(in_database(fresh, 11).await, rows(12, 20));
        let gap = fresh.journal.load_from("a", 0, 10, usize::MAX).await.unwrap_err();
        assert!(matches!(gap, JournalError::Gap { expected: 1, found: 12, .. }), "{gap}");
        assert_eq!(fresh.journal.row("a", 3).await.unwrap(), None);

        let tail = fresh.journal.archive_tail("a").await.unwrap().unwrap();
        assert_eq!((tail.stream.as_str(), tail.last_seq), ("a", 11));
        assert_eq!(verify_archive(&fresh.folder()).unwrap(), [tail]);

        let me = owner("me");
        assert_eq!(fresh.journal.append("a", &me, &rows(11, 11)).await.unwrap(), Appended::Stale);
        assert_eq!(fresh.journal.append("a", &me, &rows(21, 21)).await.unwrap(), Appended::Committed);
        assert_eq!(archived_rows(&fresh.folder(), "b", 0).unwrap().count(), 0);
    });
}

#[test]
fn only_what_a_good_snapshot_covers_moves_and_never_the_last_row() {
    on_both(async |fresh| {
        assert_eq!(archive(fresh, 99).await, None, "an empty stream");
        fill(&fresh.journal, "a", 10).await;
        assert_eq!(archive(fresh, 99).await, None, "no snapshot");
        for seq in [3, 6, 10] {
            snapshot(fresh, seq).await;
        }
        let none = fresh.journal.archive("a", &fresh.folder(), 99, VERSION + 1).await.unwrap();
        assert_eq!(none, None, "no snapshot that this program reads");
        let archived = archive(fresh, 99).await.unwrap();
        assert_eq!(
            (archived.first_seq, archived.last_seq),
            (1, 3),
            "the oldest kept snapshot needs the rest"
        );
        assert_eq!(archive(fresh, 99).await, None);

        fresh.tamper("DELETE FROM snapshot_parts WHERE seq = 6").await;
        fresh.tamper("DELETE FROM snapshots WHERE seq = 3").await;
        let archived = archive(fresh, 99).await.unwrap();
        assert_eq!((archived.first_seq, archived.last_seq), (4, 9), "the damaged one covers nothing");
        assert_eq!(in_database(fresh, 9).await, rows(10, 10));
        let me = owner("me");
        assert_eq!(fresh.journal.append("a", &me, &rows(11, 11)).await.unwrap(), Appended::Committed);
    });
}

#[test]
fn a_crash_at_any_step_is_continued() {
    on_both(async |fresh| {
        fill(&fresh.journal, "a", 20).await;
        snapshot(fresh, 15).await;
        fresh.tamper("CREATE TABLE kept AS SELECT * FROM journal").await;
        let restore = "INSERT INTO journal SELECT * FROM kept WHERE NOT EXISTS \
                       (SELECT 1 FROM journal WHERE journal.seq = kept.seq)";
        let first = archive(fresh, 5).await.unwrap();
        let second = archive(fresh, 10).await.unwrap();
        let bytes = fs::read(&second.path).unwrap();

        // Noted, and killed before the file was there. The range is fixed, so the same file comes out.
        let forget = "UPDATE archives SET sha256 = substr(sha256, 1, 0) WHERE first_seq = 6";
        fs::remove_file(&second.path).unwrap();
        assert_eq!((fresh.tamper(restore).await, fresh.tamper(forget).await), (10, 1));
        assert_eq!(fresh.journal.archive_tail("a").await.unwrap().unwrap().last_seq, 5);
        assert_eq!(archive(fresh, 99).await, Some(second.clone()));
        assert_eq!(fs::read(&second.path).unwrap(), bytes);
        assert_eq!(in_database(fresh, 10).await.first().map(|row| row.seq), Some(11));

        // The file is there, but not noted; and half a file of an earlier attempt lies about.
        fs::write(second.path.with_extension("partial"), b"half").unwrap();
        assert_eq!((fresh.tamper(restore).await, fresh.tamper(forget).await), (10, 1));
        assert_eq!(archive(fresh, 99).await, Some(second.clone()));

        // Noted, and killed before, or while, rows were deleted.
        assert_eq!(fresh.tamper(restore).await, 10);
        fresh.tamper("DELETE FROM journal WHERE seq <= 7").await;
        assert_eq!(archive(fresh, 10).await, None);
        assert_eq!(fresh.tamper("UPDATE journal SET seq = seq").await, 10);

        assert_eq!(read(&fresh.folder(), 0), rows(1, 10));
        assert_eq!(fs::read_dir(first.path.parent().unwrap()).unwrap().count(), 3, "two files and the lock");
    });
}

/// Damages files in every way that comes to mind; each must be found.
#[test]
fn whatever_happened_to_the_files_is_found() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fresh = runtime.block_on(Fresh::sqlite());
    let paths = runtime.block_on(three_files(&fresh));
    let dir = fresh.folder();
    let good: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let found = || verify_archive(&dir).map_err(|error| error.to_string());

    // Every byte of the middle file, one bit each.
    for at in 0..good[1].len() {
        let mut bad = good[1].clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&paths[1], &bad).unwrap();
        let error = found().expect_err("a flipped bit went unseen");
        assert!(error.contains("00000000000000000005.rows"), "byte {at}: {error}");
        let rows: Vec<_> = archived_rows(&dir, "a", 0).unwrap().collect();
        assert_eq!(rows.iter().filter(|row| row.is_ok()).count(), 4, "no row of a damaged file is given");
        assert_eq!(rows.len(), 5, "and the error is the last");
    }
    // Every length.
    for length in 0..good[1].len() {
        fs::write(&paths[1], &good[1][..length]).unwrap();
        assert!(found().is_err(), "length {length}");
    }
    fs::write(&paths[1], &good[1]).unwrap();
    assert_eq!(found().unwrap()[0].last_seq, 11);

    // A file that is sound in itself, in the wrong place.
    fs::write(&paths[2], &good[1]).unwrap();
    assert!(found().unwrap_err().contains("must begin with 10"));
    fs::remove_file(&paths[2]).unwrap();
    let tail = runtime.block_on(fresh.journal.archive_tail("a")).unwrap().unwrap();
    assert_ne!(found().unwrap(), [tail], "a missing last file shows against the database's note");
    fs::write(&paths[2], &good[2]).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    assert!(found().unwrap_err().contains("holds rows 10 to 11, must begin with 5"));
    fs::write(&paths[1], &good[1]).unwrap();
    fs::remove_file(&paths[0]).unwrap();
    assert!(found().unwrap_err().contains("must begin with 1"));
    fs::write(&paths[0], &good[0]).unwrap();
    fs::rename(&paths[0], paths[0].with_file_name("00000000000000000002.rows")).unwrap();
    assert!(found().unwrap_err().contains("its name does not say"));
}

/// A forger who recomputes a file's own hash still breaks the chain.
#[test]
fn a_file_of_another_history_does_not_fit() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (fresh, other) = (Fresh::sqlite().await, Fresh::sqlite().await);
        let ours = three_files(&fresh).await;
        let me = owner("me");
        let mut changed = rows(1, 20);
        changed[0].events.push(1);
        other.journal.append("a", &me, &changed).await.unwrap();
        snapshot(&other, 15).await;
        let mut theirs = Vec::new();
        for up_to in [4, 9] {
            theirs.push(archive(&other, up_to).await.unwrap().path);
        }
        fs::copy(&theirs[1], &ours[1]).unwrap();
        let error = verify_archive(&fresh.folder()).unwrap_err().to_string();
        assert!(error.contains("does not follow the file before"), "{error}");
        fs::copy(&theirs[0], &ours[0]).unwrap();
        let error = verify_archive(&fresh.folder()).unwrap_err().to_string();
        assert!(error.contains("does not follow the file before"), "{error}");
    });
}

#[test]
fn another_folder_and_a_second_archiver_are_refused() {
    on_both(async |fresh| {
        three_files(fresh).await;
        let elsewhere = fresh.folder().with_file_name("elsewhere");
        let error = fresh.journal.archive("a", &elsewhere, 99, VERSION).await.unwrap_err().to_string();
        assert!(error.contains("is this the folder that was used before?"), "{error}");

        let lock = fs::File::open(fresh.folder().join("a/lock")).unwrap();
        lock.lock().unwrap();
        let error = fresh.journal.archive("a", &fresh.folder(), 99, VERSION).await.unwrap_err().to_string();
        assert!(error.ends_with("is in use by another archiver"), "{error}");
        // Not only closed: children that other tests start at this moment hold copies of it.
        lock.unlock().unwrap();
        assert_eq!(archive(fresh, 99).await.unwrap().last_seq, 15);
    });
}
