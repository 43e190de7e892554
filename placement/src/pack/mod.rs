//! Packing planes onto hosts: the pure function behind `walras pack` (DESIGN §10).

mod draws;
mod fill;
mod format;
mod packing;
mod problem;
mod reason;
mod reduce;
mod search;
mod settle;
mod solve;

pub use format::{
    Amounts, EFFORT, HostInput, NAME_BYTES_MAX, PackError, PackInput, PackOutput, PlaneInput, PlaneOutput,
    TemplateInput, UnplacedOutput, pack, pack_json,
};
pub use packing::less_reserve;
pub use problem::{
    AMOUNT_MAX, HOSTS_MAX, Host, HostOrd, PERMILLE, PLANES_MAX, Plane, Problem, ProblemError, REPLICAS_MAX,
    RESOURCES_MAX,
};
pub use reason::Reason;
pub use solve::{Solution, Unplaced, solve};
