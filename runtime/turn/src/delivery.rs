//! Messages as they come from the bus, and what is known of them before anything is decided.

use bytes::Bytes;
use proto::envelope::{Refusal, RefusalReason, Refused};
use proto::machine::{Command, Received, Sender};
use proto::subject::CommandSubject;
use proto::{Machine, StreamName, decode as read};

use crate::answers::Answered;

/// A place in a stream of the bus. A stream that was created anew counts from the beginning again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// When the bus's stream was created, UTC microseconds.
    pub created: i64,
    /// The message's number in it, from 1; 0: before the first.
    pub sequence: u64,
}

/// One message of a command stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its subject.
    pub subject: String,
    /// Its place.
    pub position: Position,
    /// Its body as it came.
    pub payload: Bytes,
}

/// A command of a delivery that was found in the index of old answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which command of the delivery, counted from 0.
    pub command: u32,
    /// What was recorded for its key.
    pub answered: Answered,
}

/// A delivery with all that can be worked out without the machine's state.
#[derive(Clone, Debug)]
pub struct Decoded<C> {
    pub(crate) delivery: Delivery,
    pub(crate) content: Content<C>,
    pub(crate) found: Vec<Found>,
    pub(crate) looked_up: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Content<C> {
    /// Commands, each read for itself.
    Commands { sender: Sender, commands: Vec<Result<Received<C>, Box<Refused>>> },
    /// No commands can be read from it.
    Unreadable { sender: Sender, refused: Box<Refused> },
    /// Its subject names nobody who could be answered, or another machine or stream.
    Misdirected,
}

impl<C> Decoded<C> {
    /// Where it stands in the bus's stream.
    pub fn position(&self) -> Position {
        self.delivery.position
    }

    /// Its subject.
    pub fn subject(&self) -> &str {
        &self.delivery.subject
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.delivery.payload.len()
    }

    /// How many commands it holds, readable or not.
    pub fn commands(&self) -> usize {
        match &self.content {
            Content::Commands { commands, .. } => commands.len(),
            Content::Unreadable { .. } | Content::Misdirected => 0,
        }
    }

    /// Whether nobody can be answered: its subject is wrong.
    pub fn is_misdirected(&self) -> bool {
        matches!(self.content, Content::Misdirected)
    }

    /// Hands over what the index of old answers holds for the commands that [`crate::Turn::doubts`] named.
    pub fn looked_up(&mut self, found: Vec<Found>) {
        self.found = found;
        self.looked_up = true;
    }
}

/// Reads a delivery to `stream` of machine `M`. Pure and independent of any state, so that it can run on
/// another thread than the decisions do.
pub fn decode<M: Machine>(stream: &StreamName, delivery: Delivery) -> Decoded<M::Command> {
    let content = match CommandSubject::parse(&delivery.subject) {
        Ok(subject) if subject.machine == M::NAME && subject.stream == *stream => {
            content(subject.sender, &delivery.payload)
        }
        Ok(_) | Err(_) => Content::Misdirected,
    };
    Decoded { delivery, content, found: Vec::new(), looked_up: false }
}

fn content<C: Command>(sender: Sender, payload: &[u8]) -> Content<C> {
    // The payload goes into the journal as it came, as part of a JSON text, which is UTF-8.
    if let Err(error) = std::str::from_utf8(payload) {
        let shown = String::from_utf8_lossy(payload.get(..64).unwrap_or(payload));
        let refusal = Refusal::new(RefusalReason::Malformed, "message", shown, &error.to_string());
        return Content::Unreadable { sender, refused: Box::new(whole(refusal)) };
    }
    match read::commands_as(payload, |command| Received::new(sender.clone(), command)) {
        Ok(commands) => Content::Commands { sender, commands },
        Err(refused) => Content::Unreadable { sender, refused },
    }
}

fn whole(refusal: Refusal) -> Refused {
    Refused { id: None, tenant: None, sequence: None, refusal }
}
