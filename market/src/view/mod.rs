//! The market for reading: a fold of its events, kept by whoever answers questions and never by who decides.
//!
//! A tenant asks about its own bids only: every question about bids takes the tenant, and there is no other way in.
//! What is public about a market (prices, volumes, percentiles of winners' limits) is made so that nothing in it
//! can be traced to one tenant.

mod bid;
mod bills;
mod figures;
mod history;
pub mod json;
mod leases;
mod market;
mod names;
mod pages;
mod raw;
mod snapshot;
mod told;
pub mod transcript;
mod why;

use std::collections::{BTreeMap, BTreeSet};

use proto::envelope::EventBatch;
use proto::market::{BidNumber, LeaseSpan, MarketEvent, MarketNumber, ReleaseReason, RoundNumber, Rules};
use proto::{MarketId, TenantId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::bid::{Bid, End};
pub use self::bills::BILL_PAGE_MAX;
use self::bills::Metered;
pub use self::figures::Figures;
pub use self::history::{CHANGES_KEPT, HOURS_KEPT, MINUTES_KEPT};
use self::leases::{Leaving, Worker};
use self::market::Market;
pub use self::market::PERCENTILE_TENANTS_MIN;
use self::names::Names;
pub use self::pages::{LEASES_PER_PAGE_MAX, PAGE_MAX};
pub use self::snapshot::{SnapshotError, VERSION};
pub use self::told::Told;
use crate::billing::Billing;
use crate::blocks::Blocks;

/// Up to where a view has read: what it says was true then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct AsOf {
    /// Place in the exchange's stream.
    pub sequence: u64,
    /// The instant of what stands there.
    pub at: Timestamp,
}

/// A batch cannot follow: others are missing before it. The reader asks for a snapshot, or for what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a view at sequence {have} cannot go on with {got}")]
pub struct Gap {
    /// Up to where the view has read.
    pub have: u64,
    /// Where the batch stands.
    pub got: u64,
}

/// An exchange as its events tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    as_of: AsOf,
    round: RoundNumber,
    rules: Rules,
    markets: BTreeMap<MarketNumber, Market>,
    market_names: BTreeMap<MarketId, MarketNumber>,
    bids: Blocks<BidNumber, Bid>,
    /// Bids by tenant and id, hashed.
    names: Names,
    tenants: BTreeMap<TenantId, Tenant>,
    billing: Billing,
}

/// A tenant that has bids.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tenant {
    /// As all its bids share it.
    id: TenantId,
    bids: BTreeSet<BidNumber>,
}

impl View {
    /// A view before the first event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Up to where the view has read.
    pub const fn as_of(&self) -> AsOf {
        self.as_of
    }

    /// The last round.
    pub const fn round(&self) -> RoundNumber {
        self.round
    }

    /// What holds for the whole exchange.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// All events of a batch are folded; there may have been none.
    pub fn settle(&mut self, at: Timestamp, sequence: u64) {
        self.billing.advance(at);
        self.as_of = AsOf { sequence, at };
    }

    /// Folds a whole batch. One that was folded already changes nothing, so that a reader may tail from anywhere
    /// before its snapshot.
    ///
    /// # Errors
    /// When batches are missing between the last one and this.
    pub fn apply_batch(&mut self, batch: &EventBatch<MarketEvent>) -> Result<(), Gap> {
        if batch.sequence <= self.as_of.sequence {
            return Ok(());
        }
        if batch.sequence > self.as_of.sequence.saturating_add(1) {
            return Err(Gap { have: self.as_of.sequence, got: batch.sequence });
        }
        self.settle(batch.at, batch.sequence);
        for event in batch.entries.iter().flat_map(|entry| &entry.events) {
            self.apply(batch.at, batch.sequence, event);
        }
        Ok(())
    }

    /// Folds one event: total, because an event that happened cannot be refused. What names a bid, market or
    /// lease that this view has not been told of changes nothing.
    pub fn apply(&mut self, at: Timestamp, sequence: u64, event: &MarketEvent) {
        self.settle(at, sequence);
        match event {
            MarketEvent::BidPlaced { number, bid, .. } => {
                let placed = self.share(*number, Bid::new(at, bid));
                self.names.insert(bid.key, *number);
                self.bids.insert(*number, placed);
            }
            MarketEvent::BidAmended { number, version, amendment } => {
                self.reweigh(*number, |bid| bid.amend(at, *version, &amendment.terms));
                self.recap(at, *number);
            }
            MarketEvent::BidCancelled { number } => self.end(at, *number, End::Cancelled),
            MarketEvent::BidExpired { number } => self.end(at, *number, End::Expired),
            MarketEvent::BidForgotten { number } => self.forget(*number),
            MarketEvent::MarketDefined { market, id, settings } => {
                self.market_names.insert(id.clone(), *market);
                let entry = self.markets.entry(*market).or_insert_with(|| Market::new(id, settings));
                let is_priced_anew = entry.settings.on_demand_price != settings.on_demand_price;
                entry.settings = settings.clone();
                if is_priced_anew {
                    self.price_orders(at, *market);
                }
            }
            MarketEvent::RulesAdopted { rules } => self.rules = rules.clone(),
            MarketEvent::UnitsAwarded { number, market, leases, round, available_by }
            | MarketEvent::UnitsMoved { number, market, leases, round, available_by, .. } => {
                self.change(*number, *market, |bid| {
                    bid.leases.award(*leases, *market, *round, *available_by)
                });
                self.meter(at, *number, *market, *leases, &Metered::Granted);
            }
            MarketEvent::NoticeGiven { number, market, leases, round, gone_at, reason, kept_by } => {
                let leaving =
                    Leaving { gone_at: *gone_at, reason: *reason, round: *round, kept_by: *kept_by };
                self.change(*number, *market, |bid| bid.leases.leave(*leases, leaving));
                self.meter(at, *number, *market, *leases, &Metered::Leaving { gone_at: *gone_at });
            }
            MarketEvent::NoticeWithdrawn { number, market, leases, .. } => {
                self.change(*number, *market, |bid| bid.leases.stay(*leases));
                self.meter(at, *number, *market, *leases, &Metered::Staying);
            }
            MarketEvent::UnitsDelayed { number, leases, available_by, .. } => {
                if let Some(bid) = self.bids.get_mut(number) {
                    bid.leases.delay(*leases, *available_by);
                }
            }
            MarketEvent::WorkersReady { number, market, leases } => {
                self.set_worker(*number, *leases, Worker::Ready);
                self.meter(at, *number, *market, *leases, &Metered::Ready);
            }
            MarketEvent::WorkersDead { number, market, leases, since } => {
                self.set_worker(*number, *leases, Worker::Dead);
                self.meter(at, *number, *market, *leases, &Metered::Dead { since: *since });
            }
            MarketEvent::UnitsReleased { number, market, leases, reason } => {
                self.change(*number, *market, |bid| bid.leases.release(*leases));
                let ended = (*reason == ReleaseReason::ServerLost).then_some(at);
                self.meter(at, *number, *market, *leases, &Metered::Over { ended });
            }
            MarketEvent::PriceChanged { market, round, prices } => {
                self.billing.set_price(at, *market, prices.price);
                if let Some(market) = self.markets.get_mut(market) {
                    market.set_prices(at, *round, prices);
                }
            }
            MarketEvent::BidPassedOver { number, short_by, .. } => {
                if let Some(bid) = self.bids.get_mut(number) {
                    bid.short_by = *short_by;
                }
            }
            MarketEvent::RoundClosed { round } => self.round = *round,
            MarketEvent::CommandRefused(_)
            | MarketEvent::NoticeAcknowledged { .. }
            | MarketEvent::SupplyChanged { .. }
            | MarketEvent::TrustAdopted { .. } => {}
        }
    }

    /// Enters a bid with its tenant, and makes it share the texts that many bids have.
    fn share(&mut self, number: BidNumber, mut bid: Bid) -> Bid {
        for option in &mut bid.options {
            if let Some((id, _)) = self.market_names.get_key_value(&option.market) {
                option.market = id.clone();
            }
        }
        if let Some(tenant) = self.tenants.get_mut(&bid.tenant) {
            tenant.bids.insert(number);
            bid.tenant = tenant.id.clone();
        } else {
            let tenant = Tenant { id: bid.tenant.clone(), bids: BTreeSet::from([number]) };
            self.tenants.insert(bid.tenant.clone(), tenant);
        }
        bid
    }

    fn end(&mut self, at: Timestamp, number: BidNumber, end: End) {
        if let Some(bid) = self.bids.get_mut(&number) {
            bid.end(at, end);
        }
    }

    fn forget(&mut self, number: BidNumber) {
        self.reweigh(number, |bid| bid.options.clear());
        let Some(bid) = self.bids.remove(&number) else {
            return;
        };
        self.names.remove(bid.name(), number);
        if let Some(tenant) = self.tenants.get_mut(&bid.tenant) {
            tenant.bids.remove(&number);
            if tenant.bids.is_empty() {
                self.tenants.remove(&bid.tenant);
            }
        }
    }

    /// The numbers of a tenant's bids, in order.
    fn numbers_of(&self, tenant: &TenantId) -> impl Iterator<Item = BidNumber> {
        self.tenants.get(tenant).into_iter().flat_map(|tenant| tenant.bids.iter().copied())
    }

    /// Changes the leases of a bid in one market and keeps the market's winners in step: `change` says by how many
    /// units the bid's winning ones there grew.
    fn change(&mut self, number: BidNumber, market: MarketNumber, change: impl FnOnce(&mut Bid) -> i64) {
        let (Some(bid), Some(market)) = (self.bids.get_mut(&number), self.markets.get_mut(&market)) else {
            return;
        };
        let grown = change(bid);
        if let Some(limit) = bid.limit_as_winner(&market.id) {
            market.winners.change(&bid.tenant, limit, grown);
        }
    }

    fn set_worker(&mut self, number: BidNumber, leases: LeaseSpan, worker: Worker) {
        if let Some(bid) = self.bids.get_mut(&number) {
            bid.leases.set_worker(leases, worker);
        }
    }

    /// Changes the terms of a bid and with them what its winning units weigh at which limit.
    fn reweigh(&mut self, number: BidNumber, change: impl FnOnce(&mut Bid)) {
        let Some(bid) = self.bids.get_mut(&number) else {
            return;
        };
        weigh(&mut self.markets, bid, -1);
        change(bid);
        weigh(&mut self.markets, bid, 1);
    }

    /// How many units of a bid win and how many leave, and the leases themselves: for checking this fold against
    /// the machine. A tenant's questions go through [`View::bid`].
    pub fn units_of(&self, number: BidNumber) -> Option<(u32, u32)> {
        self.bids.get(&number).map(|bid| (bid.leases.winning(), bid.leases.leaving()))
    }

    /// Every lease of a bid as its span and whether it leaves; see [`View::units_of`].
    pub fn leases_of(&self, number: BidNumber) -> impl Iterator<Item = (LeaseSpan, bool)> {
        let spans = self.bids.get(&number).into_iter().flat_map(|bid| bid.leases.spans());
        spans.map(|span| (span.leases(), span.leaving.is_some()))
    }

    /// Numbers of all bids known, in order.
    pub fn numbers(&self) -> impl Iterator<Item = BidNumber> {
        self.bids.keys()
    }
}

/// Adds what a bid wins to its markets' winners, `sign` times.
fn weigh(markets: &mut BTreeMap<MarketNumber, Market>, bid: &Bid, sign: i64) {
    for (number, units) in bid.leases.winning_by_market() {
        let Some(market) = markets.get_mut(&number) else {
            continue;
        };
        if let Some(limit) = bid.limit_as_winner(&market.id) {
            market.winners.change(&bid.tenant, limit, sign * i64::from(units));
        }
    }
}
