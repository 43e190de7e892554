//! One bid as its events tell it.

use proto::machine::CommandKey;
use proto::market::{BidNumber, BidOption, BidState, PlaceBid, Terms};
use proto::{BidId, ClusterId, MarketId, PoolId, Price, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use super::leases::Leases;
use super::raw;
use crate::billing::Payer;

/// How a bid ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    Cancelled,
    Expired,
}

/// A market a bid would take units in. [`BidOption`] in a form that a snapshot can hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choice {
    pub(super) market: MarketId,
    #[serde(with = "raw::price")]
    pub(super) limit: Price,
    #[serde(with = "raw::price_option")]
    pub(super) running_limit: Option<Price>,
}

impl Choice {
    fn of(option: &BidOption) -> Self {
        let BidOption { market, limit, running_limit } = option;
        Self { market: market.clone(), limit: *limit, running_limit: *running_limit }
    }

    /// What a unit that holds a server is worth.
    fn effective(&self) -> Price {
        self.running_limit.unwrap_or(self.limit)
    }

    pub(super) fn option(&self) -> BidOption {
        BidOption { market: self.market.clone(), limit: self.limit, running_limit: self.running_limit }
    }
}

/// Limits that a bid had before and that still count; the oldest of more count a little longer.
const PAST_LIMITS_MAX: usize = 32;

/// The most a unit was worth to a bid in a market until an instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PastLimit {
    market: MarketId,
    #[serde(with = "raw::price")]
    limit: Price,
    #[serde(with = "raw::instant")]
    until: Timestamp,
}

fn effective(option: &BidOption) -> Price {
    option.running_limit.unwrap_or(option.limit)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bid {
    pub(super) id: BidId,
    pub(super) tenant: TenantId,
    pub(super) cluster: ClusterId,
    pub(super) pool: PoolId,
    pub(super) version: u32,
    pub(super) quantity: u32,
    pub(super) min_quantity: u32,
    /// Whether it is an on-demand order.
    pub(super) on_demand: bool,
    pub(super) options: Vec<Choice>,
    /// Higher limits it had, the latest last: what leaves pays up to the highest of the last notice.
    past_limits: Vec<PastLimit>,
    #[serde(with = "raw::instant_option")]
    pub(super) expires_at: Option<Timestamp>,
    #[serde(with = "raw::instant")]
    pub(super) placed_at: Timestamp,
    /// When its terms or its end last changed.
    #[serde(with = "raw::instant")]
    pub(super) changed_at: Timestamp,
    pub(super) end: Option<End>,
    /// Units it misses because gangs are cleared whole or not at all, though a limit of its beats the price.
    pub(super) short_by: u32,
    pub(super) leases: Leases,
}

impl Bid {
    pub(super) fn new(at: Timestamp, bid: &PlaceBid) -> Self {
        Self {
            id: bid.id.clone().into(),
            tenant: bid.tenant.clone(),
            cluster: bid.cluster.clone(),
            pool: bid.pool.clone(),
            version: 1,
            quantity: bid.quantity,
            min_quantity: bid.min_quantity,
            on_demand: bid.on_demand,
            options: bid.options.iter().map(Choice::of).collect(),
            past_limits: Vec::new(),
            expires_at: bid.expires_at,
            placed_at: at,
            changed_at: at,
            end: None,
            short_by: 0,
            leases: Leases::default(),
        }
    }

    pub(super) fn amend(&mut self, at: Timestamp, version: u32, terms: &Terms) {
        self.version = version;
        self.remember_limits(at, &terms.options);
        self.quantity = terms.quantity;
        self.min_quantity = terms.min_quantity;
        self.options = terms.options.iter().map(Choice::of).collect();
        self.expires_at = terms.expires_at;
        self.changed_at = at;
    }

    /// Keeps the limits that others replace, where those are not as high.
    fn remember_limits(&mut self, at: Timestamp, others: &[BidOption]) {
        // The longest notice there can be; of which market it is asked decides who leaves.
        let earliest = at.plus_micros(-1_000_000 * i64::from(crate::bounds::NOTICE_SECONDS_MAX));
        self.past_limits.retain(|past| past.until >= earliest);
        for option in &self.options {
            let limit = option.effective();
            let other = others.iter().find(|other| other.market == option.market).map(effective);
            if other.is_some_and(|other| other >= limit) {
                continue;
            }
            // What was lower before is outdone by this.
            self.past_limits.retain(|past| past.market != option.market || past.limit > limit);
            self.past_limits.push(PastLimit { market: option.market.clone(), limit, until: at });
        }
        while self.past_limits.len() > PAST_LIMITS_MAX {
            let oldest = self.past_limits.remove(0);
            if let Some(next) = self.past_limits.iter_mut().find(|past| past.market == oldest.market) {
                next.limit = next.limit.max(oldest.limit);
            }
        }
    }

    /// The highest effective limit that the bid had in a market since an instant.
    pub(super) fn highest_limit(&self, market: &MarketId, since: Timestamp) -> Price {
        let past = self.past_limits.iter().filter(|past| past.market == *market && past.until >= since);
        let now = self.options.iter().find(|option| option.market == *market).map(Choice::effective);
        past.map(|past| past.limit).chain(now).max().unwrap_or_default()
    }

    /// What a unit that holds a server in a market is worth to the bid.
    pub(super) fn effective_limit(&self, market: &MarketId) -> Option<Price> {
        self.options.iter().find(|option| option.market == *market).map(Choice::effective)
    }

    /// Its limit in a market that it names, for the figures about winners; an on-demand order is none.
    pub(super) fn limit_as_winner(&self, market: &MarketId) -> Option<Price> {
        self.limit_in(market).filter(|_| !self.on_demand)
    }

    /// Who is charged for its leases.
    pub(super) fn payer(&self, number: BidNumber) -> Payer<'_> {
        Payer { number, tenant: &self.tenant, bid: &self.id, cluster: &self.cluster, pool: &self.pool }
    }

    pub(super) fn end(&mut self, at: Timestamp, end: End) {
        self.end = Some(end);
        self.short_by = 0;
        self.changed_at = at;
    }

    /// The bid's tenant and id, hashed.
    pub(super) fn name(&self) -> CommandKey {
        CommandKey::of_tenant(&self.tenant, self.id.as_str())
    }

    /// The bid's limit in a market that it names.
    pub(super) fn limit_in(&self, market: &MarketId) -> Option<Price> {
        self.options.iter().find(|option| option.market == *market).map(|option| option.limit)
    }

    pub(super) fn state(&self) -> BidState {
        let winning = self.leases.winning();
        match self.end {
            Some(End::Cancelled) => BidState::Cancelled,
            Some(End::Expired) => BidState::Expired,
            None if winning >= self.quantity => BidState::Won,
            None if winning > 0 => BidState::PartlyWon,
            None if self.leases.leaving() > 0 => BidState::Losing,
            None => BidState::Queued,
        }
    }
}
