//! Who stands at which level. Away from the margin nobody asks in which order, so a level is a bag: lots are put in and
//! taken out in constant time, whatever else stands there.
//!
//! A level with few lots holds them in place. More lie in chunks of one cache line; taking a lot out moves the last one
//! of its level into its slot.

use super::bitmap::Bitmap;

/// Slots of a chunk. The first says where the chunk before it ends.
const CHUNK_SLOTS: u32 = 16;
/// Most lots that a level holds in place.
pub(super) const FEW: u32 = 3;

/// One level.
#[derive(Clone, Copy, Debug, Default)]
struct Bag {
    /// How many lots stand here.
    len: u32,
    /// The lots, if they are few; else the first word is one past the slot of the last.
    few: [u32; FEW as usize],
}

/// All levels with their lots.
#[derive(Clone, Debug)]
pub(super) struct Bags {
    bags: Vec<Bag>,
    slots: Vec<u32>,
    /// Slot of each lot, by its number; of no meaning for a lot that its level holds in place.
    places: Vec<u32>,
    /// The first slot of a chunk that is free, which has the next one's; none if zero.
    free: u32,
    /// Levels that are not empty.
    occupied: Bitmap,
}

const fn is_chunk_end(slot: u32) -> bool {
    slot.is_multiple_of(CHUNK_SLOTS)
}

impl Bags {
    /// Empty bags for so many levels.
    pub(super) fn new(levels: usize) -> Self {
        Self {
            bags: vec![Bag::default(); levels],
            // The first chunk is never used, so that no chunk has the number zero.
            slots: vec![0; CHUNK_SLOTS as usize],
            places: Vec::new(),
            free: 0,
            occupied: Bitmap::new(levels),
        }
    }

    /// Levels there is room for.
    #[inline(always)]
    pub(super) fn levels(&self) -> usize {
        self.bags.len()
    }

    /// Lots there is room for.
    #[inline(always)]
    pub(super) fn lots(&self) -> usize {
        self.places.len()
    }

    /// Makes room for so many levels.
    pub(super) fn reach(&mut self, levels: usize) {
        self.bags.resize(levels.max(self.bags.len()), Bag::default());
        self.occupied.reach(self.bags.len());
    }

    /// Makes room for lots with numbers below `capacity`.
    #[cold]
    pub(super) fn reach_lots(&mut self, capacity: usize) {
        let more = capacity.saturating_sub(self.places.len());
        self.places.reserve_exact(more);
        self.places.resize(self.places.len() + more, 0);
    }

    /// Puts a lot into a level.
    #[inline(always)]
    pub(super) fn link(&mut self, level: u32, lot: u32) {
        let bag = &mut self.bags[level as usize];
        // Whether others stand here is hard to predict where levels are sparse, so nothing depends on it.
        self.occupied.set(level);
        if let Some(free) = bag.few.get_mut(bag.len as usize) {
            *free = lot;
            bag.len += 1;
        } else {
            self.link_to_chunk(level, lot);
        }
    }

    /// Puts a lot beside many others.
    fn link_to_chunk(&mut self, level: u32, lot: u32) {
        let Bag { len, few } = self.bags[level as usize];
        let mut at = few[0];
        if len == FEW {
            at = self.open_chunk(0);
            for lot in few {
                self.slots[at as usize] = lot;
                self.places[lot as usize] = at;
                at += 1;
            }
        } else if is_chunk_end(at) {
            at = self.open_chunk(at);
        }
        self.slots[at as usize] = lot;
        self.places[lot as usize] = at;
        let bag = &mut self.bags[level as usize];
        bag.few[0] = at + 1;
        bag.len = len + 1;
    }

    /// Takes a lot out of the level it stands at.
    #[inline(always)]
    pub(super) fn unlink(&mut self, level: u32, lot: u32) {
        let bag = &mut self.bags[level as usize];
        if bag.len > FEW {
            return self.unlink_from_chunk(level, lot);
        }
        let left = bag.len.saturating_sub(1);
        let last = bag.few.get(left as usize).copied().unwrap_or(lot);
        for place in &mut bag.few {
            *place = if *place == lot { last } else { *place };
        }
        bag.len = left;
        self.occupied.clear_if(level, left == 0);
    }

    /// Takes a lot from among many others.
    fn unlink_from_chunk(&mut self, level: u32, lot: u32) {
        let Bag { len, few } = self.bags[level as usize];
        let mut end = few[0] - 1;
        let place = self.places[lot as usize];
        let last = self.slots[end as usize];
        self.slots[place as usize] = last;
        self.places[last as usize] = place;
        if len - 1 == FEW {
            let mut few = [0; FEW as usize];
            few.copy_from_slice(&self.slots[(end - FEW) as usize..end as usize]);
            self.close_chunk(end - FEW - 1);
            self.bags[level as usize] = Bag { len: FEW, few };
            return;
        }
        if is_chunk_end(end - 1) {
            end = self.close_chunk(end - 1);
        }
        let bag = &mut self.bags[level as usize];
        bag.few[0] = end;
        bag.len = len - 1;
    }

    /// A new chunk behind the one that ends at `before`; returns its first slot for a lot.
    fn open_chunk(&mut self, before: u32) -> u32 {
        let mut chunk = self.free;
        if chunk == 0 {
            chunk = self.add_chunk();
        } else {
            self.free = self.slots[chunk as usize];
        }
        self.slots[chunk as usize] = before;
        chunk + 1
    }

    #[cold]
    fn add_chunk(&mut self) -> u32 {
        let len = self.slots.len();
        if len == self.slots.capacity() {
            // An eighth at a time: doubling would leave up to half of the memory unused.
            self.slots.reserve_exact((64 * CHUNK_SLOTS as usize).max(len / 8));
        }
        self.slots.resize(len + CHUNK_SLOTS as usize, 0);
        len as u32
    }

    /// Gives a chunk back; returns the end of the one before it.
    fn close_chunk(&mut self, chunk: u32) -> u32 {
        let before = self.slots[chunk as usize];
        self.slots[chunk as usize] = self.free;
        self.free = chunk;
        before
    }

    /// How many lots stand at a level, and which, if they are few.
    #[inline(always)]
    pub(super) fn look(&self, level: u32) -> (u32, [u32; FEW as usize]) {
        self.bags.get(level as usize).map_or((0, [0; FEW as usize]), |bag| (bag.len, bag.few))
    }

    /// Lots at a level, in no order.
    pub(super) fn at(&self, level: u32) -> impl Iterator<Item = u32> + '_ {
        let (len, few) = self.look(level);
        let in_place = if len > FEW { 0 } else { len };
        let chunks = std::iter::successors((len > FEW).then_some(few[0]), |&end| {
            let before = self.slots[((end - 1) & !(CHUNK_SLOTS - 1)) as usize];
            (before != 0).then_some(before)
        });
        let lots = chunks.flat_map(|end| {
            let first = ((end - 1) & !(CHUNK_SLOTS - 1)) + 1;
            self.slots[first as usize..end as usize].iter().copied()
        });
        few.into_iter().take(in_place as usize).chain(lots)
    }

    /// The lowest level from `from` on at which anybody stands.
    #[inline(always)]
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        self.occupied.next(from)
    }

    /// The highest level below `end` at which anybody stands.
    #[inline(always)]
    pub(super) fn previous(&self, end: u32) -> Option<u32> {
        self.occupied.previous(end)
    }

    /// The next level above or below this one at which anybody stands.
    #[inline(always)]
    pub(super) fn beside(&self, level: u32, is_above: bool) -> Option<u32> {
        self.occupied.beside(level, is_above)
    }

    /// Reads the place of a lot. Like what the functions below return, it is only good for looking ahead.
    #[inline(always)]
    pub(super) fn touch_place(&self, lot: u32) -> u32 {
        self.places.get(lot as usize).copied().unwrap_or(0)
    }

    /// Reads a slot.
    #[inline(always)]
    pub(super) fn touch_slot(&self, place: u32) -> u32 {
        self.slots.get(place as usize).copied().unwrap_or(0)
    }

    /// Reads a level's last slot.
    #[inline(always)]
    pub(super) fn touch_end(&self, level: u32) -> u32 {
        let (_, few) = self.look(level);
        self.touch_slot(few[0].wrapping_sub(1))
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.bags.capacity() * size_of::<Bag>()
            + (self.slots.capacity() + self.places.capacity()) * size_of::<u32>()
            + self.occupied.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agree_with_sets(steps in prop::collection::vec((0_u32..70, 0_u32..4), 1..600)) {
            let mut bags = Bags::new(2);
            bags.reach(4);
            bags.reach_lots(70);
            let mut sets = vec![BTreeSet::new(); 4];
            let mut levels = [None; 70];
            for (lot, level) in steps {
                if let Some(from) = levels[lot as usize].take() {
                    bags.unlink(from, lot);
                    sets[from as usize].remove(&lot);
                } else {
                    bags.link(level, lot);
                    sets[level as usize].insert(lot);
                    levels[lot as usize] = Some(level);
                }
                for (level, set) in (0..).zip(&sets) {
                    let lots: Vec<u32> = bags.at(level).collect();
                    prop_assert_eq!(bags.look(level).0 as usize, lots.len());
                    prop_assert_eq!(lots.len(), set.len());
                    prop_assert_eq!(&lots.into_iter().collect::<BTreeSet<u32>>(), set);
                    prop_assert_eq!(bags.next(level) == Some(level), !set.is_empty());
                }
            }
            let used = sets.iter().map(|set| if set.len() > FEW as usize { set.len().div_ceil(15) } else { 0 }).sum::<usize>();
            let mut free = 0;
            let mut chunk = bags.free;
            while chunk != 0 {
                free += 1;
                chunk = bags.slots[chunk as usize];
            }
            prop_assert_eq!(bags.slots.len() / CHUNK_SLOTS as usize, used + free + 1, "no chunk is lost");
        }
    }
}
