//! What one event means to those whom it concerns, told with the names that a view knows.

use proto::market::{
    Answer, Awarded, BidNumber, Delayed, Died, Expired, MarketEvent, MarketNumber, MarketReport, Noticed,
    Readied, Released, Withdrawn,
};
use proto::{MarketId, Price, TenantId, Timestamp};

use super::View;
use super::bid::Bid;
use super::bills::order_price;

/// Something told to those whom it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// To everybody.
    Everybody(MarketReport),
    /// To one tenant.
    Tenant(TenantId, Answer),
}

impl View {
    /// What an event that was just folded means to others; nothing for what concerns only its sender.
    pub fn told(&self, at: Timestamp, event: &MarketEvent) -> Option<Told> {
        match event {
            MarketEvent::PriceChanged { market, round, prices } => {
                let market = self.markets.get(market)?.id.clone();
                Some(Told::Everybody(MarketReport { market, round: *round, at, prices: *prices }))
            }
            MarketEvent::UnitsAwarded { number, market, leases, round, available_by }
            | MarketEvent::UnitsMoved { number, market, leases, round, available_by, .. } => {
                let (leases, round, available_by) = (*leases, *round, *available_by);
                self.own(*number, *market, |bid, market, price| {
                    let (tenant, id) = (bid.tenant.clone(), bid.id.clone());
                    let (cluster, pool) = (bid.cluster.clone(), bid.pool.clone());
                    let limit = bid.limit_in(&market);
                    Answer::Awarded(Awarded {
                        tenant,
                        bid: id,
                        cluster,
                        pool,
                        market,
                        leases,
                        round,
                        limit,
                        price,
                        available_by,
                    })
                })
            }
            MarketEvent::NoticeGiven { number, market, leases, round, gone_at, reason, kept_by } => {
                let (leases, round, gone_at, reason, kept_by) =
                    (*leases, *round, *gone_at, *reason, *kept_by);
                self.own(*number, *market, |bid, market, price| {
                    let (tenant, id) = (bid.tenant.clone(), bid.id.clone());
                    let (cluster, pool) = (bid.cluster.clone(), bid.pool.clone());
                    let limit = bid.limit_in(&market);
                    Answer::NoticeGiven(Noticed {
                        tenant,
                        bid: id,
                        cluster,
                        pool,
                        market,
                        leases,
                        round,
                        gone_at,
                        reason,
                        limit,
                        price,
                        kept_by,
                    })
                })
            }
            MarketEvent::UnitsDelayed { number, market, leases, round, available_by } => {
                let (leases, round, available_by) = (*leases, *round, *available_by);
                self.own(*number, *market, |bid, market, _| {
                    let (tenant, bid) = (bid.tenant.clone(), bid.id.clone());
                    Answer::Delayed(Delayed { tenant, bid, market, leases, round, available_by })
                })
            }
            MarketEvent::NoticeWithdrawn { number, market, leases, round } => {
                let (leases, round) = (*leases, *round);
                self.own(*number, *market, |bid, market, _| {
                    let (tenant, bid) = (bid.tenant.clone(), bid.id.clone());
                    Answer::NoticeWithdrawn(Withdrawn { tenant, bid, market, leases, round })
                })
            }
            MarketEvent::UnitsReleased { number, market, leases, reason } => {
                let (leases, reason) = (*leases, *reason);
                self.own(*number, *market, |bid, market, _| {
                    let (tenant, bid) = (bid.tenant.clone(), bid.id.clone());
                    Answer::Released(Released { tenant, bid, market, leases, reason })
                })
            }
            MarketEvent::BidExpired { number } => {
                let bid = self.bids.get(number)?;
                let expired = Expired { tenant: bid.tenant.clone(), bid: bid.id.clone() };
                Some(Told::Tenant(bid.tenant.clone(), Answer::Expired(expired)))
            }
            other => self.told_of_workers(other),
        }
    }

    fn told_of_workers(&self, event: &MarketEvent) -> Option<Told> {
        match event {
            MarketEvent::WorkersReady { number, market, leases } => {
                let leases = *leases;
                self.own(*number, *market, |bid, market, _| {
                    let (tenant, bid) = (bid.tenant.clone(), bid.id.clone());
                    Answer::Ready(Readied { tenant, bid, market, leases })
                })
            }
            MarketEvent::WorkersDead { number, market, leases, since } => {
                let (leases, since) = (*leases, *since);
                self.own(*number, *market, |bid, market, _| {
                    let (tenant, bid) = (bid.tenant.clone(), bid.id.clone());
                    Answer::Dead(Died { tenant, bid, market, leases, since })
                })
            }
            _ => None,
        }
    }

    fn own(
        &self,
        number: BidNumber,
        market: MarketNumber,
        answer: impl FnOnce(&Bid, MarketId, Option<Price>) -> Answer,
    ) -> Option<Told> {
        let bid = self.bids.get(&number)?;
        let market = self.markets.get(&market)?;
        let price = if bid.on_demand { order_price(bid, market) } else { market.prices.price };
        Some(Told::Tenant(bid.tenant.clone(), answer(bid, market.id.clone(), price)))
    }
}
