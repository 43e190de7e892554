//! Fewer hosts: one that holds newcomers only is emptied, and what was on it found a place on the others.

use super::packing::{Packing, Zones};
use super::problem::HostOrd;
use super::search::Search;

/// Empties hosts as long as the budget lasts. Replicas on the hosts where they were before stay there.
pub(super) fn reduce(packing: &mut Packing<'_>, kept: &[Vec<HostOrd>], zones: Zones, steps: &mut u64) {
    let bound = packing.hosts_at_least(0..packing.hosts());
    // Each turn empties a host or ends.
    while *steps > 0 && packing.hosts_used() > bound {
        let Some(host) = lightest(packing, kept) else { return };
        let before = packing.clone();
        packing.set_usable(host, false);
        for unused in 0..packing.hosts() {
            if packing.holds(unused).is_empty() {
                packing.set_usable(unused, false);
            }
        }
        let mut pool: Vec<u32> = packing.holds(host).to_vec();
        for plane in &pool {
            packing.take(*plane, host);
        }
        pool.sort_unstable_by_key(|plane| (packing.parts(*plane).iter().sum::<u32>(), *plane));
        let budget = *steps;
        if !Search::new(packing, kept, None, zones, steps).place(packing, &mut pool, budget) {
            *packing = before;
            return;
        }
        for (other, usable) in (0..packing.hosts()).map(|other| (other, before.usable(other))) {
            packing.set_usable(other, usable);
        }
    }
}

/// The host with the least on it, if all of that may move.
fn lightest(packing: &Packing<'_>, kept: &[Vec<HostOrd>]) -> Option<HostOrd> {
    let may_move = |host: &HostOrd| {
        let holds = packing.holds(*host);
        !holds.is_empty() && holds.iter().all(|plane| !kept[*plane as usize].contains(host))
    };
    let load = |host: &HostOrd| {
        let holds = packing.holds(*host).iter();
        holds.map(|plane| packing.parts(*plane).iter().map(|part| u64::from(*part)).sum::<u64>()).sum::<u64>()
    };
    (0..packing.hosts()).filter(may_move).min_by_key(|host| (load(host), *host))
}
