//! A tenant's bill for a month: lines rounded once, segments that add up to them.

use std::collections::BTreeMap;

use proto::market::{BidNumber, LeaseNumber, LeaseSpan, MarketNumber};
use proto::{BidId, Charge, ClusterId, MarketId, PoolId, Price, TenantId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Billing;
use super::account::{Payer, Segment, Sums};
use super::amount::{apportion, nanos};
use super::meter::{Basis, LATE_MICROSECONDS_MAX, Unbilled};
use super::month::Month;
use super::tariff::Rate;

/// How a segment is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RateName {
    /// The market's price, whatever it is at the time.
    Market,
    /// The market's price, but never more than a limit.
    Capped,
    /// A price of its own.
    OnDemand,
    /// Nothing.
    Unbilled,
}

/// A piece of the time of consecutive leases, from its first instant to just before its last, within one month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BillSegment {
    /// Whose bid.
    pub bid: BidId,
    /// Where.
    pub market: MarketId,
    /// The first lease.
    pub first: LeaseNumber,
    /// How many.
    pub units: u32,
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
    /// How it is charged.
    pub rate: RateName,
    /// The most a unit pays per hour, or what it pays on demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Price>,
    /// Why it is not charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Unbilled>,
    /// What all its units cost, in dollars.
    pub charge: Charge,
}

/// A piece of a segment in which the price was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PricePart {
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
    /// What a unit pays per hour.
    pub price: Price,
}

/// What one bid owes for one market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BillLine {
    /// Whose bid.
    pub bid: BidId,
    /// For which cluster.
    pub cluster: ClusterId,
    /// For which pool.
    pub pool: PoolId,
    /// Where.
    pub market: MarketId,
    /// Seconds that are charged, of all units together.
    pub unit_seconds: u64,
    /// Segments it is made of.
    pub segments: u64,
    /// What they cost, in dollars.
    pub charge: Charge,
}

/// One side of what was entered in the ledger for a bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerEntry {
    /// `receivable/` and a tenant, or `revenue/` and a market.
    pub account: String,
    /// What the account is owed more, in dollars.
    pub debit: Charge,
    /// What it is owed less.
    pub credit: Charge,
}

/// What a tenant owes for a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Whether nothing can change it any more.
    pub is_final: bool,
    /// What all lines cost together.
    pub total: Charge,
    /// One for each bid and market, by bid.
    pub lines: Vec<BillLine>,
    /// What they are made of, in the same order, as far as it is kept one by one.
    pub segments: Vec<BillSegment>,
}

/// A line while it is made.
pub(super) struct Line {
    bid: BidId,
    cluster: ClusterId,
    pool: PoolId,
    sums: Sums,
    pub(super) segments: Vec<Segment>,
    /// Segments of which sums are kept only.
    others: Sums,
}

impl Line {
    fn new(bid: &BidId, cluster: &ClusterId, pool: &PoolId) -> Self {
        let (bid, cluster, pool) = (bid.clone(), cluster.clone(), pool.clone());
        Self { bid, cluster, pool, sums: Sums::default(), segments: Vec::new(), others: Sums::default() }
    }

    fn push(&mut self, segment: Segment) {
        self.sums.add(&segment);
        self.segments.push(segment);
    }
}

impl Billing {
    /// A tenant's bill for a month as of `at`. `open` are its bids that have leases; `name` says what a market is
    /// called.
    pub(crate) fn bill<'a>(
        &'a self,
        at: Timestamp,
        tenant: &TenantId,
        month: Month,
        open: impl Iterator<Item = Payer<'a>>,
        name: impl Fn(MarketNumber) -> Option<MarketId>,
    ) -> Bill {
        let mut lines = self.settled(tenant, month);
        for payer in open {
            for (segment, market) in self.unsettled(at, payer.number, month) {
                lines
                    .entry((payer.number, market))
                    .or_insert_with(|| Line::new(payer.bid, payer.cluster, payer.pool))
                    .push(segment);
            }
        }
        let amounts: Vec<_> = lines.values().map(|line| line.sums.amount).collect();
        let total = nanos(amounts.iter().sum());
        let charges = apportion(total, &amounts);
        let is_final = at.micros_since(month.end()) >= LATE_MICROSECONDS_MAX;
        let total = Charge::from_nanos(total);
        let mut bill = Bill { is_final, total, lines: Vec::new(), segments: Vec::new() };
        for (((_, market), line), charge) in lines.into_iter().zip(charges) {
            if let Some(market) = name(market) {
                bill.add(line, market, charge);
            }
        }
        bill
    }

    pub(super) fn settled(
        &self,
        tenant: &TenantId,
        month: Month,
    ) -> BTreeMap<(BidNumber, MarketNumber), Line> {
        let mut lines = BTreeMap::new();
        let Some(account) = self.books.of(tenant, month) else { return lines };
        for (&number, bid) in &account.bids {
            let new = || Line::new(&bid.bid, &bid.cluster, &bid.pool);
            for &segment in &bid.segments {
                lines.entry((number, segment.market)).or_insert_with(new).push(segment);
            }
            for (&market, &others) in &bid.others {
                let line = lines.entry((number, market)).or_insert_with(new);
                line.others = others;
                line.sums.segments += others.segments;
                line.sums.amount += others.amount;
                line.sums.billed_microseconds += others.billed_microseconds;
            }
        }
        lines
    }

    pub(super) fn unsettled(
        &self,
        at: Timestamp,
        number: BidNumber,
        month: Month,
    ) -> impl Iterator<Item = (Segment, MarketNumber)> + '_ {
        let meters = self.meters.range((number, 0), (number, LeaseNumber::MAX)).iter();
        meters.flat_map(move |&((_, first), ref meter)| {
            let leases = LeaseSpan { first, units: meter.units };
            let pieces = self.tariffs.get(&meter.market).map(|tariff| meter.unsettled(tariff, at));
            let pieces = pieces.into_iter().flatten();
            let here = pieces.filter(move |piece| Month::of(piece.from()) == month);
            here.map(move |piece| (Segment::new(leases, meter.market, piece), meter.market))
        })
    }

    /// The prices that a segment is made of, as far back as they are kept one by one.
    pub(crate) fn price_parts(&self, market: MarketNumber, segment: &BillSegment) -> Vec<PricePart> {
        let Some(tariff) = self.tariffs.get(&market) else { return Vec::new() };
        let limit = segment.limit.map_or(u64::MAX, Price::micros);
        match segment.rate {
            RateName::Unbilled => Vec::new(),
            RateName::OnDemand => {
                let price = segment.limit.unwrap_or_default();
                vec![PricePart { from: segment.from, to: segment.to, price }]
            }
            RateName::Market | RateName::Capped => tariff
                .prices(segment.from, segment.to)
                .map(|(from, to, price)| PricePart {
                    from,
                    to,
                    price: Price::micros_or_max(price.min(limit)),
                })
                .collect(),
        }
    }

    /// The segments of one lease of a tenant, in order of time, as far back as they are kept.
    pub(crate) fn segments_of(
        &self,
        at: Timestamp,
        payer: &Payer<'_>,
        lease: LeaseNumber,
        name: impl Fn(MarketNumber) -> Option<MarketId>,
    ) -> Vec<(MarketNumber, BillSegment)> {
        let Some(now) = self.month else { return Vec::new() };
        let mut segments = Vec::new();
        for month in (0..super::MONTHS_KEPT).rev().map(|back| now.plus(-back)) {
            let account = self.books.of(payer.tenant, month);
            let settled = account.and_then(|account| account.bids.get(&payer.number));
            segments.extend(settled.into_iter().flat_map(|bid| bid.segments.iter().copied()));
            segments.extend(self.unsettled(at, payer.number, month).map(|(segment, _)| segment));
        }
        segments.retain(|segment| segment.leases().contains(lease));
        let one = |segment: Segment| {
            let alone = Segment::new(LeaseSpan { first: lease, units: 1 }, segment.market, segment.piece);
            let charge = nanos(alone.amount());
            Some((segment.market, told(&alone, payer.bid, &name(segment.market)?, charge)))
        };
        segments.into_iter().filter_map(one).collect()
    }
}

impl Bill {
    /// The bill as double entries: the tenant's debit, and each market's credit.
    pub fn entries(&self, tenant: &TenantId) -> Vec<LedgerEntry> {
        let mut earned: BTreeMap<&MarketId, i128> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.charge != Charge::default()) {
            *earned.entry(&line.market).or_default() += line.charge.nanos();
        }
        let debit = (self.total != Charge::default()).then(|| LedgerEntry {
            account: format!("receivable/{tenant}"),
            debit: self.total,
            credit: Charge::default(),
        });
        let credit = |(market, nanos)| LedgerEntry {
            account: format!("revenue/{market}"),
            debit: Charge::default(),
            credit: Charge::from_nanos(nanos),
        };
        debit.into_iter().chain(earned.into_iter().map(credit)).collect()
    }

    fn add(&mut self, line: Line, market: MarketId, charge: i128) {
        let mut amounts: Vec<_> = line.segments.iter().map(Segment::amount).collect();
        amounts.push(line.others.amount);
        let charges = apportion(charge, &amounts);
        let told = line
            .segments
            .iter()
            .zip(charges)
            .map(|(segment, nanos)| told(segment, &line.bid, &market, nanos));
        self.segments.extend(told);
        let unit_seconds = u64::try_from(line.sums.billed_microseconds / 1_000_000).unwrap_or(u64::MAX);
        self.lines.push(BillLine {
            bid: line.bid,
            cluster: line.cluster,
            pool: line.pool,
            market,
            unit_seconds,
            segments: line.sums.segments,
            charge: Charge::from_nanos(charge),
        });
    }
}

fn told(segment: &Segment, bid: &BidId, market: &MarketId, nanos: i128) -> BillSegment {
    let (rate, limit, reason) = match segment.piece.basis {
        Basis::Billed(Rate::Market) => (RateName::Market, None, None),
        Basis::Billed(Rate::Capped(cap)) => (RateName::Capped, Some(Price::micros_or_max(cap)), None),
        Basis::Billed(Rate::Flat(price)) => (RateName::OnDemand, Some(Price::micros_or_max(price)), None),
        Basis::Billed(Rate::Nothing) => (RateName::Unbilled, None, None),
        Basis::Unbilled(why) => (RateName::Unbilled, None, Some(why)),
    };
    BillSegment {
        bid: bid.clone(),
        market: market.clone(),
        first: segment.leases().first,
        units: segment.units,
        from: segment.piece.from(),
        to: segment.piece.to(),
        rate,
        limit,
        reason,
        charge: Charge::from_nanos(nanos),
    }
}
