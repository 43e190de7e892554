//! What a site is told of hosts and planes, and why it may refuse.

use super::Amounts;

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostTerms {
    /// Its zone's number, below [`PLACES_MAX`](super::PLACES_MAX).
    pub zone: u32,
    /// Its region's number, below [`PLACES_MAX`](super::PLACES_MAX).
    pub region: u32,
    /// A bit for each taint that a plane must tolerate.
    pub taints: u64,
    /// What it has of each resource.
    pub capacity: Amounts,
}

/// A plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneTerms {
    /// How many pods.
    pub replicas: u32,
    /// What each of them takes of each resource.
    pub request: Amounts,
    /// Whether its replicas are kept in different zones where there are enough. They are on different hosts always.
    pub spread: bool,
    /// A bit for each taint that it tolerates.
    pub tolerates: u64,
    /// A bit for each region that is near enough to its workers.
    pub regions: u64,
}

/// Why something was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// A number is past its bound.
    #[error("{what}: {found} is too much, at most {most}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much there may be.
        most: u64,
    },
    /// There is none with this number.
    #[error("there is no {what} {ord}")]
    Unknown {
        /// Host or plane.
        what: &'static str,
        /// Its number.
        ord: u32,
    },
}

pub(super) fn most(what: &'static str, found: u64, most: u64) -> Result<(), SiteError> {
    if found <= most { Ok(()) } else { Err(SiteError::TooMuch { what, found, most }) }
}
