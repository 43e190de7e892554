//! Claims: who works on a stream.

use crate::support::{on_both, owner, told};

const TTL: i64 = 10;

#[test]
fn free_mine_foreign_and_expired() {
    on_both(async |fresh| {
        let (one, two) = (owner("one"), owner("two"));
        let claim = async |owner, now| fresh.journal.claim("a", owner, now, TTL).await.unwrap();

        let free = claim(&one, 100).await;
        assert_eq!((&free.owner, free.generation, free.expires_at_micros), (&one, 1, 110));
        assert!(free.is_held_by(&one) && !free.is_held_by(&two));

        let mine = claim(&one, 105).await;
        assert_eq!((&mine.owner, mine.generation, mine.expires_at_micros), (&one, 1, 115));

        let foreign = claim(&two, 114).await;
        assert_eq!(foreign, mine, "a live claim stays as it is");

        let expired = claim(&two, 115).await;
        assert_eq!((&expired.owner, expired.generation, expired.expires_at_micros), (&two, 2, 125));
        assert_eq!(claim(&one, 116).await, expired);

        // Taken up again after it ran out: others may have worked meanwhile, so it is a new holding.
        assert_eq!(claim(&two, 200).await.generation, 3);
    });
}

#[test]
fn a_released_stream_is_free_and_its_generation_still_grows() {
    on_both(async |fresh| {
        let (one, two) = (owner("one"), owner("two"));
        let claim = async |owner| fresh.journal.claim("a", owner, 100, TTL).await.unwrap();
        claim(&one).await;
        fresh.journal.release("a", &two).await.unwrap();
        assert!(claim(&two).await.is_held_by(&one), "only the holder can release");
        fresh.journal.release("a", &one).await.unwrap();
        let taken = claim(&two).await;
        assert_eq!((&taken.owner, taken.generation), (&two, 2));
        fresh.journal.release("a", &two).await.unwrap();
        assert_eq!(claim(&two).await.generation, 3);
        fresh.journal.release("never claimed".replace(' ', "-").as_str(), &two).await.unwrap();
    });
}

#[test]
fn one_that_is_gone_gives_back_all_it_held_and_nothing_else() {
    on_both(async |fresh| {
        let (gone, other, next) = (owner("gone"), owner("other"), owner("next"));
        let claim = async |stream, owner| fresh.journal.claim(stream, owner, 100, TTL).await.unwrap();
        for (stream, owner) in [("a", &gone), ("b", &gone), ("c", &other)] {
            claim(stream, owner).await;
        }
        fresh.journal.release_all(&gone).await.unwrap();
        for stream in ["a", "b"] {
            let taken = claim(stream, &next).await;
            assert_eq!((&taken.owner, taken.generation), (&next, 2), "{stream}");
        }
        assert!(claim("c", &next).await.is_held_by(&other));
    });
}

#[test]
fn of_many_at_once_one_gets_it() {
    on_both(async |fresh| {
        for round in 0..5 {
            let contenders: Vec<_> = (0..6)
                .map(|number| {
                    let journal = fresh.journal.clone();
                    let me = owner(&format!("owner-{number}"));
                    tokio::spawn(async move {
                        let claim = journal.claim("a", &me, round * 100, TTL).await.unwrap();
                        claim.is_held_by(&me)
                    })
                })
                .collect();
            let mut holders = 0;
            for one in contenders {
                holders += u32::from(one.await.unwrap());
            }
            assert_eq!(holders, 1, "round {round}");
        }
    });
}

#[test]
fn a_claim_without_duration_is_refused() {
    on_both(async |fresh| {
        let error = fresh.journal.claim("a", &owner("one"), i64::MAX, 1).await.unwrap_err();
        assert!(told(&error).contains("ttl_micros is 1"), "{error}");
        let error = fresh.journal.claim("a", &owner("one"), 0, 0).await.unwrap_err();
        assert!(told(&error).contains("ttl_micros is 0"), "{error}");
    });
}
