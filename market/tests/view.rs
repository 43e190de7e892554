//! A view says what the events said, whoever asks sees only what is theirs, and a snapshot loses nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)] // helpers of tests fail like tests

mod view_told;

use std::collections::{BTreeMap, BTreeSet};

use market::view::{PERCENTILE_TENANTS_MIN, SnapshotError, View, json};
use proptest::prelude::*;
use proto::envelope::{EventBatch, EventEntry};
use proto::market::{BidState, MarketEvent};
use proto::{BidId, Price, Timestamp};
use view_told::{Bid, Lease, MARKETS, TENANTS, Told, market_id, next, tenant_id};

fn fold(events: &[(Timestamp, u64, MarketEvent)]) -> View {
    let mut view = View::new();
    for (at, sequence, event) in events {
        view.apply(*at, *sequence, event);
    }
    view
}

/// A tenant's bids page by page.
fn all_bids(view: &View, tenant: u8, limit: usize) -> Vec<json::Bid> {
    let (mut bids, mut after) = (Vec::new(), None);
    loop {
        let page = view.bids(&tenant_id(tenant), after, limit);
        assert!(page.bids.len() <= limit);
        assert_eq!(page.as_of, view.as_of());
        bids.extend(page.bids);
        after = page.next;
        if after.is_none() {
            return bids;
        }
    }
}

fn expected_state(bid: &Bid, winning: u32, leaving: u32) -> BidState {
    if let Some(end) = bid.end {
        return end;
    }
    match winning {
        0 if leaving > 0 => BidState::Losing,
        0 => BidState::Queued,
        _ if winning < bid.terms.quantity => BidState::PartlyWon,
        _ => BidState::Won,
    }
}

/// What a bid should look like, lease by lease, from the model.
fn check_bid(told: &Told, number: u64, shown: &json::Bid) {
    let bid = &told.bids[&number];
    let of_bid: BTreeMap<u64, &Lease> = told
        .leases
        .iter()
        .filter(|(_, lease)| lease.bid == number)
        .map(|(number, lease)| (*number, lease))
        .collect();
    let leaving = of_bid.values().filter(|lease| lease.notice.is_some()).count() as u32;
    let winning = of_bid.len() as u32 - leaving;
    let waits =
        |lease: &&&Lease| lease.notice.is_none() && lease.available_by.is_some_and(|by| by > shown_at(told));
    let waiting = of_bid.values().filter(waits).count() as u32;
    let queued = if bid.end.is_some() { 0 } else { bid.terms.quantity.saturating_sub(winning) };
    assert_eq!(shown.units, json::Units { winning, waiting, queued, leaving });
    assert_eq!(shown.state, expected_state(bid, winning, leaving));
    assert_eq!((shown.bid.as_str(), shown.version), (&*bid.name, bid.version));
    assert_eq!(shown.tenant, tenant_id(bid.tenant));
    let terms = (shown.quantity, shown.min_quantity, &shown.options, shown.expires_at);
    assert_eq!(terms, (bid.terms.quantity, bid.terms.min_quantity, &bid.terms.options, bid.terms.expires_at));
    let mut seen = BTreeMap::new();
    for span in &shown.leases {
        let notice = span.notice.map(|notice| (notice.gone_at, notice.reason));
        for lease in span.first..span.first + u64::from(span.units) {
            seen.insert(lease, (span.market.to_string(), span.available_by, notice));
        }
    }
    let expected = of_bid.iter().map(|(number, lease)| {
        (*number, (MARKETS[usize::from(lease.market)].to_owned(), lease.available_by, lease.notice))
    });
    assert_eq!(seen, expected.collect());
}

fn shown_at(told: &Told) -> Timestamp {
    told.events.last().unwrap().0
}

/// Percentiles by listing every winning unit's limit.
fn expected_percentiles(told: &Told, market: u8) -> Option<json::Percentiles> {
    let mut limits: Vec<Price> = Vec::new();
    let mut tenants = BTreeSet::new();
    for lease in
        told.leases.values().filter(|lease| lease.notice.is_none() && lease.market == u16::from(market))
    {
        let bid = &told.bids[&lease.bid];
        if let Some(option) = bid.terms.options.iter().find(|option| option.market == market_id(market)) {
            limits.push(option.limit);
            tenants.insert(bid.tenant);
        }
    }
    limits.sort_unstable();
    let rank = |percent: usize| limits[(limits.len() * percent).div_ceil(100) - 1];
    (tenants.len() >= PERCENTILE_TENANTS_MIN).then(|| json::Percentiles {
        p20: rank(20),
        p50: rank(50),
        p80: rank(80),
    })
}

fn check(told: &Told, view: &View) {
    let mut by_tenant: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    for (number, bid) in &told.bids {
        by_tenant.entry(bid.tenant).or_default().push(*number);
    }
    for tenant in 0..TENANTS {
        let numbers = by_tenant.remove(&tenant).unwrap_or_default();
        let bids = all_bids(view, tenant, 3);
        assert_eq!(bids, all_bids(view, tenant, 1_000), "pages do not depend on their size");
        assert_eq!(bids.len(), numbers.len());
        for (number, shown) in numbers.iter().zip(&bids) {
            check_bid(told, *number, shown);
            assert_eq!(&view.bid(&tenant_id(tenant), &shown.bid).unwrap().bid, shown);
        }
    }
    assert_eq!(view.numbers().collect::<Vec<_>>(), told.bids.keys().copied().collect::<Vec<_>>());
    for market in 0..MARKETS.len() as u8 {
        let shown = view.market(&market_id(market)).unwrap().market;
        assert_eq!(shown.percentiles, expected_percentiles(told, market));
        let last = told.events.iter().rev().find_map(|(at, _, event)| match event {
            MarketEvent::PriceChanged { market: number, round, prices } if *number == u16::from(market) => {
                Some((*at, *round, *prices))
            }
            _ => None,
        });
        if let Some(last) = last {
            assert_eq!((shown.at, shown.round, shown.prices), last);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_view_says_what_happened(steps in proptest::collection::vec(next(), 1..250)) {
        let mut told = Told::open();
        let mut view = fold(&told.events);
        let mut folded = told.events.len();
        for (place, step) in steps.iter().enumerate() {
            told.happen(step);
            for (at, sequence, event) in &told.events[folded..] {
                view.apply(*at, *sequence, event);
            }
            folded = told.events.len();
            if place % 16 == 0 {
                check(&told, &view);
            }
        }
        check(&told, &view);
    }

    /// From any snapshot on it is as if there had been none; two views of the same events are equal, byte for byte.
    #[test]
    fn a_snapshot_loses_nothing(
        steps in proptest::collection::vec(next(), 1..250),
        cut in any::<prop::sample::Index>(),
    ) {
        let told = Told::all(&steps);
        let cut = cut.index(told.events.len() + 1);
        let whole = fold(&told.events);
        prop_assert_eq!(&fold(&told.events), &whole);
        let snapshot = fold(&told.events[..cut]).snapshot();
        let mut view = View::restore(&snapshot).unwrap();
        prop_assert_eq!(view.snapshot(), snapshot);
        for (at, sequence, event) in &told.events[cut..] {
            view.apply(*at, *sequence, event);
        }
        prop_assert_eq!(&view, &whole);
        prop_assert_eq!(view.snapshot(), whole.snapshot());
        check(&told, &view);
    }

    /// A damaged or cut snapshot is refused, never half read.
    #[test]
    fn a_damaged_snapshot_is_refused(
        steps in proptest::collection::vec(next(), 1..60),
        place in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
        cut in any::<bool>(),
    ) {
        let mut bytes = fold(&Told::all(&steps).events).snapshot();
        let place = place.index(bytes.len());
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= flip;
        }
        prop_assert!(View::restore(&bytes).is_err());
        bytes.push(0);
        prop_assert!(View::restore(&bytes).is_err());
    }

    /// What one tenant is told does not depend on what the others do with their bids.
    #[test]
    fn a_tenant_sees_only_its_own(steps in proptest::collection::vec(next(), 1..150)) {
        let view = fold(&Told::all(&steps).events);
        let mut ids = BTreeSet::new();
        for tenant in 0..TENANTS {
            let bids = all_bids(&view, tenant, 7);
            prop_assert!(bids.iter().all(|bid| bid.tenant == tenant_id(tenant)));
            ids.extend(bids.into_iter().map(|bid| bid.bid));
        }
        for tenant in 0..=TENANTS {
            let own: BTreeSet<BidId> = all_bids(&view, tenant, 7).into_iter().map(|bid| bid.bid).collect();
            for id in &ids {
                let found = view.bid(&tenant_id(tenant), id);
                prop_assert_eq!(found.is_some(), own.contains(id));
                prop_assert!(found.is_none_or(|found| found.bid.tenant == tenant_id(tenant)));
            }
        }
    }
}

/// The events of a told exchange as the batches that would carry them.
fn batches(told: &Told) -> Vec<EventBatch<MarketEvent>> {
    let mut batches: Vec<EventBatch<MarketEvent>> = Vec::new();
    for (at, sequence, event) in &told.events {
        let entry = EventEntry { key: None, digest: None, events: vec![event.clone()] };
        match batches.last_mut() {
            Some(last) if last.sequence == *sequence => last.entries.push(entry),
            _ => batches.push(EventBatch {
                machine: "market".to_owned(),
                stream: "main".parse().unwrap(),
                sequence: *sequence,
                at: *at,
                rules: 1,
                entries: vec![entry],
            }),
        }
    }
    batches
}

#[test]
fn batches_that_come_twice_change_nothing_and_gaps_are_found() {
    let steps: Vec<_> = (0..20_u16)
        .map(|step| view_told::Next::Place {
            tenant: (step % 5) as u8,
            options: vec![(0, step + 1)],
            quantity: 2,
        })
        .collect();
    let told = Told::all(&steps);
    let batches = batches(&told);
    assert!(batches.len() > 5);
    let mut view = View::new();
    for (place, batch) in batches.iter().enumerate() {
        view.apply_batch(batch).unwrap();
        view.apply_batch(batch).unwrap();
        view.apply_batch(&batches[place / 2]).unwrap();
        if let Some(later) = batches.get(place + 2) {
            let gap = view.apply_batch(later).unwrap_err();
            assert_eq!((gap.have, gap.got), (batch.sequence, later.sequence));
        }
    }
    assert_eq!(view, fold(&told.events));
}

#[test]
fn forgotten_bids_leave_nothing_behind() {
    use view_told::Next;
    let mut told = Told::open();
    let live = |told: &mut Told| {
        told.happen(&Next::Place { tenant: 1, options: vec![(0, 30)], quantity: 4 });
        told.happen(&Next::Award { bid: 0, option: 0, units: 4, waits: false });
        told.happen(&Next::Cancel { bid: 0 });
        told.happen(&Next::Release { bid: 0, from: 0, units: 4 });
        told.happen(&Next::Forget { bid: 0 });
    };
    // The market's first lease begins its price integral, which stays.
    live(&mut told);
    let before = fold(&told.events);
    for _ in 0..50 {
        live(&mut told);
    }
    assert!(told.bids.is_empty() && told.leases.is_empty());
    let after = fold(&told.events);
    assert_eq!(after.snapshot().len(), before.snapshot().len());
    assert!(after.bids(&tenant_id(1), None, 10).bids.is_empty());
}

#[test]
fn markets_come_by_name_in_pages_and_history_by_time() {
    use view_told::Next;
    let mut told = Told::open();
    for mills in [10, 10, 12, 11] {
        told.happen(&Next::Price { market: 0, mills: Some(mills), sold: 1 });
        told.happen(&Next::Round);
        told.happen(&Next::Pass { seconds: 60 });
    }
    told.happen(&Next::Price { market: 0, mills: None, sold: 0 });
    let view = fold(&told.events);

    let first = view.markets(None, 2);
    let names = |page: &json::Markets| {
        page.markets.iter().map(|market| market.market.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["dfw/ch.large", "dfw/gp.large"]);
    let second = view.markets(first.next.as_ref(), 2);
    assert_eq!((names(&second), second.next), (vec!["iad/gp.large".to_owned()], None));

    let market = market_id(0);
    let history = view.history(&market, None, 100).unwrap();
    let prices = |history: &json::History| history.points.iter().map(|point| point.price).collect::<Vec<_>>();
    let mills = |mills| Some(view_told::mills(mills));
    assert_eq!(prices(&history), [mills(10), mills(12), mills(11), None]);
    assert_eq!(history.next, None);
    let later = history.points[1].at.plus_micros(1);
    assert_eq!(prices(&view.history(&market, Some(later), 100).unwrap()), [mills(12), mills(11), None]);
    let page = view.history(&market, None, 3).unwrap();
    assert_eq!(page.next, Some(history.points[3].at));
    assert_eq!(view.history(&market, page.next, 3).unwrap().points, history.points[3..]);
    assert!(view.history(&"nowhere/at.all".parse().unwrap(), None, 3).is_none());
}

#[test]
fn a_snapshot_comes_in_parts_of_bounded_size() {
    use view_told::Next;
    let mut told = Told::open();
    for step in 0..6_000_u16 {
        told.happen(&Next::Place {
            tenant: 3 + (step % 2) as u8,
            options: vec![(0, 30), (1, 20)],
            quantity: 4,
        });
    }
    let view = fold(&told.events);
    let parts: Vec<_> = view.parts().collect();
    assert!(parts.len() > 2, "{} parts", parts.len());
    assert!(parts.iter().all(|part| part.len() < 256 * 1024));
    assert_eq!(View::restore(&parts.concat()).unwrap(), view);
    let mut mixed = parts.clone();
    mixed.swap(1, 2);
    assert_eq!(View::restore(&mixed.concat()), Err(SnapshotError::Damaged));
    assert!(View::restore(&parts[..parts.len() - 1].concat()).is_err());
    assert!(View::restore(&[]).is_err());
    // A page is bounded whatever is asked for.
    assert_eq!(view.bids(&tenant_id(3), None, usize::MAX).bids.len(), market::view::PAGE_MAX);
    assert_eq!(view.bids(&tenant_id(3), None, 0).bids.len(), 1);
}
