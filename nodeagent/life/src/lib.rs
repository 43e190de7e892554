//! A worker's life as a machine without clock, sockets and files: it joins its tenant's cluster, runs, hears a notice,
//! sends its pods away and leaves.
//!
//! [`Life`] takes what happened and gives what is to be done; the shell does that and decides nothing. [`Drain`] is the
//! part that empties the Node, [`Notices`] the part that knows when the server will be gone, [`metadata`] reads what
//! clouds and hypervisors say about that, [`Saved`] is what survives a crash. Time is an argument, as the span since
//! any fixed instant. `README.md` says what is promised, and how.

mod drain;
mod life;
mod limits;
pub mod metadata;
mod notice;
mod saved;
mod wall;

pub use drain::{Answered, Drain, DrainAction, Pod, PodKind};
pub use life::{Action, Exit, Input, Life, LifeConfig, Look, Phase, Status};
pub use limits::Limits;
pub use notice::{Notice, Notices, Source, When};
pub use saved::{Saved, SavedError};
pub use wall::Wall;
