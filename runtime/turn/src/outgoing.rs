//! Messages that follow from a turn, with ids that make a repeat harmless.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::envelope::{Answers, MESSAGE_BYTES_MAX, Refused};
use proto::machine::Decided;
use proto::{Machine, PrincipalId, Publication, StreamName, Timestamp, subject};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::delivery::Position;

/// `type` of a message that carries a batch of events.
pub const KIND_EVENTS: &str = "walras.event-batch";
/// `type` of a message that stands for a batch too large for one message; it has no entries.
pub const KIND_EVENTS_OMITTED: &str = "walras.event-batch-omitted";
/// `type` of a message that carries answers.
pub const KIND_ANSWERS: &str = "walras.answers";
/// Most answers put into one message here.
const ANSWERS_PER_MESSAGE_MAX: usize = 1_024;

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The same message has the same id however often it is made.
    pub id: String,
    /// Where it goes.
    pub subject: String,
    /// `type` attribute of its `CloudEvents` headers.
    pub kind: &'static str,
    /// Its body.
    pub payload: Bytes,
    /// Whether the broker must have stored it before it counts as published.
    pub durable: bool,
}

impl Outgoing {
    fn new(id: String, publication: Publication) -> Self {
        let Publication { subject, kind, payload, durable } = publication;
        Self { id, subject, kind, payload: Bytes::from(payload), durable }
    }
}

/// Everything that follows from a row: answers first, because somebody waits for them, then the events, then
/// what is only told to whoever listens.
pub(crate) fn after_row<M: Machine>(
    machine: &M,
    stream: &StreamName,
    decided: &Decided<M::Command, M::Event>,
    events: &Bytes,
) -> Vec<Outgoing> {
    let mut told = Vec::new();
    machine.tell(decided, &mut told);
    let (durable, passing): (Vec<_>, Vec<_>) = told.into_iter().partition(|one| one.durable);
    let mut numbered = Numbered { prefix: format!("{}.{stream}.{}", M::NAME, decided.sequence), next: 0 };
    let mut out = Vec::with_capacity(durable.len() + passing.len() + 1);
    for one in durable.into_iter().flat_map(split) {
        out.push(numbered.number(one));
    }
    let facts = batch_message::<M>(stream, decided, events);
    out.push(Outgoing { id: numbered.id(), ..facts });
    out.extend(passing.into_iter().map(|one| numbered.number(one)));
    out
}

/// The batch as it is published. One that is larger than a message may be is only announced: its readers ask the
/// stream's owner, as they do when batches are missing.
fn batch_message<M: Machine>(
    stream: &StreamName,
    decided: &Decided<M::Command, M::Event>,
    events: &Bytes,
) -> Outgoing {
    let (id, subject) = (String::new(), subject::events(M::NAME, stream));
    if events.len() <= MESSAGE_BYTES_MAX {
        return Outgoing { id, subject, kind: KIND_EVENTS, payload: events.clone(), durable: true };
    }
    let (machine, sequence, at, rules) = (M::NAME, decided.sequence, decided.at, M::RULES);
    let omitted = Omitted { machine, stream, sequence, at, rules, omitted_bytes: events.len() };
    // Plain data written to memory.
    let payload = Bytes::from(serde_json::to_vec(&omitted).unwrap_or_default());
    Outgoing { id, subject, kind: KIND_EVENTS_OMITTED, payload, durable: true }
}

/// Stands in the place of a batch of events that is too large for one message.
#[derive(Serialize)]
struct Omitted<'a> {
    machine: &'static str,
    stream: &'a StreamName,
    sequence: u64,
    at: Timestamp,
    rules: u32,
    omitted_bytes: usize,
}

struct Numbered {
    prefix: String,
    next: u32,
}

impl Numbered {
    fn id(&mut self) -> String {
        let id = format!("{}.{}", self.prefix, self.next);
        self.next += 1;
        id
    }

    fn number(&mut self, publication: Publication) -> Outgoing {
        Outgoing::new(self.id(), publication)
    }
}

/// A refusal in the form of every machine's answers.
#[derive(Serialize)]
#[serde(tag = "type")]
enum Answer {
    Refused(Refused),
}

/// Refusals that were not decided by the machine, by whom they go to.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_principal: BTreeMap<PrincipalId, Vec<(Position, u32, Refused)>>,
}

impl Refusals {
    pub(crate) fn push(&mut self, to: &PrincipalId, position: Position, command: u32, refused: Refused) {
        let refusal = (position, command, refused);
        match self.by_principal.get_mut(to) {
            Some(list) => list.push(refusal),
            None => {
                self.by_principal.insert(to.clone(), vec![refusal]);
            }
        }
    }

    /// The messages that tell them.
    pub(crate) fn tell<M: Machine>(self, stream: &StreamName, at: Timestamp) -> Vec<Outgoing> {
        let mut out = Vec::new();
        for (principal, mut refusals) in self.by_principal {
            while !refusals.is_empty() {
                let rest = refusals.split_off(refusals.len().min(ANSWERS_PER_MESSAGE_MAX));
                let (Some(first), Some(last)) = (refusals.first(), refusals.last()) else { break };
                let (first, last) = ((first.0, first.1), (last.0, last.1));
                let id = at_once_id::<M>(stream, "refused", first, last, refusals.len());
                let answers = refusals.into_iter().map(|(_, _, refused)| Answer::Refused(refused)).collect();
                refusals = rest;
                let payload = envelope::<M, _>(stream, None, at, answers);
                let subject = subject::answer(&principal);
                let publication = Publication { subject, kind: KIND_ANSWERS, payload, durable: true };
                out.extend(number_pieces(&id, split(publication)));
            }
        }
        out
    }
}

/// The id of a message that answers commands without a row: the places of the first and the last of them in the
/// input, and how many there are. Read again after a crash, the same messages may be batched otherwise; then the
/// answers go out in other messages, which must not be taken for these.
pub(crate) fn at_once_id<M: Machine>(
    stream: &StreamName,
    what: &str,
    first: (Position, u32),
    last: (Position, u32),
    count: usize,
) -> String {
    let ((first, first_command), (last, last_command)) = (first, last);
    let (created, from, to) = (first.created, first.sequence, last.sequence);
    format!("{}.{stream}.{what}.{created}.{from}.{first_command}-{to}.{last_command}.{count}", M::NAME)
}

pub(crate) fn number_pieces(id: &str, pieces: Vec<Publication>) -> Vec<Outgoing> {
    let whole = pieces.len() == 1;
    let name = |piece: usize| if whole { id.to_owned() } else { format!("{id}.{piece}") };
    pieces.into_iter().enumerate().map(|(piece, one)| Outgoing::new(name(piece), one)).collect()
}

fn envelope<M: Machine, A: Serialize>(
    stream: &StreamName,
    sequence: Option<u64>,
    at: Timestamp,
    answers: Vec<A>,
) -> Vec<u8> {
    let answers = Answers { machine: M::NAME.to_owned(), stream: stream.clone(), sequence, at, answers };
    // Plain data written to memory.
    serde_json::to_vec(&answers).unwrap_or_default()
}

/// Splits answers that are larger together than a message may be. What is no list of answers stays whole.
pub(crate) fn split(publication: Publication) -> Vec<Publication> {
    if publication.payload.len() <= MESSAGE_BYTES_MAX {
        return vec![publication];
    }
    let Ok(whole) = serde_json::from_slice::<Answers<&RawValue>>(&publication.payload) else {
        return vec![publication];
    };
    let head = whole.machine.len() + whole.stream.as_str().len() + 256;
    let mut pieces: Vec<Vec<&RawValue>> = Vec::new();
    let mut room = 0;
    for answer in &whole.answers {
        let bytes = answer.get().len() + 1;
        match pieces.last_mut() {
            Some(piece) if bytes <= room => {
                piece.push(answer);
                room -= bytes;
            }
            _ => {
                pieces.push(vec![answer]);
                room = MESSAGE_BYTES_MAX.saturating_sub(head + bytes);
            }
        }
    }
    pieces.into_iter().map(|answers| with_answers(&publication, &whole, answers)).collect()
}

/// Puts answers to the same party from the same batch into one message each.
pub(crate) fn merge(publications: Vec<Publication>) -> Vec<Publication> {
    let mut out: Vec<Publication> = Vec::new();
    let mut run: Vec<Publication> = Vec::new();
    for publication in publications {
        if run.first().is_some_and(|first| first.subject != publication.subject)
            || run.len() >= ANSWERS_PER_MESSAGE_MAX
        {
            out.extend(merge_run(std::mem::take(&mut run)));
        }
        run.push(publication);
    }
    out.extend(merge_run(run));
    out
}

fn merge_run(run: Vec<Publication>) -> Vec<Publication> {
    let read: Result<Vec<Answers<&RawValue>>, _> =
        run.iter().map(|one| serde_json::from_slice(&one.payload)).collect();
    let Ok(read) = read else { return run };
    let (Some(publication), Some(first)) = (run.first(), read.first()) else { return run };
    if run.len() == 1 || read.iter().any(|one| (one.sequence, one.at) != (first.sequence, first.at)) {
        return run;
    }
    let answers = read.iter().flat_map(|one| one.answers.iter().copied()).collect();
    split(with_answers(publication, first, answers))
}

fn with_answers(like: &Publication, whole: &Answers<&RawValue>, answers: Vec<&RawValue>) -> Publication {
    let answers = Answers {
        machine: whole.machine.clone(),
        stream: whole.stream.clone(),
        sequence: whole.sequence,
        at: whole.at,
        answers,
    };
    let payload = serde_json::to_vec(&answers).unwrap_or_default();
    Publication { payload, ..like.clone() }
}
