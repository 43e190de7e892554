//! The join secret and its redemption.

#![allow(clippy::unwrap_used)] // helpers of tests fail like tests

use proptest::prelude::*;
use proto::Timestamp;
use proto::worker::{
    Bound, JoinSecret, PublicKey, Redemption, RedemptionAnswer, RedemptionRefusal, SiteKey, Verdict, WorkerId,
};

fn site(byte: u8) -> SiteKey {
    SiteKey::new(&[byte; 32]).unwrap()
}

fn worker() -> WorkerId {
    "main-7".parse().unwrap()
}

fn key(byte: u8) -> PublicKey {
    let mut point = [byte; 65];
    point[0] = 4;
    PublicKey::from_bytes(&point).unwrap()
}

fn redemption(secret: &JoinSecret, by: u8) -> Redemption {
    Redemption { secret: secret.reveal(), public_key: key(by), signature: "3006020101020101".to_owned() }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

#[test]
fn the_first_key_is_the_lease_s() {
    let secret = site(1).mint(worker(), 3, at(1_000));
    let claim = site(1).claim(&redemption(&secret, 1)).unwrap();
    assert_eq!((&claim.worker, claim.generation), (&worker(), 3));
    let Verdict::Bind(bound) = claim.judge(at(999), Some(3), None) else { panic!("not bound") };
    // A lost answer is asked for again, however late.
    assert_eq!(claim.judge(at(100_000), Some(3), Some(&bound)), Verdict::Again);
    let other = site(1).claim(&redemption(&secret, 2)).unwrap();
    assert_eq!(other.judge(at(1), Some(3), Some(&bound)), Verdict::Refuse(RedemptionRefusal::OtherKey));
    // What an older server of the lease redeemed says nothing about this one.
    let older = Bound { generation: 2, ..bound.clone() };
    assert_eq!(claim.judge(at(999), Some(3), Some(&older)), Verdict::Bind(bound));
}

#[test]
fn what_is_not_in_time_or_not_live_is_refused() {
    let secret = site(1).mint(worker(), 3, at(1_000));
    let claim = site(1).claim(&redemption(&secret, 1)).unwrap();
    for (now, live, refusal) in [
        (1_000, Some(3), RedemptionRefusal::Expired),
        (1, Some(4), RedemptionRefusal::Over),
        (1, Some(2), RedemptionRefusal::Over),
        (1, None, RedemptionRefusal::Over),
    ] {
        assert_eq!(claim.judge(at(now), live, None), Verdict::Refuse(refusal));
    }
}

#[test]
fn secrets_of_others_are_refused_and_never_shown() {
    let secret = site(1).mint(worker(), 3, at(1_000));
    let refused = |secret: &str, signature: &str| {
        let redemption =
            Redemption { secret: secret.to_owned(), public_key: key(1), signature: signature.to_owned() };
        site(1).claim(&redemption).unwrap_err()
    };
    let good = secret.reveal();
    assert_eq!(refused(&site(2).mint(worker(), 3, at(1_000)).reveal(), "30"), RedemptionRefusal::Foreign);
    for (from, to) in [(".main-7.", ".main-8."), (".3.", ".4."), (".1000.", ".2000.")] {
        assert_eq!(refused(&good.replace(from, to), "30"), RedemptionRefusal::Foreign, "{to}");
    }
    for bad in
        ["", "x", "walras-join-1", &good[..good.len() - 1], &format!("{good}.x"), &good.replace('-', "_")]
    {
        assert_eq!(refused(bad, "30"), RedemptionRefusal::Malformed, "{bad}");
    }
    assert_eq!(refused(&good, "zz"), RedemptionRefusal::Malformed);
    assert_eq!(refused(&good, "00"), RedemptionRefusal::Malformed);
    let code = good.rsplit('.').next().unwrap();
    for shown in [format!("{secret:?}"), format!("{:?}", redemption(&secret, 1)), format!("{:?}", site(1))] {
        assert!(!shown.contains(code), "{shown}");
    }
    assert!(SiteKey::new(&[0; 31]).is_err());
}

#[test]
fn a_session_is_one_worker_s_and_one_key_s() {
    let bound = Bound { generation: 3, fingerprint: key(1).fingerprint() };
    let token = site(1).session(&worker(), &bound);
    assert!(site(1).is_session(&token, &worker(), &bound));
    assert!(!site(2).is_session(&token, &worker(), &bound));
    assert!(!site(1).is_session(&token, &"main-8".parse().unwrap(), &bound));
    assert!(!site(1).is_session(&token, &worker(), &Bound { generation: 4, ..bound.clone() }));
    for bad in ["", "00", &token[1..], &token.to_uppercase()] {
        assert!(!site(1).is_session(bad, &worker(), &bound), "{bad}");
    }
}

#[test]
fn answers_are_read_strictly() {
    let read = |text: &str| serde_json::from_str::<RedemptionAnswer>(text);
    assert_eq!(read(r#"{"type":"Wait","seconds":2}"#).unwrap(), RedemptionAnswer::Wait { seconds: 2 });
    let refused = r#"{"type":"Refused","reason":"other-key"}"#;
    assert_eq!(serde_json::to_string(&read(refused).unwrap()).unwrap(), refused);
    for bad in [
        r#"{"type":"Wait"}"#,
        r#"{"type":"Refused","reason":"mood"}"#,
        r#"{"type":"Wait","seconds":2,"x":1}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn a_secret_is_read_as_it_was_written(lease in any::<u64>(), generation in any::<u64>(), seconds in 0..4_000_000_000_i64) {
        let worker = WorkerId::new("eu-1".parse().unwrap(), lease).unwrap();
        let secret = site(9).mint(worker.clone(), generation, at(seconds));
        let read: JoinSecret = secret.reveal().parse().unwrap();
        prop_assert_eq!(&read, &secret);
        let claim = site(9).claim(&redemption(&read, 1)).unwrap();
        prop_assert_eq!((claim.worker, claim.generation), (worker, generation));
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".{0,300}") {
        prop_assert!(text.parse::<JoinSecret>().is_err());
    }
}
