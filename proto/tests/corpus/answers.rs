//! Answers to senders and public reports.

use proto::envelope::{Answers, RefusalReason, Refused};
use proto::market::{
    Accepted, Answer, Awarded, Delayed, Died, Expired, LossReason, MarketReport, Noticed, Readied, Released,
    Withdrawn,
};

use super::events::{loss_reasons, reasons, refusal, release_reasons};
use super::{Golden, LATER, NOON, all_prices, each_kind, golden, id, instant, leases, price, word};

type Examples = Vec<(String, Answer)>;

pub(super) fn all() -> Vec<Golden> {
    let kinds = each_kind!(Answer:
        Accepted => acceptances(),
        Refused => refusals().into_iter().map(|(name, refused)| (name, Answer::Refused(refused))).collect(),
        Awarded => awards(),
        NoticeGiven => notices(),
        NoticeWithdrawn => one(Answer::NoticeWithdrawn(Withdrawn {
            tenant: id("acme"), bid: id("bid-1"), market: id("dfw/gp.large"), leases: leases(), round: 9,
        })),
        Delayed => one(Answer::Delayed(Delayed {
            tenant: id("acme"), bid: id("bid-1"), market: id("dfw/gp.large"), leases: leases(), round: 9,
            available_by: instant(LATER),
        })),
        Ready => one(Answer::Ready(Readied {
            tenant: id("acme"), bid: id("bid-1"), market: id("dfw/gp.large"), leases: leases(),
        })),
        Dead => one(Answer::Dead(Died {
            tenant: id("acme"), bid: id("bid-1"), market: id("dfw/gp.large"), leases: leases(), since: instant(NOON),
        })),
        Released => release_reasons()
            .into_iter()
            .map(|reason| {
                let (tenant, bid, market) = (id("acme"), id("bid-1"), id("dfw/gp.large"));
                (word(&reason), Answer::Released(Released { tenant, bid, market, leases: leases(), reason }))
            })
            .collect(),
        Expired => one(Answer::Expired(Expired { tenant: id("acme"), bid: id("bid-1") })),
    );
    let mut files = vec![golden("answers", "", "none", &answers(None, Vec::new()))];
    for (kind, examples) in kinds {
        for (name, answer) in examples {
            files.push(golden("answers", kind, &name, &answers(Some(42), vec![answer])));
        }
    }
    for (name, refused) in refusals() {
        files.push(golden("refused", "", &name, &refused));
    }
    for (name, prices) in all_prices() {
        let report = MarketReport { market: id("dfw/gp.large"), round: 9, at: instant(NOON), prices };
        files.push(golden("report", "", name, &report));
    }
    files
}

fn one(answer: Answer) -> Examples {
    vec![(String::new(), answer)]
}

fn answers(sequence: Option<u64>, answers: Vec<Answer>) -> Answers<Answer> {
    Answers { machine: "market".to_owned(), stream: id("main"), sequence, at: instant(NOON), answers }
}

fn acceptances() -> Examples {
    let plain = Accepted { id: id("rules-1"), tenant: None, bid: None, version: None, sequence: 42 };
    let full = Accepted {
        id: id("amend-1"),
        tenant: Some(id("acme")),
        bid: Some(id("bid-1")),
        version: Some(2),
        sequence: 42,
    };
    vec![("plain".to_owned(), Answer::Accepted(plain)), ("full".to_owned(), Answer::Accepted(full))]
}

fn refusals() -> Vec<(String, Refused)> {
    let mut refusals: Vec<(String, Refused)> = reasons()
        .into_iter()
        .map(|reason| {
            let (id, tenant) = (Some(id("bid-1")), Some(id("acme")));
            (word(&reason), Refused { id, tenant, sequence: Some(42), refusal: refusal(reason) })
        })
        .collect();
    let refusal = refusal(RefusalReason::Malformed);
    refusals.push(("plain".to_owned(), Refused { id: None, tenant: None, sequence: None, refusal }));
    refusals
}

fn awards() -> Examples {
    let plain = Awarded {
        tenant: id("acme"),
        bid: id("bid-1"),
        cluster: id("prod"),
        pool: id("workers"),
        market: id("dfw/gp.large"),
        leases: leases(),
        round: 9,
        limit: None,
        price: None,
        available_by: None,
    };
    let limit = Some(price("0.040"));
    let full =
        Awarded { limit, price: Some(price("0.031")), available_by: Some(instant(LATER)), ..plain.clone() };
    vec![("plain".to_owned(), Answer::Awarded(plain)), ("full".to_owned(), Answer::Awarded(full))]
}

fn notices() -> Examples {
    let noticed = |reason, price: Option<proto::Price>, kept_by| {
        Answer::NoticeGiven(Noticed {
            tenant: id("acme"),
            bid: id("bid-1"),
            cluster: id("prod"),
            pool: id("workers"),
            market: id("dfw/gp.large"),
            leases: leases(),
            round: 9,
            gone_at: instant(LATER),
            reason,
            limit: price.is_some().then(|| self::price("0.030")),
            price,
            kept_by,
        })
    };
    let mut examples: Examples =
        loss_reasons().into_iter().map(|reason| (word(&reason), noticed(reason, None, None))).collect();
    let full = noticed(LossReason::Outbid, Some(price("0.031")), Some(price("0.032")));
    examples.push(("full".to_owned(), full));
    examples
}
