//! A runner in virtual time: the same [`Turn`] that the real one drives, with its pipeline laid open, so that a
//! crash can come between any two of its steps.

use std::collections::VecDeque;

use market::Market;
use proto::machine::{Broken, CommandKey};
use proto::market::{MarketCommand, MarketEvent};
use proto::{StreamName, Timestamp};
use turn::{Found, Outgoing, Settings, Turn, Turned, decode, retell};

use super::journal::{Appended, Journal};
use super::{Buses, Faults};
use crate::chance::Chance;

/// How many turns may be decided ahead of their commit.
const AHEAD_MAX: usize = 3;
/// Most messages taken at once.
const MESSAGES_MAX: u64 = 8;

/// Where in its pipeline a runner was when it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// Between two steps, with nothing under way.
    Idle,
    /// Decided, not committed.
    Decided,
    /// The commit failed; the row is not there, which nobody knew.
    CommitLost,
    /// The commit went through; nobody was told.
    CommitUntold,
    /// Committed, nothing published.
    Committed,
    /// Some of what followed was published.
    PartlyPublished,
    /// All was published, which is not journaled yet.
    Published,
    /// A snapshot was being written.
    Snapshot,
}

impl CrashPoint {
    /// Every point.
    pub const ALL: [Self; 8] = [
        Self::Idle,
        Self::Decided,
        Self::CommitLost,
        Self::CommitUntold,
        Self::Committed,
        Self::PartlyPublished,
        Self::Published,
        Self::Snapshot,
    ];
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There was nothing to do.
    Idle,
    /// Something was done.
    Busy,
    /// Another owner has the stream: this one's state is void.
    Fenced,
    /// It crashed.
    Crashed(CrashPoint),
}

struct Pending {
    turned: Turned<MarketCommand, MarketEvent>,
    messages: Option<VecDeque<Outgoing>>,
    is_committed: bool,
    has_told: bool,
}

/// A runner.
pub(super) struct Runner {
    pub(super) turn: Turn<Market>,
    pipeline: VecDeque<Pending>,
    /// Messages made again while loading, still to go out.
    left_over: VecDeque<Outgoing>,
}

impl Runner {
    /// Loads from the newest good snapshot and the rows behind it.
    pub(super) fn load(stream: &StreamName, settings: Settings, journal: &Journal) -> Result<Self, Broken> {
        let known_published = journal.rows.last().map_or(0, |row| row.published);
        let restore = |bytes: &Vec<u8>| Turn::<Market>::restore(stream.clone(), settings, bytes).ok();
        // What a row says is told while it is folded: a snapshot past the published rows would skip some.
        let is_told = |turn: &Turn<Market>| turn.sequence() <= known_published;
        let newest = journal.snapshots.iter().rev().filter_map(restore).find(is_told);
        let mut turn = newest.unwrap_or_else(|| Turn::new(stream.clone(), settings));
        turn.remember_indexed(journal.index.keys().copied().collect::<Vec<CommandKey>>());
        let mut left_over = VecDeque::new();
        let from = turn.sequence() as usize;
        for row in journal.rows.get(from..).unwrap_or_default() {
            let fold = turn
                .fold(row, row.sequence > known_published)
                .map_err(|error| Broken { invariant: "I7", details: error.to_string() })?;
            left_over.extend(fold.outgoing);
        }
        Ok(Self { turn, pipeline: VecDeque::new(), left_over })
    }

    /// Does one of the things it could do, drawn by chance.
    pub(super) fn step(
        &mut self,
        now: Timestamp,
        journal: &mut Journal,
        buses: &mut Buses,
        faults: &Faults,
        chance: &mut Chance,
    ) -> Result<Step, Broken> {
        if let Some(message) = self.left_over.pop_front() {
            buses.publish(&message);
            if self.left_over.is_empty() {
                self.turn.note_published(self.turn.sequence());
            }
            return Ok(crashes(faults, chance, CrashPoint::PartlyPublished));
        }
        let start = chance.below(3);
        for way in 0..3 {
            let step = match (start + way) % 3 {
                0 => self.decide(now, journal, buses, chance)?,
                1 => self.commit(journal, faults, chance),
                _ => self.publish(journal, buses)?,
            };
            match step {
                Step::Idle => {}
                Step::Busy => return Ok(crashes(faults, chance, self.point())),
                other => return Ok(other),
            }
        }
        Ok(if self.pipeline.is_empty() { Step::Idle } else { Step::Busy })
    }

    fn point(&self) -> CrashPoint {
        match self.pipeline.front() {
            None => CrashPoint::Idle,
            Some(front) if !front.is_committed => CrashPoint::Decided,
            Some(front) => match &front.messages {
                None => CrashPoint::Committed,
                Some(messages) if messages.is_empty() => CrashPoint::Published,
                Some(_) => CrashPoint::PartlyPublished,
            },
        }
    }

    fn decide(
        &mut self,
        now: Timestamp,
        journal: &Journal,
        buses: &Buses,
        chance: &mut Chance,
    ) -> Result<Step, Broken> {
        if self.pipeline.len() >= AHEAD_MAX {
            return Ok(Step::Idle);
        }
        let created = buses.commands.created();
        if self.turn.reached().created != created {
            self.turn.regressed(created);
        }
        let most = chance.between(1, MESSAGES_MAX) as usize;
        let deliveries = buses.commands.read(self.turn.reached().sequence, most);
        let is_due = self.turn.wake_at().is_some_and(|due| due <= now);
        if deliveries.is_empty() && !is_due {
            return Ok(Step::Idle);
        }
        let mut decoded = Vec::new();
        for delivery in deliveries {
            let mut one = decode::<Market>(self.turn.stream(), delivery);
            let doubts = self.turn.doubts(&one);
            let known = |(command, key)| {
                journal.index.get(&key).map(|answered| Found { command, answered: *answered })
            };
            one.looked_up(doubts.into_iter().filter_map(known).collect());
            decoded.push(one);
        }
        decoded.truncate(Turn::<Market>::fit(&decoded));
        let turned = self.turn.turn(now, decoded)?;
        let is_committed = turned.row.is_none() && self.pipeline.iter().all(|before| before.is_committed);
        self.pipeline.push_back(Pending { turned, messages: None, is_committed, has_told: false });
        Ok(Step::Busy)
    }

    fn commit(&mut self, journal: &mut Journal, faults: &Faults, chance: &mut Chance) -> Step {
        let Some(next) = self.pipeline.iter_mut().find(|pending| !pending.is_committed) else {
            return Step::Idle;
        };
        let Some(row) = &next.turned.row else {
            next.is_committed = true;
            return Step::Busy;
        };
        let fault = chance.permille(faults.commit_permille).then(|| chance.permille(500));
        match journal.append(row, fault) {
            Appended::Committed => {
                next.is_committed = true;
                Step::Busy
            }
            Appended::Stale => Step::Fenced,
            // The state has run ahead of what is known to be journaled: it is dropped, never tried again.
            Appended::Unknown if fault == Some(true) => Step::Crashed(CrashPoint::CommitUntold),
            Appended::Unknown => Step::Crashed(CrashPoint::CommitLost),
        }
    }

    fn publish(&mut self, journal: &Journal, buses: &mut Buses) -> Result<Step, Broken> {
        let Some(front) = self.pipeline.front_mut() else { return Ok(Step::Idle) };
        if !front.is_committed {
            return Ok(Step::Idle);
        }
        let stream = self.turn.stream();
        let turned = &front.turned;
        let messages = front.messages.get_or_insert_with(|| turned.messages().cloned().collect());
        if !front.has_told {
            front.has_told = true;
            for repeat in &turned.repeats {
                messages.extend(again(stream, journal, *repeat)?);
            }
        }
        if let Some(message) = messages.pop_front() {
            buses.publish(&message);
            return Ok(Step::Busy);
        }
        if let Some(row) = &front.turned.row {
            self.turn.note_published(row.sequence);
        }
        self.turn.told(front.turned.token);
        self.pipeline.pop_front();
        // Only what a committed row says was decided may go; the turn's own head may be ahead of the journal.
        let settled = journal.rows.last().map(|row| row.position).unwrap_or_default();
        if settled.created == buses.commands.created() {
            buses.commands.purge(settled.sequence);
        }
        Ok(Step::Busy)
    }

    /// Moves answers past the kept ones to the journal's index, as far as their rows are committed.
    pub(super) fn index(&mut self, journal: &mut Journal) {
        let old = self.turn.to_index(usize::MAX);
        if old.iter().any(|answered| answered.locator.sequence() > journal.rows.len() as u64) {
            return;
        }
        journal.index.extend(old.into_iter().map(|answered| (answered.key, answered)));
        self.turn.indexed(self.turn.past_kept());
    }
}

fn again(stream: &StreamName, journal: &Journal, repeat: turn::Repeat) -> Result<Vec<Outgoing>, Broken> {
    let broken = |details: String| Broken { invariant: "I1", details };
    let sequence = repeat.locator.sequence();
    let row =
        journal.row(sequence).ok_or_else(|| broken(format!("row {sequence} of an answer is missing")))?;
    retell::<Market>(stream, row, &[repeat]).map_err(|error| broken(error.to_string()))
}

fn crashes(faults: &Faults, chance: &mut Chance, point: CrashPoint) -> Step {
    if chance.permille(faults.crash_permille) { Step::Crashed(point) } else { Step::Busy }
}
