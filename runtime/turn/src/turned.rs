//! What a turn yields.

use std::sync::Arc;

use proto::machine::Decided;

use crate::outgoing::Outgoing;
use crate::retell::Repeat;
use crate::row::Row;

/// Names the turns whose immediate answers are out. See [`crate::Turn::told`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub(crate) u64);

/// What a turn yields. All of it goes out in the order of the turns, and nothing of it before every row up to
/// its own is committed.
#[derive(Clone, Debug)]
pub struct Turned<C, E> {
    /// What must be committed; `None`: nothing changed.
    pub row: Option<Row>,
    /// What was decided, for followers in the same process; there whenever a row is.
    pub decided: Option<Arc<Decided<C, E>>>,
    /// What follows from the row, in order. Made again from the journal after a crash.
    pub outgoing: Vec<Outgoing>,
    /// Refusals of what never got to the machine. Made again from the input after a crash: the journaled
    /// position stays before it until [`crate::Turn::told`].
    pub at_once: Vec<Outgoing>,
    /// Repeated commands whose recorded answer is to be told again; they too hold the position back.
    pub repeats: Vec<Repeat>,
    /// To be handed to [`crate::Turn::told`] when `at_once` and `repeats` are out.
    pub token: Token,
    /// What there was.
    pub counts: Counts,
}

/// What a turn had to do with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages.
    pub deliveries: u64,
    /// Commands decided, refused ones included.
    pub decided: u64,
    /// Commands that the machine refused.
    pub refused: u64,
    /// Wakes that decided something.
    pub wakes: u64,
    /// Commands whose answer is told again.
    pub repeated: u64,
    /// Commands whose id was used with other content.
    pub conflicts: u64,
    /// Commands or messages that cannot be read.
    pub malformed: u64,
    /// Messages larger than they may be.
    pub too_large: u64,
    /// Messages whose subject names nobody or another stream.
    pub misdirected: u64,
    /// Messages that had been read before and were passed over.
    pub passed_over: u64,
}

impl<C, E> Turned<C, E> {
    /// Everything that is ready to be published, in order; repeats are still to be told.
    pub fn messages(&self) -> impl Iterator<Item = &Outgoing> {
        self.outgoing.iter().chain(&self.at_once)
    }
}
