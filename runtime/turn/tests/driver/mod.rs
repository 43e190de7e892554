//! A small driver of a turn: a bus, a journal and an index of answers in memory, with a crash between any two
//! steps. Written so that what it keeps across a crash is exactly what a real one keeps.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proto::machine::CommandKey;
use proto::{StreamName, Timestamp};
use turn::testing::{Tally, TallyCommand, TallyEvent};
use turn::{Answered, Delivery, Found, Outgoing, Position, Row, Settings, Turn, Turned, decode, retell};

pub(crate) const SETTINGS: Settings = Settings { answers_kept: 8 };

pub(crate) fn stream() -> StreamName {
    "main".parse().unwrap()
}

/// One message in the bus's log.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) principal: &'static str,
    pub(crate) payload: String,
}

/// What survives a crash.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) log: Vec<Message>,
    pub(crate) journal: Vec<Row>,
    pub(crate) index: BTreeMap<CommandKey, Answered>,
    pub(crate) snapshots: Vec<(u64, Vec<u8>)>,
    /// What the broker stored, once per id, in order.
    pub(crate) published: Vec<Outgoing>,
    pub(crate) published_ids: BTreeMap<String, usize>,
    pub(crate) crashes: usize,
}

/// The process was killed here.
pub(crate) struct Crash;

/// Choices of a test, used one after the other and then from the beginning.
pub(crate) struct Choices {
    drawn: Vec<u8>,
    next: usize,
    pub(crate) crashes_left: usize,
}

impl Choices {
    pub(crate) fn new(choices: Vec<u8>, crashes_left: usize) -> Self {
        Self { drawn: choices, next: 0, crashes_left }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let choice = self.drawn.get(self.next % self.drawn.len().max(1)).copied().unwrap_or(0);
        self.next += 1;
        usize::from(choice) % bound
    }

    fn may_crash(&mut self) -> Result<(), Crash> {
        if self.crashes_left > 0 && self.below(7) == 0 {
            self.crashes_left -= 1;
            return Err(Crash);
        }
        Ok(())
    }
}

type Decision = Turned<TallyCommand, TallyEvent>;

impl World {
    pub(crate) fn publish(&mut self, message: &Outgoing) {
        if !self.published_ids.contains_key(&message.id) {
            self.published_ids.insert(message.id.clone(), self.published.len());
            self.published.push(message.clone());
        }
    }

    pub(crate) fn deliveries(&self, after: u64, count: usize) -> Vec<turn::Decoded<TallyCommand>> {
        let messages = (1..).zip(&self.log).skip(after as usize).take(count);
        messages
            .map(|(sequence, message)| {
                let delivery = Delivery {
                    subject: format!("walras.v1.command.tally.main.storefront.{}", message.principal),
                    position: Position { created: 1, sequence },
                    payload: Bytes::from(message.payload.clone()),
                };
                decode::<Tally>(&stream(), delivery)
            })
            .collect()
    }

    /// Loads what a new process loads, and finishes what the last one left.
    pub(crate) fn load(&mut self, choices: &mut Choices) -> Result<Turn<Tally>, Crash> {
        let published = self.journal.last().map_or(0, |row| row.published);
        let usable: Vec<_> = self.snapshots.iter().filter(|(sequence, _)| *sequence <= published).collect();
        let pick = choices.below(usable.len() + 1);
        let mut turn = match usable.get(pick) {
            Some((_, bytes)) => Turn::restore(stream(), SETTINGS, bytes).unwrap(),
            None => Turn::new(stream(), SETTINGS),
        };
        turn.remember_indexed(self.index.keys().copied());
        let tail = self.journal[turn.sequence() as usize..].to_vec();
        for row in &tail {
            let fold = turn.fold(row, row.sequence > published).unwrap();
            for message in &fold.outgoing {
                choices.may_crash()?;
                self.publish(message);
            }
        }
        turn.note_published(turn.sequence());
        turn.check().unwrap();
        Ok(turn)
    }

    /// One turn with everything around it.
    pub(crate) fn turn(
        &mut self,
        turn: &mut Turn<Tally>,
        now: Timestamp,
        count: usize,
        choices: &mut Choices,
    ) -> Result<(), Crash> {
        let mut deliveries = self.deliveries(turn.reached().sequence, count);
        for delivery in &mut deliveries {
            let doubts = turn.doubts(delivery);
            let found = doubts.iter().filter_map(|(command, key)| {
                self.index.get(key).map(|answered| Found { command: *command, answered: *answered })
            });
            delivery.looked_up(found.collect());
        }
        let turned = turn.turn(now, deliveries).unwrap();
        turn.check().unwrap();
        choices.may_crash()?;
        self.finish(turn, &turned, choices)?;
        self.keep(turn, choices)
    }

    pub(crate) fn finish(
        &mut self,
        turn: &mut Turn<Tally>,
        turned: &Decision,
        choices: &mut Choices,
    ) -> Result<(), Crash> {
        if let Some(row) = &turned.row {
            assert_eq!(row.sequence, self.journal.len() as u64 + 1, "the fence");
            self.journal.push(row.clone());
            choices.may_crash()?;
        }
        for message in turned.messages() {
            self.publish(message);
            choices.may_crash()?;
        }
        let mut repeats: VecDeque<_> = turned.repeats.clone().into();
        while let Some(first) = repeats.pop_front() {
            let sequence = first.locator.sequence();
            let row = self.journal[sequence as usize - 1].clone();
            for message in retell::<Tally>(&stream(), &row, &[first]).unwrap() {
                self.publish(&message);
                choices.may_crash()?;
            }
        }
        turn.told(turned.token);
        if let Some(row) = &turned.row {
            turn.note_published(row.sequence);
        }
        Ok(())
    }

    /// What the follower does now and then: index, forget, snapshot.
    fn keep(&mut self, turn: &mut Turn<Tally>, choices: &mut Choices) -> Result<(), Crash> {
        if choices.below(3) > 0 {
            return Ok(());
        }
        let through = turn.past_kept();
        for answered in turn.to_index(usize::MAX) {
            self.index.insert(answered.key, answered);
            choices.may_crash()?;
        }
        turn.indexed(through);
        if turn.sequence() > 0 && choices.below(2) == 0 {
            self.snapshots.push((turn.sequence(), turn.snapshot()));
        }
        Ok(())
    }

    /// Runs until the whole log is decided and everything is published.
    pub(crate) fn run(&mut self, choices: &mut Choices) -> Turn<Tally> {
        let mut now = 0;
        loop {
            match self.life(&mut now, choices) {
                Ok(turn) => return turn,
                Err(Crash) => self.crashes += 1,
            }
        }
    }

    fn life(&mut self, now: &mut i64, choices: &mut Choices) -> Result<Turn<Tally>, Crash> {
        let mut turn = self.load(choices)?;
        while (turn.reached().sequence as usize) < self.log.len() {
            // Clocks go back, too.
            *now += choices.below(60) as i64 - 10;
            if choices.below(4) == 0 {
                self.turn(&mut turn, Timestamp::from_micros(*now), 0, choices)?;
            }
            let count = 1 + choices.below(5);
            self.turn(&mut turn, Timestamp::from_micros(*now), count, choices)?;
        }
        self.turn(&mut turn, Timestamp::from_micros(1_000_000_000), 0, choices)?;
        Ok(turn)
    }
}
