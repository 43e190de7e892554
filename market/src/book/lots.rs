//! The slab of lots: twenty-four bytes each, reached by number.

use std::collections::BTreeMap;

use super::rows::{Class, NO_LEAF};

/// Set in a record's level when its lot has a plain limit beside the one it stands at.
const RUNNING: u32 = 1 << 31;

/// One lot as the book keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Place in the queue: smaller is older. In a free record: the next free one.
    pub(super) age: u64,
    /// Level of the limit, and the flag [`RUNNING`].
    level: u32,
    /// Units in all; 0 marks a free record.
    pub(super) units: u16,
    /// Of these, units that are incumbent.
    pub(super) held: u16,
    /// The leaf that took the lot in last, where it is likely to be found; [`NO_LEAF`] if none did.
    pub(super) leaf: u32,
}

impl Record {
    pub(super) const fn new(age: u64, level: u32, units: u16, held: u16) -> Self {
        Self { age, level, units, held, leaf: NO_LEAF }
    }

    pub(super) const fn level(self) -> u32 {
        self.level & !RUNNING
    }

    /// Whether the lot stands at a running limit, above its plain one.
    #[inline]
    pub(super) const fn is_running(self) -> bool {
        self.level & RUNNING != 0
    }

    pub(super) const fn queued(self) -> u32 {
        (self.units - self.held) as u32
    }

    /// Whether the lot stands in two rows at once.
    pub(super) const fn is_split(self) -> bool {
        self.held != 0 && self.held != self.units
    }

    /// Where a lot that stands in one row may be found.
    #[inline]
    pub(super) const fn leaf_if_whole(self) -> u32 {
        if self.is_split() { NO_LEAF } else { self.leaf }
    }

    /// The class of a lot that stands in one row.
    pub(super) const fn class(self) -> Class {
        if self.held == 0 { Class::Queued } else { Class::Held }
    }
}

/// All lots of a book.
#[derive(Clone, Debug, Default)]
pub(super) struct Lots {
    records: Vec<Record>,
    /// Head of the list of free records, as number + 1; 0: none.
    free: u32,
    live: u32,
    /// Plain limits of the few lots that stand at a running limit, in micro-dollars per hour.
    plain: BTreeMap<u32, u64>,
}

impl Lots {
    /// How many lots stand.
    pub(super) const fn live(&self) -> u32 {
        self.live
    }

    /// The record of a lot that is known to stand.
    #[inline]
    pub(super) fn record(&self, lot: u32) -> Record {
        self.records[lot as usize]
    }

    /// The record of a lot, if it stands.
    #[inline]
    pub(super) fn find(&self, lot: u32) -> Option<Record> {
        match self.records.get(lot as usize) {
            Some(&record) if record.units != 0 => Some(record),
            _ => None,
        }
    }

    /// The plain limit of a lot that stands at a running limit.
    pub(super) fn plain_limit(&self, lot: u32) -> Option<u64> {
        self.plain.get(&lot).copied()
    }

    #[inline]
    pub(super) fn insert(&mut self, record: Record, plain: Option<u64>) -> u32 {
        let lot = if self.free == 0 {
            self.push(record)
        } else {
            let lot = self.free - 1;
            self.free = self.records[lot as usize].age as u32;
            self.records[lot as usize] = record;
            lot
        };
        self.live += 1;
        if plain.is_some() {
            self.set_plain(lot, plain);
        }
        lot
    }

    #[cold]
    fn push(&mut self, record: Record) -> u32 {
        if self.records.len() == self.records.capacity() {
            // An eighth at a time: doubling would leave up to half of the slab unused.
            self.records.reserve_exact(64.max(self.records.len() / 8));
        }
        self.records.push(record);
        self.records.len() as u32 - 1
    }

    #[inline]
    pub(super) fn remove(&mut self, lot: u32) {
        if self.record(lot).is_running() {
            self.plain.remove(&lot);
        }
        self.records[lot as usize] = Record::new(u64::from(self.free), 0, 0, 0);
        self.free = lot + 1;
        self.live -= 1;
    }

    /// Replaces a record, plain limit included.
    #[inline]
    pub(super) fn replace(&mut self, lot: u32, record: Record, plain: Option<u64>) {
        let had = self.record(lot).is_running();
        self.records[lot as usize] = record;
        if had || plain.is_some() {
            self.set_plain(lot, plain);
        }
    }

    #[cold]
    fn set_plain(&mut self, lot: u32, plain: Option<u64>) {
        match plain {
            Some(limit) => {
                self.records[lot as usize].level |= RUNNING;
                self.plain.insert(lot, limit);
            }
            None => {
                self.plain.remove(&lot);
            }
        }
    }

    #[inline]
    pub(super) fn set_held(&mut self, lot: u32, held: u16) {
        self.records[lot as usize].held = held;
    }

    /// Puts a record in the place of another, where neither has a plain limit beside its own.
    #[inline]
    pub(super) fn overwrite(&mut self, lot: u32, record: Record) {
        self.records[lot as usize] = record;
    }

    #[inline]
    pub(super) fn set_leaf(&mut self, lot: u32, leaf: u32) {
        self.records[lot as usize].leaf = leaf;
    }

    /// The numbers of all lots that stand, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records.len() as u32).filter(|&lot| self.record(lot).units != 0)
    }

    /// Bytes reserved; a plain limit is reckoned at three words, which is above what the tree takes.
    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>() + self.plain.len() * 24
    }
}
