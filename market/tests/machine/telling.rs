//! What the parties are told.

use market::Market;
use proto::envelope::{Answers, MESSAGE_BYTES_MAX};
use proto::machine::{Received, Role};
use proto::market::{Answer, MarketReport};
use proto::{Machine, Publication};
use serde_json::json;

use super::driver::*;

fn letters(told: &[Publication]) -> Vec<(String, Vec<Answer>)> {
    told.iter()
        .filter(|publication| publication.durable)
        .map(|publication| {
            assert!(publication.payload.len() <= MESSAGE_BYTES_MAX);
            let answers: Answers<Answer> = serde_json::from_slice(&publication.payload).unwrap();
            // What is written by hand around the answers is what the type would have written.
            assert_eq!(serde_json::to_vec(&answers).unwrap(), publication.payload);
            assert_eq!((answers.machine.as_str(), answers.stream.as_str()), ("market", "main"));
            (publication.subject.clone(), answers.answers)
        })
        .collect()
}

fn kinds(answers: &[Answer]) -> Vec<String> {
    answers
        .iter()
        .map(|answer| serde_json::to_value(answer).unwrap()["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn one_letter_a_principal_commands_first() {
    let mut world = World::with_market();
    world.supply(1, 1);
    let trusted =
        json!([{"role": "storefront", "principal": "s1"}, {"role": "storefront", "principal": "s2"}]);
    world.send(&operator(), json!({"type": "AdoptTrust", "trusted": trusted}));
    let (s1, s2) = (sender(Role::Storefront, "s1"), sender(Role::Storefront, "s2"));
    world.send(&s1, bid("a", 1, "0.010"));
    let told = letters(&world.told);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "walras.v1.answer.s1");
    assert_eq!(kinds(&told[0].1), ["Accepted", "Awarded"]);
    let report = world.told.iter().find(|publication| !publication.durable).unwrap();
    assert_eq!(report.subject, "walras.v1.price.main.dfw.a");
    let report: MarketReport = serde_json::from_slice(&report.payload).unwrap();
    assert_eq!((report.round, report.prices.sold), (3, 1));

    // s2 outbids s1; s1 sends something refused in the same turn.
    let turn = vec![
        (s2.clone(), command(bid("b", 1, "0.020"))),
        (s1.clone(), command(bid("a", 1, "0.010"))),
        (operator(), command(json!({"type": "CancelBid", "id": "c1", "tenant": "t-a", "bid": "zz"}))),
    ];
    world.turn(turn);
    let told = letters(&world.told);
    let told: Vec<_> = told.iter().map(|(to, answers)| (to.as_str(), kinds(answers))).collect();
    assert_eq!(
        told,
        [
            ("walras.v1.answer.s2", vec!["Accepted".to_owned(), "Awarded".to_owned()]),
            ("walras.v1.answer.s1", vec!["Refused".to_owned(), "NoticeGiven".to_owned()]),
            ("walras.v1.answer.ops", vec!["Refused".to_owned()]),
        ]
    );
    // Who cancels is answered; who placed is told what follows.
    world.wait(60);
    let cancel = json!({"type": "CancelBid", "id": "c2", "tenant": "t-b", "bid": "b"});
    world.turn(vec![(operator(), command(cancel))]);
    let told = letters(&world.told);
    let told: Vec<_> = told.iter().map(|(to, answers)| (to.as_str(), kinds(answers))).collect();
    assert_eq!(
        told,
        [
            ("walras.v1.answer.ops", vec!["Accepted".to_owned()]),
            ("walras.v1.answer.s1", vec!["Released".to_owned(), "Awarded".to_owned()]),
            ("walras.v1.answer.s2", vec!["NoticeGiven".to_owned()]),
        ]
    );
}

#[test]
fn who_placed_a_bid_is_told_of_its_end_by_name_though_it_is_finished_at_once() {
    let mut world = World::with_market();
    world.supply(1, 1);
    world.place("a", 1, "0.010");
    // b waits for a's server; cancelled, it has nothing any more in the same turn.
    world.place("b", 1, "0.020");
    let cancel = json!({"type": "CancelBid", "id": "c1", "tenant": "t-b", "bid": "b"});
    world.turn(vec![(operator(), command(cancel))]);
    let told = letters(&world.told);
    let web = told.iter().find(|(to, _)| to == "walras.v1.answer.web").unwrap();
    assert_eq!(kinds(&web.1), ["Released", "NoticeWithdrawn"]);
    let Answer::Released(released) = &web.1[0] else { panic!("{web:?}") };
    assert_eq!((released.tenant.as_str(), released.bid.as_str()), ("t-b", "b"));
}

#[test]
fn an_answer_told_again_is_the_one_told_first() {
    let mut world = World::with_market();
    let place = command(bid("a", 1, "0.010"));
    let inputs = world.turn(vec![(gateway(), place.clone())]);
    let first = letters(&world.told);
    let stream = "main".parse().unwrap();
    let received = Received::new(gateway(), place);
    let again = Market::retell(&stream, world.sequence, world.now, &received, &inputs[1]).unwrap();
    assert_eq!(letters(&[again]), first);
    let nothing = Market::retell(&stream, world.sequence, world.now, &received, &[]);
    assert_eq!(nothing, None);
}

#[test]
fn a_turn_with_very_many_answers_is_told_in_several_messages() {
    let mut world = World::with_market();
    let place =
        |number: usize| (gateway(), command(bid(&format!("bid-with-a-long-name-{number:040}"), 1, "0.010")));
    world.turn((0..4_000).map(place).collect());
    let told = letters(&world.told);
    assert!(told.len() > 1);
    assert_eq!(told.iter().map(|(_, answers)| answers.len()).sum::<usize>(), 4_000);
}
