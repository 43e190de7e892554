//! Envelopes encoded beforehand: making the next one is a copy and new digits in its ids, so that the load costs
//! next to nothing beside what it loads.

use bytes::Bytes;

use super::engine::Workload;

/// Commands in one envelope.
pub(crate) const ENVELOPE_COMMANDS: u64 = 1_024;
/// Different envelopes; their commands come again with other ids.
const TEMPLATES: u64 = 64;
/// Digits of a command's number.
const DIGITS: usize = 10;
/// What stands before them, once in each command.
pub(crate) const MARK: &[u8] = br#""id":"c"#;

struct Template {
    json: Vec<u8>,
    /// Where the digits of each command's number are.
    places: Vec<usize>,
}

/// An endless supply of envelopes.
pub(crate) struct Envelopes {
    templates: Vec<Template>,
    next: u64,
}

impl Envelopes {
    /// Envelopes of commands from the number `first` on.
    pub(crate) fn from<W: Workload>(first: u64) -> Self {
        let template = |number: u64| {
            let first = number * ENVELOPE_COMMANDS;
            let commands: Vec<_> = (first..first + ENVELOPE_COMMANDS).map(W::command).collect();
            let json = format!(r#"{{"commands":[{}]}}"#, commands.join(",")).into_bytes();
            let places = places(&json).collect();
            Template { json, places }
        };
        Self { templates: (0..TEMPLATES).map(template).collect(), next: first }
    }

    /// Bytes of an envelope.
    pub(crate) fn bytes(&self) -> usize {
        self.templates.first().map_or(0, |template| template.json.len())
    }

    /// The next one, and the number of its first command.
    pub(crate) fn next(&mut self) -> (u64, Bytes) {
        let first = self.next;
        self.next += ENVELOPE_COMMANDS;
        let Template { json, places } =
            &self.templates[(first / ENVELOPE_COMMANDS) as usize % self.templates.len()];
        let mut json = json.clone();
        for (number, place) in (first..).zip(places) {
            let mut rest = number;
            for digit in json[*place..*place + DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        (first, Bytes::from(json))
    }
}

fn places(json: &[u8]) -> impl Iterator<Item = usize> {
    json.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK).map(|(at, _)| at + MARK.len())
}

/// The numbers of the commands whose ids a message of answers names. An award names its bid by another field.
pub(crate) fn numbers(answers: &[u8]) -> impl Iterator<Item = u64> {
    let text = std::str::from_utf8(answers).unwrap_or_default();
    let mark = std::str::from_utf8(MARK).unwrap_or_default();
    text.match_indices(mark)
        .filter_map(move |(at, _)| text.get(at + mark.len()..)?.get(..DIGITS)?.parse().ok())
}
