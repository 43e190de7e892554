//! One plane: made, changed one step at a time, moved without ever being without a pod that serves.
//!
//! Every change of a plane's pods costs a whole rollout, new pods before old ones. So what differs is asked for in one
//! write, and the next waits until the plane has come to rest. It does not wait where no pod serves, for there is
//! nothing to lose, nor for ever.

use std::collections::BTreeSet;

use proto::Timestamp;
use proto::placement::{KubernetesVersion, PlaneNumber};

use super::seen::Seen;
use super::tenants::{Place, blocked, number_of, steered};
use super::{Note, Phase, Plan, PlaneState, ROLLOUT_SECONDS_MAX, Reason, pods};
use crate::change::Change;
use crate::cover::covers;
use crate::desired::Plane;
use crate::host::Host;
use crate::kind::Kind;
use crate::manifest::{self, Manifest, PlaneTerms, kamaji_driver};
use crate::name::plane_name;
use crate::observed::{Object, Pod, at, text};

/// A plane that stands, with what was ordered for it.
struct Standing<'a> {
    number: PlaneNumber,
    plane: &'a Plane,
    name: &'a str,
    seen: Seen<'a>,
    /// What is written to, in place of the plane itself where Cluster API owns it.
    kind: Kind,
    steered_name: &'a str,
    steered: &'a Object,
    pods: &'a [(&'a str, &'a Pod)],
    is_at_rest: bool,
}

pub(super) fn diff(place: &Place<'_>, number: PlaneNumber, plane: &Plane, plan: &mut Plan) -> PlaneState {
    let name = plane_name(&plane.cluster);
    let Some(live) = place.observed.object(Kind::Plane, place.namespace, &name) else {
        return create(place, number, plane, &name, plan);
    };
    let ending = || {
        let message =
            format!("{}/{name} is being deleted, and is made again when it is gone", place.namespace);
        blocked(number, Note { reason: Reason::NameEnding, message })
    };
    let Some((kind, steered_name, steered)) = steered(place, &name) else { return ending() };
    if live.deleting || steered.deleting {
        return ending();
    }
    if let Some(other) = number_of(steered).filter(|other| *other != number) {
        let message = format!("{}/{name} is plane {other}", place.namespace);
        return blocked(number, Note { reason: Reason::NameTaken, message });
    }
    let pods: Vec<_> = pods::of_plane(place, &name).collect();
    let seen = Seen::read(live, steered);
    let is_at_rest = seen.is_at_rest(&pods);
    let standing = Standing {
        number,
        plane,
        name: &name,
        seen,
        kind,
        steered_name: &steered_name,
        steered,
        pods: &pods,
        is_at_rest,
    };
    let mut state = PlaneState::new(number, Phase::Rolling);
    state.version = standing.seen.installed;
    state.endpoint = text(&live.body, &["status", "controlPlaneEndpoint"]).map(str::to_owned);
    state.kubeconfig = text(&live.body, &["status", "kubeconfig", "admin", "secretName"]).map(str::to_owned);
    pods::place_held(place, &name, &plane.hosts, &pods, plan, &mut state.notes);
    standing.steer(place, plan, &mut state);
    state
}

/// Makes a plane, once its data store is there.
fn create(place: &Place<'_>, number: PlaneNumber, plane: &Plane, name: &str, plan: &mut Plan) -> PlaneState {
    if place.observed.object(Kind::ClusterApiPlane, place.namespace, name).is_some() {
        // Its owner is there, and makes it.
        return PlaneState::new(number, Phase::Starting);
    }
    if pods::any_left(place, name) {
        // Kamaji would take them for its own.
        let message = format!("pods of what was {}/{name} have not ended", place.namespace);
        return blocked(number, Note { reason: Reason::NameEnding, message });
    }
    if let Err(note) = usable(place, &plane.data_store, kamaji_driver(plane.driver)) {
        return blocked(number, note);
    }
    let site = &place.desired.site;
    let (version, data_store) = (plane.version, plane.data_store.as_str());
    plan.push(manifest::plane(&PlaneTerms { number, plane, site, version, data_store, rollout: 0 }), None);
    PlaneState::new(number, Phase::Starting)
}

/// Whether a data store is there, ready, and of a driver.
fn usable(place: &Place<'_>, name: &str, driver: &str) -> Result<(), Note> {
    let refuse = |reason, message| Err(Note { reason, message });
    let Some(store) = place.observed.object(Kind::DataStore, "", name).filter(|store| !store.deleting) else {
        return refuse(Reason::DataStoreUnknown, format!("there is no data store {name:?}"));
    };
    let found = text(&store.body, &["spec", "driver"]).unwrap_or_default();
    if found != driver {
        let message = format!("data store {name:?} is {found}, and the data are, or are to be, in {driver}");
        return refuse(Reason::DriverDiffers, message);
    }
    if *at(&store.body, &["status", "ready"]) != true {
        return refuse(Reason::DataStoreUnknown, format!("data store {name:?} is not ready"));
    }
    Ok(())
}

/// Whether the policy that holds new pods is in force as we wrote it.
fn policies_stand(place: &Place<'_>) -> bool {
    manifest::policies().iter().all(|policy| {
        let live = place.observed.object(policy.kind, "", &policy.name);
        live.is_some_and(|live| covers(&policy.body, &live.body))
    })
}

impl Standing<'_> {
    fn manifest(
        &self,
        place: &Place<'_>,
        version: KubernetesVersion,
        data_store: &str,
        rollout: u64,
    ) -> Manifest {
        let (number, plane, site) = (self.number, self.plane, &place.desired.site);
        let terms = PlaneTerms { number, plane, site, version, data_store, rollout };
        match self.kind {
            Kind::ClusterApiPlane => manifest::cluster_api_plane(self.steered_name, &terms),
            _ => manifest::plane(&terms),
        }
    }

    /// Asks for what differs: first all but the data store, then that, then where the pods are.
    fn steer(&self, place: &Place<'_>, plan: &mut Plan, state: &mut PlaneState) {
        let (plane, seen) = (self.plane, &self.seen);
        let version = self.next_version(&mut state.notes);
        let first = self.manifest(place, version, seen.data_store, seen.rollout);
        let agrees = covers(&first.body, &self.steered.body);
        let is_elsewhere = plane.data_store != seen.data_store;
        let mut store_note = None;
        if !agrees {
            self.ask(place, first, plan, state);
        } else if is_elsewhere {
            let driver = place.observed.object(Kind::DataStore, "", seen.data_store);
            let driver = driver.and_then(|store| text(&store.body, &["spec", "driver"]));
            match usable(place, &plane.data_store, driver.unwrap_or(kamaji_driver(plane.driver))) {
                Ok(()) => {
                    let moved = self.manifest(place, version, &plane.data_store, seen.rollout);
                    self.ask(place, moved, plan, state);
                }
                Err(note) => store_note = Some(note),
            }
        }
        let ready = self.pods.iter().filter(|(_, pod)| pod.ready);
        state.ready_pods = ready.clone().map(|(name, _)| (*name).to_owned()).collect();
        state.ready_on = ready.filter_map(|(_, pod)| pod.host.clone()).collect();
        let is_refused = store_note.is_some() || !state.notes.is_empty();
        state.notes.extend(store_note);
        let is_home = self.is_home();
        let stays = agrees && (!is_elsewhere || is_refused);
        if stays && self.is_at_rest && !is_home {
            self.relocate(place, version, plan);
        }
        let is_done = agrees && !is_elsewhere && version == plane.version && self.is_at_rest;
        if is_done && is_home {
            state.reached = Some(plane.generation);
        }
        state.phase = if is_refused && state.reached.is_none() {
            Phase::Blocked
        } else if is_done && plane.replicas == 0 {
            Phase::Asleep
        } else if state.ready_on.is_empty() {
            Phase::Starting
        } else if !is_done {
            Phase::Rolling
        } else if is_home {
            Phase::Ready
        } else {
            Phase::Displaced
        };
    }

    /// The version to ask for now: the next minor on the way, never an older one.
    fn next_version(&self, notes: &mut Vec<Note>) -> KubernetesVersion {
        let Some(asked) = self.seen.version else { return self.plane.version };
        if let Some(next) = toward(asked, self.plane.version) {
            // One upgrade ends before the next is asked for.
            return if self.seen.installed.is_none_or(|installed| installed == asked) { next } else { asked };
        }
        let message = format!("it runs {asked}, and {} was ordered", self.plane.version);
        notes.push(Note { reason: Reason::DowngradeRefused, message });
        asked
    }

    /// Writes what was worked out, now or when the plane has come to rest.
    fn ask(&self, place: &Place<'_>, manifest: Manifest, plan: &mut Plan, state: &mut PlaneState) {
        let same_pods = covers(&manifest.body["spec"], &self.steered.body["spec"])
            && manifest.body["metadata"]["annotations"] == self.steered_annotations(&manifest);
        if same_pods || self.is_at_rest || !self.pods.iter().any(|(_, pod)| pod.ready) {
            return plan.push(manifest, (!same_pods).then_some(self.steered.version));
        }
        let began = self.pods.iter().map(|(_, pod)| pod.created_at).max().max(self.steered.changed_at);
        let ends = began.unwrap_or(Timestamp::MIN).plus_seconds(ROLLOUT_SECONDS_MAX);
        if ends > place.now {
            return plan.wake(ends);
        }
        let message =
            format!("a rollout has not ended for {ROLLOUT_SECONDS_MAX} s, and the next change goes on top");
        state.notes.push(Note { reason: Reason::RolloutSlow, message });
        plan.push(manifest, Some(self.steered.version));
    }

    /// Of what stands, the annotations that a manifest names.
    fn steered_annotations(&self, manifest: &Manifest) -> serde_json::Value {
        let live = at(&self.steered.body, &["metadata", "annotations"]);
        let named = manifest.body["metadata"]["annotations"].as_object().into_iter().flatten();
        named.map(|(name, _)| (name.clone(), live[name.as_str()].clone())).collect()
    }

    /// Whether the pods are where they are to be. Replicas that have no place yet may be anywhere.
    fn is_home(&self) -> bool {
        let (away, missing) = self.displaced();
        let without_place = (self.plane.replicas as usize).saturating_sub(self.plane.hosts.len());
        missing.is_empty() && away.len() <= without_place
    }

    /// Pods that are where they should not be, and hosts that lack one.
    fn displaced(&self) -> (Vec<&(&str, &Pod)>, Vec<&String>) {
        let wanted: BTreeSet<&String> = self.plane.hosts.iter().collect();
        let taken: BTreeSet<&String> = self.pods.iter().filter_map(|(_, pod)| pod.host.as_ref()).collect();
        let away =
            self.pods.iter().filter(|(_, pod)| pod.host.as_ref().is_none_or(|host| !wanted.contains(host)));
        (away.collect(), wanted.difference(&taken).copied().collect())
    }

    /// Moves one pod. One of several is evicted, and its successor is held until it may go where it belongs; the only
    /// one is replaced by a rollout, in which the new pod serves before the old one ends.
    fn relocate(&self, place: &Place<'_>, version: KubernetesVersion, plan: &mut Plan) {
        let (away, missing) = self.displaced();
        let takes_pods = |host: &str| place.observed.host(host).is_some_and(Host::takes_pods);
        // Where new pods are not held, another would come up anywhere, and be moved again, and again.
        let are_held = place.desired.site.gates && policies_stand(place);
        if away.is_empty() || !are_held || !missing.iter().any(|host| takes_pods(host)) {
            return;
        }
        if self.plane.replicas == 1 {
            let next = self.seen.rollout.saturating_add(1);
            return plan
                .push(self.manifest(place, version, self.seen.data_store, next), Some(self.steered.version));
        }
        let budget = manifest::budget(self.number, self.plane);
        let guarded = place.observed.object(Kind::Budget, place.namespace, self.name);
        if !guarded.is_some_and(|guarded| covers(&budget.body, &guarded.body)) {
            return;
        }
        // First from where no pod could come back to.
        let of_pod = |pod: &Pod| pod.host.as_deref().is_some_and(takes_pods);
        if let Some((name, pod)) = away.into_iter().min_by_key(|(name, pod)| (of_pod(pod), *name)) {
            let (namespace, name) = (place.namespace.to_owned(), (*name).to_owned());
            plan.changes.push(Change::Evict { namespace, name, uid: pod.uid.clone() });
        }
    }
}

/// The next step on the way from one version to another: one minor at most. `None` if the way would lead down.
fn toward(from: KubernetesVersion, to: KubernetesVersion) -> Option<KubernetesVersion> {
    if to < from {
        return None;
    }
    let next = from.minor.saturating_add(1);
    Some(if to.minor > next { KubernetesVersion { minor: next, patch: 0 } } else { to })
}

#[cfg(test)]
mod tests {
    use super::toward;

    #[test]
    fn upgrades_pass_through_each_minor() {
        let steps = |from: &str, to: &str| {
            toward(from.parse().unwrap(), to.parse().unwrap()).map(|next| next.to_string())
        };
        assert_eq!(steps("v1.33.4", "v1.33.9").as_deref(), Some("v1.33.9"));
        assert_eq!(steps("v1.33.4", "v1.34.2").as_deref(), Some("v1.34.2"));
        assert_eq!(steps("v1.33.4", "v1.36.2").as_deref(), Some("v1.34.0"));
        assert_eq!(steps("v1.34.0", "v1.33.9"), None);
        assert_eq!(steps("v1.34.2", "v1.34.1"), None);
    }
}
