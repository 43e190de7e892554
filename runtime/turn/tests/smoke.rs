//! One stream of the toy machine, followed by eye.

#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use proto::{StreamName, Timestamp};
use turn::testing::Tally;
use turn::{Decoded, Delivery, Position, Settings, Turn, decode, retell};

fn delivery(sequence: u64, principal: &str, payload: &str) -> Decoded<turn::testing::TallyCommand> {
    let stream: StreamName = "main".parse().unwrap();
    let subject = format!("walras.v1.command.tally.main.storefront.{principal}");
    let position = Position { created: 7, sequence };
    decode::<Tally>(&stream, Delivery { subject, position, payload: Bytes::from(payload.to_owned()) })
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

#[test]
fn a_command_is_decided_once_told_again_and_found_in_its_row() {
    let stream: StreamName = "main".parse().unwrap();
    let mut turn = Turn::<Tally>::new(stream.clone(), Settings::default());
    let add = r#"{"type":"Add","id":"a1","tenant":"t","amount":5}"#;
    let first = turn.turn(at(10), vec![delivery(1, "s1", add)]).unwrap();
    let row = first.row.unwrap();
    assert_eq!((row.sequence, row.position.sequence, first.counts.decided), (1, 1, 1));
    let told: Vec<_> = first.outgoing.iter().map(|one| (&*one.id, &*one.subject)).collect();
    assert_eq!(
        told,
        [
            ("tally.main.1.0", "walras.v1.answer.s1"),
            ("tally.main.1.1", "walras.v1.event.tally.main"),
            ("tally.main.1.2", "walras.v1.price.main.sum"),
        ]
    );
    let text = std::str::from_utf8(&row.input).unwrap();
    assert_eq!(
        text,
        format!(
            r#"[{{"subject":"walras.v1.command.tally.main.storefront.s1","sequence":1,"payload":{add}}},{{"wake":true}}]"#
        )
    );

    let other = r#"{"type":"Add","id":"a1","tenant":"t","amount":6}"#;
    let again = turn.turn(at(20), vec![delivery(2, "s1", add), delivery(3, "s1", other)]).unwrap();
    assert!(again.row.is_none());
    assert_eq!((again.counts.repeated, again.counts.conflicts), (1, 1));
    let retold = retell::<Tally>(&stream, &row, &again.repeats).unwrap();
    assert_eq!(retold[0].payload, first.outgoing[0].payload);
    assert_eq!(retold[0].id, "tally.main.again.7.2.0-2.0.1.1");
    assert_eq!(again.at_once[0].id, "tally.main.refused.7.3.0-3.0.1");
    let refused = std::str::from_utf8(&again.at_once[0].payload).unwrap();
    assert!(refused.contains(r#""type":"Refused","id":"a1","tenant":"t","reason":"id-reused""#), "{refused}");
}
