//! The largest equilibrium prices, kept from one reading to the next.
//!
//! They are shortest ways to the outside, so each rests on one arc, and an event changes few arcs. Where the arc a
//! price rests on has loosened, that price and all that rest on it are reckoned anew; where an arc has become
//! tighter than the prices allow, they fall from there. Both in one run of Dijkstra's method on what is affected
//! (the batch form of Ramalingam and Reps, "An incremental algorithm for a generalization of the shortest-path
//! problem", 1996).

use std::collections::BinaryHeap;

use super::arcs::Arcs;
use super::weight::NOTHING;
use super::{OUTSIDE, Place};

/// No way out: the price of a market that has no unit and no server.
const UNBOUNDED: i64 = i64::MAX / 4;
const NO_ARC: u32 = u32::MAX;

/// Prices by vertex, and what they rest on.
#[derive(Clone, Debug, Default)]
pub(super) struct Ceiling {
    /// In micro-dollars per hour.
    price: Vec<i64>,
    /// The arc by which the price is what it is.
    rests_on: Vec<u32>,
    /// Memory: by vertex, whether it is affected (2: yes, 1: no, 0: not yet known).
    affected: Vec<u8>,
    frontier: BinaryHeap<(i64, u32)>,
    chain: Vec<u32>,
}

impl Ceiling {
    /// Brings the prices up to date and returns them, by vertex.
    pub(super) fn update(&mut self, arcs: &mut Arcs, places: &[Place]) -> &[i64] {
        self.affected.clear();
        self.affected.resize(places.len(), 0);
        self.affected[OUTSIDE as usize] = 1;
        if self.price.len() == places.len() {
            self.find_affected(arcs);
        } else {
            self.price.resize(places.len(), UNBOUNDED);
            self.rests_on.resize(places.len(), NO_ARC);
            self.price[OUTSIDE as usize] = 0;
            self.affected[1..].fill(2);
        }
        self.frontier.clear();
        let own = self.price.iter_mut().zip(&mut self.rests_on);
        for ((price, rests_on), _) in own.zip(&self.affected).filter(|&(_, &affected)| affected == 2) {
            (*price, *rests_on) = (UNBOUNDED, NO_ARC);
        }
        for vertex in 1..places.len() as u32 {
            if self.affected[vertex as usize] != 2 {
                continue;
            }
            for edge in arcs.out[vertex as usize].iter().filter(|edge| edge.surplus > NOTHING) {
                self.offer(vertex, edge.vertex, edge.surplus, edge.arc);
            }
            self.push(vertex, places);
        }
        for &arc in &arcs.dirty {
            let arc_at = &arcs.arcs[arc as usize];
            let (from, to, surplus) = (arc_at.from, arc_at.to, arc_at.weight.surplus);
            if surplus > NOTHING && from != OUTSIDE && self.offer(from, to, surplus, arc) {
                self.push(from, places);
            }
        }
        arcs.forget_dirty();
        while let Some((excess, vertex)) = self.frontier.pop() {
            if places[vertex as usize].potential.surplus - self.price[vertex as usize] != excess {
                continue;
            }
            for edge in arcs.into[vertex as usize].iter().filter(|edge| edge.surplus > NOTHING) {
                if edge.vertex != OUTSIDE && self.offer(edge.vertex, vertex, edge.surplus, edge.arc) {
                    self.push(edge.vertex, places);
                }
            }
        }
        &self.price
    }

    /// Marks the vertices whose price rests on an arc that has loosened, directly or not.
    fn find_affected(&mut self, arcs: &Arcs) {
        let mut any = false;
        for &arc in &arcs.dirty {
            let arc_at = &arcs.arcs[arc as usize];
            let (from, to) = (arc_at.from as usize, arc_at.to as usize);
            if self.rests_on[from] == arc && self.price[to] - arc_at.weight.surplus > self.price[from] {
                self.affected[from] = 2;
                any = true;
            }
        }
        if !any {
            self.affected.fill(1);
            return;
        }
        for start in 1..self.affected.len() as u32 {
            let mut vertex = start;
            while self.affected[vertex as usize] == 0 {
                self.chain.push(vertex);
                match self.rests_on[vertex as usize] {
                    NO_ARC => break,
                    arc => vertex = arcs.arcs[arc as usize].to,
                }
            }
            let state = self.affected[vertex as usize].max(1);
            for vertex in self.chain.drain(..) {
                self.affected[vertex as usize] = state;
            }
        }
    }

    /// Lowers a price to what an arc allows, if that is less.
    #[inline]
    fn offer(&mut self, from: u32, to: u32, surplus: i64, arc: u32) -> bool {
        let beyond = self.price[to as usize];
        if beyond >= UNBOUNDED || beyond - surplus >= self.price[from as usize] {
            return false;
        }
        self.price[from as usize] = beyond - surplus;
        self.rests_on[from as usize] = arc;
        true
    }

    fn push(&mut self, vertex: u32, places: &[Place]) {
        let price = self.price[vertex as usize];
        if price < UNBOUNDED {
            self.frontier.push((places[vertex as usize].potential.surplus - price, vertex));
        }
    }
}
