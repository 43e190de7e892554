//! What one bus message carries: one or many commands, the events of one batch, the answers to one party.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{CommandId, StreamName, TenantId, shorten};
use crate::machine::CommandKey;
use crate::time::Timestamp;

/// Most commands of one envelope.
pub const COMMANDS_MAX: usize = 1_024;
/// Most bytes of one message.
pub const MESSAGE_BYTES_MAX: usize = 768 * 1024;

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// What is wrong, as a word for programs.
    pub reason: RefusalReason,
    /// Which field of the command.
    pub field: String,
    /// The field's value as it came, shortened.
    pub value: String,
    /// One line for people.
    pub message: String,
}

impl Refusal {
    /// A refusal that says what is wrong with a field's value.
    #[allow(clippy::needless_pass_by_value)] // numbers and texts alike, without a borrow at every call
    pub fn new(reason: RefusalReason, field: &str, value: impl ToString, problem: &str) -> Self {
        let (field, value) = (shorten(&line(field)), shorten(&line(&value.to_string())));
        let problem: String = line(problem).chars().take(PROBLEM_CHARACTERS_MAX).collect();
        let message = format!("{field}: {problem} (got {value})");
        Self { reason, field, value, message }
    }
}

/// Most characters of what is said about a value.
const PROBLEM_CHARACTERS_MAX: usize = 320;

/// A text from outside on one line: a refusal is logged, and a sender must not be able to forge a log's lines.
fn line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// What is wrong with a refused command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// It cannot be read: not JSON, a missing or unknown field, a value of the wrong form.
    Malformed,
    /// It is larger than a message may be.
    TooLarge,
    /// Its id was used with other content; the first answer stands.
    IdReused,
    /// Its sender may not ask this.
    NotAllowed,
    /// It names something that is not there.
    Unknown,
    /// It names something that has ended.
    Ended,
    /// It is older than what is known.
    Stale,
    /// A value is outside its range.
    OutOfRange,
    /// A limit is not on the market's ladder.
    OffLadder,
    /// A limit is below the market's reserve.
    BelowReserve,
    /// A value stands twice.
    Duplicate,
    /// A bound on how much may stand at once is reached.
    LimitReached,
    /// It is right but not supported by this version.
    Unsupported,
}

/// The answer to a command that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// The command's id, where one could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// Its tenant, where one could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Where in the machine's stream it was decided; absent for what never got that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// What is wrong.
    #[serde(flatten)]
    pub refusal: Refusal,
}

/// Commands sent together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commands<C> {
    /// In the order in which they are to be decided.
    #[schemars(length(min = 1, max = 1024))]
    pub commands: Vec<C>,
}

/// Answers told together to one principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answers<A> {
    /// The machine that decided.
    pub machine: String,
    /// Its stream.
    pub stream: StreamName,
    /// The batch that they follow from; absent for commands that could not be read. After a failure a message may
    /// come again, or behind a later one: facts about one bid go by sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The instant of the batch.
    pub at: Timestamp,
    /// In order.
    pub answers: Vec<A>,
}

/// The events of one input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventEntry<E> {
    /// The command's key; absent for a wake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CommandKey>,
    /// The command's digest, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What followed from it.
    pub events: Vec<E>,
}

/// One batch of a machine's events: what one turn decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventBatch<E> {
    /// The machine.
    pub machine: String,
    /// Its stream.
    pub stream: StreamName,
    /// Place in the stream, counted from 1, without gaps.
    pub sequence: u64,
    /// The instant of the whole batch.
    pub at: Timestamp,
    /// Version of the rules that decided.
    pub rules: u32,
    /// Inputs in order, each with its events.
    pub entries: Vec<EventEntry<E>>,
}
