//! A tenant's namespace: made before the first plane, ended behind the last.

use std::collections::BTreeSet;

use proto::placement::PlaneNumber;
use proto::{TenantId, Timestamp};

use super::{Note, Phase, Plan, PlaneState, Reason, planes, pods};
use crate::PLANE_LABEL;
use crate::desired::{Desired, Plane};
use crate::kind::Kind;
use crate::manifest;
use crate::name::plane_name;
use crate::observed::{Object, Observed, text};

/// What is looked at together.
pub(super) struct Place<'a> {
    pub(super) desired: &'a Desired,
    pub(super) namespace: &'a str,
    pub(super) observed: &'a Observed,
    pub(super) now: Timestamp,
}

pub(super) fn diff(
    desired: &Desired,
    tenant: &TenantId,
    namespace: &str,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    let place = Place { desired, namespace, observed, now };
    let (ending, standing): (Vec<_>, Vec<_>) =
        desired.planes_of(tenant).partition(|(_, plane)| plane.deleted);
    let is_closing = observed.object(Kind::Namespace, "", namespace).is_some_and(|live| live.deleting);
    // Before the namespace goes, planes go: they need what is in it, and their data store.
    let mut states: Vec<PlaneState> =
        ending.iter().map(|(number, plane)| end(&place, *number, plane, &standing, plan)).collect();
    if standing.is_empty() {
        close(&place, &mut states, plan);
    } else if is_closing {
        let message = format!("namespace {namespace} is being deleted, and is made again when it is gone");
        states.extend(standing.iter().map(|(number, _)| {
            blocked(*number, Note { reason: Reason::NameEnding, message: message.clone() })
        }));
    } else {
        for manifest in manifest::tenant(&standing) {
            plan.apply(manifest, observed);
        }
        for (number, plane) in &standing {
            plan.apply(manifest::budget(*number, plane), observed);
            states.push(planes::diff(&place, *number, plane, plan));
        }
    }
    let known: BTreeSet<String> = standing.iter().map(|(_, plane)| plane_name(&plane.cluster)).collect();
    pods::let_go(&place, &known, plan);
    plan.states
        .extend(states.into_iter().map(|state| PlaneState { namespace: namespace.to_owned(), ..state }));
}

/// The object by which a plane is steered: itself, or its owner where Cluster API has one.
pub(super) fn steered<'a>(place: &Place<'a>, name: &str) -> Option<(Kind, String, &'a Object)> {
    let plane = place.observed.object(Kind::Plane, place.namespace, name);
    let owners = plane.and_then(|plane| plane.body.get("metadata")?.get("ownerReferences")?.as_array());
    let owner = owners.into_iter().flatten().find(|owner| owner["kind"] == Kind::ClusterApiPlane.names().2);
    let owner = owner.and_then(|owner| {
        let name = owner["name"].as_str()?;
        Some((
            Kind::ClusterApiPlane,
            name,
            place.observed.object(Kind::ClusterApiPlane, place.namespace, name)?,
        ))
    });
    let (kind, name, object) = owner.or(plane.map(|plane| (Kind::Plane, name, plane)))?;
    Some((kind, name.to_owned(), object))
}

/// Whose plane an object says it is.
pub(super) fn number_of(object: &Object) -> Option<PlaneNumber> {
    text(&object.body, &["metadata", "labels", PLANE_LABEL])?.parse().ok()
}

/// Ends one plane. It is gone when nothing has its name, or what has it belongs to its successor.
fn end(
    place: &Place<'_>,
    number: PlaneNumber,
    plane: &Plane,
    standing: &[(PlaneNumber, &Plane)],
    plan: &mut Plan,
) -> PlaneState {
    let name = plane_name(&plane.cluster);
    let mut state = PlaneState::new(number, Phase::Gone);
    let live = steered(place, &name);
    if let Some((kind, name, live)) = live.filter(|(.., live)| number_of(live).is_none_or(|of| of == number))
    {
        plan.delete(kind, place.namespace, &name, live);
        state.phase = Phase::Ending;
        return state;
    }
    let is_succeeded = standing.iter().any(|(_, other)| other.cluster == plane.cluster);
    let budget = place.observed.object(Kind::Budget, place.namespace, &name);
    if let Some(budget) = budget.filter(|_| !is_succeeded) {
        plan.delete(Kind::Budget, place.namespace, &name, budget);
        state.phase = Phase::Ending;
    }
    if !is_succeeded && pods::any_left(place, &name) {
        state.phase = Phase::Ending;
    }
    state
}

/// Ends a namespace in which no plane is left; what it holds beside them goes with it. Only then are its planes gone.
fn close(place: &Place<'_>, states: &mut [PlaneState], plan: &mut Plan) {
    let Some(live) = place.observed.object(Kind::Namespace, "", place.namespace) else { return };
    let left = [Kind::Plane, Kind::ClusterApiPlane, Kind::Budget];
    let is_empty = left.iter().all(|kind| place.observed.objects_in(*kind, place.namespace).next().is_none());
    if is_empty {
        plan.delete(Kind::Namespace, "", place.namespace, live);
    }
    for state in states {
        state.phase = Phase::Ending;
    }
}

pub(super) fn blocked(number: PlaneNumber, note: Note) -> PlaneState {
    PlaneState { notes: vec![note], ..PlaneState::new(number, Phase::Blocked) }
}

impl PlaneState {
    pub(crate) fn new(number: PlaneNumber, phase: Phase) -> Self {
        Self {
            number,
            phase,
            reached: None,
            namespace: String::new(),
            ready_on: BTreeSet::new(),
            ready_pods: BTreeSet::new(),
            version: None,
            endpoint: None,
            kubeconfig: None,
            notes: Vec::new(),
        }
    }
}
