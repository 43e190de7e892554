//! Whatever arrives, the codec gives back what was said or says what is wrong, and never falls over.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests fail like tests

mod any;

use proptest::prelude::*;
use proto::decode;
use proto::envelope::{Answers, EventBatch, Refused};
use proto::market::{Answer, MarketCommand, MarketEvent, MarketReport};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn read(payload: &[u8]) -> Result<Vec<Result<MarketCommand, Refused>>, Box<Refused>> {
    decode::commands(payload)
}

/// Every form in which serde writes an enum.
#[derive(Serialize)]
enum Shape {
    None,
    One(i32),
    Line(u8, String),
    Named { left: u64, right: i64 },
}

/// The same value again, by way of its text, and by way of a tree.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_vec(value).unwrap();
    assert_eq!(proto::json::to_vec(value).unwrap(), text);
    assert_eq!(&serde_json::from_slice::<T>(&text).unwrap(), value);
    assert_eq!(&serde_json::from_reader::<_, T>(&*text).unwrap(), value);
    assert_eq!(&serde_json::from_value::<T>(serde_json::to_value(value).unwrap()).unwrap(), value);
}

/// Every refusal names a field, shows what stood there and says one line.
fn check_refused(refused: &Refused) {
    let refusal = &refused.refusal;
    assert!(!refusal.field.is_empty(), "{refused:?}");
    assert!(!refusal.message.is_empty() && refusal.message.len() < 2_048, "{refused:?}");
    assert!(refusal.message.starts_with(&refusal.field), "{refused:?}");
    assert!(refusal.value.chars().count() <= proto::id::ID_BYTES_MAX + 1, "{refused:?}");
}

fn check(payload: &[u8]) {
    match read(payload) {
        Ok(commands) => {
            assert!(!commands.is_empty());
            for command in commands {
                match command {
                    Ok(command) => {
                        // What was understood can be said again, and is then understood alike.
                        let again = serde_json::to_vec(&command).unwrap();
                        assert_eq!(serde_json::from_slice::<MarketCommand>(&again).unwrap(), command);
                    }
                    Err(refused) => check_refused(&refused),
                }
            }
        }
        Err(refused) => check_refused(&refused),
    }
    let _ = serde_json::from_slice::<EventBatch<MarketEvent>>(payload);
    let _ = serde_json::from_slice::<Answers<Answer>>(payload);
    let _ = serde_json::from_slice::<MarketReport>(payload);
}

/// Any JSON, with the names and values that commands use somewhat more often than chance would have it.
fn json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        proptest::sample::select(vec![
            "type",
            "id",
            "tenant",
            "options",
            "limit",
            "market",
            "commands",
            "terms",
            "PlaceBid",
            "AdoptTrust",
            "0.030",
            "a/b",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(word.clone(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_command_comes_back(command in any::command()) {
        comes_back(&command);
        let text = serde_json::to_vec(&command).unwrap();
        prop_assert_eq!(read(&text), Ok(vec![Ok(command)]));
    }

    #[test]
    fn any_envelope_comes_back(commands in any::commands()) {
        comes_back(&commands);
        let text = serde_json::to_vec(&commands).unwrap();
        prop_assert_eq!(read(&text), Ok(commands.commands.into_iter().map(Ok).collect()));
    }

    #[test]
    fn any_event_comes_back(event in any::event()) {
        comes_back(&event);
    }

    #[test]
    fn any_batch_comes_back(batch in any::batch()) {
        comes_back(&batch);
    }

    #[test]
    fn any_answers_come_back(answers in any::answers()) {
        comes_back(&answers);
    }

    #[test]
    fn any_refused_comes_back(refused in any::refused()) {
        comes_back(&refused);
    }

    #[test]
    fn any_report_comes_back(report in any::report()) {
        comes_back(&report);
    }

    #[test]
    fn any_bytes_are_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&payload);
    }

    #[test]
    fn any_text_is_read_or_refused(payload in ".{0,200}") {
        check(payload.as_bytes());
    }

    #[test]
    fn any_json_is_read_or_refused(value in json()) {
        check(&serde_json::to_vec(&value).unwrap());
        check(&serde_json::to_vec(&serde_json::json!({ "commands": [value] })).unwrap());
    }

    #[test]
    fn a_damaged_envelope_is_read_or_refused(
        commands in any::commands(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut payload = serde_json::to_vec(&commands).unwrap();
        for (place, byte, kind) in damage {
            let place = place.index(payload.len().max(1));
            match kind {
                0 if !payload.is_empty() => payload[place] = byte,
                1 => payload.insert(place, byte),
                2 if !payload.is_empty() => drop(payload.remove(place)),
                _ => payload.truncate(place),
            }
        }
        check(&payload);
    }

    /// An unknown field anywhere in a command refuses it by its name, however the fields are ordered.
    #[test]
    fn an_unknown_field_of_a_command_is_refused(command in any::command(), name in "x[a-z]{0,8}", last in any::<bool>()) {
        let text = serde_json::to_string(&command).unwrap();
        let text = if last {
            format!("{},\"{name}\":7}}", &text[..text.len() - 1])
        } else {
            format!("{{\"{name}\":7,{}", &text[1..])
        };
        let read = read(text.as_bytes()).unwrap();
        let refused = read[0].as_ref().unwrap_err();
        prop_assert_eq!((&*refused.refusal.field, &*refused.refusal.value), (&*name, "7"));
    }

    /// Our own writer writes what `serde_json` does, whatever stands in a text.
    #[test]
    fn json_is_written_alike(
        words in prop::collection::btree_map(".*", ".*", 0..5), letters: Vec<char>, bytes: Vec<u8>,
        numbers: Vec<(i64, u64, i8, u16, bool)>, nested: Option<Option<(u8, ())>>,
        refusal in any::refusal(),
    ) {
        let value = (words, letters, bytes, numbers, nested, refusal, Shape::Line(1, "a\"b".to_owned()));
        prop_assert_eq!(proto::json::to_vec(&value).unwrap(), serde_json::to_vec(&value).unwrap());
        let shapes = [Shape::None, Shape::One(-1), Shape::Named { left: u64::MAX, right: i64::MIN }];
        prop_assert_eq!(proto::json::to_vec(&shapes).unwrap(), serde_json::to_vec(&shapes).unwrap());
    }

    /// A reader of facts goes on when a newer writer says more.
    #[test]
    fn unknown_fields_of_events_and_answers_are_tolerated(
        batch in any::batch(), answers in any::answers(), report in any::report(),
    ) {
        fn say_more(value: &mut Value, into: &[&str]) {
            if let Value::Array(items) = value {
                for item in items {
                    say_more(item, into);
                }
            }
            if let Value::Object(fields) = value {
                fields.iter_mut().filter(|(name, _)| into.contains(&&***name)).for_each(|(_, v)| say_more(v, into));
                fields.insert("news".to_owned(), serde_json::json!({ "deep": [1, "two", null] }));
            }
        }
        let mut value = serde_json::to_value(&batch).unwrap();
        say_more(&mut value, &["entries", "events", "leases"]);
        prop_assert_eq!(serde_json::from_slice::<EventBatch<MarketEvent>>(&serde_json::to_vec(&value).unwrap()).unwrap(), batch);
        let mut value = serde_json::to_value(&answers).unwrap();
        say_more(&mut value, &["answers", "leases"]);
        prop_assert_eq!(serde_json::from_slice::<Answers<Answer>>(&serde_json::to_vec(&value).unwrap()).unwrap(), answers);
        let mut value = serde_json::to_value(&report).unwrap();
        say_more(&mut value, &[]);
        prop_assert_eq!(serde_json::from_slice::<MarketReport>(&serde_json::to_vec(&value).unwrap()).unwrap(), report);
    }
}

const BID: &str = r#"{"type":"PlaceBid","id":"b1","tenant":"t","cluster":"c","pool":"p","quantity":2,"options":[{"market":"dfw/gp.large","limit":"0.030"}]}"#;
/// The same with its type last, so that it is read the other way.
const BID_TYPE_LAST: &str = r#"{"id":"b1","tenant":"t","cluster":"c","pool":"p","quantity":2,"options":[{"market":"dfw/gp.large","limit":"0.030"}],"type":"PlaceBid"}"#;

/// What refuses `from → to` in a bid: field and value, the same wherever its type stands.
#[test]
fn what_is_wrong_is_named_wherever_the_type_stands() {
    for (from, to, field, value) in [
        (r#""quantity":2"#, r#""quantity":-1"#, "quantity", "-1"),
        (r#""quantity":2"#, r#""quantity":0x10"#, "message", ""),
        (r#""quantity":2"#, r#""quantity":9223372036854775808"#, "quantity", "9223372036854775808"),
        (r#""quantity":2"#, r#""quantity":99999999999999999999"#, "quantity", "99999999999999999999"),
        (r#""quantity":2"#, r#""quantity":1e400"#, "quantity", "1e400"),
        (r#""quantity":2"#, r#""quantity":-0"#, "quantity", "-0"),
        (r#""quantity":2"#, r#""quantity":2.0"#, "quantity", "2.0"),
        (r#""quantity":2"#, r#""quantity":"2""#, "quantity", "\"2\""),
        (r#""quantity":2,"#, "", "quantity", "nothing"),
        (r#""quantity":2"#, r#""quantity":2,"quantity":2"#, "quantity", "2"),
        (r#""limit":"0.030""#, r#""limit":"0.030","limit":"0.031""#, "options[0].limit", "\"0.031\""),
        (r#","limit":"0.030""#, "", "options[0].limit", "nothing"),
        (r#""limit":"0.030""#, r#""limit":0.03"#, "options[0].limit", "0.03"),
        (r#""limit":"0.030""#, r#""limit":"1e5""#, "options[0].limit", "\"1e5\""),
        (r#""limit":"0.030""#, r#""limit":"\u0000""#, "options[0].limit", "\"\\u0000\""),
        (r#""limit":"0.030""#, r#""limit":"\ud83d""#, "options[0].limit", r#""\ud83d""#),
        (r#""limit":"0.030""#, r#""limit":"٠.٠٣٠""#, "options[0].limit", "\"٠.٠٣٠\""),
        (r#""dfw/gp.large""#, r#""dfw""#, "options[0].market", "\"dfw\""),
        (r#""type":"PlaceBid""#, r#""type":"SellBid""#, "type", "\"SellBid\""),
        (r#""type":"PlaceBid""#, r#""type":7"#, "type", "7"),
        (r#""type":"PlaceBid""#, r#""kind":"PlaceBid""#, "type", "nothing"),
        (r#""tenant":"t""#, r#""tenant":null"#, "tenant", "null"),
        (r#""tenant":"t""#, r#""tenant":{"t":{}}"#, "tenant", r#"{"t":{}}"#),
        (r#""id":"b1""#, r#""id":"b 1""#, "id", "\"b 1\""),
    ] {
        for bid in [BID, BID_TYPE_LAST] {
            let payload = bid.replacen(from, to, 1);
            assert_ne!(payload, bid);
            check(payload.as_bytes());
            let refused = match read(payload.as_bytes()) {
                Ok(read) => read[0].clone().expect_err(&payload),
                Err(refused) => *refused,
            };
            assert_eq!(refused.refusal.field, field, "{payload}: {refused:?}");
            if field != "message" {
                assert_eq!(refused.refusal.value, value, "{payload}: {refused:?}");
            }
        }
    }
}

/// One command that no parser can take costs its neighbours nothing.
#[test]
fn what_is_wrong_with_one_command_stays_with_it() {
    for (from, to) in [
        ("2", "1e400"),
        ("\"0.030\"", "\"\\ud83d\""),
        ("\"t\"", "{\"a\":1,\"a\":2}"),
        ("\"t\"", &"[".repeat(200)),
        ("\"t\"", "\"\\u0000\""),
    ] {
        let close = "]".repeat(to.matches('[').count());
        let bad = BID.replacen(from, &format!("{to}{close}"), 1);
        let payload = format!(r#"{{"commands":[{BID},{bad},{BID}]}}"#);
        check(payload.as_bytes());
        let read = read(payload.as_bytes()).unwrap();
        assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "{payload}");
    }
}

/// A refusal is logged and shown: whatever was sent, it stays one short line.
#[test]
fn a_refusal_is_one_short_line() {
    let long = "x".repeat(100_000);
    for payload in [
        BID.replace("\"pool\"", &format!("\"{long}\":1,\"pool\"")),
        BID.replace("PlaceBid", &long),
        BID.replace("\"t\"", &format!("\"{long}\"")),
        BID.replace("\"pool\"", "\"a\\nERROR forged line\\u0000\":1,\"pool\""),
        BID.replace("PlaceBid", "a\\nERROR forged line"),
        BID.replace("\"t\"", "{\n\"a\":\n1\n}"),
        "\n\n{\n}\n".to_owned(),
    ] {
        check(payload.as_bytes());
        let refused = read(payload.as_bytes()).unwrap().remove(0).unwrap_err();
        for text in [&refused.refusal.field, &refused.refusal.value, &refused.refusal.message] {
            assert!(!text.chars().any(char::is_control), "{refused:?}");
            assert!(text.chars().count() < 600, "{refused:?}");
        }
    }
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    for (open, close) in [("[", "]"), (r#"{"commands":["#, "]}"), (r#"{"type":"#, "}"), (r#"{"a":"#, "}")] {
        let deep = format!("{}0{}", open.repeat(10_000), close.repeat(10_000));
        check(deep.as_bytes());
        check(open.repeat(10_000).as_bytes());
        check(format!(r#"{{"commands":[{deep}]}}"#).as_bytes());
        check(BID.replace("\"t\"", &deep).as_bytes());
        check(BID_TYPE_LAST.replace("\"t\"", &deep).as_bytes());
        check(BID.replace("\"pool\"", &format!("\"depth\":{deep},\"pool\"")).as_bytes());
        let batch = format!(
            r#"{{"machine":"market","stream":"main","sequence":1,"at":"2026-11-22T09:00:00Z","rules":1,"entries":[],"more":{deep}}}"#
        );
        check(batch.as_bytes());
    }
}

#[test]
fn odd_bytes_around_a_command_are_refused_or_ignored() {
    for (payload, is_read) in [
        (format!(" \n\t{BID}\r\n"), true),
        (format!("\u{feff}{BID}"), false),
        (format!("{BID}\0"), false),
        (format!("\0{BID}"), false),
        (format!("{BID}{BID}"), false),
        (format!("{BID},"), false),
        (format!("[{BID}]"), false),
    ] {
        check(payload.as_bytes());
        let read = read(payload.as_bytes());
        assert_eq!(matches!(read.as_deref(), Ok([Ok(_)])), is_read, "{payload:?}");
    }
    let mut invalid = BID.as_bytes().to_vec();
    let place = invalid.iter().position(|byte| *byte == b'b').unwrap();
    for bytes in [&[0xff_u8][..], &[0xc0, 0x80], &[0xed, 0xa0, 0x80]] {
        invalid.splice(place..=place, bytes.iter().copied());
        check(&invalid);
        assert!(!matches!(read(&invalid).as_deref(), Ok([Ok(_)])));
    }
}

/// A key has one form only: 32 digits in lower case.
#[test]
fn a_key_is_32_digits_and_nothing_else() {
    use proto::machine::CommandKey;
    let good = format!("\"{}\"", "0123456789abcdef".repeat(2));
    let key: CommandKey = serde_json::from_str(&good).unwrap();
    assert_eq!(serde_json::to_string(&key).unwrap(), good);
    let (plus, short) = (good.replacen('0', "+", 1), good.replacen('0', "", 1));
    for bad in [&*plus, &short, &good.to_uppercase(), &good.replacen('0', "00", 1), "\"\"", "7", "null"] {
        assert!(serde_json::from_str::<CommandKey>(bad).is_err(), "{bad}");
    }
}

/// A command's text of any order is the same command.
#[test]
fn the_order_of_fields_does_not_matter() {
    assert_eq!(read(BID.as_bytes()), read(BID_TYPE_LAST.as_bytes()));
    assert!(read(BID.as_bytes()).unwrap()[0].is_ok());
}

/// A command inside an event is as strict there as it was when it was read: a term that a reader does not know
/// could change what the bid means, so the reader stops instead of misreading it (DESIGN §11, I14).
#[test]
fn the_terms_inside_an_event_stay_strict() {
    let event = format!(
        r#"{{"type":"BidPlaced","number":1,"by":"s1","bid":{}}}"#,
        BID.replace(r#""type":"PlaceBid","#, "")
    );
    assert!(serde_json::from_str::<MarketEvent>(&event).is_ok());
    let more = event.replace(r#""pool":"p""#, r#""pool":"p","only_on_sundays":true"#);
    assert!(serde_json::from_str::<MarketEvent>(&more).is_err());
}
