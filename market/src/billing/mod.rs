//! What leases cost: a meter for each, accounts by tenant and month, bills. `README.md` beside this file tells how.
//!
//! Nothing here decides anything: it is a fold of what the machine decided, and so costs the machine nothing.

mod account;
mod amount;
mod bill;
mod meter;
mod month;
mod tariff;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use proto::market::{BidNumber, LeaseNumber, LeaseSpan, MarketNumber};
use proto::{Price, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

pub use account::{MONTHS_KEPT, SEGMENTS_KEPT};
pub use amount::{EXACT_PER_NANO, Exact, apportion, nanos};
pub use bill::{Bill, BillLine, BillSegment, LedgerEntry, PricePart, RateName};
pub use meter::Unbilled;
pub use month::{Month, MonthError};
pub use tariff::PRICE_POINTS_KEPT;

pub(crate) use account::Payer;
pub(crate) use tariff::Rate;

use crate::blocks::Blocks;
use account::{Accounts, BidAccount, Segment};
use meter::Meter;
use tariff::Tariff;

/// Segments that go together into one part of a snapshot.
const SEGMENTS_PER_PART: usize = 2_048;

/// The meters and books of one exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Billing {
    /// The month that runs; none before the first instant.
    month: Option<Month>,
    /// When it ends: what is before needs no look at the calendar.
    ends_at: Timestamp,
    tariffs: BTreeMap<MarketNumber, Tariff>,
    /// By bid and first lease.
    meters: Blocks<(BidNumber, LeaseNumber), Meter>,
    books: Accounts,
}

/// A piece of the state that fits one part of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) enum Record {
    Month(Option<Month>),
    Tariff(MarketNumber, Tariff),
    Meter(BidNumber, LeaseNumber, Meter),
    Account(TenantId, Month, BidNumber, BidAccount),
}

impl Billing {
    /// Time goes on: months that are over are closed. To be called before anything else happens at an instant.
    pub(crate) fn advance(&mut self, at: Timestamp) {
        if self.month.is_some() && at < self.ends_at {
            return;
        }
        let now = Month::of(at);
        self.ends_at = now.end();
        let Some(month) = self.month.replace(now).filter(|&month| month < now) else { return };
        let mut over = month;
        // Where nothing is metered, months go by unseen.
        while over < now && !self.meters.is_empty() {
            for meter in self.meters.values_mut() {
                if let Some(tariff) = self.tariffs.get(&meter.market) {
                    meter.end_month(tariff, over.end());
                }
            }
            over = over.plus(1);
        }
        self.books.forget(now);
    }

    /// A market has another price.
    pub(crate) fn set_price(&mut self, at: Timestamp, market: MarketNumber, price: Option<Price>) {
        self.tariffs.entry(market).or_default().set_price(at, price);
    }

    /// A bid is granted leases: nothing is charged until they have ready workers. `rate` is what they pay while none
    /// of them leaves.
    pub(crate) fn grant(
        &mut self,
        at: Timestamp,
        number: BidNumber,
        leases: LeaseSpan,
        market: MarketNumber,
        rate: Rate,
    ) {
        self.tariffs.entry(market).or_default();
        self.meters.insert((number, leases.first), Meter::new(at, leases.units, market, rate));
    }

    /// Leases have ready workers.
    pub(crate) fn ready(&mut self, at: Timestamp, payer: &Payer<'_>, leases: LeaseSpan) {
        self.change(at, payer, leases, |meter, tariff| meter.ready(tariff, at));
    }

    /// Workers of leases have been dead since an instant.
    pub(crate) fn dead(&mut self, at: Timestamp, payer: &Payer<'_>, leases: LeaseSpan, since: Timestamp) {
        self.change(at, payer, leases, |meter, tariff| meter.dead(tariff, at, since));
    }

    /// Leases have to leave, and pay at most `cap` until they have.
    pub(crate) fn leave(
        &mut self,
        at: Timestamp,
        payer: &Payer<'_>,
        leases: LeaseSpan,
        cap: Price,
        gone_at: Timestamp,
    ) {
        self.change(at, payer, leases, |meter, tariff| meter.leave(tariff, at, cap.micros(), gone_at));
    }

    /// Leases stay after all.
    pub(crate) fn stay(&mut self, at: Timestamp, payer: &Payer<'_>, leases: LeaseSpan) {
        self.change(at, payer, leases, |meter, tariff| meter.stay(tariff, at));
    }

    /// A bid's units in the markets that it names are worth something else to it.
    pub(crate) fn recap(
        &mut self,
        at: Timestamp,
        payer: &Payer<'_>,
        limit: impl Fn(MarketNumber) -> Option<Price>,
    ) {
        for first in self.firsts(payer.number, 0, LeaseNumber::MAX) {
            let Some(meter) = self.meters.get_mut(&(payer.number, first)) else { continue };
            let tariff = self.tariffs.entry(meter.market).or_default();
            if let Some(limit) = limit(meter.market) {
                meter.recap(tariff, at, limit.micros());
            }
        }
    }

    /// What a bid's leases pay of their own is another price.
    pub(crate) fn reprice(&mut self, at: Timestamp, payer: &Payer<'_>, price: Price) {
        for first in self.firsts(payer.number, 0, LeaseNumber::MAX) {
            let Some(meter) = self.meters.get_mut(&(payer.number, first)) else { continue };
            meter.reprice(self.tariffs.entry(meter.market).or_default(), at, price.micros());
        }
    }

    /// Leases are over. `ended` is when their servers were lost, if they were. Of those that never had a ready
    /// worker nothing is kept.
    pub(crate) fn release(
        &mut self,
        at: Timestamp,
        payer: &Payer<'_>,
        leases: LeaseSpan,
        ended: Option<Timestamp>,
    ) {
        for first in self.within(payer.number, leases) {
            let Some(meter) = self.meters.remove(&(payer.number, first)) else { continue };
            let tariff = self.tariffs.entry(meter.market).or_default();
            let (market, leases) = (meter.market, LeaseSpan { first, units: meter.units });
            let was_ready = meter.was_ready;
            for piece in meter.release(tariff, at, ended).filter(|_| was_ready) {
                self.books.charge(payer, Segment::new(leases, market, piece));
            }
        }
    }

    fn change(
        &mut self,
        at: Timestamp,
        payer: &Payer<'_>,
        leases: LeaseSpan,
        change: impl Fn(&mut Meter, &mut Tariff),
    ) {
        for first in self.within(payer.number, leases) {
            let Some(meter) = self.meters.get_mut(&(payer.number, first)) else { continue };
            let tariff = self.tariffs.entry(meter.market).or_default();
            change(meter, tariff);
            let (market, leases) = (meter.market, LeaseSpan { first, units: meter.units });
            while let Some(piece) = meter.settle(at) {
                self.books.charge(payer, Segment::new(leases, market, piece));
            }
        }
    }

    /// The meters within a range, parted from what lies outside it.
    fn within(&mut self, number: BidNumber, leases: LeaseSpan) -> Vec<LeaseNumber> {
        self.cut(number, leases.first);
        self.cut(number, leases.end());
        self.firsts(number, leases.first, leases.end())
    }

    fn firsts(&self, number: BidNumber, from: LeaseNumber, to: LeaseNumber) -> Vec<LeaseNumber> {
        self.meters.range((number, from), (number, to)).iter().map(|&((_, first), _)| first).collect()
    }

    /// Parts a meter so that one begins with `lease`.
    fn cut(&mut self, number: BidNumber, lease: LeaseNumber) {
        let Some(((_, first), meter)) = self.meters.last_mut((number, 0), (number, lease)) else { return };
        if lease < first + u64::from(meter.units) {
            let tariff = self.tariffs.entry(meter.market).or_default();
            let rest = meter.part(tariff, (lease - first) as u32);
            self.meters.insert((number, lease), rest);
        }
    }

    /// What those of the leases that are not over have cost together by `at`, in nano-dollars.
    pub(crate) fn charged(&self, at: Timestamp, number: BidNumber, leases: LeaseSpan) -> i128 {
        let mut sum = 0;
        // From the end: the first meter that ends before the leases is the last one to look at.
        for &((_, first), ref meter) in self.meters.range((number, 0), (number, leases.end())).iter().rev() {
            let end = first + u64::from(meter.units);
            if end <= leases.first {
                break;
            }
            let units = end.min(leases.end()) - first.max(leases.first);
            let total = self.tariffs.get(&meter.market).map_or(0, |tariff| meter.total(tariff, at));
            sum += total * Exact::from(units);
        }
        nanos(sum)
    }

    /// What is wrong with the books, if anything is.
    pub(crate) fn fault(&self) -> Option<String> {
        self.books.fault()
    }

    /// The state in pieces, each small enough for a part of a snapshot.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let tariffs = self.tariffs.iter().map(|(&market, tariff)| Record::Tariff(market, tariff.clone()));
        let meters =
            self.meters.iter().map(|((number, lease), meter)| Record::Meter(number, lease, meter.clone()));
        let accounts = self.books.accounts.iter().flat_map(|((month, tenant), account)| {
            let parts =
                account.bids.iter().flat_map(|(&number, bid)| parts_of(bid).map(move |part| (number, part)));
            parts.map(move |(number, part)| Record::Account(tenant.clone(), *month, number, part))
        });
        [Record::Month(self.month)].into_iter().chain(tariffs).chain(meters).chain(accounts)
    }

    /// Puts back a piece of the state.
    pub(crate) fn put_back(&mut self, record: Record) {
        match record {
            Record::Month(month) => {
                self.month = month;
                self.ends_at = month.map_or(Timestamp::MIN, Month::end);
            }
            Record::Tariff(market, tariff) => {
                self.tariffs.insert(market, tariff);
            }
            Record::Meter(number, lease, meter) => {
                self.meters.insert((number, lease), meter);
            }
            Record::Account(tenant, month, number, part) => self.books.put_back(tenant, month, number, part),
        }
    }
}

/// What a bid owes, in parts of bounded size; the sums go with the first.
fn parts_of(bid: &BidAccount) -> impl Iterator<Item = BidAccount> + '_ {
    let parts = bid.segments.len().div_ceil(SEGMENTS_PER_PART).max(1);
    (0..parts).map(move |part| {
        let from = part * SEGMENTS_PER_PART;
        let to = (from + SEGMENTS_PER_PART).min(bid.segments.len());
        BidAccount {
            bid: bid.bid.clone(),
            cluster: bid.cluster.clone(),
            pool: bid.pool.clone(),
            segments: bid.segments[from..to].to_vec(),
            others: if part == 0 { bid.others.clone() } else { BTreeMap::new() },
        }
    })
}
