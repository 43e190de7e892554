//! What of a previous placement stands: replicas on hosts that stay, apart as they must be, and no host too full.

use super::packing::{Packing, Zones};
use super::problem::{HostOrd, Problem};

/// A previous placement, as far as it stands.
pub(super) struct Settled<'p> {
    pub(super) packing: Packing<'p>,
    /// Replicas on leaving hosts: they are placed elsewhere, or stay where they are as long as they can.
    pub(super) stranded: Vec<(u32, HostOrd)>,
}

/// Puts everything where it was, and takes away what cannot stay.
pub(super) fn settle<'p>(problem: &'p Problem, previous: &[Vec<HostOrd>]) -> Settled<'p> {
    let mut packing = Packing::empty(problem);
    let mut stranded = Vec::new();
    for (plane, hosts) in (0..packing.planes()).zip(previous) {
        let there = packing.hosts();
        for host in hosts.iter().copied().filter(|host| *host < there) {
            if packing.missing(plane) > 0 && packing.allowed(plane, host, Zones::Enough) {
                packing.put(plane, host);
            }
        }
        let leaving = |host: &HostOrd| *host < there && !packing.usable(*host);
        stranded.extend(hosts.iter().copied().filter(leaving).map(|host| (plane, host)));
    }
    for host in 0..packing.hosts() {
        relieve(&mut packing, host);
    }
    Settled { packing, stranded }
}

/// Takes replicas off a host until what is on it fits. Each turn takes one.
fn relieve(packing: &mut Packing<'_>, host: HostOrd) {
    while packing.free(host).iter().any(|free| *free < 0) {
        let relief = |plane: &u32| {
            let amounts = packing.request(*plane).iter().zip(packing.free(host));
            // What would still be too much without this replica; then the smaller one, then the younger.
            let left: i64 = amounts.map(|(request, free)| (-free - request).max(0)).sum();
            let size: u64 = packing.parts(*plane).iter().map(|part| u64::from(*part)).sum();
            (left, size, u32::MAX - plane)
        };
        let Some(plane) = packing.holds(host).iter().copied().min_by_key(relief) else { return };
        packing.take(plane, host);
    }
}
