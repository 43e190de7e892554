//! Quotes and explanations: what they say is tried out on a copy of the exchange.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::machine::Received;
use proto::market::{BidState, MarketEvent};
use proto::{Machine, Timestamp};
use serde_json::{Value, json};

use super::driver::*;
use super::together::{Bourse, MARKETS, Step, any_step, mills};

/// When the round closes that a command of now comes into; none if leases end before, for who gets their servers is worth
/// something else in it.
fn closes_at(bourse: &Bourse) -> Option<Timestamp> {
    let closes_at = bourse.world.now.plus_micros(60_000_000);
    let bids = bourse.world.machine.bids();
    let mut leaving = bids.iter().flat_map(|bid| &bid.leases).filter_map(|span| span.leaving);
    (!leaving.any(|(gone_at, _)| gone_at <= closes_at)).then_some(closes_at)
}

/// Plays steps; without gangs if so said, and with one option a bid if so said.
fn played(steps: &[Step], has_gangs: bool, is_simple: bool) -> Bourse {
    let mut bourse = Bourse::new(600);
    for step in steps {
        let mut step = step.clone();
        if let Step::Place(wish) | Step::Amend { wish, .. } = &mut step {
            if !has_gangs {
                wish.minimum = 1;
            }
            if is_simple {
                wish.options.truncate(1);
                wish.options[0].2 = None;
            }
        }
        bourse.take(&step);
    }
    bourse
}

/// What a copy of the exchange makes of a command: whether it is carried out, and how many units the bid wins in the
/// round.
fn tried(bourse: &Bourse, closes_at: Timestamp, asked: Value, id: &str) -> Option<u32> {
    let mut copy = bourse.world.machine.clone();
    let mut events = Vec::new();
    copy.step(bourse.world.now, &Received::new(gateway(), command(asked)), &mut events);
    let is_done = !matches!(events[0], MarketEvent::CommandRefused(_));
    copy.wake(closes_at, &mut events);
    let found = copy.bids().into_iter().find(|bid| bid.id.as_str() == id);
    is_done.then(|| found.map_or(0, |bid| bid.won))
}

proptest! {
    /// A bid with a quote's limits wins all its units, and with less it does not.
    #[test]
    fn a_quote_wins_and_nothing_less_does(
        steps in prop::collection::vec(any_step(), 1..50),
        wishes in prop::collection::vec((1..5_u32, 1..8_usize), 1..5),
        has_gangs: bool,
        is_simple: bool,
    ) {
        let bourse = played(&steps, has_gangs, is_simple);
        let Some(closes_at) = closes_at(&bourse) else { return Ok(()) };
        for (units, markets) in wishes {
            let markets: Vec<u16> = (0..3).filter(|market| markets >> market & 1 == 1).collect();
            let quote = bourse.world.machine.quote(&markets, units).unwrap();
            let bid = |limits: &[(u16, u64)]| {
                let options: Vec<Value> = limits
                    .iter()
                    .map(|&(market, limit)| json!({"market": MARKETS[usize::from(market)], "limit": mills(limit)}))
                    .collect();
                let placed = json!({"type": "PlaceBid", "id": "quoted", "tenant": "q", "cluster": "c", "pool": "p",
                    "quantity": units, "options": options});
                tried(&bourse, closes_at, placed, "quoted")
            };
            let Some(quote) = quote else {
                let supply: u32 = markets.iter().map(|&market| bourse.supply[usize::from(market)]).sum();
                // What is left to who cannot be outbid at any price are gangs' servers only.
                prop_assert!(supply < units || has_gangs);
                continue;
            };
            let limits: Vec<(u16, u64)> =
                quote.options.iter().map(|&(market, limit)| (market, limit.micros() / 1_000)).collect();
            prop_assert_eq!(bid(&limits), Some(units), "{:?}", quote);
            let lower: Vec<(u16, u64)> = limits
                .iter()
                .map(|&(market, limit)| (market, limit - 1))
                .filter(|&(market, limit)| limit >= bourse.reserve[usize::from(market)] && limit > 0)
                .collect();
            if !has_gangs && !lower.is_empty() {
                prop_assert!(bid(&lower).is_some_and(|won| won < units), "{:?} less a rung wins", quote);
            }
        }
    }

    /// With the limits that an explanation names, a bid wins all its units.
    #[test]
    fn an_explained_bid_wins_with_what_it_is_told(
        steps in prop::collection::vec(any_step(), 1..50),
        is_simple: bool,
    ) {
        let bourse = played(&steps, false, is_simple);
        let Some(closes_at) = closes_at(&bourse) else { return Ok(()) };
        let machine = &bourse.world.machine;
        for bid in machine.bids() {
            let why = machine.why(&bid.tenant, &bid.id).unwrap().unwrap();
            prop_assert_eq!(why.won, bid.won);
            let is_over = matches!(bid.state, BidState::Cancelled | BidState::Expired);
            if is_over || bid.won == bid.quantity {
                prop_assert_eq!(why.wins_at, None);
                continue;
            }
            let Some(quote) = why.wins_at else {
                let supply: u32 = bid.options.iter().map(|&(market, ..)| bourse.supply[usize::from(market)]).sum();
                prop_assert!(supply < bid.quantity);
                continue;
            };
            let raised: BTreeMap<u16, u64> =
                quote.options.iter().map(|&(market, limit)| (market, limit.micros() / 1_000)).collect();
            // Where the limit is below the reserve the option stays as it is.
            let options: Vec<Value> = bid
                .options
                .iter()
                .map(|&(market, limit, _)| {
                    let limit = raised.get(&market).copied().unwrap_or(limit.micros() / 1_000);
                    json!({"market": MARKETS[usize::from(market)], "limit": mills(limit)})
                })
                .collect();
            let amended = json!({"type": "AmendBid", "id": "explained", "tenant": bid.tenant, "bid": bid.id,
                "version": bid.version, "terms": {"quantity": bid.quantity, "options": options}});
            prop_assert_eq!(tried(&bourse, closes_at, amended, bid.id.as_str()), Some(bid.quantity), "{:?}", quote);
        }
    }

    /// In a market that clears by itself, units win down to the number that there are servers.
    #[test]
    fn a_unit_wins_if_its_number_is_within_the_supply(steps in prop::collection::vec(any_step(), 1..50)) {
        let mut bourse = played(&steps, false, true);
        bourse.take(&Step::Round);
        let machine = &bourse.world.machine;
        for bid in machine.bids() {
            let why = machine.why(&bid.tenant, &bid.id).unwrap().unwrap();
            let is_over = matches!(bid.state, BidState::Cancelled | BidState::Expired);
            let option = why.options[0];
            if is_over || machine.is_joint(option.market) || option.limit < option.prices.reserve {
                continue;
            }
            let before = option.above + option.level + u64::from(option.won);
            let supply = u64::from(option.prices.supply);
            if bid.won == bid.quantity {
                prop_assert!(before <= supply, "{:?} of {:?}", option, bid);
            } else {
                prop_assert!(before >= supply, "{:?} of {:?}", option, bid);
            }
        }
    }
}
