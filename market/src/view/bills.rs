//! What leases cost, as the view tells the meters and asks the books.

use proto::market::{BidNumber, LeaseNumber, LeaseSpan, MarketNumber};
use proto::{Charge, Price, TenantId, Timestamp};

use super::bid::Bid;
use super::leases::Span;
use super::market::Market;
use super::{View, json};
use crate::billing::{BillSegment, Month, Rate};

/// Most lines, and most segments, of one page of a bill.
pub const BILL_PAGE_MAX: usize = 1_000;

/// What happened to leases, as far as it changes what they cost.
pub(super) enum Metered {
    Granted,
    Ready,
    Dead { since: Timestamp },
    Leaving { gone_at: Timestamp },
    Staying,
    Over { ended: Option<Timestamp> },
}

/// What a server costs an on-demand order per hour: the market's on-demand price, but no more than the order's limit. None of
/// another bid. There is a price as long as orders stand.
fn order_price(bid: &Bid, market: &Market) -> Option<Price> {
    let limit = bid.limit_in(&market.id).filter(|_| bid.on_demand)?;
    market.settings.on_demand_price.map(|price| price.min(limit))
}

impl View {
    /// Tells the meters what happened to leases of a bid.
    pub(super) fn meter(
        &mut self,
        at: Timestamp,
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
        what: &Metered,
    ) {
        let (Some(bid), Some(place)) = (self.bids.get(&number), self.markets.get(&market)) else { return };
        let payer = bid.payer(number);
        match *what {
            Metered::Granted => {
                // A gang that was kept although the price is above its limit pays its limit.
                let limit = bid.effective_limit(&place.id).filter(|_| bid.min_quantity > 1);
                let rate = match order_price(bid, place) {
                    Some(price) => Rate::Flat(price.micros()),
                    None => limit.map_or(Rate::Market, |limit| Rate::Capped(limit.micros())),
                };
                self.billing.grant(at, number, leases, market, rate);
            }
            Metered::Ready => self.billing.ready(at, &payer, leases),
            Metered::Dead { since } => self.billing.dead(at, &payer, leases, since),
            Metered::Leaving { gone_at } => {
                let notice = -1_000_000 * i64::from(place.settings.notice_seconds);
                let cap = bid.highest_limit(&place.id, at.plus_micros(notice));
                self.billing.leave(at, &payer, leases, cap, gone_at);
            }
            Metered::Staying => self.billing.stay(at, &payer, leases),
            Metered::Over { ended } => self.billing.release(at, &payer, leases, ended),
        }
    }

    /// A bid's limits are other ones.
    pub(super) fn recap(&mut self, at: Timestamp, number: BidNumber) {
        let Some(bid) = self.bids.get(&number).filter(|bid| bid.leases.spans().len() > 0) else { return };
        let markets = &self.markets;
        if bid.on_demand {
            let place = bid.options.first().and_then(|option| self.market_names.get(&option.market));
            let price = place.and_then(|place| order_price(bid, markets.get(place)?));
            if let Some(price) = price {
                self.billing.reprice(at, &bid.payer(number), price);
            }
            return;
        }
        let limit = |market| bid.effective_limit(&markets.get(&market)?.id);
        self.billing.recap(at, &bid.payer(number), limit);
    }

    /// A market has another on-demand price.
    pub(super) fn price_orders(&mut self, at: Timestamp, market: MarketNumber) {
        let Some(place) = self.markets.get(&market) else { return };
        let names = |bid: &Bid| bid.on_demand && bid.limit_in(&place.id).is_some();
        let orders = self.bids.iter().filter(|(_, bid)| names(bid)).map(|(number, _)| number);
        for number in orders.collect::<Vec<_>>() {
            self.recap(at, number);
        }
    }

    /// A page of a tenant's bill for a month: lines and segments from the `after`-th on, at most `limit` and
    /// [`BILL_PAGE_MAX`] of each. The ledger's entries and the total are those of the whole bill.
    pub fn bill(&self, tenant: &TenantId, month: Month, after: usize, limit: usize) -> json::Bill {
        let numbers = self.numbers_of(tenant);
        let open = numbers.filter_map(|number| Some(self.bids.get(&number)?.payer(number)));
        let name = |market| self.markets.get(&market).map(|market| market.id.clone());
        let bill = self.billing.bill(self.as_of.at, tenant, month, open, name);
        let page = limit.clamp(1, BILL_PAGE_MAX);
        let end = after.saturating_add(page);
        let next = (bill.lines.len().max(bill.segments.len()) > end).then_some(end);
        let ledger = bill.entries(tenant);
        json::Bill {
            as_of: self.as_of,
            tenant: tenant.clone(),
            month: month.to_string(),
            from: month.start(),
            to: month.end(),
            is_final: bill.is_final,
            total: bill.total,
            ledger,
            lines: bill.lines.into_iter().skip(after).take(page).collect(),
            segments: bill.segments.into_iter().skip(after).take(page).collect(),
            next,
        }
    }

    /// A tenant's leases that are not over, of the bids after `after`, those of at most `limit` and [`super::PAGE_MAX`] bids.
    pub fn leases(&self, tenant: &TenantId, after: Option<BidNumber>, limit: usize) -> json::LeasePage {
        let json::Bids { as_of, bids, next } = self.bids(tenant, after, limit);
        let of_bid = |bid: json::Bid| {
            let json::Bid { bid, cluster, pool, leases, .. } = bid;
            leases.into_iter().map(move |leases| json::LeasesOfBid {
                bid: bid.clone(),
                cluster: cluster.clone(),
                pool: pool.clone(),
                leases,
            })
        };
        json::LeasePage { as_of, leases: bids.into_iter().flat_map(of_bid).collect(), next }
    }

    /// What a tenant's lease has cost, segment by segment, with the prices it is made of as far back as they are kept.
    /// Another tenant's lease looks exactly like one that does not exist.
    pub fn lease(&self, tenant: &TenantId, lease: LeaseNumber) -> Option<json::LeaseAlone> {
        let (number, held) = self.holder_of(tenant, lease)?;
        let bid = self.bids.get(&number)?;
        let segments = self.segments_of(number, lease);
        let settled: i128 = segments.iter().map(|(_, segment)| segment.charge.nanos()).sum();
        let alone = LeaseSpan { first: lease, units: 1 };
        let charged = match held {
            Some(_) => self.billing.charged(self.as_of.at, number, alone),
            None => settled,
        };
        let with_prices = |(market, segment): (MarketNumber, BillSegment)| json::LeaseSegment {
            prices: self.billing.price_parts(market, &segment),
            segment,
        };
        Some(json::LeaseAlone {
            as_of: self.as_of,
            lease,
            bid: bid.id.clone(),
            held: held.and_then(|span| self.leases_as_json(number, span)),
            charge: Charge::from_nanos(charged),
            segments: segments.into_iter().map(with_prices).collect(),
        })
    }

    /// The tenant's bid that has a lease, with its span, or that had it and paid for it.
    fn holder_of(&self, tenant: &TenantId, lease: LeaseNumber) -> Option<(BidNumber, Option<&Span>)> {
        let mut numbers = self.numbers_of(tenant);
        let span_of = |number: BidNumber| {
            let mut spans = self.bids.get(&number)?.leases.spans();
            spans.find(|span| span.leases().contains(lease)).map(|span| (number, Some(span)))
        };
        let paid = |number: &BidNumber| !self.segments_of(*number, lease).is_empty();
        let over = || self.numbers_of(tenant).find(paid).map(|number| (number, None));
        numbers.find_map(span_of).or_else(over)
    }

    fn segments_of(&self, number: BidNumber, lease: LeaseNumber) -> Vec<(MarketNumber, BillSegment)> {
        let Some(bid) = self.bids.get(&number) else { return Vec::new() };
        let name = |market| self.markets.get(&market).map(|market| market.id.clone());
        self.billing.segments_of(self.as_of.at, &bid.payer(number), lease, name)
    }

    /// What is wrong with the books, if anything is: for tests and the simulator.
    pub fn billing_fault(&self) -> Option<String> {
        self.billing.fault()
    }
}
