//! A plan that empties hosts, so that they can be given back.

use super::resettle::Move;
use super::{HostOrd, PlaneOrd, Site};

/// Moves that empty hosts. Carried out in their order, each has room when its turn comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consolidation {
    /// The moves.
    pub moves: Vec<Move>,
    /// Hosts that are empty then.
    pub emptied: Vec<HostOrd>,
}

impl Site {
    /// Plans to empty as many hosts as can be found, those with the least on them first, onto hosts in use. Each replica
    /// is moved once at most; `moves_max` bounds them all. Nothing is changed.
    pub fn consolidation(&self, moves_max: usize) -> Consolidation {
        let mut site = self.clone();
        let mut plan = Consolidation::default();
        let mut hosts: Vec<(u64, HostOrd)> = (0..site.hosts.len() as HostOrd)
            .filter(|host| site.is_open(*host))
            .map(|host| (site.load(host), host))
            .collect();
        hosts.sort_unstable();
        // Empty hosts take nothing, or others would be emptied onto them.
        hosts.retain(|(_, host)| {
            let empty = site.planes_on(*host).is_empty();
            if empty {
                site.close(*host);
            }
            !empty
        });
        let mut received = vec![false; site.hosts.len()];
        for (_, host) in hosts {
            if received[host as usize] || plan.moves.len() + site.planes_on(host).len() > moves_max {
                continue;
            }
            site.close(host);
            match site.empty(host) {
                None => site.open(host),
                Some(moves) => {
                    for step in &moves {
                        received[step.to as usize] = true;
                    }
                    plan.moves.extend(moves);
                    plan.emptied.push(host);
                }
            }
        }
        plan
    }

    /// Moves everything off a closed host; nothing, if that cannot be.
    fn empty(&mut self, host: HostOrd) -> Option<Vec<Move>> {
        let mut planes: Vec<PlaneOrd> = self.planes_on(host).to_vec();
        // The largest first, as they are the hardest to place.
        planes.sort_unstable_by_key(|plane| {
            let size = self.terms(*plane).map_or(0, |terms| terms.request[self.scarcest(&terms.request)]);
            (u64::MAX - size, *plane)
        });
        let mut moves: Vec<Move> = Vec::with_capacity(planes.len());
        for plane in planes {
            self.take(plane, host);
            if let Ok(score) = self.choose(plane, Some(host)) {
                self.put(plane, score.host);
                moves.push(Move { plane, from: Some(host), to: score.host, gone_at: None, after: None });
                continue;
            }
            self.put(plane, host);
            for undone in moves.into_iter().rev() {
                self.take(undone.plane, undone.to);
                self.put(undone.plane, host);
            }
            return None;
        }
        Some(moves)
    }

    /// How much of a host is used, in steps of all resources.
    fn load(&self, host: HostOrd) -> u64 {
        let Some(capacity) = self.capacity(host) else { return 0 };
        let room = &self.rooms[host as usize];
        let used = (0..self.resources)
            .map(|resource| u64::from(self.scale.step(resource, capacity[resource] as i64 - room[resource])));
        used.sum()
    }
}
