//! What must always hold of servers and leases.

use std::collections::BTreeMap;

use super::{Lease, Servers};

impl Servers {
    /// Checks everything; what is kept beside the records must be what they say.
    ///
    /// # Errors
    /// The first thing that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        for (number, server) in &self.servers {
            let served = server.lease.and_then(|key| self.leases.get(&key));
            if server.lease.is_some() && served.and_then(|lease| lease.server) != Some(*number) {
                return Err(format!("server {number} has a lease that knows nothing of it: {server:?}"));
            }
            if served.is_some_and(|lease| lease.market != server.market) {
                return Err(format!("server {number} serves a lease of another market"));
            }
        }
        for (key, lease) in &self.leases {
            let has = lease.server.map(|number| self.servers.get(&number).and_then(|server| server.lease));
            if has.is_some_and(|has| has != Some(*key)) {
                return Err(format!("lease {key:?} has a server that knows nothing of it"));
            }
            let waits =
                self.waiting.get(&lease.market).is_some_and(|line| line.contains(&(lease.turn, *key)));
            if waits != lease.waits() {
                return Err(format!("lease {key:?} waits: {waits}, and is {lease:?}"));
            }
        }
        let waiting: usize = self.waiting.values().map(std::collections::BTreeSet::len).sum();
        if waiting != self.leases.values().filter(|lease| Lease::waits(lease)).count() {
            return Err("a lease waits that there is not".to_owned());
        }
        if let Some(market) = self.waiting.keys().find(|market| self.free.contains_key(market)) {
            return Err(format!("in market {market} somebody waits while a server is free"));
        }
        self.check_counts()
    }

    fn check_counts(&self) -> Result<(), String> {
        let mut units: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for server in self.servers.values().filter(|server| server.gone_at.is_none()) {
            *units.entry((server.hypervisor, server.market)).or_insert(0) += 1;
        }
        for (key, offer) in &self.offers {
            if units.get(key).copied().unwrap_or(0) != offer.units {
                return Err(format!("offer {key:?} is {offer:?}, and has {:?} servers", units.get(key)));
            }
            let is_told = offer.told == offer.units && offer.generation > 0;
            if !is_told && self.exchange_of.contains_key(&key.1) && !self.dirty_offers.contains(key) {
                return Err(format!("offer {key:?} is {offer:?}, and its exchange was not told"));
            }
        }
        let anew = Self::restored(self.saved());
        if (anew.sum(), &anew.free, &anew.waiting) != (self.sum(), &self.free, &self.waiting) {
            return Err("sum, free servers or lines are not what the records say".to_owned());
        }
        if (&anew.held, &anew.leaving) != (&self.held, &self.leaving) {
            return Err("counts of tenants or leaving servers are not what the records say".to_owned());
        }
        Ok(())
    }
}
