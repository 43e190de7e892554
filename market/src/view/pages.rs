//! Answers to readers, in pages of bounded size and in an order that stays.

use std::ops::Bound;

use proto::machine::CommandKey;
use proto::market::BidNumber;
use proto::{BidId, Charge, MarketId, TenantId, Timestamp};

use super::bid::End;
use super::leases::Span;
use super::transcript::{ActKind, Acts};
use super::{View, bid, history, json, market};

/// Most entries of one page.
pub const PAGE_MAX: usize = 1_000;
/// A page of bids ends early when so many spans of leases are on it.
pub const LEASES_PER_PAGE_MAX: usize = 10_000;

/// How many entries a page has that was asked for with `limit`.
fn page(limit: usize) -> usize {
    limit.clamp(1, PAGE_MAX)
}

impl View {
    /// A tenant's bids in the order in which they were placed, from the one after `after` on, at most `limit` and
    /// [`PAGE_MAX`] of them. Ended bids are among them until the exchange forgets them. A tenant nobody knows has
    /// none, which is all that another tenant can learn of it.
    pub fn bids(&self, tenant: &TenantId, after: Option<BidNumber>, limit: usize) -> json::Bids {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut numbers = self
            .tenants
            .get(tenant)
            .into_iter()
            .flat_map(|all| all.bids.range((after, Bound::Unbounded)))
            .peekable();
        let mut bids = Vec::new();
        let (mut last, mut spans) = (None, 0);
        while bids.len() < page(limit)
            && spans < LEASES_PER_PAGE_MAX
            && let Some(number) = numbers.next()
        {
            let Some(bid) = self.bids.get(number) else {
                continue;
            };
            spans += bid.leases.spans().len();
            bids.push(self.bid_as_json(*number, bid));
            last = Some(*number);
        }
        let next = numbers.peek().and(last);
        json::Bids { as_of: self.as_of, bids, next }
    }

    /// One bid of a tenant. Another tenant's bid looks exactly like one that does not exist.
    pub fn bid(&self, tenant: &TenantId, id: &BidId) -> Option<json::BidAlone> {
        let (number, bid) = self.find(tenant, id)?;
        Some(json::BidAlone { as_of: self.as_of, bid: self.bid_as_json(number, bid) })
    }

    /// What a tenant did with one of its bids, in numbers, for opening the transcript's commitments to it.
    pub fn acts(&self, tenant: &TenantId, id: &BidId) -> Option<Acts> {
        let (number, bid) = self.find(tenant, id)?;
        let end = bid.end.map(|end| match end {
            End::Cancelled => ActKind::Cancelled,
            End::Expired => ActKind::Expired,
        });
        Some(Acts { number, version: bid.version, end })
    }

    pub(super) fn find(&self, tenant: &TenantId, id: &BidId) -> Option<(BidNumber, &bid::Bid)> {
        // The key is a hash: what it found is compared before it is shown.
        let is_it = |bid: &bid::Bid| bid.tenant == *tenant && bid.id == *id;
        let name = CommandKey::of_tenant(tenant, id.as_str());
        let number = self.names.find(name, |number| self.bids.get(&number).is_some_and(is_it))?;
        Some((number, self.bids.get(&number)?))
    }

    /// The markets by name, from the one after `after` on, at most `limit` and [`PAGE_MAX`] of them.
    pub fn markets(&self, after: Option<&MarketId>, limit: usize) -> json::Markets {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut names = self.market_names.range::<MarketId, _>((after, Bound::Unbounded)).peekable();
        let mut markets = Vec::new();
        while markets.len() < page(limit)
            && let Some((_, number)) = names.next()
        {
            markets.extend(self.markets.get(number).map(market_as_json));
        }
        let next = names.peek().and(markets.last()).map(|last| last.market.clone());
        json::Markets { as_of: self.as_of, markets, next }
    }

    /// One market.
    pub fn market(&self, id: &MarketId) -> Option<json::MarketAlone> {
        let market = self.markets.get(self.market_names.get(id)?)?;
        Some(json::MarketAlone { as_of: self.as_of, market: market_as_json(market) })
    }

    /// A market's past from what held at `from` on (or from the beginning), at most `limit` and [`PAGE_MAX`] points.
    /// The further back, the more changes are put together into one point, which then tells their range.
    pub fn history(&self, id: &MarketId, from: Option<Timestamp>, limit: usize) -> Option<json::History> {
        let market = self.markets.get(self.market_names.get(id)?)?;
        let mut past = market.history.since(from.unwrap_or(Timestamp::MIN));
        let points = past.by_ref().take(page(limit)).map(point_as_json).collect();
        let next = past.next().map(|point| point.at);
        Some(json::History { as_of: self.as_of, market: id.clone(), points, next })
    }

    fn bid_as_json(&self, number: BidNumber, bid: &bid::Bid) -> json::Bid {
        let spans = || bid.leases.spans();
        let waits = |span: &&Span| span.state(self.as_of.at) == json::LeaseState::Granted;
        let winning = bid.leases.winning();
        let queued = if bid.end.is_some() { 0 } else { bid.quantity.saturating_sub(winning) };
        json::Bid {
            bid: bid.id.clone(),
            tenant: bid.tenant.clone(),
            cluster: bid.cluster.clone(),
            pool: bid.pool.clone(),
            state: bid.state(),
            version: bid.version,
            quantity: bid.quantity,
            min_quantity: bid.min_quantity,
            on_demand: bid.on_demand,
            options: bid.options.iter().map(bid::Choice::option).collect(),
            expires_at: bid.expires_at,
            placed_at: bid.placed_at,
            changed_at: bid.changed_at,
            short_by: (bid.short_by > 0).then_some(bid.short_by),
            units: json::Units {
                winning,
                waiting: spans().filter(waits).map(|span| span.leases().units).sum(),
                queued,
                leaving: bid.leases.leaving(),
            },
            leases: spans().filter_map(|span| self.leases_as_json(number, span)).collect(),
        }
    }

    pub(super) fn leases_as_json(&self, number: BidNumber, span: &Span) -> Option<json::Leases> {
        let market = &self.markets.get(&span.market)?.id;
        let leases = span.leases();
        Some(json::Leases {
            first: leases.first,
            units: leases.units,
            market: market.clone(),
            round: span.round,
            available_by: span.available_by,
            notice: span.leaving.map(|leaving| json::Notice {
                gone_at: leaving.gone_at,
                reason: leaving.reason,
                round: leaving.round,
                kept_by: leaving.kept_by,
            }),
            state: span.state(self.as_of.at),
            charge: Charge::from_nanos(self.billing.charged(self.as_of.at, number, leases)),
        })
    }
}

fn market_as_json(market: &market::Market) -> json::Market {
    json::Market {
        market: market.id.clone(),
        resources: None,
        settings: market.settings.clone(),
        round: market.round,
        at: market.at,
        prices: market.prices,
        percentiles: market.winners.percentiles(),
    }
}

fn point_as_json(point: &history::Point) -> json::Point {
    // A range that is one price says nothing that the price does not.
    let (low, high) = if (point.low, point.high) == (point.price, point.price) {
        (None, None)
    } else {
        (point.low, point.high)
    };
    json::Point {
        at: point.at,
        price: point.price,
        lowest_winning_bid: point.lowest_winning_bid,
        reserve: point.reserve,
        low,
        high,
    }
}
