//! Any value of any message, for property tests.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proto::envelope::{Answers, Commands, EventBatch, EventEntry, Refusal, RefusalReason, Refused};
use proto::machine::CommandKey;
use proto::market::{
    Accepted, AcknowledgeNotice, AdoptRules, AdoptTrust, AmendBid, Answer, Awarded, BidOption, CancelBid,
    DefineMarket, Delayed, Expired, Ladder, LeaseSpan, LossReason, MarketCommand, MarketEvent, MarketReport,
    MarketSettings, MoveLeases, Noticed, PlaceBid, PriceRule, Prices, ReleaseReason, Released, ReportDead,
    ReportReady, ReportReleased, Rules, SupplyCause, SupplyOffered, Terms, Trust, Withdrawn,
};
use proto::{MarketId, Price, Role, Timestamp};

fn id<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|text| text.parse().unwrap())
}

fn market_id() -> impl Strategy<Value = MarketId> {
    "[a-z0-9_-]{1,12}/[a-z0-9]{1,8}(\\.[a-z0-9-]{1,8}){0,3}".prop_map(|text| text.parse().unwrap())
}

fn price() -> impl Strategy<Value = Price> {
    prop_oneof![(0..=1_000_u64).prop_map(|mills| mills * 1_000), 0..=Price::MAX.micros()]
        .prop_map(|micros| Price::from_micros(micros).unwrap())
}

fn instant() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.micros()..=Timestamp::MAX.micros()).prop_map(Timestamp::from_micros)
}

fn option() -> impl Strategy<Value = BidOption> {
    (market_id(), price(), of(price())).prop_map(|(market, limit, running_limit)| BidOption {
        market,
        limit,
        running_limit,
    })
}

fn terms() -> impl Strategy<Value = Terms> {
    (any::<u32>(), prop_oneof![Just(1), any::<u32>()], vec(option(), 0..4), of(instant())).prop_map(
        |(quantity, min_quantity, options, expires_at)| Terms { quantity, min_quantity, options, expires_at },
    )
}

fn place_bid() -> impl Strategy<Value = Arc<PlaceBid>> {
    (id(), id(), id(), id(), terms(), any::<bool>()).prop_map(
        |(id, tenant, cluster, pool, terms, on_demand)| {
            Arc::new(PlaceBid {
                id,
                tenant,
                cluster,
                pool,
                quantity: terms.quantity,
                min_quantity: terms.min_quantity,
                options: terms.options,
                on_demand,
                expires_at: terms.expires_at,
                key: CommandKey::default(),
            })
        },
    )
}

fn amend_bid() -> impl Strategy<Value = Arc<AmendBid>> {
    (id(), id(), id(), any::<u32>(), terms(), vec(any::<u64>(), 0..4)).prop_map(
        |(id, tenant, bid, version, terms, give_up)| {
            Arc::new(AmendBid { id, tenant, bid, version, terms, give_up, key: CommandKey::default() })
        },
    )
}

fn settings() -> impl Strategy<Value = MarketSettings> {
    let ladder = prop_oneof![price().prop_map(Ladder::Step), vec(price(), 0..5).prop_map(Ladder::Rungs)];
    let on_demand = (of(price()), of(any::<u32>()), any::<u32>());
    (price(), ladder, any::<u32>(), of(any::<u32>()), on_demand).prop_map(
        |(reserve, ladder, notice_seconds, withdraw_until_seconds, on_demand)| MarketSettings {
            reserve,
            ladder,
            notice_seconds,
            withdraw_until_seconds,
            on_demand_price: on_demand.0,
            on_demand_units_max: on_demand.1,
            held_back_units: on_demand.2,
        },
    )
}

fn rules() -> impl Strategy<Value = Rules> {
    let price_rule = select(vec![PriceRule::LowestAccepted, PriceRule::HighestRejected]);
    (price_rule, any::<[u32; 7]>(), of(price())).prop_map(|(price_rule, numbers, move_cost)| Rules {
        price_rule,
        coalesce_milliseconds: numbers[0],
        standing_bids_max: numbers[1],
        standing_bids_per_tenant_max: numbers[2],
        finished_bids_kept_seconds: numbers[3],
        provisioning_seconds_max: numbers[4],
        dead_seconds_max: numbers[5],
        move_cost,
        gang_passes_max: numbers[6],
    })
}

fn trusted() -> impl Strategy<Value = Vec<Trust>> {
    let one = (select(Role::ALL.to_vec()), id(), of(vec(id(), 0..4)));
    vec(one.prop_map(|(role, principal, tenants)| Trust { role, principal, tenants }), 0..4)
}

fn cause() -> impl Strategy<Value = SupplyCause> {
    select(vec![
        SupplyCause::Inventory,
        SupplyCause::Ready,
        SupplyCause::Failed,
        SupplyCause::Host,
        SupplyCause::Operator,
    ])
}

pub(crate) fn command() -> impl Strategy<Value = MarketCommand> {
    let key = CommandKey::default();
    let supply = (
        id(),
        id(),
        any::<u64>(),
        market_id(),
        any::<u32>(),
        cause(),
        of(instant()),
        vec(any::<u64>(), 0..4),
    );
    prop_oneof![
        place_bid().prop_map(MarketCommand::PlaceBid),
        amend_bid().prop_map(MarketCommand::AmendBid),
        (id(), id(), id()).prop_map(move |(id, tenant, bid)| MarketCommand::CancelBid(CancelBid {
            id,
            tenant,
            bid,
            key
        })),
        (id(), id(), id(), vec(any::<u64>(), 0..4)).prop_map(move |(id, tenant, bid, leases)| {
            MarketCommand::AcknowledgeNotice(AcknowledgeNotice { id, tenant, bid, leases, key })
        }),
        supply.prop_map(|(id, source, generation, market, units, cause, gone_at, lost)| {
            MarketCommand::SupplyOffered(SupplyOffered {
                id,
                source,
                generation,
                market,
                units,
                cause,
                gone_at,
                lost,
            })
        }),
        (id(), vec(any::<u64>(), 0..4))
            .prop_map(|(id, leases)| MarketCommand::ReportReady(ReportReady { id, leases })),
        (id(), vec(any::<u64>(), 0..4), instant()).prop_map(|(id, leases, last_heartbeat_at)| {
            MarketCommand::ReportDead(ReportDead { id, leases, last_heartbeat_at })
        }),
        (id(), vec(any::<u64>(), 0..4))
            .prop_map(|(id, leases)| MarketCommand::ReportReleased(ReportReleased { id, leases })),
        (id(), vec(any::<u64>(), 0..4), instant()).prop_map(|(id, leases, gone_at)| {
            MarketCommand::MoveLeases(MoveLeases { id, leases, gone_at })
        }),
        (id(), market_id(), settings()).prop_map(|(id, market, settings)| {
            MarketCommand::DefineMarket(DefineMarket { id, market, settings })
        }),
        (id(), rules()).prop_map(|(id, rules)| MarketCommand::AdoptRules(AdoptRules { id, rules })),
        (id(), trusted()).prop_map(|(id, trusted)| MarketCommand::AdoptTrust(AdoptTrust { id, trusted })),
    ]
}

pub(crate) fn commands() -> impl Strategy<Value = Commands<MarketCommand>> {
    vec(command(), 1..6).prop_map(|commands| Commands { commands })
}

pub(crate) fn refusal() -> impl Strategy<Value = Refusal> {
    let reason = select(vec![
        RefusalReason::Malformed,
        RefusalReason::IdReused,
        RefusalReason::OffLadder,
        RefusalReason::Unsupported,
    ]);
    (reason, "\\PC{0,20}", any::<String>(), "\\PC{0,20}")
        .prop_map(|(reason, field, value, problem)| Refusal::new(reason, &field, value, &problem))
}

fn leases() -> impl Strategy<Value = LeaseSpan> {
    any::<(u64, u32)>().prop_map(|(first, units)| LeaseSpan { first, units })
}

fn loss() -> impl Strategy<Value = LossReason> {
    select(vec![LossReason::Outbid, LossReason::Supply, LossReason::Moved, LossReason::Reduced])
}

fn release() -> impl Strategy<Value = ReleaseReason> {
    select(vec![ReleaseReason::NoticeEnded, ReleaseReason::NeverServed, ReleaseReason::ServerLost])
}

fn prices() -> impl Strategy<Value = Prices> {
    (of(price()), of(price()), price(), any::<(u32, u32, u64, u32)>()).prop_map(
        |(price, lowest_winning_bid, reserve, (supply, sold, wanted, on_demand))| Prices {
            price,
            lowest_winning_bid,
            reserve,
            supply,
            sold,
            wanted,
            on_demand,
        },
    )
}

fn bid_event() -> impl Strategy<Value = MarketEvent> {
    let number = any::<u64>();
    prop_oneof![
        (number, id(), place_bid()).prop_map(|(number, by, mut bid)| {
            // An event is read with what was worked out when its command was received.
            Arc::make_mut(&mut bid).seal();
            MarketEvent::BidPlaced { number, by, bid }
        }),
        (number, any::<u32>(), amend_bid()).prop_map(|(number, version, mut amendment)| {
            Arc::make_mut(&mut amendment).seal();
            MarketEvent::BidAmended { number, version, amendment }
        }),
        number.prop_map(|number| MarketEvent::BidCancelled { number }),
        number.prop_map(|number| MarketEvent::BidExpired { number }),
        number.prop_map(|number| MarketEvent::BidForgotten { number }),
        (number, any::<u64>(), any::<u32>())
            .prop_map(|(number, round, short_by)| MarketEvent::BidPassedOver { number, round, short_by }),
        (number, any::<u32>()).prop_map(|(number, units)| MarketEvent::NoticeAcknowledged { number, units }),
    ]
}

fn unit_event() -> impl Strategy<Value = MarketEvent> {
    let round = || any::<(u64, u16, u64)>();
    prop_oneof![
        (round(), leases(), of(instant())).prop_map(|((number, market, round), leases, available_by)| {
            MarketEvent::UnitsAwarded { number, market, leases, round, available_by }
        }),
        (round(), leases(), instant(), loss(), of(price())).prop_map(
            |((number, market, round), leases, gone_at, reason, kept_by)| MarketEvent::NoticeGiven {
                number,
                market,
                leases,
                round,
                gone_at,
                reason,
                kept_by
            }
        ),
        (round(), leases()).prop_map(|((number, market, round), leases)| {
            MarketEvent::NoticeWithdrawn { number, market, leases, round }
        }),
        (round(), leases(), instant()).prop_map(|((number, market, round), leases, available_by)| {
            MarketEvent::UnitsDelayed { number, market, leases, round, available_by }
        }),
        (round(), leases(), of(instant()), any::<u64>()).prop_map(
            |((number, market, round), leases, available_by, replaces)| MarketEvent::UnitsMoved {
                number,
                market,
                leases,
                replaces,
                round,
                available_by
            }
        ),
        (round(), leases()).prop_map(|((number, market, _), leases)| MarketEvent::WorkersReady {
            number,
            market,
            leases
        }),
        (round(), leases(), instant()).prop_map(|((number, market, _), leases, since)| {
            MarketEvent::WorkersDead { number, market, leases, since }
        }),
        (round(), leases(), release()).prop_map(|((number, market, _), leases, reason)| {
            MarketEvent::UnitsReleased { number, market, leases, reason }
        }),
    ]
}

pub(crate) fn event() -> impl Strategy<Value = MarketEvent> {
    let supply = (any::<(u16, u64, u32, u32)>(), id(), cause(), of(instant()));
    prop_oneof![
        bid_event(),
        unit_event(),
        refusal().prop_map(MarketEvent::CommandRefused),
        supply.prop_map(|((market, generation, units, supply), source, cause, gone_at)| {
            MarketEvent::SupplyChanged { market, source, generation, units, supply, cause, gone_at }
        }),
        (any::<u16>(), market_id(), settings())
            .prop_map(|(market, id, settings)| MarketEvent::MarketDefined { market, id, settings }),
        rules().prop_map(|rules| MarketEvent::RulesAdopted { rules }),
        trusted().prop_map(|trusted| MarketEvent::TrustAdopted { trusted }),
        (any::<u16>(), any::<u64>(), prices())
            .prop_map(|(market, round, prices)| MarketEvent::PriceChanged { market, round, prices }),
        any::<u64>().prop_map(|round| MarketEvent::RoundClosed { round }),
    ]
}

pub(crate) fn batch() -> impl Strategy<Value = EventBatch<MarketEvent>> {
    let entry = (of((any::<u128>(), "[0-9a-f]{16}")), vec(event(), 0..4)).prop_map(|(command, events)| {
        let (key, digest) = command.map(|(key, digest)| (CommandKey(key), digest)).unzip();
        EventEntry { key, digest, events }
    });
    (id(), any::<u64>(), instant(), any::<u32>(), vec(entry, 0..4)).prop_map(
        |(stream, sequence, at, rules, entries)| EventBatch {
            machine: "market".to_owned(),
            stream,
            sequence,
            at,
            rules,
            entries,
        },
    )
}

pub(crate) fn refused() -> impl Strategy<Value = Refused> {
    (of(id()), of(id()), of(any::<u64>()), refusal()).prop_map(|(id, tenant, sequence, refusal)| Refused {
        id,
        tenant,
        sequence,
        refusal,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    let of_unit = || (id(), id(), id(), id(), market_id(), leases(), any::<u64>(), of(price()));
    prop_oneof![
        (id(), of(id()), of(id()), of(any::<u32>()), any::<u64>()).prop_map(
            |(id, tenant, bid, version, sequence)| {
                Answer::Accepted(Accepted { id, tenant, bid, version, sequence })
            }
        ),
        refused().prop_map(Answer::Refused),
        (of_unit(), of(instant())).prop_map(
            |((tenant, bid, cluster, pool, market, leases, round, price), available_by)| {
                Answer::Awarded(Awarded {
                    tenant,
                    bid,
                    cluster,
                    pool,
                    market,
                    leases,
                    round,
                    price,
                    available_by,
                })
            }
        ),
        (of_unit(), instant(), loss(), of(price())).prop_map(
            |((tenant, bid, cluster, pool, market, leases, round, price), gone_at, reason, kept_by)| {
                Answer::NoticeGiven(Noticed {
                    tenant,
                    bid,
                    cluster,
                    pool,
                    market,
                    leases,
                    round,
                    gone_at,
                    reason,
                    price,
                    kept_by,
                })
            }
        ),
        (id(), id(), market_id(), leases(), any::<u64>()).prop_map(|(tenant, bid, market, leases, round)| {
            Answer::NoticeWithdrawn(Withdrawn { tenant, bid, market, leases, round })
        }),
        (id(), id(), market_id(), leases(), any::<u64>(), instant()).prop_map(
            |(tenant, bid, market, leases, round, available_by)| {
                Answer::Delayed(Delayed { tenant, bid, market, leases, round, available_by })
            }
        ),
        (id(), id(), market_id(), leases(), release()).prop_map(|(tenant, bid, market, leases, reason)| {
            Answer::Released(Released { tenant, bid, market, leases, reason })
        }),
        (id(), id()).prop_map(|(tenant, bid)| Answer::Expired(Expired { tenant, bid })),
    ]
}

pub(crate) fn answers() -> impl Strategy<Value = Answers<Answer>> {
    (id(), of(any::<u64>()), instant(), vec(answer(), 0..5)).prop_map(|(stream, sequence, at, answers)| {
        Answers { machine: "market".to_owned(), stream, sequence, at, answers }
    })
}

pub(crate) fn report() -> impl Strategy<Value = MarketReport> {
    (market_id(), any::<u64>(), instant(), prices()).prop_map(|(market, round, at, prices)| MarketReport {
        market,
        round,
        at,
        prices,
    })
}
