//! The leases of one exchange, as its events tell them.

use std::collections::{BTreeMap, BTreeSet};

use proto::envelope::EventBatch;
use proto::market::{
    BidNumber, LeaseNotice, LeaseNumber, LeaseSpan, MarketEvent, MarketNumber, RosterState, WorkerStand,
};
use proto::{ClusterId, MarketId, PoolId, SourceId, TenantId};

/// A batch cannot follow, because others are missing before it: the exchange's owner is to be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a roster at sequence {have} cannot go on with {got}")]
pub struct Gap {
    /// Up to where the roster has read.
    pub have: u64,
    /// Where the batch stands.
    pub got: u64,
}

/// A lease that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub bid: BidNumber,
    /// Where.
    pub market: MarketNumber,
    /// What the market knows of its worker.
    pub worker: WorkerStand,
    /// The notice it is under.
    pub notice: Option<LeaseNotice>,
}

/// Who holds the leases of a bid.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bid {
    tenant: TenantId,
    cluster: ClusterId,
    pool: PoolId,
    leases: u64,
    /// The market has forgotten it; so is it here, with its last lease.
    is_forgotten: bool,
}

/// Where leases are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Market {
    id: MarketId,
    sources: BTreeSet<SourceId>,
}

/// The leases of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    sequence: u64,
    next_lease: LeaseNumber,
    markets: BTreeMap<MarketNumber, Market>,
    bids: BTreeMap<BidNumber, Bid>,
    leases: BTreeMap<LeaseNumber, Lease>,
}

impl From<RosterState> for Roster {
    fn from(state: RosterState) -> Self {
        let markets = state.markets.into_iter();
        let markets = markets
            .map(|one| (one.number, Market { id: one.id, sources: one.sources.into_iter().collect() }));
        let mut roster = Self {
            sequence: state.sequence,
            next_lease: state.next_lease,
            markets: markets.collect(),
            bids: BTreeMap::new(),
            leases: BTreeMap::new(),
        };
        for bid in state.bids {
            let (tenant, cluster, pool) = (bid.tenant, bid.cluster, bid.pool);
            let held = Bid { tenant, cluster, pool, leases: 0, is_forgotten: false };
            roster.bids.insert(bid.number, held);
            for one in bid.leases {
                let lease =
                    Lease { bid: bid.number, market: one.market, worker: one.worker, notice: one.notice };
                roster.grant(one.leases, lease);
            }
        }
        roster
    }
}

impl Roster {
    /// Up to where in the exchange's stream it has read.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A lease that is not over.
    pub fn lease(&self, lease: LeaseNumber) -> Option<&Lease> {
        self.leases.get(&lease)
    }

    /// Whether a lease was ever granted, as far as this roster has read.
    pub const fn was_granted(&self, lease: LeaseNumber) -> bool {
        lease < self.next_lease
    }

    /// For whom a bid holds its leases: tenant, cluster, pool.
    pub fn holder(&self, bid: BidNumber) -> Option<(&TenantId, &ClusterId, &PoolId)> {
        self.bids.get(&bid).map(|bid| (&bid.tenant, &bid.cluster, &bid.pool))
    }

    /// A market's name.
    pub fn market(&self, market: MarketNumber) -> Option<&MarketId> {
        self.markets.get(&market).map(|market| &market.id)
    }

    /// Whether somebody has servers in a market.
    pub fn is_source(&self, market: MarketNumber, source: &SourceId) -> bool {
        self.markets.get(&market).is_some_and(|market| market.sources.contains(source))
    }

    /// Folds a batch. One that was folded already changes nothing.
    ///
    /// # Errors
    /// When batches are missing between the last one and this.
    pub fn follow(&mut self, batch: &EventBatch<MarketEvent>) -> Result<(), Gap> {
        if batch.sequence <= self.sequence {
            return Ok(());
        }
        if batch.sequence > self.sequence.saturating_add(1) {
            return Err(Gap { have: self.sequence, got: batch.sequence });
        }
        self.sequence = batch.sequence;
        for event in batch.entries.iter().flat_map(|entry| &entry.events) {
            self.apply(event);
        }
        Ok(())
    }

    /// Folds one event: total, because what happened cannot be refused.
    fn apply(&mut self, event: &MarketEvent) {
        match event {
            MarketEvent::BidPlaced { number, bid, .. } => {
                let (tenant, cluster, pool) = (bid.tenant.clone(), bid.cluster.clone(), bid.pool.clone());
                let bid = Bid { tenant, cluster, pool, leases: 0, is_forgotten: false };
                self.bids.insert(*number, bid);
            }
            MarketEvent::BidForgotten { number } => {
                if let Some(bid) = self.bids.get_mut(number) {
                    bid.is_forgotten = true;
                }
                self.drop_if_done(*number);
            }
            MarketEvent::MarketDefined { market, id, .. } => {
                let fresh = || Market { id: id.clone(), sources: BTreeSet::new() };
                self.markets.entry(*market).or_insert_with(fresh);
            }
            MarketEvent::SupplyChanged { market, source, .. } => {
                if let Some(market) = self.markets.get_mut(market) {
                    market.sources.insert(source.clone());
                }
            }
            MarketEvent::UnitsAwarded { number, market, leases, .. }
            | MarketEvent::UnitsMoved { number, market, leases, .. } => {
                let (bid, market) = (*number, *market);
                self.grant(*leases, Lease { bid, market, worker: WorkerStand::Booting, notice: None });
            }
            MarketEvent::NoticeGiven { leases, gone_at, reason, .. } => {
                let notice = LeaseNotice { gone_at: *gone_at, reason: *reason };
                self.change(*leases, |lease| lease.notice = Some(notice));
            }
            MarketEvent::NoticeWithdrawn { leases, .. } => {
                self.change(*leases, |lease| lease.notice = None);
            }
            MarketEvent::WorkersReady { leases, .. } => {
                self.change(*leases, |lease| lease.worker = WorkerStand::Ready);
            }
            MarketEvent::WorkersDead { leases, .. } => {
                self.change(*leases, |lease| lease.worker = WorkerStand::Dead);
            }
            MarketEvent::UnitsReleased { number, leases, .. } => self.release(*number, *leases),
            _ => {}
        }
    }

    fn grant(&mut self, leases: LeaseSpan, lease: Lease) {
        let Some(bid) = self.bids.get_mut(&lease.bid) else { return };
        bid.leases += u64::from(leases.units);
        self.leases.extend((leases.first..leases.end()).map(|number| (number, lease)));
        self.next_lease = self.next_lease.max(leases.end());
    }

    fn change(&mut self, leases: LeaseSpan, change: impl Fn(&mut Lease)) {
        self.leases.range_mut(leases.first..leases.end()).for_each(|(_, lease)| change(lease));
    }

    fn release(&mut self, number: BidNumber, leases: LeaseSpan) {
        let over: Vec<LeaseNumber> =
            self.leases.range(leases.first..leases.end()).map(|(lease, _)| *lease).collect();
        for lease in &over {
            self.leases.remove(lease);
        }
        if let Some(bid) = self.bids.get_mut(&number) {
            bid.leases = bid.leases.saturating_sub(over.len() as u64);
        }
        self.drop_if_done(number);
    }

    fn drop_if_done(&mut self, number: BidNumber) {
        if self.bids.get(&number).is_some_and(|bid| bid.is_forgotten && bid.leases == 0) {
            self.bids.remove(&number);
        }
    }
}
