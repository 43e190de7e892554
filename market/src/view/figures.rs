//! What a view has for metrics: sums over the exchange and figures by market, nothing about one bid or tenant.

use std::collections::BTreeMap;

use proto::MarketId;
use proto::market::{MarketNumber, MarketSettings, Prices};

use super::View;

/// A market's figures for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures<'a> {
    /// Its name.
    pub id: &'a MarketId,
    /// What holds there.
    pub settings: &'a MarketSettings,
    /// What was last published.
    pub prices: &'a Prices,
}

impl View {
    /// The figures of one market.
    pub fn figures(&self, number: MarketNumber) -> Option<Figures<'_>> {
        let market = self.markets.get(&number)?;
        Some(Figures { id: &market.id, settings: &market.settings, prices: &market.prices })
    }

    /// The numbers of all markets.
    pub fn market_numbers(&self) -> impl Iterator<Item = MarketNumber> {
        self.markets.keys().copied()
    }

    /// How many bids stand. Looks at every bid.
    pub fn standing_bids(&self) -> usize {
        self.bids.values().filter(|bid| bid.end.is_none()).count()
    }

    /// How many units leave in each market where some do. Looks at every bid.
    pub fn leaving_by_market(&self) -> BTreeMap<MarketNumber, u64> {
        let mut leaving = BTreeMap::new();
        let spans = self.bids.values().flat_map(|bid| bid.leases.spans());
        for span in spans.filter(|span| span.leaving.is_some()) {
            *leaving.entry(span.market).or_insert(0) += u64::from(span.leases().units);
        }
        leaving
    }
}
