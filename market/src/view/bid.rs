//! One bid as its events tell it.

use proto::machine::CommandKey;
use proto::market::{BidOption, BidState, PlaceBid, Terms};
use proto::{BidId, ClusterId, MarketId, PoolId, Price, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use super::leases::Leases;
use super::raw;

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

    pub(super) fn option(&self) -> BidOption {
        BidOption { market: self.market.clone(), limit: self.limit, running_limit: self.running_limit }
    }
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
    pub(super) options: Vec<Choice>,
    #[serde(with = "raw::instant_option")]
    pub(super) expires_at: Option<Timestamp>,
    #[serde(with = "raw::instant")]
    pub(super) placed_at: Timestamp,
    /// When its terms or its end last changed.
    #[serde(with = "raw::instant")]
    pub(super) changed_at: Timestamp,
    pub(super) end: Option<End>,
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
            options: bid.options.iter().map(Choice::of).collect(),
            expires_at: bid.expires_at,
            placed_at: at,
            changed_at: at,
            end: None,
            leases: Leases::default(),
        }
    }

    pub(super) fn amend(&mut self, at: Timestamp, version: u32, terms: &Terms) {
        self.version = version;
        self.quantity = terms.quantity;
        self.min_quantity = terms.min_quantity;
        self.options = terms.options.iter().map(Choice::of).collect();
        self.expires_at = terms.expires_at;
        self.changed_at = at;
    }

    pub(super) fn end(&mut self, at: Timestamp, end: End) {
        self.end = Some(end);
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
