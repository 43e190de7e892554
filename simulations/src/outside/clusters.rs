//! Tenants that ask for clusters, change their minds, and give them up again.

use proto::machine::{Role, Sender};
use proto::placement::{
    Availability, ClusterTerms, CreateCluster, DeleteCluster, KubernetesVersion, PlacementCommand,
};
use proto::{ClusterId, CommandId, PrincipalId, RegionName, TenantId, Timestamp};

use crate::chance::Chance;

/// Between two wishes, in milliseconds.
const INTERVAL_MILLISECONDS: u64 = 15_000;
/// Wishes at the beginning, one quickly after the other.
const OPENING: u64 = 6;
/// Between two of those, in milliseconds.
const OPENING_MILLISECONDS: u64 = 500;
/// Clusters that one tenant has at most.
const CLUSTERS_PER_TENANT: u64 = 2;
/// Of so many thousandths of wishes for a cluster that is there, it is given up.
const LEAVES_PERMILLE: u64 = 400;
/// Versions that are asked for, the newest last.
const MINORS: [u16; 3] = [34, 35, 36];

/// Wishes of several tenants, by chance from a seed.
#[derive(Clone, Debug)]
pub struct Clusters {
    principal: PrincipalId,
    tenants: Vec<TenantId>,
    regions: Vec<RegionName>,
    run: String,
    /// By tenant and number whether it was asked for, and not given up since.
    wanted: Vec<bool>,
    wishes: u64,
    next_at: Timestamp,
    chance: Chance,
}

impl Clusters {
    /// Wishes of these tenants, with workers in these regions. `run` tells ids of one run from those of another.
    pub fn new(
        principal: PrincipalId,
        tenants: Vec<TenantId>,
        regions: Vec<RegionName>,
        run: &str,
        now: Timestamp,
        chance: Chance,
    ) -> Self {
        let wanted = vec![false; tenants.len() * CLUSTERS_PER_TENANT as usize];
        Self { principal, tenants, regions, run: run.to_owned(), wanted, wishes: 0, next_at: now, chance }
    }

    /// Who speaks: somebody trusted for all tenants.
    pub fn sender(&self) -> Sender {
        Sender { role: Role::Operator, principal: self.principal.clone() }
    }

    /// When there is something to do next.
    pub fn next_at(&self) -> Timestamp {
        self.next_at
    }

    /// What is wished by now. What an earlier run left behind is wished again, which is refused and harms nobody.
    pub fn act(&mut self, now: Timestamp) -> Option<PlacementCommand> {
        if now < self.next_at || self.wanted.is_empty() {
            return None;
        }
        self.wishes += 1;
        let pause = if self.wishes < OPENING { OPENING_MILLISECONDS } else { INTERVAL_MILLISECONDS };
        self.next_at = now.plus_micros(self.chance.between(pause / 2, pause * 3 / 2) as i64 * 1_000);
        let which = self.chance.below(self.wanted.len() as u64) as usize;
        let tenant = self.tenants.get(which / CLUSTERS_PER_TENANT as usize)?.clone();
        let cluster: ClusterId = format!("demo-{}", which as u64 % CLUSTERS_PER_TENANT + 1).parse().ok()?;
        let id: CommandId = format!("clusters-{}-{}", self.run, self.wishes).parse().ok()?;
        let is_wanted = *self.wanted.get(which)?;
        if is_wanted && !self.chance.permille(LEAVES_PERMILLE) {
            return None;
        }
        *self.wanted.get_mut(which)? = !is_wanted;
        if is_wanted {
            return Some(PlacementCommand::DeleteCluster(DeleteCluster { id, tenant, cluster }));
        }
        let terms = ClusterTerms {
            availability: if self.chance.permille(400) { Availability::Single } else { Availability::High },
            regions: vec![self.chance.pick(&self.regions)?.clone()],
            version: KubernetesVersion { minor: *self.chance.pick(&MINORS)?, patch: 0 },
            driver: None,
            data_store: None,
            sleep_after_seconds: None,
        };
        Some(PlacementCommand::CreateCluster(CreateCluster { id, tenant, cluster, terms }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn clusters_come_and_go_and_never_more_than_are_allowed() {
        let names = ["a", "b", "c"].map(|name| name.parse().unwrap()).to_vec();
        let regions = vec!["oak".parse().unwrap()];
        let start = Timestamp::from_micros(0);
        let principal = "demo-operator".parse().unwrap();
        let mut clusters = Clusters::new(principal, names, regions, "r", start, Chance::new(7));
        let (mut there, mut most, mut gone) = (BTreeSet::new(), 0, 0);
        for _ in 0..1_000 {
            match clusters.act(clusters.next_at()) {
                Some(PlacementCommand::CreateCluster(made)) => {
                    assert!(there.insert((made.tenant, made.cluster)), "it is there already");
                }
                Some(PlacementCommand::DeleteCluster(ended)) => {
                    assert!(there.remove(&(ended.tenant, ended.cluster)), "it is not there");
                    gone += 1;
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            most = most.max(there.len());
        }
        assert!(gone > 50 && most == 6, "{gone} went, {most} at once");
    }
}
