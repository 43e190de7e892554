//! Bids that are passed over (paradoxically rejected), as last told.

use std::collections::{BTreeMap, BTreeSet};

use proto::market::{BidNumber, MarketEvent, RoundNumber};

use super::super::Market;
use super::super::digest::{Kind, Sum, digest};

/// Bids passed over, with the units that they miss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct PassedOver {
    short_by: BTreeMap<BidNumber, u32>,
    pub(in super::super) sum: Sum,
}

fn digest_of(number: BidNumber, short_by: u32) -> u128 {
    digest(Kind::PassedOver, [number, u64::from(short_by)])
}

impl PassedOver {
    /// Sets how many units a bid misses; none: it is not passed over.
    pub(in super::super) fn set(&mut self, number: BidNumber, short_by: u32) {
        if let Some(before) = self.short_by.remove(&number) {
            self.sum.remove(digest_of(number, before));
        }
        if short_by > 0 {
            self.short_by.insert(number, short_by);
            self.sum.add(digest_of(number, short_by));
        }
    }

    /// By bid, how many units it misses.
    pub(in super::super) fn iter(&self) -> impl Iterator<Item = (BidNumber, u32)> + '_ {
        self.short_by.iter().map(|(&number, &short_by)| (number, short_by))
    }
}

impl Market {
    /// Tells which bids are passed over now and were not so, or by another number, and which are no longer.
    pub(in super::super) fn tell_passed_over(
        &mut self,
        passed: &[(BidNumber, u32)],
        round: RoundNumber,
        events: &mut Vec<MarketEvent>,
    ) {
        let passed: BTreeMap<BidNumber, u32> = passed.iter().copied().collect();
        let known: BTreeMap<BidNumber, u32> = self.passed_over.iter().collect();
        let numbers: BTreeSet<BidNumber> = passed.keys().chain(known.keys()).copied().collect();
        for number in numbers {
            let short_by = passed.get(&number).copied().unwrap_or(0);
            if short_by != known.get(&number).copied().unwrap_or(0) {
                events.push(MarketEvent::BidPassedOver { number, round, short_by });
                self.passed_over.set(number, short_by);
            }
        }
    }
}
