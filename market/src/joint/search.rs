//! Longest augmenting paths, by Dijkstra's method with the places' potentials.
//!
//! A *potential* is a price in the sense of the whole lexicographic weight. While no arc gains more than the potential
//! rises along it, the assignment is the best. An operation breaks that at one place only; a search finds the path
//! on which most is gained by mending it, and the potentials with which it holds again afterwards.

use std::collections::BinaryHeap;

use super::arcs::Arcs;
use super::weight::Weight;
use super::{OUTSIDE, Place};

/// How a search came to a vertex.
const BY_LABEL: u32 = u32::MAX;

/// Memory of searches, kept so that none is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    /// By vertex: by how much the best path here exceeds the potential; valid where `seen` is `now`.
    excess: Vec<Weight>,
    seen: Vec<u32>,
    /// The arc the best path takes last.
    by: Vec<u32>,
    now: u32,
    frontier: BinaryHeap<(Weight, u32)>,
    /// Vertices whose best path is final.
    settled: Vec<u32>,
    /// Arcs of the path found, first to last in the direction in which units move.
    pub(super) path: Vec<u32>,
}

/// A path found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Where units begin to move, by way of the operation that asked.
    pub(super) first: u32,
    /// Where the last one comes to.
    pub(super) last: u32,
    /// What it gains.
    pub(super) gain: Weight,
}

impl Search {
    pub(super) fn add_vertex(&mut self) {
        self.excess.push(Weight::default());
        self.seen.push(0);
        self.by.push(0);
    }

    /// Begins a search.
    pub(super) fn begin(&mut self) {
        self.now = self.now.wrapping_add(1);
        if self.now == 0 {
            self.seen.fill(0);
            self.now = 1;
        }
        self.frontier.clear();
        self.settled.clear();
        self.path.clear();
    }

    /// Notes a way to a vertex if it is the best so far.
    #[inline]
    fn improve(&mut self, vertex: u32, excess: Weight, by: u32) -> bool {
        let at = vertex as usize;
        if self.seen[at] == self.now && self.excess[at] >= excess {
            return false;
        }
        self.seen[at] = self.now;
        self.excess[at] = excess;
        self.by[at] = by;
        true
    }

    /// States that a unit could begin to move at a vertex, with this excess over its potential.
    pub(super) fn label(&mut self, vertex: u32, excess: Weight) {
        if self.improve(vertex, excess, BY_LABEL) {
            self.frontier.push((excess, vertex));
        }
    }

    fn next(&mut self, bound: Weight) -> Option<(Weight, u32)> {
        while let Some((excess, vertex)) = self.frontier.pop() {
            if excess <= bound {
                return None;
            }
            if self.excess[vertex as usize] == excess {
                self.settled.push(vertex);
                return Some((excess, vertex));
            }
        }
        None
    }

    /// Where units that begin to move at the labels gain most by ending: outside, or at a place that is held open.
    /// Only what gains more than `floor` counts. Afterwards the potentials allow for that path, or for there being
    /// none.
    pub(super) fn forward(&mut self, arcs: &Arcs, places: &mut [Place], floor: Weight) -> Option<Found> {
        let (mut bound, mut last) = (floor, None);
        for &(excess, vertex) in &self.frontier {
            if places[vertex as usize].held_open > 0 && excess > bound {
                (bound, last) = (excess, Some(vertex));
            }
        }
        while let Some((excess, vertex)) = self.next(bound) {
            let way = excess + places[vertex as usize].potential;
            for edge in &arcs.out[vertex as usize] {
                let place = &places[edge.vertex as usize];
                if way.surplus + edge.surplus - place.potential.surplus < bound.surplus {
                    continue;
                }
                let there = way + arcs.arcs[edge.arc as usize].weight - place.potential;
                if there <= bound || !self.improve(edge.vertex, there, edge.arc) {
                    continue;
                }
                if edge.vertex == OUTSIDE || place.held_open > 0 {
                    (bound, last) = (there, Some(edge.vertex));
                }
                if edge.vertex != OUTSIDE {
                    self.frontier.push((there, edge.vertex));
                }
            }
        }
        for &vertex in &self.settled {
            let excess = self.excess[vertex as usize];
            if excess > bound {
                let place = &mut places[vertex as usize];
                place.potential = place.potential + excess - bound;
            }
        }
        let last = last?;
        let mut vertex = last;
        while self.by[vertex as usize] != BY_LABEL {
            self.path.push(self.by[vertex as usize]);
            vertex = arcs.arcs[self.by[vertex as usize] as usize].from;
        }
        self.path.reverse();
        Some(Found { first: vertex, last, gain: bound })
    }

    /// Which chain of units that begins outside gains most by ending at the labelled vertex. As [`Search::forward`],
    /// against the arcs.
    pub(super) fn backward(&mut self, arcs: &Arcs, places: &mut [Place], floor: Weight) -> Option<Found> {
        let mut bound = floor;
        let mut is_found = false;
        while let Some((excess, vertex)) = self.next(bound) {
            let way = excess - places[vertex as usize].potential;
            for edge in &arcs.into[vertex as usize] {
                let place = &places[edge.vertex as usize];
                if way.surplus + edge.surplus + place.potential.surplus < bound.surplus {
                    continue;
                }
                let there = way + arcs.arcs[edge.arc as usize].weight + place.potential;
                if there <= bound || !self.improve(edge.vertex, there, edge.arc) {
                    continue;
                }
                if edge.vertex == OUTSIDE {
                    (bound, is_found) = (there, true);
                } else {
                    self.frontier.push((there, edge.vertex));
                }
            }
        }
        for &vertex in &self.settled {
            let excess = self.excess[vertex as usize];
            if excess > bound {
                let place = &mut places[vertex as usize];
                place.potential = place.potential - (excess - bound);
            }
        }
        if !is_found {
            return None;
        }
        let mut vertex = OUTSIDE;
        while self.by[vertex as usize] != BY_LABEL {
            self.path.push(self.by[vertex as usize]);
            vertex = arcs.arcs[self.by[vertex as usize] as usize].to;
        }
        Some(Found { first: OUTSIDE, last: vertex, gain: bound })
    }
}
