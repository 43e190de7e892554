//! One machine, turn by turn, as a runner does it.

use proto::machine::{Decided, Entry, Machine, Received, Sender};
use proto::{StreamName, Timestamp};

/// One machine, turn by turn, beside a fold of its events.
pub(crate) struct Run<M: Machine> {
    pub(crate) machine: M,
    folded: M,
    sequence: u64,
    stream: StreamName,
}

impl<M: Machine> Run<M> {
    pub(crate) fn new(stream: &str) -> Self {
        let stream = stream.parse::<StreamName>().unwrap();
        Self { machine: M::new(&stream), folded: M::new(&stream), sequence: 0, stream }
    }

    pub(crate) fn turn(
        &mut self,
        now: Timestamp,
        commands: Vec<(Sender, M::Command)>,
    ) -> Decided<M::Command, M::Event> {
        let (mut all, mut entries) = (Vec::new(), Vec::new());
        let wake = |machine: &mut M, all: &mut Vec<M::Event>| {
            for _ in 0..1_000 {
                if machine.wake_at().is_none_or(|at| at > now) {
                    return;
                }
                machine.wake(now, all);
            }
            panic!("wakes without end");
        };
        wake(&mut self.machine, &mut all);
        entries.push(Entry { received: None, events_end: all.len() });
        for (sender, command) in commands {
            let received = Received::new(sender, command);
            self.machine.step(now, &received, &mut all);
            entries.push(Entry { received: Some(received), events_end: all.len() });
        }
        wake(&mut self.machine, &mut all);
        entries.push(Entry { received: None, events_end: all.len() });
        self.machine.check().unwrap();
        self.machine.check_turn().unwrap();
        for event in &all {
            self.folded.apply(now, event);
        }
        assert_eq!(self.folded.hash(), self.machine.hash(), "folding gave another hash");
        assert!(self.folded.snapshot() == self.machine.snapshot(), "folding gave another snapshot");
        self.sequence += 1;
        Decided { sequence: self.sequence, at: now, entries, events: all }
    }

    pub(crate) fn restart(&mut self) {
        self.machine = M::restore(&self.stream, &self.machine.snapshot()).unwrap();
    }
}
