//! The rows of a book: for each level one row of held units and one of queued units, each in order of age.
//!
//! A row with one entry holds it in place; up to fifteen share a leaf; more form a B+tree over leaves. No path here
//! is longer than the height of that tree.

use super::bitmap::Bitmap;
use super::lots::Lots;
use super::nodes::{Arena, Branch, Leaf, prefix};

/// Highest tree: with at least six children per branch on average this is beyond all lots a `u32` can number.
const HEIGHT_MAX: usize = 16;

/// What a row's root points at, in its three lowest bits; the rest is a number, below 2^29 ([`super::LOTS_MAX`]). An
/// empty row's root is zero.
const KIND: u32 = 7;
const KIND_BITS: u32 = 3;
/// One lot, and nothing else.
const SINGLE: u32 = 1;
/// The older of two lots; the younger is the tail.
const DOUBLE: u32 = 2;
const LEAF: u32 = 3;
const BRANCH: u32 = 4;

const fn root(kind: u32, number: u32) -> u32 {
    (number << KIND_BITS) | kind
}

/// Units that hold a server and units that wait have rows of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Class {
    Queued = 0,
    Held = 1,
}

impl Class {
    /// A level as [`Rows::edges`] has it.
    #[inline(always)]
    const fn outward(self, level: u32) -> i32 {
        match self {
            Self::Held => level as i32,
            Self::Queued => !(level as i32),
        }
    }
}

/// An entry: units of one class of one lot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) age: u64,
    pub(super) lot: u32,
}

/// No leaf: the entry is the only one of its row, or stands in two.
pub(super) const NO_LEAF: u32 = u32::MAX;

/// One row: its root, and its last leaf, or the younger of two lots.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    root: u32,
    tail: u32,
}

/// The way from a root to a leaf.
struct Path {
    steps: [(u32, u32); HEIGHT_MAX],
    len: usize,
}

impl Path {
    const fn new() -> Self {
        Self { steps: [(0, 0); HEIGHT_MAX], len: 0 }
    }

    fn push(&mut self, branch: u32, place: usize) {
        self.steps[self.len] = (branch, place as u32);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<(u32, usize)> {
        self.len = self.len.checked_sub(1)?;
        let (branch, place) = self.steps[self.len];
        Some((branch, place as usize))
    }
}

/// Where an entry will go, as far as it is known without waiting for memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    leaf: u32,
    branch: u32,
    age: u64,
}

impl Spot {
    pub(super) const NONE: Self = Self { leaf: NO_LEAF, branch: NO_LEAF, age: 0 };
}

/// All rows of a book. Levels and rows of levels are small signed numbers, so that "none" can lie beyond either end.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// The queued and the held row of each level side by side, so that what moves between them stays in one line.
    rows: Vec<Row>,
    /// By class, the levels that have units of it.
    occupied: [Bitmap; 2],
    /// By class, the level where the next unit would move from: the highest queued one and the lowest held one, the
    /// former with all bits turned over, so that "further out" is "smaller" for both.
    edges: [i32; 2],
    leaves: Arena<Leaf>,
    branches: Arena<Branch>,
}

/// Below every level.
pub(super) const NO_QUEUED: i32 = -1;
/// Above every level.
pub(super) const NO_HELD: i32 = i32::MAX;

impl Rows {
    pub(super) fn new(levels: usize) -> Self {
        Self {
            rows: vec![Row::default(); 2 * levels],
            occupied: [Bitmap::new(levels), Bitmap::new(levels)],
            edges: [!NO_QUEUED, NO_HELD],
            leaves: Arena::default(),
            branches: Arena::default(),
        }
    }

    #[inline]
    pub(super) fn levels(&self) -> usize {
        self.rows.len() / 2
    }

    /// Makes room for levels below `levels`.
    pub(super) fn reach(&mut self, levels: usize) {
        if levels > self.levels() {
            self.rows.resize(2 * levels, Row::default());
            self.occupied.iter_mut().for_each(|levels_of| levels_of.reach(levels));
        }
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.occupied.iter().map(Bitmap::bytes).sum::<usize>()
            + self.leaves.bytes()
            + self.branches.bytes()
    }

    /// Adds an entry; its age is new to the row. Returns the leaf it went to.
    #[inline(always)]
    pub(super) fn insert(&mut self, level: u32, class: Class, Entry { age, lot }: Entry, lots: &Lots) -> u32 {
        let row = 2 * level + class as u32;
        let slot = &mut self.rows[row as usize];
        if slot.root == 0 {
            slot.root = root(SINGLE, lot);
            self.occupied[class as usize].set(level);
            let edge = &mut self.edges[class as usize];
            *edge = (*edge).min(class.outward(level));
            return NO_LEAF;
        }
        if slot.root & KIND == SINGLE {
            // A newcomer is nearly always the younger of the two.
            let first = slot.root >> KIND_BITS;
            *slot = if age > lots.record(first).age {
                Row { root: root(DOUBLE, first), tail: lot }
            } else {
                Row { root: root(DOUBLE, lot), tail: first }
            };
            return NO_LEAF;
        }
        if slot.root & KIND == DOUBLE {
            self.open_leaf(row, lots);
        }
        self.insert_in_nodes(row, age, lot)
    }

    /// Puts the two lots of a row into a leaf.
    fn open_leaf(&mut self, row: u32, lots: &Lots) {
        let Row { root: older, tail: younger } = self.rows[row as usize];
        let older = older >> KIND_BITS;
        let leaf = self.leaves.insert(Leaf::with(lots.record(older).age, older));
        let slot = &mut self.rows[row as usize];
        *slot = Row { root: root(LEAF, leaf), tail: leaf };
        let age = lots.record(younger).age;
        if prefix(age) == prefix(lots.record(older).age) {
            self.leaves.get_mut(leaf).append(age, younger);
        } else {
            let last = self.leaves.insert(Leaf::with(age, younger));
            let top = self.branches.insert(Branch::pair(1, leaf, age, last));
            *slot = Row { root: root(BRANCH, top), tail: last };
        }
    }

    #[inline]
    fn insert_in_nodes(&mut self, row: u32, age: u64, lot: u32) -> u32 {
        let tail = self.rows[row as usize].tail;
        let leaf = self.leaves.get_mut(tail);
        if leaf.can_append(age) {
            leaf.append(age, lot);
            return tail;
        }
        self.insert_anywhere(row, age, lot)
    }

    /// Takes an entry out. `leaf` is where it may be found without searching.
    #[inline(always)]
    pub(super) fn remove(&mut self, level: u32, class: Class, Entry { age, lot }: Entry, leaf: u32) {
        // Of an entry's age and lot there is one at most in all leaves, lots in two rows aside, which give no leaf.
        if let Some(leaf) = self.leaves.find_mut(leaf)
            && leaf.can_spare()
            && leaf.remove(age, lot)
        {
            return;
        }
        let row = 2 * level + class as u32;
        let slot = &mut self.rows[row as usize];
        if slot.root & KIND == SINGLE {
            slot.root = 0;
            self.vacate(level, class);
        } else if slot.root & KIND == DOUBLE {
            let older = slot.root >> KIND_BITS;
            slot.root = root(SINGLE, if older == lot { slot.tail } else { older });
        } else {
            self.remove_anywhere(row, age, lot);
        }
    }

    fn insert_anywhere(&mut self, row: u32, age: u64, lot: u32) -> u32 {
        let Row { root: top, .. } = self.rows[row as usize];
        if top & KIND == LEAF {
            let leaf = top >> KIND_BITS;
            let (placed, more) = self.insert_in_leaf(leaf, age, lot, true);
            let slot = &mut self.rows[row as usize];
            slot.tail = leaf;
            if let Some((key, younger)) = more {
                slot.root = root(BRANCH, self.branches.insert(Branch::pair(1, leaf, key, younger)));
                slot.tail = younger;
            }
            return placed;
        }
        let mut path = Path::new();
        let mut is_last = true;
        let leaf = self.descend(top >> KIND_BITS, age, &mut path, &mut is_last);
        let (placed, more) = self.insert_in_leaf(leaf, age, lot, is_last);
        let younger = more.map_or(leaf, |(_, younger)| younger);
        if let Some(more) = more {
            let top = self.insert_in_tree(top >> KIND_BITS, path, is_last, more);
            self.rows[row as usize].root = root(BRANCH, top);
        }
        if is_last {
            self.rows[row as usize].tail = younger;
        }
        placed
    }

    /// Takes a leaf of two entries apart again.
    fn shorten(&mut self, row: u32) {
        let top = self.rows[row as usize].root;
        if top & KIND == LEAF && self.leaves.get(top >> KIND_BITS).len() == 2 {
            let leaf = top >> KIND_BITS;
            let node = self.leaves.get(leaf);
            let (older, younger) = (node.at(0).lot, node.at(1).lot);
            self.rows[row as usize] = Row { root: root(DOUBLE, older), tail: younger };
            self.free(leaf, 0);
        }
    }

    fn remove_anywhere(&mut self, row: u32, age: u64, lot: u32) {
        let top = self.rows[row as usize].root;
        if top & KIND == LEAF {
            let leaf = top >> KIND_BITS;
            let node = self.leaves.get_mut(leaf);
            let found = node.remove(age, lot);
            debug_assert!(found, "entry {age}/{lot} is not in row {row}");
            self.shorten(row);
        } else if let Some(top) = self.remove_in_tree(top >> KIND_BITS, age, lot) {
            // Leaves were merged or freed: what was last may not be any more.
            let tail = if top & KIND == SINGLE { 0 } else { self.outer_leaf(top, false) };
            self.rows[row as usize] = Row { root: top, tail };
            self.shorten(row);
        }
    }

    /// Notes that a row has become empty.
    #[inline(always)]
    fn vacate(&mut self, level: u32, class: Class) {
        self.occupied[class as usize].clear(level);
        if self.edges[class as usize] == class.outward(level) {
            self.retreat(level, class);
        }
    }

    /// Finds the next edge when the row at the edge has become empty.
    fn retreat(&mut self, level: u32, class: Class) {
        let levels = &self.occupied[class as usize];
        self.edges[class as usize] = match class {
            Class::Held => levels.next(level).map_or(NO_HELD, |level| level as i32),
            Class::Queued => !levels.previous(level).map_or(NO_QUEUED, |level| level as i32),
        };
    }

    /// The highest level with queued units; [`NO_QUEUED`] without any.
    #[inline(always)]
    pub(super) const fn best_queued(&self) -> i32 {
        !self.edges[Class::Queued as usize]
    }

    /// The lowest level with held units; [`NO_HELD`] without any.
    #[inline(always)]
    pub(super) const fn worst_held(&self) -> i32 {
        self.edges[Class::Held as usize]
    }

    /// Something of each line of a leaf; see [`super::Book::touch`].
    #[inline]
    pub(super) fn touch_leaf(&self, leaf: u32) -> u64 {
        self.leaves.find(leaf).map_or(0, Leaf::touch)
    }

    /// Where an entry will go: to the young end of a row, or, if its age is old, somewhere in it.
    #[inline]
    pub(super) fn spot(&self, level: u32, class: Class, old: Option<u64>) -> Spot {
        let row = self.rows.get((2 * level + class as u32) as usize).copied().unwrap_or_default();
        match (row.root & KIND, old) {
            (LEAF, _) | (BRANCH, None) => Spot { leaf: row.tail, ..Spot::NONE },
            (BRANCH, Some(age)) => Spot { branch: row.root >> KIND_BITS, age, ..Spot::NONE },
            _ => Spot::NONE,
        }
    }

    /// Something of each line of the node that a spot names.
    #[inline]
    pub(super) fn touch_root(&self, spot: Spot) -> u64 {
        self.touch_leaf(spot.leaf) ^ self.branches.find(spot.branch).map_or(0, Branch::touch)
    }

    /// The same for the node under its branch.
    #[inline]
    pub(super) fn touch_below(&self, spot: Spot) -> u64 {
        let Some(branch) = self.branches.find(spot.branch) else { return 0 };
        let kid = branch.kid(branch.place_of(spot.age));
        if branch.height == 1 { self.touch_leaf(kid) } else { self.branches.get(kid).touch() }
    }

    /// The youngest held entry of a level that has one: what loses first.
    #[inline]
    pub(super) fn youngest_held(&self, level: u32) -> u32 {
        let row = &self.rows[(2 * level + Class::Held as u32) as usize];
        match row.root & KIND {
            SINGLE => row.root >> KIND_BITS,
            DOUBLE => row.tail,
            _ => self.outer(row.root, false),
        }
    }

    /// The oldest queued entry of a level that has one: what wins next.
    #[inline]
    pub(super) fn oldest_queued(&self, level: u32) -> u32 {
        let found = self.rows[(2 * level + Class::Queued as u32) as usize].root;
        if found & KIND <= DOUBLE { found >> KIND_BITS } else { self.outer(found, true) }
    }

    /// The lot at one end of a row.
    fn outer(&self, root: u32, oldest: bool) -> u32 {
        let leaf = self.leaves.get(self.outer_leaf(root, oldest));
        leaf.at(if oldest { 0 } else { leaf.len() - 1 }).lot
    }

    /// The leaf at one end of a row that has one.
    fn outer_leaf(&self, root: u32, oldest: bool) -> u32 {
        let mut number = root >> KIND_BITS;
        if root & KIND == BRANCH {
            for _ in 0..HEIGHT_MAX {
                let branch = self.branches.get(number);
                number = branch.kid(if oldest { 0 } else { branch.len() - 1 });
                if branch.height == 1 {
                    break;
                }
            }
        }
        number
    }

    /// Adds an entry to a leaf, and says to which it went; where there was no room, also names a new leaf to its right,
    /// with the age it begins at.
    fn insert_in_leaf(&mut self, leaf: u32, age: u64, lot: u32, is_last: bool) -> (u32, Option<(u64, u32)>) {
        let node = self.leaves.get_mut(leaf);
        if node.prefix() == prefix(age) {
            if !node.is_full() {
                node.insert(age, lot);
                return (leaf, None);
            }
            let is_youngest = node.count_below(age) == node.len();
            if !(is_youngest && is_last) {
                let mut right = node.split();
                let key = right.at(0).age;
                let goes_left = age < key;
                if goes_left {
                    node.insert(age, lot);
                } else {
                    right.insert(age, lot);
                }
                let right = self.leaves.insert(right);
                return (if goes_left { leaf } else { right }, Some((key, right)));
            }
            // At the young end, where nearly all newcomers go, the full leaf stays full.
        } else if prefix(age) < node.prefix() {
            let key = node.at(0).age;
            let right = std::mem::replace(node, Leaf::with(age, lot));
            return (leaf, Some((key, self.leaves.insert(right))));
        }
        let right = self.leaves.insert(Leaf::with(age, lot));
        (right, Some((age, right)))
    }

    /// Adds a leaf to a tree, at the end of the path that leads to its older neighbour; returns the tree's root.
    fn insert_in_tree(&mut self, top: u32, mut path: Path, is_last: bool, leaf: (u64, u32)) -> u32 {
        let mut carry = leaf;
        while let Some((branch, place)) = path.pop() {
            let node = self.branches.get_mut(branch);
            if !node.is_full() {
                node.insert(place + 1, carry.0, carry.1);
                return top;
            }
            // Again the young end keeps its nodes nearly full.
            let middle = if is_last { node.len() - 2 } else { node.len() / 2 };
            let (key, mut right) = node.split(middle);
            if place < middle {
                node.insert(place + 1, carry.0, carry.1);
            } else {
                right.insert(place + 1 - middle, carry.0, carry.1);
            }
            carry = (key, self.branches.insert(right));
        }
        let height = self.branches.get(top).height + 1;
        self.branches.insert(Branch::pair(height, top, carry.0, carry.1))
    }

    /// Walks from a branch to the leaf where `age` belongs.
    fn descend(&self, root: u32, age: u64, path: &mut Path, is_last: &mut bool) -> u32 {
        let mut number = root;
        loop {
            let branch = self.branches.get(number);
            let place = branch.place_of(age);
            *is_last &= place + 1 == branch.len();
            path.push(number, place);
            number = branch.kid(place);
            if branch.height == 1 {
                return number;
            }
        }
    }

    /// Takes an entry out of a tree; returns its root if nodes of it have changed.
    fn remove_in_tree(&mut self, top: u32, age: u64, lot: u32) -> Option<u32> {
        let mut path = Path::new();
        let leaf = self.descend(top, age, &mut path, &mut true);
        let node = self.leaves.get_mut(leaf);
        let found = node.remove(age, lot);
        debug_assert!(found, "entry {age}/{lot} is not in its tree");
        if !node.is_sparse() {
            return None;
        }
        let mut height = 0;
        let mut is_other = false;
        while let Some((parent, place)) = path.pop() {
            let Some(is_sparse) = self.mend(parent, place, height) else {
                return is_other.then_some(root(BRANCH, top));
            };
            is_other = true;
            if !is_sparse {
                return Some(root(BRANCH, top));
            }
            height += 1;
        }
        Some(self.lower(top))
    }

    /// Removes the child at `place` of `parent` if it is empty, or merges it with a neighbour if both are sparse.
    /// Says whether the parent has become sparse in turn; nothing if all stayed as it was.
    fn mend(&mut self, parent: u32, place: usize, height: u32) -> Option<bool> {
        let node = self.branches.get(parent);
        let kid = node.kid(place);
        let removed = if self.size_of(kid, height) == 0 {
            self.free(kid, height);
            place
        } else {
            // The younger of the two is merged into the older.
            let younger = if place + 1 < node.len() { place + 1 } else { place };
            if younger == 0 {
                return None;
            }
            let (from, into, key) = (node.kid(younger), node.kid(younger - 1), node.key(younger));
            if !self.merge(into, key, from, height) {
                return None;
            }
            self.free(from, height);
            younger
        };
        let node = self.branches.get_mut(parent);
        node.remove(removed);
        Some(node.is_sparse())
    }

    fn size_of(&self, number: u32, height: u32) -> usize {
        if height == 0 { self.leaves.get(number).len() } else { self.branches.get(number).len() }
    }

    fn free(&mut self, number: u32, height: u32) {
        if height == 0 {
            // What is left of it must not be found again.
            *self.leaves.get_mut(number) = Leaf::EMPTY;
            self.leaves.free(number);
        } else {
            self.branches.free(number);
        }
    }

    fn merge(&mut self, into: u32, key: u64, from: u32, height: u32) -> bool {
        if height == 0 {
            match self.leaves.pair(into, from) {
                Some((into, from)) if into.can_take(from) => into.take(from),
                _ => return false,
            }
        } else {
            match self.branches.pair(into, from) {
                Some((into, from)) if into.can_take(from) => into.take(key, from),
                _ => return false,
            }
        }
        true
    }

    /// Takes away root branches with a single child. At most [`HEIGHT_MAX`] of them.
    fn lower(&mut self, top: u32) -> u32 {
        let mut number = top;
        loop {
            let branch = self.branches.get(number);
            if branch.len() > 1 {
                return root(BRANCH, number);
            }
            let (kid, height) = (branch.kid(0), branch.height);
            self.branches.free(number);
            if height == 1 {
                let leaf = self.leaves.get(kid);
                if leaf.len() > 1 {
                    return root(LEAF, kid);
                }
                let lot = leaf.at(0).lot;
                self.free(kid, 0);
                return root(SINGLE, lot);
            }
            number = kid;
        }
    }
}
