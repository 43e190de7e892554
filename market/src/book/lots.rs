//! The slab of lots: sixteen bytes each, reached by number.

use std::collections::BTreeMap;

/// Set in a record's level when its lot has a plain limit beside the one it stands at.
const RUNNING: u64 = 1 << 63;
/// Set when the lot came or was changed since the last clearing, so that nothing may be concluded from its level.
const STRAY: u64 = 1 << 62;
/// Set while a clearing counts the lot where it belongs, though it was a stray when the clearing began.
const SETTLED: u64 = 1 << 61;
const LEVEL_SHIFT: u32 = 32;
const LEVEL: u64 = SETTLED - (1 << LEVEL_SHIFT);
const UNITS_SHIFT: u32 = 16;
const HELD: u64 = 0xffff;
/// What a free record says: above all levels, no units.
const FREE: u64 = LEVEL;

/// One lot as the book keeps it. The second word holds flags and level, units, and of these the held ones, and is only
/// ever read and written whole: a processor waits where a part is written and then the whole is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Place in the queue: smaller is older. In a free record: the next free one.
    pub(super) age: u64,
    word: u64,
}

impl Record {
    /// The record of a stray, as all lots begin.
    #[inline(always)]
    pub(super) const fn stray(age: u64, level: u32, units: u16, held: u16) -> Self {
        let word = STRAY | ((level as u64) << LEVEL_SHIFT) | ((units as u64) << UNITS_SHIFT) | held as u64;
        Self { age, word }
    }

    /// The same as a stray of this age and level.
    #[inline(always)]
    pub(super) const fn moved(self, age: u64, level: u32) -> Self {
        Self { age, ..self.leveled(level) }.strayed()
    }

    /// The same at this level.
    #[inline(always)]
    pub(super) const fn leveled(self, level: u32) -> Self {
        Self { word: (self.word & !LEVEL) | ((level as u64) << LEVEL_SHIFT), ..self }
    }

    /// The same with so many units held.
    #[inline(always)]
    pub(super) const fn holding(self, held: u32) -> Self {
        Self { word: (self.word & !HELD) | held as u64, ..self }
    }

    /// The same with so many units held less, where the margin rises, or more.
    #[inline(always)]
    pub(super) const fn turned(self, rises: bool, units: u32) -> Self {
        let sign = (rises as u64).wrapping_neg();
        // Held units are the lowest bits, and neither fall below zero nor exceed the units.
        Self { word: self.word.wrapping_add((units as u64 ^ sign).wrapping_sub(sign)), ..self }
    }

    /// Units in all; 0 marks a free record.
    #[inline(always)]
    pub(super) const fn units(self) -> u32 {
        (self.word >> UNITS_SHIFT) as u16 as u32
    }

    /// Units that are incumbent.
    #[inline(always)]
    pub(super) const fn held(self) -> u32 {
        self.word as u16 as u32
    }

    #[inline(always)]
    pub(super) const fn level(self) -> u32 {
        ((self.word & LEVEL) >> LEVEL_SHIFT) as u32
    }

    /// Whether the lot stands at a running limit, above its plain one.
    #[inline(always)]
    pub(super) const fn is_running(self) -> bool {
        self.word & RUNNING != 0
    }

    #[inline(always)]
    pub(super) const fn is_stray(self) -> bool {
        self.word & STRAY != 0
    }

    /// Whether the lot is a stray, or was when the present clearing began: what becomes of it is told at its end.
    #[inline(always)]
    pub(super) const fn is_told_later(self) -> bool {
        self.word & (STRAY | SETTLED) != 0
    }

    /// Whether the lot is counted at this level, has one limit, and what becomes of it may be told at once.
    #[inline(always)]
    pub(super) const fn is_plainly_at(self, level: u32) -> bool {
        self.word & (LEVEL | RUNNING | STRAY | SETTLED) == (level as u64) << LEVEL_SHIFT
    }

    /// Whether the lot is counted at this level.
    #[inline(always)]
    pub(super) const fn is_settled_at(self, level: u32) -> bool {
        self.word & (LEVEL | STRAY) == (level as u64) << LEVEL_SHIFT
    }

    /// The same, counted where it stands while its clearing lasts.
    #[inline(always)]
    pub(super) const fn settled(self) -> Self {
        Self { word: (self.word & !STRAY) | SETTLED, ..self }
    }

    /// The same, with a clearing over.
    #[inline(always)]
    pub(super) const fn cleared(self) -> Self {
        Self { word: self.word & !(STRAY | SETTLED), ..self }
    }

    /// The same as a stray.
    #[inline(always)]
    pub(super) const fn strayed(self) -> Self {
        Self { word: self.word | STRAY, ..self }
    }

    /// The same with a plain limit beside its own.
    const fn running(self) -> Self {
        Self { word: self.word | RUNNING, ..self }
    }

    #[inline(always)]
    pub(super) const fn queued(self) -> u32 {
        self.units() - self.held()
    }

    /// Units that can move when the margin rises, or when it falls.
    #[inline(always)]
    pub(super) const fn movable(self, rises: bool) -> u32 {
        // Which way is a toss-up: this is a choice without a branch.
        let mask = (rises as u32).wrapping_neg();
        (self.held() & mask) | (self.queued() & !mask)
    }

    /// Whether the lot has one limit, and is held as a whole or queued as a whole.
    #[inline(always)]
    pub(super) const fn is_plain(self) -> bool {
        // Whether it is held is a toss-up: this asks without a branch.
        let product = self.held() as u64 * self.queued() as u64;
        (self.word & RUNNING) | product == 0
    }

    /// Whether a part of the lot is held and a part is not.
    #[inline(always)]
    pub(super) const fn is_split(self) -> bool {
        (self.held() != 0) & (self.held() != self.units())
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

    /// Lots there are records for before memory must be found.
    #[inline(always)]
    pub(super) fn capacity(&self) -> usize {
        self.records.capacity()
    }

    /// The record of a lot that is known to stand.
    #[inline(always)]
    pub(super) fn record(&self, lot: u32) -> Record {
        self.records[lot as usize]
    }

    /// Puts all that is known of a lot.
    #[inline(always)]
    pub(super) fn put(&mut self, lot: u32, record: Record) {
        self.records[lot as usize] = record;
    }

    /// Puts another record of a lot, whose age is the same.
    #[inline(always)]
    pub(super) fn set(&mut self, lot: u32, record: Record) {
        self.records[lot as usize].word = record.word;
    }

    /// The record of a lot, if it stands.
    #[inline(always)]
    pub(super) fn find(&self, lot: u32) -> Option<Record> {
        match self.records.get(lot as usize) {
            Some(&record) if record.units() != 0 => Some(record),
            _ => None,
        }
    }

    /// Reads the level of a lot, to look ahead.
    #[inline(always)]
    pub(super) fn touch(&self, lot: u32) -> u32 {
        self.records.get(lot as usize).map_or(0, |record| record.level())
    }

    /// The plain limit of a lot that stands at a running limit.
    pub(super) fn plain_limit(&self, lot: u32) -> Option<u64> {
        self.plain.get(&lot).copied()
    }

    #[inline(always)]
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

    #[inline(always)]
    pub(super) fn remove(&mut self, lot: u32) {
        if self.record(lot).is_running() {
            self.plain.remove(&lot);
        }
        self.records[lot as usize] = Record { age: u64::from(self.free), word: FREE };
        self.free = lot + 1;
        self.live -= 1;
    }

    /// Replaces a record, plain limit included.
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
                self.set(lot, self.record(lot).running());
                self.plain.insert(lot, limit);
            }
            None => {
                self.plain.remove(&lot);
            }
        }
    }

    /// The numbers of all lots that stand, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records.len() as u32).filter(|&lot| self.record(lot).units() != 0)
    }

    /// Bytes reserved; a plain limit is reckoned at three words, which is above what the tree takes.
    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>() + self.plain.len() * 24
    }
}

const _: () = assert!(size_of::<Record>() == 16 && (super::LEVELS_MAX as u64) << LEVEL_SHIFT < FREE);
