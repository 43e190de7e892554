//! Requests that wait for a machine's answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use proto::{CommandId, TenantId};
use tokio::sync::oneshot;

use super::problem::Problem;

/// Requests that may wait for an answer of one machine at once.
const WAITING_MAX: usize = 65_536;

/// Whose command, and which.
pub(super) type Key = (TenantId, CommandId);

/// Who waits for which command.
#[derive(Debug)]
pub(super) struct Waiting<A>(Mutex<HashMap<Key, oneshot::Sender<A>>>);

impl<A> Default for Waiting<A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<A> Waiting<A> {
    /// Waits from now on.
    pub(super) fn wait(&self, key: Key) -> Result<oneshot::Receiver<A>, Problem> {
        let (told, answer) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX {
            return Err(Problem::too_many(1));
        }
        // A second request under the id takes the answer over; the first is told to ask again.
        waiting.insert(key, told);
        Ok(answer)
    }

    /// Forgets a request that waits no longer.
    pub(super) fn forget(&self, key: &Key) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.get(key).is_some_and(oneshot::Sender::is_closed) {
            waiting.remove(key);
        }
    }

    /// Hands an answer to the request that waits for it, if one does.
    pub(super) fn hand(&self, key: Option<Key>, answer: A) {
        let told = key.and_then(|key| self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key));
        if let Some(told) = told {
            // Whoever asked may have gone away.
            let _ = told.send(answer);
        }
    }
}
