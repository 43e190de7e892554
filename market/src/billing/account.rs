//! What was settled: a tenant's account for each month, and the ledger that must agree with all of them.

use std::collections::BTreeMap;

use proto::market::{BidNumber, LeaseNumber, LeaseSpan, MarketNumber};
use proto::{BidId, ClusterId, PoolId, TenantId};
use serde::{Deserialize, Serialize};

use super::amount::Exact;
use super::meter::Piece;
use super::month::Month;

/// Segments that are kept one by one, of all tenants together; of more, those of the oldest months become sums.
pub const SEGMENTS_KEPT: usize = 1_000_000;
/// Months that are kept, the one that runs among them.
pub const MONTHS_KEPT: i32 = 25;

/// A piece of the time of consecutive leases: half-open, within one month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    first: LeaseNumber,
    pub(crate) units: u32,
    pub(crate) market: MarketNumber,
    pub(crate) piece: Piece,
}

impl Segment {
    pub(crate) const fn new(leases: LeaseSpan, market: MarketNumber, piece: Piece) -> Self {
        Self { first: leases.first, units: leases.units, market, piece }
    }

    pub(crate) const fn leases(&self) -> LeaseSpan {
        LeaseSpan { first: self.first, units: self.units }
    }

    /// What all its units cost.
    pub(crate) fn amount(&self) -> Exact {
        self.piece.amount * Exact::from(self.units)
    }

    /// Microseconds that are charged, of all its units.
    pub(crate) fn billed_microseconds(&self) -> u128 {
        let lasted = self.piece.to().micros_since(self.piece.from());
        if self.piece.basis.is_billed() {
            u128::from(lasted.unsigned_abs()) * u128::from(self.units)
        } else {
            0
        }
    }
}

/// Whom a segment is charged to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payer<'a> {
    pub(crate) number: BidNumber,
    pub(crate) tenant: &'a TenantId,
    pub(crate) bid: &'a BidId,
    pub(crate) cluster: &'a ClusterId,
    pub(crate) pool: &'a PoolId,
}

/// Segments of which only sums are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) segments: u64,
    pub(crate) amount: Exact,
    pub(crate) billed_microseconds: u128,
}

impl Sums {
    pub(crate) fn add(&mut self, segment: &Segment) {
        self.segments += 1;
        self.amount += segment.amount();
        self.billed_microseconds += segment.billed_microseconds();
    }
}

/// What one bid owes for a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BidAccount {
    pub(crate) bid: BidId,
    pub(crate) cluster: ClusterId,
    pub(crate) pool: PoolId,
    pub(crate) segments: Vec<Segment>,
    pub(crate) others: BTreeMap<MarketNumber, Sums>,
}

impl BidAccount {
    pub(crate) fn new(payer: &Payer<'_>) -> Self {
        Self {
            bid: payer.bid.clone(),
            cluster: payer.cluster.clone(),
            pool: payer.pool.clone(),
            segments: Vec::new(),
            others: BTreeMap::new(),
        }
    }
}

/// What one tenant owes for a month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) bids: BTreeMap<BidNumber, BidAccount>,
    segments: usize,
}

impl Account {
    fn add(&mut self, payer: &Payer<'_>, segment: Segment) {
        let bid = self.bids.entry(payer.number).or_insert_with(|| BidAccount::new(payer));
        bid.segments.push(segment);
        self.segments += 1;
    }

    /// Keeps sums instead of segments; says of how many.
    fn sum_up(&mut self) -> usize {
        for bid in self.bids.values_mut() {
            for segment in std::mem::take(&mut bid.segments) {
                bid.others.entry(segment.market).or_default().add(&segment);
            }
        }
        std::mem::take(&mut self.segments)
    }

    fn put_back(&mut self, number: BidNumber, part: BidAccount) {
        self.segments += part.segments.len();
        match self.bids.get_mut(&number) {
            Some(bid) => {
                bid.segments.extend(part.segments);
                bid.others.extend(part.others);
            }
            None => {
                self.bids.insert(number, part);
            }
        }
    }
}

/// Double entries: what tenants owe, and what markets have earned, by month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ledger {
    owed: BTreeMap<(Month, TenantId), Exact>,
    earned: BTreeMap<(Month, MarketNumber), Exact>,
}

impl Ledger {
    /// A tenant owes what a market has earned.
    fn post(&mut self, month: Month, tenant: &TenantId, market: MarketNumber, amount: Exact) {
        if amount == 0 {
            return;
        }
        *self.owed.entry((month, tenant.clone())).or_default() += amount;
        *self.earned.entry((month, market)).or_default() += amount;
    }

    fn forget_before(&mut self, month: Month) {
        self.owed.retain(|&(of, _), _| of >= month);
        self.earned.retain(|&(of, _), _| of >= month);
    }

    /// Debits and credits of a month.
    fn balance(&self, month: Month) -> (Exact, Exact) {
        let owed = self.owed.iter().filter(|((of, _), _)| *of == month).map(|(_, amount)| amount);
        let earned = self.earned.iter().filter(|((of, _), _)| *of == month).map(|(_, amount)| amount);
        (owed.sum(), earned.sum())
    }
}

/// All accounts, and the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) accounts: BTreeMap<(Month, TenantId), Account>,
    ledger: Ledger,
    /// Segments that are kept one by one.
    segments: usize,
}

impl Accounts {
    pub(crate) fn charge(&mut self, payer: &Payer<'_>, segment: Segment) {
        let month = Month::of(segment.piece.from());
        self.ledger.post(month, payer.tenant, segment.market, segment.amount());
        self.accounts.entry((month, payer.tenant.clone())).or_default().add(payer, segment);
        self.segments += 1;
        if self.segments > SEGMENTS_KEPT
            && let Some(oldest) = self.accounts.values_mut().find(|account| account.segments > 0)
        {
            self.segments -= oldest.sum_up();
        }
    }

    /// Keeps sums only.
    #[cfg(test)]
    pub(crate) fn sum_up_all(&mut self) {
        for account in self.accounts.values_mut() {
            self.segments -= account.sum_up();
        }
    }

    /// What a tenant owes for a month.
    pub(crate) fn of(&self, tenant: &TenantId, month: Month) -> Option<&Account> {
        self.accounts.get(&(month, tenant.clone()))
    }

    /// Puts back a part of what a bid owes, as when a snapshot is read.
    pub(crate) fn put_back(&mut self, tenant: TenantId, month: Month, number: BidNumber, part: BidAccount) {
        for segment in &part.segments {
            self.ledger.post(month, &tenant, segment.market, segment.amount());
        }
        for (&market, sums) in &part.others {
            self.ledger.post(month, &tenant, market, sums.amount);
        }
        self.segments += part.segments.len();
        self.accounts.entry((month, tenant)).or_default().put_back(number, part);
    }

    /// Lets go of what is older than [`MONTHS_KEPT`] months.
    pub(crate) fn forget(&mut self, now: Month) {
        let first = now.plus(1 - MONTHS_KEPT);
        self.accounts.retain(|&(month, _), _| month >= first);
        self.segments = self.accounts.values().map(|account| account.segments).sum();
        self.ledger.forget_before(first);
    }

    /// What is wrong with the books, if anything is: debits are credits, and what a tenant owes is the sum of its
    /// segments.
    pub(crate) fn fault(&self) -> Option<String> {
        let mut owed: BTreeMap<(Month, TenantId), Exact> = BTreeMap::new();
        let mut earned: BTreeMap<(Month, MarketNumber), Exact> = BTreeMap::new();
        for ((month, tenant), account) in &self.accounts {
            for bid in account.bids.values() {
                let segments = bid.segments.iter().map(|segment| (segment.market, segment.amount()));
                let others = bid.others.iter().map(|(&market, sums)| (market, sums.amount));
                for (market, amount) in segments.chain(others).filter(|&(_, amount)| amount != 0) {
                    *owed.entry((*month, tenant.clone())).or_default() += amount;
                    *earned.entry((*month, market)).or_default() += amount;
                }
            }
        }
        if owed != self.ledger.owed || earned != self.ledger.earned {
            return Some("the ledger is not what the accounts say".to_owned());
        }
        let months = self.ledger.earned.keys().map(|&(month, _)| month);
        months
            .map(|month| (month, self.ledger.balance(month)))
            .find(|(_, (debits, credits))| debits != credits)
            .map(|(month, (debits, credits))| format!("{month}: debits {debits}, credits {credits}"))
    }
}
