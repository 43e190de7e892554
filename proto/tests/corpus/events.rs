//! Batches of events.

use proto::envelope::{EventBatch, EventEntry, Refusal, RefusalReason};
use proto::machine::CommandKey;
use proto::market::{LossReason, MarketEvent, ReleaseReason, Rules};

use super::commands::{amend, causes, place, trusted};
use super::{
    Golden, LATER, NOON, all_prices, each, each_kind, full_terms, golden, id, instant, leases, plain_terms,
    price, price_rules, settings, word,
};

type Examples = Vec<(String, MarketEvent)>;

pub(super) fn all() -> Vec<Golden> {
    let kinds = each_kind!(MarketEvent:
        CommandRefused => reasons()
            .into_iter()
            .map(|reason| (word(&reason), MarketEvent::CommandRefused(refusal(reason))))
            .collect(),
        BidPlaced => [("plain", plain_terms()), ("full", full_terms())]
            .map(|(name, terms)| (name.to_owned(), MarketEvent::BidPlaced { number: 1, by: id("s1"), bid: place(terms) }))
            .to_vec(),
        BidAmended => [("plain", plain_terms(), vec![]), ("full", full_terms(), vec![17, 19])]
            .map(|(name, terms, give_up)| {
                let amendment = amend(terms, give_up);
                (name.to_owned(), MarketEvent::BidAmended { number: 1, version: 2, amendment })
            })
            .to_vec(),
        BidCancelled => one(MarketEvent::BidCancelled { number: 1 }),
        BidExpired => one(MarketEvent::BidExpired { number: 1 }),
        NoticeAcknowledged => one(MarketEvent::NoticeAcknowledged { number: 1, units: 2 }),
        SupplyChanged => supplies(),
        MarketDefined => settings()
            .into_iter()
            .map(|(name, settings)| {
                (name.to_owned(), MarketEvent::MarketDefined { market: 0, id: id("dfw/gp.large"), settings })
            })
            .collect(),
        RulesAdopted => price_rules()
            .into_iter()
            .map(|price_rule| {
                let rules = Rules { price_rule, coalesce_milliseconds: 250, ..Rules::default() };
                (word(&price_rule), MarketEvent::RulesAdopted { rules })
            })
            .collect(),
        TrustAdopted => one(MarketEvent::TrustAdopted { trusted: trusted() }),
        UnitsAwarded => awards(),
        UnitsMoved => [None, Some(instant(LATER))]
            .map(|available_by| {
                let moved = MarketEvent::UnitsMoved {
                    number: 1, market: 0, leases: leases(), replaces: 3, round: 9, available_by,
                };
                (if available_by.is_some() { "full" } else { "plain" }.to_owned(), moved)
            })
            .to_vec(),
        NoticeGiven => notices(),
        NoticeWithdrawn => one(MarketEvent::NoticeWithdrawn { number: 1, market: 0, leases: leases(), round: 9 }),
        UnitsDelayed => one(MarketEvent::UnitsDelayed {
            number: 1, market: 0, leases: leases(), round: 9, available_by: instant(LATER),
        }),
        WorkersReady => one(MarketEvent::WorkersReady { number: 1, market: 0, leases: leases() }),
        WorkersDead => one(MarketEvent::WorkersDead {
            number: 1, market: 0, leases: leases(), since: instant(NOON),
        }),
        UnitsReleased => release_reasons()
            .into_iter()
            .map(|reason| {
                (word(&reason), MarketEvent::UnitsReleased { number: 1, market: 0, leases: leases(), reason })
            })
            .collect(),
        BidPassedOver => one(MarketEvent::BidPassedOver { number: 1, round: 9, short_by: 2 }),
        PriceChanged => all_prices()
            .into_iter()
            .map(|(name, prices)| (name.to_owned(), MarketEvent::PriceChanged { market: 0, round: 9, prices }))
            .collect(),
        RoundClosed => one(MarketEvent::RoundClosed { round: 9 }),
        BidForgotten => one(MarketEvent::BidForgotten { number: 1 }),
    );
    let mut files = vec![golden("events", "", "none", &batch(Vec::new()))];
    for (kind, examples) in kinds {
        for (name, event) in examples {
            files.push(golden("events", kind, &name, &batch(vec![by_command(vec![event])])));
        }
    }
    let of_wake = EventEntry { key: None, digest: None, events: vec![MarketEvent::RoundClosed { round: 9 }] };
    let command = by_command(vec![MarketEvent::BidCancelled { number: 1 }]);
    files.push(golden("events", "", "command-and-wake", &batch(vec![command, of_wake])));
    files
}

pub(super) fn reasons() -> Vec<RefusalReason> {
    each!(
        RefusalReason: Malformed, TooLarge, IdReused, NotAllowed, Unknown, Ended, Stale, OutOfRange, OffLadder,
        BelowReserve, Duplicate, LimitReached, Unsupported
    )
}

pub(super) fn refusal(reason: RefusalReason) -> Refusal {
    Refusal::new(reason, "options[0].limit", "0.0315", "what is wrong stands here")
}

pub(super) fn loss_reasons() -> Vec<LossReason> {
    each!(LossReason: Outbid, Supply, Reserve, Host, Moved, Operator, Cancelled, Expired, Reduced)
}

pub(super) fn release_reasons() -> Vec<ReleaseReason> {
    each!(ReleaseReason: NoticeEnded, Acknowledged, NeverServed, ServerLost, ProvisioningTimedOut, WorkerDead, Replaced)
}

fn one(event: MarketEvent) -> Examples {
    vec![(String::new(), event)]
}

fn batch(entries: Vec<EventEntry<MarketEvent>>) -> EventBatch<MarketEvent> {
    let (machine, stream) = ("market".to_owned(), id("main"));
    EventBatch { machine, stream, sequence: 42, at: instant(NOON), rules: 1, entries }
}

fn by_command(events: Vec<MarketEvent>) -> EventEntry<MarketEvent> {
    let key = CommandKey(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    EventEntry { key: Some(key), digest: Some("00112233445566ff".to_owned()), events }
}

fn supplies() -> Examples {
    let event = |cause, gone_at| MarketEvent::SupplyChanged {
        market: u16::MAX,
        source: id("hv-1"),
        generation: u64::MAX,
        units: 40,
        supply: 57,
        cause,
        gone_at,
    };
    let mut examples: Examples =
        causes().into_iter().map(|cause| (word(&cause), event(cause, None))).collect();
    examples.push(("full".to_owned(), event(causes()[0], Some(instant(LATER)))));
    examples
}

fn awards() -> Examples {
    let event = |available_by| MarketEvent::UnitsAwarded {
        number: 1,
        market: 0,
        leases: leases(),
        round: 9,
        available_by,
    };
    vec![("plain".to_owned(), event(None)), ("full".to_owned(), event(Some(instant(LATER))))]
}

fn notices() -> Examples {
    let event = |reason, kept_by| MarketEvent::NoticeGiven {
        number: 1,
        market: 0,
        leases: leases(),
        round: 9,
        gone_at: instant(LATER),
        reason,
        kept_by,
    };
    let mut examples: Examples =
        loss_reasons().into_iter().map(|reason| (word(&reason), event(reason, None))).collect();
    examples.push(("full".to_owned(), event(LossReason::Outbid, Some(price("0.032")))));
    examples
}
