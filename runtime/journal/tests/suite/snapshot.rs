//! Snapshots: the newest good one is found, whatever is wrong with the others.

use journal::limits::SNAPSHOT_PART_BYTES_MAX;
use journal::{LoadedSnapshot, Snapshot};

use crate::support::{Fresh, on_both};

const VERSION: u32 = 2;

/// A snapshot of three parts that says which it is.
fn snapshot(seq: u64) -> Snapshot {
    let body = (0..2 * SNAPSHOT_PART_BYTES_MAX + 100).map(|at| (at as u64 * 7 + seq) as u8).collect();
    Snapshot { seq, version: VERSION, body }
}

async fn save(fresh: &Fresh, seqs: &[u64]) {
    for seq in seqs {
        fresh.journal.save_snapshot("a", &snapshot(*seq)).await.unwrap();
    }
}

async fn load(fresh: &Fresh) -> LoadedSnapshot {
    fresh.again().await.load_snapshot("a", VERSION).await.unwrap()
}

#[test]
fn every_length_comes_back() {
    on_both(async |fresh| {
        assert_eq!(load(fresh).await, LoadedSnapshot::default());
        let part = SNAPSHOT_PART_BYTES_MAX;
        for (seq, length) in (1..).zip([0, 1, part - 1, part, part + 1, 17 * part + 3]) {
            let body = (0..length).map(|at| at as u8).collect();
            let saved = Snapshot { seq, version: VERSION, body };
            fresh.journal.save_snapshot("a", &saved).await.unwrap();
            let loaded = load(fresh).await;
            assert!(loaded.snapshot.as_ref() == Some(&saved) && loaded.skipped.is_empty(), "{length}");
        }
        assert_eq!(fresh.journal.load_snapshot("b", VERSION).await.unwrap(), LoadedSnapshot::default());
    });
}

#[test]
fn three_are_kept() {
    on_both(async |fresh| {
        save(fresh, &[1, 2, 3, 4, 5]).await;
        // Saved again: still one.
        save(fresh, &[5]).await;
        assert_eq!(fresh.tamper("UPDATE snapshots SET parts = parts").await, 3);
        assert_eq!(fresh.tamper("UPDATE snapshot_parts SET part = part").await, 9);
        assert_eq!(load(fresh).await.snapshot, Some(snapshot(5)));
    });
}

/// What is done to the database.
type Statements = &'static [&'static str];
/// The snapshots skipped, newest first, and a part of the reason.
type Expected = &'static [(u64, &'static str)];

#[test]
fn a_damaged_one_is_skipped_and_said_why() {
    // Each damages the newest of three, or the newest two.
    let damages: [(Statements, Expected); 7] = [
        (
            &[
                "UPDATE snapshot_parts SET body = (SELECT sha256 FROM snapshots WHERE seq = 9) WHERE seq = 9 AND part = 1",
            ],
            &[(9, "bytes are there")],
        ),
        (
            &["UPDATE snapshot_parts SET part = 5 WHERE seq = 9 AND part = 1"],
            &[(9, "262244 of 524388 bytes are there")],
        ),
        (&["DELETE FROM snapshot_parts WHERE seq = 9"], &[(9, "0 of 524388 bytes are there")]),
        (
            &["UPDATE snapshots SET sha256 = (SELECT sha256 FROM snapshots WHERE seq = 8) WHERE seq = 9"],
            &[(9, "its hash does not match")],
        ),
        (
            // Another snapshot's body under this one's number.
            &["DELETE FROM snapshot_parts WHERE seq = 9", "UPDATE snapshot_parts SET seq = 9 WHERE seq = 8"],
            &[(9, "its hash does not match"), (8, "0 of 524388 bytes are there")],
        ),
        (&["UPDATE snapshots SET bytes = -1 WHERE seq = 9"], &[(9, "its length is -1")]),
        (
            &[
                "UPDATE snapshots SET seq = 10 WHERE seq = 9",
                "UPDATE snapshot_parts SET seq = 10 WHERE seq = 9",
            ],
            &[(10, "its hash does not match")],
        ),
    ];
    for (number, (statements, skipped)) in damages.into_iter().enumerate() {
        on_both(async |fresh| {
            save(fresh, &[7, 8, 9]).await;
            for sql in statements {
                assert!(fresh.tamper(sql).await > 0, "damage {number}");
            }
            let loaded = load(fresh).await;
            let good = 9 - skipped.len() as u64;
            assert!(loaded.snapshot == Some(snapshot(good)), "damage {number}: {:?}", loaded.skipped);
            assert_eq!(loaded.skipped.len(), skipped.len());
            for (found, (seq, why)) in loaded.skipped.iter().zip(skipped) {
                assert_eq!(found.seq, *seq);
                assert!(found.why.contains(why), "damage {number}: {}", found.why);
            }
        });
    }
}

#[test]
fn with_none_good_there_is_none() {
    on_both(async |fresh| {
        save(fresh, &[1, 2]).await;
        fresh.tamper("DELETE FROM snapshot_parts").await;
        let loaded = load(fresh).await;
        assert_eq!((loaded.snapshot, loaded.skipped.len()), (None, 2));
    });
}

#[test]
fn an_unknown_version_is_skipped_and_outlives_an_upgrade() {
    on_both(async |fresh| {
        save(fresh, &[1, 2]).await;
        let newer = Snapshot { version: VERSION + 1, ..snapshot(3) };
        fresh.journal.save_snapshot("a", &newer).await.unwrap();
        let loaded = load(fresh).await;
        assert_eq!(loaded.snapshot, Some(snapshot(2)));
        assert_eq!((loaded.skipped[0].seq, loaded.skipped[0].version), (3, 3));
        assert_eq!(loaded.skipped[0].why, "its version is 3, this program reads 2");
        let upgraded = fresh.journal.load_snapshot("a", VERSION + 1).await.unwrap();
        assert_eq!((upgraded.snapshot, upgraded.skipped.len()), (Some(newer), 0));

        // Going back must stay possible for a while, not for ever.
        for seq in 4..9 {
            let newer = Snapshot { version: VERSION + 1, ..snapshot(seq) };
            fresh.journal.save_snapshot("a", &newer).await.unwrap();
        }
        assert_eq!(load(fresh).await.snapshot, Some(snapshot(2)));
        assert_eq!(fresh.tamper("UPDATE snapshots SET parts = parts").await, 3 + 2);
    });
}

#[test]
fn an_interrupted_save_is_no_snapshot_and_is_swept_up() {
    on_both(async |fresh| {
        save(fresh, &[1, 2]).await;
        // As if killed before the title was written, after all parts or after some.
        assert_eq!(fresh.tamper("DELETE FROM snapshots WHERE seq = 2").await, 1);
        assert_eq!(fresh.tamper("DELETE FROM snapshot_parts WHERE seq = 2 AND part = 2").await, 1);
        let loaded = load(fresh).await;
        assert_eq!((loaded.snapshot, loaded.skipped.len()), (Some(snapshot(1)), 0));
        save(fresh, &[3]).await;
        assert_eq!(fresh.tamper("UPDATE snapshot_parts SET part = part").await, 6);
        assert_eq!(load(fresh).await.snapshot, Some(snapshot(3)));

        // A later save may be under way: what it has written so far is left alone.
        save(fresh, &[9]).await;
        fresh.tamper("DELETE FROM snapshots WHERE seq = 9").await;
        save(fresh, &[4]).await;
        assert_eq!(fresh.tamper("UPDATE snapshot_parts SET part = part WHERE seq = 9").await, 3);
    });
}
