//! The rules carried out by sorting every bid after every event and walking.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::stream::{Event, Stream};

#[derive(Clone, Copy)]
struct Part {
    rung: u32,
    is_queued: bool,
    age: u64,
    bid: u32,
    units: u32,
}

/// A group of units with one age.
#[derive(Clone, Copy, Default)]
struct Group {
    rung: u32,
    age: u64,
    units: u32,
    held: u32,
}

#[derive(Default)]
pub(crate) struct Naive {
    /// A bid's groups; more than one where it was raised while it held a part.
    bids: BTreeMap<u32, Vec<Group>>,
    supply: u32,
    age: u64,
    pub(crate) price: u64,
}

impl Naive {
    pub(crate) fn new(stream: &Stream) -> Self {
        let mut naive = Self::default();
        for &event in &stream.standing {
            naive.change(event);
        }
        naive.change(Event::Supply { supply: stream.supply });
        naive.clear();
        naive
    }

    pub(crate) fn change(&mut self, event: Event) {
        match event {
            Event::Add { bid, rung, units } => {
                self.bids.insert(bid, vec![Group { rung, age: self.age, units, held: 0 }]);
                self.age += 1;
            }
            Event::Cancel { bid } => {
                self.bids.remove(&bid);
            }
            Event::Reprice { bid, rung } => {
                let groups = self.bids.entry(bid).or_default();
                for group in std::mem::take(groups) {
                    let raised = rung > group.rung;
                    let mut kept = Group { rung, ..group };
                    if raised && group.held < group.units {
                        let queued = Group { rung, age: self.age, units: group.units - group.held, held: 0 };
                        self.age += 1;
                        groups.push(queued);
                        kept.units = group.held;
                    }
                    if kept.units > 0 {
                        groups.push(kept);
                    }
                }
            }
            Event::Supply { supply } => self.supply = supply,
        }
    }

    /// Clears, makes winners incumbent, and returns each bid that wins another number of units, with that number.
    pub(crate) fn clear(&mut self) -> Vec<(u32, u32)> {
        let mut parts = Vec::new();
        for (&bid, groups) in &self.bids {
            for group in groups {
                let part =
                    Part { rung: group.rung, is_queued: false, age: group.age, bid, units: group.held };
                parts.push(part);
                parts.push(Part { is_queued: true, units: group.units - group.held, ..part });
            }
        }
        parts.sort_unstable_by_key(|part| (Reverse(part.rung), part.is_queued, part.age));
        let mut left = self.supply;
        self.price = 1_000;
        let mut changed = Vec::new();
        for part in parts.iter().filter(|part| part.units > 0) {
            let won = part.units.min(left);
            left -= won;
            if left == 0 && won > 0 {
                self.price = u64::from(part.rung) * 1_000;
            }
            let now = if part.is_queued { won } else { part.units - won };
            if now > 0 {
                changed.push((part.bid, part.age, part.is_queued, now));
            }
        }
        let mut bids = Vec::new();
        for (bid, age, is_gain, units) in changed {
            for group in self.bids.entry(bid).or_default().iter_mut().filter(|group| group.age == age) {
                if is_gain { group.held += units } else { group.held -= units }
            }
            bids.push(bid);
        }
        bids.sort_unstable();
        bids.dedup();
        bids.into_iter().map(|bid| (bid, self.won(bid))).collect()
    }

    /// Units a bid holds after the last clearing.
    pub(crate) fn won(&self, bid: u32) -> u32 {
        self.bids.get(&bid).map_or(0, |groups| groups.iter().map(|group| group.held).sum())
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.bids.keys().copied()
    }
}
