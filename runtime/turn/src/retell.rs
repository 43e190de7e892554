//! Telling a recorded answer again.

use proto::machine::Entry;
use proto::{Machine, StreamName};

use crate::answers::Locator;
use crate::delivery::Position;
use crate::fold::{self, FoldError};
use crate::input;
use crate::outgoing::{Outgoing, at_once_id, merge, number_pieces};
use crate::row::Row;

/// A command that was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repeat {
    /// Where it was decided.
    pub locator: Locator,
    /// The message that repeats it.
    pub asked_at: Position,
    /// Which command of that message.
    pub command: u32,
}

/// The recorded answers to `repeats`, all of which were decided in `row`. Ids come from the places of the
/// repeats, so that asking again is answered again, and reading the same questions again after a crash is not.
///
/// # Errors
/// When the row cannot be read, or a repeat names an entry that it does not have.
pub fn retell<M: Machine>(
    stream: &StreamName,
    row: &Row,
    repeats: &[Repeat],
) -> Result<Vec<Outgoing>, FoldError> {
    let unreadable = |problem: String| FoldError::Input { sequence: row.sequence, problem };
    let batch = fold::events::<M>(stream, row)?;
    let entries = input::entries::<M>(stream, row.position, &row.input).map_err(unreadable)?;
    let mut told = Vec::new();
    for repeat in repeats {
        let index = repeat.locator.index() as usize;
        let entry = entries.get(index).zip(batch.entries.get(index));
        let Some((Entry { received: Some(received), .. }, events)) = entry else {
            return Err(unreadable(format!("entry {index} is no command")));
        };
        told.extend(M::retell(stream, row.sequence, row.at, received, &events.events));
    }
    let (Some(first), Some(last)) = (repeats.first(), repeats.last()) else { return Ok(Vec::new()) };
    let (first, last) = ((first.asked_at, first.command), (last.asked_at, last.command));
    let id = at_once_id::<M>(stream, "again", first, last, repeats.len());
    // Repeats of one message that were decided in several rows are told by several messages.
    Ok(number_pieces(&format!("{id}.{}", row.sequence), merge(told)))
}
