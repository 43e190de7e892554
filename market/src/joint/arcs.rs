//! The residual graph, contracted to markets: for each ordered pair the units that could move, best first.

use std::collections::BinaryHeap;

use super::lots::Lots;
use super::weight::{NOTHING, Weight};
use super::{OUTSIDE, Place};

/// What one lot's units gain along one arc, in the order in which they would be moved. The fields are those of
/// [`Weight`], as far as entries of one arc differ in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    surplus: i64,
    /// Incumbency, then age.
    high: i64,
    /// Option index, then number.
    low: i64,
    key: Key,
}

/// Which listing of which lot's move an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) lot: u32,
    pub(super) version: u32,
    pub(super) enters: u32,
}

/// No entry: versions begin at one.
const NO_KEY: Key = Key { lot: u32::MAX, version: 0, enters: 0 };

const HIGH_SHIFT: u32 = 60;
const LOW_SHIFT: u32 = 57;

impl Entry {
    pub(super) fn new(surplus: i64, kept: i64, age: i64, index: i64, number: i64, key: Key) -> Self {
        Self { surplus, high: (kept << HIGH_SHIFT) + age, low: (index << LOW_SHIFT) + number, key }
    }
}

/// Who moves first along an arc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mover {
    /// Nobody can.
    Nobody,
    /// A free server: it goes where a unit leaves for it, and comes from where a unit takes it.
    Free,
    /// A unit of this lot.
    Unit(u32),
}

/// Dead entries below which a heap is not worth sweeping.
const DEAD_MIN: u32 = 16;

/// One ordered pair of places.
#[derive(Clone, Debug)]
pub(super) struct Arc {
    heap: BinaryHeap<Entry>,
    /// Entries known to be dead.
    dead: u32,
    pub(super) from: u32,
    pub(super) to: u32,
    /// Where this arc stands among those that leave `from`, and among those that enter `to`.
    out_at: u32,
    into_at: u32,
    /// The best entry, and its weight, so that it is reckoned once.
    top: Key,
    top_weight: Weight,
    is_dirty: bool,
    pub(super) mover: Mover,
    pub(super) weight: Weight,
}

/// An arc as seen from one of its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    /// What its mover gains in surplus, as in the arc's weight; [`NOTHING`] where nobody can move.
    pub(super) surplus: i64,
    /// The other end.
    pub(super) vertex: u32,
    pub(super) arc: u32,
}

/// All arcs.
#[derive(Clone, Debug, Default)]
pub(super) struct Arcs {
    pub(super) arcs: Vec<Arc>,
    /// By vertex.
    pub(super) out: Vec<Vec<Edge>>,
    pub(super) into: Vec<Vec<Edge>>,
    /// Arcs whose surplus changed since prices were reckoned.
    pub(super) dirty: Vec<u32>,
    /// By vertex: (other end, arc), ascending.
    index: Vec<Vec<(u32, u32)>>,
}

impl Arcs {
    /// A vertex more.
    pub(super) fn add_vertex(&mut self) {
        self.out.push(Vec::new());
        self.into.push(Vec::new());
        self.index.push(Vec::new());
    }

    /// The arc from one vertex to another, made where there was none.
    #[inline]
    pub(super) fn find(&mut self, from: u32, to: u32) -> u32 {
        let index = &self.index[from as usize];
        // Where all pairs are in use an arc stands at its target's number.
        let guess = if to > from { to.wrapping_sub(1) } else { to };
        match index.get(guess as usize) {
            Some(&(vertex, arc)) if vertex == to => arc,
            _ => match index.binary_search_by_key(&to, |&(vertex, _)| vertex) {
                Ok(at) => index[at].1,
                Err(at) => self.make(from, to, at),
            },
        }
    }

    /// The arc from one vertex to another, if there is one.
    pub(super) fn known(&self, from: u32, to: u32) -> Option<u32> {
        let index = self.index.get(from as usize)?;
        index.binary_search_by_key(&to, |&(vertex, _)| vertex).ok().map(|at| index[at].1)
    }

    #[cold]
    fn make(&mut self, from: u32, to: u32, at: usize) -> u32 {
        let arc = self.arcs.len() as u32;
        self.index[from as usize].insert(at, (to, arc));
        let (out, into) = (&mut self.out[from as usize], &mut self.into[to as usize]);
        self.arcs.push(Arc {
            heap: BinaryHeap::new(),
            dead: 0,
            from,
            to,
            out_at: out.len() as u32,
            into_at: into.len() as u32,
            top: NO_KEY,
            top_weight: Weight::NOTHING,
            is_dirty: false,
            mover: Mover::Nobody,
            weight: Weight::NOTHING,
        });
        out.push(Edge { surplus: NOTHING, vertex: to, arc });
        into.push(Edge { surplus: NOTHING, vertex: from, arc });
        arc
    }

    /// Takes a listing of a move away, as far as there was one, lists it anew, as far as it can be made, and finds out
    /// who moves first.
    pub(super) fn relist(
        &mut self,
        number: u32,
        gone: Option<Key>,
        entry: Option<Entry>,
        lots: &Lots,
        places: &[Place],
    ) {
        let arc = &mut self.arcs[number as usize];
        let mut is_unsettled = false;
        if let Some(gone) = gone {
            is_unsettled = arc.top == gone;
            arc.dead += 1;
            if arc.dead > DEAD_MIN && arc.dead as usize * 2 > arc.heap.len() {
                arc.heap.retain(|entry| lots.find_alive(entry.key, arc.from, arc.to).is_some());
                arc.dead = 0;
            }
        }
        if let Some(entry) = entry {
            arc.heap.push(entry);
            // While the top lives, whoever is above it now came just now.
            is_unsettled |= arc.heap.peek().is_some_and(|top| top.key == entry.key);
        }
        if is_unsettled {
            self.settle(number, lots, places);
        }
    }

    /// Begins a new list of arcs whose surplus changed.
    pub(super) fn forget_dirty(&mut self) {
        for arc in self.dirty.drain(..) {
            self.arcs[arc as usize].is_dirty = false;
        }
    }

    /// Finds out who moves first along an arc.
    pub(super) fn settle(&mut self, number: u32, lots: &Lots, places: &[Place]) {
        let arc = &mut self.arcs[number as usize];
        let mut mover = Mover::Nobody;
        while let Some(entry) = arc.heap.peek() {
            let key = entry.key;
            if let Some((from, to)) = lots.find_alive(key, arc.from, arc.to) {
                mover = Mover::Unit(key.lot);
                if arc.top != key {
                    arc.top = key;
                    arc.top_weight = lots.weight_of_move(key.lot, from, to);
                }
                break;
            }
            arc.heap.pop();
            arc.dead = arc.dead.saturating_sub(1);
        }
        if mover == Mover::Nobody {
            arc.top = NO_KEY;
        }
        let mut weight = if mover == Mover::Nobody { Weight::NOTHING } else { arc.top_weight };
        let free = if arc.from == OUTSIDE {
            Some(Weight::of_free(places[arc.to as usize].reserve))
        } else if arc.to == OUTSIDE && places[arc.from as usize].free > 0 {
            Some(Weight::of_free(-places[arc.from as usize].reserve))
        } else {
            None
        };
        if let Some(free) = free.filter(|&free| mover == Mover::Nobody || free > weight) {
            (mover, weight) = (Mover::Free, free);
        }
        let is_same = arc.weight.surplus == weight.surplus;
        (arc.mover, arc.weight) = (mover, weight);
        if is_same {
            return;
        }
        if !arc.is_dirty {
            arc.is_dirty = true;
            self.dirty.push(number);
        }
        self.out[arc.from as usize][arc.out_at as usize].surplus = weight.surplus;
        self.into[arc.to as usize][arc.into_at as usize].surplus = weight.surplus;
    }
}
