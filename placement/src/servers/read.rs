//! Servers as operators read them.

use std::collections::{BTreeMap, BTreeSet};

use proto::MarketId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Servers;

/// Servers and leases of one market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MarketServers {
    /// Which market.
    pub market: MarketId,
    /// Usable servers, leased or free.
    pub units: u32,
    /// Those that are free.
    pub free: u32,
    /// Leases that wait for a server.
    pub waiting: u32,
}

/// Servers and leases of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServersView {
    /// Markets in which servers were offered.
    pub markets: Vec<MarketServers>,
    /// Servers that go, and count in no market any more.
    pub leaving: u32,
    /// Leases that there are, served or not.
    pub leases: u32,
}

impl Servers {
    /// Counts of everything.
    pub fn view(&self) -> ServersView {
        let mut units: BTreeMap<u32, u32> = BTreeMap::new();
        for ((_, market), offer) in &self.offers {
            *units.entry(*market).or_insert(0) += offer.units;
        }
        let of = |(market, units): (&u32, &u32)| {
            let free = self.free.get(market).into_iter().flat_map(BTreeMap::values).map(BTreeSet::len);
            Some(MarketServers {
                market: self.markets.get(*market)?.clone(),
                units: *units,
                free: free.sum::<usize>() as u32,
                waiting: self.waiting.get(market).map_or(0, BTreeSet::len) as u32,
            })
        };
        let markets = units.iter().filter_map(of).collect();
        ServersView { markets, leaving: self.leaving.len() as u32, leases: self.leases.len() as u32 }
    }
}
