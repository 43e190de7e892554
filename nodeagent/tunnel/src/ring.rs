//! Whose turn it is.

use std::collections::BTreeSet;

/// Connections that have something to send, served in turn. Leaving is exact, so that nothing stale collects while
/// the stream stands.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    members: BTreeSet<i64>,
    last: i64,
}

impl Ring {
    pub(crate) fn insert(&mut self, id: i64) {
        self.members.insert(id);
    }

    pub(crate) fn remove(&mut self, id: i64) {
        self.members.remove(&id);
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.members.contains(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The member after the one returned before, around the ring. It stays a member.
    pub(crate) fn turn(&mut self) -> Option<i64> {
        let after = self.last.checked_add(1).and_then(|from| self.members.range(from..).next().copied());
        let id = after.or_else(|| self.members.first().copied())?;
        self.last = id;
        Some(id)
    }
}
