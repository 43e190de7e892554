//! One pass: hosts are filled one after another, each time with the replica whose shape suits what is free best.

use super::packing::{Packing, Zones};
use super::problem::HostOrd;

/// Weights are divided by this, so that scores of vectors of any length stay within 64 bits.
const WEIGHT_PARTS: u64 = 64;

/// What is still to be placed, as planes in ascending order with how many replicas of each.
pub(super) struct Wanted {
    planes: Vec<u32>,
    missing: Vec<u32>,
    /// Of how many of them nothing is missing any more.
    spent: usize,
    /// Sum of what is missing by resource, in parts of the largest host.
    sums: Vec<u64>,
    replicas: u64,
}

impl Wanted {
    pub(super) fn of(packing: &Packing<'_>, planes: impl Iterator<Item = u32>) -> Self {
        let mut wanted = Self {
            planes: Vec::new(),
            missing: Vec::new(),
            spent: 0,
            sums: vec![0; packing.resources],
            replicas: 0,
        };
        for plane in planes {
            let missing = packing.missing(plane);
            if missing == 0 {
                continue;
            }
            wanted.planes.push(plane);
            wanted.missing.push(missing);
            wanted.replicas += u64::from(missing);
            for (sum, part) in wanted.sums.iter_mut().zip(packing.parts(plane)) {
                *sum += u64::from(*part) * u64::from(missing);
            }
        }
        wanted
    }

    /// Whether anything of this would fit a host of the template.
    pub(super) fn any_fits_template(&self, packing: &Packing<'_>) -> bool {
        let mut wanted = self.planes.iter().zip(&self.missing);
        wanted.any(|(plane, missing)| *missing > 0 && packing.fits_template(*plane))
    }

    /// Forgets planes of which nothing is missing any more, once they are worth the copying.
    fn compact(&mut self) {
        if self.spent * 8 < self.planes.len() {
            return;
        }
        let left = self.planes.iter().zip(&self.missing).filter(|(_, missing)| **missing > 0);
        (self.planes, self.missing) = left.unzip();
        self.spent = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replicas == 0
    }
}

/// Fills one host with what is wanted; how many replicas it took.
pub(super) fn fill(packing: &mut Packing<'_>, host: HostOrd, wanted: &mut Wanted, zones: Zones) -> u32 {
    let mut candidates: Vec<u32> = Vec::new();
    for (at, plane) in wanted.planes.iter().enumerate() {
        if wanted.missing[at] > 0 && packing.fits(*plane, host) && packing.allowed(*plane, host, zones) {
            candidates.push(at as u32);
        }
    }
    let mut free = Vec::new();
    let mut weights = vec![0_u64; packing.resources];
    let mut placed = 0;
    // Each turn places a replica.
    while !candidates.is_empty() {
        packing.free_parts(host, &mut free);
        let replicas = wanted.replicas.max(1);
        for ((weight, sum), free) in weights.iter_mut().zip(&wanted.sums).zip(&free) {
            let mean = sum / replicas;
            *weight = mean * mean * free / WEIGHT_PARTS;
        }
        let mut best = (0, 0_u64);
        for (index, at) in candidates.iter().enumerate() {
            let parts = packing.parts(wanted.planes[*at as usize]);
            let score: u64 = weights.iter().zip(parts).map(|(weight, part)| weight * u64::from(*part)).sum();
            if score > best.1 {
                best = (index, score);
            }
        }
        let at = candidates[best.0] as usize;
        let plane = wanted.planes[at];
        packing.put(plane, host);
        placed += 1;
        wanted.missing[at] -= 1;
        wanted.spent += usize::from(wanted.missing[at] == 0);
        wanted.replicas -= 1;
        for (sum, part) in wanted.sums.iter_mut().zip(packing.parts(plane)) {
            *sum -= u64::from(*part);
        }
        let packing = &*packing;
        candidates.retain(|at| {
            let other = wanted.planes[*at as usize];
            wanted.missing[*at as usize] > 0
                && packing.fits(other, host)
                && (other != plane || packing.allowed(other, host, zones))
        });
    }
    wanted.compact();
    placed
}
