//! Reading an envelope of commands in one pass, into one list.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::envelope::COMMANDS_MAX;

/// The commands of an envelope as `make` makes them, with room for so many; none if it is not an envelope of one to
/// [`COMMANDS_MAX`] commands that can all be read.
pub(super) fn read<C: DeserializeOwned, T>(
    payload: &[u8],
    room: usize,
    make: impl FnMut(C) -> T,
) -> Option<Vec<T>> {
    let mut read = Vec::with_capacity(room);
    let mut from = serde_json::Deserializer::from_slice(payload);
    let envelope = Envelope { commands: Commands { read: &mut read, make, of: PhantomData::<C> } };
    from.deserialize_map(envelope).and_then(|()| from.end()).ok()?;
    (!read.is_empty()).then_some(read)
}

/// `{"commands":[…]}`, and nothing else.
struct Envelope<'a, C, T, F> {
    commands: Commands<'a, C, T, F>,
}

struct Commands<'a, C, T, F> {
    read: &'a mut Vec<T>,
    make: F,
    of: PhantomData<C>,
}

impl<'de, C: DeserializeOwned, T, F: FnMut(C) -> T> Visitor<'de> for Envelope<'_, C, T, F> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match map.next_key::<Cow<'de, str>>()? {
            Some(name) if name == "commands" => map.next_value_seed(self.commands)?,
            _ => return Err(A::Error::missing_field("commands")),
        }
        match map.next_key::<Cow<'de, str>>()? {
            None => Ok(()),
            Some(name) => Err(A::Error::unknown_field(&name, &["commands"])),
        }
    }
}

impl<'de, C: DeserializeOwned, T, F: FnMut(C) -> T> DeserializeSeed<'de> for Commands<'_, C, T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, C: DeserializeOwned, T, F: FnMut(C) -> T> Visitor<'de> for Commands<'_, C, T, F> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of commands")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(command) = list.next_element()? {
            if self.read.len() == COMMANDS_MAX {
                return Err(A::Error::invalid_length(COMMANDS_MAX + 1, &self));
            }
            self.read.push((self.make)(command));
        }
        Ok(())
    }
}
