//! Search with an ejection pool: a replica that fits nowhere takes the place of others, which then seek a place in
//! turn; a plane that was often hard to place is ejected last.
//!
//! After Nagata and Bräysy, *A powerful route minimization heuristic for the vehicle routing problem with time
//! windows* (2009), with hosts for routes: penalties count failures, and the ejection of the least sum is taken.

use super::draws::Draws;
use super::packing::{Packing, Zones};
use super::problem::HostOrd;

/// How many random exchanges follow an ejection, so that the same ones do not come around.
const EXCHANGES: usize = 24;

/// A search over a packing.
pub(super) struct Search<'s> {
    /// What is left of the budget. One step is one host or one replica looked at.
    pub(super) steps: &'s mut u64,
    draws: Draws,
    /// By plane, how often it did not fit.
    penalties: Vec<u64>,
    /// By plane, the hosts on which it was before, which it leaves only at a price.
    kept: &'s [Vec<HostOrd>],
    /// What it costs to eject a kept replica, none if it must not be.
    kept_price: Option<u64>,
    zones: Zones,
    /// Deficits of the host looked at.
    lacking: Vec<(usize, i64)>,
}

/// A way to make room on a host: up to two of its replicas, and the sum of their penalties.
#[derive(Clone, Copy, Debug)]
struct Ejection {
    host: HostOrd,
    planes: [Option<u32>; 2],
    penalty: u64,
}

impl<'s> Search<'s> {
    pub(super) fn new(
        packing: &Packing<'_>,
        kept: &'s [Vec<HostOrd>],
        kept_price: Option<u64>,
        zones: Zones,
        steps: &'s mut u64,
    ) -> Self {
        let penalties = vec![1; packing.planes() as usize];
        Self { steps, draws: Draws::new(), penalties, kept, kept_price, zones, lacking: Vec::new() }
    }

    /// Places all that is in the pool, or returns false with the packing in disorder and the budget spent.
    /// `most_steps` bounds this one call.
    pub(super) fn place(&mut self, packing: &mut Packing<'_>, pool: &mut Vec<u32>, most_steps: u64) -> bool {
        let until = self.steps.saturating_sub(most_steps);
        while let Some(plane) = pool.pop() {
            if let Some(host) = self.roomy(packing, plane) {
                packing.put(plane, host);
                continue;
            }
            if *self.steps <= until {
                pool.push(plane);
                return false;
            }
            self.penalties[plane as usize] += 1;
            let Some(ejection) = self.ejection(packing, plane) else {
                pool.push(plane);
                if pool.len() == 1 || !self.exchange(packing) {
                    return false;
                }
                // Another may go first.
                let other = self.draws.below(pool.len());
                let last = pool.len() - 1;
                pool.swap(other, last);
                continue;
            };
            for ejected in ejection.planes.into_iter().flatten() {
                packing.take(ejected, ejection.host);
                pool.push(ejected);
            }
            packing.put(plane, ejection.host);
            self.exchange(packing);
        }
        true
    }

    /// The fullest host with room for a replica.
    fn roomy(&mut self, packing: &Packing<'_>, plane: u32) -> Option<HostOrd> {
        let mut best: Option<(u64, HostOrd)> = None;
        let mut free = Vec::new();
        for host in 0..packing.hosts() {
            if !packing.fits(plane, host) || !packing.allowed(plane, host, self.zones) {
                continue;
            }
            packing.free_parts(host, &mut free);
            let left = free.iter().sum::<u64>();
            if best.is_none_or(|(least, _)| left < least) {
                best = Some((left, host));
            }
        }
        *self.steps = self.steps.saturating_sub(u64::from(packing.hosts()));
        best.map(|(_, host)| host)
    }

    /// The price of ejecting a plane's replica from a host; none if it must stay.
    fn price(&self, plane: u32, host: HostOrd) -> Option<u64> {
        let penalty = self.penalties[plane as usize];
        if self.kept[plane as usize].contains(&host) {
            return self.kept_price.map(|price| price.saturating_add(penalty));
        }
        Some(penalty)
    }

    /// The cheapest way to make room for a replica. Equals are drawn for.
    fn ejection(&mut self, packing: &Packing<'_>, plane: u32) -> Option<Ejection> {
        let mut best: Option<Ejection> = None;
        let mut equals = 1;
        let mut looked = 0;
        let mut priced: Vec<(u64, u32)> = Vec::new();
        for host in 0..packing.hosts() {
            looked += 1;
            if !packing.allowed(plane, host, self.zones) {
                continue;
            }
            self.lack(packing, plane, host);
            priced.clear();
            for other in packing.holds(host) {
                if *other != plane
                    && let Some(price) = self.price(*other, host)
                {
                    priced.push((price, *other));
                }
            }
            looked += priced.len() as u64;
            let bound = best.map_or(u64::MAX, |best| best.penalty);
            for (at, (price, first)) in priced.iter().enumerate() {
                if *price > bound.min(best.map_or(u64::MAX, |best| best.penalty)) {
                    continue;
                }
                if self.covers(packing, *first, None) {
                    let found = Ejection { host, planes: [Some(*first), None], penalty: *price };
                    self.better(&mut best, &mut equals, found);
                    continue;
                }
                for (second_price, second) in &priced[at + 1..] {
                    let penalty = price.saturating_add(*second_price);
                    if penalty <= best.map_or(u64::MAX, |best| best.penalty)
                        && self.covers(packing, *first, Some(*second))
                    {
                        let found = Ejection { host, planes: [Some(*first), Some(*second)], penalty };
                        self.better(&mut best, &mut equals, found);
                    }
                }
            }
        }
        *self.steps = self.steps.saturating_sub(looked);
        best
    }

    fn better(&mut self, best: &mut Option<Ejection>, equals: &mut usize, found: Ejection) {
        match best {
            Some(known) if known.penalty < found.penalty => {}
            Some(known) if known.penalty == found.penalty => {
                *equals += 1;
                if self.draws.below(*equals) == 0 {
                    *known = found;
                }
            }
            _ => {
                *equals = 1;
                *best = Some(found);
            }
        }
    }

    /// What a host lacks for a replica.
    fn lack(&mut self, packing: &Packing<'_>, plane: u32, host: HostOrd) {
        self.lacking.clear();
        let amounts = packing.request(plane).iter().zip(packing.free(host)).enumerate();
        self.lacking.extend(
            amounts
                .filter(|(_, (request, free))| request > free)
                .map(|(at, (request, free))| (at, request - free)),
        );
    }

    fn covers(&self, packing: &Packing<'_>, first: u32, second: Option<u32>) -> bool {
        let first = packing.request(first);
        match second {
            None => self.lacking.iter().all(|(at, lacking)| first[*at] >= *lacking),
            Some(second) => {
                let second = packing.request(second);
                self.lacking.iter().all(|(at, lacking)| first[*at] + second[*at] >= *lacking)
            }
        }
    }

    /// Moves and exchanges replicas at random where both fit; whether any did.
    fn exchange(&mut self, packing: &mut Packing<'_>) -> bool {
        let mut any = false;
        for _ in 0..EXCHANGES {
            *self.steps = self.steps.saturating_sub(1);
            let Some((one, left)) = self.any(packing) else { return any };
            let Some((two, right)) = self.any(packing) else { return any };
            if left == right || one == two {
                continue;
            }
            packing.take(one, left);
            packing.take(two, right);
            let mut fits = packing.fits(one, right) && packing.allowed(one, right, self.zones);
            if fits {
                packing.put(one, right);
                fits = packing.fits(two, left) && packing.allowed(two, left, self.zones);
                if fits {
                    packing.put(two, left);
                    any = true;
                } else {
                    packing.take(one, right);
                }
            }
            if !fits {
                packing.put(one, left);
                packing.put(two, right);
            }
        }
        any
    }

    /// A replica that may move, drawn.
    fn any(&mut self, packing: &Packing<'_>) -> Option<(u32, HostOrd)> {
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let plane = self.draws.below(packing.planes() as usize) as u32;
            let on = packing.on(plane);
            if on.is_empty() {
                continue;
            }
            let host = on[self.draws.below(on.len())];
            if packing.usable(host) && !self.kept[plane as usize].contains(&host) {
                return Some((plane, host));
            }
        }
        None
    }
}
