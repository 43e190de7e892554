//! What a management cluster is to hold, what it holds, and the changes that make the two agree.
//!
//! It is pure: [`Desired`] comes from placement's orders, [`Observed`] from what was read of the cluster, and
//! [`diff`] says what to write next. The shell reads, writes and comes again; it decides nothing. Method and
//! properties: `README.md` beside this crate.

mod announce;
mod change;
mod cover;
mod desired;
mod diff;
mod health;
mod host;
mod hosts;
mod kind;
mod manifest;
mod name;
mod observed;
mod order;
mod quantity;
mod report;
pub mod workers;

pub use announce::announce;
pub use change::{Change, Request};
pub use desired::{Amount, DataStore, Desired, Exposure, Plane, SecretKey, Site, Toleration};
pub use diff::{
    GATE_SECONDS_MAX, Note, Phase, Plan, PlaneState, ROLLOUT_SECONDS_MAX, Reason, diff, diff_site,
    diff_tenant,
};
pub use health::{Counts, Health, Look, MET_LOOKS_MIN, MISSED_LOOKS_MIN, Objectives};
pub use host::{GONE_AT, HYPERVISOR, Host};
pub use hosts::{HOST_SILENT_SECONDS, HostRules, Hosts, KnownHost};
pub use kind::Kind;
pub use name::{namespace_name, plane_name};
pub use observed::{Object, Observed, Pod, Touched, Unreadable};
pub use report::Reports;

/// The field manager under which everything is written.
pub const MANAGER: &str = "walras";
/// The gate that new pods of planes get from our admission policy.
pub const GATE: &str = "walras.dev/placement";
/// Label of what we wrote, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", MANAGER);
/// Label of a plane's number.
pub const PLANE_LABEL: &str = "walras.dev/plane";
/// Annotation of a pod template: a new number makes new pods.
pub const ROLLOUT: &str = "walras.dev/rollout";
/// Annotation with the digest of what was applied last, so that a field that is no longer wanted is noticed.
pub const APPLIED: &str = "walras.dev/applied";
/// Label by which Kamaji names the plane of a pod.
pub const PLANE_OF_POD: &str = "kamaji.clastix.io/name";
