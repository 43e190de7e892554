//! The contract of everything that decides (DESIGN §4): time is an argument, a refusal is an event, and folding
//! the events gives the same state as deciding them did.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::id::{CommandId, PrincipalId, StreamName, TenantId};
use crate::time::Timestamp;

/// What a principal is, fixed by the broker's permissions and never by a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Publishes the bids of the tenants that it is trusted for.
    Storefront,
    /// Our own HTTP door for tenants, trusted for every tenant because it checks their tokens.
    Gateway,
    /// Owns servers: offers supply, gives pre-emption notices.
    Hypervisor,
    /// The agent on one leased server.
    Worker,
    /// Sets rules, opens markets.
    Operator,
    /// Another service of ours.
    Service,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Storefront, Self::Gateway, Self::Hypervisor, Self::Worker, Self::Operator, Self::Service];

    /// The role as a token of a subject.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Storefront => "storefront",
            Self::Gateway => "gateway",
            Self::Hypervisor => "hypervisor",
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Service => "service",
        }
    }

    /// The role a token names.
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.token() == token)
    }
}

/// Who sent a command. Principals are unique across roles.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Sender {
    /// What the sender is.
    pub role: Role,
    /// Which one it is.
    pub principal: PrincipalId,
}

/// A command id made unique among all senders: 128 bits of SHA-256. Ids are unique per tenant where a command
/// has one, else per principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandKey(pub u128);

impl CommandKey {
    /// The key of a tenant's id. A bid is known by the key of its placement.
    pub fn of_tenant(tenant: &TenantId, id: &str) -> Self {
        Self::hash(b't', tenant.as_str(), id)
    }

    /// The key of a principal's own id.
    pub fn of_sender(sender: &Sender, id: &CommandId) -> Self {
        Self::hash(sender.role as u8, sender.principal.as_str(), id.as_str())
    }

    fn hash(scope: u8, owner: &str, id: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update([scope]);
        hasher.update(owner.as_bytes());
        hasher.update([0]);
        hasher.update(id.as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize()[..16]);
        Self(u128::from_be_bytes(first))
    }
}

impl Serialize for CommandKey {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        Hex::<32>::of(self.0).serialize(out)
    }
}

/// A number in so many hexadecimal digits, lower case: every command has two such texts in its row, and formatting
/// them in the general way would take as long as the rest of its events.
#[derive(Clone, Copy, Debug)]
pub struct Hex<const DIGITS: usize>([u8; DIGITS]);

impl<const DIGITS: usize> Hex<DIGITS> {
    /// The lowest digits of `number`.
    pub fn of(mut number: u128) -> Self {
        let mut digits = [0; DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789abcdef"[(number & 15) as usize];
            number >>= 4;
        }
        Self(digits)
    }
}

impl<const DIGITS: usize> Serialize for Hex<DIGITS> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        // Digits are ASCII.
        out.serialize_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

struct KeyVisitor;

impl de::Visitor<'_> for KeyVisitor {
    type Value = CommandKey;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("32 hexadecimal digits in lower case")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<CommandKey, E> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(E::invalid_value(de::Unexpected::Str(text), &self));
        }
        u128::from_str_radix(text, 16).map(CommandKey).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for CommandKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(KeyVisitor)
    }
}

impl JsonSchema for CommandKey {
    fn schema_name() -> Cow<'static, str> {
        "CommandKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-f]{32}$" })
    }
}

/// A command with everything about it that must be known before it is decided, worked out while decoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Received<C> {
    /// Who sent it, as its subject says.
    pub sender: Sender,
    /// Its id among all commands.
    pub key: CommandKey,
    /// 64 bits of SHA-256 of its sender and content: the same key with another digest is another command.
    pub digest: u64,
    /// What is asked.
    pub command: C,
}

/// Room for most commands as JSON, so that writing one does not move it again and again.
const COMMAND_BYTES_USUAL: usize = 512;

impl<C: Command> Received<C> {
    /// Works out key and digest.
    pub fn new(sender: Sender, mut command: C) -> Self {
        let key = match command.tenant() {
            Some(tenant) => CommandKey::of_tenant(tenant, command.id().as_str()),
            None => CommandKey::of_sender(&sender, command.id()),
        };
        command.seal(key);
        let mut hasher = Sha256::new();
        hasher.update(sender.role.token().as_bytes());
        hasher.update(sender.principal.as_str().as_bytes());
        hasher.update([0]);
        let mut json = Vec::with_capacity(COMMAND_BYTES_USUAL);
        // Commands are plain data; writing one to memory cannot fail.
        let _ = crate::json::write(&command, &mut json);
        hasher.update(&json);
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize()[..8]);
        Self { sender, key, digest: u64::from_be_bytes(first), command }
    }
}

/// What every machine's commands have in common.
pub trait Command: Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned {
    /// The sender's id for it.
    fn id(&self) -> &CommandId;
    /// The tenant it is sent for, if it is sent for one.
    fn tenant(&self) -> Option<&TenantId>;
    /// Works out what is derived from the content, such as hashed names; done once, while decoding. `key` is its own.
    fn seal(&mut self, _key: CommandKey) {}
}

/// One decided input: a command, or a wake that was due.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<C> {
    /// The command; `None` for a wake.
    pub received: Option<Received<C>>,
    /// Where its events end in [`Decided::events`]; they start where the previous entry's end.
    pub events_end: usize,
}

/// What one turn decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided<C, E> {
    /// Place in the machine's stream, counted from 1.
    pub sequence: u64,
    /// The instant of the whole turn.
    pub at: Timestamp,
    /// Inputs in order.
    pub entries: Vec<Entry<C>>,
    /// All events in order.
    pub events: Vec<E>,
}

impl<C, E> Decided<C, E> {
    /// The entries, each with its events.
    pub fn iter(&self) -> impl Iterator<Item = (&Entry<C>, &[E])> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let events = &self.events[start..entry.events_end];
            start = entry.events_end;
            (entry, events)
        })
    }
}

/// A message that follows from what was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where it goes.
    pub subject: String,
    /// `type` attribute of its `CloudEvents` headers.
    pub kind: &'static str,
    /// Its JSON.
    pub payload: Vec<u8>,
    /// Whether the broker must have stored it before it counts as published. Public prices need not: the
    /// next one replaces them, and a query tells the present one.
    pub durable: bool,
}

/// 128 bits that two equal states share and two different ones do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateHash(pub u128);

/// Why a snapshot cannot be used. The journal is replayed instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The bytes are not a snapshot of this version.
    #[error("snapshot cannot be read: {problem}")]
    Unreadable {
        /// What is wrong with it.
        problem: String,
    },
    /// The state does not have the hash it was saved with.
    #[error("snapshot has another hash than it was saved with")]
    Hash,
}

/// An invariant of DESIGN §11 that does not hold: a bug, never an input's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant {invariant} is broken: {details}")]
pub struct Broken {
    /// Which one, such as `I2`.
    pub invariant: &'static str,
    /// What was found.
    pub details: String,
}

/// A deterministic state machine: the only kind of thing that makes decisions here.
pub trait Machine: Sized {
    /// First token of its subjects and name of its journal streams.
    const NAME: &'static str;
    /// Version of the rules this build decides by; journaled with every batch.
    const RULES: u32;
    /// Version of its snapshots' layout.
    const SNAPSHOT: u32;
    /// What it is asked.
    type Command: Command;
    /// What it decides.
    type Event: Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned;

    /// A machine before its first command.
    fn new(stream: &StreamName) -> Self;

    /// Decides a command at `now` and appends the events. The first event of a command is its answer; there is
    /// always one, a refusal if nothing else.
    fn step(&mut self, now: Timestamp, received: &Received<Self::Command>, events: &mut Vec<Self::Event>);

    /// When the machine wants [`Machine::wake`] called, if ever. May lie in the past.
    fn wake_at(&self) -> Option<Timestamp>;

    /// Does what has become due by `now`. Waking early decides nothing.
    fn wake(&mut self, now: Timestamp, events: &mut Vec<Self::Event>);

    /// Folds one event into the state: total, because an event that happened cannot be refused. Folding all
    /// events of a stream gives the state and hash that deciding them gave.
    fn apply(&mut self, at: Timestamp, event: &Self::Event);

    /// A hash of the whole state, kept up to date as it changes.
    fn hash(&self) -> StateHash;

    /// The whole state as bytes: equal states give equal bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// The state a snapshot holds.
    ///
    /// # Errors
    /// When the bytes are not a snapshot of version [`Machine::SNAPSHOT`].
    fn restore(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError>;

    /// Checks every invariant that can be seen in one state.
    ///
    /// # Errors
    /// The first invariant found broken.
    fn check(&self) -> Result<(), Broken>;

    /// Checks what is cheap enough to check after every turn in production.
    ///
    /// # Errors
    /// The first invariant found broken.
    fn check_turn(&self) -> Result<(), Broken> {
        Ok(())
    }

    /// Whether an answer says that its command was not carried out; for counting.
    fn is_refusal(_answer: &Self::Event) -> bool {
        false
    }

    /// Appends the messages that concern single parties or the public, as they follow from what was just
    /// decided. Called with the state right after the turn.
    fn tell(&self, decided: &Decided<Self::Command, Self::Event>, out: &mut Vec<Publication>);

    /// The recorded answer to a command that was sent again, made from its journaled entry alone.
    fn retell(
        stream: &StreamName,
        sequence: u64,
        at: Timestamp,
        received: &Received<Self::Command>,
        events: &[Self::Event],
    ) -> Option<Publication>;

    /// Loads what deciding this command will need into the cache, so that a batch's misses overlap; returns
    /// something that depends on it.
    fn touch(&self, _received: &Received<Self::Command>) -> u64 {
        0
    }
}
