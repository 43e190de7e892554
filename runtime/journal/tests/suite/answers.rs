//! The index of old answers, against a map.

use std::cell::Cell;
use std::collections::BTreeMap;

use journal::{Answer, AnswerKey, IndexedKey};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Fresh, on_both};

fn key(number: u64) -> AnswerKey {
    let mut key = [0; 16];
    // Spread, so that the order of keys is not the order of numbers.
    key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key[15] = 1;
    key
}

fn answer(number: u64) -> Answer {
    Answer { key: key(number), seq: number + 1, index: number as u32, digest: u64::MAX - number }
}

/// All keys as they are listed, in order.
async fn keys(fresh: &Fresh, page: usize) -> Vec<AnswerKey> {
    let mut all: Vec<IndexedKey> = Vec::new();
    loop {
        let next = fresh.journal.answer_keys("a", all.last(), page).await.unwrap();
        if next.is_empty() {
            assert!(all.is_sorted(), "run by run, and in each by key");
            let mut keys: Vec<AnswerKey> = all.iter().map(|indexed| indexed.key).collect();
            keys.sort_unstable();
            return keys;
        }
        assert!(next.len() <= page);
        all.extend(next);
    }
}

#[test]
fn the_index_is_a_map_in_which_the_first_answer_stands() {
    on_both(async |fresh| {
        // Batches of (key, digest) among few keys, so that they repeat within and across batches.
        let batches =
            proptest::collection::vec(proptest::collection::vec((0..90_u64, any::<u64>()), 0..150), 1..4);
        let runtime = tokio::runtime::Handle::current();
        let case = Cell::new(0);
        tokio::task::block_in_place(|| {
            let mut runner =
                TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
            let outcome = runner.run(&batches, |batches| {
                case.set(case.get() + 1);
                runtime.block_on(like_a_map(fresh, &format!("case-{}", case.get()), batches))
            });
            outcome.unwrap();
        });
    });
}

async fn like_a_map(fresh: &Fresh, stream: &str, batches: Vec<Vec<(u64, u64)>>) -> Result<(), TestCaseError> {
    let mut model: BTreeMap<AnswerKey, Answer> = BTreeMap::new();
    for (seq, batch) in (1..).zip(batches) {
        let answers: Vec<Answer> = (0..)
            .zip(batch)
            .map(|(index, (number, digest))| Answer { key: key(number), seq, index, digest })
            .collect();
        for answer in &answers {
            model.entry(answer.key).or_insert(*answer);
        }
        fresh.journal.index_answers(stream, &answers, seq).await.unwrap();
    }
    let asked: Vec<AnswerKey> = (0..100).map(key).collect();
    let found = fresh.journal.find_answers(stream, &asked).await.unwrap();
    prop_assert_eq!(&found, &model);
    prop_assert_eq!(fresh.journal.answer_count(stream).await.unwrap(), model.len() as u64);
    let first = fresh.journal.find_answers(stream, &asked[..1]).await.unwrap();
    prop_assert_eq!(first.get(&asked[0]), model.get(&asked[0]));
    Ok(())
}

#[test]
fn every_size_is_indexed_and_listed() {
    on_both(async |fresh| {
        let mut expected = Vec::new();
        let mut number = 0;
        for size in [0, 1, 63, 64, 65, 1_024, 1_025] {
            let answers: Vec<Answer> = (number..number + size).map(answer).collect();
            number += size;
            fresh.journal.index_answers("a", &answers, number).await.unwrap();
            expected.extend(answers.iter().map(|answer| answer.key));
            assert_eq!(fresh.journal.answer_count("a").await.unwrap(), number);
        }
        expected.sort_unstable();
        assert_eq!(keys(fresh, 100).await, expected);
        assert_eq!(keys(fresh, 100_000).await, expected);
        let found = fresh.again().await.find_answers("a", &expected).await.unwrap();
        assert_eq!(found.len() as u64, number);
        assert_eq!(found[&key(77)], answer(77));
        assert_eq!(fresh.journal.find_answers("b", &expected).await.unwrap().len(), 0);
        assert_eq!(fresh.journal.find_answers("a", &[]).await.unwrap().len(), 0);
    });
}

/// Puts the tables of an older version back, with these answers, and has the database opened anew.
async fn taken_over(fresh: &Fresh, version: u32, tables: &[&'static str], insert: &'static str) {
    let old: Vec<Answer> = (0..100).map(answer).collect();
    for sql in ["DROP TABLE answer_blocks", "DROP TABLE answer_runs"].iter().chain(tables) {
        fresh.tamper(sql).await;
    }
    let mut raw = fresh.raw().await;
    for old in &old {
        let query = sqlx::query(insert).bind(old.key.as_slice()).bind(old.seq as i64);
        query.bind(i64::from(old.index)).bind(old.digest as i64).execute(&mut raw).await.unwrap();
    }
    let set = sqlx::query("UPDATE journal_schema SET version = $1").bind(i64::from(version));
    set.execute(&mut raw).await.unwrap();
    let again = fresh.again().await;
    let more: Vec<Answer> = (100..200).map(answer).collect();
    again.index_answers("a", &more, 200).await.unwrap();
    let asked: Vec<AnswerKey> = (0..300).map(key).collect();
    let expected: BTreeMap<AnswerKey, Answer> =
        (0..200).map(|number| (key(number), answer(number))).collect();
    assert_eq!(again.find_answers("a", &asked).await.unwrap(), expected);
    assert_eq!(again.answer_count("a").await.unwrap(), 200);
}

/// The index was one table without runs in the first version.
#[test]
fn an_index_of_the_first_version_is_taken_over() {
    on_both(async |fresh| {
        let tables =
            ["CREATE TABLE answers (stream TEXT NOT NULL, id_hash BYTEA NOT NULL, seq BIGINT NOT NULL,
             entry BIGINT NOT NULL, digest BIGINT NOT NULL, PRIMARY KEY (stream, id_hash))"];
        let insert = "INSERT INTO answers (stream, id_hash, seq, entry, digest) VALUES ('a', $1, $2, $3, $4)";
        taken_over(fresh, 1, &tables, insert).await;
    });
}

/// Each answer was a row in the second.
#[test]
fn an_index_of_the_second_version_is_taken_over() {
    on_both(async |fresh| {
        let tables = [
            "CREATE TABLE answer_runs (stream TEXT NOT NULL, run BIGINT NOT NULL, PRIMARY KEY (stream, run))",
            "INSERT INTO answer_runs (stream, run) VALUES ('a', 1), ('a', 2)",
            "CREATE TABLE indexed_answers (stream TEXT NOT NULL, run BIGINT NOT NULL, id_hash BYTEA NOT NULL,
             seq BIGINT NOT NULL, entry BIGINT NOT NULL, digest BIGINT NOT NULL,
             PRIMARY KEY (stream, run, id_hash))",
        ];
        let insert = "INSERT INTO indexed_answers (stream, run, id_hash, seq, entry, digest)
             VALUES ('a', 1 + $2 % 2, $1, $2, $3, $4)";
        taken_over(fresh, 2, &tables, insert).await;
    });
}

#[test]
fn the_extent_of_the_index_never_shrinks() {
    on_both(async |fresh| {
        assert_eq!(fresh.journal.answers_through("a").await.unwrap(), 0);
        for (noted, through) in [(5, 5), (3, 5), (5, 5), (6, 6)] {
            fresh.journal.index_answers("a", &[], noted).await.unwrap();
            assert_eq!(fresh.again().await.answers_through("a").await.unwrap(), through);
        }
        assert_eq!(fresh.journal.answers_through("b").await.unwrap(), 0);
    });
}

/// Two indexers at once, as when an owner does not know yet that it lost its stream.
#[test]
fn two_indexers_at_once_do_no_harm() {
    on_both(async |fresh| {
        let indexers: Vec<_> = [false, true]
            .map(|reversed| {
                let journal = fresh.journal.clone();
                let mut answers: Vec<Answer> = (0..3_000).map(answer).collect();
                if reversed {
                    answers.reverse();
                }
                tokio::spawn(async move { journal.index_answers("a", &answers, 3_000).await })
            })
            .into();
        for one in indexers {
            one.await.unwrap().unwrap();
        }
        assert_eq!(fresh.journal.answer_count("a").await.unwrap(), 3_000);
    });
}
