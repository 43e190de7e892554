//! The rows of a book: for each level one row of held units and, right below it, one row of queued units, each in
//! order of age. The whole order of the auction is therefore "higher row, then older".
//!
//! A row with one entry holds it in place; up to fifteen share a leaf; more form a B+tree over leaves. No path here
//! is longer than the height of that tree.

use super::bitmap::Bitmap;
use super::lots::Lots;
use super::nodes::{Arena, Branch, Leaf, prefix};

/// Highest tree: with at least six children per branch on average this is beyond all lots a `u32` can number.
const HEIGHT_MAX: usize = 16;

/// What a row's root points at. Numbers stay below 2^30 ([`super::LOTS_MAX`]), which leaves two bits for the kind.
#[derive(Clone, Copy)]
enum Root {
    Empty,
    Single(u32),
    Leaf(u32),
    Branch(u32),
}

impl Root {
    #[inline]
    const fn unpack(word: u32) -> Self {
        match word & 3 {
            1 => Self::Single(word >> 2),
            2 => Self::Leaf(word >> 2),
            3 => Self::Branch(word >> 2),
            _ => Self::Empty,
        }
    }

    #[inline]
    const fn pack(self) -> u32 {
        match self {
            Self::Empty => 0,
            Self::Single(number) => (number << 2) | 1,
            Self::Leaf(number) => (number << 2) | 2,
            Self::Branch(number) => (number << 2) | 3,
        }
    }
}

/// One row: its root and its units.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    root: u32,
    units: u32,
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

/// All rows of a book.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    rows: Vec<Row>,
    occupied: Bitmap,
    leaves: Arena<Leaf>,
    branches: Arena<Branch>,
}

impl Rows {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            rows: vec![Row::default(); rows],
            occupied: Bitmap::new(rows),
            leaves: Arena::default(),
            branches: Arena::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Makes room for rows below `rows`.
    pub(super) fn reach(&mut self, rows: usize) {
        if rows > self.rows.len() {
            self.rows.resize(rows, Row::default());
            self.occupied.reach(rows);
        }
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.occupied.bytes()
            + self.leaves.bytes()
            + self.branches.bytes()
    }

    /// Units that stand in a row.
    pub(super) fn units(&self, row: u32) -> u32 {
        self.rows.get(row as usize).map_or(0, |row| row.units)
    }

    /// The lowest occupied row that is not below `row`.
    #[inline]
    pub(super) fn at_or_above(&self, row: u32) -> Option<u32> {
        self.occupied.next(row)
    }

    /// The highest occupied row below `row`.
    #[inline]
    pub(super) fn under(&self, row: u32) -> Option<u32> {
        self.occupied.previous(row)
    }

    pub(super) fn is_occupied(&self, row: u32) -> bool {
        self.rows.get(row as usize).is_some_and(|row| row.root != 0)
    }

    /// Changes the units of an entry that stays.
    #[inline]
    pub(super) fn adjust(&mut self, row: u32, less: u32, more: u32) {
        let row = &mut self.rows[row as usize];
        row.units = row.units - less + more;
    }

    /// Adds an entry; its age is new to the row.
    #[inline]
    pub(super) fn insert(&mut self, row: u32, age: u64, lot: u32, units: u32, lots: &Lots) {
        let slot = &mut self.rows[row as usize];
        slot.units += units;
        match Root::unpack(slot.root) {
            Root::Empty => {
                slot.root = Root::Single(lot).pack();
                self.occupied.set(row);
            }
            Root::Single(first) => {
                let leaf = self.leaves.insert(Leaf::with(lots.record(first).age, first));
                self.insert_in_leaf_root(row, leaf, age, lot);
            }
            Root::Leaf(leaf) => self.insert_in_leaf_root(row, leaf, age, lot),
            Root::Branch(branch) => {
                let root = self.insert_in_tree(branch, age, lot);
                self.rows[row as usize].root = Root::Branch(root).pack();
            }
        }
    }

    /// Takes an entry out.
    #[inline]
    pub(super) fn remove(&mut self, row: u32, age: u64, lot: u32, units: u32) {
        let slot = &mut self.rows[row as usize];
        slot.units -= units;
        match Root::unpack(slot.root) {
            Root::Empty => debug_assert!(false, "row {row} is empty"),
            Root::Single(_) => {
                slot.root = 0;
                self.occupied.clear(row);
            }
            Root::Leaf(leaf) => {
                let node = self.leaves.get_mut(leaf);
                node.remove(age, lot);
                if node.len() == 1 {
                    slot.root = Root::Single(node.at(0).1).pack();
                    self.leaves.free(leaf);
                }
            }
            Root::Branch(branch) => {
                self.rows[row as usize].root = self.remove_in_tree(branch, age, lot).pack();
            }
        }
    }

    fn insert_in_leaf_root(&mut self, row: u32, leaf: u32, age: u64, lot: u32) {
        let root = match self.insert_in_leaf(leaf, age, lot, true) {
            None => Root::Leaf(leaf),
            Some((key, younger)) => Root::Branch(self.branches.insert(Branch::pair(1, leaf, key, younger))),
        };
        self.rows[row as usize].root = root.pack();
    }

    /// Adds an entry to a leaf; where it has no room, also a new leaf to its right, with the age it begins at.
    fn insert_in_leaf(&mut self, leaf: u32, age: u64, lot: u32, is_last: bool) -> Option<(u64, u32)> {
        let node = self.leaves.get_mut(leaf);
        if node.prefix() == prefix(age) {
            if !node.is_full() {
                node.insert(age, lot);
                return None;
            }
            let is_youngest = node.count_below(age) == node.len();
            if !(is_youngest && is_last) {
                let mut right = node.split();
                let (key, _) = right.at(0);
                if age < key {
                    node.insert(age, lot)
                } else {
                    right.insert(age, lot)
                }
                return Some((key, self.leaves.insert(right)));
            }
            // At the young end, where nearly all newcomers go, the full leaf stays full.
        } else if prefix(age) < node.prefix() {
            let (key, _) = node.at(0);
            let right = std::mem::replace(node, Leaf::with(age, lot));
            return Some((key, self.leaves.insert(right)));
        }
        Some((age, self.leaves.insert(Leaf::with(age, lot))))
    }

    /// Adds an entry to a tree and returns its root.
    fn insert_in_tree(&mut self, root: u32, age: u64, lot: u32) -> u32 {
        let mut path = Path::new();
        let mut is_last = true;
        let leaf = self.descend(root, age, &mut path, &mut is_last);
        let Some(mut carry) = self.insert_in_leaf(leaf, age, lot, is_last) else { return root };
        while let Some((branch, place)) = path.pop() {
            let node = self.branches.get_mut(branch);
            if !node.is_full() {
                node.insert(place + 1, carry.0, carry.1);
                return root;
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
        let height = self.branches.get(root).height + 1;
        self.branches.insert(Branch::pair(height, root, carry.0, carry.1))
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

    /// Takes an entry out of a tree and returns what the tree has become.
    fn remove_in_tree(&mut self, root: u32, age: u64, lot: u32) -> Root {
        let mut path = Path::new();
        let leaf = self.descend(root, age, &mut path, &mut true);
        let node = self.leaves.get_mut(leaf);
        node.remove(age, lot);
        if !node.is_sparse() {
            return Root::Branch(root);
        }
        let mut height = 0;
        while let Some((parent, place)) = path.pop() {
            if !self.mend(parent, place, height) {
                return Root::Branch(root);
            }
            height += 1;
        }
        self.lower(root)
    }

    /// Removes the child at `place` of `parent` if it is empty, or merges it with a neighbour if both are sparse.
    /// Says whether the parent has become sparse in turn.
    fn mend(&mut self, parent: u32, place: usize, height: u32) -> bool {
        let node = self.branches.get(parent);
        let kid = node.kid(place);
        let removed = if self.size_of(kid, height) == 0 {
            self.free(kid, height);
            place
        } else {
            // The younger of the two is merged into the older.
            let younger = if place + 1 < node.len() { place + 1 } else { place };
            if younger == 0 {
                return false;
            }
            let (from, into, key) = (node.kid(younger), node.kid(younger - 1), node.key(younger));
            if !self.merge(into, key, from, height) {
                return false;
            }
            self.free(from, height);
            younger
        };
        let node = self.branches.get_mut(parent);
        node.remove(removed);
        node.is_sparse()
    }

    fn size_of(&self, number: u32, height: u32) -> usize {
        if height == 0 { self.leaves.get(number).len() } else { self.branches.get(number).len() }
    }

    fn free(&mut self, number: u32, height: u32) {
        if height == 0 { self.leaves.free(number) } else { self.branches.free(number) }
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
    fn lower(&mut self, root: u32) -> Root {
        let mut number = root;
        loop {
            let branch = self.branches.get(number);
            if branch.len() > 1 {
                return Root::Branch(number);
            }
            let (kid, height) = (branch.kid(0), branch.height);
            self.branches.free(number);
            if height == 1 {
                let leaf = self.leaves.get(kid);
                if leaf.len() > 1 {
                    return Root::Leaf(kid);
                }
                let (_, lot) = leaf.at(0);
                self.leaves.free(kid);
                return Root::Single(lot);
            }
            number = kid;
        }
    }

    /// The youngest entry of a row that is older than `bound`.
    #[inline]
    pub(super) fn last_below(&self, row: u32, bound: u64, lots: &Lots) -> Option<(u64, u32)> {
        match Root::unpack(self.rows.get(row as usize)?.root) {
            Root::Empty => None,
            Root::Single(lot) => Some((lots.record(lot).age, lot)).filter(|&(age, _)| age < bound),
            Root::Leaf(leaf) => self.last_in_leaf(leaf, bound),
            Root::Branch(root) => {
                let wanted = bound.checked_sub(1)?;
                let (mut number, mut older) = (root, None);
                loop {
                    let branch = self.branches.get(number);
                    let place = branch.place_of(wanted);
                    if place > 0 {
                        older = Some((branch.kid(place - 1), branch.height - 1));
                    }
                    number = branch.kid(place);
                    if branch.height == 1 {
                        break;
                    }
                }
                self.last_in_leaf(number, bound).or_else(|| {
                    let (number, height) = older?;
                    self.last_in_leaf(self.outer_leaf(number, height, false), u64::MAX)
                })
            }
        }
    }

    /// The oldest entry of a row whose age is at least `bound`.
    #[inline]
    pub(super) fn first_from(&self, row: u32, bound: u64, lots: &Lots) -> Option<(u64, u32)> {
        match Root::unpack(self.rows.get(row as usize)?.root) {
            Root::Empty => None,
            Root::Single(lot) => Some((lots.record(lot).age, lot)).filter(|&(age, _)| age >= bound),
            Root::Leaf(leaf) => self.first_in_leaf(leaf, bound),
            Root::Branch(root) => {
                let (mut number, mut younger) = (root, None);
                loop {
                    let branch = self.branches.get(number);
                    let place = branch.place_of(bound);
                    if place + 1 < branch.len() {
                        younger = Some((branch.kid(place + 1), branch.height - 1));
                    }
                    number = branch.kid(place);
                    if branch.height == 1 {
                        break;
                    }
                }
                self.first_in_leaf(number, bound).or_else(|| {
                    let (number, height) = younger?;
                    self.first_in_leaf(self.outer_leaf(number, height, true), 0)
                })
            }
        }
    }

    fn last_in_leaf(&self, leaf: u32, bound: u64) -> Option<(u64, u32)> {
        let leaf = self.leaves.get(leaf);
        Some(leaf.at(leaf.count_below(bound).checked_sub(1)?))
    }

    fn first_in_leaf(&self, leaf: u32, bound: u64) -> Option<(u64, u32)> {
        let leaf = self.leaves.get(leaf);
        let place = leaf.count_below(bound);
        (place < leaf.len()).then(|| leaf.at(place))
    }

    /// The oldest or youngest leaf below a node.
    fn outer_leaf(&self, number: u32, height: u32, oldest: bool) -> u32 {
        let mut number = number;
        for _ in 0..height {
            let branch = self.branches.get(number);
            number = branch.kid(if oldest { 0 } else { branch.len() - 1 });
        }
        number
    }
}
