//! The nodes that hold a row's entries in order of age: leaves of two cache lines, branches of four, and the arenas
//! they live in.

use super::rows::Entry;

/// Entries of a leaf: with the header they fill 128 bytes.
pub(super) const LEAF_ENTRIES: usize = 15;
/// Children of a branch: with the header they fill 256 bytes.
pub(super) const BRANCH_KIDS: usize = 20;
/// A node this empty looks for a neighbour to merge with…
const LEAF_FEW: usize = LEAF_ENTRIES / 3;
const BRANCH_FEW: usize = BRANCH_KIDS / 3;
/// …and merges if together they stay below this, so that a merged node does not split at once.
const LEAF_MERGED_MAX: usize = LEAF_ENTRIES - 2;
const BRANCH_MERGED_MAX: usize = BRANCH_KIDS * 4 / 5;

/// Marks places of a leaf that hold nothing; larger than every entry.
const VACANT: u64 = u64::MAX;

/// The part of an age that all entries of a leaf share.
pub(super) const fn prefix(age: u64) -> u32 {
    (age >> 32) as u32
}

/// The low half of an age and a lot, in one word, so that comparing words compares ages.
const fn entry(age: u64, lot: u32) -> u64 {
    (age << 32) | lot as u64
}

/// Up to [`LEAF_ENTRIES`] lots in order of age, whose ages share their upper half.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Leaf {
    prefix: u32,
    len: u32,
    entries: [u64; LEAF_ENTRIES],
}

impl Leaf {
    pub(super) const EMPTY: Self = Self { entries: [VACANT; LEAF_ENTRIES], prefix: 0, len: 0 };

    pub(super) fn with(age: u64, lot: u32) -> Self {
        let mut leaf = Self { prefix: prefix(age), len: 1, ..Self::EMPTY };
        leaf.entries[0] = entry(age, lot);
        leaf
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len() == LEAF_ENTRIES
    }

    pub(super) const fn is_sparse(&self) -> bool {
        self.len() <= LEAF_FEW
    }

    pub(super) const fn prefix(&self) -> u32 {
        self.prefix
    }

    /// Age and lot at a place below `len`.
    #[inline]
    pub(super) fn at(&self, place: usize) -> Entry {
        let entry = self.entries[place];
        Entry { age: (u64::from(self.prefix) << 32) | (entry >> 32), lot: entry as u32 }
    }

    /// How many words are smaller: four halvings, without a branch that could be mispredicted. Vacant places hold
    /// the largest word, so the length is not needed.
    #[inline]
    fn rank(&self, word: u64) -> usize {
        let mut rank = 0;
        for half in [8, 4, 2, 1] {
            let probe = rank + half;
            rank = if self.entries[probe - 1] < word { probe } else { rank };
        }
        rank
    }

    /// How many entries are older than `age`.
    #[inline]
    pub(super) fn count_below(&self, age: u64) -> usize {
        match prefix(age).cmp(&self.prefix) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => self.rank(age << 32),
            std::cmp::Ordering::Greater => self.len(),
        }
    }

    /// Adds an entry of the leaf's own prefix to a leaf that is not full.
    #[inline]
    pub(super) fn insert(&mut self, age: u64, lot: u32) {
        let word = entry(age, lot);
        let place = self.rank(word);
        let len = self.len();
        if place < len {
            self.entries.copy_within(place..len, place + 1);
        }
        self.entries[place] = word;
        self.len += 1;
    }

    /// Takes an entry out, if it is there; says whether it was.
    #[inline]
    pub(super) fn remove(&mut self, age: u64, lot: u32) -> bool {
        let word = entry(age, lot);
        let place = self.rank(word);
        let len = self.len();
        if place >= len || self.entries[place] != word || self.prefix != prefix(age) {
            return false;
        }
        self.entries.copy_within(place + 1..len, place);
        self.entries[len - 1] = VACANT;
        self.len -= 1;
        true
    }

    /// Whether the leaf stays well filled when it loses an entry.
    #[inline]
    pub(super) const fn can_spare(&self) -> bool {
        self.len() > LEAF_FEW + 1
    }

    /// Whether an entry of this age would come last, and there is room.
    #[inline]
    pub(super) const fn can_append(&self, age: u64) -> bool {
        let len = self.len();
        len > 0 && len < LEAF_ENTRIES && self.prefix == prefix(age) && self.entries[len - 1] < (age << 32)
    }

    /// Adds an entry that [`Leaf::can_append`].
    #[inline]
    pub(super) const fn append(&mut self, age: u64, lot: u32) {
        self.entries[self.len()] = entry(age, lot);
        self.len += 1;
    }

    /// Something of each of the leaf's two cache lines.
    #[inline]
    pub(super) const fn touch(&self) -> u64 {
        self.entries[0] ^ self.entries[LEAF_ENTRIES - 1]
    }

    /// Moves the younger half into a new leaf.
    pub(super) fn split(&mut self) -> Self {
        let middle = LEAF_ENTRIES / 2;
        let mut right = Self { prefix: self.prefix, len: (LEAF_ENTRIES - middle) as u32, ..Self::EMPTY };
        right.entries[..LEAF_ENTRIES - middle].copy_from_slice(&self.entries[middle..]);
        self.entries[middle..].fill(VACANT);
        self.len = middle as u32;
        right
    }

    /// Whether the younger neighbour's entries fit in as well, with room to spare.
    pub(super) const fn can_take(&self, younger: &Self) -> bool {
        self.prefix == younger.prefix && self.len() + younger.len() <= LEAF_MERGED_MAX
    }

    pub(super) fn take(&mut self, younger: &Self) {
        let (len, more) = (self.len(), younger.len());
        self.entries[len..len + more].copy_from_slice(&younger.entries[..more]);
        self.len += younger.len;
    }
}

/// Up to [`BRANCH_KIDS`] nodes in order of age.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Branch {
    /// No age in child `i > 0` is below `keys[i]`, none in child `i - 1` reaches it; `keys[0]` is not read.
    keys: [u64; BRANCH_KIDS],
    kids: [u32; BRANCH_KIDS],
    len: u32,
    /// 1: the children are leaves.
    pub(super) height: u32,
}

impl Branch {
    pub(super) fn pair(height: u32, older: u32, key: u64, younger: u32) -> Self {
        let mut branch = Self { keys: [0; BRANCH_KIDS], kids: [0; BRANCH_KIDS], len: 2, height };
        branch.keys[1] = key;
        branch.kids[0] = older;
        branch.kids[1] = younger;
        branch
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) const fn is_sparse(&self) -> bool {
        self.len() <= BRANCH_FEW
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len() == BRANCH_KIDS
    }

    #[inline]
    pub(super) fn kid(&self, place: usize) -> u32 {
        self.kids[place]
    }

    /// The child under which `age` belongs.
    #[inline]
    pub(super) fn place_of(&self, age: u64) -> usize {
        self.keys[1..self.len()].partition_point(|&key| key <= age)
    }

    /// Adds a child to a branch that is not full.
    pub(super) fn insert(&mut self, place: usize, key: u64, kid: u32) {
        let len = self.len();
        self.keys.copy_within(place..len, place + 1);
        self.kids.copy_within(place..len, place + 1);
        self.keys[place] = key;
        self.kids[place] = kid;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, place: usize) {
        let len = self.len();
        self.keys.copy_within(place + 1..len, place);
        self.kids.copy_within(place + 1..len, place);
        self.len -= 1;
    }

    /// Moves the younger children from `middle` on into a new branch; its key comes first.
    pub(super) fn split(&mut self, middle: usize) -> (u64, Self) {
        let mut right = Self {
            keys: [0; BRANCH_KIDS],
            kids: [0; BRANCH_KIDS],
            len: (BRANCH_KIDS - middle) as u32,
            height: self.height,
        };
        right.keys[..BRANCH_KIDS - middle].copy_from_slice(&self.keys[middle..]);
        right.kids[..BRANCH_KIDS - middle].copy_from_slice(&self.kids[middle..]);
        self.len = middle as u32;
        (right.keys[0], right)
    }

    pub(super) const fn can_take(&self, younger: &Self) -> bool {
        self.len() + younger.len() <= BRANCH_MERGED_MAX
    }

    /// Something of each of the branch's four cache lines.
    #[inline]
    pub(super) const fn touch(&self) -> u64 {
        self.keys[0] ^ self.keys[8] ^ self.keys[16] ^ self.kids[BRANCH_KIDS - 1] as u64
    }

    /// The key under which the child at `place` stands.
    pub(super) fn key(&self, place: usize) -> u64 {
        self.keys[place]
    }

    /// Appends the younger neighbour's children; `key` is where they begin.
    pub(super) fn take(&mut self, key: u64, younger: &Self) {
        let (len, more) = (self.len(), younger.len());
        self.keys[len..len + more].copy_from_slice(&younger.keys[..more]);
        self.kids[len..len + more].copy_from_slice(&younger.kids[..more]);
        self.keys[len] = key;
        self.len += younger.len;
    }
}

/// Nodes by number, with the free ones used again, the last freed first: it is the one still in the cache.
#[derive(Clone, Debug)]
pub(super) struct Arena<T> {
    nodes: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    #[inline]
    pub(super) fn get(&self, number: u32) -> &T {
        &self.nodes[number as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.nodes[number as usize]
    }

    /// A node, if there is one of this number.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<&T> {
        self.nodes.get(number as usize)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, number: u32) -> Option<&mut T> {
        self.nodes.get_mut(number as usize)
    }

    /// Two different nodes, the second for reading.
    pub(super) fn pair(&mut self, write: u32, read: u32) -> Option<(&mut T, &T)> {
        let [write, read] = self.nodes.get_disjoint_mut([write as usize, read as usize]).ok()?;
        Some((write, &*read))
    }

    pub(super) fn insert(&mut self, node: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.nodes[number as usize] = node;
            return number;
        }
        if self.nodes.len() == self.nodes.capacity() {
            // An eighth at a time: doubling would leave up to half of the arena unused.
            self.nodes.reserve_exact(64.max(self.nodes.len() / 8));
        }
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    pub(super) fn free(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}

const _: () = assert!(size_of::<Leaf>() == 128 && size_of::<Branch>() == 256);
