//! What survives a crash.

use proto::worker::{Admission, Undone};
use serde::{Deserialize, Serialize};

use crate::life::Phase;
use crate::notice::Notices;

/// The form below. What another version wrote is not guessed at.
const VERSION: u32 = 1;

/// What is on disk of a life: enough to go on from after a crash at any moment. It holds secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    version: u32,
    /// How far it was.
    pub phase: Phase,
    /// What the secret was redeemed for.
    pub admission: Box<Admission>,
    /// The notices that stood.
    pub notices: Notices,
    /// Reports are numbered from here on; none that was sent had a larger number.
    pub sequence: u64,
    /// Whether the Node was cordoned by us, or may have been.
    pub cordoned: bool,
    /// What could not be done.
    pub undone: Vec<Undone>,
    /// How often the kubelet was started again.
    pub kubelet_restarts: u32,
    /// The service's clock less the worker's, in microseconds.
    pub skew_micros: i64,
}

/// Why a file holds no life.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// Not the form.
    #[error("the state is not in a form that this version reads")]
    Form(#[from] serde_json::Error),
    /// The form of another version.
    #[error("the state is of version {0}, this agent reads {VERSION}")]
    Version(u32),
}

impl Saved {
    /// A life that begins with an admission.
    pub(crate) fn new(admission: Admission) -> Saved {
        Saved {
            version: VERSION,
            phase: Phase::Configuring,
            admission: Box::new(admission),
            notices: Notices::default(),
            sequence: 0,
            cordoned: false,
            undone: Vec::new(),
            kubelet_restarts: 0,
            skew_micros: 0,
        }
    }

    /// Reads what [`Saved::write`] wrote.
    ///
    /// # Errors
    /// When it is something else, or of another version.
    pub fn read(bytes: &[u8]) -> Result<Saved, SavedError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(SavedError::Version(version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The life as text.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which does not happen.
    pub fn write(&self) -> Result<Vec<u8>, SavedError> {
        Ok(serde_json::to_vec_pretty(self)?)
    }
}
