//! What a reconciler shows of itself and of the cluster, for those who wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use controlplane::Host;

/// How far a reconciler has got, and which hosts there are.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    /// Whether everything in the management cluster was read.
    pub is_read: bool,
    /// Whether all orders that stood are told.
    pub is_told: bool,
    /// Hosts by name, once all are known.
    pub hosts: Option<Arc<BTreeMap<String, Host>>>,
}

impl Outlook {
    /// Whether it writes what is to be written.
    pub fn is_ready(&self) -> bool {
        self.is_read && self.is_told
    }
}
