//! The state hash: a sum of one 128-bit digest per plane, host and bid, and of everything else that is little, so that
//! it is kept up by adding and subtracting and does not depend on the order in which things came.

use proto::market::BidNumber;
use proto::placement::{HostNumber, PlaneNumber};
use proto::{StateHash, StreamName};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Placement;

/// 128 bits of SHA-256 over what something is and how it is written.
pub(crate) fn digest(kind: u8, value: &impl Serialize) -> u128 {
    let mut hasher = Sha256::new();
    hasher.update([kind]);
    // Records are plain data; writing them to memory cannot fail.
    hasher.update(serde_json::to_vec(value).unwrap_or_default());
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize()[..16]);
    u128::from_be_bytes(first)
}

const PLANE: u8 = 1;
const HOST: u8 = 2;
const STORE: u8 = 3;
const STEP: u8 = 4;
const BID: u8 = 5;
const REST: u8 = 6;

pub(super) fn digest_of_bid(exchange: &StreamName, bid: BidNumber, plane: PlaneNumber) -> u128 {
    digest(BID, &(exchange, bid, plane))
}

impl Placement {
    fn digest_of_plane(&self, number: PlaneNumber) -> u128 {
        let Some(plane) = self.planes.get(&number) else { return 0 };
        let mut on = self.site.on(plane.ord).to_vec();
        on.sort_unstable();
        digest(PLANE, &(plane, on))
    }

    fn digest_of_host(&self, number: HostNumber) -> u128 {
        self.hosts.get(&number).map_or(0, |host| digest(HOST, host))
    }

    /// Takes what changed into the sum.
    pub(super) fn seal(&mut self) {
        for number in std::mem::take(&mut self.touched_planes) {
            let fresh = self.digest_of_plane(number);
            if let Some(plane) = self.planes.get_mut(&number) {
                self.sealed = self.sealed.wrapping_sub(plane.sealed).wrapping_add(fresh);
                plane.sealed = fresh;
            }
        }
        for number in std::mem::take(&mut self.touched_hosts) {
            let fresh = self.digest_of_host(number);
            if let Some(host) = self.hosts.get_mut(&number) {
                self.sealed = self.sealed.wrapping_sub(host.sealed).wrapping_add(fresh);
                host.sealed = fresh;
            }
        }
    }

    pub(super) fn state_hash(&self) -> StateHash {
        let mut sum = self.sealed;
        let planes = self.touched_planes.iter().filter_map(|number| self.planes.get(number));
        for plane in planes {
            sum = sum.wrapping_sub(plane.sealed).wrapping_add(self.digest_of_plane(plane.number));
        }
        for host in self.touched_hosts.iter().filter_map(|number| self.hosts.get(number)) {
            sum = sum.wrapping_sub(host.sealed).wrapping_add(self.digest_of_host(host.number));
        }
        for step in self.rollout.steps() {
            let place = (step.number, step.plane, step.from, step.to);
            sum = sum.wrapping_add(digest(STEP, &(place, step.gone_at, step.begun)));
        }
        for (id, store) in &self.stores {
            sum = sum.wrapping_add(digest(STORE, &(id, store)));
        }
        let names = (&self.zones, &self.regions, &self.taints, self.site.labels(), self.site.used());
        let begun: Vec<_> = self.begun.iter().collect();
        let routed: Vec<_> = self.routed.iter().collect();
        sum = sum.wrapping_add(self.servers.sum());
        let moves = (begun, self.rollout.next_number());
        let advice = (&self.advice, self.advised_at, self.wants_advice);
        let rest = (&self.rules, &self.next, names, routed, moves, advice);
        StateHash(sum.wrapping_add(self.bids_sum).wrapping_add(digest(REST, &rest)))
    }

    /// The hash worked out from nothing, for checking.
    pub(super) fn state_hash_anew(&self) -> StateHash {
        let mut anew = self.clone();
        anew.touched_planes = anew.planes.keys().copied().collect();
        anew.touched_hosts = anew.hosts.keys().copied().collect();
        anew.sealed = 0;
        anew.planes.values_mut().for_each(|plane| plane.sealed = 0);
        anew.hosts.values_mut().for_each(|host| host.sealed = 0);
        anew.bids_sum = anew
            .bids
            .iter()
            .fold(0, |sum, ((exchange, bid), plane)| sum.wrapping_add(digest_of_bid(exchange, *bid, *plane)));
        anew.state_hash()
    }
}
