//! What to write next, so that the management cluster comes to hold what is desired.
//!
//! It looks at levels, not at edges: from whatever stands, the next changes follow, so that a change that was lost,
//! done twice, undone by somebody or seen late needs no case of its own.

mod planes;
mod pods;
mod seen;
mod tenants;

use std::collections::BTreeSet;

use proto::placement::{KubernetesVersion, PlaneNumber};
use proto::{TenantId, Timestamp};

use crate::change::Change;
use crate::cover::covers;
use crate::desired::Desired;
use crate::kind::Kind;
use crate::manifest::{self, Manifest};
use crate::name::namespace_name;
use crate::observed::{Object, Observed};

/// A pod for which no host is found within so many seconds starts wherever the scheduler likes: a plane somewhere is
/// better than none.
pub const GATE_SECONDS_MAX: u32 = 30;
/// A rollout that has not ended after so many seconds may be overtaken by the next change, which may be what mends it.
pub const ROLLOUT_SECONDS_MAX: u32 = 600;

/// What a plane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It cannot be made as ordered; a note says why.
    Blocked,
    /// It has not been ready yet, or no pod of it is.
    Starting,
    /// Its pods are being replaced.
    Rolling,
    /// It serves as ordered.
    Ready,
    /// It serves, but not where it is to be.
    Displaced,
    /// It sleeps as ordered.
    Asleep,
    /// It is being deleted.
    Ending,
    /// It was to go, and nothing of it is left.
    Gone,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Blocked,
        Self::Starting,
        Self::Rolling,
        Self::Ready,
        Self::Displaced,
        Self::Asleep,
        Self::Ending,
        Self::Gone,
    ];

    /// Its word in metrics and messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Starting => "starting",
            Self::Rolling => "rolling",
            Self::Ready => "ready",
            Self::Displaced => "displaced",
            Self::Asleep => "asleep",
            Self::Ending => "ending",
            Self::Gone => "gone",
        }
    }
}

/// Why a plane is not yet, or will not be, as ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its data store is not there, or not ready.
    DataStoreUnknown,
    /// Its data store is of another driver than the one that has its data.
    DriverDiffers,
    /// A version below the one that runs was ordered.
    DowngradeRefused,
    /// What has its name is being deleted, by us or by somebody.
    NameEnding,
    /// What has its name belongs to another plane.
    NameTaken,
    /// A host where a replica is to be takes no pods.
    HostUnfit,
    /// A rollout takes longer than it should.
    RolloutSlow,
}

impl Reason {
    /// Its word in metrics and events.
    pub const fn word(self) -> &'static str {
        match self {
            Self::DataStoreUnknown => "DataStoreUnknown",
            Self::DriverDiffers => "DriverDiffers",
            Self::DowngradeRefused => "DowngradeRefused",
            Self::NameEnding => "NameEnding",
            Self::NameTaken => "NameTaken",
            Self::HostUnfit => "HostUnfit",
            Self::RolloutSlow => "RolloutSlow",
        }
    }
}

/// A reason, with what it concerns, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The reason.
    pub reason: Reason,
    /// One sentence.
    pub message: String,
}

/// How a plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneState {
    /// Which plane.
    pub number: PlaneNumber,
    /// What it is doing.
    pub phase: Phase,
    /// The order that is carried out, if the last one is.
    pub reached: Option<u64>,
    /// Where it is in the management cluster.
    pub namespace: String,
    /// Hosts with a replica that serves.
    pub ready_on: BTreeSet<String>,
    /// Pods that serve.
    pub ready_pods: BTreeSet<String>,
    /// The version that is served, once there is one.
    pub version: Option<KubernetesVersion>,
    /// Where it is reached, once that is known.
    pub endpoint: Option<String>,
    /// The Secret with its administrator's kubeconfig, once there is one.
    pub kubeconfig: Option<String>,
    /// Why it is not as ordered.
    pub notes: Vec<Note>,
}

/// What to write now, and when to look again even if nothing is seen to change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order; if one fails, those behind it wait.
    pub changes: Vec<Change>,
    /// Every plane that was looked at.
    pub states: Vec<PlaneState>,
    /// When time alone changes something.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    fn join(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.states.extend(other.states);
        if let Some(at) = other.wake_at {
            self.wake(at);
        }
    }

    /// Asks for an object as its manifest says, unless it stands so. What is being deleted is left to end.
    fn apply(&mut self, manifest: Manifest, observed: &Observed) {
        let live = observed.object(manifest.kind, &manifest.namespace, &manifest.name);
        if live.is_none_or(|live| !live.deleting && !covers(&manifest.body, &live.body)) {
            self.push(manifest, None);
        }
    }

    fn push(&mut self, manifest: Manifest, on_version: Option<u64>) {
        let Manifest { kind, namespace, name, body } = manifest;
        self.changes.push(Change::Apply { kind, namespace, name, manifest: body, on_version });
    }

    fn delete(&mut self, kind: Kind, namespace: &str, name: &str, live: &Object) {
        if !live.deleting {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            let (uid, on_version) = (live.uid.clone(), None);
            self.changes.push(Change::Delete { kind, namespace, name, uid, on_version });
        }
    }
}

/// Everything that is to be written: what the site has once, then tenant by tenant.
pub fn diff(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = diff_site(desired, observed);
    for tenant in desired.tenants() {
        plan.join(diff_tenant(desired, tenant, observed, now));
    }
    plan
}

/// What is to be written of what the site has once: the policy that holds new pods, and data stores of ours.
pub fn diff_site(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    for policy in manifest::policies() {
        if desired.site.gates {
            plan.apply(policy, observed);
        } else if let Some(live) = observed.object(policy.kind, "", &policy.name) {
            plan.delete(policy.kind, "", &policy.name, live);
        }
    }
    // What is no longer declared stays: planes may have their data there.
    for (name, store) in &desired.data_stores {
        plan.apply(manifest::data_store(name, store), observed);
    }
    plan
}

/// What is to be written in the namespace of one tenant.
pub fn diff_tenant(desired: &Desired, tenant: &TenantId, observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    tenants::diff(desired, tenant, &namespace_name(tenant), observed, now, &mut plan);
    plan
}
