//! One market as its events tell it.

use std::collections::BTreeMap;

use proto::market::{MarketSettings, Prices, RoundNumber};
use proto::{MarketId, Price, TenantId, Timestamp};

use super::history::History;
use super::json::Percentiles;

/// With fewer winning tenants than this, percentiles of their limits are left out (DESIGN §5, rule 10).
///
/// A percentile of winners' limits *is* some winner's limit. With one winner it is published outright; with two,
/// each knows its own and so reads the other's; with few, a tenant that moves its own limit across the others and
/// watches which percentile moves finds them one by one. Five leaves room for the three figures and for the
/// tenant who looks, and a change of the figures can no longer be laid at one tenant's door. It is a floor under
/// the obvious, not a proof: against tenants who share what they see nothing published about limits is safe.
pub const PERCENTILE_TENANTS_MIN: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Market {
    pub(super) id: MarketId,
    pub(super) settings: MarketSettings,
    /// The round that last changed the figures, and when.
    pub(super) round: RoundNumber,
    pub(super) at: Timestamp,
    pub(super) prices: Prices,
    pub(super) history: History,
    pub(super) winners: Winners,
}

impl Market {
    pub(super) fn new(id: &MarketId, settings: &MarketSettings) -> Self {
        Self {
            id: id.clone(),
            settings: settings.clone(),
            round: 0,
            at: Timestamp::default(),
            prices: Prices { reserve: settings.reserve, ..Prices::default() },
            history: History::default(),
            winners: Winners::default(),
        }
    }

    pub(super) fn set_prices(&mut self, at: Timestamp, round: RoundNumber, prices: &Prices) {
        self.round = round;
        self.at = at;
        self.prices = *prices;
        self.history.record(at, prices);
    }
}

/// The winning units of a market by limit, and of whom they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Winners {
    limits: BTreeMap<Price, u64>,
    tenants: BTreeMap<TenantId, u64>,
    units: u64,
}

impl Winners {
    /// So many units more, or fewer, win at a limit of a tenant.
    pub(super) fn change(&mut self, tenant: &TenantId, limit: Price, units: i64) {
        if units == 0 {
            return;
        }
        add(&mut self.limits, &limit, units);
        add(&mut self.tenants, tenant, units);
        self.units = self.units.saturating_add_signed(units);
    }

    /// The limits that 20, 50 and 80 in a hundred of the units won do not exceed, by nearest rank: the least limit
    /// such that at least that share of the units has it or a lower one. None with fewer than
    /// [`PERCENTILE_TENANTS_MIN`] winning tenants. Costs a step per different limit.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        if self.tenants.len() < PERCENTILE_TENANTS_MIN {
            return None;
        }
        let at = |percent: u64| {
            let rank = u128::from(self.units) * u128::from(percent);
            let mut below = 0_u128;
            let found = self.limits.iter().find(|(_, units)| {
                below += u128::from(**units) * 100;
                below >= rank
            });
            found.map(|(limit, _)| *limit)
        };
        Some(Percentiles { p20: at(20)?, p50: at(50)?, p80: at(80)? })
    }
}

/// Adds to a count, and forgets it where it comes to nothing.
fn add<K: Ord + Clone>(counts: &mut BTreeMap<K, u64>, key: &K, units: i64) {
    if let Some(known) = counts.get_mut(key) {
        *known = known.saturating_add_signed(units);
        if *known == 0 {
            counts.remove(key);
        }
    } else if units > 0 {
        counts.insert(key.clone(), units.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn limit(text: &str) -> Price {
        text.parse().unwrap()
    }

    #[test]
    fn percentiles_weigh_units_and_need_five_tenants() {
        let mut winners = Winners::default();
        for (name, text, units) in
            [("a", "0.010", 1), ("b", "0.020", 1), ("c", "0.030", 7), ("d", "0.040", 1)]
        {
            winners.change(&tenant(name), limit(text), units);
        }
        assert_eq!(winners.percentiles(), None, "four tenants");
        winners.change(&tenant("e"), limit("0.050"), 0);
        assert_eq!(winners.percentiles(), None, "no unit is no tenant");
        winners.change(&tenant("e"), limit("0.050"), 10);
        let of = |p20, p50, p80| Some(Percentiles { p20: limit(p20), p50: limit(p50), p80: limit(p80) });
        assert_eq!(winners.percentiles(), of("0.030", "0.040", "0.050"));
        winners.change(&tenant("e"), limit("0.050"), -10);
        assert_eq!(winners.percentiles(), None, "a tenant that lost everything does not count");
    }

    #[test]
    fn what_comes_to_nothing_leaves_no_trace() {
        let mut winners = Winners::default();
        winners.change(&tenant("a"), limit("0.010"), 3);
        winners.change(&tenant("a"), limit("0.010"), -3);
        assert_eq!(winners, Winners::default());
    }
}
