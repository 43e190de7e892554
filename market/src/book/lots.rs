//! The slab of lots: sixteen bytes each, reached by number.

use std::collections::BTreeMap;

/// Set in a record's level when its lot has a running limit of its own.
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
}

impl Record {
    pub(super) const fn new(age: u64, level: u32, units: u16, held: u16) -> Self {
        Self { age, level, units, held }
    }

    pub(super) const fn level(self) -> u32 {
        self.level & !RUNNING
    }

    pub(super) const fn has_running(self) -> bool {
        self.level & RUNNING != 0
    }

    pub(super) const fn queued(self) -> u32 {
        (self.units - self.held) as u32
    }

    /// Whether the lot stands in two rows at once.
    pub(super) const fn is_split(self) -> bool {
        self.held != 0 && self.held != self.units
    }
}

/// All lots of a book.
#[derive(Clone, Debug, Default)]
pub(super) struct Lots {
    records: Vec<Record>,
    /// Head of the list of free records, as number + 1; 0: none.
    free: u32,
    live: u32,
    /// Levels of running limits, of the few lots that have one.
    running: BTreeMap<u32, u32>,
}

impl Lots {
    /// How many lots stand.
    pub(super) const fn live(&self) -> u32 {
        self.live
    }

    /// Whether any lot has a running limit.
    #[inline]
    pub(super) fn any_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// The record of a lot that is known to stand.
    #[inline]
    pub(super) fn record(&self, lot: u32) -> Record {
        self.records[lot as usize]
    }

    /// The record of a lot, if it stands.
    #[inline]
    pub(super) fn find(&self, lot: u32) -> Option<Record> {
        self.records.get(lot as usize).copied().filter(|record| record.units != 0)
    }

    /// The level at which units of the lot that hold a server stand.
    #[inline]
    pub(super) fn running_level(&self, lot: u32, record: Record) -> u32 {
        if record.has_running() {
            self.running.get(&lot).copied().unwrap_or(record.level())
        } else {
            record.level
        }
    }

    /// The rows in which a lot's held and queued units stand.
    #[inline]
    pub(super) fn rows(&self, lot: u32, record: Record) -> (u32, u32) {
        (2 * self.running_level(lot, record) + 1, 2 * record.level())
    }

    pub(super) fn insert(&mut self, record: Record, running: Option<u32>) -> u32 {
        let lot = if self.free == 0 {
            if self.records.len() == self.records.capacity() {
                // A quarter at a time: doubling would leave up to half of the slab unused.
                self.records.reserve_exact(64.max(self.records.len() / 4));
            }
            self.records.push(record);
            self.records.len() as u32 - 1
        } else {
            let lot = self.free - 1;
            self.free = self.records[lot as usize].age as u32;
            self.records[lot as usize] = record;
            lot
        };
        self.live += 1;
        if running.is_some() {
            self.set_running(lot, running);
        }
        lot
    }

    pub(super) fn remove(&mut self, lot: u32) {
        if self.record(lot).has_running() {
            self.running.remove(&lot);
        }
        self.records[lot as usize] = Record::new(u64::from(self.free), 0, 0, 0);
        self.free = lot + 1;
        self.live -= 1;
    }

    /// Replaces a record, running limit included.
    #[inline]
    pub(super) fn replace(&mut self, lot: u32, record: Record, running: Option<u32>) {
        let had = self.record(lot).has_running();
        self.records[lot as usize] = record;
        if had || running.is_some() {
            self.set_running(lot, running);
        }
    }

    fn set_running(&mut self, lot: u32, running: Option<u32>) {
        match running {
            Some(level) => {
                self.records[lot as usize].level |= RUNNING;
                self.running.insert(lot, level);
            }
            None => {
                self.running.remove(&lot);
            }
        }
    }

    #[inline]
    pub(super) fn set_held(&mut self, lot: u32, held: u16) {
        self.records[lot as usize].held = held;
    }

    /// The numbers of all lots that stand, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records.len() as u32).filter(|&lot| self.record(lot).units != 0)
    }

    /// Bytes reserved; a running limit is reckoned at three words, which is above what the tree takes.
    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>() + self.running.len() * 24
    }
}
