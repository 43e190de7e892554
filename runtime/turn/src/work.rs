//! The turn itself.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use proto::envelope::{COMMANDS_MAX, Refusal, RefusalReason, Refused};
use proto::machine::{Broken, Command, Decided, Entry, Received, Sender};
use proto::{Machine, StateHash, StreamName, Timestamp};

use crate::answers::{ANSWERS_KEPT, ANSWERS_UNINDEXED_MAX, Answered, Answers, Locator};
use crate::delivery::{Content, Decoded, Delivery, Found, Position};
use crate::filter::Filter;
use crate::fold;
use crate::input::InputWriter;
use crate::outgoing::{Refusals, after_row};
use crate::retell::Repeat;
use crate::row::Row;
use crate::turned::{Counts, Token, Turned};

/// Most commands of one turn, unless a single message holds more: so many that a commit is shared well, so few
/// that their events nearly always fit into one message.
pub const TURN_COMMANDS_MAX: usize = COMMANDS_MAX;
/// Most messages of one turn.
pub const TURN_DELIVERIES_MAX: usize = 1_024;
/// Most wakes that one turn carries out before and again after its commands. What is still due then waits for
/// the next turn, which a driver starts at once.
pub const WAKES_PER_TURN_MAX: usize = 64;
/// After so many messages that changed nothing, a row without content moves the position.
pub const POSITION_ROW_AFTER: u64 = 1_024;

/// What is configured about a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many commands are remembered in memory; older ones are looked up in the journal's index.
    pub answers_kept: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { answers_kept: ANSWERS_KEPT }
    }
}

/// The end of the journal as far as it was made or read: every field is what the last row says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    pub(crate) position: Position,
    pub(crate) published: u64,
    pub(crate) chain: [u8; 32],
}

/// A machine with everything around it that must be decided alike on every run.
#[derive(Debug)]
pub struct Turn<M: Machine> {
    pub(crate) machine: M,
    pub(crate) stream: StreamName,
    pub(crate) answers: Answers,
    pub(crate) filter: Filter,
    pub(crate) head: Head,
    /// How far the input was read; the journaled position may be behind.
    pub(crate) reached: Position,
    /// Up to which row everything is known to be published; the journaled mark may be behind.
    pub(crate) published: u64,
    /// Messages since the last row.
    unjournaled: u64,
    /// Turns whose immediate answers are not out yet, with the position before them.
    untold: VecDeque<(Token, Position)>,
    turns: u64,
}

/// A turn in the making.
struct Draft<C, E> {
    at: Timestamp,
    sequence: u64,
    entries: Vec<Entry<C>>,
    events: Vec<E>,
    input: InputWriter,
    refusals: Refusals,
    repeats: Vec<Repeat>,
    before_untold: Option<Position>,
    counts: Counts,
}

impl<M: Machine> Turn<M> {
    /// A stream before its first row.
    pub fn new(stream: StreamName, settings: Settings) -> Self {
        let machine = M::new(&stream);
        Self::with(machine, stream, Answers::new(settings.answers_kept), Head::default())
    }

    pub(crate) fn with(machine: M, stream: StreamName, answers: Answers, head: Head) -> Self {
        Self {
            machine,
            stream,
            answers,
            filter: Filter::default(),
            reached: head.position,
            published: head.published,
            head,
            unjournaled: 0,
            untold: VecDeque::new(),
            turns: 0,
        }
    }

    /// The machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The stream's name.
    pub const fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// The last row's place in the stream; 0 before the first.
    pub const fn sequence(&self) -> u64 {
        self.head.sequence
    }

    /// The last row's instant.
    pub const fn at(&self) -> Timestamp {
        self.head.at
    }

    /// The last row's chain hash.
    pub const fn chain(&self) -> [u8; 32] {
        self.head.chain
    }

    /// Behind which the input is to be read on after a restart: what the last row says.
    pub const fn position(&self) -> Position {
        self.head.position
    }

    /// How far the input was read in this run.
    pub const fn reached(&self) -> Position {
        self.reached
    }

    /// Up to which row everything is known to be published.
    pub const fn published(&self) -> u64 {
        self.published
    }

    /// Up to which row everything was known to be published when the last row was written.
    pub const fn published_journaled(&self) -> u64 {
        self.head.published
    }

    /// The machine's state hash.
    pub fn hash(&self) -> StateHash {
        self.machine.hash()
    }

    /// When a turn without messages has something to do.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.machine.wake_at()
    }

    /// Takes note that every message of every row up to `sequence` was published. Journaled with the next row.
    pub fn note_published(&mut self, sequence: u64) {
        self.published = self.published.max(sequence.min(self.head.sequence));
    }

    /// Takes note that the immediate answers and repeats of all turns up to this one are out.
    pub fn told(&mut self, token: Token) {
        while self.untold.front().is_some_and(|(oldest, _)| *oldest <= token) {
            self.untold.pop_front();
        }
    }

    /// The bus's stream went back: it was created anew or lost its end. Reading begins again at its first
    /// message; what was decided before is recognised by its id.
    pub fn regressed(&mut self, created: i64) {
        self.reached = Position { created, sequence: 0 };
        self.untold.clear();
        self.unjournaled = POSITION_ROW_AFTER;
    }

    /// How many of the first deliveries make one turn: at least one, if there is one.
    pub fn fit(deliveries: &[Decoded<M::Command>]) -> usize {
        let mut commands = 0;
        let fits = deliveries.iter().take(TURN_DELIVERIES_MAX).take_while(|delivery| {
            commands += delivery.commands();
            commands <= TURN_COMMANDS_MAX
        });
        fits.count().max(1).min(deliveries.len())
    }

    /// Whether these deliveries fill a turn, so that waiting for further ones makes it no larger.
    pub fn is_full(deliveries: &[Decoded<M::Command>]) -> bool {
        let commands: usize = deliveries.iter().take(TURN_DELIVERIES_MAX).map(Decoded::commands).sum();
        commands >= TURN_COMMANDS_MAX || deliveries.len() >= TURN_DELIVERIES_MAX
    }

    /// The commands of a delivery of which memory alone cannot tell whether they are new. Look them up in the
    /// journal's index of answers, then hand over what was found with [`Decoded::looked_up`], before the turn.
    pub fn doubts(&self, delivery: &Decoded<M::Command>) -> Vec<(u32, proto::machine::CommandKey)> {
        let Content::Commands { commands, .. } = &delivery.content else { return Vec::new() };
        if self.filter.keys() == 0 || delivery.looked_up {
            return Vec::new();
        }
        let keys =
            (0..).zip(commands).filter_map(|(place, command)| Some((place, command.as_ref().ok()?.key)));
        keys.filter(|(_, key)| self.answers.find(*key).is_none() && self.filter.may_hold(*key)).collect()
    }

    /// Decides a batch at `now`: wakes that are due, the commands in order, wakes that they made due.
    ///
    /// # Errors
    /// When an invariant is broken: the machine left a command unanswered, or a doubtful id was not looked up.
    /// The turn must not be used again.
    pub fn turn(
        &mut self,
        now: Timestamp,
        deliveries: Vec<Decoded<M::Command>>,
    ) -> Result<Turned<M::Command, M::Event>, Broken> {
        let bytes = deliveries.iter().map(Decoded::bytes).sum();
        let commands = deliveries.iter().map(Decoded::commands).sum();
        let mut draft = self.draft(now, bytes, commands);
        self.touch(&deliveries);
        self.wakes(&mut draft);
        for delivery in deliveries {
            draft.counts.deliveries += 1;
            self.take(delivery, &mut draft)?;
        }
        self.wakes(&mut draft);
        self.machine.check_turn()?;
        Ok(self.finish(draft, false))
    }

    /// A row without content, so that the position and the published mark are journaled, as when a runner
    /// steps down in order. `None` where the last row says it all already.
    pub fn closing(&mut self, now: Timestamp) -> Option<Turned<M::Command, M::Event>> {
        // A closing row cannot say that it was published itself: being one behind is as good as it gets.
        if self.settled() == self.head.position && self.published <= self.head.published + 1 {
            return None;
        }
        let draft = self.draft(now, 0, 0);
        Some(self.finish(draft, true))
    }

    /// Behind which everything is decided and answered.
    fn settled(&self) -> Position {
        self.untold.front().map_or(self.reached, |(_, before)| *before)
    }

    fn draft(&self, now: Timestamp, bytes: usize, commands: usize) -> Draft<M::Command, M::Event> {
        Draft {
            at: now.max(self.head.at),
            sequence: self.head.sequence + 1,
            // A wake may come before and behind the commands; a command has an event or two.
            entries: Vec::with_capacity(commands + 2),
            events: Vec::with_capacity(2 * commands + 2),
            input: InputWriter::with_capacity(bytes + bytes / 4),
            refusals: Refusals::default(),
            repeats: Vec::new(),
            before_untold: None,
            counts: Counts::default(),
        }
    }

    fn wakes(&mut self, draft: &mut Draft<M::Command, M::Event>) {
        for _ in 0..WAKES_PER_TURN_MAX {
            if self.machine.wake_at().is_none_or(|due| due > draft.at) {
                return;
            }
            let before = draft.events.len();
            self.machine.wake(draft.at, &mut draft.events);
            if draft.events.len() == before {
                return;
            }
            draft.counts.wakes += 1;
            draft.input.wake();
            draft.entries.push(Entry { received: None, events_end: draft.events.len() });
        }
    }

    fn take(
        &mut self,
        delivery: Decoded<M::Command>,
        draft: &mut Draft<M::Command, M::Event>,
    ) -> Result<(), Broken> {
        let Decoded { delivery, content, found, looked_up } = delivery;
        let position = delivery.position;
        if position.created == self.reached.created && position.sequence <= self.reached.sequence {
            draft.counts.passed_over += 1;
            return Ok(());
        }
        self.reached = position;
        self.unjournaled += 1;
        match content {
            Content::Misdirected => draft.counts.misdirected += 1,
            Content::Unreadable { sender, refused } => draft.refuse(&sender, position, 0, *refused),
            Content::Commands { sender, commands } => {
                let known = Known { delivery, sender, found, looked_up };
                self.commands(&known, commands, draft)?;
            }
        }
        Ok(())
    }

    fn commands(
        &mut self,
        known: &Known,
        commands: Vec<Result<Received<M::Command>, Box<Refused>>>,
        draft: &mut Draft<M::Command, M::Event>,
    ) -> Result<(), Broken> {
        let position = known.delivery.position;
        let mut skipped = Vec::new();
        let total = commands.len();
        for (place, command) in (0..).zip(commands) {
            match command {
                Err(refused) => draft.refuse(&known.sender, position, place, *refused),
                Ok(received) => match self.answered(known, place, &received)? {
                    None => {
                        self.decide(received, draft)?;
                        continue;
                    }
                    Some(first) if first.digest == received.digest => draft.repeat(position, place, first),
                    Some(_) => draft.conflict(&known.sender, position, place, &received.command),
                },
            }
            skipped.push(place);
        }
        if skipped.len() < total {
            draft.input.message(&known.delivery, &skipped, &known.found);
        }
        Ok(())
    }

    fn answered(
        &self,
        known: &Known,
        place: u32,
        received: &Received<M::Command>,
    ) -> Result<Option<Answered>, Broken> {
        if let Some(answered) = self.answers.find(received.key) {
            return Ok(Some(*answered));
        }
        if let Some(found) = known.found.iter().find(|found| found.command == place) {
            return Ok(Some(found.answered));
        }
        if !known.looked_up && self.filter.may_hold(received.key) {
            let details = format!("command {} was not looked up before its turn", received.command.id());
            return Err(Broken { invariant: "I1", details });
        }
        Ok(None)
    }

    fn decide(
        &mut self,
        received: Received<M::Command>,
        draft: &mut Draft<M::Command, M::Event>,
    ) -> Result<(), Broken> {
        let before = draft.events.len();
        self.machine.step(draft.at, &received, &mut draft.events);
        if draft.events.len() == before {
            let details = format!("command {} was left without an answer", received.command.id());
            return Err(Broken { invariant: "I1", details });
        }
        let locator = Locator::new(draft.sequence, draft.entries.len() as u32);
        self.answers.record(Answered { key: received.key, digest: received.digest, locator });
        draft.counts.decided += 1;
        draft.counts.refused += u64::from(draft.events.get(before).is_some_and(M::is_refusal));
        draft.entries.push(Entry { received: Some(received), events_end: draft.events.len() });
        Ok(())
    }

    /// Loads what the commands will need, so that their cache misses overlap.
    fn touch(&self, deliveries: &[Decoded<M::Command>]) {
        let mut sum = 0_u64;
        for delivery in deliveries {
            if let Content::Commands { commands, .. } = &delivery.content {
                for received in commands.iter().flatten() {
                    sum ^= self.answers.touch(received.key) ^ self.machine.touch(received);
                }
            }
        }
        black_box(sum);
    }

    /// Makes the row and what follows from it, or finds that there is none.
    fn finish(&mut self, draft: Draft<M::Command, M::Event>, closing: bool) -> Turned<M::Command, M::Event> {
        self.turns += 1;
        let token = Token(self.turns);
        if let Some(before) = draft.before_untold {
            self.untold.push_back((token, before));
        }
        let at_once = draft.refusals.tell::<M>(&self.stream, draft.at);
        let settled = self.settled();
        let moves = self.unjournaled >= POSITION_ROW_AFTER && settled != self.head.position;
        let mut turned = Turned {
            row: None,
            decided: None,
            outgoing: Vec::new(),
            at_once,
            repeats: draft.repeats,
            token,
            counts: draft.counts,
        };
        if draft.entries.is_empty() && !moves && !closing {
            return turned;
        }
        let decided =
            Decided { sequence: draft.sequence, at: draft.at, entries: draft.entries, events: draft.events };
        let events = fold::encode::<M>(&self.stream, &decided);
        let row = self.row(&decided, settled, self.published, draft.input.finish(), events);
        self.unjournaled = 0;
        turned.outgoing = after_row(&self.machine, &self.stream, &decided, &row.events);
        turned.decided = Some(Arc::new(decided));
        turned.row = Some(row);
        turned
    }

    /// The row of what was just decided; the head moves to it.
    pub(crate) fn row(
        &mut self,
        decided: &Decided<M::Command, M::Event>,
        position: Position,
        published: u64,
        input: Bytes,
        events: Bytes,
    ) -> Row {
        let mut row = Row {
            sequence: decided.sequence,
            at: decided.at,
            rules: M::RULES,
            position,
            published,
            state_hash: self.machine.hash(),
            chain: [0; 32],
            input,
            events,
        };
        row.chain = row.link(&self.head.chain);
        self.advance(&row);
        row
    }

    pub(crate) fn advance(&mut self, row: &Row) {
        self.head = Head {
            sequence: row.sequence,
            at: row.at,
            position: row.position,
            published: row.published,
            chain: row.chain,
        };
    }
}

/// What is known of a delivery beside its commands.
struct Known {
    delivery: Delivery,
    sender: Sender,
    found: Vec<Found>,
    looked_up: bool,
}

impl<C: Command, E> Draft<C, E> {
    fn refuse(&mut self, to: &Sender, position: Position, place: u32, refused: Refused) {
        match refused.refusal.reason {
            RefusalReason::TooLarge => self.counts.too_large += 1,
            RefusalReason::IdReused => self.counts.conflicts += 1,
            _ => self.counts.malformed += 1,
        }
        self.hold(position);
        self.refusals.push(&to.principal, position, place, refused);
    }

    fn conflict(&mut self, to: &Sender, position: Position, place: u32, command: &C) {
        let problem = "this id was used for another command, whose answer stands";
        let refusal = Refusal::new(RefusalReason::IdReused, "id", command.id(), problem);
        let (id, tenant) = (Some(command.id().clone()), command.tenant().cloned());
        self.refuse(to, position, place, Refused { id, tenant, sequence: None, refusal });
    }

    fn repeat(&mut self, position: Position, place: u32, first: Answered) {
        self.counts.repeated += 1;
        self.hold(position);
        self.repeats.push(Repeat { locator: first.locator, asked_at: position, command: place });
    }

    /// The journaled position stays before this message until it is known to be answered.
    fn hold(&mut self, position: Position) {
        let sequence = position.sequence.saturating_sub(1);
        self.before_untold.get_or_insert(Position { created: position.created, sequence });
    }
}

/// Old answers move from memory to the journal's index, off the hot path.
impl<M: Machine> Turn<M> {
    /// Answers past the kept ones, oldest first, at most `max`. They stay in memory until
    /// [`Turn::indexed`] says that the journal's index holds them.
    pub fn to_index(&self, max: usize) -> Vec<Answered> {
        self.answers.past_kept().take(max).copied().collect()
    }

    /// How many answers of the stream's beginning are past the kept ones. The same for every replica that has
    /// come as far.
    pub fn past_kept(&self) -> u64 {
        self.answers.past_kept_through()
    }

    /// How many answers past the kept ones wait for the index.
    pub fn past_kept_unindexed(&self) -> usize {
        self.answers.unindexed()
    }

    /// How many answers were ever recorded.
    pub const fn answers_recorded(&self) -> u64 {
        self.answers.recorded()
    }

    /// Whether so many answers wait for the index that the driver must wait too.
    pub fn is_index_overdue(&self) -> bool {
        self.answers.unindexed() >= ANSWERS_UNINDEXED_MAX
    }

    /// The journal's index holds the first `through` answers of the stream: memory forgets them as far as they
    /// are past the kept ones.
    pub fn indexed(&mut self, through: u64) {
        while let Some(answered) = self.answers.forget(through) {
            self.filter.add(answered.key);
        }
    }

    /// Adds keys that the journal's index holds, as read from it after a restart.
    pub fn remember_indexed(&mut self, keys: impl IntoIterator<Item = proto::machine::CommandKey>) {
        for key in keys {
            self.filter.add(key);
        }
    }

    /// Checks every invariant that can be seen here, the machine's included. For tests and simulation.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn check(&self) -> Result<(), Broken> {
        self.machine.check()?;
        let broken = |invariant, details: String| Err(Broken { invariant, details });
        if self.head.published > self.head.sequence || self.published > self.head.sequence {
            let details =
                format!("row {} says that row {} was published", self.head.sequence, self.published);
            return broken("I6", details);
        }
        let mut previous = Locator::default();
        for answered in self.answers.past_kept().chain(self.answers.newest()) {
            if answered.locator <= previous || answered.locator.sequence() > self.head.sequence {
                return broken("I1", format!("answer {:?} is out of order", answered.locator));
            }
            if self.answers.find(answered.key) != Some(answered) {
                return broken("I1", format!("command {:032x} is answered twice", answered.key.0));
            }
            previous = answered.locator;
        }
        Ok(())
    }
}
