//! The transcript: chained, the same for everybody who folds, opened by whom it concerns and by nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests fail like tests

#[allow(dead_code)] // shared with the tests of the view
mod view_told;

use market::view::transcript::{
    Act, ActKind, Acts, Hash, Opening, Record, SALTS_MAX, Secret, Transcript, check_chain, origin,
};
use proptest::prelude::*;
use proto::market::MarketEvent;
use proto::{StreamName, Timestamp};
use view_told::{Told, next};

const SECRET: [u8; 32] = [42; 32];

fn exchange() -> StreamName {
    "main".parse().unwrap()
}

fn fold(
    transcript: &mut Transcript,
    secret: &Secret,
    events: &[(Timestamp, u64, MarketEvent)],
) -> Vec<Record> {
    let fold = |(at, sequence, event): &(_, _, _)| transcript.apply(secret, *at, *sequence, event);
    events.iter().filter_map(fold).collect()
}

fn records(told: &Told) -> Vec<Record> {
    fold(&mut Transcript::new(&exchange()), &Secret::new(SECRET), &told.events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every act of a tenant is in exactly the record of its round, opens there, and opens as nothing else.
    #[test]
    fn a_tenant_opens_its_own(steps in proptest::collection::vec(next(), 1..150)) {
        let secret = Secret::new(SECRET);
        let told = Told::all(&steps);
        let records = records(&told);
        prop_assert_eq!(records.len() as u64, told.round);
        let mut rounds = records.iter();
        let mut record = rounds.next();
        let mut opened = 0;
        for (_, _, event) in &told.events {
            if matches!(event, MarketEvent::RoundClosed { .. }) {
                record = rounds.next();
            }
            let (Some(opening), Some(record)) = (Opening::of(&secret, event), record) else {
                continue;
            };
            opened += 1;
            // What the tenant is sent, as it is sent.
            let sent: Opening = serde_json::from_str(&serde_json::to_string(&opening).unwrap()).unwrap();
            prop_assert!(record.holds(&sent));
            prop_assert_eq!(records.iter().filter(|record| record.holds(&sent)).count(), 1);
            for forged in forgeries(&sent) {
                prop_assert!(!records.iter().any(|record| record.holds(&forged)), "{forged:?}");
            }
        }
        prop_assert_eq!(records.iter().map(|record| record.commitments.len()).sum::<usize>(), opened);
    }

    /// An auditor with the same events and the secret gets the same records; a restart in between loses nothing.
    #[test]
    fn an_auditor_recomputes_all_of_it(
        steps in proptest::collection::vec(next(), 1..150),
        cut in any::<prop::sample::Index>(),
    ) {
        let secret = Secret::new(SECRET);
        let told = Told::all(&steps);
        let whole = records(&told);
        prop_assert_eq!(&records(&told), &whole);
        let (before, after) = told.events.split_at(cut.index(told.events.len() + 1));
        let mut transcript = Transcript::new(&exchange());
        let mut resumed = fold(&mut transcript, &secret, before);
        let mut transcript = Transcript::restore(&transcript.snapshot()).unwrap();
        resumed.extend(fold(&mut transcript, &secret, after));
        prop_assert_eq!(&resumed, &whole);
        prop_assert_eq!(check_chain(origin(&exchange()), &whole).unwrap(), transcript.head());
    }

    /// Records tell nothing of bids: with another secret, and other names and terms, all public parts are the same.
    #[test]
    fn nothing_but_commitments_depends_on_the_secret(steps in proptest::collection::vec(next(), 1..100)) {
        let told = Told::all(&steps);
        let other = fold(&mut Transcript::new(&exchange()), &Secret::new([7; 32]), &told.events);
        for (left, right) in records(&told).iter().zip(&other) {
            prop_assert_eq!((left.round, left.at, left.sequences), (right.round, right.at, right.sequences));
            prop_assert_eq!(&left.markets, &right.markets);
            prop_assert_eq!(left.commitments.len(), right.commitments.len());
            prop_assert!(left.commitments.iter().all(|commitment| !right.commitments.contains(commitment)));
        }
    }

    /// Anything changed in a record after the fact is found by who has the records alone.
    #[test]
    fn a_changed_record_breaks_the_chain(
        rounds in 3..20_usize,
        place in any::<prop::sample::Index>(),
        what in 0..7_u8,
    ) {
        let mut told = Told::open();
        for round in 0..rounds {
            let mills = Some(10 + round as u16);
            told.happen(&view_told::Next::Place { tenant: (round % 2) as u8, options: vec![(0, 30)], quantity: 2 });
            told.happen(&view_told::Next::Price { market: 0, mills, sold: 1 });
            told.happen(&view_told::Next::Round);
        }
        let mut records = records(&told);
        let from = origin(&exchange());
        let head = check_chain(from, &records).unwrap();
        let place = place.index(records.len() - 1);
        match what {
            0 => records[place].markets[0].prices.sold += 1,
            1 => records[place].commitments.clear(),
            2 => records[place].previous = Hash([1; 32]),
            3 => drop(records.remove(place)),
            4 => records.swap(place, place + 1),
            5 => records[place].at = records[place].at.plus_micros(1),
            _ => records[place].sequences.0 -= 1,
        }
        prop_assert!(check_chain(from, &records).is_err() || check_chain(from, &records) != Ok(head));
    }
}

/// The same opening with one thing different each.
fn forgeries(opening: &Opening) -> Vec<Opening> {
    let mut forged = vec![
        Opening { number: opening.number + 1, ..opening.clone() },
        Opening { version: opening.version + 1, ..opening.clone() },
        Opening { salt: Hash([9; 32]), ..opening.clone() },
    ];
    if let Act::Placed(bid) = &opening.act {
        let mut bid = bid.clone();
        std::sync::Arc::make_mut(&mut bid).quantity += 1;
        forged.push(Opening { act: Act::Placed(bid), ..opening.clone() });
    }
    forged.push(Opening {
        act: match opening.act {
            Act::Cancelled => Act::Expired,
            _ => Act::Cancelled,
        },
        ..opening.clone()
    });
    forged
}

/// The form of a record is public: changing it makes every old record look forged.
#[test]
fn a_record_is_written_so() {
    let mut told = Told::open();
    told.happen(&view_told::Next::Place { tenant: 1, options: vec![(0, 30)], quantity: 2 });
    told.happen(&view_told::Next::Price { market: 0, mills: Some(30), sold: 2 });
    told.happen(&view_told::Next::Round);
    let records = records(&told);
    let written = serde_json::to_string_pretty(&records[0]).unwrap();
    let expected = r#"{
  "version": 1,
  "exchange": "main",
  "round": 1,
  "at": "2023-11-14T22:13:20.002Z",
  "sequences": [
    1,
    2
  ],
  "markets": [
    {
      "market": "dfw/gp.large",
      "price": "0.030",
      "lowest_winning_bid": "0.030",
      "reserve": "0.005",
      "supply": 9,
      "sold": 2,
      "wanted": 3
    }
  ],
  "commitments": [
    "COMMITMENT"
  ],
  "previous": "PREVIOUS"
}"#;
    let secret = Secret::new(SECRET);
    let opening = told.events.iter().find_map(|(_, _, event)| Opening::of(&secret, event)).unwrap();
    let expected = expected
        .replace("COMMITMENT", &opening.commitment().to_string())
        .replace("PREVIOUS", &origin(&exchange()).to_string());
    assert_eq!(written, expected);
    assert_eq!(
        records[0].hash().to_string(),
        "1e19ef146bb071b73665ba22cd7aa57186e7ab73cde935719c5a2a4c1d780076"
    );
}

/// The salts that a tenant is given are those of its openings, whichever acts they are of.
#[test]
fn salts_are_those_of_the_openings() {
    let secret = Secret::new(SECRET);
    let salts = secret.salts(&Acts { number: 7, version: 3, end: Some(ActKind::Expired) });
    let kinds: Vec<_> = salts.salts.iter().map(|one| (one.version, one.act)).collect();
    assert_eq!(kinds[..3], [(1, ActKind::Placed), (2, ActKind::Amended), (3, ActKind::Amended)]);
    assert_eq!(kinds[3..], [(0, ActKind::Expired)]);
    let opened = Opening::of(&secret, &MarketEvent::BidExpired { number: 7 }).unwrap();
    assert_eq!(salts.salts[3].salt, opened.salt);
    let many = secret.salts(&Acts { number: 7, version: SALTS_MAX + 5, end: None });
    assert_eq!((many.salts.len() as u32, many.salts[0].version), (SALTS_MAX, 6));
}
