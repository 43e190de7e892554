//! Hosts that are alike to every plane but for their room, sorted by it, so that the fullest host with room is found
//! without looking at the others.

use std::collections::BTreeMap;

use super::{Amounts, HostOrd, RESOURCES_MAX, Room};

/// Rooms are told apart in so many steps; what is beyond the last counts as the last.
const STEPS: usize = 1_024;
const WORD_BITS: usize = u64::BITS as usize;

/// How a resource's room is cut into steps: powers of two, as every change of room asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scale([u32; RESOURCES_MAX]);

impl Scale {
    /// Steps fine enough that the largest host fills at least half of them.
    pub(super) fn of(largest: &Amounts) -> Self {
        Self(largest.map(|amount| (amount / STEPS as u64 + 1).next_power_of_two().trailing_zeros()))
    }

    /// The step of a room.
    pub(super) fn step(&self, resource: usize, room: i64) -> u32 {
        (room.max(0).unsigned_abs() >> self.0[resource]).min(STEPS as u64 - 1) as u32
    }
}

/// What makes hosts alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label {
    pub(super) zone: u32,
    pub(super) region: u32,
    pub(super) taints: u64,
}

/// Hosts by one resource.
#[derive(Clone, Debug)]
struct Row {
    /// By step the hosts, ascending: the order must not depend on how the site came to be as it is.
    steps: Vec<Vec<HostOrd>>,
    /// Which steps have hosts.
    filled: [u64; STEPS / WORD_BITS],
}

/// Hosts with one label that take newcomers.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) label: Label,
    rows: Vec<Row>,
    /// How many hosts there are of each capacity.
    shapes: BTreeMap<Amounts, u32>,
}

impl Shelf {
    pub(super) fn new(label: Label, resources: usize) -> Self {
        let row = Row { steps: vec![Vec::new(); STEPS], filled: [0; STEPS / WORD_BITS] };
        Self { label, rows: vec![row; resources], shapes: BTreeMap::new() }
    }

    /// Puts a host on the shelf.
    pub(super) fn add(&mut self, scale: &Scale, host: HostOrd, capacity: &Amounts, room: &Room) {
        *self.shapes.entry(*capacity).or_insert(0) += 1;
        for (resource, row) in self.rows.iter_mut().enumerate() {
            row.insert(scale.step(resource, room[resource]), host);
        }
    }

    /// Takes a host off the shelf.
    pub(super) fn remove(&mut self, scale: &Scale, host: HostOrd, capacity: &Amounts, room: &Room) {
        if let Some(count) = self.shapes.get_mut(capacity) {
            *count -= 1;
            if *count == 0 {
                self.shapes.remove(capacity);
            }
        }
        for (resource, row) in self.rows.iter_mut().enumerate() {
            row.remove(scale.step(resource, room[resource]), host);
        }
    }

    /// A host's room has changed.
    #[inline]
    pub(super) fn shift(&mut self, scale: &Scale, host: HostOrd, before: &Room, after: &Room) {
        for (resource, row) in self.rows.iter_mut().enumerate() {
            let from = scale.step(resource, before[resource]);
            let to = scale.step(resource, after[resource]);
            if from != to {
                row.remove(from, host);
                row.insert(to, host);
            }
        }
    }

    /// Whether there is a host that could hold this if it were empty.
    pub(super) fn could_hold(&self, request: &Amounts) -> bool {
        self.shapes.keys().any(|capacity| request.iter().zip(capacity).all(|(wanted, has)| wanted <= has))
    }

    /// Capacities of the hosts, with how many have it.
    pub(super) fn shapes(&self) -> &BTreeMap<Amounts, u32> {
        &self.shapes
    }

    /// The first host at this step of the resource's room or a later one that will do, and its step.
    #[inline]
    pub(super) fn first(
        &self,
        resource: usize,
        from_step: u32,
        will_do: impl Fn(HostOrd) -> bool,
    ) -> Option<(u32, HostOrd)> {
        let row = &self.rows[resource];
        let (first_word, bit) = (from_step as usize / WORD_BITS, from_step as usize % WORD_BITS);
        let mut mask = u64::MAX << bit;
        for (word, filled) in row.filled.iter().enumerate().skip(first_word) {
            let mut left = filled & mask;
            mask = u64::MAX;
            while left != 0 {
                let step = word * WORD_BITS + left.trailing_zeros() as usize;
                left &= left - 1;
                if let Some(host) = row.steps[step].iter().find(|host| will_do(**host)) {
                    return Some((step as u32, *host));
                }
            }
        }
        None
    }

    /// Hosts with less room than this step or about as much, those with more room first.
    pub(super) fn down_from(&self, resource: usize, step: u32) -> impl Iterator<Item = HostOrd> + '_ {
        self.rows[resource].steps[..=step as usize].iter().rev().flatten().copied()
    }
}

impl Row {
    fn insert(&mut self, step: u32, host: HostOrd) {
        let hosts = &mut self.steps[step as usize];
        if let Err(at) = hosts.binary_search(&host) {
            hosts.insert(at, host);
        }
        self.filled[step as usize / WORD_BITS] |= 1 << (step as usize % WORD_BITS);
    }

    fn remove(&mut self, step: u32, host: HostOrd) {
        let hosts = &mut self.steps[step as usize];
        if let Ok(at) = hosts.binary_search(&host) {
            hosts.remove(at);
        }
        if hosts.is_empty() {
            self.filled[step as usize / WORD_BITS] &= !(1 << (step as usize % WORD_BITS));
        }
    }
}
